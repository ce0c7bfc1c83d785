"""Imports into real Ollama servers: listed, shown, copied, removed, restarted, and answering."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import testbed

from ggufkit.errors import ToolError, UsageError
from ggufkit.runtimes.ollama import StorePlace, find_store
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_store import SmallLayer, Store
from ggufkit.runtimes.ollama_templates import R1_STOP, read, without_thinking
from ggufkit.transfer.disk import link_or_copy
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_import import ImportReport, ollama_import, plan_ollama_import
from tests.runtimes.test_ollama_names import INVALID, VALID
from tests.runtimes.test_ollama_templates import R1_JINJA
from tests.support.ggufs import make_gguf
from tests.support.runtimes import OllamaServer, run_ollama
from tests.support.trees import disk_bytes, snapshot

pytestmark = [pytest.mark.runtimes, pytest.mark.models, pytest.mark.timeout(900)]

CPU = {"num_gpu": 0, "num_ctx": 512, "num_predict": 1, "temperature": 0}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(params=testbed.OLLAMA_VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OllamaServer]:
    with run_ollama(testbed.ollama(request.param), tmp_path / "home", env={"OLLAMA_DEBUG": "1"}) as running:
        yield running


@pytest.fixture
def smollm2(tmp_path: Path) -> Path:
    return mine(testbed.smollm2(), tmp_path)


def mine(model: Path, tmp_path: Path) -> Path:
    """Give the test a name of its own for the model, without its bytes where that can be had."""
    path = tmp_path / "models" / model.name
    path.parent.mkdir(exist_ok=True)
    link_or_copy(model, path)
    return path


def environ(server: OllamaServer, *, models: bool = True) -> dict[str, str]:
    host = {"OLLAMA_HOST": server.url}
    return host | {"OLLAMA_MODELS": str(server.models_dir)} if models else host


def bring(path: Path, server: OllamaServer, *, models: bool = True, **named: Any) -> ImportReport:
    place = find_store(environ=environ(server, models=models), home=server.models_dir.parents[1])
    return ollama_import(plan_ollama_import(find_model(str(path)), place, **named))


def shown(server: OllamaServer, name: str) -> Any:
    status, answer = server.api("POST", "/api/show", {"model": name, "name": name})
    assert status == 200, answer
    return answer


def listed(server: OllamaServer) -> dict[str, str]:
    return {model["name"]: model["digest"] for model in server.api("GET", "/api/tags")[1]["models"]}


def test_the_whole_life_of_an_import(server: OllamaServer, smollm2: Path) -> None:
    report = bring(smollm2, server)
    name = "smollm2:135m-instruct-q4_1"
    assert (report.name, report.method, report.listed) == (name, "hard-link", True)
    assert report.sha256 == testbed.SMOLLM2_SHA256
    assert listed(server) == {name: report.id}
    assert report.blob.samefile(smollm2)
    assert disk_bytes(server.models_dir) < 1 << 20

    table = server.cli("list").stdout
    assert name in table
    assert report.id[:12] in table
    details = shown(server, name)
    assert details["details"]["parameter_size"] == "134.52M"
    assert details["details"]["quantization_level"] == "Q4_1"
    assert details["template"] == read("chatml.gotmpl")
    told = sorted(" ".join(line.split()) for line in details["parameters"].splitlines())
    assert told == ["num_ctx 8192", 'stop "<|im_end|>"', 'stop "<|im_start|>"']

    assert server.cli("cp", name, "me/copy:x").returncode == 0
    assert server.cli("rm", name).returncode == 0
    old = report.blob.stat().st_mtime_ns - 10**15
    os.utime(
        smollm2, ns=(old, old)
    )  # so that no grace time of a newer server hides a blob without a manifest
    server.restart()
    assert list(listed(server)) == ["me/copy:x"]
    assert report.blob.samefile(smollm2)

    again = bring(smollm2, server)
    assert (again.action, again.method, again.id) == ("import", "present", report.id)
    server.restart()
    assert set(listed(server)) == {name, "me/copy:x"}
    for left in (name, "me/copy:x"):
        assert server.cli("rm", left).returncode == 0
    assert not report.blob.exists()
    assert testbed.sha256_of(smollm2) == testbed.SMOLLM2_SHA256
    assert list(server.models_dir.rglob("sha256-*")) == []


def test_gemma_into_the_store_that_the_server_names(
    server: OllamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """No variable says where the store is: the server does, once it has a model."""
    first = bring(smollm2, server, models=False)
    assert (first.store, first.listed, first.warnings) == (server.models_dir, True, ()), (
        "the default was right"
    )
    gemma = mine(testbed.gemma3(), tmp_path)
    place = find_store(environ=environ(server, models=False), home=tmp_path / "nobody")
    assert (place.store.root, place.by_server) == (server.models_dir, True)
    report = bring(gemma, server, models=False)
    assert report.name == "gemma-3:270m-q4_k_m"
    assert report.sha256 == testbed.GEMMA3_SHA256
    assert listed(server) == {first.name: first.id, report.name: report.id}
    details = shown(server, report.name)
    assert details["template"] == "{{ .Prompt }}", "a base model: its file has no chat template"
    assert "no chat template" in report.warnings[-1]
    assert details["details"]["family"] == "gemma3"
    assert disk_bytes(server.models_dir) < 1 << 20


def test_imports_without_a_server_are_there_when_it_starts(tmp_path: Path, smollm2: Path) -> None:
    home = tmp_path / "home"
    place = find_store(environ={"OLLAMA_HOST": "127.0.0.1:9"}, home=home)
    report = ollama_import(plan_ollama_import(find_model(str(smollm2)), replace(place, found_by="default")))
    assert report.listed is None
    assert report.store == home / ".ollama" / "models"
    for version in testbed.OLLAMA_VERSIONS:
        with run_ollama(testbed.ollama(version), home) as server:
            assert listed(server) == {report.name: report.id}, version
            assert shown(server, report.name)["details"]["family"] == "llama"
            assert "removed: 0" in server.log_text(), "its start removes no blob"


def test_an_answer(tmp_path: Path, smollm2: Path) -> None:
    with run_ollama(testbed.ollama("0.5.4"), tmp_path / "home") as server:
        report = bring(smollm2, server)
        asked = {
            "model": report.name,
            "messages": [{"role": "user", "content": "Say hello."}],
            "stream": False,
            "options": {**CPU, "num_predict": 16},
        }
        status, answer = server.api("POST", "/api/chat", asked)
        assert status == 200, answer
        assert answer["done"]
        assert answer["message"]["role"] == "assistant"
        assert answer["message"]["content"].strip()
        assert 1 <= answer["eval_count"] <= 16


def test_what_r1_is_to_real_servers(server: OllamaServer, tmp_path: Path) -> None:
    kv = {"tokenizer.chat_template": R1_JINJA, "general.file_type": 19}
    path = make_gguf(tmp_path / "DeepSeek-R1-UD-IQ2_XXS.gguf", arch="deepseek2", kv=kv)
    report = bring(path, server, name="deepseek-r1:671b-ud-iq2_xxs")
    assert report.listed
    thinks = server.build.version != "0.5.4"
    details = shown(server, report.name)
    template = read("deepseek-r1.gotmpl")
    assert details["template"] == (template if thinks else without_thinking(template))
    stops = re.findall(r'^stop +"(.*)"$', details["parameters"], re.MULTILINE)
    assert tuple(stops) == R1_STOP
    assert re.search(r"^temperature +0\.6$", details["parameters"], re.MULTILINE)
    assert re.search(r"^top_p +0\.95$", details["parameters"], re.MULTILINE)
    assert details["license"].startswith("MIT License")
    assert details["details"]["quantization_level"] == "IQ2_XXS"
    assert details["details"]["family"] == "deepseek2"
    if thinks:
        assert set(details["capabilities"]) == {"completion", "tools", "thinking"}


def chat(server: OllamaServer, name: str, messages: list[dict[str, Any]], **more: Any) -> str:
    """Send a chat to 0.5.4 and return the prompt that it made of it, from its log."""
    seen = len(server.log_text())
    asked = {"model": name, "messages": messages, "stream": False, "options": CPU | {"num_ctx": 2048}, **more}
    status, answer = server.api("POST", "/api/chat", asked)
    assert status == 200, answer
    (line,) = (text for text in server.log_text()[seen:].splitlines() if 'msg="chat request"' in text)
    prompt = line.partition(" prompt=")[2]
    return str(ast.literal_eval(prompt)) if prompt.startswith('"') else prompt


def messages(*texts: str) -> list[dict[str, Any]]:
    """Return a system message, then turns of user and assistant."""
    roles = ("system", *("user", "assistant") * len(texts))
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


TURNS = messages("SYS", "Hi", "yes", "more")
CHATS: dict[str, tuple[str, list[dict[str, Any]], str]] = {
    "chatml": (
        "chatml.gotmpl",
        TURNS,
        "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n",
    ),
    "chatml, an answer begun": (
        "chatml.gotmpl",
        messages("SYS", "Hi", "yes"),
        "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nyes",
    ),
    "gemma": (
        "gemma.gotmpl",
        TURNS,
        "<start_of_turn>user\nSYS\n\nHi<end_of_turn>\n<start_of_turn>model\nyes<end_of_turn>\n"
        "<start_of_turn>user\nmore<end_of_turn>\n<start_of_turn>model\n",
    ),
    "gemma, no system": (
        "gemma.gotmpl",
        TURNS[1:2],
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    ),
    "llama3": (
        "llama3.gotmpl",
        TURNS,
        "<|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nmore<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "r1": (
        "deepseek-r1.gotmpl",
        TURNS,
        "SYS<｜User｜>Hi<｜Assistant｜>yes<｜end▁of▁sentence｜><｜User｜>more<｜Assistant｜>",
    ),
    "r1, an answer begun": (
        "deepseek-r1.gotmpl",
        messages("SYS", "Hi", "yes"),
        "SYS<｜User｜>Hi<｜Assistant｜>yes",
    ),
    "r1 distill": (
        "deepseek-r1-distill.gotmpl",
        TURNS,
        "SYS<｜User｜>Hi<｜Assistant｜>yes<｜end▁of▁sentence｜><｜User｜>more<｜Assistant｜>",
    ),
}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    """An Ollama 0.5.4 that has SmolLM2 under one name for each of our templates."""
    folder = tmp_path_factory.mktemp("renderer")
    place = StorePlace(Store(folder / ".ollama" / "models"), "--models-dir", None)
    plan = plan_ollama_import(find_model(str(testbed.smollm2())), place)
    for name in ("chatml", "gemma", "llama3", "deepseek-r1", "deepseek-r1-distill"):
        template = read(f"{name}.gotmpl")
        for tag, text in (("whole", template), ("before-0.9", without_thinking(template))):
            recipe = replace(plan.recipe, layers=(SmallLayer("template", text),))
            ollama_import(replace(plan, name=f"{name}:{tag}", action="import", recipe=recipe))
    with run_ollama(testbed.ollama("0.5.4"), folder, env={"OLLAMA_DEBUG": "1"}) as server:
        yield server


@pytest.mark.parametrize("tag", ["whole", "before-0.9"])
@pytest.mark.parametrize("case", CHATS)
def test_the_prompts_that_a_real_server_makes_of_our_templates(
    renderer: OllamaServer, case: str, tag: str
) -> None:
    """The templates with thinking blocks do on 0.5.4 too: Go evaluates `and` from the left and stops."""
    template, turns, prompt = CHATS[case]
    assert chat(renderer, f"{template.removesuffix('.gotmpl')}:{tag}", turns) == prompt


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string", "description": "Where."}},
        },
    },
}


def test_tools_in_r1s_template(renderer: OllamaServer) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather"}}]}
    called["tool_calls"][0]["function"]["arguments"] = {"city": "Kunming"}  # type: ignore[index]
    turns = [*messages("SYS", "Rain?"), called, {"role": "tool", "content": "dry"}]
    prompt = chat(renderer, "deepseek-r1:before-0.9", turns, tools=[TOOL])
    system, rest = prompt.split("<｜User｜>", 1)
    assert system.startswith("SYS\n\n## Tools\n")
    assert "- `weather`\n```json\n{" in system
    described = json.loads(system.split("```json\n")[1].split("\n```")[0])
    assert described["name"] == "weather"
    assert rest == (
        "Rain?<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
        '```json\n{"city":"Kunming"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>'
        "<｜User｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>dry<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
        "<｜Assistant｜>"
    )


def test_the_grammar_of_names_is_the_servers(server: OllamaServer, tmp_path: Path) -> None:
    source = bring(make_gguf(tmp_path / "tiny.gguf"), server, name="source").name
    ours, theirs = {}, {}
    for name in (*VALID, *INVALID):
        try:
            ours[name] = bool(parse_name(name))
        except UsageError:
            ours[name] = False
        status, _ = server.api("POST", "/api/copy", {"source": source, "destination": name})
        theirs[name] = status == 200
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}


def test_a_server_that_does_not_list_it_undoes_all(
    server: OllamaServer, smollm2: Path, tmp_path: Path
) -> None:
    """As if the server had been asked, and had named a folder that it does not use."""
    bring(make_gguf(tmp_path / "tiny.gguf"), server)
    asked = find_store(environ=environ(server, models=False), home=tmp_path)
    assert asked.by_server
    wrong = replace(asked, store=Store(tmp_path / "other"))
    before = snapshot(server.models_dir)
    with pytest.raises(ToolError, match="does not list"):
        ollama_import(plan_ollama_import(find_model(str(smollm2)), wrong))
    assert not wrong.store.root.exists()
    assert snapshot(server.models_dir) == before


def test_a_guessed_store_that_is_not_the_servers_is_left_as_it_was(
    server: OllamaServer, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without any model, in a container: neither it nor its process can be asked for its folder."""
    monkeypatch.setattr("ggufkit.runtimes.ollama_services.folder_of_process", lambda _url: None)
    place = find_store(environ=environ(server, models=False), home=tmp_path)
    assert place.found_by == "default"
    with pytest.raises(ToolError, match="is not its store; all was undone") as caught:
        ollama_import(plan_ollama_import(find_model(str(smollm2)), place))
    assert "OLLAMA_MODELS" in (caught.value.hint or "")
    assert not (tmp_path / ".ollama").exists()
    assert smollm2.exists()


def test_another_store_than_the_servers_is_told_of(
    server: OllamaServer, smollm2: Path, tmp_path: Path
) -> None:
    place = find_store(models_dir=tmp_path / "other", environ=environ(server))
    report = ollama_import(plan_ollama_import(find_model(str(smollm2)), place))
    assert report.listed is False
    assert "another folder" in report.warnings[-1]
    assert listed(server) == {}


def test_copied_bytes_are_the_same_model(server: OllamaServer, smollm2: Path, tmp_path: Path) -> None:
    linked = bring(smollm2, server, name="a")
    shutil.rmtree(server.models_dir / "manifests")
    linked.blob.unlink()
    copied = bring(smollm2, server, name="a", method="copy")
    assert copied.method in ("copy", "reflink")
    assert copied.id == linked.id
    assert listed(server) == {"a:latest": copied.id}
    assert testbed.sha256_of(copied.blob) == testbed.SMOLLM2_SHA256


def test_a_server_start_neither_sees_nor_removes_what_is_being_written(
    server: OllamaServer, smollm2: Path
) -> None:
    report = bring(smollm2, server)
    store = Store(server.models_dir)
    inside = [
        store.blobs / store.staging.name,
        store.manifests / store.staging.name,
    ]  # where a mount is in the way
    staged = [folder / "half.tmp" for folder in (store.staging, store.manifest_staging, *inside)]
    for path in staged:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    server.restart()
    assert all(path.exists() for path in staged)
    assert listed(server) == {report.name: report.id}
    assert server.log_text().count("unused blobs removed: 0") == 2, "both starts cleaned up"
