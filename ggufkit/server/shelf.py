"""What the server answers from: the repos below a folder, as of the last look at the disk."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ggufkit.errors import printable
from ggufkit.progress import SILENT, Progress
from ggufkit.server.catalog import Repo, RepoFile, find_repos
from ggufkit.server.snapshot import (
    RepoMissingError,
    RevisionMissingError,
    SharedFile,
    Snapshot,
    share,
    snapshot,
)
from ggufkit.transfer.digest import DigestCache, FileStamp, sha256_file

_LOOK_AGAIN_S = 10.0
_QUIET_S = 3.0
"""A look in the background counts when nobody has asked for so long: those who ask now hear of one state."""
_QUIET_FOR_S = 10.0
"""How long such a pause is waited for."""
_KEPT_COMMITS = 16
_CACHED_FROM_BYTES = 1 << 20


class Shelf:
    """The repos below `root`, each file hashed once.

    `look` must be called before the first answer. Later looks run in the background: a listing never waits
    for a hash, and a commit once listed can be downloaded to the end while its files are unchanged. What
    they found counts after a pause in the questions, so that both protocols, asked at once, say the same.
    """

    def __init__(self, root: Path, digests: DigestCache, progress: Progress = SILENT) -> None:
        self.root = root
        self._digests = digests
        self._progress = progress
        self._kept: dict[str, list[Snapshot]] = {}
        self._shared: dict[RepoFile, SharedFile] = {}
        self._coming: dict[str, list[Snapshot]] | None = None
        self._looked_s = self._asked_s = 0.0
        self._looking = threading.Lock()
        self._counting = threading.Lock()

    def look(self) -> None:
        """Look at the disk, hash what is new, then answer from that."""
        self._look()
        self._count()

    def _look(self) -> None:
        with self._looking:
            repos = find_repos(self.root, self._progress.note)
            self._hash([file for repo in repos for file in repo.files])
            newest = [snapshot(repo, self._described(repo)) for repo in repos]
            with self._counting:
                before = self._kept if self._coming is None else self._coming
                self._coming = {one.repo_id: _history(one, before) for one in newest if one.files}
            self._looked_s = time.monotonic()

    def _count(self) -> None:
        """Answer from the last look."""
        with self._counting:
            if self._coming is not None:
                self._kept, self._coming = self._coming, None

    def _is_pause(self) -> bool:
        now_s = time.monotonic()
        return now_s - self._asked_s >= _QUIET_S or now_s - self._looked_s >= _QUIET_FOR_S

    def asked(self) -> None:
        """Take note of a question; begin a look for later ones, unless the last is recent or under way."""
        if self._is_pause():
            self._count()
        self._asked_s = time.monotonic()
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S and not self._looking.locked():
            self._looked_s = time.monotonic()
            threading.Thread(target=self._look, name="ggufkit-look", daemon=True).start()

    def newest(self) -> list[Snapshot]:
        """List each repo as it is now."""
        return [history[0] for history in self._kept.values()]

    def find(self, repo_id: str, revision: str) -> Snapshot:
        """Give the state of a repo that a branch or commit names; RepoMissingError, RevisionMissingError."""
        history = self._kept.get(repo_id)
        if history is None:
            raise RepoMissingError(f"no repo {repo_id} here")
        for one in history:
            if revision == one.commit or revision in one.revisions:
                return one
        raise RevisionMissingError(f"no revision {revision} of {repo_id} here")

    def _described(self, repo: Repo) -> list[SharedFile]:
        return [self._shared[file] for file in repo.files if file in self._shared]

    def _hash(self, files: Sequence[RepoFile]) -> None:
        """Describe the files that are new, and forget those that are gone."""
        self._shared = {file: self._shared[file] for file in files if file in self._shared}
        new = [file for file in files if file not in self._shared]
        n_bytes = sum(file.stamp.size_bytes for file in unhashed(new, self._digests))
        if n_bytes:
            self._progress.note(f"computing the SHA-256 of {n_bytes / 2**30:.1f} GiB, this once")
            self._progress.start("hashing", n_bytes)
        for file in new:
            self._describe(file)
        if n_bytes:
            self._progress.finish()

    def _describe(self, file: RepoFile) -> None:
        name = printable(file.path)
        try:
            shared = share(file, self._digest(file))
            unchanged = FileStamp.of(file.local.stat()) == file.stamp
        except OSError as error:
            self._progress.note(f"left out {name}: {error.strerror}")
            return
        if unchanged:
            self._shared[file] = shared
        else:
            self._progress.note(f"left out {name} for now: it is being written")

    def _digest(self, file: RepoFile) -> str:
        if known := _known_digest(file, self._digests):
            return known
        if file.stamp.size_bytes < _CACHED_FROM_BYTES:
            return sha256_file(file.local, self._progress)
        return self._digests.digest(file.local, self._progress)


def _history(newest: Snapshot, kept: Mapping[str, Sequence[Snapshot]]) -> list[Snapshot]:
    before = [one for one in kept.get(newest.repo_id, ()) if one.commit != newest.commit]
    return [newest, *(dataclasses.replace(one, revisions=frozenset()) for one in before)][:_KEPT_COMMITS]


def unhashed(files: Iterable[RepoFile], digests: DigestCache) -> list[RepoFile]:
    """List the files whose digest is neither published nor remembered, so that they must be read."""
    return [file for file in files if _known_digest(file, digests) is None]


def _known_digest(file: RepoFile, digests: DigestCache) -> str | None:
    return file.sha256 or digests.get(file.local)
