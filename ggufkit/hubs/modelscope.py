"""ModelScope, through modelscope's hub client: listing, auth and URLs.

`modelscope_hub` is the part of modelscope that speaks to the hub; modelscope's own HubApi leaves the
digests out of a listing. The client walks folders one by one where the server cuts a listing at 3000
entries, and retries each of these requests by itself; the first one is retried by us.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from modelscope_hub import HubApi, HubConfig
from modelscope_hub.errors import APIError, HubError, RateLimitError, ServerError
from modelscope_hub.errors import NetworkError as HubNetworkError

from ggufkit import __version__
from ggufkit.errors import AccessError, NotFoundError
from ggufkit.hubs import calls, refusals
from ggufkit.hubs.endpoints import TOKEN_VARIABLES, may_see_token, page_url, title_of
from ggufkit.hubs.hub import Address, HubName, Listing, RemoteFile, remote_file
from ggufkit.hubs.refs import check_repo_id
from ggufkit.progress import SILENT, Progress

DEFAULT_REVISION = "master"

# RecursionError for [[[[...
_PARSE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class ModelScope:
    """ModelScope, its international site, or a hub that speaks as it does."""

    name: HubName = "modelscope"

    def __init__(self, endpoint: str, progress: Progress = SILENT) -> None:
        self.endpoint = endpoint
        self._progress = progress

    def list_files(self, repo_id: str, revision: str | None = None) -> Listing:
        """Return all files of a repo."""
        asked = revision or DEFAULT_REVISION
        with calls.quiet("modelscope_hub"):
            check_repo_id(repo_id)
            files = calls.insist(lambda: self._ask(repo_id, asked), self._progress)
        if not files:  # also what the client makes of an answer that says "Success": false
            page = page_url(self.name, self.endpoint, repo_id)
            message = f"{title_of(self.name, self.endpoint)} lists no files in {repo_id} at revision {asked}"
            raise NotFoundError(message, hint=f"see {page}")
        return Listing(self.name, self.endpoint, repo_id, asked, None, files)

    def locate(self, repo_id: str, file: RemoteFile) -> Address:
        """Return the URL of `file` at the revision it was listed at."""
        query = f"Revision={quote(file.revision, safe='')}&FilePath={quote(file.path, safe='')}"
        url = f"{self.endpoint}/api/v1/models/{repo_id}/repo?{query}"
        return Address(url, self._headers())

    def _ask(self, repo_id: str, asked: str) -> tuple[RemoteFile, ...]:
        api = HubApi(self._config(), user_agent=_user_agent())
        _fail_at_once(api)
        try:
            entries: list[Any] = list(api.list_repo_files(repo_id, "model", revision=asked))
            files = [_file(e, asked) for e in entries if e.type != "tree"]
        except _FirstRequestError as failure:
            raise self._error(repo_id, asked, failure.error) from failure.error
        except (HubError, OSError) as error:  # requests' errors are OSErrors
            raise self._error(repo_id, asked, error) from error
        except _PARSE_ERRORS as error:
            raise refusals.unreadable(self.name, self.endpoint, repo_id) from error
        return tuple(sorted(files, key=lambda file: file.path))

    def _error(self, repo_id: str, asked: str, error: Exception) -> Exception:
        """Return the client's error in our words."""
        if isinstance(error, APIError):
            status = error.status_code or 400
            headers = _headers_of(error)
            what = f"revision {asked}"
            return refusals.refused(self.name, self.endpoint, repo_id, status, headers, what=what)
        if isinstance(error, ValueError):  # requests' JSONDecodeError is an OSError, too
            return refusals.unreadable(self.name, self.endpoint, repo_id)
        return refusals.unreachable(self.name, self.endpoint, repo_id, error)

    def _headers(self) -> dict[str, str]:
        token = self._config().token
        headers = {"User-Agent": _user_agent()}
        if token:  # as the client does: old endpoints read the cookie, new ones the header
            headers |= {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}
        return headers

    def _config(self) -> HubConfig:
        """Return the client's configuration, with the token it finds only where that may be sent."""
        if not may_see_token(self.name, self.endpoint):
            return _Config(endpoint=self.endpoint, token="")
        try:
            return _Config(endpoint=self.endpoint)
        except (EOFError, ImportError, IndexError, *_PARSE_ERRORS) as error:  # a broken pickle
            hint = f"run 'ms login' again, or set {TOKEN_VARIABLES[self.name]}"
            raise AccessError("the token file of modelscope can't be read", hint=hint) from error


class _Config(HubConfig):
    """The client's configuration, without a file in the user's home that names this machine."""

    def get_session_id(self) -> str:
        return uuid.uuid4().hex


class _FirstRequestError(Exception):
    """Carries the client's error past the client's own retries."""

    def __init__(self, error: HubError) -> None:
        super().__init__(error)
        self.error = error


def _fail_at_once(api: HubApi) -> None:
    """Let the first request of a listing fail to us, who say so, and ask again with our own patience."""
    client: Any = api.legacy
    honest = getattr(client, "_fetch_tree_page", None)
    if honest is None:
        return  # another version of the client: it retries by itself
    answered = False

    def fetch(*arguments: Any, **named: Any) -> Any:
        nonlocal answered
        try:
            response = honest(*arguments, **named)
        except (HubNetworkError, ServerError, RateLimitError) as error:
            if answered:
                raise
            raise _FirstRequestError(error) from error
        answered = True
        return response

    client._fetch_tree_page = fetch


def _headers_of(error: APIError) -> dict[str, str]:
    response = getattr(error, "response", None)
    if response is not None:
        return dict(response.headers)
    wait_s = getattr(error, "retry_after", None)
    return {} if wait_s is None else {"Retry-After": str(int(wait_s))}


def _user_agent() -> str:
    return f"ggufkit/{__version__}"


def _file(entry: Any, revision: str) -> RemoteFile:
    return remote_file(entry.path, entry.size, entry.sha256, revision)


def client_token() -> str | None:
    """Return the token that ModelScope's client finds by itself; None for none that it can read."""
    try:
        return _Config().token or None
    except (EOFError, ImportError, IndexError, *_PARSE_ERRORS):
        return None
