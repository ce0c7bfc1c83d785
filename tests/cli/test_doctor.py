"""`ggufkit doctor` at the prompt, with real hubs of ours, a real Ollama and folders in disorder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import testbed

from ggufkit.verbs import doctor
from tests.cli.conftest import Run
from tests.support.ggufs import make_gguf
from tests.support.hub import TestHub
from tests.support.runtimes import free_port, run_ollama
from tests.support.trees import snapshot


@pytest.fixture
def models(own_home: Path) -> Path:
    """An LM Studio that keeps its models on another disk."""
    models = own_home / "disk" / "models"
    models.mkdir(parents=True)
    (own_home / ".lmstudio").mkdir()
    (own_home / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": str(models)}))
    return models


@pytest.fixture(autouse=True)
def no_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")


def test_all_is_well(run: Run, hub: TestHub, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "KNOWN_REPO", "unsloth/Smol-GGUF")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ran = run("doctor")
    assert (ran.code, "nothing is bad" in ran.err) == (0, True)
    assert (
        "ok    hubs       Hugging Face answers" in ran.out
        and "ok    hubs       ModelScope answers" in ran.out
    )
    assert "Hugging Face: a token in HF_TOKEN" in ran.out and "hf_secret" not in ran.out + ran.err
    assert "ModelScope: no token" in ran.out
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_token_that_cannot_be_read(
    run: Run, hub: TestHub, own_home: Path, monkeypatch: pytest.MonkeyPatch, is_sent: bool
) -> None:
    monkeypatch.setattr(doctor, "KNOWN_REPO", "unsloth/Smol-GGUF")
    (own_home / "token").mkdir()
    monkeypatch.setenv("HF_TOKEN_PATH", str(own_home / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(own_home / "token"))
    if is_sent:
        monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    ran = run("doctor")
    state = "BAD   " if is_sent else "note  "
    assert f"{state}hubs       Hugging Face: the token of huggingface_hub can't be read" in ran.out
    assert str(own_home / "token") in ran.out and "hf auth login" in ran.out
    assert "Hugging Face: no token" not in ran.out and "ModelScope: no token" in ran.out
    assert ("Hugging Face answers" in ran.out, ran.code) == (not is_sent, 4 if is_sent else 0)
    assert ("nothing is bad" in ran.err) != is_sent


def test_no_hub_answers(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    ran = run("doctor", "--json")
    bad = [finding for finding in ran.json["findings"] if finding["state"] == "bad"]
    assert ran.code == 5 and [finding["area"] for finding in bad] == ["hubs", "hubs"]
    assert all("--source" in finding["mend"] for finding in bad)


def test_one_hub_is_enough(run: Run, hub: TestHub, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    ran = run("doctor")
    assert ran.code == 0 and "note  hubs" in ran.out and "--source modelscope leaves it out" in ran.out


def test_lm_studio_is_put_in_order(run: Run, work: Path, models: Path) -> None:
    for i in range(1, 4):
        name = f"big-Q2_K-{i:05}-of-00003"
        make_gguf(models / "me" / name / f"{name}.gguf")
    make_gguf(models / "loose.gguf", kv={"general.quantized_by": "acme"})
    (models / "gone.gguf").symlink_to("/nowhere")
    before = snapshot(models)
    found = run("doctor", "--offline")
    assert found.code == 7 and found.out.count("ggufkit doctor --fix") == 3
    refused = run("doctor", "--offline", "--fix")
    assert refused.code == 2 and "--fix --yes" in refused.err and snapshot(models) == before
    mended = run("doctor", "--offline", "--fix", "--yes")
    assert mended.code == 0, mended.out
    assert "5 files moved" in mended.err
    names = [f"me/big-Q2_K/big-Q2_K-{i:05}-of-00003.gguf" for i in range(1, 4)]
    left = sorted(str(path.relative_to(models)) for path in models.rglob("*") if not path.is_dir())
    assert left == ["acme/loose/loose.gguf", *names]
    assert run("doctor", "--offline", "-q").out == ""


def test_a_disk_that_is_not_there(run: Run, work: Path, models: Path) -> None:
    models.rmdir()
    ran = run("doctor", "--offline")
    assert ran.code == 3 and "mount that disk" in ran.out


def test_unfinished_downloads_of_ollama_are_noted(
    run: Run, work: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = own_home / ".ollama/models"
    (store / "blobs").mkdir(parents=True)
    (store / "blobs/sha256-abc-partial").write_bytes(bytes(1000))
    ran = run("doctor", "--offline")
    assert ran.code == 0 and "1 blobs of unfinished downloads" in ran.out


def test_a_program_that_is_no_llama_server(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "bin").mkdir()
    (work / "bin/llama-server").write_text("#!/bin/sh\nexit 3\n")
    (work / "bin/llama-server").chmod(0o755)
    monkeypatch.setenv("PATH", f"{work / 'bin'}:/usr/bin:/bin")
    ran = run("doctor", "--offline")
    assert ran.code == 10 and "ended with 3" in ran.out


@pytest.mark.runtimes
def test_a_real_ollama_is_found(
    run: Run, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_ollama(testbed.ollama("0.9.3"), tmp_path / "home") as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        monkeypatch.setenv("OLLAMA_MODELS", str(server.models_dir))
        ran = run("doctor", "--offline")
    assert ran.code == 0
    assert (
        f"Ollama {server.build.version} answers at {server.url}; its store is {server.models_dir}" in ran.out
    )


def test_what_imports_left_is_told(
    run: Run, own_home: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_gguf(work / "Tiny-Q4_K_M.gguf")
    store = own_home / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    assert run("ollama-import", str(source), "--name", "whole").code == 0
    well = run("doctor", "--offline")
    assert "killed" not in well.out and "not whole" not in well.out
    (store / ".ggufkit-import").mkdir()
    (store / ".ggufkit-import" / ".ggufkit-x.tmp").write_bytes(b"half")
    assert run("ollama-import", str(source), "--name", "linked", "--symbolic-link").code == 0
    assert not (store / ".ggufkit-import").exists(), "an import removes what a killed one left"
    (store / ".ggufkit-import").mkdir()
    (store / ".ggufkit-import" / ".ggufkit-x.note").write_bytes(b"")
    for blob in (store / "blobs").iterdir():
        if blob.stat().st_ino == source.stat().st_ino:
            blob.unlink()
            blob.symlink_to(work / "gone.gguf")
    ran = run("doctor", "--offline")
    assert ran.code == 10
    assert "note  ollama     imports that were killed" in ran.out
    assert "gone.gguf, which is not there: no model loads by it" in ran.out
    for blob in (store / "blobs").iterdir():
        if blob.is_symlink():
            blob.unlink()
    ran = run("doctor", "--offline")
    assert ran.code == 0
    assert f"whole:latest, imported into {store}, is not whole there: sha256-" in ran.out
