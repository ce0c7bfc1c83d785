"""Reading the shards' own bytes (all that a merged file does not have) from a hub, or from the last run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import Layout, join_layout, merge_layout
from ggufkit.gguf.pieces import pieces_of
from ggufkit.gguf.reader import MoreNeeded, read_header
from ggufkit.gguf.shards import check_set
from ggufkit.hubs.hub import RemoteFile
from ggufkit.transfer.sources import Source, header_by_range

FIRST_READ_BYTES = 64 << 10
"""Later shards have only a table of tensors in their headers: this much holds some hundred of them."""


class Readable(Source, Protocol):
    """A source whose bytes can be had in memory too."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes."""


@dataclass(frozen=True, slots=True)
class Merged:
    """How the file that a set of shards makes is put together."""

    layout: Layout
    """The merged file; the shards are its sources."""
    header: Header
    """The merged file's header."""
    rests: tuple[bytes, ...]
    """For each shard the bytes of it that are not in the merged file, one behind the other."""
    warnings: tuple[str, ...]
    """Oddities of the shards that do not hinder."""


def lay_out(name: str, sources: Sequence[Readable], known: Sequence[bytes | None]) -> Merged:
    """Read and check the shards' headers and lay out the merged file `name`.

    `known` has for each shard what an earlier run kept of it, or None. Raises FormatError for shards that
    are no sound set.
    """
    begun = [_Beginning(s, k) for s, k in zip(sources, known, strict=True)]
    shards = check_set([beginning.header() for beginning in begun])
    layout = merge_layout(shards)
    rests = []
    for i, beginning in enumerate(begun):
        pieces = pieces_of(layout, i, beginning.source.size_bytes)
        rests.append(beginning.rest([(p.start, p.end) for p in pieces if p.at is None]))
    return Merged(layout, _header(name, layout), tuple(rests), shards.warnings)


def lay_out_parts(name: str, sources: Sequence[Readable]) -> Merged:
    """Lay out the file that raw parts make; the first one's beginning is read and checked."""
    layout = join_layout([source.size_bytes for source in sources])
    header = _Beginning(sources[0], None).header(file_size_bytes=layout.n_bytes)
    return Merged(layout, header, tuple(b"" for _ in sources), header.warnings)


def file_name(file: RemoteFile) -> str:
    """Return the name that a file of a repo has in its folder."""
    return PurePosixPath(file.path).name


class _Beginning:
    """The first bytes of one shard, fetched as far as they are asked for."""

    def __init__(self, source: Readable, known: bytes | None) -> None:
        self.source = source
        self._data = b""
        self._known = known

    def header(self, *, file_size_bytes: int | None = None) -> Header:
        """Return the header, from what is known if that is one."""
        name, size = self.source.name, file_size_bytes or self.source.size_bytes
        if self._known is not None:
            try:
                return read_header(self._known, name=name, file_size_bytes=size)
            except (FormatError, MoreNeeded):
                self._known = None  # damaged: it is fetched again
        return header_by_range(
            self._read, name=name, file_size_bytes=size, first_read_bytes=FIRST_READ_BYTES, growth=1.25
        )

    def rest(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """Return the bytes in these ranges of the shard, one behind the other."""
        if self._known is not None and len(self._known) == sum(end - start for start, end in ranges):
            return self._known
        return b"".join(self._range(start, end) for start, end in ranges)

    def _range(self, start: int, end: int) -> bytes:
        if start <= len(self._data):
            return self._read(end)[start:end]
        return self.source.read(start, end - start)

    def _read(self, n_bytes: int) -> bytes:
        n_bytes = min(n_bytes, self.source.size_bytes)
        if n_bytes > len(self._data):
            self._data += self.source.read(len(self._data), n_bytes - len(self._data))
        return self._data


def _header(name: str, layout: Layout) -> Header:
    data = getattr(layout.segments[0], "data", b"")  # merge_layout begins with the new header
    return read_header(data, name=name, file_size_bytes=layout.n_bytes)
