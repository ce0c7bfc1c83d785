"""What to change: every number and every verdict is what the change really gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.fit.profiles import Wishes, find_runtime, settings_for
from ggufkit.verbs.advice import Change
from ggufkit.verbs.fit import FitReport, fit_model
from tests.fit.facts import truth_header

GIB = 1 << 30
OLD_R1, MLA_R1, LLAMA = "deepseek-r1-671b-old-ud-iq2xxs", "deepseek-r1-671b-mla-ud-iq2xxs", "llama3.1-8b-q4km"
MOE = "qwen3-235b-a22b-q4km"


def fit(name: str, ram_gib: int, context: int, runtime: str | None = None, **settings: Any) -> FitReport:
    chosen = None if runtime is None else find_runtime(runtime)
    asked = replace(settings_for(Wishes(), chosen), **settings)
    return fit_model(
        [truth_header(name)],
        ram_bytes=ram_gib * GIB,
        context_tokens=context,
        settings=asked,
        runtime=chosen,
    )


def change(report: FitReport, kind: str, text: str = "") -> Change:
    return next(c for c in report.changes if c.kind == kind and text in c.text)


def test_a_model_that_fits_needs_no_change() -> None:
    assert fit(LLAMA, 64, 8192).changes == ()


@pytest.mark.parametrize(
    ("kind", "text", "settings"),
    [
        ("flash attention", "", {"flash": True}),
        ("micro-batch", "128", {"n_ubatch_tokens": 128}),
        ("cache type", "q8_0", {"cache_type_k": "q8_0", "cache_type_v": "q8_0", "flash": True}),
    ],
)
def test_what_a_change_saves_is_what_it_saves(kind: str, text: str, settings: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"flash": False, "n_sequences": 4}
    report = fit(LLAMA, 12, 65536, **asked)
    assert report.verdict.level == "pages"
    after = fit(LLAMA, 12, 65536, **(asked | settings))
    found = change(report, kind, text)
    assert found.saves_bytes == report.estimate.total_bytes - after.estimate.total_bytes
    assert found.level == after.verdict.level


def test_what_is_enough_comes_first() -> None:
    report = fit(MLA_R1, 192, 32768, n_sequences=4)
    enough = [c.is_enough for c in report.changes]
    assert enough == sorted(enough, reverse=True)
    assert any(enough) and not all(enough)
    rest = [c.saves_bytes for c in report.changes if not c.is_enough]
    assert rest == sorted(rest, reverse=True)


def test_the_context_is_the_longest_that_fits() -> None:
    report = fit(OLD_R1, 256, 32768)
    found = change(report, "context")
    assert found.text == f"--ctx-size {report.longest_context_tokens}"
    assert found.is_enough


def test_the_context_is_what_is_typed_where_each_text_gets_it() -> None:
    report = fit(OLD_R1, 256, 4096, "ollama@0.5", n_sequences=4)
    found = change(report, "context")
    assert found.text == f"--ctx-size {(report.longest_context_tokens or 0) // 4}"
    typed = int(found.text.split()[1])
    assert fit(OLD_R1, 256, typed, "ollama@0.5", n_sequences=4).verdict.level == "fits"
    assert change(report, "slots").text == "--parallel 1"


def test_an_old_files_cache_is_held_against_a_new_files() -> None:
    report = fit(OLD_R1, 256, 32768)
    found = change(report, "upload")
    old, new = (report, fit(MLA_R1, 256, 32768))
    assert old.estimate.kv_cache_bytes and new.estimate.kv_cache_bytes
    assert found.saves_bytes == old.estimate.kv_cache_bytes - new.estimate.kv_cache_bytes
    assert found.is_enough and new.verdict.level == "fits"
    assert not [c for c in fit(MLA_R1, 128, 32768).changes if c.kind == "upload"]


def test_a_smaller_quant_is_as_small_as_it_has_to_be() -> None:
    report = fit(MLA_R1, 128, 8192)
    found = change(report, "quant")
    assert found.saves_bytes == -report.verdict.left_bytes
    gib = (report.estimate.mapped_bytes - found.saves_bytes) / GIB
    assert f"at most {gib:.1f} GiB" in found.text


def test_more_memory_is_enough_memory() -> None:
    report = fit(MLA_R1, 128, 8192)
    more = int(change(report, "memory").text.split()[0])
    assert fit(MLA_R1, 128 + more, 8192).verdict.level == "fits"
    assert fit(MLA_R1, 128 + more - 2, 8192).verdict.level != "fits"


def test_paging_needs_weights_as_they_lie_in_the_file() -> None:
    report = fit(MLA_R1, 128, 8192)
    assert report.verdict.level == "pages"
    last = report.changes[-1]
    assert last.kind == "repacking" and last.text.startswith("--no-repack")
    assert not [c for c in fit(MLA_R1, 128, 8192, isa="none").changes if c.kind == "repacking"]


def test_an_overfull_gpu_is_told_what_fits() -> None:
    report = fit(MOE, 192, 8192, offload=Offload((24 * GIB,)))
    assert report.verdict.level == "no"
    found = change(report, "placement")
    assert found.is_enough and "--n-gpu-layers auto" in found.text
    assert not [c for c in report.changes if c.kind in ("quant", "memory")]


def test_settings_that_llama_cpp_refuses_are_not_proposed() -> None:
    report = fit(MLA_R1, 192, 163840, cache_type_k="f16")
    assert all("q8_0" in c.text or "q4_0" in c.text for c in report.changes if c.kind == "cache type")
    assert FitSettings(1).flash
