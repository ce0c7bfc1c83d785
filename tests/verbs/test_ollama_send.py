"""Models sent to an Ollama by its API, as to another machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testbed

from ggufkit.cli.main import run
from ggufkit.errors import NetworkError, NotFoundError, TargetExistsError, ToolError
from ggufkit.runtimes import ollama_remote
from ggufkit.runtimes.ollama_remote import create, send_blob
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_send import ollama_send, plan_ollama_send
from tests.runtimes.test_ollama_templates import R1_JINJA
from tests.support.ggufs import make_gguf
from tests.support.runtimes import OllamaServer, free_port, run_ollama

pytestmark = [pytest.mark.runtimes, pytest.mark.timeout(300)]


@pytest.fixture(params=testbed.OLLAMA_VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OllamaServer]:
    with run_ollama(testbed.ollama(request.param), tmp_path / "home") as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    kv = {"tokenizer.chat_template": R1_JINJA}
    return make_gguf(tmp_path / "DeepSeek-R1-Q4_K_M.gguf", arch="deepseek2", kv=kv)


def shown(server: OllamaServer, name: str) -> Any:
    status, answer = server.api("POST", "/api/show", {"model": name, "name": name})
    assert status == 200, answer
    return answer


def test_a_model_is_sent_and_is_there(server: OllamaServer, source: Path) -> None:
    plan = plan_ollama_send(find_model(str(source)), server.url, name="r1", context_tokens=4096)
    assert plan.room_bytes == plan.n_bytes == source.stat().st_size
    assert "over the line" in plan.warnings[-1]
    report = ollama_send(plan)
    assert (report.name, report.sent_bytes) == ("r1:latest", report.n_bytes)
    details = shown(server, "r1")
    told = sorted(" ".join(line.split()) for line in details["parameters"].splitlines())
    assert "num_ctx 4096" in told
    assert 'stop "<｜User｜>"' in told
    assert len(told) == 7
    assert details["template"] == plan.recipe.layers[0].text
    assert details["license"].startswith("MIT License")
    assert (server.models_dir / "blobs" / f"sha256-{report.sha256}").read_bytes() == source.read_bytes()


def test_what_it_has_is_not_sent_again(server: OllamaServer, source: Path) -> None:
    model = find_model(str(source))
    ollama_send(plan_ollama_send(model, server.url, name="a"))
    assert ollama_send(plan_ollama_send(model, server.url, name="b")).sent_bytes == 0
    with pytest.raises(TargetExistsError, match="has a model a:latest"):
        plan_ollama_send(model, server.url, name="A")
    assert ollama_send(plan_ollama_send(model, server.url, name="a", force=True)).sent_bytes == 0


def test_refusals_of_the_server_are_told(server: OllamaServer, source: Path) -> None:
    known = ollama_remote.remote_server(server.url)
    with pytest.raises(ToolError, match="did not take"):
        send_blob(known, source, "ab" * 32)
    with pytest.raises(ToolError, match="made no model of it"):
        create(known, "x", "x.gguf", "ab" * 32, ())
    assert server.api("GET", "/api/tags")[1]["models"] in ([], None)


def test_nobody_answers(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(NetworkError, match="no Ollama answers"):
        plan_ollama_send(find_model(str(source)), address)
    assert run(["ollama-import", str(source), "--server", address]) == 5
    assert "OLLAMA_HOST=0.0.0.0 ollama serve" in capsys.readouterr().err


def test_at_the_prompt(server: OllamaServer, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["ollama-import", str(source), "--server", server.url, "--name", "r1"]
    assert run([*where, "-n"]) == 0
    said = capsys.readouterr()
    assert "send" in said.out
    assert "[dry run]" in said.err
    assert server.api("GET", "/api/tags")[1]["models"] in ([], None)
    assert run([*where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "r1:latest"
    assert run(where) == 9
    assert run([*where, "--force"]) == 0
    assert "r1:latest at http://127.0.0.1" in capsys.readouterr().out
    assert run([*where, "--force", "--move"]) == 2
    with pytest.raises(NotFoundError):
        plan_ollama_send(find_model(str(Path(__file__).parents[1] / "data" / "shards")), server.url)
