"""One file that one or several hubs, mirrors or machines of the LAN have, fetched over several streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

from ggufkit.errors import GgufkitError, IntegrityError
from ggufkit.gguf.header import Header
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import write_all
from ggufkit.transfer.crew import MAX_FAILURES_BESIDE_OTHERS, Crew, Member
from ggufkit.transfer.journal import cut_out, joined
from ggufkit.transfer.sources import HubSource, Wrote
from ggufkit.transfer.tally import Tally

CONNECTIONS = 4
"""Streams at a time: enough where a CDN limits each of them, and no slower than one where none does."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Several:
    """A file read in ranges over several streams, shared over all sources that have it.

    A source that is fast gets more of the work, one that fails, stalls or is slow gets less, and the
    others go on without it. Only when all of them fail in a row the work ends, with NetworkError.
    """

    sources: tuple[HubSource, ...]
    """Who has the file, the preferred one first; size and SHA-256 must be the same."""
    connections: int = CONNECTIONS
    """Streams at a time, over all sources."""
    progress: Progress = field(default=SILENT, repr=False)
    """Hears of retries and of sources that are left."""
    tally: Tally = field(default_factory=Tally, repr=False)
    """What each source brought: one for all files of a pull, so that each learns from the ones before."""
    _members: list[Member] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the sources have one and the same file."""
        if len({(s.size_bytes, s.sha256) for s in self.sources}) != 1:
            raise IntegrityError(f"{self.name}: the sources have different files under this name")
        if len(self.sources) > 1 and self.sha256 is None:
            raise IntegrityError(f"{self.name}: without a digest nobody knows whether two files are the same")
        for source in self.sources:
            self._members.append(Member(source, self.tally.standing(source.label)))

    @property
    def name(self) -> str:
        """The path in the repo."""
        return self.sources[0].name

    @property
    def size_bytes(self) -> int:
        """Size that the hubs listed."""
        return self.sources[0].size_bytes

    @property
    def sha256(self) -> str | None:
        """Digest that the hubs listed."""
        return self.sources[0].sha256

    @property
    def version(self) -> str:
        """The digest; without one the only source's revision."""
        return self.sources[0].version

    @property
    def served(self) -> dict[str, int]:
        """Bytes that each source brought, by what messages call it, over all files of this tally."""
        return self.tally.served

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy bytes `[offset, offset + n_bytes)` to offset `at` of the open file `fd`, in any order.

        `wrote` is called in this thread only. Raises NetworkError when all sources failed in a row,
        AccessError or NotFoundError when all of them refuse. No thread is left over.
        """
        shift = at - offset

        def put(data: memoryview, position: int) -> None:
            write_all(fd, data, position + shift)

        def told(start: int, end: int, data: memoryview | None = None) -> None:
            wrote(start + shift, end + shift, data)

        crew = Crew(self._members, self.connections, self.progress)
        crew.fetch(offset, offset + n_bytes, put, told)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes, from the first source that gives it."""
        return self._first(lambda source: source.read(offset, n_bytes))

    def header(self) -> Header:
        """Read the file's header by range, from the first source that gives it."""
        return self._first(lambda source: source.header())

    @property
    def n_turns(self) -> int:
        """One for each source."""
        return len(self.sources)

    def origins(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Cut a range where another source's bytes begin."""
        edges = {edge for member in self._members for pair in member.brought for edge in pair}
        return list(pairwise([offset, *sorted(e for e in edges if offset < e < end), end]))

    def readers(self, offset: int, end: int, turn: int | None) -> list[HubSource]:
        """Return the source whose turn it is, unless the range is its own; without a turn all of them."""
        if turn is None:
            members = sorted(self._members, key=lambda m: m.is_out)
        else:
            members = [self._at_turn(turn)]
            if len(self.sources) > 1 and any(a <= offset and end <= b for a, b in members[0].brought):
                return []
        return [replace(m.source, max_failures=MAX_FAILURES_BESIDE_OTHERS) for m in members]

    def compared(self, offset: int, end: int, turn: int, *, differed: bool) -> None:
        """Keep account of whose bytes are there, and who is suspected."""
        now = self._at_turn(turn)
        for member in self._members:
            had = any(a < end and offset < b for a, b in member.brought)
            if differed and had and member is not now:
                member.brought = cut_out(member.brought, offset, end)
                member.suspected_at = turn
        now.brought = joined([*now.brought, (offset, end)])

    def blame(self) -> None:
        """Ask those no more that brought wrong bytes."""
        last = max((m.suspected_at for m in self._members if m.suspected_at is not None), default=None)
        for member in self._members:
            if last is not None and member.suspected_at == last:
                member.standing.lies = True
                self.progress.note(f"{member.standing.label} sent wrong bytes: going on without it")

    def _at_turn(self, turn: int) -> Member:
        """Return whose turn it is: who brought most comes first, for then least is fetched again."""
        return sorted(self._members, key=lambda m: (m.is_out, -m.standing.served_bytes))[turn]

    def _first(self, ask: Callable[[HubSource], T]) -> T:
        errors: list[GgufkitError] = []
        for member in sorted(self._members, key=lambda m: (m.is_out, m.standing.why is not None)):
            source, is_last = member.source, len(errors) + 1 == len(self._members)
            if not is_last:
                source = replace(source, max_failures=MAX_FAILURES_BESIDE_OTHERS)
            try:
                return ask(source)
            except GgufkitError as error:
                if not is_last:
                    self.progress.note(f"{source.label}: {error.message}; asking the next one")
                errors.append(error)
        raise errors[0]
