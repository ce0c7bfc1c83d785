"""Real models in a real llama-server: its log's buffers against ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from testbed import gemma3, smollm2

from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.memory import estimate_memory
from ggufkit.gguf.model import model_info
from ggufkit.transfer.sources import open_header
from tests.support.runtimes import run_llama_server

pytestmark = [pytest.mark.runtimes, pytest.mark.models]

MIB = 1 << 20
_BUFFER = re.compile(r"(model|KV|compute|output) buffer size = +([\d.]+) MiB")


@dataclass(frozen=True, slots=True)
class Buffers:
    """What a server says of its memory, MiB with two decimals."""

    weights: float
    cache: float
    compute: float
    output: float


def buffers_of(model: Path, settings: FitSettings) -> Buffers:
    arguments = {
        "--ctx-size": settings.context_tokens,
        "--parallel": settings.n_sequences,
        "--ubatch-size": settings.n_ubatch_tokens,
        "--cache-type-k": settings.cache_type_k,
        "--cache-type-v": settings.cache_type_v,
        "--batch-size": settings.n_batch_tokens,
        "--flash-attn": "on" if settings.flash else "off",
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    words += ["--kv-unified" if settings.unified else "--no-kv-unified"]
    words += ["--swa-full"] if settings.swa_full else []
    with run_llama_server(model, *words, "--no-mmap", "--verbosity", "4") as server:
        log = server.log_text()
    sums = {"model": 0.0, "KV": 0.0}  # a first pass without memory says 0.00
    last = {}
    for kind, size in _BUFFER.findall(log):
        if kind in sums:
            sums[kind] += float(size)
        else:
            last[kind] = float(size)
    return Buffers(sums["model"], sums["KV"], last["compute"], last["output"])


OLD = FitSettings(4096, mixed_inputs=False)  # the testbed's llama-server is build 10434
SETTINGS = {
    "plain": OLD,
    "ubatch": replace(OLD, context_tokens=8192, n_ubatch_tokens=1024),
    "sequences": replace(OLD, context_tokens=5000, n_sequences=3, cache_type_k="q8_0", cache_type_v="q8_0"),
    "no flash": replace(OLD, context_tokens=8192, n_sequences=2, flash=False),
    "unified": replace(OLD, context_tokens=8192, n_sequences=3, unified=True),
    "full": replace(
        OLD,
        context_tokens=8192,
        swa_full=True,
        n_batch_tokens=256,
        n_ubatch_tokens=256,
        cache_type_k="q8_0",
        cache_type_v="q4_0",
    ),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_smollm2_as_the_server_has_it(settings: FitSettings) -> None:
    check(smollm2(), settings)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_gemma3_as_the_server_has_it(settings: FitSettings) -> None:
    check(gemma3(), settings)


def check(model: Path, settings: FitSettings) -> None:
    header = open_header(model)
    ours = estimate_memory(model_info([header]), header.tensors, settings)
    theirs = buffers_of(model, settings)
    assert {term.certainty for term in ours.terms} == {"exact"}
    (cache,) = [term.n_bytes for term in ours.terms if term.name == "KV cache"]
    assert cache is not None
    assert theirs.cache > 1
    # each printed size is rounded to 0.01; there are at most two of each kind
    assert cache / MIB == pytest.approx(theirs.cache, abs=0.011)
    assert ours.weights_bytes / MIB == pytest.approx(theirs.weights, abs=0.011)
    assert ours.compute_bytes is not None and ours.output_bytes is not None
    assert ours.compute_bytes / MIB == pytest.approx(theirs.compute, abs=0.006)
    assert ours.output_bytes / MIB == pytest.approx(theirs.output, abs=0.006)
