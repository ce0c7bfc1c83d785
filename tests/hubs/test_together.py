"""Several places asked at once: nobody waits long for the dead, nothing is said for those given up on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ggufkit.errors import NetworkError, NotFoundError
from ggufkit.hubs import together
from ggufkit.hubs.together import Question, ask_together
from ggufkit.progress import Progress, Silent

LONG_S = 30.0


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What silent places wait for; opened at the end."""
    event = threading.Event()
    yield event
    event.set()


def says(answer: str) -> Callable[[Progress], str]:
    return lambda _progress: answer


def refuses(error: Exception) -> Callable[[Progress], str]:
    def ask(_progress: Progress) -> str:
        raise error

    return ask


def waits(gate: threading.Event, answer: str = "late") -> Callable[[Progress], str]:
    def ask(progress: Progress) -> str:
        progress.note("still trying")
        gate.wait(LONG_S)
        progress.note("heard by nobody")
        return answer

    return ask


def test_answers_come_in_the_order_of_the_questions() -> None:
    def slow(_progress: Progress) -> str:
        time.sleep(0.05)
        return "a"

    assert ask_together([Question(slow), Question(says("b"))], Notes()) == ["a", "b"]


def test_refusals_are_answers() -> None:
    error = NotFoundError("no such repo")
    assert ask_together([Question(refuses(error)), Question(says("b"))], Notes()) == [error, "b"]


def test_one_place_is_asked_in_this_thread() -> None:
    asked: list[threading.Thread] = []

    def ask(_progress: Progress) -> str:
        asked.append(threading.current_thread())
        return "a"

    assert ask_together([Question(ask)], Notes()) == ["a"]
    assert asked == [threading.current_thread()]


def let_go(gate: threading.Event) -> None:
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ask-"):
            thread.join(LONG_S)


def test_a_silent_place_is_left_after_the_grace_and_unheard_then(gate: threading.Event) -> None:
    notes = Notes()
    began = time.monotonic()
    answers = ask_together([Question(waits(gate)), Question(says("b"))], notes, grace_s=0.1)
    assert answers == [None, "b"] and 0.1 <= time.monotonic() - began < LONG_S / 2
    let_go(gate)
    assert notes.notes == ["still trying"]


def test_a_witness_is_not_heard(gate: threading.Event) -> None:
    notes = Notes()
    questions = [Question(says("a")), Question(waits(gate), needed=False)]
    assert ask_together(questions, notes, grace_s=0.05) == ["a", None]
    let_go(gate)
    assert notes.notes == []


def test_the_grace_is_at_most_three_seconds() -> None:
    assert together.GRACE_S <= 3


def test_without_a_good_answer_everybody_is_waited_for(gate: threading.Event) -> None:
    threading.Timer(0.2, gate.set).start()
    questions = [Question(refuses(NetworkError("down"))), Question(waits(gate))]
    assert ask_together(questions, Notes(), grace_s=0.01)[1] == "late"


def test_a_witness_alone_is_not_enough_and_not_waited_for(gate: threading.Event) -> None:
    threading.Timer(0.2, gate.set).start()
    questions = [Question(waits(gate)), Question(says("digests"), needed=False)]
    assert ask_together(questions, Notes(), grace_s=0.01) == ["late", "digests"]
    error = NetworkError("down")
    never = threading.Event()
    questions = [Question(refuses(error)), Question(waits(never), needed=False)]
    assert ask_together(questions, Notes()) == [error, None]
    never.set()


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_what_is_no_refusal_ends_the_question(fault: BaseException, gate: threading.Event) -> None:
    def ask(_progress: Progress) -> str:
        raise fault

    with pytest.raises(type(fault)):
        ask_together([Question(waits(gate)), Question(ask)], Notes())
