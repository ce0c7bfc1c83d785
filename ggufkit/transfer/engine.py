"""The one engine: writes any layout from any sources, goes on where it stopped, proves what it wrote.

The target grows as `<name>.part`, byte n at offset n, beside a journal; it is never appended to and
never cut, so that a second process on the same target does no harm. When every byte is there and
every digest proven it is synced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import IntegrityError, NoSpaceError
from ggufkit.gguf.layout import Layout, Literal
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import write_all
from ggufkit.transfer.disk import fsync_folder
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.prover import Proof, Prover
from ggufkit.transfer.sources import Source

PART_SUFFIX = ".part"


@dataclass(frozen=True, slots=True)
class Job:
    """One file to be written."""

    target: Path
    """Where it goes. Its folder is made."""
    layout: Layout
    """What it consists of."""
    sources: tuple[Source, ...]
    """What the layout's spans refer to."""
    journal: Path
    """Where what is there is noted (two files with this name and a suffix)."""
    proofs: tuple[Proof, ...] = ()
    """Digests to be taken or checked on the way."""

    @property
    def part(self) -> Path:
        """The name that the file has until it is proven."""
        return self.target.with_name(self.target.name + PART_SUFFIX)

    @property
    def identity(self) -> str:
        """A digest of what the file's content follows from: another content, another journal."""
        sha256 = hashlib.sha256()
        for segment in self.layout.segments:
            sha256.update(segment.data if isinstance(segment, Literal) else repr(segment).encode())
        for source in self.sources:
            sha256.update(repr((source.name, source.size_bytes, source.sha256)).encode())
        return sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What writing one file came to."""

    target: Path
    """The file."""
    n_bytes: int
    """Its size."""
    resumed_bytes: int
    """How much of it an earlier run had left."""
    digests: dict[str, str]
    """SHA-256, bare hex, by the proofs' names."""
    seconds: float
    """How long it took."""


def resumable_bytes(job: Job) -> int:
    """Return how much of the job an earlier run left, without touching anything."""
    if not job.part.exists():
        return 0
    return min(Journal(job.journal, job.identity).done_bytes, job.layout.n_bytes)


def write(job: Job, progress: Progress = SILENT) -> WriteReport:
    """Write the job's file, or what is missing of it.

    The progress listener hears `advance` only; start and finish are the caller's. Raises IntegrityError
    when a digest is wrong (nothing of the file is believed then), NetworkError when the sources fail,
    NoSpaceError when the disk is full; what was written is kept in these two.
    """
    began = time.monotonic()
    job.target.parent.mkdir(parents=True, exist_ok=True)
    journal = _open_journal(job)
    resumed = journal.done_bytes
    with _opened(job.part) as fd:
        prover = Prover(fd, job.proofs, journal.ranges)
        try:
            _fill(job, fd, journal, prover, progress)
            digests = prover.finish()
            os.fsync(fd)
        except IntegrityError:
            journal.forget()
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                hint = "make room, or name another disk; the same command goes on from here"
                raise NoSpaceError(f"{job.part}: the disk is full", hint=hint) from error
            raise
        finally:
            prover.stop()
            if journal.ranges:
                with contextlib.suppress(OSError):  # a full disk: an older note, or none, is right too
                    journal.save()
    _publish(job, journal)
    return WriteReport(job.target, job.layout.n_bytes, resumed, digests, time.monotonic() - began)


def _open_journal(job: Job) -> Journal:
    """Open the journal; without its part file, or with one of another content, begin anew."""
    journal = Journal(job.journal, job.identity)
    if not job.part.exists():
        journal.forget()
    elif not journal.ranges:
        job.part.unlink(missing_ok=True)
    return journal


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[int]:
    fd = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _fill(job: Job, fd: int, journal: Journal, prover: Prover, progress: Progress) -> None:
    """Write every range that the journal does not have."""

    def wrote(start: int, end: int) -> None:
        journal.add(start, end, fd)
        progress.advance(end - start)
        prover.wrote(start, end)

    for position, segment in job.layout.placed():
        for start, end in journal.missing(position, position + segment.n_bytes):
            skip = start - position
            if isinstance(segment, Literal):
                write_all(fd, segment.data[skip : end - position], start)
                wrote(start, end)
            else:
                source = job.sources[segment.source]
                source.copy_to(fd, start, segment.offset + skip, end - start, wrote)


def _publish(job: Job, journal: Journal) -> None:
    """Give the proven file its name, and make that durable."""
    try:
        job.part.replace(job.target)
    except FileNotFoundError:
        # Another process on the same target was first; its file has the same, proven bytes.
        if not job.target.exists() or job.target.stat().st_size != job.layout.n_bytes:
            raise
    fsync_folder(job.target.parent)
    journal.forget()
