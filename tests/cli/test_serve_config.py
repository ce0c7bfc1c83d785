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
    assert "next: run it, then curl http://127.0.0.1:8080/v1/models" in ran.err


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


def test_what_goes_on_gpus_is_planned_when_their_memory_is_known(run: Run, r1: Path) -> None:
    words = [r1, "--ram", "256G", "--vram", "24G", "--ctx-size", 2048, "--json"]
    document = run("serve-config", *words, "--dialect", "new").json
    planned = document["plan"]["deployment"]["placement"]
    assert [name for name, _ in planned] == ["n-gpu-layers", "n-cpu-moe"] and int(planned[1][1]) > 0
    assert f"--n-gpu-layers {planned[0][1]} \\\n  --n-cpu-moe {planned[1][1]} \\\n" in document["text"]
    fitted = run("fit", *words).json["placement"]["llama_server"]
    assert fitted[2:] == ["--n-gpu-layers", planned[0][1], "--n-cpu-moe", planned[1][1]]
    asked = run("serve-config", *words, "--dialect", "new", "-ngl", "all", "-ot", "exps=CPU").json
    assert dict(asked["plan"]["deployment"]["placement"]) == {
        "n-gpu-layers": "62",
        "override-tensor": "exps=CPU",
    }


def test_a_gpu_without_room_is_named(run: Run, r1: Path) -> None:
    ran = run("serve-config", r1, "--ram", "256G", "--dialect", "new", "--vram", "24G", "-ngl", "all")
    assert ran.code == 8 and "too little free on GPU0" in ran.err and "-ngl auto" in ran.err


def test_workers_get_commands_of_their_own(run: Run, work: Path, r1: Path) -> None:
    words = ["serve-config", r1, "--ram", "64G", "--dialect", "new", "--target", "rpc"]
    words += ["--worker", "10.0.0.2=128G", "--worker", "10.0.0.3:6000=128G", "-o", "cluster.txt"]
    ran = run(*words, "-v")
    assert ran.code == 0 and ran.out == "cluster.txt: written\n"
    text = (work / "cluster.txt").read_text()
    assert text.count("ggml-rpc-server --host 10.0.0.") == 2 and "--rpc 10.0.0.2:50052,10.0.0.3:6000" in text
    assert "the head last, then curl http://127.0.0.1:8080/v1/models" in ran.err
    assert "no password" in ran.err and "SET ASIDE" in ran.err
    hosts = run(*words, "--force", "--json").json["plan"]["hosts"]
    assert [share["name"] for share in hosts["shares"]] == ["this machine", "10.0.0.2", "10.0.0.3:6000"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "rpc"], "--target rpc and --worker belong together"),
        (["--worker", "a=64G"], "--target rpc and --worker belong together"),
        (["--target", "rpc", "--worker", "64G"], "write it like box2=64G"),
        (["--target", "rpc", "--worker", "::1=64G"], "write it like 192.168.1.12 or box2:50052"),
        (["--target", "rpc", "--worker", "a=64G", "--vram", "8G"], "leave out --vram"),
        (["-ngl", "many"], "write 40, all or auto"),
        (["--vram", "8G", "-ot", "exps"], "has no buffer"),
    ],
)
def test_wrong_words_are_usage_errors(run: Run, r1: Path, words: list[str], said: str) -> None:
    ran = run("serve-config", r1, "--ram", "256G", "--dialect", "new", *words)
    assert ran.code == 2 and said in ran.err


def test_what_cannot_be_written_is_known_before_anything_is_read(run: Run, r1: Path) -> None:
    ran = run("serve-config", r1, "-o", "none/r1.sh")
    assert ran.code == 3 and "no such folder" in ran.err and "mkdir -p none" in ran.err


def test_the_next_step_is_an_address_that_answers(run: Run, r1: Path) -> None:
    words = ["serve-config", r1, "--ram", "256G", "--dialect", "new", "--ctx-size", 512]
    for host, shown in (("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("box2", "box2")):
        assert f"curl http://{shown}:8080/v1/models" in run(*words, "--host", host).err


def test_a_service_without_the_program_s_path_is_warned_of(
    run: Run, r1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    words = ["serve-config", r1, "--ram", "256G", "--dialect", "new", "--ctx-size", 512]
    assert "put its whole path" in run(*words, "--target", "systemd").err
    assert "put its whole path" not in run(*words).err


def test_a_path_with_dots_is_written_plainly(run: Run, work: Path, r1: Path) -> None:
    (work / "sub").mkdir()
    ran = run("serve-config", "sub/../r1.gguf", "--ram", "256G", "--dialect", "new", "--ctx-size", 512)
    assert ran.lines[1] == f"  --model {work.resolve() / 'r1.gguf'} \\"


def test_a_repo_has_to_be_here_first(run: Run, work: Path) -> None:
    ran = run("serve-config", "unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS")
    assert ran.code == 3 and "ggufkit pull unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS fetches it" in ran.err
