"""Our numbers beside llama-fit-params': what it printed (b11434) is replayed by a program of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.errors import ToolError
from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.verbs.fit import FitReport, fit_model
from ggufkit.verbs.fit_params import LlamaComparison, compare_with_llama
from tests.fit.facts import truth_header

GIB = 1 << 30
DENSE, MOE = "llama3.1-8b-q4km", "qwen3-235b-a22b-q4km"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a llama-fit-params on the PATH that prints what is in the file `stdout` beside it."""
    program = tmp_path / "llama-fit-params"
    program.write_text(
        '#!/bin/sh\nhere=$(dirname "$0")\necho "$@" >"$here/arguments"\ncat "$here/stdout"\n'
        'cat "$here/stderr" >&2 2>/dev/null\nexit $(cat "$here/code" 2>/dev/null || echo 0)\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def report(name: str, context: int, **settings: object) -> FitReport:
    asked = FitSettings(1, **settings)  # type: ignore[arg-type]
    return fit_model([truth_header(name)], ram_bytes=256 * GIB, context_tokens=context, settings=asked)


def compared(said: Path, found: FitReport, name: str) -> LlamaComparison:
    return compare_with_llama(said / "model.gguf", [truth_header(name)], found.estimate, found.placement)


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ({}, "Host 1218 1024 298 \n"),
        ({"n_sequences": 2, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, "Host 1218 544 294 \n"),
        ({"flash": False}, "Host 1218 1024 580 \n"),
    ],
)
def test_without_a_gpu_they_agree(said: Path, settings: dict[str, object], printed: str) -> None:
    (said / "stdout").write_text(printed)
    found = compared(said, report(DENSE, 8192, **settings), DENSE)
    (host,) = found.devices
    assert host.is_equal and host.ours_mib == host.theirs_mib
    assert (found.program, found.unpaired) == (str(said / "llama-fit-params"), ())


def test_with_a_gpu_they_agree(said: Path) -> None:
    (said / "stdout").write_text("RPC0 21945 752 332 \nHost 333 0 156 \n")
    offload = Offload((24 * GIB,), n_gpu_layers=95, n_cpu_moe=81)
    found = compared(said, report(MOE, 4096, offload=offload), MOE)
    host, gpu = found.devices
    assert (host.name, gpu.name) == ("Host", "RPC0")
    assert host.is_equal and gpu.is_equal


def test_it_is_told_all_that_matters(said: Path) -> None:
    (said / "stdout").write_text("CUDA0 1 1 1\nHost 1 1 1\n")
    settings = {"n_sequences": 3, "unified": True, "swa_full": True, "n_ubatch_tokens": 256, "flash": False}
    offload = Offload((24 * GIB,), cpu_moe=True, cache_on_cpu=True)
    found = compared(said, report(MOE, 4096, offload=offload, **settings), MOE)
    assert not any(device.is_equal for device in found.devices)
    flags = (said / "arguments").read_text()
    for words in (
        "--ctx-size 4096",
        "--parallel 3",
        "--ubatch-size 256",
        "--flash-attn off",
        "--kv-unified",
        "--swa-full",
        "--n-gpu-layers 95 --cpu-moe --no-kv-offload",
        "--fit-print on",
    ):
        assert words in flags
    assert flags.count("--ctx-size") == 1


def test_gpus_that_it_has_beside_are_named(said: Path) -> None:
    (said / "stdout").write_text("CUDA0 0 0 0\nHost 1218 1024 298\n")
    assert compared(said, report(DENSE, 8192), DENSE).unpaired == ("CUDA0",)


def test_gpus_that_it_does_not_see(said: Path) -> None:
    (said / "stdout").write_text("Host 1218 1024 298\n")
    with pytest.raises(ToolError, match="sees 0 GPUs here, 1 were asked for"):
        compared(said, report(DENSE, 8192, offload=Offload((GIB,))), DENSE)


@pytest.mark.parametrize("code", ["1", "134"])
def test_its_failure_is_told_with_its_reason(said: Path, code: str) -> None:
    (said / "stdout").write_text("")
    (said / "code").write_text(code)
    (said / "stderr").write_text(
        "0.00.010.641 I llama_fit_params: printing estimated memory\n"
        "0.00.010.889 E gguf_init_from_file: failed to open GGUF file\n"
    )
    with pytest.raises(ToolError, match=r"failed: .*failed to open GGUF file"):
        compared(said, report(DENSE, 8192), DENSE)


def test_where_it_is_not_there(said: Path) -> None:
    (said / "llama-fit-params").unlink()
    with pytest.raises(ToolError, match="not on the PATH"):
        compared(said, report(DENSE, 8192), DENSE)
