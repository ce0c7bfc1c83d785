"""A model over several machines: who gets what, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.hosts import Host
from ggufkit.fit.memory import estimate_memory
from ggufkit.gguf.model import model_info
from ggufkit.runtimes.llamacpp_rpc import Endpoint, parse_endpoint, worker_command
from ggufkit.verbs.hosts import HostsFit, fit_hosts
from tests.fit.facts import truth_header

GIB = 1 << 30
R1, DENSE = "deepseek-r1-671b-mla-ud-iq2xxs", "llama3.1-8b-q4km"


def fit(name: str, *gib: float, context: int = 4096) -> HostsFit:
    hosts = [Host(f"box{i}", int(n * GIB)) for i, n in enumerate(gib)]
    return fit_hosts([truth_header(name)], hosts, context_tokens=context)


@pytest.mark.parametrize("gib", [(64, 128, 64), (128, 128), (8, 128, 128), (96, 32, 32, 96)])
def test_a_model_too_large_for_each_fits_all_together(gib: tuple[float, ...]) -> None:
    found = fit(R1, *gib).placement
    assert found.level == "fits" and not found.head_alone
    assert all(share.left_bytes >= 0 and share.n_layers > 0 for share in found.shares)
    assert [share.name for share in found.shares] == [f"box{i}" for i in range(len(gib))]
    assert sum(share.n_layers for share in found.shares) == found.n_layers == 62
    assert found.n_gpu_layers == sum(found.tensor_split) == 62 - found.shares[0].n_layers
    assert list(found.tensor_split) == [share.n_layers for share in found.shares[1:]]


def test_nothing_is_lost_or_counted_twice() -> None:
    """What llama.cpp copies is small: each device with layers gets the rope factors, if there are any."""
    found = fit(R1, 64, 128, 64).placement
    header = truth_header(R1)
    alone = estimate_memory(model_info([header]), header.tensors, FitSettings(4096))
    assert sum(share.weights_bytes for share in found.shares) == alone.weights_bytes
    assert sum(share.kv_cache_bytes or 0 for share in found.shares) == alone.kv_cache_bytes


def test_the_head_keeps_what_it_has_room_for_so_that_little_is_sent() -> None:
    sent = [fit(R1, head, 256).placement.shipped_bytes for head in (16, 32, 64, 128)]
    assert all(more > less for more, less in pairwise(sent))
    found = fit(R1, 64, 256)
    layer = max(s.weights_bytes / s.n_layers for s in found.placement.shares[1:])
    assert found.placement.shares[0].left_bytes < 1.2 * layer
    assert found.load_s == pytest.approx(found.placement.shipped_bytes * 8 / 1e9)


def test_what_leaves_too_little_to_the_systems_is_tight() -> None:
    found = fit(R1, 64, 64, 64, context=8192).placement
    assert found.level == "tight" and min(share.left_bytes for share in found.shares) < 0
    assert all(share.total_bytes < share.ram_bytes for share in found.shares)


@pytest.mark.parametrize("gib", [(64, 64), (4, 64), (64, 4), (1, 1)])
def test_what_does_not_fit_says_where_it_is_short(gib: tuple[float, ...]) -> None:
    found = fit(R1, *gib).placement
    assert found.level == "no" and min(share.left_bytes for share in found.shares) < 0
    assert sum(share.n_layers for share in found.shares) == 62


def test_a_head_with_room_for_all_is_told_and_the_layers_are_spread_for_a_trial() -> None:
    found = fit(DENSE, 32, 32)
    assert found.placement.head_alone and found.placement.level == "fits"
    assert "box0 alone has room for it, and is faster without workers" in found.warnings
    counts = [share.n_layers for share in found.placement.shares]
    assert sum(counts) == 33 and abs(counts[0] - counts[1]) <= 2


def test_more_context_leaves_less_to_the_head() -> None:
    header, hosts = truth_header(DENSE), [Host("a", 5 * GIB), Host("b", 64 * GIB)]
    short, long = (fit_hosts([header], hosts, context_tokens=n).placement for n in (4096, 131072))
    assert long.n_gpu_layers > short.n_gpu_layers and long.level == short.level == "fits"


def test_the_flags_are_those_of_the_head() -> None:
    found = fit(R1, 64, 128, 64)
    flags = dict(zip(found.flags[::2], found.flags[1::2], strict=True))
    counts = [f"{share.n_layers}" for share in found.placement.shares[1:]]
    assert flags == {
        "--ctx-size": "4096",
        "--rpc": "box1:50052,box2:50052",
        "--device": "RPC0,RPC1",
        "--n-gpu-layers": str(found.placement.n_gpu_layers),
        "--tensor-split": ",".join(counts),
    }
    assert any("not more speed" in warning for warning in found.warnings)
    assert any("no password" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["a"], "two machines"),
        ([], "two machines"),
        (["a", "b", "b"], "b:50052 is named twice"),
        (["a", "b", "b:50052"], "b:50052 is named twice"),
        (["b", "b"], "b is named twice"),
        (["a", "::1"], "no address"),
        (["a", "b,c"], "no address"),
        (["a", "-b"], "no address"),
        (["a", "b c"], "no address"),
        (["a", "b\nc"], "no address"),
        (["a", "b:0"], "no port"),
        (["a", "b:65536"], "no port"),
        (["a", "b:x"], "no port"),
        (["a", "b:"], "no port"),
    ],
)
def test_hosts_that_cannot_be_meant(names: list[str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        fit_hosts([truth_header(DENSE)], [Host(name, GIB) for name in names])


def test_where_a_worker_listens() -> None:
    assert parse_endpoint("10.0.0.2") == Endpoint("10.0.0.2", 50052)
    assert str(parse_endpoint("box-2.lan:6000")) == "box-2.lan:6000"
    words = "ggml-rpc-server --host {} --port 50052 --device CPU --cache"
    assert worker_command(Endpoint("10.0.0.2")) == words.format("10.0.0.2")
    assert worker_command(Endpoint("box2"), 14) == words.format("0.0.0.0") + " --threads 14"


def test_an_unknown_architecture_is_not_said_to_fit() -> None:
    header = truth_header(DENSE)
    values = {
        key: replace(kv, value="newarch") if key == "general.architecture" else kv
        for key, kv in header.kv.items()
    }
    hosts = [Host("a", 64 * GIB), Host("b", 64 * GIB)]
    assert fit_hosts([replace(header, kv=values)], hosts).placement.level == "unknown"
