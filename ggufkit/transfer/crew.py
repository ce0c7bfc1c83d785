"""Several streams that fetch one range, from one source or several: who works, rests, and is left."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ggufkit.errors import GgufkitError, NetworkError
from ggufkit.progress import Progress
from ggufkit.transfer.copying import Buffers
from ggufkit.transfer.journal import joined
from ggufkit.transfer.sources import MAX_FAILURES, HubSource, Wrote
from ggufkit.transfer.stream import READ_BYTES, Stream, StreamError
from ggufkit.transfer.stretches import Stretch, Stretches
from ggufkit.transfer.tally import Standing

MAX_FAILURES_BESIDE_OTHERS = 3
"""How many tries in a row may bring nothing where another source can serve meanwhile."""
SLOW_PART = 0.1
"""A source whose streams are slower than this part of the fastest one's ..."""
SLOW_S = 5.0
"""... for so long is left: its connections serve better elsewhere."""
ENOUGH_BYTES_PER_S = 200e6
"""What one source brings at most before one more stream of it would only cost: 2 Gbit/s and more."""
TRY_S = 0.1
"""How long the first stream of a source that nobody knows may show what it brings."""
LOOK_S = 1.0
"""How often the speeds are compared."""
MAX_UNHEARD = 16
"""How many blocks are kept in memory while the thread that hears of them is busy: with a sync, perhaps."""
STOP_S = 1.0
"""How long streams have to end after they were cut."""
_POLL_S = 0.1

Put = Callable[[memoryview, int], None]
"""Writes bytes at their offset in the source; called from any thread."""
_Result = tuple[int, int, memoryview | None]


@dataclass(slots=True, eq=False)
class Member:
    """One source among several."""

    source: HubSource
    """Opens its streams."""
    standing: Standing
    """How it is doing."""
    n_streams: int = 0
    """How many streams of it are at work."""
    refusal: GgufkitError | None = None
    """Why it does not serve this file at all."""
    counted_bytes: int = 0
    """What it had brought when the speeds were compared last."""
    slow_s: float = 0.0
    """For how long it has been slow."""
    ignores_ranges: bool = False
    """Whether it begins at the file's begin whatever is asked for: one stream of it is enough."""
    brought: list[tuple[int, int]] = field(default_factory=list)
    """The ranges of the file that came from it."""
    suspected_at: int | None = None
    """The turn of mending at which what it brought was found to differ."""

    @property
    def is_out(self) -> bool:
        """Whether it will not be asked again for this file."""
        return self.refusal is not None or self.standing.lies


@dataclass(slots=True, eq=False)
class _Task:
    """What one thread is at."""

    member: Member
    stretch: Stretch
    thread: int
    began_s: float
    is_streaming: bool = False


class Crew:
    """Threads that bring one range, for the time of one `fetch`."""

    def __init__(self, members: Sequence[Member], connections: int, progress: Progress) -> None:
        """Begin with members in the order of preference."""
        self._members = members
        self._connections = connections
        self._progress = progress
        self._changed = threading.Condition()
        self._tasks: list[_Task] = []
        self._results: queue.SimpleQueue[_Result | BaseException] = queue.SimpleQueue()
        self._is_over = False
        self._threads: list[threading.Thread] = []
        self._looked_s = 0.0
        self._is_deaf = False

    def fetch(self, start: int, end: int, put: Put, told: Wrote) -> None:
        """Bring `[start, end)`: `put` writes, and `told` hears in this thread what was written.

        Raises what `put` or `told` raise, and the sources' error when all of them failed in a row.
        """
        self._stretches, self._put = Stretches(start, end), put
        self._looked_s = time.monotonic()
        if all(m.standing.why is not None or m.is_out for m in self._members):
            for member in self._members:
                member.standing.come_back()  # a new range, a new try
        n_threads = max(1, min(self._connections, (end - start) // READ_BYTES))
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(n_threads)]
        try:
            for thread in self._threads:
                thread.start()
            left = end - start
            while left:
                left -= self._hear(told)
                self._compare_speeds()
        finally:
            self._stop()
            while not self._is_deaf and not self._results.empty():
                self._hear(told)  # what was written is told, whatever else went wrong

    def _hear(self, told: Wrote) -> int:
        """Wait a moment for the next stretch that was written; returns its length."""
        try:
            result = self._results.get(timeout=_POLL_S)  # with a limit, so that Ctrl-C is heard everywhere
        except queue.Empty:
            return 0
        if isinstance(result, BaseException):
            if self._is_over:
                return 0  # one error was raised already
            raise result
        self._is_deaf = True
        told(*result)
        self._is_deaf = False
        return result[1] - result[0]

    def _stop(self) -> None:
        """End all threads, whatever they wait for."""
        until_s = time.monotonic() + STOP_S
        while any(t.is_alive() for t in self._threads) and time.monotonic() < until_s:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
                for task in self._tasks:
                    _cut(task)
            for thread in self._threads:
                thread.join(0.02)

    # ---- the threads ----

    def _work(self) -> None:
        from ggufkit.transfer.sockets import let_go

        buffers = Buffers(READ_BYTES)
        try:
            while (task := self._next()) is not None:
                try:
                    self._bring(task, buffers)
                except NetworkError as error:
                    self._failed(task, error)
                except GgufkitError as error:  # refused or not there: others may have it
                    self._refused(task, error)
                finally:
                    self._end(task)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for us
            self._results.put(error)
        finally:
            let_go()

    def _next(self) -> _Task | None:
        """Wait for work; None when there is no more."""
        with self._changed:
            while not self._is_over and not self._stretches.is_done:
                now_s = time.monotonic()
                member = self._pick(now_s)
                if member is not None:
                    standing = member.standing
                    stretch = self._stretches.take(standing.bytes_per_s, standing.open_s, now_s)
                    if stretch is not None:
                        member.n_streams += 1
                        task = _Task(member, stretch, threading.get_ident(), now_s)
                        self._tasks.append(task)
                        return task
                self._changed.wait(_POLL_S)
        return None

    def _pick(self, now_s: float) -> Member | None:
        """Return the source that should get one more stream; None when all of them rest."""
        there = [m for m in self._members if not m.is_out]
        for member in there:
            if member.standing.why is not None and now_s >= member.standing.free_s:
                member.standing.come_back()
        free = [m for m in there if now_s >= m.standing.free_s]
        wanting = [m for m in free if not m.n_streams or self._gains_by_one_more(m, now_s)]
        if wanting:
            return min(wanting, key=lambda m: m.n_streams)
        if not any(m.standing.why is None for m in there):
            self._call_back(there)
        return None

    def _gains_by_one_more(self, member: Member, now_s: float) -> bool:
        """Say whether a source may bring more by another stream, as far as its present ones tell."""
        if member.ignores_ranges:
            return False
        known = member.standing.bytes_per_s or math.inf
        stretches = [task.stretch for task in self._tasks if task.member is member]
        speeds = (s.bytes_per_s(now_s) if now_s - s.began_s > TRY_S else known for s in stretches)
        return sum(speeds) < ENOUGH_BYTES_PER_S

    def _call_back(self, there: list[Member]) -> None:
        """All are left: ask again those that were left before the last byte came, or give up."""
        again = [m for m in there if m.standing.left_at_bytes != self._came_bytes()]
        for member in again:
            member.standing.come_back()
        if not again:
            self._results.put(_all_failed(self._members))

    def _bring(self, task: _Task, buffers: Buffers) -> None:
        """Stream one stretch, up to where it ends by then."""
        began_s = time.monotonic()
        stream = task.member.source.open(task.stretch.at, task.stretch.end)
        try:
            with self._changed:
                task.member.standing.answered(time.monotonic() - began_s)
            if stream.is_whole and not self._may_go_on_alone(task):
                return
            while (left := task.stretch.end - task.stretch.at) > 0 and not self._is_over:
                self._pass_on(task, stream, buffers.take()[:left])
        finally:
            stream.close()

    def _may_go_on_alone(self, task: _Task) -> bool:
        """Let the one stream of a source that ignores ranges go on to the end of what is to be done."""
        with self._changed:
            task.member.ignores_ranges = True
            if any(t.member is task.member for t in self._tasks if t is not task and t.is_streaming):
                return False
            task.is_streaming = True
            self._stretches.widen(task.stretch)
            return True

    def _came_bytes(self) -> int:
        return sum(m.standing.served_bytes for m in self._members)

    def _pass_on(self, task: _Task, stream: Stream, buffer: memoryview) -> None:
        n_bytes = stream.read_into(buffer)
        if not n_bytes:
            raise StreamError("the server ended the file early")
        with self._changed:
            at = task.stretch.at
            n_bytes = self._stretches.claim(task.stretch, n_bytes, time.monotonic())
            task.member.standing.came(n_bytes)
        if n_bytes:
            self._put(buffer[:n_bytes], at)
            is_heard = self._results.qsize() < MAX_UNHEARD
            self._results.put((at, at + n_bytes, buffer[:n_bytes] if is_heard else None))

    def _end(self, task: _Task) -> None:
        stretch = task.stretch
        with self._changed:
            self._tasks.remove(task)
            task.member.n_streams -= 1
            if stretch.at > stretch.start:
                task.member.brought = joined([*task.member.brought, (stretch.start, stretch.at)])
                task.member.standing.measured(stretch.at - stretch.start, time.monotonic() - task.began_s)
            self._stretches.close(stretch)
            self._changed.notify_all()

    # ---- failures ----

    def _failed(self, task: _Task, error: NetworkError) -> None:
        """Rest, or leave the source when its patience is used up."""
        with self._changed:
            member, standing = task.member, task.member.standing
            if self._is_over or standing.why is not None:
                return  # cut by ourselves, or told already
            if not isinstance(error, StreamError):
                self._leave(member, error)
                return
            failures = standing.failures
            wait_s = standing.failed(error, max(task.began_s, task.stretch.heard_s))
            allowed = MAX_FAILURES_BESIDE_OTHERS if self._others(member) else MAX_FAILURES
            if standing.failures >= allowed:
                tried = f"{error.message}, {standing.failures} times in a row"
                self._leave(member, NetworkError(tried))
            elif standing.failures > failures and wait_s:
                again = f"again in {wait_s:g} s ({standing.failures} of {allowed})"
                self._progress.note(f"{member.source.name}: {error.message}; {again}")

    def _refused(self, task: _Task, error: GgufkitError) -> None:
        with self._changed:
            if task.member.refusal is None:
                task.member.refusal = error
                self._tell_left(task.member, error)
            if all(m.is_out for m in self._members):
                self._results.put(_all_failed(self._members))

    def _others(self, member: Member) -> bool:
        return any(m is not member and not m.is_out and m.standing.why is None for m in self._members)

    def _leave(self, member: Member, why: GgufkitError) -> None:
        """Leave a source for a while: its streams end, others take over what they had to bring."""
        self._tell_left(member, why)
        member.standing.leave(why, self._came_bytes())
        for task in self._tasks:
            if task.member is member:
                self._stretches.close(task.stretch)
                _cut(task)
        self._changed.notify_all()

    def _tell_left(self, member: Member, why: GgufkitError) -> None:
        if self._others(member):
            self._progress.note(f"{_told(member, why)}; going on without it")

    def _compare_speeds(self) -> None:
        """Leave a source that is much slower than another one and stays so."""
        now_s = time.monotonic()
        seconds = now_s - self._looked_s
        if len(self._members) < 2 or seconds < LOOK_S:
            return
        self._looked_s = now_s
        with self._changed:
            speeds = {}
            for member in self._members:
                if member.n_streams and member.standing.why is None:
                    came = member.standing.served_bytes - member.counted_bytes
                    speeds[member] = came / seconds / member.n_streams
                member.counted_bytes = member.standing.served_bytes
            # one that has nothing to do any more is known to be faster by what it did
            idle = [m.standing.bytes_per_s for m in self._members if self._is_idle(m)]
            for member, speed in speeds.items():
                is_slow = speed < SLOW_PART * max([*speeds.values(), *idle])
                member.slow_s = member.slow_s + seconds if is_slow else 0.0
                if member.slow_s >= SLOW_S:
                    member.slow_s = 0.0
                    self._leave(member, NetworkError(_slowness(speed)))

    @staticmethod
    def _is_idle(member: Member) -> bool:
        return not member.n_streams and not member.is_out and member.standing.why is None


def _slowness(bytes_per_s: float) -> str:
    if not bytes_per_s:
        return f"no byte for {SLOW_S:g} s"
    return f"only {bytes_per_s / 2**20:.1f} MiB/s a connection"


def _cut(task: _Task) -> None:
    from ggufkit.transfer.sockets import cut

    cut(task.thread)


def _told(member: Member, why: GgufkitError) -> str:
    """Say why a source was left, and which, once."""
    label = member.standing.label
    return why.message if label in why.message else f"{label}: {why.message}"


def _all_failed(members: Sequence[Member]) -> GgufkitError:
    """Return the one error that says why nobody serves."""
    reasons = [(m, m.refusal or m.standing.why) for m in members]
    if len(reasons) == 1 and reasons[0][1] is not None and not isinstance(reasons[0][1], NetworkError):
        return reasons[0][1]
    told = [_told(m, why) for m, why in reasons if why is not None]
    if len(reasons) == 1 and reasons[0][1] is not None:
        told = [reasons[0][1].message]
    refusals = [m.refusal for m in members if m.refusal is not None]
    if len(refusals) == len(members):
        return type(refusals[0])("; ".join(told), hint=refusals[0].hint)
    hints = [why.hint for _, why in reasons if why is not None and why.hint]
    hint = hints[0] if hints else "run the same command again: it goes on from here"
    return NetworkError(f"{members[0].source.name}: {'; '.join(told)}", hint=hint)
