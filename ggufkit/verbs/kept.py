"""What is kept of shards whose data lie in a merged file, so that they can be proven and given back.

For the merged file `<name>.gguf` that is the folder `.ggufkit/shards/<name>/`: `<shard's file name>.rest`
has the bytes of a shard that are not in the merged file (its header, mostly), one behind the other, and
`set.json` says what the shards were published as, and where each stretch of each shard lies:
`[start, end, at]`, where `at` is its place in the merged file, or null for bytes in the `.rest` file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ggufkit.errors import FormatError, IntegrityError
from ggufkit.gguf.layout import Layout
from ggufkit.gguf.pieces import Piece, restored_layout
from ggufkit.hubs.manifest import RECORD_FOLDER, Manifest, ManifestFile, from_json
from ggufkit.hubs.paths import check_remote_path
from ggufkit.transfer.disk import write_atomic
from ggufkit.transfer.journal import Range
from ggufkit.transfer.prover import FileRange, Proof
from ggufkit.verbs.record import LEVELS_UP, safe_name

SHARDS_FOLDER = "shards"
"""The folder in `.ggufkit` for what is kept of shards."""
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class KeptShards:
    """The shards that a merged file was made of."""

    root: Path
    """The folder that holds `.ggufkit/`, which the paths are relative to."""
    merged: str
    """Path of the merged file, with '/' between parts."""
    merged_bytes: int
    """Size of the merged file."""
    manifest: Manifest
    """The shards as they were published; no sources when that is not known."""
    pieces: tuple[tuple[Piece, ...], ...]
    """For each shard where its bytes are: in the merged file, else in its `.rest` file."""

    @property
    def folder(self) -> Path:
        """Where what is not in the merged file is kept."""
        return folder_of(self.root, self.merged)

    @property
    def merged_file(self) -> Path:
        """The merged file."""
        return self.root / self.merged

    def rest_file(self, i: int) -> Path:
        """Return the file with the bytes of shard `i` (from 0) that are not in the merged file."""
        return self.folder / f"{_file_name(self.manifest.files[i])}.rest"

    def layouts(self) -> tuple[Layout, ...]:
        """Return how each shard, as published, is made out of the merged file (source 0)."""
        rests = [self.rest_file(i).read_bytes() for i in range(len(self.pieces))]
        return tuple(restored_layout(p, rest) for p, rest in zip(self.pieces, rests, strict=True))

    def proofs(self) -> tuple[Proof, ...]:
        """Return the proofs of the shards that a digest was published of, over the merged file."""
        return tuple(
            Proof(_file_name(file), _proof_pieces(self.pieces[i], self.rest_file(i)), file.sha256)
            for i, file in enumerate(self.manifest.files)
            if file.sha256 is not None
        )


def folder_of(root: Path, merged: str) -> Path:
    """Return the folder for what is kept of the shards of `merged`, a path below `root`."""
    return root / RECORD_FOLDER / SHARDS_FOLDER / safe_name(merged.removesuffix(".gguf"))


def write_kept(kept: KeptShards, rests: Sequence[bytes]) -> None:
    """Keep the shards' bytes that are not in the merged file; `rests` has them by shard."""
    kept.folder.mkdir(parents=True, exist_ok=True)
    for i, rest in enumerate(rests):
        write_atomic(kept.rest_file(i), rest)
    document = {
        "schema": SCHEMA,
        "merged": kept.merged,
        "merged_bytes": kept.merged_bytes,
        "shards": {"schema": SCHEMA, **asdict(kept.manifest)},
        "pieces": [[[p.start, p.end, p.at] for p in pieces] for pieces in kept.pieces],
    }
    write_atomic(kept.folder / "set.json", (json.dumps(document, indent=1) + "\n").encode())


def read_kept(root: Path, merged: str) -> KeptShards | None:
    """Return what is kept of the shards of the merged file; None when there is nothing sound."""
    file = folder_of(root, merged) / "set.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        kept = _kept(root, json.loads(file.read_bytes()), str(file))
        return kept if kept.merged == merged else None
    return None


def find_kept(path: Path) -> KeptShards | None:
    """Return what is kept of the shards of the merged file at `path`, looking in the folders above it."""
    path = path.absolute()
    for root in path.parents[:LEVELS_UP]:
        if (root / RECORD_FOLDER / SHARDS_FOLDER).is_dir():
            kept = read_kept(root, path.relative_to(root).as_posix())
            if kept is not None:
                return kept
    return None


def forget_kept(kept: KeptShards) -> None:
    """Remove what is kept: it proved wrong, and is to be fetched anew."""
    for file in [kept.folder / "set.json", *map(kept.rest_file, range(len(kept.pieces)))]:
        with contextlib.suppress(OSError):
            file.unlink()
    with contextlib.suppress(OSError):
        kept.folder.rmdir()


def _kept(root: Path, document: Any, file: str) -> KeptShards:
    """Read and check the document; ValueError when it is not sound, or the `.rest` files don't fit it."""
    try:
        manifest = from_json(json.dumps(document["shards"]), file)
        merged = check_remote_path(str(document["merged"]))
    except (FormatError, IntegrityError) as error:
        raise ValueError(error.message) from error
    if document["schema"] != SCHEMA or len({_file_name(f) for f in manifest.files}) != len(manifest.files):
        raise ValueError("of another version, or two shards of one name")
    merged_bytes = int(document["merged_bytes"])
    found = zip(manifest.files, document["pieces"], strict=True)
    pieces = tuple(_pieces(rows, shard.size_bytes, merged_bytes) for shard, rows in found)
    kept = KeptShards(root, merged, merged_bytes, manifest, pieces)
    for i, some in enumerate(pieces):
        if kept.rest_file(i).stat().st_size != sum(p.n_bytes for p in some if p.at is None):
            raise ValueError(f"{kept.rest_file(i)} does not fit")
    return kept


def _pieces(rows: Iterable[Any], shard_bytes: int | None, merged_bytes: int) -> tuple[Piece, ...]:
    pieces, done = [], 0
    for start, end, at in rows:
        if (type(start), type(end)) != (int, int) or start != done or end <= start:
            raise ValueError("the pieces are not all of the shard")
        if at is not None and (type(at) is not int or not 0 <= at <= merged_bytes - (end - start)):
            raise ValueError("a piece is beyond the merged file")
        pieces.append(Piece(start, end, at))
        done = end
    if done != shard_bytes:
        raise ValueError("the pieces are not all of the shard")
    return tuple(pieces)


def _proof_pieces(pieces: Iterable[Piece], rest: Path) -> tuple[FileRange | Range, ...]:
    found: list[FileRange | Range] = []
    used = 0
    for piece in pieces:
        if piece.at is None:
            found.append(FileRange(rest, used, used + piece.n_bytes))
            used += piece.n_bytes
        else:
            found.append((piece.at, piece.at + piece.n_bytes))
    return tuple(found)


def _file_name(file: ManifestFile) -> str:
    return PurePosixPath(file.path).name
