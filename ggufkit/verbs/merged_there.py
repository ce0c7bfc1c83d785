"""Whether a merged file that is there is what pulling a set's shards would make."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ggufkit.errors import TargetExistsError
from ggufkit.gguf.layout import Layout, Literal
from ggufkit.gguf.pieces import pieces_of
from ggufkit.progress import Progress
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.prover import BLOCK_BYTES
from ggufkit.verbs.pull import PullPlan
from ggufkit.verbs.record import Record, digests, records_in
from ggufkit.verbs.remote_shards import Merged
from ggufkit.verbs.sound import has_same_header


def is_done(pull: PullPlan, target: Path, progress: Progress) -> bool:
    """Say whether the target is what an earlier run made of these very shards."""
    record = merged_record(pull, target)
    expected = record.digest_of(target) if record is not None else None
    if expected is None or not target.is_file() or not is_recorded(pull):
        return False
    cache = digests()
    known = cache.get(target)
    if known is None:
        progress.start(f"checking {target.name}, which is there already", target.stat().st_size)
        try:
            known = cache.digest(target, progress)
        finally:
            progress.finish()
    return known == expected


def merged_instead(pull: PullPlan, place: Path) -> Path | None:
    """Return the file that holds these very shards when none of them is here, by what was recorded of it."""
    if any(file.state != "download" for file in pull.files) or len(pull.files) < 2:
        return None
    record = merged_record(pull, place)
    if record is None or not is_recorded(pull) or not place.is_file():
        return None
    (file,) = record.manifest.files
    return place if file.sha256 is not None and file.size_fits(place.stat().st_size) else None


def merged_record(pull: PullPlan, target: Path) -> Record | None:
    """Return the record of a merged file that has the target's name."""
    for record in records_in(pull.root):
        if not record.manifest.sources and target.absolute() in (p.absolute() for p in record.paths()):
            return record
    return None


def is_recorded(pull: PullPlan) -> bool:
    """Say whether the last pull of this name was of the very files that the hub lists now."""
    listed = [(f.path, f.size_bytes, f.sha256) for f in pull.files]
    return any(
        [(f.path, f.size_bytes, f.sha256) for f in record.manifest.files] == listed
        for record in records_in(pull.root)
        if record.manifest.sources and record.manifest.name == pull.quant.stem
    )


def replaced_shards(pull: PullPlan) -> tuple[str, ...]:
    """Return the names of shards of which an earlier pull of this set had another version."""
    earlier = {
        file.path: (file.size_bytes, file.sha256)
        for record in records_in(pull.root)
        if record.manifest.sources and record.manifest.name == pull.quant.stem
        for file in record.manifest.files
    }
    listed = ((f.path, (f.size_bytes, f.sha256)) for f in pull.files)
    return tuple(path.rpartition("/")[2] for path, now in listed if earlier.get(path, now) != now)


def is_proven(pull: PullPlan, place: Path, target: Path, merged: Merged, progress: Progress) -> bool:
    """Say whether the file `target` holds the published shards (a run was killed before it said so).

    `place` is the name that the records have for it. Our own of an earlier version is replaced; raises
    TargetExistsError for what is not ours.
    """
    if target.is_file() and _may_hold(target, merged.layout):
        progress.start(f"checking {target.name}, which is there already", merged.layout.n_bytes)
        try:
            if _holds_shards(pull, target, merged, progress):
                return True
        finally:
            progress.finish()
    if merged_record(pull, place) is not None:
        return False
    message = f"{target} is there and was not made by pulling these shards"
    raise TargetExistsError(message, hint="remove or rename it, or name another folder with --local-dir")


def _may_hold(path: Path, layout: Layout) -> bool:
    """Compare what is quickly compared: the size, and the header where the merged file has its own."""
    if isinstance(layout.segments[0], Literal):
        return has_same_header(path, layout)
    return path.stat().st_size == layout.n_bytes


def _holds_shards(pull: PullPlan, target: Path, merged: Merged, progress: Progress) -> bool:
    with target.open("rb", buffering=0) as file:
        for i, shard in enumerate(pull.files):
            sha256, used = hashlib.sha256(), 0
            for piece in pieces_of(merged.layout, i, shard.size_bytes):
                if piece.at is None:
                    sha256.update(merged.rests[i][used : used + piece.n_bytes])
                    used += piece.n_bytes
                    continue
                for at in range(piece.at, piece.at + piece.n_bytes, BLOCK_BYTES):
                    n_bytes = min(BLOCK_BYTES, piece.at + piece.n_bytes - at)
                    sha256.update(read_at(file.fileno(), n_bytes, at))
                    progress.advance(n_bytes)
            if sha256.hexdigest() != shard.sha256:
                return False
    return True
