"""Hugging Face and its mirrors: listing, auth and URLs, over huggingface_hub's session and tokens.

Its light parts only: `HfApi` takes longer to import than a hub to answer, and lists neither within a time
limit nor without waits of its own. Bytes are fetched over plain HTTP from `/resolve/`, never over Xet:
mirrors can't serve it.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast
from urllib.parse import quote, urlsplit

import huggingface_hub.errors
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session, validate_repo_id  # type: ignore[attr-defined]  # no __all__

from ggufkit import __version__
from ggufkit.errors import AccessError, NetworkError, NotFoundError, printable
from ggufkit.hubs import calls, refusals
from ggufkit.hubs.endpoints import TOKEN_VARIABLES, may_see_token
from ggufkit.hubs.hub import Address, HubName, Listing, RemoteFile, remote_file
from ggufkit.hubs.refs import check_repo_id
from ggufkit.progress import Progress

DEFAULT_REVISION = "main"
MAX_SIBLINGS = 50_000
"""Above this the Hub may leave files out of a model's info (huggingface_hub, VERY_LARGE_REPO_THRESHOLD)."""
MAX_PAGES = 1_000
"""Of a tree, 1000 entries each (huggingface_hub hf_api.py `_iter_repo_tree_pages`): no repo has as many."""
MAX_QUERY_CHARS = 8_000
"""Of the link to a next page."""

# The base of all errors of the client's HTTP library: httpx (huggingface_hub 1) or httpx2 (2).
_HTTP_ERROR = cast(
    type[Exception], next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
)
# What its tokens of CI providers raise; since huggingface_hub 2.
_OIDC_ERROR: type[Exception] = getattr(huggingface_hub.errors, "OIDCError", ValueError)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What reading a hostile or broken answer raises; RecursionError for [[[[...
_PARSE_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class HuggingFace:
    """The Hub or a mirror of it."""

    name: HubName = "huggingface"

    def __init__(self, endpoint: str, progress: Progress) -> None:
        self.endpoint = endpoint
        self._progress = progress

    def list_files(self, repo_id: str, revision: str | None = None) -> Listing:
        """Return all files of a repo, with the commit they are of."""
        asked = revision or DEFAULT_REVISION
        check_repo_id(repo_id)
        with calls.quiet("huggingface_hub"):
            return calls.insist(lambda: self._list_once(repo_id, asked), self._progress)

    def locate(self, repo_id: str, file: RemoteFile) -> Address:
        """Return the URL of `file` at its commit."""
        revision = quote(file.revision, safe="")
        return Address(f"{self.endpoint}/{repo_id}/resolve/{revision}/{quote(file.path)}", self._headers())

    def _list_once(self, repo_id: str, asked: str) -> Listing:
        try:
            validate_repo_id(repo_id)
            commit, files = self._fetch(repo_id, asked)
        except HFValidationError as error:
            hint = f"ms:{repo_id} asks ModelScope"
            raise NotFoundError(f"Hugging Face has no repos with names like {repo_id}", hint=hint) from error
        except OfflineModeIsEnabled as error:
            raise NetworkError("HF_HUB_OFFLINE forbids to ask Hugging Face", hint="unset it") from error
        except _HTTP_ERROR as error:
            raise refusals.unreachable(self.name, self.endpoint, repo_id, error) from error
        except _PARSE_ERRORS as error:
            raise refusals.unreadable(self.name, self.endpoint, repo_id) from error
        files = tuple(sorted(files, key=lambda file: file.path))
        return Listing(self.name, self.endpoint, repo_id, asked, commit, files)

    def _fetch(self, repo_id: str, asked: str) -> tuple[str | None, tuple[RemoteFile, ...]]:
        """Ask for commit and files in one request, so that both are of one moment.

        Mirrors that drop `?blobs=true` give no sizes; they are asked for the tree as well. Some name no
        commit; files are then asked for by the revision.
        """
        get = partial(self._get, repo_id, asked, self._headers())
        info = get(f"revision/{quote(asked, safe='')}?blobs=true").json()
        commit = info.get("sha")
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise ValueError("no commit")
        if info["id"] != repo_id:  # the Hub redirects from a repo's former names
            self._progress.note(f"{repo_id} is now called {printable(str(info['id']))}")
        revision = commit or asked
        files = _siblings(info.get("siblings") or [], revision)
        if files is None:
            files = _tree_files(_entries(get, f"tree/{quote(revision, safe='')}"), revision)
        return commit, files

    def _get(self, repo_id: str, asked: str, headers: dict[str, str], path: str) -> Any:
        """Return the API's response about a repo; raise what a refusal means."""
        url = f"{self.endpoint}/api/models/{repo_id}/{path}"
        read_s = calls.READ_TIMEOUT_S
        timeout = (calls.CONNECT_TIMEOUT_S, read_s, read_s, read_s)  # httpx: connect, read, write, pool
        response = get_session().get(url, headers=headers, timeout=timeout)
        status, what = response.status_code, f"revision {asked}"
        if status >= 400:
            raise refusals.refused(self.name, self.endpoint, repo_id, status, response.headers, what=what)
        return response

    def _headers(self) -> dict[str, str]:
        """Return the user agent and, where it may be seen, the token that the client finds.

        The client's own headers ask its hub first which AI agents there are, whether or not that is the
        hub that is asked, and keep the answer in the user's home (utils/_detect_agent.py).
        """
        client = f"hf_hub/{huggingface_hub.__version__}; python/{platform.python_version()}"
        headers = {"user-agent": f"ggufkit/{__version__}; {client}"}
        token = client_token() if may_see_token(self.name, self.endpoint) else None
        return headers | {"authorization": f"Bearer {token}"} if token else headers


def client_token() -> str | None:
    """Return the token that the client would send to its hub; None for none, or none to be sent unasked.

    Raises AccessError when it can't be read.
    """
    # brings yaml and a file lock along: 35 ms that a mirror need not be waited for
    from huggingface_hub.utils import get_token_to_send  # type: ignore[attr-defined]  # as above

    try:
        token: str = get_token_to_send(None) or ""
        token.encode("ascii")
    except (OSError, ValueError, _OIDC_ERROR) as error:
        way_out = f"run 'hf auth login' again, or set {TOKEN_VARIABLES['huggingface']}"
        hint = "unset HF_OIDC_RESOURCE" if os.environ.get("HF_OIDC_RESOURCE") else way_out
        message = "the token of huggingface_hub can't be read"
        if isinstance(error, OSError) and error.filename:
            message += f" ({error.filename}: {error.strerror})"
        raise AccessError(message, hint=hint) from error
    return token or None


def _entries(get: Callable[[str], Any], path: str) -> Iterator[dict[str, Any]]:
    """Yield the entries of a repo's tree, page by page.

    Only its query is taken from the link to the next page: mirrors may pass on the Hub's own, and nobody
    is asked but the endpoint.
    """
    query, seen = "recursive=true", {""}
    while query not in seen and len(seen) <= MAX_PAGES and _is_sane(query):
        seen.add(query)
        response = get(f"{path}?{query}")
        entries = response.json()
        if not isinstance(entries, list):
            raise TypeError("no page")
        yield from entries
        if "next" not in response.links:
            return
        query = urlsplit(response.links["next"]["url"]).query
    raise ValueError("no end of pages")


def _is_sane(query: str) -> bool:
    """Tell whether httpx would take it: what it raises for URLs that it does not is no HTTPError."""
    return len(query) <= MAX_QUERY_CHARS and query.isprintable()


def _siblings(siblings: list[dict[str, Any]], revision: str) -> tuple[RemoteFile, ...] | None:
    """Return the files in a model's info, or None when it is not the whole story."""
    if not siblings or len(siblings) > MAX_SIBLINGS or any(s.get("size") is None for s in siblings):
        return None
    return tuple(_file(s, s["rfilename"], "sha256", revision) for s in siblings)


def _tree_files(entries: Iterable[dict[str, Any]], revision: str) -> tuple[RemoteFile, ...]:
    return tuple(_file(e, e["path"], "oid", revision) for e in entries if e["type"] == "file")


def _file(entry: dict[str, Any], path: object, digest: str, revision: str) -> RemoteFile:
    """Return a file with the size and the digest of what it stands for, where it is kept in LFS."""
    lfs = entry.get("lfs")
    return remote_file(path, (lfs or entry)["size"], lfs[digest] if lfs else None, revision)
