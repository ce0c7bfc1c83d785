"""A source of bytes that has some of them on this machine already."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggufkit.errors import IntegrityError
from ggufkit.transfer.copying import copy_range
from ggufkit.transfer.sources import Wrote


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the wanted file that lie in another one."""

    path: Path
    """The other file."""
    start: int
    """First byte in the wanted file."""
    end: int
    """After the last byte in the wanted file."""
    at: int
    """Where the first byte is in the other file."""


@dataclass(slots=True)
class Adopting:
    """A source that has some ranges here already. Each is used once: asked again, it is fetched."""

    inner: Any
    """Where the rest comes from: a source that can be read from and mended."""
    left: list[Piece] = field(default_factory=list)
    """The pieces that were not used so far."""

    @property
    def name(self) -> str:
        """What the file is called in messages."""
        return str(self.inner.name)

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return int(self.inner.size_bytes)

    @property
    def sha256(self) -> str | None:
        """The digest that the file must have."""
        return self.inner.sha256  # type: ignore[no-any-return]

    @property
    def version(self) -> str:
        """The hub's: what is here is the same content, or proven not to be."""
        return str(self.inner.version)

    @property
    def n_turns(self) -> int:
        """How many sources can be asked again for bytes that turn out to be wrong."""
        return int(self.inner.n_turns)

    def origins(self, offset: int, end: int) -> Any:
        """Cut a range into those that came from one place: where from, the inner source may not know."""
        return self.inner.origins(offset, end)

    def readers(self, offset: int, end: int, turn: int | None) -> Any:
        """Return who is to give a range again."""
        return self.inner.readers(offset, end, turn)

    def compared(self, offset: int, end: int, turn: int, *, differed: bool) -> None:
        """Pass on what the comparison came to."""
        self.inner.compared(offset, end, turn, differed=differed)

    def blame(self) -> None:
        """Pass on nothing: what differed may have been here before."""

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy what is here, and fetch the rest."""
        here, end = offset, offset + n_bytes
        for piece in [p for p in self.left if p.start < end and offset < p.end]:
            start, stop = max(piece.start, offset), min(piece.end, end)
            self._fetch(fd, at + here - offset, here, start - here, wrote)
            self.left.remove(piece)
            self._copy(piece, fd, at + start - offset, start, stop, wrote)
            here = stop
        self._fetch(fd, at + here - offset, here, end - here, wrote)

    def _fetch(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        if n_bytes > 0:
            self.inner.copy_to(fd, at, offset, n_bytes, wrote)

    def _copy(self, piece: Piece, fd: int, at: int, start: int, stop: int, wrote: Wrote) -> None:
        """Copy a range that is here; what can't be read of it is fetched."""
        done = at

        def copied(begin: int, end: int) -> None:
            nonlocal done
            wrote(begin, end)
            done = end

        try:
            file = piece.path.open("rb", buffering=0)
        except OSError:
            self._fetch(fd, at, start, stop - start, wrote)
            return
        with file, contextlib.suppress(IntegrityError):  # SourceEnded: it was cut since
            copy_range(file.fileno(), piece.at + start - piece.start, fd, at, stop - start, copied)
        self._fetch(fd, done, start + done - at, at + stop - start - done, wrote)
