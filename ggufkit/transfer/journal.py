"""What of a file that is being written is there, right after a kill and after a power loss.

Two small files per target: `durable` names ranges that were synced before they were noted, and is
believed always; `written` names ranges that were only handed to the kernel, and is believed only
within the same boot. A journal that belongs to another content than the one asked for is ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

Range = tuple[int, int]

SAVE_EVERY_BYTES = 8 << 20
"""How much may be written between two notes, and so be written again after a kill."""
SYNC_EVERY_BYTES = 512 << 20
"""How much may be written between two syncs, and so be written again after a power loss."""


class Journal:
    """The ranges of one target that are there. Not thread-safe: one writer notes."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open the journal at `path`; `identity` names the content, and must be that noted before."""
        self.path = path
        self.identity = identity
        self._durable = _Notes(path.with_name(path.name + ".durable"), identity)
        self._written = _Notes(path.with_name(path.name + ".written"), identity, boot=boot_id())
        durable = self._durable.load()
        self.ranges = joined([*durable, *self._written.load()])
        self._since_save = self._since_sync = 0

    @property
    def done_bytes(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end in self.ranges)

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
        self._since_save += end - start
        self._since_sync += end - start
        if self._since_sync >= SYNC_EVERY_BYTES:
            self.sync(fd)
        elif self._since_save >= SAVE_EVERY_BYTES:
            self.save()

    def save(self) -> None:
        """Note what was written, to be believed within this boot."""
        self._since_save = 0
        self._written.save(self.ranges, sync=False)

    def sync(self, fd: int) -> None:
        """Make what was written durable, then note it as such."""
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
        self._since_save = self._since_sync = 0
        self._durable.save(self.ranges, sync=True)

    def forget(self) -> None:
        """Remove the notes: the target is complete, or to be begun anew."""
        self.ranges = []
        self._written.remove()
        self._durable.remove()
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
        try:
            notes = json.loads(self.path.read_bytes())
            if self.boot is None or notes["identity"] != self.identity or notes["boot"] != self.boot:
                return []
            return [(int(a), int(b)) for a, b in notes["ranges"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # no notes, or torn ones: begin anew rather than guess

    def save(self, ranges: Sequence[Range], *, sync: bool) -> None:
        notes = {"identity": self.identity, "boot": self.boot, "ranges": ranges}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(json.dumps(notes).encode())
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(self.path)

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges sorted, with those that touch or overlap made one."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


def boot_id() -> str | None:
    """Return what tells this boot of the machine from another, or None when that can't be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # Linux, random(4)
    except OSError:
        return None
