"""What the two hubs have in common: repos, files with sizes and digests, and where to GET them.

No hub's client is imported here; `open_hub` does that when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ggufkit.hubs.endpoints import endpoint_of
from ggufkit.hubs.paths import check_remote_path
from ggufkit.hubs.refs import HubName, RepoRef, is_ref, parse_ref
from ggufkit.hubs.surroundings import settle
from ggufkit.progress import SILENT, Progress

__all__ = [
    "Address",
    "Hub",
    "HubName",
    "Listing",
    "RemoteFile",
    "RepoRef",
    "check_remote_path",
    "is_ref",
    "open_hub",
    "parse_ref",
    "remote_file",
]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repo, as its hub lists it."""

    path: str
    """Path in the repo, with '/' between parts; safe to write below a folder."""
    size_bytes: int
    """Size of the whole file."""
    sha256: str | None
    """SHA-256 as bare lower-case hex; None where the hub gives none (Hugging Face's small files)."""
    revision: str
    """What to ask the hub for when fetching: the commit (Hugging Face), the revision (ModelScope)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repo at one revision."""

    hub: HubName
    """Which protocol the hub speaks."""
    endpoint: str
    """The hub's base URL, without a slash at the end."""
    repo_id: str
    """`owner/name`."""
    revision: str
    """The revision asked for; the hub's default branch when none was."""
    commit: str | None
    """The commit that the hub answered with, 40 hex digits; ModelScope names none."""
    files: tuple[RemoteFile, ...]
    """All files, in order of their paths; folders are left out."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL to GET (with Range), and the headers to send to its host and to no other."""

    url: str
    """At the hub; it may redirect to another host, which must get neither Authorization nor Cookie."""
    headers: Mapping[str, str] = field(repr=False)
    """User agent and, where the endpoint may see it, the user's token."""


class Hub(Protocol):
    """A place that lists repos and serves their files."""

    name: HubName
    endpoint: str

    def list_files(self, repo_id: str, revision: str | None = None) -> Listing:
        """Return all files of a repo.

        Raises NotFoundError (repo or revision), AccessError (gated, private), NetworkError (try again,
        or the other hub), IntegrityError (an unsafe path).
        """

    def locate(self, repo_id: str, file: RemoteFile) -> Address:
        """Return where `file` can be fetched; no request is made."""


def open_hub(name: HubName, *, endpoint: str | None = None, progress: Progress = SILENT) -> Hub:
    """Return the hub at `endpoint`, else at HF_ENDPOINT or MODELSCOPE_ENDPOINT, else at its own address.

    `progress` hears of retries. Takes about 0.2 s the first time, for the hub's client.
    """
    url = endpoint_of(name, endpoint)
    settle(url)
    if name == "huggingface":
        from ggufkit.hubs.huggingface import HuggingFace

        return HuggingFace(url, progress)
    from ggufkit.hubs.modelscope import ModelScope

    return ModelScope(url, progress)


def remote_file(path: object, size_bytes: object, sha256: object, revision: str) -> RemoteFile:
    """Return a file checked for what a hub may say about it.

    Raises ValueError for values that make no sense, IntegrityError for an unsafe path.
    """
    if not isinstance(path, str) or not isinstance(size_bytes, int) or size_bytes < 0:
        raise ValueError(f"no file: {path!r}, {size_bytes!r} bytes")
    digest = sha256.lower() if isinstance(sha256, str) and sha256 else None
    if digest is not None and not _SHA256.fullmatch(digest):
        raise ValueError(f"no SHA-256: {digest!r}")
    return RemoteFile(check_remote_path(path), size_bytes, digest, revision)
