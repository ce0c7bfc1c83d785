"""What of a file that is being written is there, right after a kill and after a power loss.

Two small files per target: `durable` names ranges that were synced before they were noted, and is
believed always; `written` names ranges that were only handed to the kernel, and is believed only
within the same boot. A journal that belongs to another content than the one asked for is ignored.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ggufkit.transfer.disk import begin_writing

Range = tuple[int, int]

SAVE_EVERY_BYTES = 8 << 20
"""How much may be written between two notes, and so be written again after a kill."""
SYNC_EVERY_BYTES = 512 << 20
"""How much may be written between two syncs, and so be written again after a power loss."""
SYNC_OFTEN_BYTES = 64 << 20
"""The same where one boot can't be told from another, so that a kill is as bad as a power loss."""

_numbers = itertools.count()


class Journal:
    """The ranges of one target that are there. Not thread-safe: one writer notes."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open the journal at `path`; `identity` names the content, and must be that noted before."""
        self.path = path
        self.identity = identity
        self._durable = _Notes(path.with_name(path.name + ".durable"), identity)
        self._written = _Notes(path.with_name(path.name + ".written"), identity, boot=boot_id())
        self._synced = joined(self._durable.load())
        self.ranges = joined([*self._synced, *self._written.load()])
        self._sync_every = SYNC_EVERY_BYTES if self._written.boot else SYNC_OFTEN_BYTES
        self._since_save = self._since_sync = 0
        self._unsent: list[Range] = []
        """What the disk was not yet told to write."""

    @property
    def done_bytes(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end in self.ranges)

    def clip(self, n_bytes: int) -> None:
        """Believe nothing beyond `n_bytes`, where the file ends: somebody may have cut it."""
        self.ranges = [(a, min(b, n_bytes)) for a, b in self.ranges if a < n_bytes]
        self._synced = [(a, min(b, n_bytes)) for a, b in self._synced if a < n_bytes]

    def believe(self, ranges: Iterable[Range]) -> None:
        """Believe nothing beyond `ranges`, which were proven."""
        right = list(ranges)
        self.ranges = _common(self.ranges, right)
        self._synced = _common(self._synced, right)
        self._durable.save(self._synced, sync=True)

    def is_noted(self) -> bool:
        """Say whether this very content is noted as being written, whatever of it is there."""
        return self._written.read() is not None

    def missing(self, start: int, end: int) -> list[Range]:
        """Return the parts of `[start, end)` that are not there."""
        out, at = [], start
        for a, b in self.ranges:
            if b <= at or a >= end:
                continue
            if a > at:
                out.append((at, a))
            at = b
        return [*out, (at, end)] if at < end else out

    def add(self, start: int, end: int, fd: int) -> None:
        """Note that `[start, end)` of the open file `fd` was written; save and sync when it is time."""
        self.ranges = joined([*self.ranges, (start, end)])
        self._unsent = joined([*self._unsent, (start, end)])
        self._since_save += end - start
        self._since_sync += end - start
        if self._since_sync >= self._sync_every:
            self.sync(fd)
        elif self._since_save >= SAVE_EVERY_BYTES:
            self.save()
            for unsent in self._unsent:
                begin_writing(fd, *unsent)
            self._unsent = []

    def save(self) -> None:
        """Note what was written, to be believed within this boot."""
        self._since_save = 0
        self._written.save(self.ranges, sync=False)

    def stop(self, fd: int) -> None:
        """Note what was written up to an interruption, so that it is believed next time."""
        if self._written.boot is None:
            self.sync(fd)
        else:
            self.save()

    def sync(self, fd: int) -> None:
        """Make what was written durable, then note it as such."""
        self.flush(fd)
        self._since_save = self._since_sync = 0
        self._synced = list(self.ranges)
        self._durable.save(self.ranges, sync=True)

    def flush(self, fd: int) -> None:
        """Make what was written durable.

        If that fails only what was synced before is believed: the kernel marks pages that it could
        not write as clean and may drop them (fsync(2), NOTES).
        """
        try:
            os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
        except OSError:
            self.ranges = list(self._synced)
            self._written.remove()
            raise

    def forget(self) -> None:
        """Remove the notes, and what killed runs left of theirs: the target is complete, or begun anew."""
        self.ranges, self._synced = [], []
        with contextlib.suppress(FileNotFoundError):  # another process forgot them, folder and all
            for file in self.path.parent.glob(glob.escape(self.path.name) + ".*"):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # leave no empty folders behind
            self.path.parent.rmdir()
            self.path.parent.parent.rmdir()


class _Notes:
    """One file of ranges."""

    def __init__(self, path: Path, identity: str, *, boot: str | None = "") -> None:
        self.path = path
        self.identity = identity
        self.boot = boot

    def load(self) -> list[Range]:
        """Return the ranges noted; none when they are of another boot or content, or torn."""
        notes = self.read()
        if notes is None or self.boot is None or notes.get("boot") != self.boot:
            return []
        try:
            return [_range(*pair) for pair in notes["ranges"]]
        except (ValueError, KeyError, TypeError):
            return []  # begin anew rather than guess

    def read(self) -> dict[str, Any] | None:
        """Return the notes of this content, whatever the boot; None when there are none."""
        try:
            notes = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        mine = isinstance(notes, dict) and notes.get("identity") == self.identity
        return notes if mine else None

    def save(self, ranges: Sequence[Range], *, sync: bool) -> None:
        text = json.dumps({"identity": self.identity, "boot": self.boot, "ranges": ranges})
        try:
            self._write(text.encode(), sync)
        except FileNotFoundError:  # another process, done with the folder's last target, removed the folder
            self._write(text.encode(), sync)

    def _write(self, data: bytes, sync: bool) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}-{next(_numbers)}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _range(start: object, end: object) -> Range:
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise ValueError(f"no range: {start!r}, {end!r}")
    return start, end


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges sorted, with those that touch or overlap made one."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def cut_out(ranges: Iterable[Range], start: int, end: int) -> list[Range]:
    """Return the ranges without `[start, end)`."""
    parts = [part for a, b in ranges for part in ((a, min(b, start)), (max(a, end), b))]
    return [(a, b) for a, b in parts if a < b]


def _common(some: Iterable[Range], others: Sequence[Range]) -> list[Range]:
    """Return what is in both."""
    both = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return joined((start, end) for start, end in both if start < end)


def boot_id() -> str | None:
    """Return what tells this boot of the machine from another, or None when that can't be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # Linux, random(4)
    except OSError:
        return None
