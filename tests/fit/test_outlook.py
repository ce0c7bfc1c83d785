"""How fast a model is on a machine: what a token reads, the range over a context, paging, calibration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.fit.machine import given_machine, machine_profiles
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.outlook import ASSUMED_DISK_BYTES_PER_S, ModelSpeed, TokenReads, speed_on, token_reads
from ggufkit.fit.rig import READ_SHARE, Bandwidths, KnownRun, Rig, bandwidth_here, rig_of
from ggufkit.fit.speed import Run, active_bytes_per_token, predict_speed
from ggufkit.fit.verdict import Verdict, judge, reserve_of
from ggufkit.gguf.model import model_info
from tests.fit.facts import truth_header

GIB = 1 << 30
OLD_R1, MLA_R1, LLAMA = "deepseek-r1-671b-old-ud-iq2xxs", "deepseek-r1-671b-mla-ud-iq2xxs", "llama3.1-8b-q4km"
FITS = Verdict("fits", 10 * GIB, 10 * GIB, 1.0)
DENSE = TokenReads(10_000_000_000, 0, moe=False, slow_share=0.0)


def rig(**changes: Any) -> Rig:
    known = Rig("here", "", given_machine(256 * GIB), "cpu_epyc_1s", 1, Bandwidths(100e9, "given"))
    return replace(known, **changes)


def speed(rig_: Rig, reads: TokenReads = DENSE, verdict: Verdict = FITS) -> ModelSpeed:
    found = speed_on(rig_, reads, verdict)
    assert found is not None
    assert 0 < found.low_tokens_per_s <= found.tokens_per_s <= found.high_tokens_per_s
    return found


def reads_of(name: str, context_tokens: int = 4096, **settings: Any) -> TokenReads:
    header = truth_header(name)
    info = model_info([header])
    estimate = estimate_memory(info, header.tensors, FitSettings(context_tokens, **settings))
    return token_reads(info, header.tensors, estimate)


def test_without_a_cache_it_is_the_family_s_prediction() -> None:
    plain = predict_speed("cpu_epyc_1s", 100e9, 10e9)
    found = speed(rig())
    assert (found.low_tokens_per_s, found.tokens_per_s, found.high_tokens_per_s) == (
        plain.low_tokens_per_s,
        plain.tokens_per_s,
        plain.high_tokens_per_s,
    )
    assert (found.basis, found.notes) == ("formula", ())


def test_a_token_reads_the_experts_used_and_the_cache_at_the_context_asked() -> None:
    header = truth_header(OLD_R1)
    reads = reads_of(OLD_R1)
    assert reads.weights_bytes == active_bytes_per_token(model_info([header]), header.tensors)
    assert reads.weights_bytes < sum(t.n_bytes for t in header.tensors) / 8
    assert reads.cache_bytes == 4096 * 4_997_120
    assert reads.moe and reads.slow_share > 0.25
    assert reads_of(MLA_R1).cache_bytes == 4096 * 70_272
    assert reads_of(OLD_R1, n_sequences=4).cache_bytes == 1024 * 4_997_120
    assert reads_of(OLD_R1, n_sequences=4, unified=True).cache_bytes == 4096 * 4_997_120
    info, settings = model_info([header]), FitSettings(4096, n_sequences=4, unified=True)
    estimate = estimate_memory(info, header.tensors, settings)
    each = token_reads(info, header.tensors, estimate, context_each=True)
    assert each.cache_bytes == 1024 * 4_997_120


def test_the_range_goes_from_a_full_context_to_an_empty_one() -> None:
    full, empty = replace(DENSE, cache_bytes=10_000_000_000), DENSE
    found = speed(rig(), full)
    assert found.high_tokens_per_s == speed(rig(), empty).high_tokens_per_s
    assert found.low_tokens_per_s == pytest.approx(speed(rig(), empty).low_tokens_per_s / 2)
    assert found.tokens_per_s == pytest.approx(speed(rig(), empty).tokens_per_s / 1.5)


def test_the_posts_measurement_is_in_the_range_of_its_profile() -> None:
    profile = rig_of(machine_profiles()["z440-4ch"])
    header = truth_header(OLD_R1)
    info = model_info([header])
    estimate = estimate_memory(info, header.tensors, FitSettings(4096))
    verdict = judge(estimate, profile.memory, reserve_of(profile.memory, estimate.settings, estimate))
    found = speed(profile, token_reads(info, header.tensors, estimate), verdict)
    assert verdict.level == "fits"
    assert found.low_tokens_per_s < 1.83 < found.high_tokens_per_s
    assert found.bandwidth == Bandwidths(76.8e9, "profile")


def test_quants_that_cpus_unpack_slowly_lower_the_low_end_only() -> None:
    slow = replace(DENSE, slow_share=0.5)
    assert speed(rig(), slow).low_tokens_per_s == pytest.approx(0.6 * speed(rig()).low_tokens_per_s)
    assert speed(rig(), slow).tokens_per_s == speed(rig()).tokens_per_s
    assert "IQ1 to IQ3" in speed(rig(), slow).notes[0]
    for family in ("gpu", "cpu_xeon"):  # of no weight there; already in its efficiency
        assert speed(rig(family=family), slow).notes == ()


def test_two_sockets_are_as_fast_as_one() -> None:
    two = speed(rig(family="cpu_2s_numa", n_sockets=2, bandwidth=Bandwidths(200e9, "given")))
    assert two.tokens_per_s == predict_speed("cpu_2s_numa", 200e9, 10e9, n_sockets=2).tokens_per_s
    assert "of one socket" in two.formula


@pytest.mark.parametrize("moe", [False, True])
def test_what_pages_waits_for_the_disk(moe: bool) -> None:
    reads = replace(DENSE, moe=moe)
    pages = replace(FITS, level="pages", weights_in_memory=0.8)
    slow, fast = (speed(rig(disk_bytes_per_s=rate), reads, pages) for rate in (1e9, 10e9))
    memory = predict_speed("cpu_epyc_1s", 100e9, 10e9, moe).tokens_per_s
    assert slow.tokens_per_s == pytest.approx(1 / (1 / memory + 0.2 * 10e9 / 1e9))
    assert slow.tokens_per_s < fast.tokens_per_s < memory
    read_at_worst = 0.4 if moe else 1.0
    assert slow.low_tokens_per_s < 1e9 / (read_at_worst * 10e9) < slow.tokens_per_s * (5 if not moe else 2)
    assert "plus 2.0 GB at 1.0 GB/s" in slow.formula
    assumed = speed(rig(), reads, pages)
    assert f"{ASSUMED_DISK_BYTES_PER_S / 1e9:.0f} GB/s is assumed" in assumed.notes[0]
    assert assumed.tokens_per_s == speed(rig(disk_bytes_per_s=2e9), reads, pages).tokens_per_s


def test_a_run_here_calibrates() -> None:
    same = speed(rig(known_run=KnownRun("it", Run(10e9, 3.0))))
    assert (same.basis, same.tokens_per_s) == ("measured here", 3.0)
    assert same.low_tokens_per_s > 2.5 and same.high_tokens_per_s < 3.5
    other = speed(rig(known_run=KnownRun("it", Run(5e9, 6.0))))
    assert other.basis == "calibrated"
    assert other.tokens_per_s == pytest.approx(3.0)
    assert "6.00 tokens/s measured with it" in other.formula
    long = speed(rig(known_run=KnownRun("it", Run(10e9, 3.0))), replace(DENSE, cache_bytes=20_000_000_000))
    assert long.tokens_per_s == pytest.approx(1.5)


def test_no_speed_without_a_bandwidth_or_where_nothing_runs() -> None:
    assert speed_on(rig(bandwidth=None), DENSE, FITS) is None
    assert speed_on(rig(), DENSE, replace(FITS, level="no")) is None
    assert speed_on(rig(), DENSE, replace(FITS, level="unknown")) is None
    assert speed_on(rig(), replace(DENSE, weights_bytes=0), FITS) is None


def test_the_lower_of_theory_and_measurement_counts() -> None:
    channels = Bandwidths(76.8e9, "channels")
    assert bandwidth_here(None, None) is None
    assert bandwidth_here(channels, None) == channels
    assert bandwidth_here(channels, 70e9) == channels
    assert bandwidth_here(channels, 17e9) == Bandwidths(17e9 / READ_SHARE, "measured here")
    assert bandwidth_here(None, 17e9) == Bandwidths(17e9 / READ_SHARE, "measured here")


def test_a_profile_is_a_rig() -> None:
    profile = machine_profiles()["z440-1ch"]
    found = rig_of(profile)
    assert (found.profile, found.family, found.memory.ram_bytes) == ("z440-1ch", profile.family, 64 * GIB)
    assert rig_of(profile, ram_bytes=GIB).memory == given_machine(GIB)
    assert (found.price_cny, found.power_w) == (profile.price_cny, profile.power_w)


# A part on GPUs

OFFLOADED = replace(DENSE, gpu_weights_bytes=6_000_000_000)


def test_the_part_on_gpus_and_the_part_in_ram_wait_for_each_other() -> None:
    found = speed(rig(gpu_bytes_per_s=448e9), OFFLOADED)
    ram = predict_speed("cpu_epyc_1s", 100e9, 4e9)
    gpu = predict_speed("gpu", 448e9, 6e9)
    assert found.tokens_per_s == pytest.approx(1 / (1 / ram.tokens_per_s + 1 / gpu.tokens_per_s))
    assert found.tokens_per_s > speed(rig()).tokens_per_s
    assert found.notes == ()
    assert "in RAM 4.0 GB" in found.formula and "on GPUs 6.0 GB" in found.formula


def test_an_unknown_gpu_widens_the_range() -> None:
    known, unknown = speed(rig(gpu_bytes_per_s=450e9), OFFLOADED), speed(rig(), OFFLOADED)
    assert unknown.tokens_per_s == known.tokens_per_s
    assert unknown.low_tokens_per_s < known.low_tokens_per_s
    assert known.high_tokens_per_s < unknown.high_tokens_per_s
    assert "--gpu-bandwidth" in unknown.notes[0]


def test_all_on_gpus_is_their_family_s_prediction() -> None:
    reads = replace(DENSE, gpu_weights_bytes=DENSE.weights_bytes)
    gpu = predict_speed("gpu", 448e9, 10e9)
    assert speed(rig(gpu_bytes_per_s=448e9), reads).tokens_per_s == gpu.tokens_per_s


def test_families_that_count_their_gpus_do_so_once() -> None:
    for family in ("hybrid_moe", "apple"):
        here = rig(family=family, gpu_bytes_per_s=448e9)
        assert speed(here, OFFLOADED).tokens_per_s == speed(here).tokens_per_s


def test_only_what_is_in_ram_pages() -> None:
    pages = replace(FITS, level="pages", weights_in_memory=0.5)
    found = speed(rig(gpu_bytes_per_s=448e9, disk_bytes_per_s=1e9), OFFLOADED, pages)
    assert "plus 2.0 GB at 1.0 GB/s" in found.formula


def test_what_lies_on_gpus_is_told_by_the_placement() -> None:
    none = reads_of(LLAMA)
    assert (none.gpu_weights_bytes, none.gpu_cache_bytes) == (0, 0)
    layers = reads_of(LLAMA, offload=Offload((24 * GIB,), n_gpu_layers=16))
    assert 0.3 * layers.weights_bytes < layers.gpu_weights_bytes < 0.6 * layers.weights_bytes
    assert 0.4 < layers.gpu_cache_bytes / layers.cache_bytes < 0.5
    everything = reads_of(LLAMA, offload=Offload((24 * GIB,)))
    assert everything.gpu_weights_bytes == everything.weights_bytes  # the input embedding is read by rows
    assert everything.gpu_cache_bytes == everything.cache_bytes
    experts = reads_of(MLA_R1, offload=Offload((24 * GIB,), cpu_moe=True))
    assert 0.2 < experts.in_ram.weights_bytes / experts.weights_bytes < 0.6


@pytest.mark.parametrize(
    ("family", "bandwidth", "gpu", "measured"),
    [
        ("cpu_xeon_ddr5", 307.2e9, 1008e9, 8.73),  # 1x Xeon 6454S + 4090D
        ("cpu_epyc_1s", 460.8e9, 1008e9, 14.0),  # EPYC 9654 + 4090
        ("cpu_xeon", 204.8e9, 1008e9, 6.5),  # Xeon 8352Y + 4090
    ],
)
def test_published_runs_with_experts_in_ram_are_in_the_range(
    family: str, bandwidth: float, gpu: float, measured: float
) -> None:
    reads = reads_of("deepseek-r1-671b-mla-q4km", offload=Offload((24 * GIB,), cpu_moe=True))
    here = rig(family=family, bandwidth=Bandwidths(bandwidth, "given"), gpu_bytes_per_s=gpu)
    found = speed(here, reads)
    assert found.low_tokens_per_s < measured < found.high_tokens_per_s
    assert found.tokens_per_s == pytest.approx(measured, rel=0.2)  # docs/speed.md says how far off
