"""What the server answers from: the repos below a folder, as of the last look at the disk."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterable, Sequence
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
_KEPT_COMMITS = 16
_CACHED_FROM_BYTES = 1 << 20


class Shelf:
    """The repos below `root`, each file hashed once.

    `look` must be called before the first answer. Later looks run in the background: a listing never waits
    for a hash, and a commit once listed can be downloaded to the end while its files are unchanged.
    """

    def __init__(self, root: Path, digests: DigestCache, progress: Progress = SILENT) -> None:
        self.root = root
        self._digests = digests
        self._progress = progress
        self._kept: dict[str, list[Snapshot]] = {}
        self._shared: dict[RepoFile, SharedFile] = {}
        self._looked_s = 0.0
        self._looking = threading.Lock()

    def look(self) -> None:
        """Look at the disk, hash what is new, then answer from that."""
        with self._looking:
            repos = find_repos(self.root, self._progress.note)
            self._hash([file for repo in repos for file in repo.files])
            newest = [snapshot(repo, self._described(repo)) for repo in repos]
            self._kept = {one.repo_id: self._history(one) for one in newest if one.files}
            self._looked_s = time.monotonic()

    def look_soon(self) -> None:
        """Begin a look in the background, unless the last one is recent or still under way."""
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S and not self._looking.locked():
            self._looked_s = time.monotonic()
            threading.Thread(target=self.look, name="ggufkit-look", daemon=True).start()

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

    def _history(self, newest: Snapshot) -> list[Snapshot]:
        before = [one for one in self._kept.get(newest.repo_id, ()) if one.commit != newest.commit]
        return [newest, *(dataclasses.replace(one, revisions=frozenset()) for one in before)][:_KEPT_COMMITS]

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


def unhashed(files: Iterable[RepoFile], digests: DigestCache) -> list[RepoFile]:
    """List the files whose digest is neither published nor remembered, so that they must be read."""
    return [file for file in files if _known_digest(file, digests) is None]


def _known_digest(file: RepoFile, digests: DigestCache) -> str | None:
    return file.sha256 or digests.get(file.local)
