"""Does it fit: reports for measured headers and for headers made up."""

from __future__ import annotations

from typing import Any

import pytest

from ggufkit.errors import FormatError, UsageError
from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.machine import Machine
from ggufkit.verbs import fit as module
from ggufkit.verbs.fit import FitReport, fit_model
from tests.fit.facts import header_of, truth_header

GIB = 1 << 30
OLD_R1, MLA_R1 = "deepseek-r1-671b-old-ud-iq2xxs", "deepseek-r1-671b-mla-ud-iq2xxs"


def r1(name: str = OLD_R1, *, ram: int = 256, context: int | None = None, **settings: Any) -> FitReport:
    chosen = FitSettings(1, **settings)
    return fit_model(
        [truth_header(name)], name=name, ram_bytes=ram * GIB, context_tokens=context, settings=chosen
    )


def levels(report: FitReport) -> dict[int, str]:
    return {row.context_tokens: row.level for row in report.contexts}


def small(**keys: Any) -> list[Any]:
    kv = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.embedding_length": 256,
        "llama.context_length": 2048,
        "llama.attention.head_count": 4,
    }
    return [header_of(kv | keys, [("token_embd.weight", (256, 64), "F16")])]


# The articles' machine


def test_old_r1_fits_256_gib_at_the_default_but_not_at_32k() -> None:
    report = r1()
    assert report.context_is_default
    assert report.verdict.level == "fits"
    assert report.estimate.context_tokens == 4096
    assert f"{report.estimate.total_bytes / GIB:.1f}" == "202.5"
    expected = {2048: "fits", 4096: "fits", 8192: "fits", 32768: "pages", 163840: "no"}
    assert levels(report) == expected
    assert "71 times" in report.warnings[0]
    assert not report.advice


def test_new_r1_fits_at_32k() -> None:
    report = r1(MLA_R1, context=32768)
    assert report.verdict.level == "fits"
    assert report.longest_context_tokens == 163840
    assert not report.warnings


def test_q2_k_l_is_tight_and_then_pages() -> None:
    found = levels(r1("deepseek-r1-671b-old-q2kl"))
    assert (found[4096], found[8192]) == ("tight", "pages")


def test_the_longest_context_is_the_longest() -> None:
    report = r1()
    longest = report.longest_context_tokens
    assert longest is not None
    assert longest % 256 == 0
    assert r1(context=longest).verdict.level == "fits"
    assert r1(context=longest + 256).verdict.level == "tight"


def test_advice_is_true() -> None:
    report = r1(context=14336)
    assert report.verdict.level == "tight"
    upload, cache, context = report.advice[:3]
    assert upload.startswith("it fits with a newer upload of the same quant")
    assert cache == "it fits with --cache-type-k q8_0 --cache-type-v q8_0 (31.3 GiB less)"
    assert context.startswith(f"it fits with --ctx-size {report.longest_context_tokens} (")
    assert r1(context=14336, cache_type_k="q8_0", cache_type_v="q8_0").verdict.level == "fits"


def test_paging_needs_weights_that_can_be_dropped() -> None:
    report = r1(MLA_R1, ram=128)
    assert report.verdict.level == "pages"
    assert 0.5 < report.verdict.weights_in_memory < 0.7
    assert any("--no-repack" in text for text in report.advice)


# Contexts


def test_a_short_model_keeps_its_own_context() -> None:
    report = fit_model(small(), ram_bytes=8 * GIB)
    assert report.estimate.context_tokens == 2048
    assert list(levels(report)) == [2048]


def test_zero_is_the_models_own_context() -> None:
    assert r1(MLA_R1, context=0).estimate.context_tokens == 163840
    with pytest.raises(UsageError, match="does not say how long"):
        fit_model(small(**{"llama.context_length": None}), ram_bytes=GIB, context_tokens=0)


def test_the_asked_context_is_shown_with_the_others() -> None:
    assert list(levels(r1(context=20000))) == [2048, 4096, 8192, 20000, 32768, 163840]


def test_without_a_longest_context_only_what_is_usual_is_shown() -> None:
    report = fit_model(small(**{"llama.context_length": None}), ram_bytes=8 * GIB)
    assert list(levels(report)) == [2048, 4096, 8192, 32768]
    assert report.longest_context_tokens is None


def test_nothing_fits_a_small_machine() -> None:
    report = r1(ram=1)
    assert report.longest_context_tokens is None
    assert set(levels(report).values()) == {"no"}
    assert [change.kind for change in report.changes if change.is_enough] == ["memory"]


# What is no model, or says too little


@pytest.mark.parametrize(
    ("kv", "words"),
    [
        ({"general.architecture": "clip"}, "a projector for images or sound (mmproj)"),
        ({"adapter.type": "lora"}, "an adapter (LoRA)"),
        ({"general.type": "imatrix"}, "an importance matrix"),
    ],
)
def test_what_is_no_model_is_refused(kv: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        fit_model(small(**kv), ram_bytes=8 * GIB)
    assert words in caught.value.message


def test_a_vocabulary_is_refused() -> None:
    header = header_of({"general.architecture": "llama", "tokenizer.ggml.tokens": ["a"]})
    with pytest.raises(UsageError, match="a vocabulary without weights"):
        fit_model([header], ram_bytes=8 * GIB)


def test_impossible_metadata_are_an_error() -> None:
    with pytest.raises(FormatError, match=r"llama\.block_count is 100000"):
        fit_model(small(**{"llama.block_count": 100_000}), ram_bytes=8 * GIB)


def test_an_unknown_cache_leaves_the_verdict_open() -> None:
    report = fit_model(small(**{"llama.attention.head_count": None}), ram_bytes=8 * GIB)
    assert report.verdict.level == "unknown"
    assert report.contexts[0].cache_bytes is None
    assert report.longest_context_tokens is None
    assert not report.advice


# The machine


def test_this_machine_is_asked_when_no_memory_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_machine", lambda: Machine(8 * GIB, 1000, "system"))
    report = fit_model(small())
    assert report.machine.source == "system"
    assert report.verdict.level == "fits"
    assert report.warnings == ("only 0.0 GiB are free now: other programs have the rest",)


def test_free_memory_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_machine", lambda: Machine(8 * GIB, 7 * GIB, "system"))
    assert not fit_model(small()).warnings


def test_names_and_sizes() -> None:
    (header,) = small()
    report = fit_model([header], ram_bytes=8 * GIB)
    assert (report.name, report.n_files, report.file_bytes) == ("model.gguf", 1, header.file_size_bytes)
    assert fit_model([header], name="Tiny", ram_bytes=8 * GIB).name == "Tiny"
