"""`ggufkit fit` with GPUs: what is chosen, what is typed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli.main import run
from tests.support.ggufs import r1_shaped

Fit = Callable[..., tuple[int, str, str]]
GIB = 1 << 30


@pytest.fixture
def fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fit:
    """Run the command on a model of R1's shape."""
    model = r1_shaped(tmp_path / "R1.gguf")
    monkeypatch.chdir(tmp_path)

    def fit(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["fit", str(model), "--ram", "256G", *map(str, arguments)])
        return code, *capsys.readouterr()

    return fit


def report(fit: Fit, *arguments: object) -> Any:
    code, out, _ = fit(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_the_best_placement_is_found_and_can_be_typed(fit: Fit) -> None:
    code, out, _ = fit("--vram", "48G")
    assert code == 0
    assert "placement, chosen so that the most is on the GPUs: 62 of 62 layers on GPUs" in out
    assert "llama-server: --ctx-size 4096 --n-gpu-layers 62 --n-cpu-moe " in out
    assert "Ollama:       PARAMETER num_ctx 4096; PARAMETER num_gpu " in out
    assert "llm.load.numCpuExpertLayersRatio 0." in out
    assert "RPC devices in the place of GPUs" in out


def test_what_was_chosen_is_what_typing_it_gives(fit: Fit) -> None:
    chosen = report(fit, "--vram", "24G", "--vram", "24G")
    placement = chosen["placement"]
    assert placement["automatic"]
    flags = placement["llama_server"]
    typed = report(fit, "--vram", "24G", "--vram", "24G", *flags)
    assert not typed["placement"]["automatic"]
    assert typed["estimate"]["devices"] == chosen["estimate"]["devices"]
    assert typed["placement"]["llama_server"] == flags


def test_devices_add_up(fit: Fit) -> None:
    found = report(fit, "--vram", "24G", "-ngl", "all", "-cmoe")
    estimate = found["estimate"]
    cpu, gpu = estimate["devices"]
    assert (cpu["name"], gpu["name"], gpu["memory_bytes"]) == ("CPU", "GPU0", 24 * GIB)
    for name in ("weights_bytes", "kv_cache_bytes", "compute_bytes", "output_bytes", "total_bytes"):
        assert cpu[name] + gpu[name] == estimate[name]
    assert found["verdict"]["needed_bytes"] == cpu["total_bytes"]
    assert cpu["kv_cache_bytes"] == 0


@pytest.mark.parametrize("layers", ["all", "ALL", "99", "62"])
def test_all_layers_may_be_said_in_several_ways(fit: Fit, layers: str) -> None:
    assert report(fit, "--vram", "512G", "-ngl", layers)["placement"]["n_gpu_layers"] == 62


def test_cache_and_patterns(fit: Fit) -> None:
    found = report(
        fit,
        "--vram",
        "24G",
        "-ngl",
        99,
        "-ot",
        "exps=CPU",
        "--override-tensor",
        "attn_q=CPU",
        "--no-kv-offload",
    )
    cpu, gpu = found["estimate"]["devices"]
    assert gpu["kv_cache_bytes"] == 0 and cpu["kv_cache_bytes"] == 4096 * 4_997_120
    flags = found["placement"]["llama_server"]
    assert flags[-5:] == [
        "--override-tensor",
        "exps=CPU",
        "--override-tensor",
        "attn_q=CPU",
        "--no-kv-offload",
    ]


def test_an_overfull_gpu_does_not_fit(fit: Fit) -> None:
    code, out, err = fit("--vram", "24G", "-ngl", "all", "--check")
    assert code == 8
    assert "does not fit" in out
    assert "GPU0" in err


def test_ollama_gets_whole_layers(fit: Fit) -> None:
    found = report(fit, "--vram", "48G", "--runtime", "ollama")
    assert found["placement"]["n_cpu_moe"] == 0
    assert f"PARAMETER num_gpu {found['placement']['n_gpu_layers']}" in found["placement"]["ollama"]


@pytest.mark.parametrize(("vram", "tokens"), [("16G", 4096), ("24G", 32768), ("48G", 163840)])
def test_ollamas_context_goes_by_the_vram(fit: Fit, vram: str, tokens: int) -> None:
    found = report(fit, "--vram", vram, "--runtime", "ollama", "-ngl", 0)
    assert found["estimate"]["context_tokens"] == tokens


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-ngl", "20"), "--vram 24G for each GPU"),
        (("--n-cpu-moe", "3"), "--vram 24G for each GPU"),
        (("--tensor-split", "1,1"), "--vram 24G for each GPU"),
        (("--vram", "24G", "-ngl", "many"), "write 40, all or auto"),
        (("--vram", "24G", "-ngl", "auto", "-cmoe"), "leave out --n-cpu-moe"),
        (("--vram", "24G", "-ot", "exps"), "has no buffer"),
        (("--vram", "24G", "-ot", "exps=CUDA1"), "choose from CPU, GPU0"),
        (("--vram", "24G", "-ot", "(=CPU"), "-ot ("),
        (("--vram", "24G", "-ts", "1,1"), "a share for each --vram"),
        (("--vram", "24G", "-ts", "0,0"), "are no shares"),
        (("--vram", "24G", "-ts", "nan"), "are no shares"),
        (("--vram", "0"), "is nothing"),
    ],
)
def test_wrong_flags_say_what_to_do(fit: Fit, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = fit(*arguments)
    assert code == 2
    assert said in err


def test_the_instruction_set_may_be_asked(fit: Fit) -> None:
    estimates = {isa: report(fit, "--isa", isa)["estimate"] for isa in ("avx512", "none")}
    assert estimates["avx512"]["rearranged_bytes"] > 0
    assert estimates["none"]["rearranged_bytes"] == 0


def test_llama_fit_params_is_asked(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "llama-fit-params"
    program.write_text("#!/bin/sh\necho 'Host 1 2 3 '\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    code, out, err = fit("--compare", "--json")
    assert code == 0 and json.loads(out)["schema"] == 1
    assert "19,520, 2" in err  # MiB of cache
    assert "llama.cpp says otherwise" in err


def test_comparing_needs_a_model_here(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--compare", "--machine", "z440-1ch", "--machine", "z440-4ch")[0] == 2
