"""Copying a range of one open file into another, by the cheapest way that the system allows."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from ggufkit.errors import IntegrityError

CHUNK_BYTES = 8 << 20  # in the kernel: small enough for progress and Ctrl-C, large enough to cost nothing
BUFFER_BYTES = 1 << 20  # through this process: larger buffers cost twice the CPU (cache misses)

# What "this way is not to be had here" looks like: copy_file_range(2), section ERRORS.
_NO_KERNEL_COPY = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}

_moving = threading.Lock()
"""Held while a file's own position is used, where the system reads and writes at no other."""

CopyStep = Callable[[int, int, int, int, int], int]
"""(source, offset, target, at, n_bytes) -> bytes copied, 0 at the source's end."""


class SourceEnded(IntegrityError):
    """A source has fewer bytes than it had when it was looked at."""


def copy_range(
    source: int, offset: int, target: int, at: int, n_bytes: int, wrote: Callable[[int, int], None]
) -> None:
    """Copy `n_bytes` at `offset` of the open file `source` to `at` of the open file `target`.

    `wrote(start, end)` is called for each stretch of the target. Raises SourceEnded when the source ends
    early (it was cut while we read it).
    """
    step: CopyStep = _in_kernel if hasattr(os, "copy_file_range") else _through_process
    done = 0
    while done < n_bytes:
        try:
            n = step(source, offset + done, target, at + done, n_bytes - done)
        except OSError as error:
            if step is not _in_kernel or error.errno not in _NO_KERNEL_COPY:
                raise
            step = _through_process
            continue
        if n == 0:
            if step is _in_kernel:  # some file systems answer 0 for what they can't do
                step = _through_process
                continue
            raise SourceEnded(f"ended {n_bytes - done:,} bytes early: was it changed meanwhile?")
        wrote(at + done, at + done + n)
        done += n


def _in_kernel(source: int, offset: int, target: int, at: int, n_bytes: int) -> int:
    return os.copy_file_range(source, target, min(n_bytes, CHUNK_BYTES), offset, at)


def _through_process(source: int, offset: int, target: int, at: int, n_bytes: int) -> int:
    data = read_at(source, min(n_bytes, BUFFER_BYTES), offset)
    write_all(target, data, at)
    return len(data)


def read_at(fd: int, n_bytes: int, at: int) -> bytes:
    """Read at most `n_bytes` at offset `at` of the open file `fd`; nothing at its end."""
    if hasattr(os, "pread"):
        return os.pread(fd, n_bytes, at)
    with _moving:
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, n_bytes)


def write_all(target: int, data: bytes | memoryview, at: int) -> None:
    """Write all of `data` at offset `at` of the open file `target`."""
    view = memoryview(data)
    while view:
        n = _write_at(target, view, at)
        view, at = view[n:], at + n


def _write_at(fd: int, data: memoryview, at: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, at)
    with _moving:
        os.lseek(fd, at, os.SEEK_SET)
        return os.write(fd, data)
