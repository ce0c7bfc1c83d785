"""What is wrong with a file that is not the published one, as precisely as its bytes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import FormatError, GgufkitError, printable
from ggufkit.gguf.header import Header
from ggufkit.gguf.shards import check_set, parse_shard_name
from ggufkit.gguf.types import FILE_TYPES
from ggufkit.transfer.journal import Range
from ggufkit.transfer.sources import open_header
from ggufkit.verbs.scan import HOLE_BYTES, data_ranges, without

CauseName = Literal[
    "missing",
    "empty",
    "lfs-pointer",
    "web-page",
    "truncated",
    "too-long",
    "renamed",
    "foreign",
    "hole",
    "blocks",
    "header",
    "digest",
    "changed",
    "format",
]

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # git-lfs docs/spec.md, "The Pointer"
HEAD_BYTES = 4096
MAX_PLACES = 100
_TITLE = re.compile(rb"<title[^>]*>\s*([^<]{1,80}?)\s*<", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something is wrong."""

    start: int
    """First byte."""
    end: int
    """After the last byte."""
    tensors: tuple[str, ...]
    """Tensors whose data lie there, the first three; `header` for what is before them."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a file is not the published one."""

    name: CauseName
    """The kind of fault."""
    detail: str
    """A sentence whose subject is the file."""
    places: tuple[Place, ...] = ()
    """Where it is, the first hundred, when it is not all of the file."""


def by_content(path: Path, expected_bytes: int | None) -> Cause | None:
    """Tell from the first bytes that a file is no part of a model at all: empty, a pointer, a page."""
    size = path.stat().st_size
    if size == 0:
        wanted = f"; {expected_bytes:,} bytes were published" if expected_bytes else ""
        return Cause("empty", f"is empty{wanted}") if expected_bytes != 0 else None
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(LFS_POINTER):
        return Cause("lfs-pointer", "is a Git LFS pointer, not the file: cloned without git-lfs")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"<":
        title = _TITLE.search(head)
        named = f" ('{printable(title[1].decode('utf-8', 'replace'))}')" if title else ""
        return Cause("web-page", f"is a web page{named}, not the file: a login or an error was saved")
    if start == b"{":
        return Cause("web-page", "is a server's answer in JSON, not the file")
    return None


def of_length(size_bytes: int, expected_bytes: int) -> Cause:
    """Say by how much a file is too short or too long."""
    if size_bytes < expected_bytes:
        short = expected_bytes - size_bytes
        detail = f"ends {short:,} bytes early: it has {size_bytes:,} of {expected_bytes:,} bytes"
        return Cause("truncated", detail, (Place(size_bytes, expected_bytes, ()),))
    more = size_bytes - expected_bytes
    return Cause("too-long", f"has {more:,} bytes more than the {expected_bytes:,} that were published")


def by_header(path: Path, expected_bytes: int | None, others: Sequence[Header]) -> Cause | None:
    """Tell from a shard's header that it is another shard, or one of another model or quant.

    `others` are the headers of the set's files that are right.
    """
    header = read_header(path)
    if header is None:
        return None
    name = parse_shard_name(path.name)
    reason = _of_another_set(header, others)
    if reason is not None:
        return Cause("foreign", f"is of another model or quant: {reason}")
    number = header.integer("split.no")
    if name is not None and number is not None and number != name.number - 1:
        return Cause("renamed", f"is shard {number + 1} by its split.no, not shard {name.number}: renamed?")
    end = header.data_offset + header.data_bytes
    if expected_bytes is not None and end == header.file_size_bytes != expected_bytes and header.tensors:
        detail = f"is another GGUF, whole by itself: {end:,} bytes, {expected_bytes:,} were published"
        return Cause("foreign", detail)
    return None


def _of_another_set(header: Header, others: Sequence[Header]) -> str | None:
    """Say what tells the header from those of the set that are right."""
    for other in others:
        for key, thing in (("split.count", "shards"), ("split.tensors.count", "tensors")):
            mine, theirs = header.integer(key), other.integer(key)
            if mine is not None and theirs is not None and mine != theirs:
                return f"its set has {mine:,} {thing}, this one {theirs:,}"
        for key in ("general.architecture", "general.name"):
            a, b = header.string(key), other.string(key)
            if a is not None and b is not None and a != b:
                return f"{key} is {printable(a)}, not {printable(b)}"
        quant, wanted = header.integer("general.file_type"), other.integer("general.file_type")
        if quant is not None and wanted is not None and quant != wanted:
            return f"its quant is {FILE_TYPES.get(quant, quant)}, not {FILE_TYPES.get(wanted, wanted)}"
    return _twice(header, others) or _unlike(header, others)


def _twice(header: Header, others: Sequence[Header]) -> str | None:
    """Say that a tensor is in another shard too; a whole shard that is there twice is a renamed one."""
    names = {t.name for t in header.tensors}
    for other in others:
        if other.integer("split.no") == header.integer("split.no"):
            continue
        shared = names & {t.name for t in other.tensors}
        if shared:
            return f"tensor {min(shared)} is in {Path(other.name).name} too"
    return None


def _unlike(header: Header, others: Sequence[Header]) -> str | None:
    """Say that the tensor types are those of another quant, as far as the set as a whole tells."""
    try:
        ordered = sorted([*others, header], key=lambda h: h.integer("split.no") or 0)
        warnings = check_set(ordered).warnings if len(others) else ()
    except FormatError:
        return None
    mine = [w for w in warnings if w.startswith(printable(header.name)) and "another quant" in w]
    return "its tensor types are in no other shard" if mine else None


def by_bytes(path: Path, zeros: tuple[Range, ...], bad_block: Range | None) -> Cause | None:
    """Tell where in a file of the right length the wrong bytes are; `bad_block` None: not known."""
    header = read_header(path)
    if header is None:
        try:
            open_header(path)
        except FormatError as error:
            return Cause("header", f"has a damaged header: {error.reason}")
    if zeros and (bad_block is None or any(a < bad_block[1] and bad_block[0] < b for a, b in zeros)):
        places = places_of(header, zeros)
        return Cause("hole", f"was never written {_where(places)}: only zeros are there", places)
    if bad_block is not None:
        places = places_of(header, [bad_block])
        detail = f"has a bad block {_where(places)}; what is before it is right"
        return Cause("blocks", detail, places)
    return None


def holes_of(path: Path, header: Header) -> Cause | None:
    """Tell that a file has a hole in its tensor data, without reading it: what a broken download leaves."""
    size = path.stat().st_size
    gaps = tuple((a, b) for a, b in without(size, data_ranges(path)) if b - a >= HOLE_BYTES)
    if not gaps or not header.tensors:
        return None
    places = places_of(header, gaps)
    return Cause("hole", f"was never written {_where(places)}: only a hole is there", places)


def places_of(header: Header | None, ranges: Sequence[Range]) -> tuple[Place, ...]:
    """Say which tensors the ranges of a file are in."""
    return tuple(Place(a, b, _tensors_in(header, a, b)) for a, b in ranges[:MAX_PLACES])


def _tensors_in(header: Header | None, start: int, end: int) -> tuple[str, ...]:
    if header is None:
        return ()
    found = ["header"] if start < header.header_end else []
    for tensor in header.tensors:
        at = header.data_offset + tensor.offset
        if at < end and start < at + tensor.n_bytes:
            found.append(tensor.name)
        if len(found) == 3:
            break
    return tuple(found)


def _where(places: Sequence[Place]) -> str:
    first = places[0]
    text = f"from byte {first.start:,} to {first.end:,}"
    if first.tensors:
        text += f" ({', '.join(first.tensors)})"
    if len(places) > 1:
        text += f" and in {len(places) - 1:,} more places"
    return text


def read_header(path: Path) -> Header | None:
    """Return the header of a file that may be cut, or None when it has no sound one."""
    try:
        return open_header(path, whole_file=False)
    except GgufkitError:
        return None


def by_digest(path: Path, sha256: str, names: Mapping[str, str]) -> Cause | None:
    """Tell that the bytes are those of another file of the set; `names` by digest."""
    other = names.get(sha256)
    if other is None or Path(other).name == path.name:
        return None
    return Cause("renamed", f"holds the bytes of {Path(other).name}: renamed?")
