"""Retries, refusals in our words, and clients that keep quiet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ggufkit.errors import GgufkitError, NetworkError
from ggufkit.hubs import calls
from ggufkit.hubs.calls import PassingError, insist, quiet, reason_of, retry_after_s
from ggufkit.progress import Silent


class Notes(Silent):
    """Hears the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Sleep not, but say how long."""
    seconds: list[float] = []
    monkeypatch.setattr(calls, "sleep", seconds.append)
    yield seconds


def failing(*errors: GgufkitError) -> tuple[list[GgufkitError], Notes]:
    return list(errors), Notes()


def run(errors: list[GgufkitError], notes: Notes) -> str:
    def call() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return insist(call, notes)


def test_a_passing_fault_is_waited_out(naps: list[float]) -> None:
    errors, notes = failing(*[PassingError("busy")] * 3)
    assert run(errors, notes) == "done"
    assert naps == [1, 2, 4]
    assert notes.notes[0] == "busy; trying again in 1 s (2 of 4)"


def test_the_last_try_fails_for_good(naps: list[float]) -> None:
    with pytest.raises(PassingError, match="number 4"):
        run(*failing(*[PassingError(f"number {n}") for n in range(1, 9)]))
    assert len(naps) == 3


def test_a_hub_that_gives_no_answer_is_left_sooner(naps: list[float]) -> None:
    errors, notes = failing(*[PassingError("nobody", unanswered=True)] * 9)
    with pytest.raises(PassingError):
        run(errors, notes)
    assert naps == [1, 2] and notes.notes[-1] == "nobody; trying again in 2 s (3 of 3)"


def test_a_hub_whose_silence_took_long_is_not_asked_again(
    naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 21.0])
    monkeypatch.setattr(calls, "monotonic", lambda: next(clock))
    with pytest.raises(PassingError):
        run(*failing(*[PassingError("timed out", unanswered=True)] * 9))
    assert naps == []


def test_other_errors_are_final(naps: list[float]) -> None:
    with pytest.raises(NetworkError):
        run(*failing(NetworkError("no listing")))
    assert naps == []


def test_the_hub_says_how_long_to_wait(naps: list[float]) -> None:
    assert run(*failing(PassingError("busy", retry_after_s=7))) == "done"
    assert naps == [7]


def test_a_wait_beyond_the_budget_is_not_made(naps: list[float]) -> None:
    with pytest.raises(PassingError):
        run(*failing(PassingError("busy", retry_after_s=3600)))
    assert naps == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2),
        ({"retry-after": " 120 "}, 120),
        ({"Retry-After": "9" * 400}, 999999999),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 56),
        ({"RateLimit": '"api"; r=3; t=55'}, None),
        ({"RateLimit": "nonsense"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 -0000"}, None),
    ],
)
def test_how_long_a_refusal_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_to_wait_for() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < (retry_after_s({"Retry-After": when}) or 0) <= 90


def test_the_reason_at_the_bottom_of_an_error() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as inner:
            raise RuntimeError("Max retries exceeded with url: /secret?token=1") from inner
    except RuntimeError as outer:
        assert reason_of(outer) == "Connection refused"
    assert reason_of(TimeoutError()) == "timed out"
    assert reason_of(RuntimeError("https://x?token=secret")) == "the connection failed"
    loop = RuntimeError()
    loop.__context__ = OSError(5, "I/O error")
    loop.__context__.__context__ = loop
    assert reason_of(loop) == "I/O error"


def test_quiet_is_for_a_while_and_counts_its_users() -> None:
    logger = logging.getLogger("ggufkit.test.client")
    logger.setLevel(logging.WARNING)
    with quiet(logger.name):
        with quiet(logger.name):
            assert not logger.getChild("child").isEnabledFor(logging.CRITICAL)
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.level == logging.WARNING
    logger.setLevel(logging.DEBUG)  # the user wants to hear it
    with quiet(logger.name):
        assert logger.isEnabledFor(logging.DEBUG)
    assert logger.level == logging.DEBUG
