"""Runtimes' defaults, and the two observations of the articles that they explain."""

from __future__ import annotations

import pytest

from ggufkit.errors import UsageError
from ggufkit.fit.profiles import Wishes, context_of, find_runtime, settings_for
from ggufkit.verbs.fit import FitReport, fit_model
from tests.fit.facts import truth_header

GIB = 1 << 30
OLD_Q2_K_L, OLD_R1 = "deepseek-r1-671b-old-q2kl", "deepseek-r1-671b-old-ud-iq2xxs"


def run(name: str, runtime: str) -> FitReport:
    return fit_model([truth_header(name)], ram_bytes=256 * GIB, runtime=find_runtime(runtime))


def test_q2_k_l_in_ollama_of_early_2025_takes_288_gb() -> None:
    report = run(OLD_Q2_K_L, "ollama@0.5.7")
    estimate = report.estimate
    assert estimate.context_tokens == 8192  # 4 texts of 2,048 tokens
    assert estimate.kv_cache_bytes == 8192 * 4_997_120
    assert estimate.total_bytes / 1e9 == pytest.approx(288, rel=0.01)
    published = 228 * GIB + estimate.total_bytes - estimate.weights_bytes
    assert published / 1e9 == pytest.approx(288, rel=0.01)
    assert report.verdict.level == "pages"


@pytest.mark.parametrize("runtime", ["lmstudio@0.3", "lmstudio"])
def test_ud_iq2_xxs_in_lm_studio_takes_more_than_200_gb(runtime: str) -> None:
    estimate = run(OLD_R1, runtime).estimate
    assert estimate.context_tokens == 4096
    assert estimate.total_bytes > 200e9
    assert estimate.total_bytes / GIB == pytest.approx(202.5, rel=0.01)


def test_one_text_of_ollama_would_have_fitted() -> None:
    settings = settings_for(Wishes(n_sequences=1), find_runtime("ollama@0.5.7"))
    header = truth_header(OLD_Q2_K_L)
    report = fit_model([header], ram_bytes=256 * GIB, settings=settings, runtime=find_runtime("ollama@0.5.7"))
    assert report.estimate.context_tokens == 2048
    assert report.verdict.in_memory


@pytest.mark.parametrize(
    ("text", "n_sequences", "context", "flash"),
    [
        ("ollama@0.5", 4, 2048, False),
        ("ollama@v0.9.3", 2, 4096, False),
        ("ollama@0.24.1", 1, 4096, False),
        ("ollama", 1, 4096, True),
        ("lmstudio@0.3.9", 1, 4096, False),
        ("lmstudio", 4, 4096, True),
        ("llama-server", 4, None, True),
        ("llama-bench", 1, 512, True),
        ("llama-server@b10434", 4, None, True),
    ],
)
def test_defaults_by_version(text: str, n_sequences: int, context: int | None, flash: bool) -> None:
    runtime = find_runtime(text)
    settings = settings_for(Wishes(), runtime)
    assert (settings.n_sequences, context_of(runtime), settings.flash) == (n_sequences, context, flash)


def test_a_number_of_slots_takes_llama_servers_cache_apart() -> None:
    server = find_runtime("llama-server")
    assert settings_for(Wishes(), server).unified
    assert not settings_for(Wishes(n_sequences=2), server).unified
    assert settings_for(Wishes(n_sequences=2, unified=True), server).unified
    assert settings_for(Wishes(n_sequences=2), find_runtime("ollama@0.5")).unified


def test_new_ollama_takes_its_context_from_the_gpus() -> None:
    runtime = find_runtime("ollama")
    found = [context_of(runtime, vram * GIB) for vram in (0, 22, 23, 46, 47)]
    assert found == [4096, 4096, 32768, 32768, 262144]
    assert context_of(find_runtime("ollama@0.9"), 80 * GIB) == 4096


def test_llama_server_takes_the_models_context_and_may_grow() -> None:
    report = run("gemma3-27b-q4km", "llama-server")
    assert report.estimate.context_tokens == 131072
    assert [term.name for term in report.estimate.may_grow] == ["prompt cache", "checkpoints"]
    assert not run("gemma3-27b-q4km", "llama-bench").estimate.may_grow


def test_older_builds_provide_for_no_mixture() -> None:
    old, new = (settings_for(Wishes(), find_runtime(f"llama-server@{b}")) for b in ("b10434", "11434"))
    assert (old.mixed_inputs, new.mixed_inputs) == (False, True)


def test_llama_bench_provides_for_all_scores() -> None:
    settings = settings_for(Wishes(), find_runtime("llama-bench"))
    assert settings.n_outputs == settings.n_batch_tokens == 2048


@pytest.mark.parametrize("text", ["llamafile", "", "ollama@new", "ollama@", "ollama@1.-2", "@1"])
def test_unknown_runtimes(text: str) -> None:
    if text == "ollama@":
        assert find_runtime(text).since == (0, 30)
        return
    with pytest.raises(UsageError) as caught:
        find_runtime(text)
    assert caught.value.hint
