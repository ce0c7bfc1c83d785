"""Whole benchmarks: against replayed servers, and against real Ollama and llama-server."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import testbed

from ggufkit.bench.address import open_client
from ggufkit.bench.file import published_schema, read_result
from ggufkit.bench.questions import five_questions, prompt_question
from ggufkit.bench.result import BenchResult, Run, Settings
from ggufkit.errors import AccessError, NetworkError, NotFoundError, TargetExistsError, UsageError
from ggufkit.progress import Silent
from ggufkit.verbs.bench import BenchPlan, bench, plan_bench
from tests.bench.asking import LLAMA, OLLAMA, SETTINGS
from tests.bench.schema_check import faults
from tests.support.cut import first_layers
from tests.support.replay import (
    Replay,
    Reply,
    Route,
    delta,
    finish,
    json_reply,
    recording,
    run_replay,
    sse,
    usage,
)
from tests.support.runtimes import LlamaServer, OllamaServer, free_port, run_llama_server, run_ollama

FIVE = five_questions("en")
GOOD = sse(*(delta(content=c) for c in "the answer 9.9"), finish(), usage(70, 15), gap_s=0.002)


class Heard(Silent):
    """What was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def run(
    server: Replay | LlamaServer | OllamaServer, output: Path, settings: Settings = SETTINGS, **named: Any
) -> BenchResult:
    client = open_client(server.url, named.pop("api", None), {})
    models, questions = named.pop("models", ["smol"]), named.pop("questions", FIVE)
    heard = named.pop("heard", None) or Heard()
    plan = plan_bench(client, models, questions, settings, output=output, **named)
    return bench(plan, client, heard)


def runs(result: BenchResult) -> list[Run]:
    return [run for model in result.models for question in model.questions for run in question.runs]


@pytest.fixture
def ollama() -> Iterator[Replay]:
    with run_replay({**OLLAMA, "/api/chat": recording("ol2_chat", speed=20)}) as server:
        yield server


@pytest.fixture
def online() -> Iterator[Replay]:
    with run_replay({"/v1/chat/completions": GOOD}) as server:
        yield server


def test_five_questions_three_times_in_one_file(ollama: Replay, tmp_path: Path) -> None:
    heard = Heard()
    result = run(ollama, tmp_path / "r.json", replace(SETTINGS, n_repeats=3), heard=heard)
    assert result == read_result(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text("utf-8"))
    schema = published_schema()
    assert faults(document, schema, schema) == []
    (model,) = result.models
    assert [len(question.runs) for question in model.questions] == [3] * 5
    assert sorted(run.order for run in runs(result)) == list(range(1, 16))
    assert [question.runs[0].order for question in model.questions] == [1, 2, 3, 4, 5]
    assert model.facts.digest == "ab" * 32 and model.load is not None and model.load.cold is True
    assert result.server.kind == "ollama" and result.server.version == "0.5.4" and result.finished_at
    assert model.summary.n_runs == 15 and model.summary.generation and model.summary.generation.n == 15
    assert heard.notes[0] == "smol: loading"
    assert heard.notes[-1].startswith("15 of 15, smol, physics-en: length, 24 tokens")


def test_no_two_prompts_begin_alike(ollama: Replay, tmp_path: Path) -> None:
    result = run(ollama, tmp_path / "r.json", replace(SETTINGS, n_repeats=3))
    prompts = [body["messages"][0]["content"] for body in ollama.bodies("/api/chat")]
    assert len({prompt.partition("\n")[0] for prompt in prompts}) == 15
    assert {run.nonce for run in runs(result)} == {prompt.partition("\n")[0] for prompt in prompts}
    run(ollama, tmp_path / "as-is.json", replace(SETTINGS, cache="as-is"))
    prompts = [body["messages"][0]["content"] for body in ollama.bodies("/api/chat")][15:]
    assert prompts == [question.text for question in FIVE]


def test_settings_reach_ollama(ollama: Replay, tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_tokens=77, seed=5, context_tokens=8192)
    run(ollama, tmp_path / "r.json", settings, questions=(FIVE[0], prompt_question(9)))
    load, (first, prompt) = ollama.bodies("/api/generate")[0], ollama.bodies("/api/chat")
    assert load["options"] == {"num_ctx": 8192} and "prompt" not in load
    assert first["options"] == {"num_predict": 77, "num_ctx": 8192, "temperature": 0.0, "seed": 5}
    assert prompt["options"]["num_predict"] == 16, "a prompt to be read needs no long answer"


def test_the_server_s_defaults_are_left_alone(online: Replay, tmp_path: Path) -> None:
    run(online, tmp_path / "r.json", replace(SETTINGS, temperature=None))
    body = online.bodies("/v1/chat/completions")[1]
    assert body.keys() == {"model", "messages", "stream", "max_tokens", "stream_options"}


def test_interrupted_and_gone_on_with(online: Replay, tmp_path: Path) -> None:
    class Interrupting(Heard):
        def note(self, message: str) -> None:
            super().note(message)
            if message.startswith("7 of 10"):
                raise KeyboardInterrupt

    path, settings = tmp_path / "r.json", replace(SETTINGS, n_repeats=2)
    with pytest.raises(KeyboardInterrupt):
        run(online, path, settings, heard=Interrupting())
    half = read_result(path)
    assert len(runs(half)) == 7 and half.finished_at is None
    asked = len(online.bodies("/v1/chat/completions"))
    whole = run(online, path, settings, resume=True)
    assert len(online.bodies("/v1/chat/completions")) == asked + 3 + 1, "three questions and a warm-up"
    assert len(runs(whole)) == 10 and whole.finished_at and whole.started_at == half.started_at
    kept = {(run.order, run.nonce) for run in runs(half)}
    assert kept <= {(run.order, run.nonce) for run in runs(whole)}
    assert sorted(run.order for run in runs(whole)) == list(range(1, 11))
    again = run(online, path, settings, resume=True)
    assert len(online.bodies("/v1/chat/completions")) == asked + 4 and runs(again) == runs(whole)


def test_failed_answers_are_kept_and_asked_again_on_resume(tmp_path: Path) -> None:
    warm, bad = GOOD, Reply((), 500, "text/plain")
    with run_replay({"/v1/chat/completions": [warm, GOOD, bad, GOOD, GOOD, bad, warm, GOOD]}) as server:
        first = run(server, tmp_path / "r.json")
        assert [run.status for run in runs(first)] == ["complete", "error", "complete", "complete", "error"]
        assert first.models[0].summary.n_sound == 3
        second = run(server, tmp_path / "r.json", resume=True)
        assert [run.status for run in runs(second)] == ["complete"] * 5


def test_more_models_and_repeats_may_be_added(online: Replay, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    run(online, path)
    more = run(online, path, replace(SETTINGS, n_repeats=2), models=["smol", "other"], resume=True)
    assert [(model.name, model.summary.n_runs) for model in more.models] == [("smol", 10), ("other", 10)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"settings": replace(SETTINGS, max_tokens=5)}, "settings"),
        ({"questions": FIVE[:3]}, "questions"),
        ({"models": ["other"]}, "--model"),
    ],
)
def test_a_file_made_otherwise_is_not_gone_on_with(
    online: Replay, tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    path = tmp_path / "r.json"
    run(online, path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=word):
        run(online, path, resume=True, **change)
    with pytest.raises(TargetExistsError, match="is there already"):
        run(online, path)
    assert path.read_bytes() == before
    assert runs(run(online, path, force=True)) != []


def test_answers_under_way_at_the_same_time(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(_: Any) -> Reply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1
        return GOOD

    with run_replay({"/v1/chat/completions": slow}) as server:
        result = run(server, tmp_path / "r.json", replace(SETTINGS, n_concurrent=3, n_repeats=2))
    assert most == 3 and len(runs(result)) == 10
    assert sorted(run.order for run in runs(result)) == list(range(1, 11))


def test_an_interrupt_ends_answers_under_way(tmp_path: Path) -> None:
    class Interrupting(Heard):
        def note(self, message: str) -> None:
            if message.startswith("1 of 5"):
                raise KeyboardInterrupt

    endless = Reply(((0.0, b": wait"),), hang_s=20)
    with run_replay({"/v1/chat/completions": [GOOD, GOOD, endless]}) as server:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run(server, tmp_path / "r.json", replace(SETTINGS, n_concurrent=2), heard=Interrupting())
        assert time.monotonic() - begun < 10
    assert len(runs(read_result(tmp_path / "r.json"))) == 1


def test_models_that_are_not_there(ollama: Replay, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no model nope; it has smol:latest"):
        run(ollama, tmp_path / "r.json", models=["smol", "nope"])
    assert run(ollama, tmp_path / "r.json", models=[]).models[0].name == "smol:latest", "the only one"
    ollama.routes["/api/tags"] = json_reply({"models": []})
    with pytest.raises(NotFoundError, match="which model"):
        run(ollama, tmp_path / "other.json", models=[])


@pytest.mark.parametrize(("status", "kind"), [(401, AccessError), (404, NotFoundError), (503, NetworkError)])
def test_a_server_that_refuses_ends_it_before_any_file(tmp_path: Path, status: int, kind: type) -> None:
    refusal = json_reply({"error": {"message": "no, key-123 is not known"}}, status)
    routes: dict[str, Route] = {"/v1/chat/completions": refusal}
    with run_replay(routes) as server:
        client = open_client(server.url, "openai", {"GGUFKIT_API_KEY": "key-123"})
        plan = plan_bench(client, ["smol"], FIVE, SETTINGS, output=tmp_path / "r.json")
        with pytest.raises(kind) as refused:
            bench(plan, client)
        assert "key-123" not in str(refused.value) and "***" in str(refused.value)
        assert server.asked[-1].headers["Authorization"] == "Bearer key-123"
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="can't be reached"):
        open_client(f"http://127.0.0.1:{free_port()}", None, {})
    with pytest.raises(NotFoundError, match="no such folder"), run_replay({}) as server:
        run(server, tmp_path / "none" / "r.json")


def test_a_plan_asks_nothing_and_writes_nothing(ollama: Replay, tmp_path: Path) -> None:
    client = open_client(ollama.url, None, {})
    plan = plan_bench(client, ["smol"], FIVE, SETTINGS, output=tmp_path / "r.json")
    assert isinstance(plan, BenchPlan) and plan.n_runs == 5 and list(tmp_path.iterdir()) == []
    assert ollama.bodies("/api/chat") == ollama.bodies("/api/generate") == []


def test_lmstudio_loads_once_and_says_what_it_has(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"key": "smol", "quantization": {"name": "Q4_1"}, "loaded_instances": []}
    end = {"type": "chat.end", "result": {"stats": {"total_output_tokens": 2, "tokens_per_second": 9.5}}}
    routes: dict[str, Route] = {
        "/lmstudio-greeting": json_reply({"lmstudio": True}),
        "/api/v1/models": json_reply({"models": [entry]}),
        "/api/v1/models/load": json_reply({"load_time_seconds": 61.5}),
        "/api/v1/chat": sse({"type": "message.delta", "content": "9.9"}, end, done=False),
    }
    with run_replay(routes) as server:
        result = run(server, tmp_path / "r.json")
        body = server.bodies("/api/v1/chat")[0]
        entry["loaded_instances"] = [{"id": "smol", "config": {"context_length": 4096}}]
        server.routes["/api/v1/models"] = json_reply({"models": [entry]})
        again = run(server, tmp_path / "again.json")
        assert len(server.bodies("/api/v1/models/load")) == 1
    (model,) = result.models
    assert model.load is not None and (model.load.cold, model.load.load_s) == (True, 61.5)
    assert model.facts.quant == "Q4_1" and body["store"] is False and body["max_output_tokens"] == 4096
    assert again.models[0].load is not None and again.models[0].load.cold is False
    assert again.models[0].facts.context_tokens == 4096


def test_llama_server_is_known_by_its_props(tmp_path: Path) -> None:
    with run_replay({**LLAMA, "/v1/chat/completions": recording("ll_v1_first", speed=5)}) as server:
        result = run(server, tmp_path / "r.json")
    assert (result.server.kind, result.server.version) == ("llama-server", "b1-abc")
    facts = result.models[0].facts
    assert (facts.size_bytes, facts.parameters, facts.context_tokens) == (9, "134515008", 2048)


# The real thing.

SHORT = replace(SETTINGS, max_tokens=48, n_repeats=1, context_tokens=1024)


@pytest.fixture(scope="module")
def real_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    folder = tmp_path_factory.mktemp("ollama")
    with run_ollama(testbed.ollama("0.5.4"), folder / "home") as server:
        (folder / "Modelfile").write_text(f"FROM {testbed.smollm2()}\n")
        assert server.cli("create", "smol", "-f", folder / "Modelfile").returncode == 0
        half = first_layers(testbed.smollm2(), folder / "half.gguf", 15)
        (folder / "Modelfile").write_text(f"FROM {half}\n")
        assert server.cli("create", "half", "-f", folder / "Modelfile").returncode == 0
        yield server


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def real_llama(request: pytest.FixtureRequest) -> Iterator[LlamaServer]:
    with run_llama_server({"smollm2": testbed.smollm2, "gemma3": testbed.gemma3}[request.param]()) as server:
        yield server


def agreement(result: BenchResult, model: str | None = None) -> float:
    """Return how far the client's median speed is from the server's, over answers of 16 tokens and more."""
    of_model = replace(result, models=tuple(m for m in result.models if model in (None, m.name)))
    long = [run for run in runs(of_model) if (run.tokens.n_generated_tokens or 0) >= 16 and run.server]
    assert long
    ours = statistics.median(run.client.generation_tokens_per_s or 0 for run in long)
    theirs = statistics.median(run.server.generation_tokens_per_s or 0 for run in long if run.server)
    return abs(ours / theirs - 1)


@pytest.mark.runtimes
@pytest.mark.models
def test_real_llama_server(real_llama: LlamaServer, tmp_path: Path) -> None:
    questions = (*five_questions("zh"), prompt_question(200))
    result = run(real_llama, tmp_path / "r.json", SHORT, questions=questions)
    assert result.server.kind == "llama-server"
    for one in runs(result):
        assert one.status in ("complete", "length") and one.server is not None
        assert one.tokens.source == "usage" and one.tokens.n_cached_tokens == 0
        assert one.tokens.n_generated_tokens == one.server.raw["predicted_n"]
        assert one.tokens.n_prompt_tokens == one.server.raw["prompt_n"]
    assert agreement(result) < 0.05
    active, size = result.models[0].facts.active_bytes_per_token, result.models[0].facts.size_bytes
    assert active is not None and size is not None and 0.7 * size < active <= size
    assert result.host.n_cores and result.host.n_sockets
    prompt = result.models[0].questions[-1].summary.prompt
    assert prompt is not None and prompt.median > 0
    schema = published_schema()
    assert faults(json.loads((tmp_path / "r.json").read_text("utf-8")), schema, schema) == []


@pytest.mark.runtimes
@pytest.mark.models
def test_real_ollama_by_both_apis(real_ollama: OllamaServer, tmp_path: Path) -> None:
    warm = replace(SHORT, temperature=None)  # greedy, this build repeats itself until it breaks off
    own = run(real_ollama, tmp_path / "own.json", warm)
    assert agreement(own) < 0.05
    for one in runs(own):
        assert one.status in ("complete", "length") and one.server is not None
        assert one.tokens.n_generated_tokens == one.server.raw["eval_count"]
    (model,) = own.models
    assert model.facts.quant == "Q4_1" and model.facts.size_bytes and model.facts.digest
    assert model.facts.active_bytes_per_token is not None
    assert 0.9 * model.facts.size_bytes < model.facts.active_bytes_per_token <= model.facts.size_bytes
    assert model.load is not None and model.load.cold is True
    other = run(real_ollama, tmp_path / "v1.json", warm, api="openai")
    assert (other.server.kind, other.server.api) == ("ollama", "openai")
    assert all(one.tokens.source == "usage" and one.server is None for one in runs(other))
    pairs = zip(runs(own), runs(other), strict=True)
    assert all(abs((a.tokens.n_prompt_tokens or 0) - (b.tokens.n_prompt_tokens or 0)) < 9 for a, b in pairs)


@pytest.mark.runtimes
@pytest.mark.models
def test_two_models_of_a_real_ollama_in_one_file(real_ollama: OllamaServer, tmp_path: Path) -> None:
    """The second one is the first with half of its layers, so what it says is of no matter."""
    path = tmp_path / "r.json"
    result = run(real_ollama, path, replace(SHORT, temperature=None), models=["smol", "half"])
    assert result == read_result(path)
    schema = published_schema()
    assert faults(json.loads(path.read_text("utf-8")), schema, schema) == []
    assert [model.name for model in result.models] == ["smol", "half"]
    for one in runs(result):
        assert one.status in ("complete", "length") and one.server is not None
        assert one.tokens.n_generated_tokens == one.server.raw["eval_count"]
        assert one.tokens.n_prompt_tokens == one.server.raw["prompt_eval_count"]
    assert max(agreement(result, model.name) for model in result.models) < 0.05
    whole, half = (model.facts for model in result.models)
    assert whole.digest != half.digest and (whole.quant, half.quant) == ("Q4_1", "Q4_1")
    assert (half.active_bytes_per_token or 0) < 0.7 * (whole.active_bytes_per_token or 0)


@pytest.mark.runtimes
@pytest.mark.models
def test_a_real_ollama_that_breaks_off_a_loop(real_ollama: OllamaServer, tmp_path: Path) -> None:
    result = run(real_ollama, tmp_path / "r.json", SHORT, questions=FIVE[1:2])
    (one,) = runs(result)
    assert (one.status, one.verdict.judgement, one.tokens.source) == ("no_final", "void", "none")
    assert one.client.n_chunks > 30 and one.client.generation_tokens_per_s is None
