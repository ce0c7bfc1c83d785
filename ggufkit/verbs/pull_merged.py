"""Get a split quant straight into one merged file: every byte lands at its final place, once.

The shards' headers are read first, by range, and the set is checked. Each shard's published digest is
proven all the same: from its own header, which is kept aside, and its data in the merged file.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ggufkit.errors import AccessError, FormatError, IntegrityError, NoSpaceError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import Layout, Literal
from ggufkit.gguf.pieces import pieces_of
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.engine import PART_SUFFIX, Job, resumable_bytes, write
from ggufkit.transfer.filesystem import check_file
from ggufkit.transfer.http import Http
from ggufkit.transfer.journal import Journal, Range
from ggufkit.transfer.prover import DigestMismatch, FileRange, Proof
from ggufkit.transfer.sources import Source, open_header
from ggufkit.verbs.listing import Served
from ggufkit.verbs.merge import MERGED
from ggufkit.verbs.merged_there import is_done, is_proven, is_recorded, replaced_shards
from ggufkit.verbs.pull import RESERVE_BYTES, PulledFile, PullPlan, State, record_pull
from ggufkit.verbs.record import (
    digests,
    forget_headers,
    header_file,
    journal_path,
    keep_headers,
    kept_headers,
    remember_last,
    write_record,
)
from ggufkit.verbs.remote_shards import Merged, file_name, lay_out, lay_out_parts
from ggufkit.verbs.room import room_text
from ggufkit.verbs.shard_sources import BegunShard, forget_begun, shard_sources


@dataclass(frozen=True, slots=True)
class MergedPlan:
    """What a pull into one merged file would do; only the shards' headers were fetched to make it."""

    pull: PullPlan
    """The shards, as the hub lists them, and which of them are here already."""
    place: Path
    """The merged file's name beside the records."""
    output: Path
    """The file to be written: the same, or where it grows on another disk."""
    header: Header
    """The merged file's header."""
    merged: Merged | None
    """How it is put together; None when it is known to be there already."""
    state: State
    """Whether the merged file is there already, partly there, or not."""
    resumed_bytes: int
    """How much of it an earlier run left."""
    free_bytes: int
    """Free room on the output's disk."""
    disk_named_by: str = "--local-dir"
    """What names another disk for it, in hints."""

    @property
    def n_bytes(self) -> int:
        """Size of the merged file."""
        return self.header.file_size_bytes

    @property
    def needed_bytes(self) -> int:
        """Bytes that are still to be written."""
        return 0 if self.state == "kept" else self.n_bytes - self.resumed_bytes


@dataclass(frozen=True, slots=True)
class MergedReport:
    """What a pull into one merged file came to."""

    repo_id: str
    """`owner/name`."""
    quant: str
    """The quant's name."""
    hub: str
    """The hub that served it."""
    commit: str | None
    """The commit that was pulled, where the hub names one."""
    root: Path
    """The folder that the merged file is below, and the records."""
    output: Path
    """The merged file."""
    n_bytes: int
    """Its size."""
    sha256: str
    """Its digest, bare hex."""
    state: State
    """What had to be done for it."""
    shards: tuple[PulledFile, ...]
    """The shards that went into it; those that are `here` were copied from there."""
    fetched_bytes: int
    """Bytes of tensor data that this run fetched; the headers come on top."""
    n_unproven: int
    """Shards whose digest the hub does not publish."""
    sources: tuple[Served, ...]
    """Which place served how many of these bytes."""
    warnings: tuple[str, ...]
    """Oddities of the shards that do not hinder."""
    seconds: float
    """How long it took."""


def plan_pull_merged(
    pull: PullPlan,
    *,
    grow_in: Path | None = None,
    disk_named_by: str = "--local-dir",
    progress: Progress = SILENT,
) -> MergedPlan:
    """Read the shards' headers, check the set, and look at what of the merged file is there.

    The file goes beside the shards' folder; it grows in the folder `grow_in`, if that is given and the file
    is not there yet; a hint says that `disk_named_by` names another disk. Raises FormatError for shards that
    are no sound set, TargetExistsError when something else has the file's name.
    """
    place = default_target(pull)
    if is_done(pull, place, progress):
        return MergedPlan(pull, place, place, open_header(place), None, "kept", 0, free_bytes(place.parent))
    merged = _lay_out(pull, place, progress)
    elsewhere = grow_in is not None and (place.is_symlink() or not place.exists())
    output = grow_in / place.name if grow_in is not None and elsewhere else place
    check_file(output, merged.layout.n_bytes, disk_named_by)
    free = free_bytes(output.parent)
    plan = MergedPlan(pull, place, output, merged.header, merged, "download", 0, free, disk_named_by)
    if output.exists() and is_proven(pull, place, output, merged, progress):
        return replace(plan, state="kept")
    with Http() as http:
        resumed = resumable_bytes(_job(plan, merged, http, progress))
    state: State = "resume" if resumed else "download"
    return replace(plan, state=state, resumed_bytes=resumed)


def pull_merged(plan: MergedPlan, progress: Progress = SILENT) -> MergedReport:
    """Fetch what is missing of the merged file, prove it and every shard, and record the set.

    Raises NoSpaceError before the first byte when the disk is too small, NetworkError when the hub fails,
    IntegrityError when bytes are not the published ones.
    """
    began = time.monotonic()
    root, cache = plan.pull.root, digests()
    if plan.merged is None or plan.state == "kept":
        sha256 = cache.digest(plan.output)
        _record_begun(plan, sha256)
        Journal(
            journal_path(root, plan.output), ""
        ).forget()  # a run killed after the rename leaves its notes
        return _report(plan, sha256, 0, began)
    _check_room(plan)
    _say_replaced(plan, progress)
    _record_begun(plan, None)
    with plan.pull.repo.http() as http:
        job = _job(plan, plan.merged, http, progress)
        fetched = _bytes_to_fetch(plan, job)
        sha256 = _write(plan, job, progress)
    cache.put(plan.output, sha256)
    _record_merged(plan, sha256)
    forget_begun(plan.pull)
    return _report(plan, sha256, fetched, began)


def is_split(pull: PullPlan) -> bool:
    """Say whether there is anything to merge."""
    return len(pull.files) > 1


def default_target(pull: PullPlan) -> Path:
    """Return where the merged file goes: beside the shards' folder, under the set's name."""
    folder = pull.files[0].target.parent
    return (folder.parent if pull.quant.folder else folder) / f"{pull.quant.stem}.gguf"


def _lay_out(pull: PullPlan, target: Path, progress: Progress) -> Merged:
    kept = kept_headers(pull.root, pull.quant.stem) if is_recorded(pull) else {}
    known = [kept.get(file_name(f)) if f.sha256 else None for f in pull.quant.files]
    progress.note(f"reading the headers of {len(pull.files)} shards")
    try:
        with Http() as http:
            sources = shard_sources(pull, http, progress)
            if pull.quant.kind == "raw":
                return lay_out_parts(target.name, sources)
            return lay_out(target.name, sources, known)
    except FormatError as error:
        where = f"{pull.repo.titles(pull.quant.files)}: {pull.repo.ref.repo_id}"
        raise FormatError(error.file, f"{error.reason} (this is what {where} publishes)") from error


def _job(plan: MergedPlan, merged: Merged, http: Http, progress: Progress) -> Job:
    sources: tuple[Source, ...] = tuple(shard_sources(plan.pull, http, progress))
    journal = journal_path(plan.pull.root, plan.output)
    return Job(plan.output, merged.layout, sources, journal, _proofs(plan, merged.layout))


def _proofs(plan: MergedPlan, layout: Layout) -> tuple[Proof, ...]:
    """Return the proofs of the merged file, and of every shard that comes from a hub with a digest."""
    proofs = [Proof(MERGED, ((0, layout.n_bytes),), None)]
    for i, pulled in enumerate(plan.pull.files):
        if pulled.sha256 is not None and pulled.here is None:
            proofs.append(_shard_proof(plan, layout, i))
    return tuple(proofs)


def _shard_proof(plan: MergedPlan, layout: Layout, i: int) -> Proof:
    file = plan.pull.quant.files[i]
    rest = header_file(plan.pull.root, plan.pull.quant.stem, file_name(file))
    pieces: list[FileRange | Range] = []
    used = 0
    for piece in pieces_of(layout, i, file.size_bytes):
        if piece.at is None:
            pieces.append(FileRange(rest, used, used + piece.n_bytes))
            used += piece.n_bytes
        else:
            pieces.append((piece.at, piece.at + piece.n_bytes))
    return Proof(file_name(file), tuple(pieces), file.sha256)


def _check_room(plan: MergedPlan) -> None:
    need = plan.needed_bytes + RESERVE_BYTES
    if need > plan.free_bytes:
        room = room_text(plan.needed_bytes, plan.free_bytes, kept_bytes=RESERVE_BYTES)
        raise NoSpaceError(
            f"{plan.output.parent}: {room}", hint=f"make room, or name another disk with {plan.disk_named_by}"
        )


def _say_replaced(plan: MergedPlan, progress: Progress) -> None:
    """Say why what an earlier pull left of the file is fetched anew."""
    changed = replaced_shards(plan.pull)
    left = plan.output.with_name(plan.output.name + PART_SUFFIX).exists() or plan.output.exists()
    if changed and left and not plan.resumed_bytes:
        names = ", ".join(changed[:3]) + (", …" if len(changed) > 3 else "")
        progress.note(f"the hub has another version of {names} by now: {plan.output.name} begins anew")


def _record_begun(plan: MergedPlan, sha256: str | None) -> None:
    """Record what is coming, in an order in which a kill leaves nothing that is believed wrongly."""
    root, quant = plan.pull.root, plan.pull.quant
    rests = plan.merged.rests if plan.merged is not None else ()
    kept = {file_name(f): rest for f, rest in zip(quant.files, rests, strict=False) if rest}
    changed = plan.merged is not None and kept_headers(root, quant.stem) != kept
    if changed:
        forget_headers(root, quant.stem)
    _record_merged(plan, sha256)
    remember_last(record_pull(plan.pull))
    if changed and kept:
        keep_headers(root, quant.stem, kept)


def _record_merged(plan: MergedPlan, sha256: str | None) -> None:
    root = plan.pull.root
    path = plan.place.absolute().relative_to(root.absolute()).as_posix()
    file = ManifestFile(path, plan.n_bytes, sha256, None)
    write_record(root, Manifest(plan.place.stem, plan.pull.quant.name, (file,), ()), merged=True)


def _write(plan: MergedPlan, job: Job, progress: Progress) -> str:
    progress.start(f"pulling {plan.output.name}", plan.n_bytes, plan.resumed_bytes)
    try:
        return write(job, progress).digests[MERGED]
    except IntegrityError as error:
        if isinstance(error, DigestMismatch):  # the header that was kept may be what is wrong
            forget_headers(plan.pull.root, plan.pull.quant.stem)
        hint = "the same command fetches it again; if it happens twice, try another --source"
        raise IntegrityError(error.message, hint=hint) from error
    except FileNotFoundError as error:  # a header that is kept beside, mostly with its folder
        hint = "see what else works in this folder, then run the same command again"
        message = f"{error.filename} was removed while {plan.output.name} was written"
        raise AccessError(message, hint=hint) from error
    finally:
        progress.finish()


def _bytes_to_fetch(plan: MergedPlan, job: Job) -> int:
    """Return how many bytes of the merged file are on the hub and not here."""
    journal = Journal(job.journal, job.identity)
    remote = {i for i, pulled in enumerate(plan.pull.files) if pulled.here is None}
    n_bytes = 0
    for position, segment in job.layout.placed():
        if isinstance(segment, Literal) or segment.source not in remote:
            continue
        source, shift = job.sources[segment.source], position - segment.offset
        begun = source.ranges if isinstance(source, BegunShard) else ()
        for start, end in journal.missing(position, position + segment.n_bytes):
            there = ((max(a + shift, start), min(b + shift, end)) for a, b in begun)
            n_bytes += end - start - sum(b - a for a, b in there if a < b)
    return n_bytes


def _report(plan: MergedPlan, sha256: str, fetched_bytes: int, began: float) -> MergedReport:
    origin = plan.pull.repo.origins(plan.pull.quant.files)[0]
    return MergedReport(
        repo_id=origin.repo_id,
        quant=plan.pull.quant.name,
        hub=origin.hub,
        commit=origin.commit,
        root=plan.pull.root,
        output=plan.output,
        n_bytes=plan.n_bytes,
        sha256=sha256,
        state=plan.state,
        shards=plan.pull.files,
        fetched_bytes=fetched_bytes,
        n_unproven=sum(f.sha256 is None for f in plan.pull.files),
        sources=plan.pull.repo.served(),
        warnings=plan.merged.warnings if plan.merged is not None else (),
        seconds=time.monotonic() - began,
    )
