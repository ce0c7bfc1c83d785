"""Giving a file's space back while the file stays: holes, where the file system has them."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_KEEP_SIZE = 0x01  # linux/falloc.h FALLOC_FL_KEEP_SIZE
_PUNCH_HOLE = 0x02  # linux/falloc.h FALLOC_FL_PUNCH_HOLE
_CANNOT = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENODEV}
"""How fallocate(2) says that this file system, or this kernel, makes no holes."""
_PROBE_BYTES = 1 << 20


def punch_hole(fd: int, offset: int, n_bytes: int) -> bool:
    """Give the blocks of a range of the open file back; it reads as zeros then. False where that can't be.

    The file keeps its length. Blocks that lie in the range only in part are zeroed there and kept.
    """
    fallocate = _fallocate()
    if fallocate is None:
        return False
    while fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, n_bytes):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def makes_holes(folder: Path) -> bool:
    """Say whether a file in `folder` gives space back by a hole, by trying it on a temporary one."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(os.urandom(_PROBE_BYTES))  # zeros may be stored as a hole anyway
        os.fsync(file.fileno())
        before = os.fstat(file.fileno()).st_blocks if hasattr(os.stat_result, "st_blocks") else 0
        if not punch_hole(file.fileno(), 0, _PROBE_BYTES // 2):
            return False
        return os.fstat(file.fileno()).st_blocks < before


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """Return the C library's fallocate(2); Python has only posix_fallocate, which can't punch."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    name = "fallocate64" if hasattr(library, "fallocate64") else "fallocate"
    function = getattr(library, name, None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return function  # type: ignore[no-any-return]
