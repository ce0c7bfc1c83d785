"""What a hub's refusals mean, in our words, and what to do about them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from ggufkit.errors import AccessError, GgufkitError, NetworkError, NotFoundError
from ggufkit.hubs.calls import PassingError, header, reason_of, retry_after_s
from ggufkit.hubs.endpoints import (
    DEFAULTS,
    TITLES,
    TOKEN_HOSTS_VARIABLE,
    TOKEN_VARIABLES,
    may_see_token,
    page_url,
    title_of,
)
from ggufkit.hubs.refs import HubName

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes after which the same request may work."""


def refused(
    hub: HubName, endpoint: str, repo_id: str, status: int, headers: Mapping[str, str], *, what: str = ""
) -> GgufkitError:
    """Return the error for an answer with an error status; `what` (a revision) was asked for.

    X-Error-Code: huggingface_hub utils/_http.py `hf_raise_for_status`. It decides before the status.
    """
    title, code = title_of(hub, endpoint), header(headers, "X-Error-Code")
    if code == "GatedRepo" or (status == 403 and hub == "modelscope"):
        return _gated(hub, endpoint, repo_id)
    if code in ("RevisionNotFound", "EntryNotFound"):
        page = page_url(hub, endpoint, repo_id)
        return NotFoundError(f"{title} has no {what or 'such file'} in {repo_id}", hint=f"see {page}")
    # The Hub answers 401 for repos that don't exist, too, so as not to tell which are private.
    bad_token = "Invalid credentials" in (header(headers, "X-Error-Message") or "")
    if code == "RepoNotFound" or status == 404 or (status == 401 and hub == "huggingface" and not bad_token):
        return _absent(hub, endpoint, repo_id, what if status == 404 and not code else "")
    if status in (401, 403):
        message = f"{title} does not let us read {repo_id} (status {status})"
        if bad_token:
            message = f"{title} does not accept the token that it was shown (status {status})"
        return AccessError(message, hint=_token_hint(hub, endpoint, repo_id))
    if status == 429:
        return _limited(hub, endpoint, repo_id, retry_after_s(headers))
    message, hint = f"{title} answered with status {status} for {repo_id}", other_hub_hint(hub, repo_id)
    if status in _PASSING:
        return PassingError(message, hint=hint, retry_after_s=retry_after_s(headers))
    return NetworkError(message, hint=hint)


def file_refused(
    hub: HubName, endpoint: str, repo_id: str, path: str, status: int, headers: Mapping[str, str]
) -> GgufkitError:
    """Return the error for a listed file that can't be had: gated (hubs list gated repos, too), or gone."""
    title, code = title_of(hub, endpoint), header(headers, "X-Error-Code")
    if status in (404, 410) or code in ("RepoNotFound", "EntryNotFound", "RevisionNotFound"):
        message = f"{path}: {title} lists it in {repo_id}, and has no such file ({status})"
        hint = "was the repo renamed or changed just now? Run the same command again, or try another --source"
        return NotFoundError(message, hint=hint)
    if code == "GatedRepo":
        error = _gated(hub, endpoint, repo_id)
        return AccessError(f"{path}: {error.message}", hint=error.hint)
    message = f"{path}: {title} refuses the file ({status})"
    page = page_url(hub, endpoint, repo_id)
    hint = f"{repo_id} may be gated or private: accept its terms at {page}, then set {TOKEN_VARIABLES[hub]}"
    if not may_see_token(hub, endpoint):
        hint = f"{repo_id} may be gated or private; {_token_hint(hub, endpoint, repo_id)}"
    return AccessError(message, hint=hint)


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


def _gated(hub: HubName, endpoint: str, repo_id: str) -> AccessError:
    message = f"{title_of(hub, endpoint)} lets only people in who accepted the terms of {repo_id}"
    if may_see_token(hub, endpoint):
        page = page_url(hub, endpoint, repo_id)
        return AccessError(message, hint=f"accept them at {page}, then set {TOKEN_VARIABLES[hub]}")
    page = page_url(hub, DEFAULTS[hub], repo_id)
    return AccessError(message, hint=f"accept them at {page}; {_token_hint(hub, endpoint, repo_id)}")


def _token_hint(hub: HubName, endpoint: str, repo_id: str) -> str:
    """Return what to do about a token: mirrors are not shown any."""
    variable = TOKEN_VARIABLES[hub]
    if may_see_token(hub, endpoint):
        return f"{variable} must hold a token that may read {page_url(hub, endpoint, repo_id)}"
    host = urlsplit(endpoint).netloc
    trust = f"{TOKEN_HOSTS_VARIABLE}={host}"
    return f"{variable} is not shown to {host}: ask the hub itself, or trust it with {trust}"


def _limited(hub: HubName, endpoint: str, repo_id: str, wait_s: float | None) -> PassingError:
    when = "" if wait_s is None else f", for {_span(wait_s)} more"
    message = f"{title_of(hub, endpoint)} limits how often it is asked (status 429){when}"
    raised = f"with {TOKEN_VARIABLES[hub]} set it allows more; " if may_see_token(hub, endpoint) else ""
    return PassingError(message, hint=raised + other_hub_hint(hub, repo_id), retry_after_s=wait_s)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _absent(hub: HubName, endpoint: str, repo_id: str, what: str) -> NotFoundError:
    asked = f"{repo_id} with {what}" if what else repo_id
    other = f"ms:{repo_id}" if hub == "huggingface" else f"hf:{repo_id}"
    other_title = TITLES["modelscope" if hub == "huggingface" else "huggingface"]
    return NotFoundError(
        f"{title_of(hub, endpoint)} has no repo {asked}, or it is private",
        hint=f"check the name, was it renamed? {other} asks {other_title}; "
        f"a private repo needs {TOKEN_VARIABLES[hub]}",
    )
