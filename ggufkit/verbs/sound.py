"""Whether a file that is there is what would be written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ggufkit.gguf.layout import Layout, Literal, Span
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.sources import Source

BLOCK_BYTES = 1 << 20


def has_same_header(path: Path, layout: Layout) -> bool:
    """Compare the file's size and its beginning with the literal that the layout begins with."""
    first = layout.segments[0]
    if not isinstance(first, Literal) or path.stat().st_size != layout.n_bytes:
        return False
    with path.open("rb") as file:
        return file.read(first.n_bytes) == first.data


def is_same_content(
    path: Path, layout: Layout, sources: Sequence[Source], progress: Progress = SILENT
) -> bool:
    """Compare the file with what the layout of local sources makes, byte by byte."""
    if path.stat().st_size != layout.n_bytes:
        return False
    progress.start(f"comparing {path.name}, which is there already", layout.n_bytes)
    try:
        with path.open("rb", buffering=0) as file:
            return all(
                _same(file.fileno(), position, segment.data, progress)
                if isinstance(segment, Literal)
                else _same_span(file.fileno(), position, sources[segment.source], segment, progress)
                for position, segment in layout.placed()
            )
    finally:
        progress.finish()


def _same(fd: int, position: int, data: bytes, progress: Progress) -> bool:
    progress.advance(len(data))
    return read_at(fd, len(data), position) == data


def _same_span(fd: int, position: int, source: Source, span: Span, progress: Progress) -> bool:
    with Path(source.name).open("rb", buffering=0) as file:
        for done in range(0, span.n_bytes, BLOCK_BYTES):
            size = min(BLOCK_BYTES, span.n_bytes - done)
            theirs = read_at(file.fileno(), size, span.offset + done)
            if not _same(fd, position + done, theirs, progress):
                return False
    return True
