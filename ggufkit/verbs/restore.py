"""`split --restore`: the published shards of a merged file, byte for byte."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ggufkit.errors import NotFoundError, UsageError
from ggufkit.gguf.layout import Layout
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.engine import Job
from ggufkit.transfer.filesystem import check_file
from ggufkit.transfer.prover import Proof
from ggufkit.transfer.sources import LocalSource
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.record import journal_path
from ggufkit.verbs.room import check_folder
from ggufkit.verbs.shard_memory import KeptSet, find_kept
from ggufkit.verbs.split import SplitPlan


def plan_restore(model: LocalModel, *, output: Path | None = None, force: bool = False) -> SplitPlan:
    """Lay out the shards that the merged file was made of, as they were published; `output` is a folder.

    By default they go to where they lay. Raises NotFoundError when nobody kept their headers: a merge
    without a pull's record keeps none.
    """
    if model.is_sharded:
        raise UsageError(f"{model.files[0]} is a shard already", hint="there is nothing to restore")
    merged = model.files[0]
    kept = find_kept(merged)
    if kept is None:
        hint = "ggufkit split --max-size cuts it into shards of your choice, which are not the published ones"
        raise NotFoundError(f"what {merged} was merged from is not recorded", hint=hint)
    source = LocalSource(merged, merged.stat().st_size)
    jobs = tuple(_job(kept, i, layout, source, output) for i, layout in enumerate(kept.layouts))
    existing = tuple(job.target for job in jobs if job.target.exists())
    n_bytes = sum(job.layout.n_bytes for job in jobs)
    return SplitPlan(merged, jobs, existing, force, n_bytes, free_bytes(jobs[0].target.parent))


def _job(kept: KeptSet, i: int, layout: Layout, source: LocalSource, output: Path | None) -> Job:
    file = kept.files[i]
    name = PurePosixPath(file.path).name
    target = output / name if output is not None else kept.path_of(i)
    check_folder(target.parent)
    check_file(target, layout.n_bytes, "--output")
    proof = Proof(name, ((0, layout.n_bytes),), file.sha256)
    root = kept.root if output is None else output
    return Job(target, layout, (source,), journal_path(root, target), (proof,))
