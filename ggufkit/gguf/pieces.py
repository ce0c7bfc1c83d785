"""Where the bytes of a source lie in a file that a layout made of it, and which of them do not."""

from __future__ import annotations

from dataclasses import dataclass

from ggufkit.gguf.layout import Layout, Literal


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a source."""

    start: int
    """First byte in the source."""
    end: int
    """After the last byte in the source."""
    at: int | None
    """Where it begins in the file made of it; None when it is not in there."""

    @property
    def n_bytes(self) -> int:
        """Length in bytes."""
        return self.end - self.start


def pieces_of(layout: Layout, source: int, n_bytes: int) -> tuple[Piece, ...]:
    """Return the whole of a source of `n_bytes`, in order, as the layout scatters it.

    Of a shard in a merged file the header is not in there, and its data are one piece.
    """
    pieces, done = [], 0
    for position, segment in layout.placed():
        if isinstance(segment, Literal) or segment.source != source:
            continue
        pieces.append(Piece(done, segment.offset, None))
        done = segment.offset + segment.n_bytes
        pieces.append(Piece(segment.offset, done, position))
    pieces.append(Piece(done, n_bytes, None))
    return tuple(piece for piece in pieces if piece.n_bytes)
