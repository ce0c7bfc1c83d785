"""Proving digests of a file while it is written.

A proof's thread reads what is in the target behind the writer, so it proves what is on the disk
(in the page cache, at first), whatever order the bytes came in and whichever process wrote them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ggufkit.errors import IntegrityError
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.journal import Range, joined

BLOCK_BYTES = 256 << 10  # larger ones miss the cache, and there is one per proof


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

    def update(self, data: bytes, /) -> None:
        """Hash `data` too."""

    def hexdigest(self) -> str:
        """Return the digest of all that was hashed."""


class Prover:
    """Hashes along with the writer, one thread per proof."""

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
        self._changed = threading.Condition()
        self._stopped = False
        self._errors: list[BaseException] = []
        self.digests: dict[str, str] = {}
        self._threads = [threading.Thread(target=self._run, args=(p,), daemon=True) for p in proofs]
        for thread in self._threads:
            thread.start()

    def wrote(self, start: int, end: int) -> None:
        """Say that `[start, end)` is there; raises what a proof found in the meantime."""
        with self._changed:
            self._ranges = joined([*self._ranges, (start, end)])
            self._changed.notify_all()
        self._raise()

    def finish(self) -> dict[str, str]:
        """Wait for all proofs; returns their digests by name, or raises IntegrityError."""
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.2)  # a join without a limit would not hear Ctrl-C everywhere
        self._raise()
        if len(self.digests) < len(self._threads):
            raise IntegrityError("a digest could not be taken")  # its thread died: no digest is no proof
        return self.digests

    def stop(self) -> None:
        """Give up all proofs."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _run(self, proof: Proof) -> None:
        try:
            digest = self._digest(proof)
        except (OSError, IntegrityError) as error:
            self._errors.append(error)
            return
        if digest is None:
            return
        self.digests[proof.name] = digest
        if proof.expected is not None and digest != proof.expected:
            self._errors.append(DigestMismatch(proof.name, digest, proof.expected))

    def _digest(self, proof: Proof) -> str | None:
        sha256 = self._hasher(proof)
        for piece in proof.pieces:
            if isinstance(piece, FileRange):
                self._hash_file(sha256, piece)
            elif not self._hash_range(sha256, *piece):
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

    def _hash_range(self, sha256: Hash, start: int, end: int) -> bool:
        """Hash `[start, end)` of the target as it becomes available; False when stopped."""
        while start < end:
            there = self._wait_for(start, min(start + BLOCK_BYTES, end))
            if there <= start:
                return False
            data = read_at(self._fd, there - start, start)
            if not data:
                raise IntegrityError("the file shrank while it was written")
            sha256.update(data)
            start += len(data)
        return True

    def _wait_for(self, start: int, end: int) -> int:
        """Wait until all of `[start, end)` is there; returns `end`, or `start` when stopped."""
        with self._changed:
            while not self._stopped:
                if any(a <= start and end <= b for a, b in self._ranges):
                    return end
                self._changed.wait()
            return start


class DigestMismatch(IntegrityError):
    """A file's SHA-256 is not the published one."""

    def __init__(self, name: str, digest: str, expected: str) -> None:
        super().__init__(f"{name}: SHA-256 is {digest}, expected {expected}")
        self.name = name
        self.digest = digest
        self.expected = expected
