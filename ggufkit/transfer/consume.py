"""Writing a layout out of local files in the space of one copy: what is durable is given back at once.

The target grows from its first byte to its last. A stretch is copied and synced, then noted, and only
then the same stretch of the source is given back: as a hole, or, where the file system has none, the
whole source once all of it is in the target. So each byte is at every moment durable in one place, and
the note says in which. Order for a power loss: data, note, hole; each is synced before the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ggufkit.errors import AccessError, IntegrityError, NoSpaceError
from ggufkit.gguf.layout import Literal, Span
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.alone import is_at, open_part, try_lock
from ggufkit.transfer.consume_notes import BLOCK_BYTES, Consumption, alone, begin, note, remove_notes, sync
from ggufkit.transfer.copying import write_all
from ggufkit.transfer.disk import fsync_folder
from ggufkit.transfer.engine import WriteReport
from ggufkit.transfer.holes import makes_holes, punch_hole
from ggufkit.transfer.prover import Prover
from ggufkit.transfer.sources import LocalSource

FULL = (errno.ENOSPC, errno.EDQUOT)


def extra_bytes_needed(consumption: Consumption) -> int:
    """Return the free room that writing it needs; tries on a temporary file whether there are holes."""
    if makes_holes(consumption.sources[0].path.parent):
        return consumption.extra_bytes
    return consumption.extra_bytes + max(source.size_bytes for source in consumption.sources)


def consume(
    consumption: Consumption,
    progress: Progress = SILENT,
    *,
    finished: Callable[[WriteReport], None] = lambda _: None,
) -> WriteReport:
    """Write the target and remove the sources, or go on with it; one process at a time.

    The progress listener hears `advance` and `note` only; `finished` is called when the target has its
    name, before the sources are removed, and again if a kill came in between. Raises AccessError when
    another process is at it, IntegrityError when a source was changed since it was checked or the part
    file is gone, NoSpaceError when the disk is full. After each of these, and after a kill, the same
    call goes on.
    """
    began = time.monotonic()
    with alone(consumption) as slots:
        done = begin(consumption, slots)
        try:
            if _is_renamed(consumption, done):
                digests = _prove_target(consumption)
            else:
                digests = _write(consumption, slots, done, progress)
        except OSError as error:
            if error.errno in FULL:
                hint = "make room; the same command goes on from here"
                raise NoSpaceError(f"{consumption.part}: the disk is full", hint=hint) from error
            raise
        n_bytes, seconds = consumption.layout.n_bytes, time.monotonic() - began
        report = WriteReport(consumption.target, n_bytes, done, digests, seconds)
        finished(report)
        remove_sources(consumption)
    return report


def _is_renamed(consumption: Consumption, done: int) -> bool:
    """Say whether only the sources are to be removed; raises IntegrityError when the part is lost."""
    try:
        size = consumption.part.stat().st_size
    except FileNotFoundError:
        size = 0
    if done == 0 or size >= done:
        return False
    if done == consumption.layout.n_bytes and size == 0 and consumption.target.exists():
        return True
    message = f"{consumption.part}, which holds the first {done:,} bytes of the shards' data, is gone or cut"
    hint = f"pull the set again, after removing {consumption.notes}"
    raise IntegrityError(message, hint=hint)


def _prove_target(consumption: Consumption) -> dict[str, str]:
    with consumption.target.open("rb", buffering=0) as file:
        prover = Prover(file.fileno(), consumption.proofs, [(0, consumption.layout.n_bytes)])
        try:
            return prover.finish()
        finally:
            prover.stop()


def _write(consumption: Consumption, slots: int, done: int, progress: Progress) -> dict[str, str]:
    """Copy, sync, note and give back, step by step; then give the file its name."""
    n_bytes = consumption.layout.n_bytes
    fd = _open_alone(consumption, done)
    try:
        if os.fstat(fd).st_size < n_bytes:
            os.ftruncate(fd, n_bytes)  # XFS would set room aside behind a growing end
        fsync_folder(consumption.part.parent)
        prover = Prover(fd, consumption.proofs, [(0, done)])
        try:
            _copy_all(consumption, fd, slots, done, prover, progress)
            digests = prover.finish()
        finally:
            prover.stop()
    finally:
        os.close(fd)
    consumption.part.replace(consumption.target)
    fsync_folder(consumption.target.parent)
    return digests


def _open_alone(consumption: Consumption, done: int) -> int:
    """Open the part file, of which the first `done` bytes exist nowhere else; nobody else may write it.

    A merge without --consume that ran beside would copy what is a hole already over what is not.
    """
    part, n_bytes = consumption.part, consumption.layout.n_bytes
    if done:
        status = part.lstat()
        if part.is_symlink() or status.st_nlink > 1 or status.st_size > n_bytes:
            hint = "take the other name away, then run the same command again"
            raise AccessError(f"{part} has another name, or is no longer what was written", hint=hint)
    fd = open_part(part, n_bytes)
    if try_lock(fd) and is_at(fd, part):
        return fd
    os.close(fd)
    hint = "wait for it, then run the same command again"
    raise AccessError(f"another process is writing {consumption.target}", hint=hint)


def _copy_all(
    consumption: Consumption, fd: int, slots: int, done: int, prover: Prover, progress: Progress
) -> None:
    """Copy step by step; while a step is made durable and given back, the next is copied."""
    spender = _Spender(consumption)
    n_bytes, step = consumption.layout.n_bytes, consumption.step_bytes

    def settle(end: int) -> None:
        sync(fd)
        note(slots, end)
        spender.give_back(end)

    with ThreadPoolExecutor(1) as pool:
        pending: Future[None] = pool.submit(spender.give_back, done)
        pending.result()  # a full disk may wait for the room that a killed run did not give back
        while done < n_bytes:
            end = min((done // step + 1) * step, n_bytes)
            try:
                _copy_step(consumption, fd, done, end)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                pending.result()  # now there is the room of the step before
                _copy_step(consumption, fd, done, end)
            progress.advance(end - done)
            prover.wrote(done, end)
            pending.result()
            pending = pool.submit(settle, end)
            done = end
        pending.result()


def _copy_step(consumption: Consumption, fd: int, start: int, end: int) -> None:
    """Write the target's bytes from `start` to `end`."""
    for position, segment in consumption.layout.placed():
        a, b = max(start, position), min(end, position + segment.n_bytes)
        if a >= b:
            continue
        if isinstance(segment, Literal):
            write_all(fd, segment.data[a - position : b - position], a)
        else:
            source = consumption.sources[segment.source]
            source.copy_to(fd, a, segment.offset + a - position, b - a, _nothing)


def _nothing(start: int, end: int, data: memoryview | None = None) -> None:
    """Hear of no stretch: only whole steps count."""


class _Spender:
    """Gives the sources' space back, as far as they are in the target."""

    def __init__(self, consumption: Consumption) -> None:
        self.consumption = consumption
        self.holes = True
        self.given = [0] * len(consumption.sources)  # bytes from the start that are holes

    def give_back(self, done: int) -> None:
        """Give back what the first `done` bytes of the target were made of. Nothing, for 0."""
        if not done:
            return
        upto, finished = self._used(done)
        for i, source in enumerate(self.consumption.sources):
            if finished[i]:
                self._empty(i, source)
            elif self.holes and upto[i] - self.given[i] >= BLOCK_BYTES:
                self._punch(i, source, upto[i] // BLOCK_BYTES * BLOCK_BYTES)

    def _used(self, done: int) -> tuple[list[int], list[bool]]:
        """Return up to which byte each source is in the target, and whether nothing of it is missing."""
        n = len(self.consumption.sources)
        upto, finished = [0] * n, [True] * n
        for position, segment in self.consumption.layout.placed():
            if isinstance(segment, Span):
                n_used = min(max(done - position, 0), segment.n_bytes)
                upto[segment.source] = segment.offset + n_used if n_used else upto[segment.source]
                finished[segment.source] &= n_used == segment.n_bytes
        return upto, finished

    def _punch(self, i: int, source: LocalSource, end: int) -> None:
        with source.path.open("rb+", buffering=0) as file:
            self.holes = punch_hole(file.fileno(), self.given[i], end - self.given[i])
        if self.holes:
            self.given[i] = end

    def _empty(self, i: int, source: LocalSource) -> None:
        """Cut a source to nothing; its name stays, so that the set is still found."""
        if self.given[i] < source.size_bytes:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(source.path, 0)
            self.given[i] = source.size_bytes


def remove_sources(consumption: Consumption) -> None:
    """Remove the sources, which the target stands for, then the notes, and folders that are empty then."""
    folders = {source.path.parent for source in consumption.sources}
    for source in consumption.sources:
        source.path.unlink(missing_ok=True)
    for folder in folders:
        fsync_folder(folder)
    remove_notes(consumption.notes)
    for folder in folders - {consumption.target.parent}:
        with contextlib.suppress(OSError):
            folder.rmdir()
            fsync_folder(folder.parent)
