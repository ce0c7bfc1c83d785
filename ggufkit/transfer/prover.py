"""Proving digests of a file while it is written.

A proof reads what is in the target behind the writer, whatever order the bytes came in and whichever
process wrote them. Those that come in order are lent to it as they are written, and need no reading.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ggufkit.errors import IntegrityError
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.journal import Range, joined

BLOCK_BYTES = 256 << 10  # larger ones miss the cache, and there is one per proof
MAX_LENT_BYTES = 4 << 20
"""How much may wait in memory for one proof: then the writer waits too."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of another file, which are not in the target: a shard's own header."""

    path: Path
    """The file."""
    start: int
    """First byte."""
    end: int
    """After the last byte."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A digest to be taken of ranges of the target and of other files, in order."""

    name: str
    """What the digest is of, for messages: a shard, the merged file."""
    pieces: tuple[FileRange | Range, ...]
    """What is hashed: a range of another file, or `(start, end)` in the target."""
    expected: str | None
    """The SHA-256 that must come out, bare hex; None to take it only."""


class Hash(Protocol):
    """A SHA-256 that is being taken."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Hash `data` too."""

    def hexdigest(self) -> str:
        """Return the digest of all that was hashed."""


class _Lane:
    """Proofs of stretches that lie apart, so that one thread can take them one after the other."""

    def __init__(self, lock: threading.Lock) -> None:
        self.proofs: list[Proof] = []
        self.ready = threading.Condition(lock)
        self.tip = -1
        """The first byte of the target that was neither lent nor read; -1 while nothing of it is wanted."""
        self.range: Range = (-1, -1)
        """What is being hashed of the target."""
        self.lent: deque[memoryview] = deque()
        """What was written up to the tip, and is still to be hashed."""

    def has_room_for(self, proof: Proof) -> bool:
        """Say whether nothing of the target that `proof` reads is read in this lane."""
        taken = [piece for p in self.proofs for piece in _ranges_of(p)]
        return not any(a < d and c < b for a, b in _ranges_of(proof) for c, d in taken)

    def expect(self, piece: FileRange | Range) -> None:
        """Begin with a range of the target, unless it was begun with."""
        if not isinstance(piece, FileRange) and piece != self.range:
            self.range, self.tip = piece, piece[0]

    def lend(self, start: int, data: memoryview) -> None:
        """Take what was written at `start`, if it is what comes next."""
        if start == self.tip and start + len(data) <= self.range[1]:
            self.lent.append(data)
            self.tip += len(data)

    @property
    def is_full(self) -> bool:
        """Whether no more should be lent before some of it is hashed."""
        return sum(map(len, self.lent)) > MAX_LENT_BYTES


class Prover:
    """Hashes along with the writer: a thread for the whole file, another one for its parts in turn."""

    def __init__(
        self,
        fd: int,
        proofs: tuple[Proof, ...],
        written: list[Range],
        hasher: Callable[[Proof], Hash] = lambda _proof: hashlib.sha256(),
    ) -> None:
        """Begin proofs over the open file `fd`, of which the ranges `written` are there already.

        `hasher` makes each proof's hash, which may note what it comes to on the way.
        """
        self._fd = fd
        self._hasher = hasher
        self._ranges = joined(written)
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._stopped = False
        self._errors: list[BaseException] = []
        self.digests: dict[str, str] = {}
        self._proofs = proofs
        self._lanes = self._shared(proofs)
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in self._lanes
        ]
        for lane in self._lanes:
            for piece in lane.proofs[0].pieces[:1]:
                lane.expect(piece)  # what is written first may come before the thread runs
        for thread in self._threads:
            thread.start()

    def wrote(self, start: int, end: int, data: memoryview | None = None) -> None:
        """Say that `[start, end)` is there; raises what a proof found in the meantime.

        `data` are these bytes, where the caller has them and changes them no more. Waits while more of
        them are there than can be hashed.
        """
        with self._lock:
            self._ranges = joined([*self._ranges, (start, end)])
            for lane in self._lanes:
                if data is not None:
                    lane.lend(start, data)
                if lane.lent or self._there_until(lane.tip) > lane.tip:
                    lane.ready.notify()
            while any(lane.is_full for lane in self._lanes) and not (self._errors or self._stopped):
                self._drained.wait(0.2)
        self._raise()

    def finish(self) -> dict[str, str]:
        """Wait for all proofs; returns their digests by name, or raises IntegrityError."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)  # a join without a limit would not hear Ctrl-C everywhere
        self._raise()
        if len(self.digests) < len(self._proofs):
            raise IntegrityError("a digest could not be taken")  # its thread died: no digest is no proof
        return self.digests

    def proven(self) -> list[Range]:
        """Return the ranges of the target whose published digests have come out right so far."""
        right = [p for p in self._proofs if p.expected and self.digests.get(p.name) == p.expected]
        return joined(piece for p in right for piece in _ranges_of(p))

    def stop(self) -> None:
        """Give up all proofs."""
        with self._lock:
            self._stopped = True
            for lane in self._lanes:
                lane.ready.notify()
        for thread in self._threads:
            thread.join()

    def _shared(self, proofs: tuple[Proof, ...]) -> list[_Lane]:
        """Share the proofs out: those of a merged file's shards follow each other as they arrive."""
        lanes: list[_Lane] = []
        for proof in proofs:
            lane = next((lane for lane in lanes if lane.has_room_for(proof)), None)
            if lane is None:
                lanes.append(lane := _Lane(self._lock))
            lane.proofs.append(proof)
        return lanes

    def _there_until(self, start: int) -> int:
        """Return up to where the target is there from `start` on."""
        return next((b for a, b in self._ranges if a <= start < b), start)

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _run(self, lane: _Lane) -> None:
        try:
            for proof in lane.proofs:
                self._prove(proof, lane)
        except (OSError, IntegrityError) as error:
            self._errors.append(error)
        finally:
            with self._lock:
                lane.range, lane.tip = (-1, -1), -1
                lane.lent.clear()  # nobody waits for what nobody hashes any more
                self._drained.notify()

    def _prove(self, proof: Proof, lane: _Lane) -> None:
        digest = self._digest(proof, lane)
        if digest is None:
            return
        self.digests[proof.name] = digest
        if proof.expected is not None and digest != proof.expected:
            self._errors.append(DigestMismatch(proof.name, digest, proof.expected))

    def _digest(self, proof: Proof, lane: _Lane) -> str | None:
        sha256 = self._hasher(proof)
        for piece in proof.pieces:
            if isinstance(piece, FileRange):
                self._hash_file(sha256, piece)
            elif not self._hash_range(sha256, *piece, lane):
                return None
        return sha256.hexdigest()

    def _hash_file(self, sha256: Hash, piece: FileRange) -> None:
        start = piece.start
        with piece.path.open("rb", buffering=0) as file:
            while start < piece.end and not self._stopped:
                data = read_at(file.fileno(), min(BLOCK_BYTES, piece.end - start), start)
                if not data:
                    raise IntegrityError(f"{piece.path} shrank while it was read")
                sha256.update(data)
                start += len(data)

    def _hash_range(self, sha256: Hash, start: int, end: int, lane: _Lane) -> bool:
        """Hash `[start, end)` of the target as it becomes available; False when stopped."""
        with self._lock:
            lane.expect((start, end))
        while start < end:
            data = self._next_block(start, lane)
            if data is None:
                return False
            sha256.update(data)
            start += len(data)
        return True

    def _next_block(self, start: int, lane: _Lane) -> memoryview | bytes | None:
        """Wait for the byte at `start`; returns it and some that follow, or None when stopped."""
        with self._lock:
            while not self._stopped:
                if lane.lent:
                    self._drained.notify()
                    return lane.lent.popleft()
                there = min(self._there_until(start), start + BLOCK_BYTES, lane.range[1])
                if there > start:
                    lane.tip = there
                    break
                lane.ready.wait()
            else:
                return None
        return self._read(start, there)

    def _read(self, start: int, end: int) -> bytes:
        """Return all of `[start, end)` from the target."""
        data = read_at(self._fd, end - start, start)
        while len(data) < end - start:
            more = read_at(self._fd, end - start - len(data), start + len(data))
            if not more:
                raise IntegrityError("the file shrank while it was written")
            data += more
        return data


def _ranges_of(proof: Proof) -> list[Range]:
    return [piece for piece in proof.pieces if not isinstance(piece, FileRange)]


class DigestMismatch(IntegrityError):
    """A file's SHA-256 is not the published one."""

    def __init__(self, name: str, digest: str, expected: str) -> None:
        super().__init__(f"{name}: SHA-256 is {digest}, expected {expected}")
        self.name = name
        self.digest = digest
        self.expected = expected
        self.proven: list[Range] = []
        """Ranges of the target that are right all the same: other shards of a merged file."""
