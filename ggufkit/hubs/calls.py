"""How a hub's client is called: quietly, and again after a passing fault."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from time import monotonic, sleep
from typing import TypeVar

from ggufkit.errors import NetworkError
from ggufkit.progress import SILENT, Progress

T = TypeVar("T")

N_TRIES = 4
"""How often a request that fails in passing is made."""
BUDGET_S = 60.0
"""The longest time that waiting between tries may take in all."""
N_TRIES_UNANSWERED = 3
"""How often a request that gets no answer at all is made."""
PATIENCE_S = 15.0
"""How long after the first try a hub that gives no answer is tried again."""
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0


class PassingError(NetworkError):
    """A fault that may be over soon."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after_s: float | None = None,
        unanswered: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        """Seconds that the hub asked us to wait, where it did."""
        self.unanswered = unanswered
        """No answer came at all."""


def insist(call: Callable[[], T], progress: Progress = SILENT) -> T:
    """Return what `call` returns, calling again after a PassingError: 1, 2, 4 s later, or when the hub says.

    Raises the last error after N_TRIES, or at once when the wait would go beyond BUDGET_S; sooner where
    nobody answers (N_TRIES_UNANSWERED, PATIENCE_S).
    """
    began = monotonic()
    n_done = 0
    while True:
        try:
            return call()
        except PassingError as fault:
            n_done += 1
            wait_s = float(2 ** (n_done - 1)) if fault.retry_after_s is None else fault.retry_after_s
            n_tries, budget_s = (N_TRIES_UNANSWERED, PATIENCE_S) if fault.unanswered else (N_TRIES, BUDGET_S)
            if n_done >= n_tries or monotonic() + wait_s > began + budget_s:
                raise
            progress.note(f"{fault.message}; trying again in {wait_s:.0f} s ({n_done + 1} of {n_tries})")
        sleep(wait_s)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a refusal asks to wait, or None: Retry-After (seconds or a date), or RateLimit's t."""
    value = (header(headers, "Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    limit = header(headers, "RateLimit") or ""  # "api";r=0;t=55 (IETF draft httpapi-ratelimit-headers)
    fields = dict(part.strip().partition("=")[::2] for part in limit.split(";"))
    if fields.get("r") == "0" and fields.get("t", "").isdecimal():
        return float(fields["t"][:9]) + 1  # whole seconds: not a moment too early
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date; TypeError for one without a zone
        return None


def reason_of(error: BaseException) -> str:
    """Return the system's words for what is at the bottom of `error`, without URLs in them."""
    reason = "timed out" if "timeout" in type(error).__name__.lower() else "the connection failed"
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.strerror and isinstance(error.errno, int):
            reason = error.strerror
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((e for e in inner if isinstance(e, BaseException)), error)
    return reason


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Keep a client's log records off the terminal meanwhile, unless the user has set it to DEBUG.

    Clients put a handler that writes to stderr on their loggers; the level holds in their threads too.
    """
    logger = logging.getLogger(logger_name)
    with _quiet_lock:
        n_users, level = _quieted.get(logger_name, (0, logger.level))
        _quieted[logger_name] = (n_users + 1, level)
        if level > logging.DEBUG:
            logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _quiet_lock:
            n_users, level = _quieted.pop(logger_name)
            if n_users > 1:
                _quieted[logger_name] = (n_users - 1, level)
            else:
                logger.setLevel(level)


_quiet_lock = Lock()
_quieted: dict[str, tuple[int, int]] = {}
"""Loggers kept quiet now: how many callers want that, and the level from before."""


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header whatever its case."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
