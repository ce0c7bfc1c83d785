"""How a hub's client is called: quietly, again after a passing fault, its errors put in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from time import monotonic, sleep
from typing import TypeVar

from ggufkit.errors import AccessError, GgufkitError, NetworkError, NotFoundError
from ggufkit.hubs.endpoints import TITLES, TOKEN_VARIABLES, page_url, title_of
from ggufkit.hubs.refs import HubName
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

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may work."""


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


def refused(
    hub: HubName, endpoint: str, repo_id: str, status: int, headers: Mapping[str, str], *, what: str = ""
) -> GgufkitError:
    """Return the error for an answer with an error status; `what` (a revision, a file) was asked for.

    X-Error-Code: huggingface_hub utils/_http.py `hf_raise_for_status`. It decides before the status.
    """
    title, code = title_of(hub, endpoint), _header(headers, "X-Error-Code")
    if code == "GatedRepo" or (status == 403 and hub == "modelscope"):
        return _gated(hub, endpoint, repo_id)
    if code in ("RevisionNotFound", "EntryNotFound"):
        page = page_url(hub, endpoint, repo_id)
        return NotFoundError(f"{title} has no {what or 'such file'} in {repo_id}", hint=f"see {page}")
    # The Hub answers 401 for repos that don't exist, too, so as not to tell which are private.
    bad_token = "Invalid credentials" in (_header(headers, "X-Error-Message") or "")
    if code == "RepoNotFound" or status == 404 or (status == 401 and hub == "huggingface" and not bad_token):
        return _absent(hub, endpoint, repo_id, what if status == 404 and not code else "")
    if status in (401, 403):
        hint = f"{TOKEN_VARIABLES[hub]} must hold a token that may read {page_url(hub, endpoint, repo_id)}"
        return AccessError(f"{title} does not let us read {repo_id} (status {status})", hint=hint)
    message, hint = f"{title} answered with status {status} for {repo_id}", other_hub_hint(hub, repo_id)
    if status in _PASSING:
        return PassingError(message, hint=hint, retry_after_s=retry_after_s(headers))
    return NetworkError(message, hint=hint)


def unreachable(hub: HubName, endpoint: str, repo_id: str, error: BaseException) -> PassingError:
    """Return the error for a request that got no answer."""
    message = f"{title_of(hub, endpoint)} can't be reached: {reason_of(error)}"
    return PassingError(message, hint=other_hub_hint(hub, repo_id), unanswered=True)


def unreadable(hub: HubName, endpoint: str, repo_id: str) -> NetworkError:
    """Return the error for an answer that is no listing: a login page, a proxy's page, broken JSON."""
    message = f"{title_of(hub, endpoint)} answered with something that is no listing of {repo_id}"
    hint = f"a proxy or a login page may be in between; {other_hub_hint(hub, repo_id)}"
    return NetworkError(message, hint=hint)


def other_hub_hint(hub: HubName, repo_id: str) -> str:
    """Return where else `repo_id` may be asked for."""
    if hub == "huggingface":
        return f"ms:{repo_id} asks ModelScope; HF_ENDPOINT sets a mirror, HTTPS_PROXY a proxy"
    return f"hf:{repo_id} asks Hugging Face; MODELSCOPE_ENDPOINT sets another site, HTTPS_PROXY a proxy"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a refusal asks to wait, or None: Retry-After (seconds or a date), or RateLimit's t."""
    value = (_header(headers, "Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    limit = _header(headers, "RateLimit") or ""  # "api";r=0;t=55 (IETF draft httpapi-ratelimit-headers)
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


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


def _gated(hub: HubName, endpoint: str, repo_id: str) -> AccessError:
    page, variable = page_url(hub, endpoint, repo_id), TOKEN_VARIABLES[hub]
    message = f"{title_of(hub, endpoint)} lets only people in who accepted the terms of {repo_id}"
    return AccessError(message, hint=f"accept them at {page}, then set {variable}")


def _absent(hub: HubName, endpoint: str, repo_id: str, what: str) -> NotFoundError:
    asked = f"{repo_id} with {what}" if what else repo_id
    other = f"ms:{repo_id}" if hub == "huggingface" else f"hf:{repo_id}"
    other_title = TITLES["modelscope" if hub == "huggingface" else "huggingface"]
    return NotFoundError(
        f"{title_of(hub, endpoint)} has no repo {asked}, or it is private",
        hint=f"check the name; {other} asks {other_title}; a private repo needs {TOKEN_VARIABLES[hub]}",
    )
