"""`serve-config`: what is written is what real programs read, start from and answer with."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import testbed
import yaml

from ggufkit.errors import NoSpaceError, NotFoundError, ToolError, UsageError
from ggufkit.runtimes.llamacpp import NEW, OLD, Deployment, Dialect, probe, read_dialect, settings
from ggufkit.runtimes.llamacpp_targets import (
    _systemd_word,
    llama_swap_yaml,
    router_ini,
    shell_command,
    systemd_unit,
)
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.serve_config import ServeWishes, _pairs, plan_serving, serve_config
from tests.support.ggufs import r1_shaped
from tests.support.runtimes import NO_GPU, Service, clean_env, free_port, request

HELP_2025 = """\
-t,    --threads N                      number of threads
-c,    --ctx-size N                     size of the prompt context
-fa,   --flash-attn                     enable Flash Attention (default: disabled)
--mlock                                 force system to keep model in RAM
--no-mmap                               do not memory-map model
"""
GIB = 1 << 30
MODEL = Path("/models/DeepSeek-R1-UD-IQ2_XXS-00001-of-00004.gguf")


def flags(deployment: Deployment, dialect: Dialect) -> dict[str, str | None]:
    return {s.name: s.value for s in settings(deployment, dialect)}


def test_a_help_of_2025_has_none_of_the_new_flags() -> None:
    assert read_dialect(HELP_2025) == Dialect(
        load_mode=False, flash_attn_value=False, cpu_moe=False, router=False
    )


@pytest.mark.runtimes
def test_the_real_server_has_all_of_them() -> None:
    assert probe(testbed.llama_server().server) == NEW


@pytest.mark.parametrize(
    ("load", "new", "old"),
    [
        ("mmap", {"load-mode": "mmap"}, {}),
        ("mlock", {"load-mode": "mmap+mlock"}, {"mlock": None}),
        ("none", {"load-mode": "none"}, {"no-mmap": None}),
    ],
)
def test_loading_in_both_dialects(load: str, new: dict[str, str], old: dict[str, None]) -> None:
    deployment = Deployment("r1", MODEL, 8192, load=load)  # type: ignore[arg-type]
    loading = {"load-mode", "mlock", "no-mmap"}
    for dialect, expected in ((NEW, new), (OLD, old)):
        found = flags(deployment, dialect)
        assert {name: found[name] for name in found.keys() & loading} == expected


def test_flash_attention_was_a_switch_once() -> None:
    deployment = Deployment("r1", MODEL, 8192, flash_attn="on")
    assert flags(deployment, read_dialect(HELP_2025))["flash-attn"] is None
    assert flags(deployment, OLD)["flash-attn"] == "on"
    assert "flash-attn" not in flags(Deployment("r1", MODEL, 8192, flash_attn="auto"), OLD)


def test_an_old_build_is_not_told_what_it_does_not_know() -> None:
    deployment = Deployment("r1", MODEL, 8192, placement=(("n-cpu-moe", "58"),))
    assert flags(deployment, OLD)["n-cpu-moe"] == "58"
    with pytest.raises(ToolError, match="too old for --n-cpu-moe"):
        settings(deployment, read_dialect(HELP_2025))


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/opt/llama-server", "/opt/llama-server"),
        ("/models/my model.gguf", '"/models/my model.gguf"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\\b", '"a\\\\b"'),
        ("", '""'),
    ],
)
def test_words_for_systemd(word: str, quoted: str) -> None:
    assert _systemd_word(word) == quoted


def test_names_that_a_form_cannot_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="macros"):
        llama_swap_yaml("llama-server", Deployment("r1", Path("/a/${PORT}.gguf"), 1), NEW)
    with pytest.raises(UsageError, match="section"):
        router_ini(Deployment("a]b", MODEL, 1), NEW)
    for form in (shell_command, systemd_unit, llama_swap_yaml):
        with pytest.raises(UsageError, match="control characters"):
            form("llama-server", Deployment("r1", Path("/a/b\nc.gguf"), 1), NEW)


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return r1_shaped(tmp_path_factory.mktemp("r1") / "DeepSeek R1.gguf")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "fe80::1", "box2.lan"])
def test_addresses_to_listen_at(r1: Path, host: str) -> None:
    asked = ServeWishes(host=host, context_tokens=512)
    assert (
        plan_serving(find_model(str(r1)), asked, ram_bytes=256 * GIB, dialect="new").deployment.host == host
    )


@pytest.mark.parametrize("host", ["", "a b", "a;b", "-h", "$HOME", "a\nb", "http://a"])
def test_what_is_no_address_is_refused(r1: Path, host: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        plan_serving(find_model(str(r1)), ServeWishes(host=host), ram_bytes=256 * GIB, dialect="new")


def test_r1_on_256_gib_gets_the_usual_context(r1: Path) -> None:
    plan = plan_serving(find_model(str(r1)), ram_bytes=256 * GIB, dialect="new")
    assert (plan.level, plan.deployment.context_tokens) == ("fits", 8192)
    assert (plan.deployment.alias, plan.deployment.repack) == ("DeepSeek R1", True)
    (warning,) = plan.warnings
    assert "before llama.cpp learnt MLA" in warning


def test_r1_on_220_gib_gets_the_context_that_fits(r1: Path) -> None:
    plan = plan_serving(find_model(str(r1)), ram_bytes=220 * GIB, dialect="new")
    assert plan.level == "fits"
    assert plan.deployment.context_tokens == plan.longest_context_tokens
    assert 0 < plan.deployment.context_tokens < 8192


def test_r1_on_128_gib_pages_and_nothing_is_repacked(r1: Path) -> None:
    plan = plan_serving(find_model(str(r1)), ServeWishes(load="none"), ram_bytes=128 * GIB, dialect="new")
    assert plan.level == "pages"
    words = serve_config(plan, "command")
    assert "--no-repack" in words and "--load-mode none" in words
    _, shares, warned, *_ = plan.warnings
    assert "of the weights stay in memory" in shares and "it will fail or swap" in warned


def test_what_does_not_fit_is_refused_before_it_is_written(r1: Path) -> None:
    wishes = ServeWishes(context_tokens=163_840)
    with pytest.raises(NoSpaceError, match=r"takes .* GiB, which does not fit 32\.0 GiB"):
        plan_serving(find_model(str(r1)), wishes, ram_bytes=32 * GIB, dialect="new")


def test_a_server_that_is_not_there_is_named(r1: Path) -> None:
    with pytest.raises(NotFoundError, match="no such program"):
        plan_serving(find_model(str(r1)), server=Path("/nowhere/llama-server"))


def test_a_program_that_is_no_llama_server_is_found_out(r1: Path, tmp_path: Path) -> None:
    other = tmp_path / "llama-server"
    other.write_text("#!/bin/sh\necho nothing to see\n")
    other.chmod(0o755)
    with pytest.raises(ToolError, match="nothing to see"):
        plan_serving(find_model(str(r1)), server=other)


def test_without_a_server_the_flags_are_assumed_and_that_is_said(
    r1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    plan = plan_serving(find_model(str(r1)), ram_bytes=256 * GIB)
    assert (plan.server, plan.dialect, plan.dialect_from) == ("llama-server", NEW, "assumed")
    assert any("no llama-server on the PATH" in warning for warning in plan.warnings)


def test_a_machine_of_two_sockets_gets_its_cores_and_its_nodes(r1: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for node in range(2):
        (root / f"sys/devices/system/node/node{node}").mkdir(parents=True)
    blocks = (
        f"processor\t: {i}\nmodel name\t: Xeon\nphysical id\t: {i // 4}\ncore id\t: {i % 2}\ncpu cores\t: 2\n"
        for i in range(8)
    )
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text("\n".join(blocks))
    plan = plan_serving(find_model(str(r1)), ram_bytes=256 * GIB, dialect="new", root=root)
    assert (plan.deployment.n_threads, plan.deployment.numa) == (4, True)
    assert "--numa distribute" in serve_config(plan, "command")
    assert any("NUMA" in warning for warning in plan.warnings)


# With the real programs


def real_plan(model: Path, **wishes: object) -> tuple[str, int]:
    """Return the shell command for the real server on a free port, and the port."""
    port = free_port()
    asked = ServeWishes(n_threads=1, context_tokens=512, port=port, **wishes)  # type: ignore[arg-type]
    plan = plan_serving(find_model(str(model)), asked, server=testbed.llama_server().server)
    return serve_config(plan, "command"), port


@pytest.mark.runtimes
@pytest.mark.models
def test_the_real_server_starts_from_the_command_and_answers(tmp_path: Path) -> None:
    model = tmp_path / "smol lm's.gguf"
    model.symlink_to(testbed.smollm2())
    command, port = real_plan(model, alias="smol", cache_type_k="q8_0", cache_type_v="q8_0")
    argv = ["/bin/sh", "-c", f"exec {command}"]
    with Service(argv, clean_env(tmp_path, tmp_path) | NO_GPU, port, "/health") as server:
        assert request(f"{server.url}/v1/models")[1]["data"][0]["id"] == "smol"
        asked = {"prompt": "The capital of France is", "n_predict": 8, "temperature": 0.0}
        assert "Paris" in request(f"{server.url}/completion", "POST", asked)[1]["content"]
        assert request(f"{server.url}/props")[1]["default_generation_settings"]["n_ctx"] == 512


@pytest.mark.runtimes
@pytest.mark.models
def test_the_real_router_starts_from_the_preset_and_answers(tmp_path: Path) -> None:
    server = testbed.llama_server().server
    asked = ServeWishes(alias="smol lm", n_threads=1, context_tokens=512, load="mlock")
    plan = plan_serving(find_model(str(testbed.smollm2())), asked, server=server)
    preset = tmp_path / "router.ini"
    preset.write_text(serve_config(plan, "router"))
    port = free_port()
    argv: list[str | Path] = [server, "--models-preset", preset, "--host", "127.0.0.1", "--port", str(port)]
    with Service(argv, clean_env(tmp_path, tmp_path) | NO_GPU, port, "/health") as router:
        (listed,) = request(f"{router.url}/models")[1]["data"]
        assert listed["id"] == "smol lm"
        assert "mmap+mlock" in listed["status"]["args"]
        asking = {"model": "smol lm", "max_tokens": 8, "temperature": 0.0}
        asking |= {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
        status, answer = request(f"{router.url}/v1/chat/completions", "POST", asking)
    assert status == 200, answer
    assert answer["usage"]["completion_tokens"] > 0 and answer["choices"][0]["message"]["content"]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = testbed.program("systemd-analyze", testbed.PROGRAMS["systemd-analyze"])
    program = tmp_path / "llama server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    model = Path('/models/100% "R1"/a model-00001-of-00004.gguf')
    deployment = Deployment("R1 at 100%", model, 8192, n_threads=14, numa=True, load="mlock", repack=False)
    unit = tmp_path / "r1.service"
    unit.write_text(systemd_unit(str(program), deployment, NEW, user="daemon"))
    ran = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    ours = [line for line in ran.stderr.splitlines() if unit.name in line]
    assert (ran.returncode, ours) == (0, [])
    broken = tmp_path / "broken.service"
    broken.write_text(unit.read_text().replace("RestartSec=10", "RestartSec=ten"))
    assert (
        "broken.service" in subprocess.run([analyze, "verify", broken], capture_output=True, text=True).stderr
    )


# llama-swap's config-schema.json, as far as what is written goes: the types of the keys, their limits, and
# where no other key is allowed.
SWAP = {"healthCheckTimeout": int, "models": dict}
SWAP_MODEL = {"cmd": str, "ttl": int, "unloadTimeout": int, "concurrencyLimit": int, "capabilities": dict}


def test_llama_swap_reads_what_was_meant() -> None:
    deployment = Deployment("r1: 'best'", Path("/models/it's R1.gguf"), 8192, n_slots=2, n_threads=14)
    config = yaml.safe_load(llama_swap_yaml("/opt/llama server", deployment, NEW))
    assert {key: type(value) for key, value in config.items()} == SWAP
    assert config["healthCheckTimeout"] >= 15
    model = config["models"]["r1: 'best'"]
    assert {key: type(value) for key, value in model.items()} == SWAP_MODEL
    assert model["ttl"] >= -1 and model["unloadTimeout"] >= 0 and model["concurrencyLimit"] >= 0
    assert model["capabilities"] == {"context": 4096}
    words = shlex.split(model["cmd"])
    assert words[0] == "/opt/llama server"
    assert words[words.index("--model") + 1] == "/models/it's R1.gguf"
    assert words[words.index("--port") + 1] == "${PORT}"


@pytest.mark.runtimes
@pytest.mark.models
def test_the_real_server_starts_from_what_llama_swap_would_run(tmp_path: Path) -> None:
    asked = ServeWishes(alias="smol", n_threads=1, context_tokens=512)
    plan = plan_serving(find_model(str(testbed.smollm2())), asked, server=testbed.llama_server().server)
    config = yaml.safe_load(serve_config(plan, "llama-swap"))
    port = free_port()
    argv = shlex.split(config["models"]["smol"]["cmd"].replace("${PORT}", str(port)))
    with Service(argv, clean_env(tmp_path, tmp_path) | NO_GPU, port, "/health") as server:
        asking = {"prompt": "The capital of France is", "n_predict": 8, "temperature": 0.0}
        assert "Paris" in request(f"{server.url}/completion", "POST", asking)[1]["content"]


def test_a_flag_that_the_real_server_lacks_is_never_written() -> None:
    """Compare every flag that can come out with the help of the real server."""
    help_text = subprocess.run(
        [testbed.llama_server().server, "--help"], capture_output=True, text=True, env=os.environ
    ).stdout
    known = set(re.findall(r"--[a-z][a-z0-9-]+", help_text))
    deployment = Deployment(
        "r1",
        MODEL,
        8192,
        n_threads=2,
        numa=True,
        repack=False,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        flash_attn="on",
        placement=(("n-gpu-layers", "99"), ("n-cpu-moe", "58"), ("override-tensor", "exps=CPU")),
    )
    written = re.findall(r"--[a-z][a-z0-9-]+", shell_command("llama-server", deployment, NEW))
    assert len(written) == 17 and set(written) <= known


def test_flags_of_a_placement_are_written_once_each() -> None:
    words: tuple[str, ...] = (
        "--ctx-size",
        "4096",
        "--n-gpu-layers",
        "62",
        "--cpu-moe",
        "--override-tensor",
        "a=CPU",
    )
    words += ("--override-tensor", "b=CUDA0", "--no-kv-offload")
    assert _pairs(words) == (
        ("n-gpu-layers", "62"),
        ("cpu-moe", None),
        ("override-tensor", "a=CPU,b=CUDA0"),
        ("no-kv-offload", None),
    )
    ini = router_ini(Deployment("r1", MODEL, 4096, placement=_pairs(words)), NEW)
    assert "cpu-moe = true\n" in ini and "kv-offload = false\n" in ini
