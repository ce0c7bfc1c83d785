"""Finding the bad blocks of a file whose digest is wrong, and fetching only those again.

Two faults look the same in the end. Where the disk no longer holds what was read from it the first
time, the marks tell the block. Where it does, wrong bytes came from the network: then blocks are
fetched again, from another source than the one that brought them where there is one, and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ggufkit.errors import AccessError, IntegrityError, NetworkError, NotFoundError
from ggufkit.gguf.layout import Literal
from ggufkit.progress import Progress
from ggufkit.transfer.copying import read_at, write_all
from ggufkit.transfer.marks import MARK_BYTES, Marks, digits_of
from ggufkit.transfer.prover import FileRange, Proof
from ggufkit.transfer.sources import Mendable, Reader

if TYPE_CHECKING:
    from ggufkit.transfer.engine import Job

_READ_BYTES = 1 << 20

Part = tuple[FileRange | None, int, int]
"""A stretch of a proof: in another file, or (None) in the target; first byte, and after the last."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of what a proof reads."""

    parts: tuple[Part, ...]
    """Where its bytes are."""
    end: int
    """How much of the proof is read with it."""


@dataclass(slots=True)
class Mending:
    """What was done to one file."""

    n_blocks: int = 0
    """Blocks that were wrong and were replaced."""
    fetched_bytes: int = 0
    """What was fetched again to find and replace them."""
    marks: dict[str, dict[int, str]] = field(default_factory=dict)
    """What each proof's digest was on the way, once all are right."""


class Mender:
    """Mends the open file `fd` of a job."""

    def __init__(self, job: Job, fd: int, marks: Marks, done: Mending, progress: Progress) -> None:
        self._job = job
        self._fd = fd
        self._marks = marks
        self._done = done
        self._progress = progress

    def mend(self, name: str) -> bool:
        """Make the proof called `name` come out right; False when that can't be done."""
        proof = next(p for p in self._job.proofs if p.name == name)
        if not any(True for _ in self._spans(proof)):
            return False  # nothing of it comes from where it could be had again
        self._progress.note(f"{name}: the SHA-256 is wrong; looking for the bad blocks")
        before = self._done.n_blocks
        if not self._mend_disk(proof):
            self._progress.note(
                f"{name}: the disk has what came, as far as is known; fetching it again, to compare"
            )
            if not self._mend_network(proof):
                return False
            for source in {id(s): s for s, *_ in self._spans(proof)}.values():
                source.blame()
        self._marks.forget(name)
        n_blocks = self._done.n_blocks - before
        self._progress.note(
            f"{name}: {n_blocks} bad block{'s' * (n_blocks != 1)} fetched again: now it is right"
        )
        return True

    # ---- the disk ----

    def _mend_disk(self, proof: Proof) -> bool:
        """Replace the blocks that are not what was first read of them; returns whether all is right."""
        marks = self._marks.of(proof.name)
        sha256 = hashlib.sha256()
        for block in _blocks(proof, sorted(marks)):
            before = sha256.copy()
            self._hash(sha256, block)
            if block.end not in marks or digits_of(sha256.hexdigest()) == marks[block.end]:
                continue
            if not self._replace(block, None):
                marks = {}  # wrong already when it was written: from here on marks tell nothing
                continue
            sha256 = before
            self._hash(sha256, block)
            if digits_of(sha256.hexdigest()) != marks[block.end]:
                marks = {}
        return sha256.hexdigest() == proof.expected

    def _hash(self, sha256: hashlib._Hash, block: Block) -> None:
        for file, start, end in block.parts:
            if file is None:
                self._hash_file(sha256, self._fd, start, end)
            else:
                with file.path.open("rb", buffering=0) as opened:
                    self._hash_file(sha256, opened.fileno(), start, end)

    def _hash_file(self, sha256: hashlib._Hash, fd: int, start: int, end: int) -> None:
        while start < end:
            data = read_at(fd, min(_READ_BYTES, end - start), start)
            if not data:
                raise IntegrityError("the file shrank while it was mended")
            sha256.update(data)
            start += len(data)

    # ---- the network ----

    def _mend_network(self, proof: Proof) -> bool:
        """Fetch block by block again and keep what differs, until the digest is right."""
        for turn in range(max(source.n_turns for source, *_ in self._spans(proof))):
            n_replaced = 0
            for block in _blocks(proof, range(MARK_BYTES, _length(proof), MARK_BYTES)):
                if not self._replace(block, turn):
                    continue
                n_replaced += 1
                if n_replaced & (n_replaced - 1) == 0 and self._is_right(proof):  # 1, 2, 4, 8, ...
                    return True
            if n_replaced and self._is_right(proof):
                return True
        return False

    def _is_right(self, proof: Proof) -> bool:
        sha256 = hashlib.sha256()
        for block in _blocks(proof, ()):
            self._hash(sha256, block)
        return sha256.hexdigest() == proof.expected

    # ---- both ----

    def _replace(self, block: Block, turn: int | None) -> bool:
        """Fetch a block from whose turn it is (None: anybody's); returns whether it had to be replaced."""
        differs = False
        for file, start, end in block.parts:
            for source, at, offset, stop in () if file is not None else self._spans_of(start, end):
                differs |= self._replace_span(source, at, offset, stop, turn)
        self._done.n_blocks += differs
        return differs

    def _replace_span(self, source: Mendable, at: int, offset: int, end: int, turn: int | None) -> bool:
        if turn is not None and turn >= source.n_turns:
            return False
        data = self._read(source.readers(offset, end, turn), offset, end)
        if data is None:
            return False
        differs = data != read_at(self._fd, len(data), at)
        if differs:
            write_all(self._fd, data, at)
        if turn is not None:
            source.compared(offset, end, turn, differed=differs)
        return differs

    def _read(self, readers: Sequence[Reader], offset: int, end: int) -> bytes | None:
        for reader in readers:
            try:
                data = reader.read(offset, end - offset)
            except (NetworkError, AccessError, NotFoundError):
                continue  # the next one
            self._done.fetched_bytes += len(data)
            return data
        return None

    def _spans(self, proof: Proof) -> Iterator[tuple[Mendable, int, int, int]]:
        for piece in proof.pieces:
            if not isinstance(piece, FileRange):
                yield from self._spans_of(*piece)

    def _spans_of(self, start: int, end: int) -> Iterator[tuple[Mendable, int, int, int]]:
        """Yield source, offset in the target, and range in the source, of what can be fetched again."""
        for position, segment in self._job.layout.placed():
            a, b = max(start, position), min(end, position + segment.n_bytes)
            if a >= b or isinstance(segment, Literal):
                continue
            source = self._job.sources[segment.source]
            if isinstance(source, Mendable):
                shift = segment.offset - position
                for offset, stop in source.origins(a + shift, b + shift):
                    yield source, offset - shift, offset, stop


def _blocks(proof: Proof, ends: Sequence[int]) -> Iterator[Block]:
    """Yield what a proof reads, cut after so many bytes each time, and what is left behind the last."""
    cuts = iter(ends)
    done, cut = 0, next(cuts, None)
    parts: list[Part] = []
    for piece in proof.pieces:
        file = piece if isinstance(piece, FileRange) else None
        start, end = (piece.start, piece.end) if isinstance(piece, FileRange) else piece
        while cut is not None and cut - done <= end - start:
            parts.append((file, start, start + cut - done))
            start, done = start + cut - done, cut
            yield Block(tuple(parts), done)
            parts, cut = [], next(cuts, None)
        if start < end:
            parts.append((file, start, end))
            done += end - start
    if parts:
        yield Block(tuple(parts), done)


def _length(proof: Proof) -> int:
    return sum(
        piece.end - piece.start if isinstance(piece, FileRange) else piece[1] - piece[0]
        for piece in proof.pieces
    )
