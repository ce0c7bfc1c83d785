"""`ggufkit serve-config` at the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from testbed import llama_server, smollm2

from tests.cli.conftest import Run
from tests.support.ggufs import r1_shaped


@pytest.fixture
def r1(work: Path) -> Path:
    return r1_shaped(work / "r1.gguf")


def test_the_command_goes_to_stdout_and_the_talk_does_not(run: Run, r1: Path) -> None:
    ran = run("serve-config", "--ram", "256G", "--dialect", "new", "--threads", 14)
    assert ran.code == 0
    assert ran.lines[:2] == ["llama-server \\", f"  --model {r1.absolute()} \\"]
    assert ran.lines[-1] == "  --port 8080"
    assert "model: r1" in ran.err
    assert "next: then curl http://127.0.0.1:8080/v1/models" in ran.err


def test_a_file_is_written_once_and_overwritten_only_when_forced(run: Run, work: Path, r1: Path) -> None:
    words = [
        "serve-config",
        r1,
        "--ram",
        "256G",
        "--dialect",
        "old",
        "--target",
        "systemd",
        "-o",
        "r1.service",
    ]
    assert run(*words).code == 0
    unit = (work / "r1.service").read_text()
    assert "[Service]" in unit and "--load-mode" not in unit
    again = run(*words)
    assert again.code == 9 and "--force overwrites it" in again.err
    assert run(*words, "--force", "--user", "llama").out == "r1.service: written\n"
    assert "User=llama" in (work / "r1.service").read_text()


def test_json_has_the_plan_and_the_text(run: Run, r1: Path) -> None:
    document = run(
        "serve-config", r1, "--ram", "256G", "--dialect", "new", "-ngl", 99, "-ncmoe", 58, "--json"
    ).json
    assert document["plan"]["deployment"]["placement"] == [["n-gpu-layers", "99"], ["n-cpu-moe", "58"]]
    assert document["plan"]["level"] == "fits"
    assert "--n-gpu-layers 99" in document["text"]


def test_an_old_build_is_no_router(run: Run, r1: Path) -> None:
    ran = run("serve-config", r1, "--ram", "256G", "--dialect", "old", "--target", "router")
    assert ran.code == 10 and "--target llama-swap, or a newer build" in ran.err


def test_what_does_not_fit_ends_with_8(run: Run, r1: Path) -> None:
    ran = run("serve-config", r1, "--ram", "16G", "--dialect", "new", "--ctx-size", 163840)
    assert ran.code == 8 and "does not fit 16.0 GiB" in ran.err


@pytest.mark.runtimes
@pytest.mark.models
def test_the_server_that_is_named_is_asked(run: Run, work: Path) -> None:
    server = llama_server().server
    ran = run("serve-config", smollm2(), "--llama-server", server, "--target", "router", "-v")
    assert ran.code == 0, ran.err
    assert ran.lines[0] == "version = 1" and "load-mode = mmap" in ran.lines
    assert "flags: probed" in ran.err
