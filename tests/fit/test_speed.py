"""The speed of machines that others measured, predicted without the measurement in question."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from functools import cache

import pytest
import speed_table
from speed_table import Judged, Point

from ggufkit.errors import UsageError
from ggufkit.fit.speed import FAMILIES, Run, active_bytes_per_token, calibrated_speed, predict_speed
from ggufkit.gguf.model import model_info
from ggufkit.gguf.stats import main_tensors, role_of, used_part
from tests.fit.facts import header_of, truth_header
from tests.support.r1 import r1_kv, r1_tensors


@cache
def points() -> list[Point]:
    return speed_table.load_points()


@cache
def judged(by_machine: bool = False) -> list[Judged]:
    return speed_table.judge(points(), by_machine=by_machine)


def test_no_point_predicts_itself_and_the_bars_hold() -> None:
    n, median, _, held = speed_table.summary(judged())
    assert n == 116
    assert median <= 0.15
    assert held >= 0.8


def test_machines_never_seen_are_predicted_nearly_as_well() -> None:
    _, median, _, held = speed_table.summary(judged(by_machine=True))
    assert median <= 0.15
    assert held >= 0.8


def test_a_point_left_out_moves_what_is_predicted_for_it() -> None:
    """Leaving out is real: a lie at one point changes the constants, but not the prediction of that point."""
    (index, point) = next((i, p) for i, p in enumerate(points()) if p.family == "igpu_unified")
    lie = replace(point, tokens_per_s=1000.0)
    lied = [lie if i == index else p for i, p in enumerate(points())]
    assert speed_table.judge(lied)[index].likely == judged()[index].likely
    assert speed_table.fit(lied)[0]["igpu_unified"] != FAMILIES["igpu_unified"]


def test_the_shipped_tables_are_what_the_script_writes() -> None:
    assert speed_table.code_table(points()) in speed_table.CODE.read_text("utf-8")
    assert speed_table.document(points()) == speed_table.DOCUMENT.read_text("utf-8")


def test_every_point_has_a_source_and_its_family_is_shipped() -> None:
    rows = json.loads(speed_table.POINTS.read_text("utf-8"))["points"]
    assert len(rows) == 117
    assert all(row["source"] and row["family"] in FAMILIES for row in rows)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("moe", [False, True])
def test_a_range_holds_its_prediction_and_nothing_beats_the_bandwidth(family: str, moe: bool) -> None:
    for bandwidth, active in ((20e9, 15e9), (1e12, 0.8e9), (5e12, 0.1e9)):
        speed = predict_speed(family, bandwidth, active, moe)
        assert 0 < speed.low_tokens_per_s < speed.tokens_per_s <= speed.high_tokens_per_s
        assert speed.high_tokens_per_s <= bandwidth / active
        assert speed.basis == "formula"


def test_experts_lower_the_low_end_only() -> None:
    dense, moe = (predict_speed("cpu_epyc_1s", 153.6e9, 22.2e9, moe) for moe in (False, True))
    assert moe.low_tokens_per_s < dense.low_tokens_per_s
    assert (moe.tokens_per_s, moe.high_tokens_per_s) == (dense.tokens_per_s, dense.high_tokens_per_s)


def test_one_channel_of_four_costs_a_factor_of_four() -> None:
    one, four = (predict_speed("cpu_desktop_ddr4", n * 19.2e9, 19.41e9) for n in (1, 4))
    assert four.tokens_per_s == pytest.approx(4 * one.tokens_per_s)
    assert one.low_tokens_per_s < 0.82 < one.high_tokens_per_s  # measured: HP Z440, 32B


def test_two_sockets_are_as_fast_as_one() -> None:
    total = 2 * 460.8e9
    numa = predict_speed("cpu_2s_numa", total, 38.9e9, True)
    assert numa == predict_speed("cpu_2s_numa", total, 38.9e9, True, n_sockets=2)
    assert numa == predict_speed("cpu_epyc_1s", total, 38.9e9, True, n_sockets=2)
    assert numa.tokens_per_s <= 460.8e9 / 38.9e9
    assert "of one socket" in numa.formula
    assert numa.low_tokens_per_s < 7 < numa.high_tokens_per_s  # measured: 6 to 8, R1 at Q8


def test_a_gpu_does_not_care_for_the_sockets_beside_it() -> None:
    assert predict_speed("gpu", 448e9, 4.6e9, n_sockets=2) == predict_speed("gpu", 448e9, 4.6e9)


def test_cpus_of_no_family_get_the_widest_range_and_others_an_error() -> None:
    speed = predict_speed("cpu_arm_server", 200e9, 4.6e9)
    assert speed.high_tokens_per_s / speed.low_tokens_per_s >= 3.9
    with pytest.raises(UsageError, match="no family of machines is called abacus"):
        predict_speed("abacus", 200e9, 4.6e9)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_impossible_numbers_are_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="bandwidth"):
        predict_speed("gpu", bad, 1e9)
    with pytest.raises(UsageError, match="bytes per token"):
        predict_speed("gpu", 1e9, bad)
    with pytest.raises(UsageError, match="sockets"):
        predict_speed("cpu", 1e9, 1e9, n_sockets=0)


def test_one_run_narrows_the_range() -> None:
    """The posts' Z440 with one module: its 14B run predicts its 32B."""
    run = Run(8.55e9, 1.54)
    free = predict_speed("cpu_desktop_ddr4", 19.2e9, 19.41e9)
    speed = calibrated_speed("cpu_desktop_ddr4", 19.2e9, 19.41e9, run)
    assert speed.basis == "calibrated"
    assert speed.tokens_per_s == pytest.approx(1.54 * 8.55 / 19.41)
    assert speed.low_tokens_per_s < 0.82 < speed.high_tokens_per_s
    assert speed.tokens_per_s < free.tokens_per_s


def test_a_run_of_the_same_model_is_what_was_measured() -> None:
    speed = calibrated_speed("gpu", 448e9, 4.62e9, Run(4.68e9, 69.34))
    assert (speed.basis, speed.tokens_per_s) == ("measured here", 69.34)
    assert speed.high_tokens_per_s == pytest.approx(69.34 * 1.1)


def test_calibrating_is_better_than_guessing_a_machine() -> None:
    ratios = speed_table.calibrated_ratios(points())
    assert len(ratios) > 200
    guessed = speed_table.summary(judged(by_machine=True))[1]
    assert statistics.median(abs(math.exp(-ratio) - 1) for ratio in ratios) < guessed
    low, high = speed_table.calibrated_range(points())
    inside = sum(low <= math.exp(ratio) <= high for ratio in ratios)
    assert inside / len(ratios) >= 0.85


@pytest.mark.parametrize("run", [Run(0, 1), Run(1e9, 0), Run(1e9, math.nan)])
def test_an_impossible_run_is_refused(run: Run) -> None:
    with pytest.raises(UsageError):
        calibrated_speed("gpu", 448e9, 4.62e9, run)


# -- bytes that a token reads --------------------------------------------------------------------------


def r1_active(mix: str) -> int:
    """Return what a token of R1 reads with one of three mixes; the study's attention is at 4 bits."""
    kv = {k: v for k, v in r1_kv().items() if v is not None and not k.startswith("tokenizer")}
    tensors = []
    for name, shape, own in r1_tensors():
        small_output = "Q4_K" if "attn_output" in name else own
        half_big = "Q6_K" if "down_exps" in name and int(name.split(".")[1]) % 2 else "Q4_K"
        known = {"q8": "Q8_0", "q4": "Q6_K" if name == "output.weight" else half_big, "iq2": small_output}
        tensors.append((name, shape, "F32" if own == "F32" else known[mix]))
    header = header_of(kv, tensors)
    return active_bytes_per_token(model_info([header]), header.tensors)


@pytest.mark.parametrize(("mix", "gb"), [("q8", 38.9), ("q4", 22.2), ("iq2", 15.7)])
def test_what_a_token_of_r1_reads(mix: str, gb: float) -> None:
    """The study counted the routers (0.4 GB, F32 in the files) at the experts' types: hence 3 %."""
    assert r1_active(mix) / 1e9 == pytest.approx(gb, rel=0.03)


def test_active_bytes_of_another_mixture_to_the_byte() -> None:
    header = truth_header("gpt-oss-120b-mxfp4")
    assert active_bytes_per_token(model_info([header]), header.tensors) == 3_594_210_048  # 4 of 128 experts


def test_a_dense_model_reads_all_but_its_embedding() -> None:
    header = truth_header("llama3.1-8b-q4km")
    info = model_info([header])
    embedding = next(t.n_bytes for t in header.tensors if t.name == "token_embd.weight")
    everything = sum(t.n_bytes for t in header.tensors)
    assert active_bytes_per_token(info, header.tensors) == everything - embedding
    assert active_bytes_per_token(info, header.tensors, cache_bytes=7) == everything - embedding + 7


def test_a_tied_embedding_is_read_as_the_output() -> None:
    header = truth_header("gemma3-27b-q4km")
    assert all(t.name != "output.weight" for t in header.tensors)
    total = sum(t.n_bytes for t in header.tensors)
    assert active_bytes_per_token(model_info([header]), header.tensors) == total


def test_blocks_for_further_tokens_are_not_read() -> None:
    header = truth_header("glm-4.5-355b-q4km")
    info = model_info([header])
    skipped = [t for t in header.tensors if t not in list(main_tensors(header.tensors, info))]
    assert {t.name.split(".")[1] for t in skipped} == {"92"}
    experts = next(t for t in header.tensors if role_of(t.name) == "experts")
    assert used_part(experts, experts.n_bytes, info) == experts.n_bytes * 8 // 160
    assert active_bytes_per_token(info, header.tensors) < 21e9
