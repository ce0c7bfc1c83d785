"""What an import is about to make in another program's folder, noted, so that the next one can clean up.

An import that fails takes back what it did. One that is killed can't: its note stays in the staging folder,
unlocked by the kernel, and says what to remove.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ggufkit.transfer import alone

SUFFIX = ".note"
HALF_WRITTEN = ".ggufkit-*.tmp"
"""What copies and small files are called until they are whole (transfer/disk.py)."""
LOCKLESS_S = 86400.0
"""Where there are no locks, a note of this age belongs to nobody any more."""


class Note:
    """The note of one import, locked as long as it runs."""

    def __init__(self, folder: Path) -> None:
        """Begin a note in the staging folder, which must exist."""
        self._fd, name = tempfile.mkstemp(dir=folder, prefix=".ggufkit-", suffix=".tmp")
        alone.try_lock(self._fd)
        self._path = Path(name).with_suffix(SUFFIX)
        Path(name).rename(self._path)  # seen by others only when it is locked

    def will_make(self, path: Path) -> None:
        """Write down a file or folder before it is made; durable when this returns."""
        os.write(self._fd, json.dumps(str(path)).encode() + b"\n")
        os.fsync(self._fd)

    def close(self) -> None:
        """Remove the note: all is done, or taken back."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)


def sweep(folder: Path, within: Path, unless: Callable[[Path], bool]) -> tuple[Path, ...]:
    """Remove what killed imports left in and by way of the staging folder; return what was removed.

    Only what lies below `within` and is not used, by the word of `unless`.
    """
    removed: list[Path] = []
    alive = False
    for note in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(OSError):
            fd = os.open(note, os.O_RDWR)
            try:
                if _is_dead(fd):
                    removed += _remove(note, within, unless)
                else:
                    alive = True
            finally:
                os.close(fd)
    if not alive:
        removed += _remove_half_written(folder)
    with contextlib.suppress(OSError):  # not there, or in use
        folder.rmdir()
    return tuple(removed)


def leftovers(folder: Path) -> tuple[Path, ...]:
    """Return what killed imports left in the staging folder; reads only."""
    return (*sorted(folder.glob(f"*{SUFFIX}")), *sorted(folder.glob(HALF_WRITTEN)))


def _is_dead(fd: int) -> bool:
    if os.name == "nt":  # no locks there (transfer/alone.py)
        return time.time() - os.fstat(fd).st_mtime > LOCKLESS_S
    return alone.try_lock(fd)


def _remove(note: Path, within: Path, unless: Callable[[Path], bool]) -> list[Path]:
    removed = []
    for path in reversed(_noted(note)):
        if not path.is_relative_to(within) or ".." in path.parts or unless(path):
            continue
        with contextlib.suppress(OSError):  # gone, or a folder that others use
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            removed.append(path)
    note.unlink()
    return removed


def _noted(note: Path) -> list[Path]:
    """Return what a note names; a line that is cut off was not acted on."""
    paths = []
    for line in note.read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            paths.append(Path(json.loads(line)))
    return paths


def _remove_half_written(folder: Path) -> list[Path]:
    removed = []
    for path in folder.glob(HALF_WRITTEN):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed
