"""`merge --consume`: one file of a set of shards, in the space of one copy; the shards go with it."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import AccessError, IntegrityError, NoSpaceError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer import consume as engine
from ggufkit.transfer.consume_notes import (
    Consumption,
    alone,
    begin,
    durable_bytes,
    load_notes,
    note,
    sync_file,
)
from ggufkit.transfer.digest import FileStamp
from ggufkit.transfer.disk import free_bytes, fsync_folder, same_file_system
from ggufkit.transfer.engine import WriteReport
from ggufkit.transfer.holders import holders
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.sources import LocalSource
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.merge import (
    MERGED,
    MergePlan,
    MergeReport,
    check_existing,
    plan_merge,
    record_merged,
    record_root,
    shards_manifest,
)
from ggufkit.verbs.record import consume_notes, digests, journal_path, pull_command
from ggufkit.verbs.room import room_text
from ggufkit.verbs.shard_memory import keep_shards


@dataclass(frozen=True, slots=True)
class ConsumePlan:
    """What merging shards and giving them up would do."""

    merge: MergePlan
    """The merge; of one that was interrupted only the names and sizes count."""
    consumption: Consumption
    """What is written out of what."""
    resumed_bytes: int
    """How much of the merged file an interrupted run has made durable."""
    begun: bool
    """Whether such a run is being gone on with: its shards are partly given up."""
    verify: bool
    """Whether shards are checked against their digests before anything of them is given up."""
    extra_bytes: int
    """How much free room it needs, where the file system gives back parts of files."""
    unproven: tuple[str, ...]
    """Names of shards that nobody published a digest of."""

    @property
    def shards(self) -> tuple[Path, ...]:
        """The files that go."""
        return tuple(source.path for source in self.consumption.sources)

    @property
    def freed_bytes(self) -> int:
        """Bytes of the shards, all given back in the end."""
        return sum(source.size_bytes for source in self.consumption.sources)


def plan_consume(
    model: LocalModel,
    *,
    output: Path | None = None,
    keep_split_keys: bool = False,
    verify: bool = True,
    force: bool = False,
) -> ConsumePlan | MergePlan:
    """Check the set, and that nobody else needs its files; nothing is written.

    Goes on with what an interrupted run began. A model that is one file already gives a MergePlan of
    nothing to do. Raises AccessError when a shard has another name or a program has it open.
    """
    begun = begun_consumption(model)
    if begun is not None:
        return resumed_plan(model, begun, output, verify)
    plan = plan_merge(model, output=output, keep_split_keys=keep_split_keys, verify=verify, force=force)
    return plan if plan.job is None else plan_consume_of(plan, verify=verify)


def plan_consume_of(plan: MergePlan, *, verify: bool = True) -> ConsumePlan:
    """Turn the plan of a merge (or of a join of raw parts) into one that gives up what it merges."""
    assert plan.job is not None, "there is something to merge"
    _check_name(plan.output)
    sources = tuple(s for s in plan.job.sources if isinstance(s, LocalSource))
    check_unshared([source.path for source in sources])
    stamps = tuple(FileStamp.of(source.path.stat()) for source in sources)
    proofs = tuple(proof for proof in plan.job.proofs if proof.name == MERGED)
    notes = consume_notes(plan.model.folder, plan.model.name)
    made = Consumption(plan.output, plan.job.layout, sources, stamps, notes, proofs)
    unproven = tuple(source.path.name for source in sources if source.sha256 is None)
    extra = made.extra_bytes if same_file_system(made.target, plan.model.folder) else plan.n_bytes
    return ConsumePlan(plan, made, 0, False, verify, extra, unproven)


def consume(plan: ConsumePlan, progress: Progress = SILENT) -> MergeReport:
    """Write the merged file and remove the shards, or go on with it; nothing is given up unproven.

    Raises IntegrityError before anything is given up when a shard is not what was published,
    TargetExistsError when other content has the output's name and `force` was not given, NoSpaceError
    when not even the extra room is there.
    """
    began = time.monotonic()
    made, merge = plan.consumption, plan.merge
    _make_folder(made.target.parent)
    if not plan.begun:
        if merge.exists and not merge.force:
            check_existing(merge, progress)
            return _remove_only(plan, began)
        if plan.verify:
            _prove(plan, progress)
        _check_room(plan)
        _keep(plan)

    def finished(written: WriteReport) -> None:
        record = merge.model.record
        journal = journal_path(record.root if record is not None else made.target.parent, made.target)
        Journal(journal, "").forget()  # of a merge without --consume that was interrupted
        sha256 = written.digests.get(MERGED)
        if sha256 is not None:
            record_merged(merge, record_root(merge), sha256)

    progress.start(f"merging {made.target.name}", merge.n_bytes, plan.resumed_bytes)
    try:
        report = engine.consume(made, progress, finished=finished)
    finally:
        progress.finish()
    return _report(plan, report.digests.get(MERGED), False, began)


def check_unshared(paths: list[Path]) -> None:
    """Raise AccessError when giving up the files would take them from somebody else."""
    for path in paths:
        if path.is_symlink():
            hint = "merge without --consume, and remove what you don't need yourself"
            raise AccessError(f"{path} is a link to {os.path.realpath(path)}", hint=hint)
        if path.stat().st_nlink > 1:
            message = f"{path} has another name somewhere (a hard link, as imports and caches make)"
            hint = "consuming would empty that too: merge without --consume, or remove the other name"
            raise AccessError(message, hint=hint)
        if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            raise AccessError(f"{path} may not be changed by this user", hint="merge without --consume")
    held = holders(paths)
    if held:
        first = held[0]
        more = f", and {len(held) - 1} more" if len(held) > 1 else ""
        message = f"{first.path} is in use by {first.program} (process {first.pid}){more}"
        raise AccessError(message, hint="end it, then run the same command again")


def begun_consumption(model: LocalModel) -> Consumption | None:
    """Return what an interrupted run began with these shards, or with those this merged file is made of."""
    notes = [consume_notes(model.folder, model.name)]
    if not model.is_sharded:  # all shards may be gone, and only the notes left
        notes += [consume_notes(folder, model.name) for folder in model.folder.iterdir() if folder.is_dir()]
    found = (load_notes(path) for path in notes)
    return next((made for made in found if made is not None), None)


def resumed_plan(
    model: LocalModel,
    made: Consumption,
    output: Path | None,
    verify: bool,
    *,
    pieces: Literal["shard", "part"] = "shard",
) -> ConsumePlan:
    """Plan the rest of what an interrupted run began, whatever is left of the shards."""
    wanted = output / made.target.name if output is not None and output.is_dir() else output
    if wanted is not None and os.path.realpath(wanted) != os.path.realpath(made.target):
        message = f"{model.folder / model.name} is being merged into {made.target} already"
        raise UsageError(message, hint="the same command without --output goes on with it")
    check_unshared([source.path for source in made.sources if source.path.exists()])
    n_bytes, done = made.layout.n_bytes, durable_bytes(made.notes)
    merge = MergePlan(
        model=model,
        output=made.target,
        n_shards=len(made.sources),
        n_bytes=n_bytes,
        job=None,
        exists=made.target.exists(),
        force=True,
        free_bytes=free_bytes(made.target.parent),
        warnings=(),
        pieces=pieces,
    )
    return ConsumePlan(merge, made, done, True, verify, made.extra_bytes, ())


def _prove(plan: ConsumePlan, progress: Progress) -> None:
    """Check each shard that has a published digest, unless it is known to have it."""
    cache = digests()
    todo = [s for s in plan.consumption.sources if s.sha256 and cache.get(s.path) != s.sha256]
    if not todo:
        return
    progress.start("checking the shards", sum(source.size_bytes for source in todo))
    try:
        for source in todo:
            sha256 = cache.digest(source.path, progress)
            if sha256 != source.sha256:
                record = plan.merge.model.record
                command = pull_command(record) if record is not None else None
                message = f"{source.path.name}: SHA-256 is {sha256}, expected {source.sha256}"
                hint = f"nothing was given up; {command or 'pulling it again'} fetches that shard anew"
                raise IntegrityError(message, hint=hint)
    finally:
        progress.finish()


def _check_room(plan: ConsumePlan) -> None:
    made, free = plan.consumption, plan.merge.free_bytes
    need = plan.merge.n_bytes
    if same_file_system(made.target, plan.merge.model.folder):
        need = engine.extra_bytes_needed(made)
    if need > free:
        room = room_text(need, free, what=f"needed besides the {plan.merge.pieces}s")
        why = "; this file system gives back whole files only" if need > plan.extra_bytes else ""
        hint = "make room, then run the same command again"
        raise NoSpaceError(f"{made.target.parent}: {room}{why}", hint=hint)


def _check_name(output: Path) -> None:
    """Refuse another name than a GGUF's: notes of a run that is to write one are not believed."""
    if output.suffix != ".gguf":
        hint = f"--output {shlex.quote(str(output.with_name(output.name + '.gguf')))}"
        raise UsageError(f"{output} is no GGUF's name, and it will be all there is of the model", hint=hint)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: the file in it will be all there is of the model."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        hint = "name another file with --output"
        raise AccessError(f"{folder} can't be made: {error.strerror}", hint=hint) from error
    fsync_folder(folder.parent)


def _keep(plan: ConsumePlan) -> None:
    """Keep what `split --restore` needs, durably, before the shards go."""
    made, merge = plan.consumption, plan.merge
    if merge.model.is_sharded:
        keep_shards(record_root(merge), shards_manifest(merge, made.sources), made.layout, made.sources)


def _remove_only(plan: ConsumePlan, began: float) -> MergeReport:
    """Remove the shards of a merged file that is there: it was compared with them, byte by byte."""
    made = plan.consumption
    _keep(plan)
    sync_file(made.target)
    with alone(made) as slots:
        made.part.unlink(missing_ok=True)  # of a merge that was interrupted: its place is taken
        fsync_folder(made.target.parent)
        begin(made, slots)
        note(slots, made.layout.n_bytes)  # so that a run that is killed in between is gone on with
    engine.remove_sources(made)
    return _report(plan, digests().get(plan.merge.output), True, began)


def _report(plan: ConsumePlan, sha256: str | None, already: bool, began: float) -> MergeReport:
    merge, seconds = plan.merge, time.monotonic() - began
    return MergeReport(
        merge.output,
        merge.n_bytes,
        merge.n_shards,
        sha256,
        already,
        seconds,
        freed_bytes=plan.freed_bytes,
        pieces=merge.pieces,
    )
