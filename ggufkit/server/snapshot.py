"""One state of a repo: its files with the digests that both hubs name them by, and a commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError
from ggufkit.server.catalog import Repo, RepoFile
from ggufkit.transfer.digest import FileStamp

BRANCHES = frozenset({"main", "master"})  # of the Hugging Face Hub, of ModelScope
_LFS_OVER_BYTES = 10_000_000  # the Hub keeps files over 10 MB in LFS: huggingface.co/docs/hub, "Repositories"


class RepoMissingError(NotFoundError):
    """There is no such repo."""


class RevisionMissingError(NotFoundError):
    """The repo has no such revision."""


class EntryMissingError(NotFoundError):
    """The repo has no such file or folder at that revision."""


@dataclass(frozen=True, slots=True)
class SharedFile:
    """One file as it is served."""

    path: str
    """Posix path in the repo."""
    local: Path
    """Where it is, with symbolic links resolved."""
    stamp: FileStamp
    """The state of it that the digests are of."""
    sha256: str
    """Digest of the content, bare lower-case hex."""
    git_oid: str
    """Git's name of the content, or of the pointer to it if it is in LFS; 40 hex."""
    pointer_bytes: int
    """Length of the LFS pointer; 0 if a hub would not keep it in LFS."""

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self.stamp.size_bytes

    @property
    def is_lfs(self) -> bool:
        """Whether a hub would keep it in LFS."""
        return self.pointer_bytes > 0

    @property
    def etag(self) -> str:
        """The hubs' name of the content: SHA-256 in LFS, else git's."""
        return self.sha256 if self.is_lfs else self.git_oid


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a repo."""

    repo_id: str
    """`owner/name`."""
    commit: str
    """40 hex, made of the listing: the same files have the same commit."""
    changed_s: float
    """When the newest file changed, in seconds since the epoch."""
    files: Mapping[str, SharedFile]
    """By path, in order of it."""
    revisions: frozenset[str]
    """What else it is called: branches, and commits of the hub it came from."""

    def file(self, path: str) -> SharedFile:
        """Give the file at `path`; EntryMissingError if there is none."""
        if found := self.files.get(path):
            return found
        raise EntryMissingError(f"{self.repo_id} has no file {path}")

    def below(self, folder: str, recursive: bool) -> list[str]:
        """List the paths of files and folders in a folder, or at any depth below it; "" is the whole repo."""
        prefix = f"{folder}/" if folder else ""
        inner = [path for path in self.entries() if path.startswith(prefix)]
        if folder and not inner:
            raise EntryMissingError(f"{self.repo_id} has no folder {folder}")
        return inner if recursive else [path for path in inner if "/" not in path[len(prefix) :]]

    def entries(self) -> list[str]:
        """List the paths of all files and of the folders they are in, sorted."""
        parts = (path.split("/") for path in self.files)
        return sorted({"/".join(names[:n]) for names in parts for n in range(1, len(names) + 1)})


def share(file: RepoFile, sha256: str) -> SharedFile:
    """Describe a file to the clients of both hubs; reads it if it is small and not a GGUF."""
    if ".gguf" in file.path.lower() or file.stamp.size_bytes > _LFS_OVER_BYTES:
        pointer = _lfs_pointer(sha256, file.stamp.size_bytes)
        return SharedFile(file.path, file.local, file.stamp, sha256, _git_oid(pointer), len(pointer))
    return SharedFile(file.path, file.local, file.stamp, sha256, _git_oid(file.local.read_bytes()), 0)


def snapshot(repo: Repo, files: Iterable[SharedFile]) -> Snapshot:
    """Make one state of a repo of its described files."""
    by_path = {file.path: file for file in files}
    changed_s = max((file.stamp.mtime_ns for file in by_path.values()), default=0) / 1e9
    return Snapshot(repo.repo_id, _commit(by_path.values()), changed_s, by_path, repo.revisions | BRANCHES)


def _commit(files: Iterable[SharedFile]) -> str:
    listing = [[file.path, file.size_bytes, file.sha256] for file in files]
    return hashlib.sha1(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()


def _git_oid(content: bytes) -> str:
    # git hash-object: the type and length in front of the content (git, Documentation/gitformat-loose)
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def _lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    # git-lfs, docs/spec.md: version first, then the keys in order
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (
        sha256.encode(),
        size_bytes,
    )
