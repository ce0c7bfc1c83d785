"""What is put on GPUs when ggufkit chooses: it fits with llama.cpp's margin, and one more would not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufkit.fit.estimate import FitSettings, MemoryEstimate, Offload
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.offload import best_offload, most_layers, settled
from ggufkit.fit.verdict import short_gpus
from ggufkit.gguf.model import model_info
from tests.fit.facts import truth_header

GIB = 1 << 30
MOE, DENSE = "qwen3-235b-a22b-q4km", "llama3.1-8b-q4km"


def at(name: str, offload: Offload, context: int = 8192) -> MemoryEstimate:
    header = truth_header(name)
    return estimate_memory(model_info([header]), header.tensors, FitSettings(context, offload=offload))


def best(name: str, *gpus_gib: float, context: int = 8192, cache_on_cpu: bool = False) -> Offload:
    header = truth_header(name)
    asked = Offload(tuple(int(gib * GIB) for gib in gpus_gib), cache_on_cpu=cache_on_cpu)
    return best_offload(model_info([header]), header.tensors, FitSettings(context, offload=asked))


def test_what_fits_whole_is_put_there_whole() -> None:
    assert best(DENSE, 8) == Offload((8 * GIB,))


def test_experts_leave_first_and_no_more_than_needed() -> None:
    found = best(MOE, 24)
    assert (found.n_gpu_layers, found.cpu_moe) == (None, False)
    assert found.n_cpu_moe is not None and 60 < found.n_cpu_moe < 94
    assert not short_gpus(at(MOE, found))
    assert short_gpus(at(MOE, replace(found, n_cpu_moe=found.n_cpu_moe - 1)))


def test_a_small_gpu_gets_layers_without_their_experts() -> None:
    found = best(MOE, 4)
    assert found.cpu_moe and found.n_gpu_layers is not None and 0 < found.n_gpu_layers < 95
    assert not short_gpus(at(MOE, found))
    assert short_gpus(at(MOE, replace(found, n_gpu_layers=found.n_gpu_layers + 1)))


def test_a_dense_model_gets_whole_layers() -> None:
    found = best(DENSE, 4)
    assert not found.cpu_moe and found.n_gpu_layers is not None and 0 < found.n_gpu_layers < 33
    assert not short_gpus(at(DENSE, found))
    assert short_gpus(at(DENSE, replace(found, n_gpu_layers=found.n_gpu_layers + 1)))


def test_a_gpu_too_small_for_anything_gets_nothing() -> None:
    found = best(DENSE, 1.1)
    assert found.n_gpu_layers == 0
    assert at(DENSE, found).devices[1].weights_bytes == 0


def test_the_cache_may_stay_behind_which_leaves_room() -> None:
    kept, moved = (best(MOE, 24, context=32768, cache_on_cpu=flag) for flag in (True, False))
    assert (kept.n_cpu_moe or 0) < (moved.n_cpu_moe or 0)


@pytest.mark.parametrize("gpus", [(12, 24), (24, 12), (8, 8, 8)])
@pytest.mark.parametrize("name", [MOE, "deepseek-r1-671b-mla-ud-iq2xxs"])
def test_several_gpus_are_all_used_and_none_overfull(name: str, gpus: tuple[float, ...]) -> None:
    found = best(name, *gpus)
    estimate = at(name, found)
    assert not short_gpus(estimate)
    assert all(device.weights_bytes for device in estimate.devices)
    assert len(found.tensor_split) in (0, len(gpus))


def test_two_gpus_hold_more_than_one() -> None:
    alone, both = best(MOE, 24), best(MOE, 24, 24)
    assert (both.n_cpu_moe or 0) < (alone.n_cpu_moe or 0)


def test_whole_layers_where_the_runtime_keeps_no_experts_apart() -> None:
    header = truth_header(MOE)
    info = model_info([header])
    asked = FitSettings(4096, offload=Offload((24 * GIB,), automatic=True, whole_layers=True))
    found = settled(info, header.tensors, asked).offload
    assert found is not None and not found.cpu_moe and found.n_cpu_moe is None and not found.automatic
    assert found.n_gpu_layers == most_layers(info, header.tensors, asked).n_gpu_layers == 17


def test_what_was_asked_stays_as_it_is() -> None:
    header = truth_header(MOE)
    for settings in (FitSettings(4096), FitSettings(4096, offload=Offload((GIB,), n_gpu_layers=3))):
        assert settled(model_info([header]), header.tensors, settings) is settings
