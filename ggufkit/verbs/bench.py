"""Ask models the questions, one after the other, and keep every answer and every time in one file."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ggufkit import __version__
from ggufkit.bench import measure
from ggufkit.bench.checks import judge
from ggufkit.bench.clients import Client, same_model
from ggufkit.bench.file import read_result, write_result
from ggufkit.bench.questions import Question
from ggufkit.bench.result import (
    SCHEMA,
    BenchResult,
    Load,
    ModelFacts,
    ModelResult,
    QuestionResult,
    Run,
    ServerInfo,
    Settings,
)
from ggufkit.bench.summary import summarize
from ggufkit.bench.trace import Trace
from ggufkit.bench.web import Refused, friendly
from ggufkit.errors import NotFoundError, TargetExistsError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.ollama_server import is_loopback
from ggufkit.verbs.bench_host import active_bytes, describe_host

TIMEOUT_S = 1800.0
"""How long a server may say nothing: a model of hundreds of gigabytes is read from disk meanwhile."""
NOTE_EVERY_S = 30.0
PROMPT_ANSWER_TOKENS = 16
"""Enough for a question of kind `prompt`: it is asked for the time that reading it takes."""
REDONE = ("error", "timeout")
"""Answers that --resume asks for again."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What is to be asked, and where the answers go."""

    server: ServerInfo
    """Who is asked."""
    models: tuple[str, ...]
    """One after the other."""
    questions: tuple[Question, ...]
    """In each round."""
    settings: Settings
    """How."""
    output: Path
    """The result file."""
    timeout_s: float
    """How long the server may say nothing, seconds."""
    n_runs: int
    """Answers in all."""
    n_kept: int
    """Of them there already, from the file that is gone on with."""
    before: BenchResult | None
    """That file."""


@dataclass(frozen=True, slots=True)
class _Job:
    model: str
    question: Question
    repeat: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.model, self.question.id, self.repeat


@dataclass(slots=True)
class _Session:
    """What is known so far."""

    plan: BenchPlan
    client: Client
    progress: Progress
    base: BenchResult
    runs: dict[tuple[str, str, int], Run] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    facts: dict[str, ModelFacts] = field(default_factory=dict)
    n_asked: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False


def plan_bench(
    client: Client,
    models: Sequence[str],
    questions: Sequence[Question],
    settings: Settings,
    *,
    output: Path | None = None,
    resume: bool = False,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> BenchPlan:
    """Plan a benchmark: the models are there, the file can be written. Writes and generates nothing.

    Raises NotFoundError for a model that the server does not have, TargetExistsError, and UsageError for
    a file to go on with that was made otherwise.
    """
    names = _models(client, models)
    server = _server(client)
    path = output or Path(f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    n_runs = len(names) * len(questions) * settings.n_repeats
    plan = BenchPlan(server, names, tuple(questions), settings, path, timeout_s, n_runs, 0, None)
    if resume and output is None:
        raise UsageError("--resume needs the file to go on with", hint="-o FILE --resume")
    if resume and path.exists():
        before = read_result(path)
        _check_same(plan, before)
        plan = replace(plan, before=before)
        return replace(plan, n_kept=len(_kept(plan)))
    if path.exists() and not force:
        hint = "--resume goes on with it, --force replaces it"
        raise TargetExistsError(f"{path} is there already", hint=hint)
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: no such folder")
    return plan


def bench(plan: BenchPlan, client: Client, progress: Progress = SILENT) -> BenchResult:
    """Ask all that is not answered yet; the file is written anew after each answer.

    Raises what loading a model raises; an answer that fails is in the file as such. KeyboardInterrupt ends
    the answer under way, which is not kept.
    """
    base = plan.before or BenchResult(
        SCHEMA, __version__, _now(), None, describe_host(), plan.server, plan.settings, ()
    )
    session = _Session(plan, client, progress, replace(base, settings=plan.settings), _kept(plan))
    for model in plan.before.models if plan.before else ():
        session.facts[model.name] = model.facts
        orders = [run.order for question in model.questions for run in question.runs]
        session.n_asked[model.name] = max(orders, default=0)
        if model.load:
            session.loads[model.name] = model.load
    try:
        for name in plan.models:
            jobs = [job for job in _jobs(plan, name) if job.key not in session.runs]
            if jobs:
                _load(session, name)
                _ask_all(session, jobs)
        return _save(session, finished=True)
    except BaseException:
        if session.runs:
            _save(session)
        raise


def _models(client: Client, asked: Sequence[str]) -> tuple[str, ...]:
    try:
        there = client.models()
    except Refused as refusal:
        raise friendly(refusal, client.web.base) from None
    if not asked:
        if there and len(there) == 1:
            return there
        shown = ", ".join((there or ())[:20]) or "none that it lists"
        raise NotFoundError(f"which model? The server has {shown}", hint="--model NAME")
    if client.api != "openai":  # what an OpenAI-like server lists need not be all that it takes
        for name in asked:
            if not any(same_model(other, name) for other in there or ()):
                shown = ", ".join((there or ())[:20]) or "none"
                raise NotFoundError(f"the server has no model {name}; it has {shown}")
    return tuple(dict.fromkeys(asked))


def _server(client: Client) -> ServerInfo:
    base = client.web.base
    rejected = tuple(sorted(client.rejected))
    return ServerInfo(client.api, client.kind, base, client.version, is_loopback(base), rejected)


def _check_same(plan: BenchPlan, before: BenchResult) -> None:
    """Refuse to mix two benchmarks in one file; more models and more repeats are welcome."""
    same_repeats = replace(before.settings, n_repeats=plan.settings.n_repeats)
    questions = [(question.id, question.sha256) for question in plan.questions]
    differing = [
        what
        for what, same in (
            ("--url", (before.server.api, before.server.base_url) == (plan.server.api, plan.server.base_url)),
            ("settings", same_repeats == plan.settings),
            ("--repeat", before.settings.n_repeats <= plan.settings.n_repeats),
            ("--model", {model.name for model in before.models} <= set(plan.models)),
            ("questions", all([(q.id, q.sha256) for q in m.questions] == questions for m in before.models)),
        )
        if not same
    ]
    if differing:
        text = f"{plan.output} was made with other {', '.join(differing)}"
        raise UsageError(text, hint="give the same ones, or another -o FILE")


def _kept(plan: BenchPlan) -> dict[tuple[str, str, int], Run]:
    models = plan.before.models if plan.before else ()
    return {
        (model.name, question.id, run.repeat): run
        for model in models
        for question in model.questions
        for run in question.runs
        if run.status not in REDONE
    }


def _jobs(plan: BenchPlan, model: str) -> Iterator[_Job]:
    """Yield the model's questions: all five in a row, then all again."""
    for repeat in range(1, plan.settings.n_repeats + 1):
        for question in plan.questions:
            yield _Job(model, question, repeat)


def _load(session: _Session, model: str) -> None:
    client, plan = session.client, session.plan
    session.progress.note(f"{model}: loading")
    try:
        load = client.load(model, plan.settings, plan.timeout_s)
        facts = client.facts(model)
        file = client.file(model) if plan.server.same_machine else None
        session.facts[model] = replace(facts, active_bytes_per_token=active_bytes(file))
    except Refused as refusal:
        raise friendly(refusal, client.web.base) from None
    session.loads.setdefault(model, load)
    session.progress.note(f"{model}: ready after {load.load_s:.1f} s")


def _ask_all(session: _Session, jobs: Sequence[_Job]) -> None:
    n = session.plan.settings.n_concurrent
    if n == 1:
        for job in jobs:
            _ask(session, job)
        return
    with ThreadPoolExecutor(n) as pool:
        asked = [pool.submit(_ask, session, job) for job in jobs]
        try:
            wait(asked, return_when=FIRST_EXCEPTION)
            for one in asked:
                if one.done():
                    one.result()
        except BaseException:
            session.stopped = True
            session.client.web.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _ask(session: _Session, job: _Job) -> None:
    if session.stopped:
        return
    plan, client = session.plan, session.client
    nonce = f"#{secrets.token_hex(4)}" if plan.settings.cache == "nonce" else ""
    prompt = f"{nonce}\n{job.question.text}" if nonce else job.question.text
    with session.lock:
        order = session.n_asked[job.model] = session.n_asked.get(job.model, 0) + 1
    asked_at, watch = _now(), _watcher(session.progress, job)
    settings = plan.settings
    if job.question.kind == "prompt":
        settings = replace(settings, max_tokens=min(settings.max_tokens, PROMPT_ANSWER_TOKENS))
    trace = client.ask(job.model, prompt, settings, plan.timeout_s, watch)
    with session.lock:
        if session.stopped:
            return
        run = make_run(trace, client, job.question, settings, job.repeat, order, asked_at, nonce)
        session.runs[job.key] = run
        _save(session)
    session.progress.note(f"{len(session.runs)} of {plan.n_runs}, {job.model}, {run_text(job.question, run)}")


def _watcher(progress: Progress, job: _Job) -> Callable[[Trace], None]:
    """Return what says now and then how far a long answer is."""
    begun = said = time.monotonic()

    def watch(trace: Trace) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= NOTE_EVERY_S:
            said = now
            text = f"{trace.n_characters:,} characters in {now - begun:.0f} s"
            progress.note(f"{job.model}, {job.question.id}: {text}")

    return watch


def make_run(
    trace: Trace,
    client: Client,
    question: Question,
    settings: Settings,
    repeat: int,
    order: int,
    asked_at: str,
    nonce: str,
) -> Run:
    """Return what a trace amounts to."""
    tokens = measure.tokens_of(trace, client.api)
    status = measure.status_of(trace, client.api, tokens.n_generated_tokens, settings.max_tokens)
    thinking, answer = measure.texts_of(trace)
    ended_itself = status == "complete" and client.api != "lmstudio"
    error = trace.error
    if status == "error" and error is None:
        error = f"the server ended it with {trace.finish_reason}"
    return Run(
        repeat=repeat,
        order=order,
        asked_at=asked_at,
        nonce=nonce,
        status=status,
        error=error,
        finish_reason=trace.finish_reason,
        thinking=thinking,
        answer=answer,
        tokens=tokens,
        client=measure.client_times(trace, tokens, ended_itself=ended_itself),
        server=measure.server_times(trace, client.api, tokens, nonce=bool(nonce)),
        verdict=judge(question.check, answer, status),
    )


def run_text(question: Question, run: Run) -> str:
    """Return a line about a run, for people."""
    parts = [f"{question.id}: {run.status}"]
    if run.error:
        parts.append(run.error)
    if run.tokens.n_generated_tokens is not None:
        parts.append(f"{run.tokens.n_generated_tokens:,} tokens")
    if run.client.generation_tokens_per_s is not None:
        parts.append(f"{run.client.generation_tokens_per_s:.2f} tokens/s")
    if run.verdict.judgement in ("pass", "fail"):
        parts.append({"pass": "right", "fail": "wrong"}[run.verdict.judgement])
    return ", ".join(parts)


def _save(session: _Session, *, finished: bool = False) -> BenchResult:
    """Write what there is."""
    plan = session.plan
    models = tuple(_model_result(session, name) for name in plan.models if name in session.facts)
    done = _now() if finished else None
    result = replace(session.base, server=_server(session.client), models=models, finished_at=done)
    write_result(plan.output, result)
    return result


def _model_result(session: _Session, name: str) -> ModelResult:
    results = tuple(_question_result(session, name, question) for question in session.plan.questions)
    runs = [run for result in results if result.kind != "prompt" for run in result.runs]
    return ModelResult(name, session.facts[name], session.loads.get(name), results, summarize(runs))


def _question_result(session: _Session, model: str, question: Question) -> QuestionResult:
    wanted = range(1, session.plan.settings.n_repeats + 1)
    keys = ((model, question.id, repeat) for repeat in wanted)
    runs = tuple(session.runs[key] for key in keys if key in session.runs)
    return QuestionResult(
        id=question.id,
        lang=question.lang,
        kind=question.kind,
        text=question.text,
        sha256=question.sha256,
        check=question.check,
        runs=runs,
        summary=summarize(runs),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
