"""One run on this machine, remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.bench.file import write_result
from ggufkit.bench.result import BenchResult
from ggufkit.bench.summary import summarize
from ggufkit.errors import FormatError, NotFoundError, UsageError
from ggufkit.fit.machine import read_cpu
from ggufkit.fit.rig import KnownRun
from ggufkit.fit.speed import Run
from ggufkit.gguf.header import Header
from ggufkit.verbs.calibrate import calibrate, forget, run_speed
from ggufkit.verbs.fit import FitReport, fit_model
from ggufkit.verbs.rigs import find_rigs, remembered
from tests.bench.made import made
from tests.fit.facts import truth_header

GIB = 1 << 30
R1, LLAMA = "deepseek-r1-671b-mla-ud-iq2xxs", "llama3.1-8b-q4km"


def fitted(name: str, ram: int = 256, **options: float) -> tuple[Header, FitReport]:
    header = truth_header(name)
    rig = find_rigs(ram_bytes=ram * GIB, **options)[0]  # type: ignore[arg-type]
    return header, fit_model([header], name=name, rig=rig)


def test_the_run_is_what_is_predicted_for_its_model_then() -> None:
    header, before = fitted(R1)
    assert before.speed is None or before.speed.basis == "formula"
    (rig,) = find_rigs(ram_bytes=256 * GIB)
    again = fit_model([header], name=R1, rig=calibrate(rig, [header], before, "1.83"))
    for report in (again, fitted(R1)[1]):
        assert report.speed is not None
        assert report.speed.basis == "measured here"
        assert report.speed.tokens_per_s == pytest.approx(1.83, rel=0.02)  # less for a context half full
        assert report.speed.low_tokens_per_s < 1.83 < report.speed.high_tokens_per_s < 2.1
    known = remembered(read_cpu()).run
    assert known is not None and (known.model, known.run.tokens_per_s) == (R1, 1.83)


def test_other_models_are_calibrated_by_it_and_profiles_are_not() -> None:
    header, report = fitted(R1)
    calibrate(find_rigs()[0], [header], report, "1.83")
    other, told = fitted(LLAMA)
    assert told.speed is not None and told.speed.basis == "calibrated"
    (profile,) = find_rigs(("z440-4ch",))
    by_profile = fit_model([other], rig=profile)
    assert by_profile.speed is not None and by_profile.speed.basis == "formula"


def test_a_slower_run_tells_of_slower_ones() -> None:
    header, report = fitted(R1)
    speeds = []
    for text in ("1", "2"):
        calibrate(find_rigs()[0], [header], report, text)
        told = fitted(LLAMA)[1].speed
        assert told is not None
        speeds.append(told.tokens_per_s)
    assert speeds[1] == pytest.approx(2 * speeds[0])


def test_it_is_forgotten_on_demand() -> None:
    header, report = fitted(R1)
    calibrate(find_rigs()[0], [header], report, "1.83")
    forget()
    assert remembered(read_cpu()).run is None


def test_what_tells_nothing_of_this_machine_s_memory_is_refused() -> None:
    header, report = fitted(R1)
    with pytest.raises(UsageError, match="is for this machine, not for xuanwu"):
        calibrate(find_rigs(("xuanwu",))[0], [header], report, "1.83")
    header, paging = fitted(R1, ram=64)
    with pytest.raises(UsageError, match="does not all stay in memory"):
        calibrate(find_rigs()[0], [header], paging, "0.1")
    assert remembered(read_cpu()).run is None


def test_a_known_run_counts_over_a_bandwidth() -> None:
    header, report = fitted(R1)
    calibrate(find_rigs()[0], [header], report, "1.83")
    (rig,) = find_rigs(bandwidth_bytes_per_s=500e9)
    assert isinstance(rig.known_run, KnownRun) and isinstance(rig.known_run.run, Run)
    told = fitted(R1, bandwidth_bytes_per_s=500e9)[1].speed
    assert told is not None and told.tokens_per_s == pytest.approx(1.83, rel=0.02)


def test_a_speed_is_a_number_or_a_file(tmp_path: Path) -> None:
    assert run_speed("1.83") == 1.83
    for text in ("0", "-1", "inf", "nan"):
        with pytest.raises(UsageError, match="no speed"):
            run_speed(text)
    with pytest.raises(NotFoundError):
        run_speed("gone.json")
    file = tmp_path / "x.json"
    file.write_text("{}")
    with pytest.raises(FormatError):
        run_speed(str(file))


def test_a_bench_of_one_model_on_this_machine_tells_its_speed(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    write_result(file, made((10.0, 10.2, 9.9)))
    assert run_speed(str(file)) == pytest.approx(10.0, rel=0.05)
    header, report = fitted(LLAMA)
    assert calibrate(find_rigs()[0], [header], report, str(file)).known_run is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda r: replace(r, server=replace(r.server, same_machine=False)),
            "on another machine: http://127",
        ),
        (
            lambda r: replace(r, settings=replace(r.settings, n_concurrent=4)),
            "is of 4 questions at",
        ),
        (lambda r: replace(r, models=r.models * 2), "is of 2 models"),
        (lambda r: replace(r, models=()), "is of 0 models"),
    ],
)
def test_a_bench_that_does_not_tell_it_is_refused(
    tmp_path: Path, change: Callable[[BenchResult], BenchResult], reason: str
) -> None:
    file = tmp_path / "bench.json"
    write_result(file, change(made()))
    with pytest.raises(UsageError, match=reason):
        run_speed(str(file))


def test_a_bench_without_answers_holds_no_speed(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    result = made()
    empty = replace(result.models[0], summary=summarize([]))
    write_result(file, replace(result, models=(empty,)))
    with pytest.raises(FormatError, match="holds no speed"):
        run_speed(str(file))
