"""Hugging Face's cache on this machine: files that are here, put where its clients and llama.cpp look.

Layout: `models--<owner>--<name>/blobs/<sha256>`, `snapshots/<commit>/<path>` (links to blobs) and
`refs/<revision>`, which names a commit (huggingface_hub, guide "manage-cache"; llama.cpp
common/hf-cache.cpp reads the same). A blob of a file in LFS, as all GGUFs are, is named by its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ggufkit.errors import AccessError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.changes import Changes
from ggufkit.transfer.disk import Method, existing_parent, staging_folder

STAGING = ".ggufkit-import"
MAIN = "main"

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Hugging Face's cache, and how it was found."""

    folder: Path
    """The folder that holds `models--<owner>--<name>` folders; it need not exist yet."""
    found_by: str
    """The variable that named it, or `default`."""

    def repo(self, repo_id: str) -> Path:
        """Return the folder of a repo (huggingface_hub file_download.py `repo_folder_name`)."""
        return self.folder / "--".join(["models", *repo_id.split("/")])


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file on this machine that is to be found in the cache."""

    path: str
    """Path in the repo."""
    source: Path
    """Where it is."""
    n_bytes: int
    """Its size."""
    sha256: str
    """Its digest, bare hex."""


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What putting files into the cache came to."""

    snapshot: Path
    """The folder in which clients see the files."""
    commit: str
    """The commit that the snapshot is called by."""
    made_up: bool
    """Whether no commit was known, and this one is ours."""
    files: tuple[Path, ...]
    """The files there."""
    n_placed: int
    """How many blobs were not there before."""
    extra_bytes: int
    """Bytes that this took on the disk."""
    methods: tuple[Method, ...]
    """How the blobs got there, each way once."""
    warnings: tuple[str, ...]
    """What the user should know."""


def find_cache(environ: Mapping[str, str], home: Path | None = None) -> CachePlace:
    """Find the cache as huggingface_hub does (constants.py `HF_HUB_CACHE`); nothing is made."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environ.get(name):
            return CachePlace(_expanded(value), name)
    if value := environ.get("HF_HOME"):
        return CachePlace(_expanded(value) / "hub", "HF_HOME")
    if value := environ.get("XDG_CACHE_HOME"):
        return CachePlace(_expanded(value) / "huggingface" / "hub", "XDG_CACHE_HOME")
    return CachePlace((home or Path.home()) / ".cache" / "huggingface" / "hub", "default")


def check_cache(place: CachePlace) -> None:
    """Raise AccessError when this user may not write into the cache."""
    parent = existing_parent(place.folder)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        hint = "HF_HUB_CACHE names another folder"
        raise AccessError(f"{parent}: this user may not write there ({place.found_by})", hint=hint)


def put_in_cache(
    place: CachePlace,
    repo_id: str,
    files: Sequence[CachedFile],
    *,
    revision: str = MAIN,
    commit: str | None = None,
    progress: Progress = SILENT,
) -> CacheReport:
    """Link the files into the repo's folder in the cache, as if its client had fetched them.

    Without a `commit` they join the snapshot that `revision` names in the cache already, else one that is
    called by a made-up commit: that serves clients that are offline, and one that is online finds the blobs
    under the commit that the hub tells it. On failure the cache is left as it was.
    """
    repo = place.repo(repo_id)
    named = _commit_of(repo / "refs" / revision)
    found = commit or (revision if _COMMIT.fullmatch(revision) else None) or named
    chosen = found or _made_up(files)
    snapshot = repo / "snapshots" / chosen
    with Changes(place.folder) as changes:
        for folder in (repo / "blobs", snapshot, repo / "refs"):
            changes.folder(folder)
        staging = changes.staging(staging_folder(place.folder, STAGING))
        placed = _place(changes, repo, snapshot, files, staging, progress)
        if not _COMMIT.fullmatch(revision) and named != chosen:
            ref = repo / "refs" / revision
            changes.folder(ref.parent)
            changes.write(ref, chosen.encode(), staging=staging)
    return CacheReport(
        snapshot=snapshot,
        commit=chosen,
        made_up=found is None,
        files=tuple(snapshot / PurePosixPath(file.path) for file in files),
        n_placed=len(placed),
        extra_bytes=sum(file.n_bytes for file, method in placed if method == "copy"),
        methods=tuple(dict.fromkeys(method for _, method in placed)),
        warnings=_doubts(repo_id, found, commit),
    )


def _expanded(value: str) -> Path:
    return Path(os.path.expandvars(value)).expanduser().absolute()


def _commit_of(ref: Path) -> str | None:
    """Return the commit that a ref in the cache names."""
    try:
        text = ref.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _made_up(files: Sequence[CachedFile]) -> str:
    """Return 40 hex digits that are the same for the same files, and no hub's commit."""
    lines = sorted(f"{file.path} {file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def _is_there(blob: Path, n_bytes: int) -> bool:
    """Say whether the blob is whole; one of another size is broken, and makes room."""
    try:
        if blob.stat().st_size == n_bytes:
            return True
    except FileNotFoundError:
        pass
    blob.unlink(missing_ok=True)
    return False


def _place(
    changes: Changes,
    repo: Path,
    snapshot: Path,
    files: Sequence[CachedFile],
    staging: Path,
    progress: Progress,
) -> list[tuple[CachedFile, Method]]:
    """Put the files among the blobs and show them in the snapshot; returns those that were not there."""
    placed: list[tuple[CachedFile, Method]] = []
    for file in files:
        blob = repo / "blobs" / file.sha256
        if not _is_there(blob, file.n_bytes):
            method = changes.place(file.source, blob, method="auto", staging=staging, progress=progress)
            placed.append((file, method))
        _show(changes, snapshot / PurePosixPath(file.path), blob, staging)
    return placed


def _show(changes: Changes, path: Path, blob: Path, staging: Path) -> None:
    """Let a snapshot show the blob under the file's path: by a relative link, else by a second name."""
    changes.folder(path.parent)
    with contextlib.suppress(OSError):
        if path.samefile(blob):
            return
    temporary = staging / f"{blob.name[:16]}.link"
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # no symbolic links here: huggingface_hub then has the file itself in the snapshot
        path.unlink(missing_ok=True)
        changes.place(blob, path, method="auto", staging=staging)
        return
    temporary.replace(path)
    changes.undoing(path.unlink)


def _doubts(repo_id: str, found: str | None, commit: str | None) -> tuple[str, ...]:
    if commit is not None:
        return ()
    if found is not None:
        return (f"no hub named a commit: the files joined the one that the cache has of {repo_id}",)
    return (
        f"no hub named a commit of {repo_id}: the cache has a made-up one. Offline that is all the same; "
        "online, clients link the same files under the real one",
    )
