"""Hugging Face and its mirrors, through huggingface_hub: listing, auth and URLs.

Only that. Bytes are fetched over plain HTTP from `/resolve/`, never over Xet: mirrors can't serve it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, not in __all__

from ggufkit import __version__
from ggufkit.errors import NetworkError, NotFoundError, printable
from ggufkit.hubs import calls, refusals
from ggufkit.hubs.endpoints import may_see_token
from ggufkit.hubs.hub import Address, HubName, Listing, RemoteFile, remote_file
from ggufkit.hubs.refs import check_repo_id
from ggufkit.progress import Progress

DEFAULT_REVISION = "main"
MAX_SIBLINGS = 50_000
"""Above this the Hub may leave files out of a model's info (huggingface_hub, VERY_LARGE_REPO_THRESHOLD)."""

# The base of all errors of the client's HTTP library: httpx (huggingface_hub 1) or httpx2 (2).
_HTTP_ERROR = cast(
    type[Exception], next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What the client's parsing of a hostile or broken answer raises.
_PARSE_ERRORS = (ValueError, TypeError, KeyError, AttributeError)


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
        url = hf_hub_url(repo_id, file.path, revision=file.revision, endpoint=self.endpoint)
        headers = build_hf_headers(token=self._token(), library_name="ggufkit", library_version=__version__)
        return Address(url, headers)

    def _list_once(self, repo_id: str, asked: str) -> Listing:
        what = f"revision {asked}"
        try:
            commit, files = self._fetch(repo_id, asked)
        except HFValidationError as error:
            hint = f"ms:{repo_id} asks ModelScope"
            raise NotFoundError(f"Hugging Face has no repos with names like {repo_id}", hint=hint) from error
        except HfHubHTTPError as error:
            status, headers = error.response.status_code, error.response.headers
            raise refusals.refused(self.name, self.endpoint, repo_id, status, headers, what=what) from error
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
        api = HfApi(self.endpoint, self._token(), library_name="ggufkit", library_version=__version__)
        # httpx takes (connect, read, write, pool), which the client's annotation does not know
        timeout = cast(Any, (calls.CONNECT_TIMEOUT_S, *[calls.READ_TIMEOUT_S] * 3))
        info = api.model_info(repo_id, revision=asked, files_metadata=True, timeout=timeout)
        commit = info.sha
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise ValueError("no commit")
        if info.id != repo_id:  # the Hub redirects from a repo's former names
            self._progress.note(f"{repo_id} is now called {printable(str(info.id))}")
        files = _siblings(info, commit or asked)
        if files is None:
            with _our_patience():
                tree = list(api.list_repo_tree(repo_id, recursive=True, revision=commit or asked))
            files = tuple(_tree_file(one, commit or asked) for one in tree if isinstance(one, RepoFile))
        return commit, files

    def _token(self) -> bool | None:
        """Return what makes the client look its token up (None), or leave it (False)."""
        return None if may_see_token(self.name, self.endpoint) else False


def _siblings(info: ModelInfo, commit: str) -> tuple[RemoteFile, ...] | None:
    """Return the files in a model's info, or None when it is not the whole story."""
    siblings = info.siblings or []
    if not siblings or len(siblings) > MAX_SIBLINGS or any(s.size is None for s in siblings):
        return None
    return tuple(
        remote_file(s.rfilename, s.lfs.size if s.lfs else s.size, s.lfs.sha256 if s.lfs else None, commit)
        for s in siblings
    )


def _tree_file(entry: RepoFile, commit: str) -> RemoteFile:
    lfs = entry.lfs
    return remote_file(entry.path, lfs.size if lfs else entry.size, lfs.sha256 if lfs else None, commit)


@contextmanager
def _our_patience() -> Iterator[None]:
    """Hold the client's requests to our time limits, and leave it to `insist` to ask a busy hub again.

    `list_repo_tree` takes no time limit, waits for ever, and sleeps as long as Retry-After says. The
    client's session is shared, so this also holds for what other threads ask meanwhile.
    """
    limits = dict.fromkeys(("read", "write", "pool"), calls.READ_TIMEOUT_S)

    def limit(request: Any) -> None:
        request.extensions["timeout"] = {"connect": calls.CONNECT_TIMEOUT_S, **limits}

    def refuse(response: Any) -> None:
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {
        "request": [*before.get("request", []), limit],
        "response": [*before.get("response", []), refuse],
    }
    try:
        yield
    finally:  # take out ours only: another thread may have put its own in meanwhile
        session.event_hooks = {
            event: [hook for hook in hooks if hook not in (limit, refuse)]
            for event, hooks in session.event_hooks.items()
        }
