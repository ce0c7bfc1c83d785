"""Cut a file into the shards that llama-gguf-split would make."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import IntegrityError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.gguf.layout import split_layouts
from ggufkit.gguf.shards import ShardName
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.filesystem import check_file
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.prover import DigestMismatch, Proof
from ggufkit.transfer.sources import LocalSource
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.merge import discard
from ggufkit.verbs.record import digests, journal_path
from ggufkit.verbs.room import check_folder, room_text
from ggufkit.verbs.sound import is_same_content


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """What a split would do."""

    source: Path
    """The file to be cut."""
    jobs: tuple[Job, ...]
    """One per shard."""
    existing: tuple[Path, ...]
    """Shards whose names are taken."""
    force: bool
    """Whether those may be replaced."""
    n_bytes: int
    """Bytes of all shards."""
    free_bytes: int
    """Free room on the shards' disk."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The shards."""
        return tuple(job.target for job in self.jobs)


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard that was written."""

    path: Path
    """Where it is."""
    n_bytes: int
    """Its size."""
    sha256: str | None
    """Its digest, bare hex; None when it was there already and its digest is not remembered."""


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What a split came to."""

    source: Path
    """The file that was cut."""
    shards: tuple[Shard, ...]
    """What it was cut into."""
    n_bytes: int
    """Bytes of all shards."""
    already: bool
    """Whether all shards were there already."""
    seconds: float
    """How long it took."""


def plan_split(
    model: LocalModel,
    *,
    max_tensors: int | None = None,
    max_bytes: int | None = None,
    no_tensor_first: bool = False,
    output: Path | None = None,
    force: bool = False,
) -> SplitPlan:
    """Lay out the shards of a model that is one file; `output` is the folder that they go to.

    By default the folder is called like the model and lies beside it, as on the hubs.
    """
    if max_tensors is not None and max_bytes is not None:
        raise UsageError("--max-size and --max-tensors can't both decide", hint="give one of them")
    if model.is_sharded:
        raise UsageError(f"{model.files[0]} is a shard already", hint="ggufkit merge makes one file of them")
    source = LocalSource(model.files[0], model.files[0].stat().st_size)
    layouts = split_layouts(
        model.headers()[0], max_tensors=max_tensors, max_bytes=max_bytes, no_tensor_first=no_tensor_first
    )
    folder = output or model.folder / model.name
    check_folder(folder)
    jobs = []
    for number, layout in enumerate(layouts, 1):
        target = folder / ShardName(model.name, number, len(layouts)).file_name()
        check_file(target, layout.n_bytes, "--output")
        proof = Proof(target.name, ((0, layout.n_bytes),), None)
        jobs.append(Job(target, layout, (source,), journal_path(folder, target), (proof,)))
    existing = tuple(job.target for job in jobs if job.target.exists())
    n_bytes = sum(layout.n_bytes for layout in layouts)
    return SplitPlan(source.path, tuple(jobs), existing, force, n_bytes, free_bytes(folder))


def split(plan: SplitPlan, progress: Progress = SILENT) -> SplitReport:
    """Write the shards; those that are there and the same are left alone.

    Raises TargetExistsError, before anything is written, when a shard's name is taken by other content
    and `force` was not given; NoSpaceError likewise.
    """
    began = time.monotonic()
    todo = [job for job in plan.jobs if not _is_there(plan, job, progress)]
    need = sum(job.layout.n_bytes - resumable_bytes(job) for job in todo)
    if need > plan.free_bytes:
        message = f"{plan.paths[0].parent}: {room_text(need, plan.free_bytes)}"
        raise NoSpaceError(message, hint="make room, or name a folder on another disk with --output")
    progress.start(f"splitting {plan.source.name}", plan.n_bytes, plan.n_bytes - need)
    try:
        for job in todo:
            try:
                report = write(job, progress)
            except DigestMismatch as error:
                discard(job)
                hint = f"{plan.source} is not what the shards were merged into: ggufkit verify says more"
                raise IntegrityError(error.message, hint=hint) from error
            digests().put(job.target, report.digests[job.proofs[0].name])
    finally:
        progress.finish()
    cache = digests()
    shards = tuple(Shard(j.target, j.layout.n_bytes, cache.get(j.target)) for j in plan.jobs)
    return SplitReport(plan.source, shards, plan.n_bytes, not todo, time.monotonic() - began)


def _is_there(plan: SplitPlan, job: Job, progress: Progress) -> bool:
    if job.target not in plan.existing:
        return False
    if is_same_content(job.target, job.layout, job.sources, progress):
        Journal(job.journal, "").forget()  # a run killed after the rename leaves its notes
        return True
    if plan.force:
        return False
    message = f"{job.target} is there and is not what cutting {plan.source.name} gives"
    raise TargetExistsError(message, hint="--force replaces it, --output names another folder")
