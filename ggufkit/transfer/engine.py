"""The one engine: writes any layout from any sources, goes on where it stopped, proves what it wrote.

The target grows as `<name>.part`, byte n at offset n, beside a journal; it is never appended to and
never cut, so that a second process on the same target does no harm even where locks are not to be
had. When every byte is there and every digest proven it is synced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggufkit.errors import AccessError, IntegrityError, NoSpaceError, TargetExistsError
from ggufkit.gguf.layout import Layout, Literal
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.alone import is_at, open_part, try_lock
from ggufkit.transfer.copying import write_all
from ggufkit.transfer.disk import fsync_folder
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.marks import Marks
from ggufkit.transfer.mend import Mender, Mending
from ggufkit.transfer.prover import DigestMismatch, Proof, Prover
from ggufkit.transfer.sources import LocalSource, Source

PART_SUFFIX = ".part"
POLL_S = 0.2
"""How often a waiting process looks whether the other one is done, after the first looks."""
MAX_ODD_LOOKS = 20
"""How often in a row the part file may be locked, and yet another one than just before."""


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
    """Where what is there is noted (up to three files with this name and a suffix)."""
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
            sha256.update(repr((source.name, source.size_bytes, source.version)).encode())
        return sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What writing one file came to."""

    target: Path
    """The file."""
    n_bytes: int
    """Its size."""
    resumed_bytes: int
    """How much of it another run, or another process, had written."""
    digests: dict[str, str]
    """SHA-256, bare hex, by the proofs' names."""
    seconds: float
    """How long it took."""
    n_mended_blocks: int = 0
    """Blocks that were wrong, on the disk or as they came, and were replaced."""
    refetched_bytes: int = 0
    """What was fetched a second time to find and replace them."""
    marks: dict[str, dict[int, str]] = field(default_factory=dict)
    """What each proof's digest was on the way (see marks.py), by the number of bytes before."""


def resumable_bytes(job: Job) -> int:
    """Return how much of the job an earlier run left, without touching anything."""
    try:
        size = job.part.stat().st_size
    except FileNotFoundError:
        return 0
    return _journal(job, size).done_bytes


def write(job: Job, progress: Progress = SILENT) -> WriteReport:
    """Write the job's file, or what is missing of it; one process at a time, the others wait.

    The progress listener hears `advance` and `note` only; start and finish are the caller's. Raises
    IntegrityError when a digest is wrong and stays so when the bad blocks were fetched again (nothing of
    the file is kept then), NetworkError when the sources fail, NoSpaceError when the disk is full; what
    was written is kept in these two.
    """
    began, known = time.monotonic(), resumable_bytes(job)
    mending = Mending()
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        fd = _open_alone(job, progress)
        if fd is None:
            resumed, digests = job.layout.n_bytes, _prove_target(job)
            progress.advance(resumed - known)
        else:
            resumed, digests = _write_and_publish(job, fd, known, progress, mending)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, or name another disk; the same command goes on from here"
            raise NoSpaceError(f"{job.part}: the disk is full", hint=hint) from error
        raise
    seconds = time.monotonic() - began
    return WriteReport(
        target=job.target,
        n_bytes=job.layout.n_bytes,
        resumed_bytes=resumed,
        digests=digests,
        seconds=seconds,
        n_mended_blocks=mending.n_blocks,
        refetched_bytes=mending.fetched_bytes,
        marks=mending.marks,
    )


def _journal(job: Job, part_bytes: int) -> Journal:
    journal = Journal(job.journal, job.identity)
    journal.clip(min(part_bytes, job.layout.n_bytes))
    return journal


def _open_alone(job: Job, progress: Progress) -> int | None:
    """Open the part file when no other process writes it; None when one has written the target meanwhile."""
    before = _state(job.target)
    looks = odd_looks = 0
    same = False
    while odd_looks < MAX_ODD_LOOKS:
        fd = open_part(job.part, job.layout.n_bytes)
        locked = try_lock(fd)
        if locked and is_at(fd, job.part):
            if not looks or _state(job.target) == before:
                return fd
            job.part.unlink(missing_ok=True)  # made by this look: the other process renamed its own
            os.close(fd)
            _check_other(job, same)
            return None
        os.close(fd)
        odd_looks = odd_looks + 1 if locked else 0
        if not looks:
            progress.note(f"another process is writing {job.target}: waiting for it")
        same = same or Journal(job.journal, job.identity).is_noted()
        time.sleep(min(0.01 * 2 ** min(looks, 5), POLL_S))
        looks += 1
    hint = "name a folder on another disk: this one's file system gives files no lasting numbers"
    raise AccessError(f"{job.part} is another file each time it is looked at", hint=hint)


def _check_other(job: Job, same: bool) -> None:
    """Accept what another process wrote when it was this very content, or can be proven to be."""
    if same or any(proof.expected for proof in job.proofs):
        return
    message = f"{job.target} was written by another process meanwhile"
    raise TargetExistsError(message, hint="the same command says whether it is what you want")


def _prove_target(job: Job) -> dict[str, str]:
    with job.target.open("rb", buffering=0) as file:
        prover = Prover(file.fileno(), job.proofs, [(0, job.layout.n_bytes)])
        try:
            return prover.finish()
        finally:
            prover.stop()


def _write_and_publish(
    job: Job, fd: int, known_bytes: int, progress: Progress, mending: Mending
) -> tuple[int, dict[str, str]]:
    """Return how much was there before, and the digests."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        journal = _journal(job, os.fstat(fd).st_size)
        resumed = journal.done_bytes
        if resumed > known_bytes:
            progress.advance(resumed - known_bytes)  # what a process that we waited for has left
        digests = _write(job, fd, journal, progress, mending)
        if not _rename_open(job, fd):
            stack.close()
            job.part.replace(job.target)
        fsync_folder(job.target.parent)
        journal.forget()
    return resumed, digests


def _write(job: Job, fd: int, journal: Journal, progress: Progress, mending: Mending) -> dict[str, str]:
    """Bring what is missing into the open part file, prove it and make it durable."""
    identity = job.identity
    try:
        journal.save()  # a process that waits for us reads here what we write
        digests = _fill_and_prove(job, fd, journal, progress, mending)
        if job.identity != identity:
            raise IntegrityError(f"{job.target.name}: a source was changed while it was read")
        journal.flush(fd)
    except IntegrityError as error:
        journal.believe(error.proven if isinstance(error, DigestMismatch) else ())
        if not journal.ranges:
            journal.forget()
            job.part.unlink(missing_ok=True)  # nothing of it is believed, and it may be large
        raise
    finally:
        if journal.ranges:
            with contextlib.suppress(OSError):  # a full disk: an older note, or none, is right too
                journal.stop(fd)
    return digests


def _fill_and_prove(
    job: Job, fd: int, journal: Journal, progress: Progress, mending: Mending
) -> dict[str, str]:
    """Write what is missing and take the digests; what is wrong is mended once, and all proven again."""
    marks = Marks(job.journal.with_name(job.journal.name + ".marks"), journal.identity)
    mended: set[str] = set()
    while True:
        prover = Prover(fd, job.proofs, journal.ranges, marks.hasher)
        try:
            _fill(job, fd, journal, prover, progress)
            digests = prover.finish()
            mending.marks = {proof.name: marks.of(proof.name) for proof in job.proofs}
            return digests
        except DigestMismatch as error:
            prover.stop()
            mender = Mender(job, fd, marks, mending, progress)
            if error.name in mended or not mender.mend(error.name):
                marks.forget(error.name)
                error.proven = prover.proven()
                raise
            mended.add(error.name)
        finally:
            prover.stop()


def _fill(job: Job, fd: int, journal: Journal, prover: Prover, progress: Progress) -> None:
    """Write every range that the journal does not have."""

    def wrote(start: int, end: int, data: memoryview | None = None) -> None:
        journal.add(start, end, fd)
        progress.advance(end - start)
        prover.wrote(start, end, data)

    sources = [_lending(source) if job.proofs else source for source in job.sources]
    for position, segment in job.layout.placed():
        for start, end in journal.missing(position, position + segment.n_bytes):
            skip = start - position
            if isinstance(segment, Literal):
                write_all(fd, segment.data[skip : end - position], start)
                wrote(start, end)
            else:
                source = sources[segment.source]
                source.copy_to(fd, start, segment.offset + skip, end - start, wrote)


def _lending(source: Source) -> Source:
    return replace(source, is_lent=True) if isinstance(source, LocalSource) else source


def _rename_open(job: Job, fd: int) -> bool:
    """Give the proven file its name; False where an open file can't be renamed (Windows)."""
    if not is_at(fd, job.part):
        if is_at(fd, job.target):
            return True  # a writer that no lock kept out was first, with the same bytes in the same file
        message = f"{job.part} was removed or replaced while it was written"
        raise AccessError(message, hint="see what else works in this folder, then run the same command again")
    try:
        job.part.replace(job.target)
    except PermissionError:
        return False
    except FileNotFoundError:
        if not is_at(fd, job.target):  # else: such a writer was first just now
            raise
    return True


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
