"""Where bytes come from: local files and hub files, read by range."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from ggufkit.errors import AccessError, FormatError, IntegrityError, NetworkError, NotFoundError
from ggufkit.gguf.header import Header
from ggufkit.gguf.reader import MAX_HEADER_BYTES, MoreNeeded, read_header
from ggufkit.hubs.endpoints import title_of
from ggufkit.hubs.hub import Hub, RemoteFile
from ggufkit.hubs.refusals import file_refused
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import SourceEnded, copy_lending, copy_range, write_all
from ggufkit.transfer.http import FileGoneError, FileRefusedError, Http
from ggufkit.transfer.stream import READ_BYTES, Stream, StreamError

FIRST_READ_BYTES = 1 << 20  # most headers fit; R1's 4.9 MB takes a second read
_LARGE_READ_BYTES = 4 << 20

MAX_FAILURES = 8
"""How many tries in a row may bring nothing; any new byte starts the count again."""


class Wrote(Protocol):
    """Hears of each stretch that was written."""

    def __call__(self, start: int, end: int, data: memoryview | None = None, /) -> None:
        """Hear that `[start, end)` of the target is there; `data` are these bytes, changed no more."""


class Source(Protocol):
    """A file that segments of a layout are copied from."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""

    @property
    def sha256(self) -> str | None:
        """The digest that the file must have, bare hex, where one is known."""

    @property
    def version(self) -> str:
        """What tells this content from others that had, or will have, the same name and size."""

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy bytes `[offset, offset + n_bytes)` to offset `at` of the open file `fd`."""


class Reader(Protocol):
    """Something that a range of a file can be read from."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return bytes `[offset, offset + n_bytes)`, all of them."""


@runtime_checkable
class Mendable(Protocol):
    """A source whose bytes can be had a second time, if they turn out to be wrong."""

    @property
    def n_turns(self) -> int:
        """How many sources there are, each of which gets a turn to have brought everything."""

    def origins(self, offset: int, end: int) -> Sequence[tuple[int, int]]:
        """Cut `[offset, end)` into ranges of which each came from one place, as far as that is known."""

    def readers(self, offset: int, end: int, turn: int | None) -> Sequence[Reader]:
        """Return who is to give one of these ranges at this turn, none if it is from there already.

        Without a turn it is whoever can.
        """

    def compared(self, offset: int, end: int, turn: int, *, differed: bool) -> None:
        """Hear that a range is now as this turn's source gave it, and whether it was before."""

    def blame(self) -> None:
        """Hear that after the last turn all is right: what differed then was wrong."""


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file on this machine."""

    path: Path
    """Where it is."""
    size_bytes: int
    """Its size when it was looked at."""
    sha256: str | None = None
    """The digest that it must have, bare hex."""
    is_lent: bool = False
    """Whether its bytes go through memory and are lent to who takes digests, not copied by the kernel."""

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def version(self) -> str:
        """The digest, and the state of the file at this moment: with a new state comes a new version."""
        status = self.path.stat()
        return f"{self.sha256} {status.st_ino} {status.st_mtime_ns}"

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Copy within the kernel where it can, unless the bytes are to be lent."""
        copy = copy_lending if self.is_lent else copy_range
        with self.path.open("rb", buffering=0) as file:
            try:
                copy(file.fileno(), offset, fd, at, n_bytes, wrote)
            except SourceEnded as error:
                raise IntegrityError(f"{self.path} {error.message}") from error


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file on a hub, read in ranges over one connection at a time, however often it drops."""

    hub: Hub
    """The hub, which tells the address anew for every stream."""
    repo_id: str
    """`owner/name`."""
    file: RemoteFile
    """The file in the repo."""
    http: Http = field(repr=False)
    """Opens the streams."""
    progress: Progress = field(default=SILENT, repr=False)
    """Hears of retries."""
    max_failures: int = MAX_FAILURES
    """How many tries in a row may bring nothing."""

    title: str = ""
    """What messages call the place; empty is the hub's own name."""

    @property
    def label(self) -> str:
        """What messages call the place."""
        return self.title or title_of(self.hub.name, self.hub.endpoint)

    @property
    def name(self) -> str:
        """The path in the repo."""
        return self.file.path

    @property
    def size_bytes(self) -> int:
        """Size that the hub listed."""
        return self.file.size_bytes

    @property
    def sha256(self) -> str | None:
        """Digest that the hub listed."""
        return self.file.sha256

    @property
    def version(self) -> str:
        """The digest, so that another hub may go on with it; without one this repo's very revision."""
        return self.file.sha256 or f"{self.hub.endpoint} {self.repo_id} {self.file.revision}"

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        """Stream the range, going on where a dropped connection ended."""
        end = offset + n_bytes
        shift = at - offset

        def write(data: memoryview, position: int) -> None:
            write_all(fd, data, position + shift)
            wrote(position + shift, position + shift + len(data))

        self._stream(offset, end, write)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes (a header)."""
        parts = bytearray()
        self._stream(offset, offset + n_bytes, lambda data, _: parts.extend(data))
        return bytes(parts)

    def header(self) -> Header:
        """Read the file's header by range: 64 KiB first, then what seems to be needed until it is there."""
        data = b""

        def read(n_bytes: int) -> bytes:
            nonlocal data
            if n_bytes > len(data):
                data += self.read(len(data), n_bytes - len(data))
            return data

        return header_by_range(
            read,
            name=self.file.path,
            file_size_bytes=self.file.size_bytes,
            first_read_bytes=64 << 10,
            growth=1.25,
        )

    @property
    def n_turns(self) -> int:
        """One: there is no other source."""
        return 1

    def origins(self, offset: int, end: int) -> list[tuple[int, int]]:
        """All came from here."""
        return [(offset, end)]

    def readers(self, offset: int, end: int, turn: int | None) -> list[HubSource]:
        """Return itself: there is no other."""
        return [self]

    def compared(self, offset: int, end: int, turn: int, *, differed: bool) -> None:
        """Do nothing: there is no other."""

    def blame(self) -> None:
        """Do nothing: there is no other."""

    def _stream(self, offset: int, end: int, write: Callable[[memoryview, int], None]) -> None:
        """Bring `[offset, end)`; the budget of failures is refilled by every new byte."""
        failures = 0
        buffer = memoryview(bytearray(min(READ_BYTES, end - offset)))
        while offset < end:
            before = offset
            try:
                stream = self.open(offset, end)
                try:
                    offset = _drain(stream, end, buffer, write)
                finally:
                    stream.close()
            except StreamError as error:
                offset = max(offset, error.reached)
                failures = 1 if offset > before else failures + 1
                self._wait(error, failures)

    def open(self, offset: int, end: int) -> Stream:
        """Open one stream of bytes `[offset, end)`, with no second try.

        Raises StreamError for what may pass, AccessError, NotFoundError or NetworkError for what won't.
        """
        address = self.hub.locate(self.repo_id, self.file)
        try:
            return self.http.open(address.url, address.headers, offset, end, self.file.size_bytes)
        except (FileRefusedError, FileGoneError) as error:
            hub, endpoint, path = self.hub.name, self.hub.endpoint, self.file.path
            raise file_refused(hub, endpoint, self.repo_id, path, error.status, error.headers) from error

    def _wait(self, error: StreamError, failures: int) -> None:
        if failures >= self.max_failures:
            message = f"{self.file.path}: {error.message}, {failures} times in a row"
            raise NetworkError(message, hint="run the same command again: it goes on from here") from error
        if error.refused and failures == 1:
            return  # a signed address ran out: the next one is fresh
        wait_s = error.retry_after_s or min(0.25 * 2**failures, 30.0)
        self.progress.note(
            f"{self.file.path}: {error.message}; again in {wait_s:g} s ({failures} of {self.max_failures})"
        )
        time.sleep(wait_s)


def _drain(stream: Stream, end: int, buffer: memoryview, write: Callable[[memoryview, int], None]) -> int:
    """Read the stream up to `end`; returns where it ended. A StreamError tells how far it came."""
    try:
        while stream.offset < end:
            position = stream.offset
            n_bytes = stream.read_into(buffer[: end - position])
            if not n_bytes:
                raise StreamError("the server ended the file early")
            write(buffer[:n_bytes], position)
    except StreamError as error:
        error.reached = stream.offset
        raise
    return stream.offset


def open_header(path: Path, *, whole_file: bool = True) -> Header:
    """Read the header of the GGUF at `path`; raises NotFoundError, AccessError or FormatError."""
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size

            def read(n_bytes: int) -> bytes:
                file.seek(0)
                return _read_exactly(file.read, n_bytes)

            return header_by_range(read, name=str(path), file_size_bytes=size, whole_file=whole_file)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file") from None
    except PermissionError:
        raise AccessError(f"{path}: not readable by this user") from None
    except OSError as error:
        raise AccessError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open_regular(path: Path) -> io.FileIO:
    """Open a regular file; opening a pipe would wait for its other end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise NotFoundError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise NotFoundError(f"{path} is no regular file")
    return path.open("rb", buffering=0)


def header_by_range(
    read: Callable[[int], bytes],
    *,
    name: str,
    file_size_bytes: int,
    whole_file: bool = True,
    first_read_bytes: int = FIRST_READ_BYTES,
    growth: float = 8,
) -> Header:
    """Read a header through `read(n)`, which returns the file's first n bytes, as few as needed.

    Each read is at least `growth` times the one before (doubled at most, once it is 4 MiB), so that a
    hostile header can't make many of them.
    """
    n_bytes = min(first_read_bytes, file_size_bytes)
    while True:
        data = read(n_bytes)
        if len(data) < n_bytes:
            reason = f"ends after {len(data):,} of {file_size_bytes:,} bytes: cut while it was read?"
            raise FormatError(name, reason)
        try:
            return read_header(data, name=name, file_size_bytes=file_size_bytes, whole_file=whole_file)
        except MoreNeeded as more:
            grown = int(n_bytes * (growth if n_bytes < _LARGE_READ_BYTES else min(growth, 2)))
            n_bytes = min(max(more.n_bytes, grown), file_size_bytes, MAX_HEADER_BYTES)


def _read_exactly(read: Callable[[int], bytes | None], n_bytes: int) -> bytes:
    """Read `n_bytes` in as many calls as it takes; less only at the end of the file."""
    parts, left = [], n_bytes
    while left:
        part = read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
