"""What is remembered of shards that a merged file was made of, so that it can give them back.

In the record folder, `headers/<set>/` has each shard's own bytes (see `record.keep_headers`) and, where no
pull recorded them, a manifest of the shards, `set.json`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import Layout, Literal, Segment, Span, merge_layout
from ggufkit.gguf.pieces import pieces_of
from ggufkit.gguf.reader import MoreNeeded, read_header
from ggufkit.gguf.shards import check_set
from ggufkit.hubs.manifest import RECORD_FOLDER, Manifest, ManifestFile, from_json, to_json
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.disk import write_atomic
from ggufkit.transfer.sources import Source
from ggufkit.verbs.record import HEADERS_FOLDER, LEVELS_UP, keep_headers, kept_headers, records_in, safe_name
from ggufkit.verbs.sound import has_same_header

SET_FILE = "set.json"


@dataclass(frozen=True, slots=True)
class KeptSet:
    """A set of shards that a merged file can give back."""

    root: Path
    """The folder that holds `.ggufkit/`."""
    files: tuple[ManifestFile, ...]
    """The shards, in order, with the paths that they had below the root."""
    layouts: tuple[Layout, ...]
    """How each is made out of the merged file (source 0)."""

    def path_of(self, i: int) -> Path:
        """Return where a shard, counted from 0, lay."""
        return self.root / (self.files[i].local or self.files[i].path)


def keep_shards(root: Path, manifest: Manifest, layout: Layout, sources: Sequence[Source]) -> None:
    """Keep durably what of local shards is not in the file that `layout` makes, and what they were."""
    own: dict[str, bytes] = {}
    for i, source in enumerate(sources):
        path = Path(source.name)
        pieces = [p for p in pieces_of(layout, i, source.size_bytes) if p.at is None]
        with path.open("rb", buffering=0) as file:
            own[path.name] = b"".join(read_at(file.fileno(), p.n_bytes, p.start) for p in pieces)
    keep_headers(root, manifest.name, own)
    write_atomic(_folder(root, manifest.name) / SET_FILE, to_json(manifest).encode())


def find_kept(merged: Path) -> KeptSet | None:
    """Return the set that the file at `merged` was made of, looking in the folders above it."""
    for root in merged.absolute().parents[:LEVELS_UP]:
        folder = root / RECORD_FOLDER / HEADERS_FOLDER
        if not folder.is_dir():
            continue
        here = Path.cwd()
        root = root.relative_to(here) if root.is_relative_to(here) else root  # as a person would write it
        for manifest in _manifests(root):
            with contextlib.suppress(FormatError, MoreNeeded):  # broken: as if it were not there
                found = _restorable(root, manifest, merged)
                if found is not None:
                    return found
    return None


def _manifests(root: Path) -> Iterator[Manifest]:
    """Yield the sets whose headers are kept in `root`: as pulled, else as merged."""
    for record in records_in(root):
        if _folder(root, record.manifest.name).is_dir():
            yield record.manifest
    for file in sorted((root / RECORD_FOLDER / HEADERS_FOLDER).glob(f"*/{SET_FILE}")):
        with contextlib.suppress(OSError, ValueError, FormatError):
            yield from_json(file.read_text("utf-8"), str(file))


def _restorable(root: Path, manifest: Manifest, merged: Path) -> KeptSet | None:
    """Return how the set is made out of `merged`, or None when that is not what the set makes."""
    own = kept_headers(root, manifest.name)
    files = tuple(f for f in manifest.files if PurePosixPath(f.path).name in own and f.size_bytes)
    names = [PurePosixPath(file.path).name for file in files]
    headers = [
        read_header(own[name], name=name, file_size_bytes=file.size_bytes or 0)
        for name, file in zip(names, files, strict=True)
    ]
    for keep_split_keys in (False, True):
        layout = merge_layout(check_set(headers), keep_split_keys=keep_split_keys)
        if has_same_header(merged, layout):
            layouts = tuple(_shard_layout(layout, i, h, own[names[i]]) for i, h in enumerate(headers))
            return KeptSet(root, files, layouts)
    return None


def _shard_layout(merged: Layout, i: int, header: Header, own: bytes) -> Layout:
    """Return how shard `i` is made out of the merged file and its own bytes."""
    segments: list[Segment] = []
    used = 0
    for piece in pieces_of(merged, i, header.file_size_bytes):
        if piece.at is None:
            segments.append(Literal(own[used : used + piece.n_bytes]))
            used += piece.n_bytes
        else:
            segments.append(Span(0, piece.at, piece.n_bytes))
    layout = Layout(tuple(segments))
    if layout.n_bytes != header.file_size_bytes or used != len(own):
        raise FormatError(header.name, "what is kept of it does not fit its size")
    return layout


def _folder(root: Path, name: str) -> Path:
    return root / RECORD_FOLDER / HEADERS_FOLDER / safe_name(name)
