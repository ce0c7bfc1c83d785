"""`ggufkit fit --host` at the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.ggufs import r1_shaped
from tests.support.hub import run_hub


@pytest.fixture
def r1(work: Path) -> Path:
    return r1_shaped(work / "r1.gguf")


def test_a_table_of_the_hosts_and_the_next_step(run: Run, r1: Path) -> None:
    ran = run("fit", r1, "--host", "box1=128G", "--host", "10.0.0.2=128G", "--ctx-size", 2048)
    assert ran.code == 0
    assert ran.lines[1].startswith("fits: takes ") and "2,048 tokens of context" in ran.lines[1]
    assert ran.lines[3].split()[:3] == ["HOST", "MEMORY", "LAYERS"]
    assert [line.split()[0] for line in ran.lines[4:6]] == ["box1", "10.0.0.2"]
    assert "layers on workers" in ran.lines[6] and "minutes at 1 Gbit/s" in ran.lines[7]
    assert "--rpc 10.0.0.2:50052 --device RPC0 --n-gpu-layers" in ran.lines[8]
    assert f"serve-config {r1} --target rpc --ctx-size 2048 --ram 128G --worker 10.0.0.2=128G" in ran.err
    assert "no password" in ran.err and "not more speed" in ran.err


def test_the_document_has_every_host(run: Run, r1: Path) -> None:
    document = run("fit", r1, "--host", "a=128G", "--host", "b=128G", "--json").json
    head, worker = document["placement"]["shares"]
    assert (document["placement"]["level"], head["name"], worker["name"]) == ("fits", "a", "b")
    assert worker["weights_bytes"] > 0 and worker["left_bytes"] > 0
    assert document["flags"][:2] == ["--ctx-size", "4096"]


def test_what_does_not_fit_is_exit_8_only_with_check(run: Run, r1: Path) -> None:
    words = ["fit", r1, "--host", "a=64G", "--host", "b=32G"]
    ran = run(*words)
    assert ran.code == 0 and "does not fit, too little memory on a, b: takes" in ran.out
    assert "llama-server:" not in ran.out and "next:" not in ran.err
    ran = run(*words, "--check")
    assert ran.code == 8 and "another --host, or a smaller quant" in ran.err
    assert run(*words, "-q").out == "no\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "a=64G"], "two machines"),
        (["--host", "64G"], "write it like box2=64G"),
        (["--host", "a=lots"], "is no size"),
        (["--host", "a=64G", "--host", "b=64G", "--ram", "64G"], "--ram does not go with --host"),
        (["--host", "a=64G", "--host", "b=64G", "--vram", "24G"], "--vram does not go with --host"),
        (["--host", "a=64G", "--host", "::1=64G"], "box2:50052"),
    ],
)
def test_wrong_words_are_usage_errors(run: Run, r1: Path, words: list[str], said: str) -> None:
    ran = run("fit", r1, *words)
    assert ran.code == 2 and said in ran.err


def test_a_model_on_a_hub_is_to_be_pulled_on_the_head(
    run: Run, r1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hub" / "owner" / "R1-GGUF" / "R1-Q4_K_M.gguf"
    file.parent.mkdir(parents=True)
    r1.rename(file)
    with run_hub(tmp_path / "hub", sha256s={str(file.relative_to(tmp_path / "hub")): "0" * 64}) as running:
        for name, value in running.hf_env.items():
            monkeypatch.setenv(name, value)
        ran = run("fit", "owner/R1-GGUF:Q4_K_M", "--source", "hf", "--host", "a=128G", "--host", "b=128G")
    assert ran.code == 0, ran.err
    assert "next: ggufkit pull owner/R1-GGUF:Q4_K_M on a, then ggufkit serve-config --target rpc" in ran.err
