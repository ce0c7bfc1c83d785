"""`ggufkit bench`, `ggufkit bench show`, `ggufkit bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.params import dry_run_option, force_option, output_options
from ggufkit.cli.render import Out, table
from ggufkit.errors import NetworkError, TargetExistsError, UsageError, printable

if TYPE_CHECKING:
    from ggufkit.bench.clients import Client
    from ggufkit.bench.compare import Comparison, Pair
    from ggufkit.bench.questions import Question
    from ggufkit.bench.report import Grid
    from ggufkit.bench.result import BenchResult, Settings
    from ggufkit.verbs.bench import BenchPlan

APIS = ("ollama", "openai", "lmstudio")
LANGS = ("en", "zh", "both")
SUFFIXES = {".html": "html", ".htm": "html", ".csv": "csv", ".md": "markdown"}
FORMATS = ("table", "markdown", "csv", "html")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(
    "bench", invoke_without_command=True, short_help="Ask models five questions; time and check them."
)
@click.option("--api", type=click.Choice(APIS), help="What the server speaks; left out, it is found out.")
@click.option("--url", metavar="URL", help="The server, with or without /v1; left out, the Ollama here.")
@click.option("--model", multiple=True, metavar="NAME", help="A model to ask; may be repeated.")
@click.option("--questions", type=FILE, metavar="FILE", help="Ask those of a file: JSON, or one a paragraph.")
@click.option(
    "--lang", type=click.Choice(LANGS), default="en", show_default=True, help="Of the five questions."
)
@click.option(
    "--prompt-words",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Also time a prompt of N words: the five are too short to tell.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="Times to ask each question.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="N",
    help="Longest answer, thinking included.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Questions under way at once.",
)
@click.option("--temperature", type=click.FloatRange(0, 5), metavar="T", help="Left out, the server's own.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Left out, the server's own.")
@click.option(
    "-c", "--ctx-size", type=click.IntRange(1), metavar="N", help="Context for Ollama and LM Studio to load."
)
@click.option("--allow-cache", is_flag=True, help="Ask word for word, though a cache may know the prompt.")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="How long the server may say nothing.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The result file; else bench-TIME.json.",
)
@click.option("--resume", is_flag=True, help="Go on with the result file: ask only what is missing.")
@force_option
@dry_run_option
@output_options
@click.pass_context
def command(ctx: click.Context, /, out: Out, **flags: Any) -> None:
    """Ask models five questions; time and check them.

    \b
    Examples:
      ggufkit bench --model deepseek-r1 -o r1.json
      ggufkit bench --url http://127.0.0.1:8080/v1 --model r1 --lang zh --prompt-words 500
      ggufkit bench --url https://api.deepseek.com --model deepseek-reasoner --repeat 1
      ggufkit bench show r1.json --format markdown
      ggufkit bench compare r1.json r1-q4.json

    A composition, 9.11 or 9.9, a poem, a riddle about a day, a question of physics: the three that have an
    answer are judged, without the thinking. One JSON file keeps every answer and every time, and is written
    after each answer. Speeds of generation and of reading the prompt, by this clock and by the server's own
    word, are kept apart; loading is timed apart; tokens are only ever counted by the server.

    An API key comes from the environment: GGUFKIT_API_KEY for any server, OPENAI_API_KEY, DEEPSEEK_API_KEY,
    OLLAMA_API_KEY for those hosts only, LM_API_TOKEN for LM Studio. -q prints the result file's path.
    """
    if ctx.invoked_subcommand is None:
        _run(out, **flags)
        return
    given = click.core.ParameterSource.COMMANDLINE
    for param in ctx.command.params:
        if param.name and ctx.get_parameter_source(param.name) is given:
            name = ctx.invoked_subcommand
            flag = max(param.opts, key=len)
            raise UsageError(f"{flag} does not go before {name}", hint=f"ggufkit bench {name} --help")


def _run(
    out: Out,
    *,
    api: Any,
    url: str | None,
    model: tuple[str, ...],
    output: Path | None,
    resume: bool,
    force: bool,
    dry_run: bool,
    timeout: float,
    **asked: Any,
) -> None:
    import os

    from ggufkit.bench.address import open_client
    from ggufkit.verbs.bench import plan_bench

    client = open_client(url, api, os.environ)
    plan = plan_bench(
        client,
        model,
        _questions(asked),
        _settings(asked),
        output=output,
        resume=resume,
        force=force,
        timeout_s=timeout,
    )
    if dry_run:
        out.say("[dry run] nothing is asked, nothing is written")
        out.result(plan, _plan_text(plan), quiet=[plan.output])
    else:
        _ask(out, plan, client)


def _ask(out: Out, plan: BenchPlan, client: Client) -> None:
    from ggufkit.verbs.bench import bench

    out.say(_plan_text(plan))
    try:
        result = bench(plan, client, out.progress())
    except KeyboardInterrupt:
        if plan.output.exists():
            flags = f"-o {plan.output} --resume"
            out.say(f"what was answered is in {plan.output}; the same command with {flags} goes on")
        raise
    _show(out, result, quiet=plan.output)
    if not any(model.summary.n_sound for model in result.models):
        raise _no_answer(result, plan.output)
    out.hint(f"next: ggufkit bench show {plan.output} -o {plan.output.stem}.html")


def _no_answer(result: BenchResult, output: Path) -> NetworkError:
    runs = [run for model in result.models for question in model.questions for run in question.runs]
    reason = next((run.error for run in runs if run.error), "each broke off without a last message")
    hint = f"the same command with -o {output} --resume asks again"
    return NetworkError(f"no answer came to its end: {printable(reason)}", hint=hint)


def _questions(asked: dict[str, Any]) -> tuple[Question, ...]:
    from ggufkit.bench.questions import five_questions, prompt_question, read_questions

    path, n_words = asked["questions"], asked["prompt_words"]
    questions = read_questions(path) if path else five_questions(asked["lang"])
    return (*questions, prompt_question(n_words)) if n_words else questions


def _settings(asked: dict[str, Any]) -> Settings:
    from ggufkit.bench.result import Settings

    return Settings(
        max_tokens=asked["max_tokens"],
        temperature=asked["temperature"],
        seed=asked["seed"],
        context_tokens=asked["ctx_size"],
        n_repeats=asked["repeat"],
        n_concurrent=asked["concurrency"],
        cache="as-is" if asked["allow_cache"] else "nonce",
    )


def _plan_text(plan: BenchPlan) -> str:
    server = plan.server
    kept = f", {plan.n_kept:,} of them there already" if plan.n_kept else ""
    what = f"{server.kind} {server.version or ''}".strip()
    return printable(
        f"{what} at {server.base_url}: {', '.join(plan.models)}; {len(plan.questions):,} questions, "
        f"{plan.n_runs:,} answers{kept}, to {plan.output}"
    )


@command.command("show", short_help="Show a result file.")
@click.argument("file", type=FILE)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="What it is shown as; left out, as FILE is called, else a table.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there; .html, .md and .csv say what it is shown as.",
)
@force_option
@output_options
def show(out: Out, file: Path, format: str | None, output: Path | None, force: bool) -> None:  # noqa: A002
    """Show a result file.

    \b
    Examples:
      ggufkit bench show r1.json
      ggufkit bench show r1.json -o r1.html
      ggufkit bench show r1.json --format csv > r1.csv

    Markdown has the answers too, csv has a row for each of them. html is one page that needs nothing else:
    speeds by model and question against the limit of the memory, answers side by side.
    """
    from ggufkit.bench.file import read_result

    result = read_result(file)
    if output is not None:
        kind = format or SUFFIXES.get(output.suffix.lower(), "markdown")
        _write(output, _rendered(result, kind), force)
        out.result({"file": output}, f"{output}: written", quiet=[output])
    elif format in (None, "table") or out.as_json or out.quiet:
        _show(out, result, quiet=file)
    else:
        click.echo(_rendered(result, format or "markdown"), nl=False)


def _rendered(result: BenchResult, kind: str) -> str:
    from ggufkit.bench.page import page
    from ggufkit.bench.report import csv_text, markdown

    return {"markdown": markdown, "csv": csv_text, "html": page}.get(kind, markdown)(result)


def _write(output: Path, text: str, force: bool) -> None:
    from ggufkit.transfer.disk import write_atomic

    if output.exists() and not force:
        raise TargetExistsError(f"{output} is there already", hint="--force overwrites it")
    write_atomic(output, text.encode())


@command.command("compare", short_help="Compare two result files.")
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@output_options
def compare_command(out: Out, a: Path, b: Path) -> None:
    """Compare two result files.

    \b
    Examples:
      ggufkit bench compare before.json after.json

    Models of the same name are paired; if each file has one model, these two. Files with other questions or
    settings are refused. A change within the spread of the repeats may be chance, and is marked so.
    """
    from ggufkit.bench.compare import compare
    from ggufkit.bench.file import read_result

    comparison = compare(read_result(a), read_result(b))
    for warning in comparison.warnings:
        out.warn(warning)
    changes = [_change(pair) for pair in comparison.pairs if pair.question is None]
    out.result(comparison, _comparison_text(comparison), quiet=changes)


def _show(out: Out, result: BenchResult, *, quiet: Path) -> None:
    from ggufkit.bench.load import dump
    from ggufkit.bench.report import consecutive_lines, models_grid, questions_grid, warnings

    grids = [_drawn(models_grid(result)), "", _drawn(questions_grid(result)), ""]
    text = "\n".join([*grids, *map(printable, consecutive_lines(result))])
    out.result(dump(result), text, quiet=[quiet])
    for warning in warnings(result):
        out.warn(warning)


def _drawn(grid: Grid) -> str:
    return table(grid.headers, grid.rows, right=grid.right)


def _comparison_text(comparison: Comparison) -> str:
    headers = ("MODEL", "QUESTION", "A TOKENS/S", "B TOKENS/S", "CHANGE", "", "A RIGHT", "B RIGHT")
    rows = []
    for pair in comparison.pairs:
        same = pair.model_a == pair.model_b
        name = pair.model_a if same else f"{pair.model_a} / {pair.model_b}"
        chance = "" if pair.told_apart or pair.change is None else "may be chance"
        speeds = (_median(pair.a.generation), _median(pair.b.generation))
        right = (_right(pair.a), _right(pair.b))
        rows.append((name, pair.question or "all", *speeds, _change(pair), chance, *right))
    return table(headers, rows, right=[2, 3, 4, 6, 7])


def _median(spread: Any) -> str:
    return f"{spread.median:.2f}" if spread else "-"


def _change(pair: Pair) -> str:
    return "-" if pair.change is None else f"{pair.change:+.1%}"


def _right(summary: Any) -> str:
    return f"{summary.n_passed} of {summary.n_judged}" if summary.n_judged else ""
