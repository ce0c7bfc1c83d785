"""A result as one HTML page that needs nothing else: no script, no network, no fonts but the system's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import chain

from ggufkit.bench.report import consecutive_lines, warnings
from ggufkit.bench.result import BenchResult, ModelResult, QuestionResult, Run, Spread
from ggufkit.bench.style import CSS
from ggufkit.errors import printable

MAX_COLUMNS = 60
"""Answers that are drawn one after the other; of more, evenly chosen ones are."""

STATES = {
    "pass": "right",
    "fail": "wrong",
    "manual": "to be judged",
    "void": "not judged",
}
ENDINGS = {"length": "cut", "no_final": "broke off", "error": "failed", "timeout": "timed out"}


def page(result: BenchResult) -> str:
    """Return the page: speeds by model and question, how they change, answers side by side."""
    names = ", ".join(model.name for model in result.models) or "no model"
    parts = chain(
        [f"<header><h1>{_text(names)}</h1>", f"<p>{_text(_about(result))}</p>", "</header>", "<main>"],
        _cards(result),
        _warned(result),
        _speeds(result),
        _courses(result),
        _answers(result),
        ["</main>", f"<footer>{_text(_measured(result))}</footer>"],
    )
    title = f"<title>{_text(names)}: ggufkit bench</title>"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{title}'
    body = "\n".join(parts)
    head += f"<style>{CSS}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def roofline_tokens_per_s(result: BenchResult, model: ModelResult) -> float | None:
    """Return the speed at which reading a token's weights takes all of the memory's bandwidth.

    None for a server elsewhere, a model partly on a GPU, and when bandwidth or bytes are not known.
    """
    bandwidth, active = result.host.bandwidth_bytes_per_s, model.facts.active_bytes_per_token
    if not result.server.same_machine or not bandwidth or not active or model.facts.vram_bytes:
        return None
    return bandwidth / active


def _about(result: BenchResult) -> str:
    server, host = result.server, result.host
    kind = f"{server.kind} {server.version or ''}".strip()
    where = "on this machine" if server.same_machine else f"at {server.base_url}, asked from"
    memory = f"{host.ram_bytes / 2**30:.0f} GiB" if host.ram_bytes else None
    facts = [host.cpu, _count(host.n_cores, "core"), memory, host.memory, *host.gpus]
    machine = ", ".join(fact for fact in facts if fact) or host.os
    return f"{result.started_at[:16].replace('T', ' ')} UTC, {kind} {where}: {machine}"


def _count(n: int | None, what: str) -> str | None:
    return None if n is None else f"{n} {what}{'' if n == 1 else 's'}"


def _cards(result: BenchResult) -> Iterator[str]:
    """Yield a card for each model with what most people come for."""
    yield '<section class="cards">'
    for i, model in enumerate(result.models):
        summary = model.summary
        prompts = [q.summary.prompt for q in model.questions if q.kind == "prompt" and q.summary.prompt]
        prompt = prompts[0] if prompts else summary.prompt
        right = f"{summary.n_passed} of {summary.n_judged}" if summary.n_judged else None
        quant = f" <small>{_text(model.facts.quant)}</small>" if model.facts.quant else ""
        yield f'<article class="card m{i % 6}"><h2>{_text(model.name)}{quant}</h2><dl>'
        yield from _facts(
            (
                ("generation", _speed(summary.generation)),
                ("by the server", _speed(summary.server_generation)),
                ("prompt", _speed(prompt)),
                ("first token", _seconds(summary.first_any_s)),
                ("first of the answer", _seconds(summary.first_answer_s)),
                ("loading", f"{model.load.load_s:.1f} s" if model.load else None),
                ("right answers", right),
                ("of the memory's limit", _of_roofline(result, model)),
            )
        )
        yield "</dl></article>"
    yield "</section>"


def _facts(pairs: Iterable[tuple[str, str | None]]) -> Iterator[str]:
    for name, value in pairs:
        if value is not None:
            yield f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"


def _of_roofline(result: BenchResult, model: ModelResult) -> str | None:
    roofline, speed = roofline_tokens_per_s(result, model), model.summary.generation
    if roofline is None or speed is None:
        return None
    return f"{speed.median / roofline:.0%} of {_number(roofline)} tokens/s"


def _warned(result: BenchResult) -> Iterator[str]:
    said = warnings(result)
    if said:
        yield '<ul class="warnings">'
        yield from (f"<li>{_text(line)}</li>" for line in said)
        yield "</ul>"


def _speeds(result: BenchResult) -> Iterator[str]:
    """Yield bars: the middle speed of each model and question, its range, and the memory's limit."""
    groups = _grouped(result)
    spreads = [q.summary.generation for _, pairs in groups for _, q in pairs if q.summary.generation]
    limits = [roofline_tokens_per_s(result, model) for model in result.models]
    known = [limit for limit in limits if limit]
    most = max([spread.high for spread in spreads] + known, default=0.0)
    if not most:
        return
    yield '<section><h2>Generation, tokens per second</h2><div class="bars">'
    for question, pairs in groups:
        yield f"<h3>{_text(question)}</h3>"
        for i, one in pairs:
            yield _bar(i, result.models[i].name, one.summary.generation, limits[i], most)
    yield "</div>"
    if known:
        yield (
            '<p class="note"><span class="key limit"></span> what the memory\'s bandwidth '
            f"({_text(_bandwidth(result))}) allows for the weights that a token reads</p>"
        )
    yield '<p class="note"><span class="key range"></span> from the slowest to the fastest answer</p>'
    yield "</section>"


def _grouped(result: BenchResult) -> list[tuple[str, list[tuple[int, QuestionResult]]]]:
    """Return each question with the models that answered it, in the order of asking."""
    groups: dict[str, list[tuple[int, QuestionResult]]] = {}
    for i, model in enumerate(result.models):
        for question in model.questions:
            if question.runs and question.kind != "prompt":
                groups.setdefault(question.id, []).append((i, question))
    return list(groups.items())


def _bandwidth(result: BenchResult) -> str:
    speed, source = result.host.bandwidth_bytes_per_s, result.host.bandwidth_source
    return f"{(speed or 0) / 1e9:.1f} GB/s, {source or 'given'}"


def _bar(i: int, name: str, speed: Spread | None, limit: float | None, most: float) -> str:
    if speed is None:
        return f'<div class="bar"><span class="name">{_text(name)}</span><span></span><b>-</b></div>'
    width, low, high = (100 * value / most for value in (speed.median, speed.low, speed.high))
    marks = f'<i class="m{i % 6}" style="width:{width:.2f}%"></i>'
    if speed.n > 1:
        marks += f'<u style="left:{low:.2f}%;width:{max(high - low, 0.2):.2f}%"></u>'
    if limit:
        marks += f'<s style="left:{100 * limit / most:.2f}%"></s>'
    said = f"{_text(name)}: {_number(speed.median)} ({_number(speed.low)} to {_number(speed.high)}) tokens/s"
    return (
        f'<div class="bar" title="{said}"><span class="name">{_text(name)}</span>'
        f'<span class="track">{marks}</span><b>{_number(speed.median)}</b></div>'
    )


def _courses(result: BenchResult) -> Iterator[str]:
    """Yield the speeds in the order of asking: on a hot or paging machine they fall."""
    lines = consecutive_lines(result)
    if not any(run.client.generation_tokens_per_s for model in result.models for run in _runs(model)):
        return
    yield "<section><h2>One answer after the other</h2>"
    for i, (model, line) in enumerate(zip(result.models, lines, strict=True)):
        speeds = [(run.order, run.client.generation_tokens_per_s) for run in _runs(model)]
        known = [(order, speed) for order, speed in sorted(speeds) if speed]
        shown = known[:: max(1, -(-len(known) // MAX_COLUMNS))]
        most = max((speed for _, speed in shown), default=1.0)
        yield f'<h3>{_text(model.name)}</h3><div class="course">'
        for order, speed in shown:
            height, said = 100 * speed / most, f"answer {order}: {_number(speed)} tokens/s"
            column = f'<i class="m{i % 6}" style="height:{height:.1f}%"></i>'
            top, foot = f"<b>{_number(speed)}</b>", f"<small>{order}</small>"
            yield f'<div title="{said}">{top}<span>{column}</span>{foot}</div>'
        together = result.settings.n_concurrent > 1
        yield f'</div><p class="note">{_text(line.partition(": " if together else "; ")[2])}</p>'
    yield "</section>"


def _runs(model: ModelResult) -> list[Run]:
    return [run for question in model.questions if question.kind != "prompt" for run in question.runs]


def _answers(result: BenchResult) -> Iterator[str]:
    """Yield the questions, each with the answers of all models side by side."""
    yield "<section><h2>Answers</h2>"
    for name, pairs in _grouped(result):
        question = pairs[0][1]
        yield f"<h3>{_text(name)}</h3><blockquote{_lang(question)}>{_text(question.text)}</blockquote>"
        yield '<div class="answers">'
        for i, one in pairs:
            yield f'<div class="column m{i % 6}"><h4>{_text(result.models[i].name)}</h4>'
            yield from (_answer(one, run) for run in one.runs)
            yield "</div>"
        yield "</div>"
    yield "</section>"


def _answer(question: QuestionResult, run: Run) -> str:
    state = ENDINGS.get(run.status) or STATES[run.verdict.judgement]
    speed = run.client.generation_tokens_per_s
    facts = [
        f"{run.repeat}.",
        f"{run.tokens.n_generated_tokens:,} tokens" if run.tokens.n_generated_tokens is not None else None,
        f"{_number(speed)} tokens/s" if speed else None,
        f"taken as {run.verdict.found}" if run.verdict.found else None,
    ]
    told = ", ".join(fact for fact in facts if fact).replace(".,", ".")
    kind = run.verdict.judgement if run.status == "complete" else "void"
    parts = [f'<article><p class="told"><mark class="{kind}">{state}</mark> {_text(told)}</p>']
    if run.error:
        parts.append(f'<p class="error">{_text(run.error)}</p>')
    if run.thinking.strip():
        parts.append(f"<details><summary>thinking</summary><pre>{_text(run.thinking)}</pre></details>")
    answer = _text(run.answer) if run.answer.strip() else "<em>no answer</em>"
    return "".join([*parts, f"<pre{_lang(question)}>{answer}</pre></article>"])


def _measured(result: BenchResult) -> str:
    settings = result.settings
    cache = "caches knew none of the prompts" if settings.cache == "nonce" else "asked word for word"
    once = "" if settings.n_concurrent == 1 else f", {settings.n_concurrent} at a time"
    asked = f"Each question {settings.n_repeats} times{once}, at most {settings.max_tokens:,} tokens each"
    clock = "by the clock of the machine that asked, from the first token to the last"
    return f"{asked}, {cache}. Speeds are {clock}; the server counted tokens. ggufkit {result.tool_version}."


def _lang(question: QuestionResult) -> str:
    return f' lang="{escape(question.lang)}"' if question.lang else ""


def _speed(spread: Spread | None) -> str | None:
    return f"{_number(spread.median)} tokens/s" if spread else None


def _seconds(spread: Spread | None) -> str | None:
    return f"{spread.median:.2f} s" if spread else None


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _text(text: str) -> str:
    """Escape text for HTML, and show the control characters in it."""
    return "\n".join(escape(printable(line.expandtabs(4))) for line in text.split("\n"))
