"""Two results side by side, if they can be compared at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ggufkit.bench.result import BenchResult, ModelResult, Spread, Summary
from ggufkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class Pair:
    """One line of a comparison: two models over all their questions, or over one."""

    model_a: str
    """In the first file."""
    model_b: str
    """In the second."""
    question: str | None
    """Its id; None: all of them."""
    a: Summary
    """Of the first."""
    b: Summary
    """Of the second."""
    change: float | None
    """How much faster the second generates (0.1: 10 %), by the client's clock; None if one has no speed."""
    told_apart: bool
    """Whether the measurements of the two do not overlap: else the change may be chance."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results that answered the same questions in the same way."""

    pairs: tuple[Pair, ...]
    """A line over all questions for each model, and one for each question."""
    warnings: tuple[str, ...]
    """What differs besides the models."""


def compare(a: BenchResult, b: BenchResult) -> Comparison:
    """Compare two results; raises UsageError, saying what differs, when that would mean nothing."""
    models = _models(a, b)
    differing = [*_settings(a, b), *(text for one, two in models for text in _questions(one, two))]
    if differing:
        text = f"these can't be compared: {'; '.join(dict.fromkeys(differing))}"
        raise UsageError(text, hint="run both with the same questions and flags")
    pairs = tuple(pair for one, two in models for pair in _pairs(one, two))
    return Comparison(pairs, tuple(_warnings(a, b, models)))


def _models(a: BenchResult, b: BenchResult) -> list[tuple[ModelResult, ModelResult]]:
    """Pair models of the same name; or the only model of each file, whatever they are called."""
    if len(a.models) == len(b.models) == 1:
        return [(a.models[0], b.models[0])]
    others = {model.name: model for model in b.models}
    pairs = [(model, others[model.name]) for model in a.models if model.name in others]
    if not pairs:
        names = [", ".join(model.name for model in result.models) or "no model" for result in (a, b)]
        raise UsageError(f"no model is in both: {names[0]} in the first, {names[1]} in the second")
    return pairs


def _settings(a: BenchResult, b: BenchResult) -> Iterator[str]:
    for name in ("max_tokens", "temperature", "context_tokens", "n_concurrent", "cache"):
        one, two = getattr(a.settings, name), getattr(b.settings, name)
        if one != two:
            yield f"{name} {_said(one)} and {_said(two)}"


def _questions(one: ModelResult, two: ModelResult) -> Iterator[str]:
    if {q.sha256 for q in one.questions} != {q.sha256 for q in two.questions}:
        yield "other questions"
    for model in (one, two):
        if any(not question.runs for question in model.questions):
            yield f"{model.name} has not answered all of them"
    if _source(one) != _source(two) and "none" in (_source(one), _source(two)):
        yield "one server did not count its tokens"


def _source(model: ModelResult) -> str:
    sources = {run.tokens.source for q in model.questions for run in q.runs if run.tokens.source != "none"}
    return min(sources, default="none")


def _pairs(one: ModelResult, two: ModelResult) -> Iterator[Pair]:
    yield _pair(one, two, None, one.summary, two.summary)
    others = {question.sha256: question for question in two.questions}
    for question in one.questions:
        yield _pair(one, two, question.id, question.summary, others[question.sha256].summary)


def _pair(one: ModelResult, two: ModelResult, question: str | None, a: Summary, b: Summary) -> Pair:
    change, apart = None, False
    if a.generation and b.generation and a.generation.median > 0:
        change = b.generation.median / a.generation.median - 1
        apart = _apart(a.generation, b.generation)
    return Pair(one.name, two.name, question, a, b, change, apart)


def _apart(a: Spread, b: Spread) -> bool:
    return min(a.n, b.n) > 1 and (a.high < b.low or b.high < a.low)


def _warnings(a: BenchResult, b: BenchResult, models: list[tuple[ModelResult, ModelResult]]) -> Iterator[str]:
    for what, one, two in (
        ("servers", (a.server.kind, a.server.version), (b.server.kind, b.server.version)),
        ("machines that asked", (a.host.cpu, a.host.ram_bytes), (b.host.cpu, b.host.ram_bytes)),
    ):
        if one != two:
            yield f"other {what}: {_words(one)} and {_words(two)}"
    for one_model, two_model in models:
        if _source(one_model) != _source(two_model):
            yield f"tokens counted by {_source(one_model)} and by {_source(two_model)}"
        first, second = one_model.facts.digest, two_model.facts.digest
        if one_model.name == two_model.name and first and second and first != second:
            yield f"{one_model.name} is not the same file in both"


def _words(values: tuple[object, ...]) -> str:
    return " ".join(str(value) for value in values if value is not None) or "unknown"


def _said(value: object) -> str:
    return "the server's own" if value is None else str(value)
