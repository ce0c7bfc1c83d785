"""Where the shards of a merged pull come from: this machine, a plain pull that was stopped, the hubs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufkit.gguf.layout import whole_file
from ggufkit.progress import Progress
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.engine import Job
from ggufkit.transfer.http import Http
from ggufkit.transfer.journal import Journal, Range
from ggufkit.transfer.several import Several
from ggufkit.transfer.sources import LocalSource, Reader, Wrote
from ggufkit.verbs.pull import PulledFile, PullPlan
from ggufkit.verbs.record import journal_path
from ggufkit.verbs.remote_shards import Readable


def shard_sources(pull: PullPlan, http: Http, progress: Progress) -> list[Readable]:
    """Return the sources of all shards, in order; to a journal each is the same wherever it is read."""
    files = zip(pull.files, pull.quant.files, strict=True)
    return [
        HeldShard(file.path, file.size_bytes, file.sha256, pulled.here)
        if pulled.here is not None
        else _begun(pull, pulled, pull.repo.source(file, http, progress))
        for pulled, file in files
    ]


def forget_begun(pull: PullPlan) -> None:
    """Remove what plain pulls had begun of shards that are in a merged file now."""
    for pulled in pull.files:
        if pulled.state == "resume" and pulled.adopted is None:
            with contextlib.suppress(OSError):
                _part(pulled).unlink()
                pulled.target.parent.rmdir()  # if nothing else is in it
            Journal(journal_path(pull.root, pulled.target), "").forget()


@dataclass(frozen=True, slots=True)
class HeldShard:
    """A shard that is here already."""

    name: str
    """The path in the repo."""
    size_bytes: int
    """Size that the hub listed."""
    sha256: str | None
    """Digest that the hub listed."""
    path: Path
    """Where it is here."""

    @property
    def version(self) -> str:
        """The digest; without one the state of the file at this moment."""
        return self.sha256 or LocalSource(self.path, self.size_bytes).version

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy from the file."""
        LocalSource(self.path, self.size_bytes).copy_to(fd, at, offset, n_bytes, wrote)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes."""
        with self.path.open("rb", buffering=0) as file:
            return read_at(file.fileno(), n_bytes, offset)


@dataclass(frozen=True, slots=True)
class BegunShard:
    """A shard of which a plain pull has left a part: that is copied, and the rest fetched."""

    rest: Several
    """The hubs, which have all of it."""
    part: Path
    """What there is of it."""
    ranges: tuple[Range, ...]
    """Which bytes of it are there; not proven."""

    @property
    def name(self) -> str:
        """The path in the repo."""
        return self.rest.name

    @property
    def size_bytes(self) -> int:
        """Size that the hub listed."""
        return self.rest.size_bytes

    @property
    def sha256(self) -> str | None:
        """Digest that the hub listed."""
        return self.rest.sha256

    @property
    def version(self) -> str:
        """The same as on the hub."""
        return self.rest.version

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy what is there, and fetch what lies between."""
        shift, end = at - offset, offset + n_bytes
        for start, stop in self.ranges:
            start, stop = max(start, offset), min(stop, end)
            if start >= stop:
                continue
            if offset < start:
                self.rest.copy_to(fd, offset + shift, offset, start - offset, wrote)
            LocalSource(self.part, stop).copy_to(fd, start + shift, start, stop - start, wrote)
            offset = stop
        if offset < end:
            self.rest.copy_to(fd, offset + shift, offset, end - offset, wrote)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes, from the hubs: what a set is judged by is read anew."""
        return self.rest.read(offset, n_bytes)

    @property
    def n_turns(self) -> int:
        """How many hubs can be asked for bytes that turn out to be wrong."""
        return self.rest.n_turns

    def origins(self, offset: int, end: int) -> Sequence[tuple[int, int]]:
        """Cut a range by who brought it."""
        return self.rest.origins(offset, end)

    def readers(self, offset: int, end: int, turn: int | None) -> Sequence[Reader]:
        """Return who is to give a range at this turn."""
        return self.rest.readers(offset, end, turn)

    def compared(self, offset: int, end: int, turn: int, *, differed: bool) -> None:
        """Hear what a turn's bytes came to."""
        self.rest.compared(offset, end, turn, differed=differed)

    def blame(self) -> None:
        """Hear that what differed was wrong."""
        self.rest.blame()


def _begun(pull: PullPlan, pulled: PulledFile, source: Several) -> Readable:
    """Return the source with what a plain pull has left, if it has."""
    part = _part(pulled)
    if pulled.state != "resume" or not part.is_file():
        return source
    job = Job(pulled.target, whole_file(pulled.size_bytes), (source,), journal_path(pull.root, pulled.target))
    journal = Journal(job.journal, job.identity)
    journal.clip(part.stat().st_size)
    return BegunShard(source, part, tuple(journal.ranges)) if journal.ranges else source


def _part(pulled: PulledFile) -> Path:
    return Job(pulled.target, whole_file(0), (), pulled.target).part
