"""Folders compared: all that is in them, as values."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return what is below `folder`: kind, mode, owner and content of everything, by relative path."""
    return {path.relative_to(folder).as_posix(): _facts(path) for path in sorted(folder.rglob("*"))}


def _facts(path: Path) -> tuple[str, ...]:
    status = path.lstat()
    mode = f"{stat.filemode(status.st_mode)} {status.st_uid}"
    if path.is_symlink():
        return (mode, str(path.readlink()))
    if path.is_dir():
        return (mode,)
    return (mode, str(status.st_nlink), hashlib.sha256(path.read_bytes()).hexdigest())


def disk_bytes(folder: Path) -> int:
    """Return the bytes that a folder takes by itself: files with a further name elsewhere don't count."""
    total, names = 0, dict[tuple[int, int], int]()
    for path in folder.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino)
            names[key] = names.get(key, 0) + 1
            if names[key] == status.st_nlink:
                total += status.st_blocks * 512
    return total
