"""What lies on which device: llama.cpp's buffers of the CPU and of RPC devices that stand for GPUs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from math import ceil
from statistics import median
from typing import Any

import pytest

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Offload
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.placement import place
from ggufkit.gguf.model import model_info
from tests.fit.facts import DATA, settings_of, truth, truth_header

GIB = 1 << 30


@cache
def facts() -> dict[str, Any]:
    """Return the buffers of 18 models on four sets of devices."""
    return dict(json.loads((DATA / "fit_devices.json").read_text()))


MODELS = sorted(facts()["models"])


def offload(device: str, n_layers: int, cache_on_cpu: bool) -> Offload:
    how = facts()["devices"][device]
    return Offload(
        gpus_bytes=(GIB,) * how["n_gpus"],
        n_gpu_layers=n_layers // 2 if how.get("half") else None,
        cpu_moe=how.get("cpu_moe", False),
        cache_on_cpu=cache_on_cpu,
    )


@cache
def estimates(name: str) -> list[tuple[str, MemoryEstimate, list[list[int]]]]:
    """Return for each row of a model the devices, what we say and what llama.cpp said, the CPU first."""
    header = truth_header(name)
    info = model_info([header])
    found = []
    for device, rows in facts()["models"][name].items():
        on_cpu = facts()["configurations"]["cache_on_cpu"]
        for settings, cached, said in zip(settings_of(facts()), on_cpu, rows, strict=True):
            where = offload(device, info.n_layers or 0, cached)
            ours = estimate_memory(info, header.tensors, replace(settings, offload=where))
            found.append((device, ours, said))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_caches_on_every_device_are_exact(name: str) -> None:
    n_rows = 0
    for device, ours, said in estimates(name):
        found = [(each.weights_bytes, each.kv_cache_bytes) for each in ours.devices]
        assert found == [(weights, kept) for weights, kept, _ in said], (device, ours.settings)
        n_rows += 1
    assert n_rows in (27, 36)


@pytest.mark.parametrize("name", [m for m in MODELS if not m.startswith(("jamba", "qwen3-next"))])
def test_compute_buffers_on_every_device_are_exact(name: str) -> None:
    for device, ours, said in estimates(name):
        found = [each.compute_bytes for each in ours.devices]
        assert found == [compute for _, _, compute in said], (device, ours.settings)


def share(values: list[float], part: float) -> float:
    return sorted(values)[ceil(part * len(values)) - 1]


def cpu_errors() -> tuple[list[float], list[float]]:
    """Return how far compute buffers and totals are off without a GPU, as shares."""
    compute, total = [], []
    for name, model in truth()["models"].items():
        header = truth_header(name)
        info = model_info([header])
        rows = zip(settings_of(truth()), model["context_bytes"], model["compute_bytes"], strict=True)
        for settings, kept, computed in rows:
            if kept is None:
                continue
            ours = estimate_memory(info, header.tensors, settings)
            assert ours.compute_bytes is not None and ours.output_bytes is not None
            compute.append(abs(ours.compute_bytes / computed - 1))
            all_said = model["model_bytes"] + kept + computed
            total.append(abs((ours.total_bytes - ours.output_bytes) / all_said - 1))
    return compute, total


def gpu_errors() -> tuple[list[float], list[float]]:
    compute, total = [], []
    for name in MODELS:
        for _, ours, said in estimates(name):
            assert ours.output_bytes is not None
            pairs = zip(ours.devices, said, strict=True)
            compute += [abs((each.compute_bytes or 0) / row[2] - 1) for each, row in pairs]
            total.append(abs((ours.total_bytes - ours.output_bytes) / sum(map(sum, said)) - 1))
    return compute, total


def test_the_issues_figures_hold_for_cpu_rows_and_for_gpu_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{'rows':28}{'n':>6}{'median':>10}{'95 %':>10}{'worst':>10}\n")
        for rows, errors in (("CPU", cpu_errors()), ("GPU (RPC devices)", gpu_errors())):
            for what, values in zip(("compute", "total"), errors, strict=True):
                shares = median(values), share(values, 0.95), max(values)
                columns = "".join(f"{s:10.3%}" for s in shares)
                sys.stdout.write(f"{rows + ', ' + what:28}{len(values):6}{columns}\n")
            compute, total = errors
            assert median(compute) <= 0.01 and share(compute, 0.95) <= 0.1
            assert median(total) <= 0.001 and max(total) <= 0.01


# Layers on devices


def test_layers_are_counted_from_the_end_and_the_output_is_one() -> None:
    placed = place(Offload((GIB,), n_gpu_layers=3), 4)
    assert (placed.layers, placed.output, placed.all_layers) == ((1, 1, 0, 0), 0, False)
    assert place(Offload((GIB,), n_gpu_layers=0), 4).output == 1
    assert place(Offload((GIB,), n_gpu_layers=99), 4).layers == (0,) * 4


def test_several_gpus_share_by_their_memory_or_as_asked() -> None:
    by_memory = place(Offload((GIB, 3 * GIB)), 7)
    assert (by_memory.layers, by_memory.output) == ((0, 0, 1, 1, 1, 1, 1), 1)
    asked = place(Offload((GIB, 3 * GIB), tensor_split=(6, 2)), 7)
    assert (asked.layers, asked.output) == ((0, 0, 0, 0, 0, 0, 1), 1)


def test_a_gpu_without_a_share_gets_nothing() -> None:
    assert set(place(Offload((GIB, GIB), tensor_split=(1, 0)), 8).layers) == {0}


def test_experts_stay_where_asked() -> None:
    placed = place(Offload((GIB,), n_cpu_moe=2), 4)
    assert placed.of_tensor("blk.1.ffn_up_exps.weight") == (1,)
    assert placed.of_tensor("blk.2.ffn_up_exps.weight") == (0,)
    assert placed.of_tensor("blk.1.attn_q.weight") == (0,)
    everything = place(Offload((GIB,), cpu_moe=True), 4)
    assert everything.of_tensor("blk.3.ffn_gate_up_exps.weight") == (1,)
    assert everything.of_tensor("blk.3.ffn_up_shexp.weight") == (0,)


def test_the_first_pattern_counts() -> None:
    rules = ((r"blk\.1\.", "CUDA1"), (r"blk\.", "CPU"))
    placed = place(Offload((GIB, GIB), overrides=rules), 4)
    assert placed.of_tensor("blk.1.attn_q.weight") == (1,)
    assert placed.of_tensor("blk.10.attn_q.weight") == (2,)


@pytest.mark.parametrize("rule", [("(", "CPU"), ("x", "CUDA1"), ("x", "disk"), ("x", "")])
def test_patterns_and_buffers_that_cannot_be(rule: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="-ot"):
        place(Offload((GIB,), overrides=(rule,)), 4)


def test_embeddings_stay_and_ropes_factors_are_everywhere() -> None:
    placed = place(Offload((GIB, GIB)), 8)
    assert placed.of_tensor("token_embd.weight") == (2,)
    assert placed.of_tensor("rope_freqs.weight") == (0, 1)
    assert placed.of_tensor("token_embd_norm.weight") == (0,)
    assert placed.of_tensor("output_norm.weight") == (1,)
    assert placed.of_tensor("blk.99999999999.x") == (2,)


def test_several_gpus_keep_what_comes_in_several_times() -> None:
    header = truth_header("llama3.1-8b-q4km")
    info = model_info([header])
    two, tied = (
        estimate_memory(info, header.tensors, FitSettings(8192, offload=Offload((GIB, GIB), overrides=rules)))
        for rules in ((), (("nothing", "CPU"),))
    )
    assert (two.compute_bytes or 0) > 1.4 * (tied.compute_bytes or 0)
