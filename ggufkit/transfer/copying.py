"""Copying a range of one open file into another, by the cheapest way that the system allows."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable

from ggufkit.errors import IntegrityError

CHUNK_BYTES = 8 << 20  # in the kernel: small enough for progress and Ctrl-C, large enough to cost nothing
BUFFER_BYTES = 1 << 20  # through this process: larger buffers cost twice the CPU (cache misses)

LENT_BYTES = 256 << 10  # the same, for what a digest is taken of right behind

# What "this way is not to be had here" looks like: copy_file_range(2), section ERRORS.
_NO_KERNEL_COPY = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}

_moving = threading.Lock()
"""Held while a file's own position is used, where the system reads and writes at no other."""

CopyStep = Callable[[int, int, int, int, int], int]
"""(source, offset, target, at, n_bytes) -> bytes copied, 0 at the source's end."""
Lending = Callable[[int, int, memoryview], None]
"""(start, end, data) of a stretch of the target that was written; the data are not changed any more."""


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


def copy_lending(source: int, offset: int, target: int, at: int, n_bytes: int, wrote: Lending) -> None:
    """Copy as `copy_range` does, but through memory: `wrote(start, end, data)` has the bytes, to keep.

    Costs less than reading the target again for a digest.
    """
    buffers = Buffers(LENT_BYTES)
    end = at + n_bytes
    while at < end:
        buffer = buffers.take()[: end - at]
        n = _read_into(source, buffer, offset)
        if n == 0:
            raise SourceEnded(f"ended {end - at:,} bytes early: was it changed meanwhile?")
        write_all(target, buffer[:n], at)
        wrote(at, at + n, buffer[:n])
        at, offset = at + n, offset + n


def _read_into(source: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(source, [buffer], offset)
    data = read_at(source, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


class Buffers:
    """Buffers of one size for one thread, used again when nobody looks at them any more."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._all: deque[bytearray] = deque()

    def take(self) -> memoryview:
        """Return a buffer that is looked at by nobody else; its content is anything."""
        if self._all and _is_free(self._all[0]):
            self._all.rotate(-1)
        else:
            self._all.append(bytearray(self._size_bytes))
        return memoryview(self._all[-1])[: self._size_bytes]


def _is_free(buffer: bytearray) -> bool:
    """Say whether no memoryview of it is left: a bytearray can't grow while there is one."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


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
