"""One writer per file, where locks work; and what to ask where they don't.

The lock is the kernel's (flock), so that it goes with the process that held it, however that ended.
Some network file systems and Windows have none: there two writers write the same bytes to the same
places, and `is_at` keeps each from publishing what it did not write.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def open_part(path: Path, n_bytes: int) -> int:
    """Open `path`, made if need be, to be written in place; what can't become `n_bytes` is taken away first.

    That is a longer file (we never cut one), a link, and a file that has a second name.
    """
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if path.is_symlink() or status.st_nlink > 1 or status.st_size > n_bytes:
            path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file; False when another process has it. Without locks it is always had."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def is_at(fd: int, path: Path) -> bool:
    """Say whether the open file `fd` is the one that is called `path` now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
