"""Taking over what other programs fetched: linked when it is whole and proven, else used for what it has.

Other programs' files are only read, or get a second name. A part of a file is copied to its place by the
engine, like bytes from a hub, and proven with the rest by the published digest; if that comes out wrong
the file is fetched without it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.manifest import RECORD_FOLDER
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.disk import fsync_folder, hard_link_refused, link_or_copy
from ggufkit.transfer.engine import Job
from ggufkit.transfer.filesystem import file_system_of
from ggufkit.transfer.journal import Journal, Range, joined
from ggufkit.transfer.sources import Source
from ggufkit.verbs.adopting import Adopting, Piece
from ggufkit.verbs.blocks import first_bad_block, kept_blocks
from ggufkit.verbs.leftovers import Leftover, Places
from ggufkit.verbs.record import digests
from ggufkit.verbs.scan import scan_file, without

SAMPLE_BYTES = 4096
"""So much of the beginning and the end of a leftover is compared with the hub's before it is used."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What another program left of one file that is to be pulled."""

    whole: Path | None
    """A file with the published digest; it gets a second name, or is copied where that can't be."""
    pieces: tuple[Piece, ...]
    """Else ranges that are likely right, which are copied; none overlap."""
    in_place: bool
    """Whether the pieces are in the broken target itself, which becomes the part file: nothing is copied."""
    n_bytes: int
    """How many bytes need not be fetched."""
    copied_bytes: int
    """How many of them take room again: those that can't be linked."""

    @property
    def origins(self) -> tuple[Path, ...]:
        """The files that bytes come from."""
        return (self.whole,) if self.whole else tuple(dict.fromkeys(p.path for p in self.pieces))


class Readable(Source, Protocol):
    """A source that small ranges can be read of."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return a range as bytes."""


def plan_adoption(places: Places, file: RemoteFile, job: Job, progress: Progress = SILENT) -> Adoption | None:
    """Return what can be taken over for `file`, or None; only reads. `job` is how it would be fetched.

    Without a published digest nothing is: there would be nothing to prove it with.
    """
    if file.sha256 is None or not file.size_bytes:
        return None
    usable: list[Leftover] = []
    for left in [*_foreign_part(job, file), *places.find(file, job.target)]:
        if left.path.stat().st_size == left.n_bytes == file.size_bytes:
            if _digest(left.path, progress) == file.sha256:
                linkable = file_system_of(job.target.parent).hard_links
                refused = hard_link_refused(left.path, job.target.parent) if linkable else "no links"
                return Adoption(left.path, (), False, file.size_bytes, file.size_bytes if refused else 0)
            left = _unbroken(left, places.root, file.sha256)
        usable.append(left)
    return _of_parts(usable, file, job)


def _digest(path: Path, progress: Progress) -> str:
    known = digests().get(path)
    if known is None:
        progress.start(f"checking {path}, which was there already", path.stat().st_size)
        try:
            known = digests().digest(path, progress)
        finally:
            progress.finish()
    return known


def _unbroken(left: Leftover, root: Path, sha256: str) -> Leftover:
    """Leave out the zeros and the bad block of a file with the right size and a wrong digest.

    When neither tells where it is wrong nothing of it is believed.
    """
    scan = scan_file(left.path)
    block = first_bad_block(scan, kept_blocks(root, sha256))
    gaps = scan.zeros + ((block,) if block is not None else ())
    return Leftover(left.path, without(scan.n_bytes, gaps) if gaps else ())


def _foreign_part(job: Job, file: RemoteFile) -> list[Leftover]:
    """Return what another program (Firefox) calls like our part file, when we have noted nothing of it."""
    notes = [job.journal.with_name(job.journal.name + end) for end in (".durable", ".written")]
    if any(note.exists() for note in notes) or not job.part.is_file():
        return []
    found = Places.look_at(job.part, file, job.target.name)
    return [found] if found else []


def _of_parts(leftovers: Sequence[Leftover], file: RemoteFile, job: Job) -> Adoption | None:
    """Put the ranges of several leftovers together, the largest first, each byte once."""
    missing = _missing(job)
    own = [left for left in leftovers if left.path in (job.target, job.part) and left.n_bytes]
    if own and _can_go_on(own[0].path, job, file.size_bytes):
        pieces = _pieces(own[:1], missing)
        n_bytes = sum(p.end - p.start for p in pieces)
        return Adoption(None, pieces, True, n_bytes, 0) if pieces else None
    pieces = _pieces(leftovers, missing)
    n_bytes = sum(p.end - p.start for p in pieces)
    return Adoption(None, pieces, False, n_bytes, n_bytes) if pieces else None


def _pieces(leftovers: Iterable[Leftover], missing: Sequence[Range]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for left in leftovers:
        ranges = [(max(a, c), min(b, d)) for a, b in missing for c, d in left.ranges if max(a, c) < min(b, d)]
        pieces += [Piece(left.path, a, b, a - left.offset) for a, b in ranges]
        missing = [gap for a, b in missing for gap in _gaps(a, b, ranges)]
    return tuple(sorted(pieces, key=lambda piece: piece.start))


def _gaps(start: int, end: int, taken: Sequence[Range]) -> list[Range]:
    inside = tuple((a - start, b - start) for a, b in taken if start <= a < end)
    return [(a + start, b + start) for a, b in without(end - start, inside)]


def _missing(job: Job) -> list[Range]:
    """Return what an earlier run of ours has not left."""
    journal = Journal(job.journal, job.identity)
    journal.clip(job.part.stat().st_size if job.part.is_file() else 0)
    return journal.missing(0, job.layout.n_bytes)


def _can_go_on(path: Path, job: Job, size_bytes: int) -> bool:
    """Say whether a broken file in our own place can become the part file without a copy."""
    status = path.lstat()
    alone = status.st_nlink == 1 and not path.is_symlink() and status.st_size <= size_bytes
    return alone and (path == job.part or not os.path.lexists(job.part))


def link_whole(
    root: Path, wanted: Sequence[tuple[Adoption, Job]], *, links: bool = True, progress: Progress = SILENT
) -> set[Path]:
    """Give whole files that were found their second names; returns the targets that are there now.

    All are linked aside first: one may lie where another goes. A file that is not what it was is left out.
    Without `links` (a disk that has none) they are copied at once.
    """
    if not links and any(adoption.whole and not adoption.copied_bytes for adoption, _ in wanted):
        progress.note(f"the disk of {root} has no hard links: what was found is copied")
    aside = root / RECORD_FOLDER / "adopting"
    staged: list[tuple[Path, Job]] = []
    for i, (adoption, job) in enumerate(wanted):
        expected = job.proofs[0].expected
        if adoption.whole is None or expected is None or _digest(adoption.whole, SILENT) != expected:
            continue
        aside.mkdir(parents=True, exist_ok=True)
        held = aside / str(i)
        held.unlink(missing_ok=True)
        heard = progress if adoption.copied_bytes else _NotesOf(progress)  # a link counts as done already
        link_or_copy(adoption.whole, held, method="auto" if links else "copy", progress=heard)
        staged.append((held, job))
    for held, job in staged:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        held.replace(job.target)
        fsync_folder(job.target.parent)
        digests().put(job.target, job.proofs[0].expected or "")
        job.part.unlink(missing_ok=True)
        Journal(job.journal, job.identity).forget()
    with contextlib.suppress(OSError):
        aside.rmdir()
    return {job.target for _, job in staged}


@dataclass(frozen=True, slots=True)
class _NotesOf:
    """Passes on what is said, and no bytes."""

    progress: Progress

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Hear nothing."""

    def advance(self, n_bytes: int) -> None:
        """Hear nothing."""

    def note(self, message: str) -> None:
        """Pass it on."""
        self.progress.note(message)

    def finish(self) -> None:
        """Hear nothing."""


def confirmed(adoption: Adoption, source: Readable, progress: Progress = SILENT) -> Adoption | None:
    """Return what of an adoption of pieces agrees with the hub at the ends of each file; None for nothing."""
    good = [path for path in adoption.origins if _agrees(path, adoption.pieces, source)]
    for path in adoption.origins:
        if path not in good:
            progress.note(f"{path} is not what {source.name} is on the hub: nothing of it is used")
    pieces = tuple(piece for piece in adoption.pieces if piece.path in good)
    n_bytes = sum(piece.end - piece.start for piece in pieces)
    copied = 0 if adoption.in_place else n_bytes
    return Adoption(None, pieces, adoption.in_place, n_bytes, copied) if pieces else None


def _agrees(path: Path, pieces: Iterable[Piece], source: Readable) -> bool:
    mine = [piece for piece in pieces if piece.path == path]
    first, last = mine[0], mine[-1]
    start = max(last.start, last.end - SAMPLE_BYTES)
    samples = [
        (first.start, first.at, min(SAMPLE_BYTES, first.end - first.start)),
        (start, last.at + start - last.start, last.end - start),
    ]
    try:
        with path.open("rb", buffering=0) as file:
            local = [read_at(file.fileno(), n_bytes, at) for _, at, n_bytes in samples]
    except OSError:
        return False
    return all(data == source.read(at, n) for data, (at, _, n) in zip(local, samples, strict=True))


def go_on_with(adoption: Adoption, job: Job) -> bool:
    """Make the broken target the part file, and note what it has; False when that can't be."""
    path = adoption.origins[0]
    try:
        if path != job.part:
            os.link(path, job.part)  # unlike a rename, this never replaces another process' part file
            path.unlink()
        fd = os.open(job.part, os.O_RDWR)
    except OSError:
        return False
    try:
        journal = Journal(job.journal, job.identity)
        journal.ranges = joined([(piece.start, piece.end) for piece in adoption.pieces])
        journal.stop(fd)
    finally:
        os.close(fd)
    return True


def adopting(job: Job, adoption: Adoption, progress: Progress = SILENT) -> Job:
    """Return the job with what was left for it taken over, as far as the hub agrees with its ends."""
    if adoption.whole is not None:  # it was not what it had been, or it would have been linked
        return job
    source: Any = job.sources[0]
    good = confirmed(adoption, source, progress)
    if good is None or (good.in_place and go_on_with(good, job)):
        return job
    return replace(job, sources=(Adopting(source, list(good.pieces)),))
