"""Imports taken back, Modelfiles, answers, and stores for another machine."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testbed

from ggufkit.cli.main import run
from ggufkit.errors import NotFoundError, ToolError, UsageError
from ggufkit.runtimes.ollama import StorePlace, find_store, own_store
from ggufkit.runtimes.ollama_server import OllamaServer as Client
from ggufkit.runtimes.ollama_store import Store
from ggufkit.transfer.disk import link_or_copy
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_import import ImportReport, ollama_import, plan_ollama_import
from ggufkit.verbs.ollama_modelfile import plan_modelfile, write_modelfile
from ggufkit.verbs.ollama_undo import plan_undo, undo_ollama_import
from ggufkit.verbs.receipts import receipts
from tests.runtimes.test_ollama_templates import CHATML_JINJA, R1_JINJA
from tests.support.ggufs import make_gguf
from tests.support.runtimes import OllamaServer, run_ollama
from tests.support.trees import snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_gguf(tmp_path / "mine" / "Tiny-Q4_K_M.gguf", kv={"tokenizer.chat_template": CHATML_JINJA})


@pytest.fixture
def place(tmp_path: Path) -> StorePlace:
    return StorePlace(Store(tmp_path / "models"), "--models-dir", None)


def bring(source: Path, place: StorePlace, **named: Any) -> ImportReport:
    return ollama_import(plan_ollama_import(find_model(str(source)), place, **named))


def test_undone_as_a_whole(source: Path, place: StorePlace, tmp_path: Path) -> None:
    bring(make_gguf(tmp_path / "other.gguf", seed=1), place, name="other")
    before = (snapshot(place.store.root), snapshot(source.parent))
    bring(source, place, name="me/tiny:x")
    plan = plan_undo("ME/Tiny:x", place)
    assert (plan.name, len(plan.blobs), plan.kept, plan.give_back) == ("me/tiny:x", 3, 1, None)
    undo_ollama_import(plan)
    assert (snapshot(place.store.root), snapshot(source.parent)) == before
    assert [receipt.name for receipt in receipts()] == ["other:latest"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 99999])
def test_a_broken_receipt_is_none(source: Path, place: StorePlace, text: str) -> None:
    bring(source, place, name="a")
    (receipt,) = receipts()
    receipt.path.write_text(text)
    assert list(receipts()) == []
    with pytest.raises(UsageError, match="not imported by"):
        plan_undo("a", place)


def test_blobs_that_others_use_stay(source: Path, place: StorePlace) -> None:
    bring(source, place, name="a")
    bring(source, place, name="b", context_tokens=64)
    undo_ollama_import(plan_undo("a", place))
    (left,) = place.store.models()
    assert all(place.store.has(b.sha256, b.size_bytes) for b in (left.config, *left.layers))
    assert len(list(place.store.blobs.iterdir())) == 4, "its parameters are gone"
    assert source.exists()


@pytest.mark.parametrize("how", ["moved", "deleted", "became a link", "became a link to nothing"])
def test_the_file_comes_back_when_the_store_has_its_last_name(
    source: Path, place: StorePlace, how: str
) -> None:
    data = source.read_bytes()
    report = bring(source, place, name="a", method="move" if how == "moved" else "auto")
    if how != "moved":
        source.unlink()
    if how.startswith("became"):
        source.symlink_to(report.blob if how.endswith("link") else source.with_name("gone"))
    assert plan_undo("a", place).give_back == (report.blob, source)
    undo_ollama_import(plan_undo("a", place))
    assert not source.is_symlink()
    assert source.read_bytes() == data
    assert list(place.store.blobs.iterdir()) == []


def test_what_we_did_not_import_is_not_ours_to_undo(source: Path, place: StorePlace) -> None:
    report = bring(source, place, name="a")
    shutil.copytree(report.manifest.parent, report.manifest.parent.with_name("copied"))
    before = snapshot(place.store.root)
    with pytest.raises(UsageError, match="not imported by") as refusal:
        plan_undo("copied", place)
    assert "ollama rm copied:latest" in str(refusal.value.hint)
    with pytest.raises(NotFoundError, match="no model gone") as missing:
        plan_undo("gone", place)
    assert "a:latest" in str(missing.value.hint)
    report.manifest.write_bytes(report.manifest.read_bytes() + b"\n")
    with pytest.raises(UsageError, match="changed after"):
        plan_undo("a", place)
    report.manifest.write_bytes(report.manifest.read_bytes()[:-1])
    assert snapshot(place.store.root) == before


def test_undo_at_the_prompt(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--models-dir", str(tmp_path / "m")]
    assert run(["ollama-import", str(source), "--name", "a", *where]) == 0
    before = snapshot(tmp_path / "m")
    capsys.readouterr()
    assert run(["ollama-import", "--undo", "a", "-n", *where]) == 0
    assert "remove  a:latest" in capsys.readouterr().out
    assert snapshot(tmp_path / "m") == before
    assert run(["ollama-import", str(source), "--undo", "a", *where]) == 2
    assert run(["ollama-import", "--undo", "a", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "a:latest"
    assert list(Store(tmp_path / "m").models()) == []
    assert run(["ollama-import", "--undo", "a", *where]) == 3


def test_a_store_for_another_machine_knows_nothing_of_this_one(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = bring(source, own_store(tmp_path / "disk"))
    params = json.loads(Store(tmp_path / "disk").blob(_layers(report)[-1]).read_bytes())
    assert set(params) == {"stop"}
    assert (report.listed, report.for_another) == (None, True)
    assert run(["ollama-import", str(source), "--store", str(tmp_path / "d2"), "--ctx-size", "4096"]) == 0
    assert f"cp -a {tmp_path / 'd2'}/. ~/.ollama/models/" in capsys.readouterr().err
    assert run(["ollama-import", str(source), "--store", "a", "--models-dir", "b"]) == 2
    assert run(["ollama-import", str(source), "--store", "a", "--smoke"]) == 2
    assert run(["ollama-import", str(source), "--store", str(tmp_path / "d3"), "--symbolic-link"]) == 2
    assert not (tmp_path / "d3").exists()


def _layers(report: ImportReport) -> list[str]:
    document = json.loads(report.manifest.read_bytes())
    return [layer["digest"].removeprefix("sha256:") for layer in document["layers"]]


def test_a_modelfile_at_the_prompt(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--models-dir", str(tmp_path / "m")]
    assert run(["ollama-import", str(source), *where, "--modelfile", "-"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"FROM {source}\nTEMPLATE ")
    assert "`ollama create` copies the file" in said.err
    assert run(["ollama-import", str(source), *where, "--modelfile", "Modelfile", "-n"]) == 0
    assert not Path("Modelfile").exists()
    capsys.readouterr()
    assert run(["ollama-import", str(source), *where, "--modelfile", "Modelfile"]) == 0
    assert "ollama create tiny:1m-q4_k_m -f Modelfile" in capsys.readouterr().err
    assert Path("Modelfile").read_text() == said.out
    assert run(["ollama-import", str(source), *where, "--modelfile", "Modelfile"]) == 9
    assert not (tmp_path / "m").exists()
    shards = Path(__file__).parents[1] / "data" / "shards"
    assert run(["ollama-import", str(shards), *where, "--modelfile", "-"]) == 3
    assert "ggufkit merge" in capsys.readouterr().err


@pytest.fixture(params=testbed.OLLAMA_VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OllamaServer]:
    with run_ollama(testbed.ollama(request.param), tmp_path / "home") as running:
        yield running


def place_of(server: OllamaServer) -> StorePlace:
    return find_store(environ={"OLLAMA_HOST": server.url, "OLLAMA_MODELS": str(server.models_dir)})


def shown(server: OllamaServer, name: str) -> dict[str, Any]:
    status, answer = server.api("POST", "/api/show", {"model": name, "name": name})
    assert status == 200, answer
    lines = sorted(" ".join(line.split()) for line in answer["parameters"].splitlines())
    return {"parameters": lines, "template": answer["template"], "license": answer.get("license")}


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", ["r1", "chatml"])
def test_ollama_create_makes_the_same_of_our_modelfile(
    server: OllamaServer, tmp_path: Path, family: str
) -> None:
    jinja, arch = (R1_JINJA, "deepseek2") if family == "r1" else (CHATML_JINJA, "llama")
    path = make_gguf(
        tmp_path / "a b" / "DeepSeek-R1-Q4_K_M.gguf", arch=arch, kv={"tokenizer.chat_template": jinja}
    )
    place = place_of(server)
    report = bring(path, place, name="imported")
    plan = plan_modelfile(find_model(str(path)), place, tmp_path / "Modelfile")
    write_modelfile(plan)
    made = server.cli("create", "created", "-f", plan.target)
    assert made.returncode == 0, made.stderr
    ours, theirs = shown(server, "imported"), shown(server, "created")
    assert ours == theirs
    assert len(ours["parameters"]) == (7 if family == "r1" else 3)
    created = re.search(r"sha256-([0-9a-f]{64})", str(server.cli("show", "created", "--modelfile").stdout))
    assert created is not None
    assert created[1] == report.sha256


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.timeout(900)
def test_a_store_laid_over_a_real_servers(server: OllamaServer, source: Path, tmp_path: Path) -> None:
    old = bring(source, place_of(server), name="old")
    model = tmp_path / "disk" / testbed.smollm2().name
    model.parent.mkdir()
    link_or_copy(testbed.smollm2(), model)
    new = bring(model, own_store(tmp_path / "disk" / "models"), name="smollm2")
    shutil.copytree(new.store, server.models_dir, dirs_exist_ok=True, copy_function=_copy_or_link)
    server.restart()
    models = {model["name"]: model["digest"] for model in server.api("GET", "/api/tags")[1]["models"]}
    assert models == {"old:latest": old.id, "smollm2:latest": new.id}
    assert shown(server, "smollm2")["parameters"] == ['stop "<|im_end|>"', 'stop "<|im_start|>"']


def _copy_or_link(source: str, target: str) -> str:
    if Path(source).stat().st_size > 1 << 20:
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.timeout(900)
def test_a_real_import_is_undone(server: OllamaServer, tmp_path: Path) -> None:
    path = tmp_path / "SmolLM2.gguf"
    link_or_copy(testbed.smollm2(), path)
    place = place_of(server)
    bring(path, place, name="smol")
    undo_ollama_import(plan_undo("smol", place))
    assert server.api("GET", "/api/tags")[1]["models"] in ([], None)
    assert [p for p in server.models_dir.rglob("*") if p.is_file()] == []
    assert testbed.sha256_of(path) == testbed.SMOLLM2_SHA256
    bring(path, place, name="smol")
    assert server.cli("cp", "smol", "copied").returncode == 0
    undo_ollama_import(plan_undo("smol", place))
    server.restart()
    assert [model["name"] for model in server.api("GET", "/api/tags")[1]["models"]] == ["copied:latest"]
    assert shown(server, "copied")["parameters"]


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.timeout(900)
def test_smoke_is_an_answer_of_a_real_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "SmolLM2.gguf"
    link_or_copy(testbed.smollm2(), path)
    with run_ollama(
        testbed.ollama("0.5.4"), tmp_path / "home", env={"CUDA_VISIBLE_DEVICES": "-1"}
    ) as running:
        monkeypatch.setenv("OLLAMA_HOST", running.url)
        monkeypatch.setenv("OLLAMA_MODELS", str(running.models_dir))
        assert run(["ollama-import", str(path), "--name", "smol", "--ctx-size", "512", "--smoke"]) == 0
        assert re.search(r"^it answers: \S", capsys.readouterr().out, re.MULTILINE)
        broken = make_gguf(tmp_path / "broken.gguf")
        assert run(["ollama-import", str(broken), "--name", "broken", "--smoke"]) == 10
        said = capsys.readouterr()
        assert "broken:latest does not answer: " in said.err
        assert "stays imported" in said.err
        with pytest.raises(ToolError, match="not found"):
            Client(running.url, "0.5.4").answer("nobody")


def test_an_answer_needs_a_server(source: Path, tmp_path: Path) -> None:
    assert run(["ollama-import", str(source), "--models-dir", str(tmp_path / "m"), "--smoke"]) == 2
    assert not (tmp_path / "m").exists()
