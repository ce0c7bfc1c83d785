"""A result as tables, Markdown and CSV: prompt processing and generation, client and server never mixed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ggufkit.bench.result import BenchResult, ModelResult, Run, Spread, Summary
from ggufkit.bench.summary import NOISY, change_over_time, together_tokens_per_s
from ggufkit.errors import printable


@dataclass(frozen=True, slots=True)
class Grid:
    """A table yet to be drawn."""

    headers: tuple[str, ...]
    """Over its columns."""
    rows: tuple[tuple[str, ...], ...]
    """Its cells."""
    right: tuple[int, ...]
    """Columns of numbers."""


_MEASURES = ("TOKENS/S", "SPREAD", "SERVER SAYS", "PROMPT TOKENS/S", "FIRST", "FIRST OF ANSWER", "RIGHT")


def models_grid(result: BenchResult) -> Grid:
    """Return a row for each model."""
    rows = [
        (model.name, model.facts.quant or "", _load(model), str(model.summary.n_runs), *_measures(model))
        for model in result.models
    ]
    return Grid(("MODEL", "QUANT", "LOAD", "ANSWERS", *_MEASURES), tuple(rows), tuple(range(2, 11)))


def questions_grid(result: BenchResult) -> Grid:
    """Return a row for each question of each model."""
    rows = [
        (model.name, question.id, _endings(question.runs), *_cells(question.summary))
        for model in result.models
        for question in model.questions
        if question.runs
    ]
    return Grid(("MODEL", "QUESTION", "ENDED", *_MEASURES), tuple(rows), tuple(range(3, 10)))


def consecutive_lines(result: BenchResult) -> list[str]:
    """Return for each model the speeds in the order of asking: on a hot or paging machine they fall.

    For answers at the same time, which slow each other, their speed together.
    """
    lines = []
    n = result.settings.n_concurrent
    for model in result.models:
        runs = sorted(_answers(model), key=lambda run: run.order)
        if n > 1:
            together = _speed(together_tokens_per_s(runs))
            lines.append(f"{model.name}, {n} answers at a time: {together} tokens/s together")
            continue
        speeds = [run.client.generation_tokens_per_s for run in runs]
        line = f"{model.name}, one answer after the other: {' '.join(map(_speed, speeds))} tokens/s"
        change = change_over_time(runs)
        if change is not None:
            line += f"; the later half {abs(change):.0%} {'faster' if change > 0 else 'slower'}"
        lines.append(line)
    return lines


def warnings(result: BenchResult) -> list[str]:
    """Return what to mind about the numbers."""
    said = []
    for model in result.models:
        runs = _answers(model)
        uncounted = sum(run.tokens.source == "none" for run in runs)
        cut = sum(run.status == "length" for run in runs)
        broken = sum(run.status in ("no_final", "error", "timeout") for run in runs)
        if uncounted:
            text = f"answers without a speed, as the server counted no tokens: {uncounted}"
            said.append(f"{model.name}: {text}")
        if cut:
            limit = result.settings.max_tokens
            said.append(f"{model.name}: answers cut at {limit:,} tokens, and so not judged: {cut}")
        if broken:
            said.append(f"{model.name}: answers that broke off, and so are not judged: {broken}")
        said += _noise(model)
    return said


def _answers(model: ModelResult) -> list[Run]:
    """Return all runs but those that only time a prompt."""
    return [run for question in model.questions if question.kind != "prompt" for run in question.runs]


def _noise(model: ModelResult) -> Iterator[str]:
    for question in model.questions:
        spread = question.summary.generation
        if spread and spread.variation is not None and spread.variation > NOISY:
            text = f"speeds of {question.id} vary by {spread.variation:.0%}"
            yield f"{model.name}: {text}: was the machine busy, or hot?"


def markdown(result: BenchResult) -> str:
    """Return the tables, and the answers for a person to judge, as Markdown."""
    server, host = result.server, result.host
    head = [
        f"# {', '.join(_md(model.name) for model in result.models)}",
        "",
        f"{result.started_at}, {_md(server.kind)} {_md(server.version or '')} at `{server.base_url}`, "
        f"asked from {_md(host.cpu or host.os)}; ggufkit {result.tool_version}",
    ]
    parts = [*head, "", _md_table(models_grid(result)), "", _md_table(questions_grid(result)), ""]
    parts += [f"- {_md(line)}" for line in (*consecutive_lines(result), *warnings(result))]
    for model in result.models:
        for question in model.questions:
            parts += ["", f"## {_md(model.name)}: {_md(question.id)}", "", _quoted(question.text)]
            for run in question.runs:
                state = run.verdict.judgement if run.status == "complete" else run.status
                parts += ["", f"**{run.repeat}** ({state})", "", _quoted(run.answer or "(no answer)")]
    return "\n".join(parts) + "\n"


_CSV = (
    "model",
    "question",
    "lang",
    "repeat",
    "order",
    "status",
    "judgement",
    "found",
    "prompt_tokens",
    "cached_tokens",
    "generated_tokens",
    "token_source",
    "client_first_any_s",
    "client_first_answer_s",
    "client_end_s",
    "client_generation_tokens_per_s",
    "client_end_to_end_tokens_per_s",
    "server_prompt_tokens_per_s",
    "server_generation_tokens_per_s",
    "server_load_s",
)


def csv_text(result: BenchResult) -> str:
    """Return a row for each answer; empty cells for what nobody knows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV)
    for model in result.models:
        for question in model.questions:
            for run in question.runs:
                cells = (model.name, question.id, question.lang, *_csv_cells(run))
                writer.writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _csv_cells(run: Run) -> tuple[object, ...]:
    tokens, client, server = run.tokens, run.client, run.server
    return (
        run.repeat,
        run.order,
        run.status,
        run.verdict.judgement,
        run.verdict.found,
        tokens.n_prompt_tokens,
        tokens.n_cached_tokens,
        tokens.n_generated_tokens,
        tokens.source,
        client.first_any_s,
        client.first_answer_s,
        client.end_s,
        client.generation_tokens_per_s,
        client.end_to_end_tokens_per_s,
        server and server.prompt_tokens_per_s,
        server and server.generation_tokens_per_s,
        server and server.load_s,
    )


def _harmless(cell: object) -> object:
    """Keep a spreadsheet from taking text for a formula, and a terminal from obeying it."""
    if not isinstance(cell, str):
        return cell
    return f"'{printable(cell)}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else printable(cell)


def _measures(model: ModelResult) -> tuple[str, ...]:
    prompts = [question.summary.prompt for question in model.questions if question.kind == "prompt"]
    prompt = next((spread for spread in prompts if spread), model.summary.prompt)
    return _cells(model.summary, prompt)


def _cells(summary: Summary, prompt: Spread | None = None) -> tuple[str, ...]:
    generation = summary.generation
    ends = f"{_speed(generation.low)}-{_speed(generation.high)}" if generation and generation.n > 1 else ""
    return (
        _middle(generation),
        ends,
        _middle(summary.server_generation),
        _middle(prompt or summary.prompt),
        _seconds(summary.first_any_s),
        _seconds(summary.first_answer_s),
        f"{summary.n_passed} of {summary.n_judged}" if summary.n_judged else "",
    )


def _endings(runs: Sequence[Run]) -> str:
    names = {"length": "cut", "no_final": "broke off"}
    endings = dict.fromkeys(names.get(run.status, run.status) for run in runs)
    return ", ".join(endings)


def _load(model: ModelResult) -> str:
    return f"{model.load.load_s:.1f} s" if model.load else ""


def _middle(spread: Spread | None) -> str:
    return _speed(spread.median if spread else None)


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _seconds(spread: Spread | None) -> str:
    return f"{spread.median:.2f} s" if spread else "-"


def _md(text: str) -> str:
    """Escape what Markdown, or HTML in it, would take for its own."""
    text = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text)


def _md_table(grid: Grid) -> str:
    marks = ["---:" if i in grid.right else "---" for i in range(len(grid.headers))]
    rows = [grid.headers, marks, *([_md(cell) for cell in row] for row in grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _quoted(text: str) -> str:
    """Return text as a block of code, behind a fence that it can't close, and no terminal obeys."""
    text = "\n".join(printable(line.expandtabs(4)) for line in text.split("\n"))
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
