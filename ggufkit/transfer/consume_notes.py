"""The notes of a consumption: what is to be written out of what, and how far it is; right after a kill."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ggufkit.errors import AccessError, IntegrityError
from ggufkit.gguf.layout import Layout, Literal, Segment, Span
from ggufkit.transfer.alone import is_at
from ggufkit.transfer.copying import read_at, write_all
from ggufkit.transfer.digest import FileStamp, sha256_file
from ggufkit.transfer.disk import fsync_folder, replace_durably
from ggufkit.transfer.engine import Job
from ggufkit.transfer.prover import Proof
from ggufkit.transfer.sources import LocalSource

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
MAX_STEP_BYTES = 64 << 20
MIN_STEP_BYTES = 1 << 20
STEPS = 100
"""Two steps are there twice at most (one being copied, one being synced): 2 % of the file."""
BLOCK_BYTES = 4096
"""File systems' usual block: holes smaller than it free nothing."""
_SLOT_BYTES = 512  # a disk's smallest sector: written whole or not at all


@dataclass(frozen=True, slots=True)
class Consumption:
    """A file to be written out of files that go with it."""

    target: Path
    """Where it goes."""
    layout: Layout
    """What it consists of: spans of each source in ascending order, the sources one after the other."""
    sources: tuple[LocalSource, ...]
    """The files that are given up."""
    stamps: tuple[FileStamp, ...]
    """The state in which each source was checked."""
    notes: Path
    """Where it is noted that this is under way, and how far: two folders below the sources' own."""
    proofs: tuple[Proof, ...] = ()
    """Digests to be taken on the way."""

    @property
    def part(self) -> Path:
        """The name that the file has until it is whole."""
        return Job(self.target, self.layout, self.sources, self.notes).part

    def reach(self, source: int) -> tuple[int, int]:
        """Return between which bytes of the target a source's bytes go; nowhere is (0, 0)."""
        places = [
            (position, position + segment.n_bytes)
            for position, segment in self.layout.placed()
            if isinstance(segment, Span) and segment.source == source
        ]
        return (places[0][0], places[-1][1]) if places else (0, 0)

    @property
    def step_bytes(self) -> int:
        """How much is copied between two notes."""
        step = min(MAX_STEP_BYTES, max(MIN_STEP_BYTES, self.layout.n_bytes // STEPS))
        return step // BLOCK_BYTES * BLOCK_BYTES

    @property
    def extra_bytes(self) -> int:
        """How much more than one copy is on the disk at most, where there are holes."""
        literals = sum(s.n_bytes for s in self.layout.segments if isinstance(s, Literal))
        return 2 * self.step_bytes + literals + BLOCK_BYTES * len(self.sources)


def durable_bytes(notes: Path) -> int:
    """Return how much of the target is durable, and no longer needed of the sources."""
    try:
        return _done(_progress_file(notes).read_bytes())
    except FileNotFoundError:
        return 0


def load_notes(notes: Path) -> Consumption | None:
    """Return what an earlier run began and did not end; raises IntegrityError for notes that are broken."""
    try:
        text = notes.read_text("utf-8")
    except FileNotFoundError:
        return None
    try:
        return _from_json(json.loads(text), notes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{notes} is broken: {error}") from error


def begin(consumption: Consumption, slots: int) -> int:
    """Note what is to be done, unless it is noted; return how much of it is done."""
    if not consumption.notes.exists():
        os.ftruncate(slots, 0)  # left by a run that was killed at its very end
        os.fsync(slots)
        _check_unchanged(consumption, 0)
        for source in consumption.sources:
            sync_file(source.path)
        _new_file(consumption.notes).write_text(json.dumps(_to_json(consumption)), "utf-8")
        replace_durably(_new_file(consumption.notes), consumption.notes)
        for folder in consumption.notes.parents[:3]:
            fsync_folder(folder)
        return 0
    done = _done(read_at(slots, 2 * _SLOT_BYTES, 0))
    _check_unchanged(consumption, done)
    return done


def note(slots: int, done: int) -> None:
    """Note durably how far it is, in turn in one of two places: one is whole whatever happens."""
    data = read_at(slots, 2 * _SLOT_BYTES, 0)
    at = 0 if _slot(data[:_SLOT_BYTES]) <= _slot(data[_SLOT_BYTES:]) else _SLOT_BYTES
    write_all(slots, f"{done:020d} {done:020d}\n".encode(), at)
    sync(slots)


def sync(fd: int) -> None:
    """Make what was written to an open file durable."""
    os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)


def sync_file(path: Path) -> None:
    """Make a file durable, its times too: just fetched by another program it may not be."""
    with path.open("rb+", buffering=0) as file:
        os.fsync(file.fileno())


def remove_notes(notes: Path) -> None:
    """Remove the notes, and the folders that are empty then: nothing is left to do."""
    for file in (notes, _new_file(notes), _progress_file(notes)):
        file.unlink(missing_ok=True)
    for folder in notes.parents[:2]:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _done(data: bytes) -> int:
    return max(_slot(data[:_SLOT_BYTES]), _slot(data[_SLOT_BYTES:]))


def _slot(data: bytes) -> int:
    """Return the number in a slot; 0 when it is empty or torn."""
    words = data.split(b"\n")[0].split()
    whole = len(words) == 2 and words[0] == words[1] and len(words[0]) == 20 and words[0].isdigit()
    return int(words[0]) if whole else 0


def _new_file(notes: Path) -> Path:
    """Return the notes' name until they are whole; always the same, so that a kill leaves one at most."""
    return notes.with_name(notes.name + ".new")


def _progress_file(notes: Path) -> Path:
    return notes.with_name(notes.name + ".progress")


@contextlib.contextmanager
def alone(consumption: Consumption) -> Iterator[int]:
    """Hold the progress file, open and locked. Two at once would copy what is a hole already."""
    path = _progress_file(consumption.notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        _lock(fd, path)
        if not is_at(fd, path):
            raise AccessError(f"another process has just merged {consumption.target.name}")
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    if fcntl is None:
        raise AccessError(f"{path}: this system has no locks that we know", hint="merge without --consume")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AccessError(f"another process is consuming these shards: it holds {path}") from None
    except OSError as error:
        message = f"{path} can't be locked: {error.strerror}"
        raise AccessError(message, hint="without locks only merge without --consume is safe") from error


def _home(notes: Path) -> Path:
    """Return the folder that the sources lie in."""
    return notes.parents[2]


def _to_json(consumption: Consumption) -> dict[str, Any]:
    sources = [
        {
            "name": source.path.name,
            "size_bytes": source.size_bytes,
            "sha256": source.sha256,
            "stamp": asdict(stamp),
        }
        for source, stamp in zip(consumption.sources, consumption.stamps, strict=True)
    ]
    segments = [
        base64.b64encode(s.data).decode() if isinstance(s, Literal) else [s.source, s.offset, s.n_bytes]
        for s in consumption.layout.segments
    ]
    target, home = consumption.target, os.path.realpath(_home(consumption.notes))
    return {
        "schema": SCHEMA,
        "target": os.path.relpath(Path(os.path.realpath(target.parent)) / target.name, home),
        "sources": sources,
        "segments": segments,
        "proofs": [proof.name for proof in consumption.proofs],
    }


def _from_json(document: Any, notes: Path) -> Consumption:
    """Return what the notes say. Sources are files of the notes' own folder only: they get removed."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema is {document['schema']}, this ggufkit reads {SCHEMA}")
    home = _home(notes)
    sources = tuple(
        LocalSource(home / _plain_name(s["name"]), int(s["size_bytes"]), s["sha256"])
        for s in document["sources"]
    )
    segments: list[Segment] = [
        Literal(base64.b64decode(s, validate=True)) if isinstance(s, str) else Span(*s)
        for s in document["segments"]
    ]
    target = Path(os.path.normpath(home / document["target"]))
    if target.suffix != ".gguf":
        raise ValueError(f"{target} is no GGUF's name")
    layout = Layout(tuple(segments))
    proofs = tuple(Proof(name, ((0, layout.n_bytes),), None) for name in document["proofs"])
    stamps = tuple(FileStamp(**s["stamp"]) for s in document["sources"])
    return Consumption(target, layout, sources, stamps, notes, proofs)


def _plain_name(name: str) -> str:
    if name != Path(name).name:
        raise ValueError(f"{name} is no file's name")
    return name


def _check_unchanged(consumption: Consumption, done: int) -> None:
    """Check that the sources are as they were checked, but for what was given back of them."""
    for i, (source, stamp) in enumerate(zip(consumption.sources, consumption.stamps, strict=True)):
        begin, end = consumption.reach(i)
        if done and end <= done:
            continue  # all of it is in the target
        try:
            now = FileStamp.of(source.path.stat())
        except FileNotFoundError:
            now = None
        begun = begin < done  # changed by our own doing: a hole at its beginning
        if (
            now is None
            or now.size_bytes != source.size_bytes
            or not (begun or _same_state(now, stamp) or _is_published(source))
        ):
            hint = "the file as it was helps, or pulling the set anew"
            raise IntegrityError(f"{source.path} was changed since it was checked", hint=hint)


def _is_published(source: LocalSource) -> bool:
    """Say whether a file that was written anew meanwhile, by another pull, is what was published."""
    return source.sha256 is not None and sha256_file(source.path) == source.sha256


def _same_state(now: FileStamp, then: FileStamp) -> bool:
    """Compare, but for the device: its number may be another after a restart."""
    return (now.mtime_ns, now.inode) == (then.mtime_ns, then.inode)
