"""Make one file of a set of shards: one new header, one range copy per shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import IntegrityError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import Layout, merge_layout
from ggufkit.gguf.pieces import pieces_of
from ggufkit.gguf.shards import check_set
from ggufkit.hubs.manifest import RECORD_FOLDER, Manifest, ManifestFile
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.engine import PART_SUFFIX, Job, resumable_bytes, write
from ggufkit.transfer.filesystem import check_file
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.prover import DigestMismatch, FileRange, Proof
from ggufkit.transfer.sources import LocalSource, Source
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.record import (
    LEVELS_UP,
    Record,
    digests,
    journal_path,
    pull_command,
    records_in,
    write_record,
)
from ggufkit.verbs.room import check_folder, room_text
from ggufkit.verbs.shard_memory import keep_shards
from ggufkit.verbs.sound import has_same_header, is_same_content

MERGED = "the merged file"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge would do; every check of the set has passed."""

    model: LocalModel
    """The shards (or the one file that needs no merging)."""
    output: Path
    """The file to be written."""
    n_shards: int
    """How many shards go into it."""
    n_bytes: int
    """Its size."""
    job: Job | None
    """The work; None when the model is one file already."""
    exists: bool
    """Whether there is something under the output's name."""
    force: bool
    """Whether that may be replaced."""
    free_bytes: int
    """Free room on the output's disk."""
    warnings: tuple[str, ...]
    """Oddities of the shards that do not hinder."""
    pieces: Literal["shard", "part"] = "shard"
    """What it is made of: shards, or raw parts."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge came to."""

    output: Path
    """The merged file."""
    n_bytes: int
    """Its size."""
    n_shards: int
    """How many shards went into it."""
    sha256: str | None
    """Its digest, bare hex; None when it was not taken."""
    already: bool
    """Whether the sound merged file was there already."""
    seconds: float
    """How long it took."""
    freed_bytes: int = 0
    """Bytes of the shards that went with it (--consume)."""
    pieces: Literal["shard", "part"] = "shard"
    """What it was made of: shards, or raw parts."""


def plan_merge(
    model: LocalModel,
    *,
    output: Path | None = None,
    keep_split_keys: bool = False,
    verify: bool = True,
    force: bool = False,
) -> MergePlan:
    """Check the set and lay out the merged file; nothing is written.

    With `verify` the merged file's digest is taken, and each shard's checked that has a published one.
    Raises FormatError for a set that is not whole and sound, UsageError for an output that is an input.
    """
    headers = model.headers()
    if not model.is_sharded:
        return _nothing_to_do(model, headers[0], output)
    shards = check_set(headers)
    output = output or default_output(model)
    if output.is_dir():
        output = output / f"{model.name}.gguf"
    check_output(model, output)
    layout = merge_layout(shards, keep_split_keys=keep_split_keys)
    check_file(output, layout.n_bytes, "--output")
    record = model.record
    sources = tuple(_source(path, record) for path in model.files)
    job = merge_job(output, layout, sources, record, verify)
    return MergePlan(
        model=model,
        output=output,
        n_shards=len(headers),
        n_bytes=layout.n_bytes,
        job=job,
        exists=output.exists(),
        force=force,
        free_bytes=free_bytes(output.parent),
        warnings=shards.warnings,
    )


def merge(plan: MergePlan, progress: Progress = SILENT) -> MergeReport:
    """Write the merged file; inputs are only read.

    Raises TargetExistsError when something else has the output's name and `force` was not given,
    NoSpaceError before the first byte, IntegrityError when a shard is not what was published.
    """
    began = time.monotonic()
    if plan.job is None:
        return _report(plan, digests().get(plan.output), True, began)
    if plan.exists and not plan.force:
        return _report(plan, check_existing(plan, progress), True, began)
    _check_room(plan, plan.job)
    progress.start(f"merging {plan.output.name}", plan.n_bytes, resumable_bytes(plan.job))
    try:
        report = write(plan.job, progress)
    except DigestMismatch as error:
        discard(plan.job)
        command = pull_command(plan.model.record) if plan.model.record is not None else None
        hint = f"{command or 'pulling it again'} fetches that shard anew"
        raise IntegrityError(error.message, hint=hint) from error
    finally:
        progress.finish()
    sha256 = report.digests.get(MERGED)
    _remember(plan, plan.job, sha256)
    return _report(plan, sha256, False, began)


def discard(job: Job) -> None:
    """Remove what an ended run kept to go on with: with another source, a mended shard, it is of no use."""
    job.part.unlink(missing_ok=True)
    Journal(job.journal, "").forget()


def forget_notes(output: Path) -> None:
    """Remove the notes of a merge that was killed when the file had its name already."""
    if output.with_name(output.name + PART_SUFFIX).exists():
        return
    for root in output.absolute().parents[:LEVELS_UP]:
        if (root / RECORD_FOLDER).is_dir():
            Journal(journal_path(root, output), "").forget()


def default_output(model: LocalModel) -> Path:
    """Return where a merged file goes: beside the shards' folder, or beside shards that share theirs.

    A folder that holds nothing but this set is the set's own; then the file lies next to it.
    """
    own_folder = model.record is not None and model.folder.absolute() != model.record.root.absolute()
    own_folder = own_folder or model.folder.name == model.name
    folder = model.folder.parent if own_folder else model.folder
    return folder / f"{model.name}.gguf"


def _nothing_to_do(model: LocalModel, header: Header, output: Path | None) -> MergePlan:
    path = model.files[0]
    output = output / path.name if output is not None and output.is_dir() else output
    if output is not None and not (output.exists() and output.samefile(path)):
        raise UsageError(f"{path} is one file already", hint="there is nothing to merge: copy it")
    size = header.file_size_bytes
    return MergePlan(model, path, 1, size, None, True, False, free_bytes(path.parent), header.warnings)


def check_output(model: LocalModel, output: Path, pieces: str = "shard") -> None:
    """Raise UsageError when the output is one of the inputs, or no file."""
    check_folder(output.parent)
    if not output.exists():
        return
    if any(output.samefile(path) for path in model.files):
        raise UsageError(f"{output} is one of the {pieces}s", hint="name another file with --output")
    if not output.is_file():
        raise UsageError(f"{output} is no file", hint="name another file with --output")


def merge_job(
    output: Path, layout: Layout, sources: tuple[LocalSource, ...], record: Record | None, verify: bool
) -> Job:
    """Return the work of making `output` out of local files, with the proofs that `verify` asks for."""
    proofs = _proofs(layout, sources) if verify else ()
    root = record.root if record is not None else output.parent
    return Job(output, layout, sources, journal_path(root, output), proofs)


def _source(path: Path, record: Record | None) -> LocalSource:
    sha256 = record.digest_of(path) if record is not None else None
    return LocalSource(path, path.stat().st_size, sha256)


def _proofs(layout: Layout, sources: tuple[LocalSource, ...]) -> tuple[Proof, ...]:
    """Return the proofs of the merged file, and of every shard that is not known to be sound."""
    proofs = [Proof(MERGED, ((0, layout.n_bytes),), None)]
    cache = digests()
    for i, source in enumerate(sources):
        if source.sha256 is not None and cache.get(source.path) != source.sha256:
            proofs.append(_shard_proof(layout, i, source))
    return tuple(proofs)


def _shard_proof(layout: Layout, i: int, source: LocalSource) -> Proof:
    """Prove a shard from its header and the places in the merged file that its data go to."""
    pieces = tuple(
        FileRange(source.path, p.start, p.end) if p.at is None else (p.at, p.at + p.n_bytes)
        for p in pieces_of(layout, i, source.size_bytes)
    )
    return Proof(source.path.name, pieces, source.sha256)


def check_existing(plan: MergePlan, progress: Progress = SILENT) -> str | None:
    """Return the digest (None when it is not known) of an output that is there and is what merging gives.

    Raises TargetExistsError when it is something else.
    """
    assert plan.job is not None, "one file is nothing to compare with"
    known = digests().get(plan.output)
    job = plan.job
    proven = known is not None and known in _merged_digests(plan) and has_same_header(plan.output, job.layout)
    if not proven and not is_same_content(plan.output, job.layout, job.sources, progress):
        message = f"{plan.output} is there and is not what merging these shards gives"
        raise TargetExistsError(message, hint="--force replaces it, --output names another file")
    Journal(job.journal, "").forget()  # a run killed after the rename leaves its notes
    return known


def _merged_digests(plan: MergePlan) -> set[str | None]:
    """Return the digests that earlier merges recorded for the output's name."""
    return {r.digest_of(plan.output) for r in records_in(record_root(plan)) if not r.manifest.sources}


def record_root(plan: MergePlan) -> Path:
    """Return the folder whose records are to know of the output: the pulled set's, if it lies in there."""
    record = plan.model.record
    inside = record is not None and plan.output.absolute().is_relative_to(record.root.absolute())
    return record.root if record is not None and inside else plan.output.parent


def _check_room(plan: MergePlan, job: Job) -> None:
    need = plan.n_bytes - resumable_bytes(job)
    if need > plan.free_bytes:
        hint = f"--consume gives the {plan.pieces}s up as it goes; --output names a file on another disk"
        raise NoSpaceError(f"{plan.output.parent}: {room_text(need, plan.free_bytes)}", hint=hint)


def _remember(plan: MergePlan, job: Job, sha256: str | None) -> None:
    cache = digests()
    for source in job.sources:
        if source.sha256 is not None and any(p.name == Path(source.name).name for p in job.proofs):
            cache.put(Path(source.name), source.sha256)
    record, root = plan.model.record, record_root(plan)
    if record is None or root != record.root:
        if sha256 is not None:
            cache.put(plan.output, sha256)
        return  # not beside a pulled set: a folder of records is not ours to make
    if plan.model.is_sharded:
        keep_shards(root, shards_manifest(plan, job.sources), job.layout, job.sources)
    if sha256 is not None:
        record_merged(plan, root, sha256)


def record_merged(plan: MergePlan, root: Path, sha256: str) -> None:
    """Remember the merged file's digest, and record it in `root`."""
    digests().put(plan.output, sha256)
    record = plan.model.record
    local = plan.output.absolute().relative_to(root.absolute()).as_posix()
    file = ManifestFile(local, plan.n_bytes, sha256, None)
    quant = record.manifest.quant if record is not None else None
    write_record(root, Manifest(plan.output.stem, quant, (file,), ()), merged=True)


def shards_manifest(plan: MergePlan, sources: Sequence[Source]) -> Manifest:
    """Return what the shards are: as a pull recorded them, else as they lie there."""
    record, root = plan.model.record, record_root(plan)
    if record is not None and root == record.root:
        return replace(record.manifest, name=plan.model.name)
    home = root.absolute()
    files = []
    for source in sources:
        path = Path(source.name).absolute()
        inside = path.is_relative_to(home)
        local = path.relative_to(home).as_posix() if inside else f"{plan.model.name}/{path.name}"
        files.append(ManifestFile(local, source.size_bytes, digests().get(path), None))
    return Manifest(plan.model.name, None, tuple(files), ())


def _report(plan: MergePlan, sha256: str | None, already: bool, began: float) -> MergeReport:
    seconds = time.monotonic() - began
    return MergeReport(plan.output, plan.n_bytes, plan.n_shards, sha256, already, seconds, pieces=plan.pieces)
