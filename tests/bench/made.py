"""A small result, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ggufkit.bench.questions import FIVE, Question
from ggufkit.bench.result import (
    SCHEMA,
    BenchResult,
    ClientTimes,
    Host,
    Load,
    ModelFacts,
    ModelResult,
    QuestionResult,
    Run,
    ServerInfo,
    ServerTimes,
    Settings,
    Tokens,
    Verdict,
)
from ggufkit.bench.summary import summarize

SETTINGS = Settings(4096, None, None, None, 3, 1, "nonce")
RUN = Run(
    repeat=1,
    order=1,
    asked_at="2026-11-22T00:00:00+00:00",
    nonce="#1",
    status="complete",
    error=None,
    finish_reason="stop",
    thinking="hm",
    answer="落叶",
    tokens=Tokens(80, 0, 101, "usage"),
    client=ClientTimes(0.1, 0.5, 1.5, 10.5, 10.5, 10.0, 9.5, 0.1, 90, 1, 0.1, 0.2, 0.3),
    server=ServerTimes(80, 0.4, 200.0, None, 10.0, 10.1, None, None, {"predicted_n": 101}),
    verdict=Verdict("pass", "9.9"),
)


def made(
    speeds: Sequence[float] = (10.0, 10.2, 9.9),
    name: str = "smol",
    answer: str = "落叶",
    settings: Settings = SETTINGS,
) -> BenchResult:
    """Return a result of two questions with these speeds."""
    questions = [_question(question, i, speeds, answer) for i, question in enumerate(FIVE["zh"][1:3])]
    runs = [run for question in questions for run in question.runs]
    facts = ModelFacts("ab" * 32, "Q4_1", "134.5M", "llama", 98_362_432, None, 0, 2048)
    model = ModelResult(name, facts, Load(True, 2.5, "ollama"), tuple(questions), summarize(runs))
    host = Host("Linux", "6.1", "A CPU", 2, 1 << 34, 1 << 33, 0.5)
    server = ServerInfo("ollama", "ollama", "http://127.0.0.1:11434", "0.5.4", True, ())
    started = "2026-11-22T00:00:00+00:00"
    return BenchResult(SCHEMA, "0.1.0", started, "later", host, server, settings, (model,))


def _question(question: Question, place: int, speeds: Sequence[float], answer: str) -> QuestionResult:
    runs = []
    for i, speed in enumerate(speeds):
        client = replace(RUN.client, generation_tokens_per_s=speed)
        order = 2 * i + place + 1
        runs.append(replace(RUN, repeat=i + 1, order=order, answer=answer, client=client))
    values = (question.id, question.lang, question.kind, question.text, question.sha256, question.check)
    return QuestionResult(*values, tuple(runs), summarize(runs))
