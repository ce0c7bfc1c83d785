"""How fast memory really is: several threads read more than the caches hold. Opens no file.

Bytes of all threads divided by the time on the wall, the best of five rounds; a sum of each thread's own best
would count bandwidth that never was there at once. libc's memchr reads as fast as memory answers, and ctypes
lets go of the interpreter's lock meanwhile.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ggufkit.errors import ToolError

N_ROUNDS = 5
MIN_BYTES, L3_MULTIPLE = 256 << 20, 4
MAX_SPREAD = 0.15  # more than this between the rounds, and something else was using the memory
FREE_PART = 4  # a quarter of what is free is taken at most

Action = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What reading memory yields."""

    bytes_per_s: float
    """The best round."""
    spread: float
    """How much slower the slowest round was, as a share of the best."""
    n_threads: int
    """Threads that read."""
    set_bytes: int
    """Bytes that were read in a round."""

    @property
    def noisy(self) -> bool:
        """Return whether the rounds differ too much to be used."""
        return self.spread > MAX_SPREAD


def measured_set_bytes(l3_bytes: int | None, available_bytes: int | None) -> int:
    """Return how many bytes to read: enough to miss the caches; raises ToolError when memory is too full."""
    needed = max(MIN_BYTES, L3_MULTIPLE * (l3_bytes or 0))
    if available_bytes is not None and needed > available_bytes // FREE_PART:
        raise ToolError(f"measuring takes {needed >> 20} MiB, which is too much of the memory that is free")
    return needed


def measure_bandwidth(n_threads: int, set_bytes: int) -> Bandwidth:
    """Read `set_bytes` with `n_threads` (physical cores) five times; raises ToolError without a libc."""
    fill, search = _libc()
    part = set_bytes // n_threads // mmap.PAGESIZE * mmap.PAGESIZE
    memory = ctypes.c_char.from_buffer(mmap.mmap(-1, part * n_threads))
    seconds = _rounds(memory, [i * part for i in range(n_threads)], part, fill, search)
    best, worst = min(seconds), max(seconds)
    return Bandwidth(part * n_threads / best, 1 - best / worst, n_threads, part * n_threads)


def _libc() -> tuple[Action, Action]:
    """Return a function that writes, and one that reads, `(address, n_bytes)`."""
    try:
        libc = ctypes.CDLL(None)
        memset, memchr = libc.memset, libc.memchr
    except (OSError, TypeError, AttributeError) as error:
        raise ToolError("bandwidth is measured with the C library, which was not found") from error
    memset.argtypes = memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    memset.restype = memchr.restype = ctypes.c_void_p

    def fill(address: int, n_bytes: int) -> None:
        memset(address, 1, n_bytes)

    def search(address: int, n_bytes: int) -> None:
        memchr(address, 0, n_bytes)  # is not there, so all is read

    return fill, search


def _rounds(
    memory: ctypes.c_char, starts: list[int], n_bytes: int, fill: Action, search: Action
) -> list[float]:
    """Return the seconds of each round, in which every thread reads its part once.

    Each thread first writes its part, so that on machines with several nodes it lies beside it. The threads
    hold on to `memory`: it is not unmapped below them when this thread is interrupted.
    """
    barrier = threading.Barrier(len(starts) + 1)

    def work(start: int) -> None:
        address = ctypes.addressof(memory) + start
        fill(address, n_bytes)
        search(address, n_bytes)
        for _ in range(N_ROUNDS):
            barrier.wait()
            search(address, n_bytes)
            barrier.wait()

    threads = [threading.Thread(target=work, args=(start,), daemon=True) for start in starts]
    for thread in threads:
        thread.start()
    seconds = []
    for _ in range(N_ROUNDS):
        barrier.wait()
        begin = time.perf_counter()
        barrier.wait()
        seconds.append(time.perf_counter() - begin)
    for thread in threads:
        thread.join()
    return seconds
