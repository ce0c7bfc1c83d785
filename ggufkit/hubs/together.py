"""Asking several places at once: none that is slow or dead holds up the others for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ggufkit.errors import GgufkitError
from ggufkit.progress import Progress

T = TypeVar("T")
GRACE_S = 2.5
"""How long the others may still take when one that serves has answered."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What one place is asked."""

    ask: Callable[[Progress], T]
    """Asks, and returns the answer; called in a thread of its own."""
    needed: bool = True
    """Whether its answer is enough to go on with."""


class _Muted:
    """Passes one place's notes on until it is told not to: a place given up on has nothing more to say."""

    def __init__(self, progress: Progress, *, muted: bool) -> None:
        self._progress = progress
        self.muted = muted

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Hear nothing."""

    def advance(self, n_bytes: int) -> None:
        """Hear nothing."""

    def note(self, message: str) -> None:
        """Pass the sentence on."""
        if not self.muted:
            self._progress.note(message)

    def finish(self) -> None:
        """Hear nothing."""


def ask_together(
    questions: Sequence[Question[T]], progress: Progress, *, grace_s: float | None = None
) -> list[T | GgufkitError | None]:
    """Ask all at once; returns the answers in order, a GgufkitError for a refusal, None for silence.

    Comes back when all have answered, when all needed ones have refused, or `grace_s` (GRACE_S) after the
    first needed answer. Threads that still wait then end by themselves, unheard; so are those not needed.
    """
    if len(questions) == 1:
        only: T | GgufkitError = _answer(questions[0], progress)
        return [only]
    grace_s = GRACE_S if grace_s is None else grace_s
    answers: list[T | GgufkitError | None] = [None] * len(questions)
    faults: list[BaseException] = []
    changed = threading.Condition()
    ears = [_Muted(progress, muted=not question.needed) for question in questions]

    def work(i: int, question: Question[T]) -> None:
        answer, fault = None, None
        try:
            answer = _answer(question, ears[i])
        except BaseException as error:  # noqa: BLE001 - raised again by the caller, in its own thread
            fault = error
        with changed:
            answers[i] = answer
            if fault is not None:
                faults.append(fault)
            changed.notify()

    for i, question in enumerate(questions):
        threading.Thread(target=work, args=(i, question), name=f"ask-{i}", daemon=True).start()
    needed = [i for i, question in enumerate(questions) if question.needed]
    until: float | None = None
    with changed:
        while not faults and not _is_over(answers, needed) and (until is None or time.monotonic() < until):
            if until is None and any(_is_good(answers[i]) for i in needed):
                until = time.monotonic() + grace_s
            changed.wait(None if until is None else max(0.0, until - time.monotonic()))
        for ear in ears:
            ear.muted = True
        if faults:
            raise faults[0]
        return list(answers)


def _answer(question: Question[T], progress: Progress) -> T | GgufkitError:
    try:
        return question.ask(progress)
    except GgufkitError as error:
        return error


def _is_good(answer: object) -> bool:
    return answer is not None and not isinstance(answer, GgufkitError)


def _is_over(answers: Sequence[object], needed: Sequence[int]) -> bool:
    return None not in answers or all(isinstance(answers[i], GgufkitError) for i in needed)
