"""Compute buffers against llama.cpp's own: every row of the truth, and what generalises from it."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from ggufkit.fit.compute import MEASURED, NOT_BUILT, compute_phases, layers_of
from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.layers import ComputeSettings, representative
from ggufkit.fit.memory import estimate_memory
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import model_info
from tests.fit.facts import (
    compute_facts,
    compute_header,
    header_of,
    more_compute_facts,
    more_compute_header,
    settings_of,
    truth,
    truth_header,
)
from tests.support.ggufs import TensorSpec

UNSURE = {"llama4"}  # real ones mix layers with experts and without
MODELS = sorted(truth()["models"])
OLD_R1 = "deepseek-r1-671b-old-ud-iq2xxs"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration: ours and llama.cpp's, bytes."""

    model: str
    settings: FitSettings
    ours: tuple[int, int, int]
    theirs: tuple[int, int, int]

    def errors(self) -> tuple[float, float, float, float]:
        pairs = [*zip(self.ours, self.theirs, strict=True), (sum(self.ours), sum(self.theirs))]
        weights, cached, compute, total = (abs(a / b - 1) for a, b in pairs)
        return weights, cached, compute, total


@cache
def rows() -> tuple[Row, ...]:
    return tuple(row for name in MODELS for row in rows_of(name))


def rows_of(name: str) -> list[Row]:
    model, header = truth()["models"][name], truth_header(name)
    info, found = model_info([header]), []
    facts = zip(settings_of(truth()), model["context_bytes"], model["compute_bytes"], strict=True)
    for settings, context, compute in facts:
        if compute is not None:
            ours = estimate_memory(info, header.tensors, settings)
            assert ours.kv_cache_bytes is not None and ours.compute_bytes is not None
            parts = ours.weights_bytes, ours.kv_cache_bytes, ours.compute_bytes
            found.append(Row(name, settings, parts, (model["model_bytes"], context, compute)))
    return found


def test_every_row_on_the_cpu_within_the_promised_errors(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [row.errors() for row in rows()]
    assert len(errors) == 698  # of 702; llama.cpp refuses MLA with keys and values of different types
    weights, cache_, compute, total = (sorted(column) for column in zip(*errors, strict=True))
    with capsys.disabled():
        sys.stdout.write(f"\nCPU rows: {len(errors)}  median      95 %     worst\n")
        for name, column in {"weights": weights, "KV": cache_, "compute": compute, "total": total}.items():
            at_95 = column[int(0.95 * len(column))]
            worst = f"{statistics.median(column):8.4%}  {at_95:8.4%}  {column[-1]:8.4%}"
            sys.stdout.write(f"  {name:10} {worst}\n")
    assert (weights[-1], cache_[-1]) == (0, 0)
    assert statistics.median(compute) <= 0.01
    assert compute[int(0.95 * len(compute))] <= 0.1
    assert statistics.median(total) <= 0.001
    assert total[-1] <= 0.01


@pytest.mark.parametrize("name", MODELS)
def test_compute_buffers_are_exact(name: str) -> None:
    found = [row for row in rows() if row.model == name]
    assert len(found) >= 37
    assert [row.settings for row in found if row.ours[2] != row.theirs[2]] == []


@pytest.mark.parametrize("name", sorted(compute_facts()["models"]))
def test_further_architectures_are_exact(name: str) -> None:
    check_exact(compute_facts(), name, compute_header(name))


@pytest.mark.parametrize("name", sorted(more_compute_facts()["models"]))
def test_yet_further_architectures_are_exact(name: str) -> None:
    check_exact(more_compute_facts(), name, more_compute_header(name))


def check_exact(facts: dict[str, Any], name: str, header: Header) -> None:
    model, info = facts["models"][name], model_info([header])
    expected = zip(settings_of(facts), model["context_bytes"], model["compute_bytes"], strict=True)
    for settings, context, compute in expected:
        ours = estimate_memory(info, header.tensors, settings)
        assert (ours.kv_cache_bytes, ours.compute_bytes) == (context, compute), settings
        assert certainty(ours) == ("approximate" if name in UNSURE else "exact")


def test_all_that_was_measured_is_called_exact() -> None:
    small = set(compute_facts()["models"]) | set(more_compute_facts()["models"]) - UNSURE
    assert small | {truth()["models"][name]["kv"]["general.architecture"] for name in MODELS} == MEASURED
    assert not MEASURED & NOT_BUILT


@pytest.mark.parametrize("name", ["gemma3-27b-q4km", "jamba-1.5-mini-52b-q4km", OLD_R1])
def test_layers_that_repeat_need_no_more(name: str) -> None:
    header = truth_header(name)
    info = model_info([header])
    layers = layers_of(info, header.tensors)
    assert layers is not None
    assert len(representative(layers)) < len(layers) / 2
    distinct = [replace(layer, kind=(i,)) for i, layer in enumerate(layers)]
    settings = ComputeSettings(512, 1, 1, 8192, 1536, 1, True, 2, 2, False, False)
    few, every = (compute_phases(info, chosen, settings) for chosen in (layers, distinct))
    assert max(few[0].values()) == max(every[0].values())


# What it depends on


def estimate(name: str, settings: FitSettings) -> MemoryEstimate:
    header = truth_header(name)
    return estimate_memory(model_info([header]), header.tensors, settings)


def test_more_tokens_at_once_need_more() -> None:
    found = [estimate("llama3.1-8b-q4km", FitSettings(8192, n_ubatch_tokens=n)) for n in (64, 512)]
    sizes = [each.compute_bytes for each in found]
    assert sizes[0] is not None and sizes[1] is not None
    assert sizes[1] / sizes[0] == pytest.approx(8, rel=0.01)


def test_scores_of_all_tokens_need_more_than_those_of_one() -> None:
    one, every = (estimate("llama3.1-8b-q4km", FitSettings(8192, n_outputs=n)) for n in (1, 2048))
    assert (one.compute_bytes or 0) < (every.compute_bytes or 0)
    assert dict(every.phases)["output"] == every.compute_bytes
    assert dict(one.phases)["output"] < (one.compute_bytes or 0)


# What is not known


def llama(arch: str, *without: str, **keys: int) -> MemoryEstimate:
    block = {
        "attn_norm": (256,), "attn_q": (256, 256), "attn_k": (256, 128), "attn_v": (256, 128),
        "attn_output": (256, 256), "ffn_norm": (256,), "ffn_up": (256, 512), "ffn_gate": (256, 512),
        "ffn_down": (512, 256),
    }  # fmt: skip
    tensors: list[TensorSpec] = [("token_embd.weight", (256, 1000), "F16")]
    for i in range(4):
        has = {name: shape for name, shape in block.items() if name not in without}
        tensors += [(f"blk.{i}.{name}.weight", shape, "F32") for name, shape in has.items()]
    heads = {"attention.head_count": 4, "attention.head_count_kv": 2}
    kv = {"block_count": 4, "embedding_length": 256} | heads | keys
    header = header_of({"general.architecture": arch} | {f"{arch}.{k}": v for k, v in kv.items()}, tensors)
    return estimate_memory(model_info([header]), header.tensors, FitSettings(4096))


def certainty(found: MemoryEstimate) -> str:
    return next(term.certainty for term in found.terms if term.name == "compute buffer")


def test_architectures_are_exact_approximate_or_unknown() -> None:
    assert certainty(llama("llama")) == "exact"
    assert certainty(llama("llama4")) == "approximate"
    assert certainty(llama("notyet")) == "approximate"
    assert certainty(llama("gemma4")) == "unknown"
    assert llama("maincoder").compute_bytes == llama("llama").compute_bytes


@pytest.mark.parametrize("missing", ["attn_q", "attn_output", "ffn_up", "ffn_down"])
def test_a_missing_matrix_leaves_it_open(missing: str) -> None:
    found = llama("llama", missing)
    assert certainty(found) == "unknown"
    assert found.compute_bytes is None
    assert found.kept_bytes is not None


def test_an_absurd_number_of_experts_is_not_built() -> None:
    found = llama("llama", expert_count=1_000_000, expert_used_count=900_000)
    assert found.compute_bytes is None


SAMPLES = ("qwen3-next-80b-a3b-q4km", "jamba-1.5-mini-52b-q4km", OLD_R1, "deepseek-r1-671b-mla-q4km")


@pytest.mark.parametrize("name", SAMPLES)
def test_any_missing_or_odd_tensor_gives_a_number_or_none(name: str) -> None:
    header = truth_header(name)
    info = model_info([header])
    kinds = {tensor.name.partition("blk.")[2].partition(".")[2] for tensor in header.tensors} - {""}
    for kind in sorted(kinds):
        without = [tensor for tensor in header.tensors if not tensor.name.endswith(f".{kind}")]
        flat = [replace(t, shape=t.shape[:1]) if t.name.endswith(f".{kind}") else t for t in header.tensors]
        for tensors in (without, flat):
            found = estimate_memory(info, tensors, FitSettings(4096))
            assert found.compute_bytes is None or found.compute_bytes > 0
