"""What a pull leaves behind, so that later commands know what the files should be.

Beside the files lies a hidden folder `.ggufkit/`: one manifest per pulled set, one per merged file
(in `merged/`), what is needed to give back the shards of a merged file (`headers/<set>/<shard>.header`), and
journals while something is being written. A pointer in the user's state folder names the set pulled
last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ggufkit.errors import FormatError
from ggufkit.folders import cache_folder, state_folder
from ggufkit.hubs.endpoints import endpoint_of
from ggufkit.hubs.manifest import (
    MERGED_FOLDER,
    RECORD_FOLDER,
    Manifest,
    ManifestFile,
    from_json,
    to_json,
)
from ggufkit.transfer.digest import DigestCache
from ggufkit.transfer.disk import fsync_folder, write_atomic

CONSUME_FOLDER = "consume"
"""The folder in the record folder for notes of merges that give up their shards."""
HEADERS_FOLDER = "headers"
"""The folder in the record folder that keeps the shards' own headers, a folder per set."""
HEADER_SUFFIX = ".header"
"""Added to a shard's name: no program that looks for models is to take its header for one."""
STRAY_S = 3600.0
"""How old a temporary file must be to be nobody's any more."""
LEVELS_UP = 4  # how far above a file its record may lie: <root>/<folders of the repo>/<file>


@dataclass(frozen=True, slots=True)
class Record:
    """A manifest on disk, and where its files are."""

    root: Path
    """The folder that holds `.ggufkit/`, which the manifest's paths are relative to."""
    file: Path
    """The manifest's own file."""
    manifest: Manifest
    """What was pulled or merged."""

    def path_of(self, file: ManifestFile) -> Path:
        """Return where a file of the manifest lies."""
        return self.root / (file.local or file.path)

    def paths(self) -> tuple[Path, ...]:
        """Return where all files of the manifest lie."""
        return tuple(self.path_of(f) for f in self.manifest.files)

    def digest_of(self, path: Path) -> str | None:
        """Return the SHA-256 that `path` must have, bare hex, where the manifest knows one."""
        for file in self.manifest.files:
            if self.path_of(file).absolute() == path.absolute():
                return file.sha256
        return None


def digests() -> DigestCache:
    """Return the user's memory of digests."""
    return DigestCache(cache_folder())


def journal_path(root: Path, target: Path) -> Path:
    """Return where the journal of `target` goes, in the record folder of `root`.

    The digest in the name keeps `a-b/c` and `a/b-c` apart, and long paths within what a name may have.
    """
    absolute = target.absolute()
    home = root.absolute()
    relative = absolute.relative_to(home) if absolute.is_relative_to(home) else absolute
    digest = hashlib.sha256(relative.as_posix().encode("utf-8", "surrogatepass")).hexdigest()
    return root / RECORD_FOLDER / "journal" / f"{target.name[:40]}-{digest[:16]}"


def consume_notes(folder: Path, name: str) -> Path:
    """Return where it is noted that the set `name` in `folder` is being merged with --consume."""
    return folder / RECORD_FOLDER / CONSUME_FOLDER / f"{safe_name(name)}.json"


def write_record(root: Path, manifest: Manifest, *, merged: bool = False) -> Record:
    """Record a pulled set (or a merged file) below `root`."""
    folder = root / RECORD_FOLDER / MERGED_FOLDER if merged else root / RECORD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _remove_strays(folder)
    file = folder / f"{safe_name(manifest.name)}.json"
    write_atomic(file, to_json(manifest).encode())
    return Record(root, file, manifest)


def _remove_strays(folder: Path) -> None:
    """Remove what `write_atomic` left of runs that were killed, once it is surely nobody's."""
    for stray in folder.glob(".ggufkit-*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - stray.stat().st_mtime > STRAY_S:
                stray.unlink()


def keep_headers(root: Path, name: str, kept: Mapping[str, bytes]) -> None:
    """Keep of each shard of the set `name`, by file name, the bytes that the merged file has not.

    Those are its header, padded to the data, and what stands behind its data, if anything: with them and
    the merged file `split --restore` gives the shard back. Durable when this returns.
    """
    folder = _headers_folder(root, name)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_strays(folder)
    for file, data in kept.items():
        write_atomic(header_file(root, name, file), data)
    for made in (folder.parent, folder.parent.parent, root):
        fsync_folder(made)


def kept_headers(root: Path, name: str) -> dict[str, bytes]:
    """Return what `keep_headers` kept of each shard, by file name; nothing when it kept nothing."""
    folder = _headers_folder(root, name)
    paths = sorted(folder.glob(f"*{HEADER_SUFFIX}")) if folder.is_dir() else []
    return {path.name.removesuffix(HEADER_SUFFIX): path.read_bytes() for path in paths}


def header_file(root: Path, name: str, file: str) -> Path:
    """Return where `keep_headers` keeps the bytes of the shard `file` of the set `name`."""
    return _headers_folder(root, name) / f"{safe_name(file)}{HEADER_SUFFIX}"


def forget_headers(root: Path, name: str) -> None:
    """Remove what `keep_headers` kept: it is of another version, or proved wrong."""
    folder = _headers_folder(root, name)
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{HEADER_SUFFIX}"):
            path.unlink()
        folder.rmdir()


def _headers_folder(root: Path, name: str) -> Path:
    return root / RECORD_FOLDER / HEADERS_FOLDER / safe_name(name)


def safe_name(name: str) -> str:
    """Return `name` as one part of a path."""
    return PurePosixPath(name.replace("\\", "/")).as_posix().replace("/", "-").lstrip(".") or "model"


def records_in(root: Path) -> Iterator[Record]:
    """Yield what is recorded in `root` itself, pulled sets first; what can't be read is passed over."""
    for folder in (root / RECORD_FOLDER, root / RECORD_FOLDER / MERGED_FOLDER):
        for file in sorted(folder.glob("*.json")):
            record = _read(root, file)
            if record is not None:
                yield record


def _read(root: Path, file: Path) -> Record | None:
    try:
        return Record(root, file, from_json(file.read_text("utf-8"), str(file)))
    except (OSError, ValueError, FormatError):
        return None  # not ours, of a later version, or broken: as if it were not there


def find_record(path: Path) -> Record | None:
    """Return the record that `path` is a file of, looking in the folders above it."""
    path = path.absolute()
    for root in path.parents[:LEVELS_UP]:
        if not (root / RECORD_FOLDER).is_dir():
            continue
        for record in records_in(_shown(root)):
            if path in (p.absolute() for p in record.paths()):
                return record
    return None


def standing(record: Record) -> Record:
    """Return the record that counts: the merged file's, when it is there and all of its shards are gone."""
    if any(path.exists() for path in record.paths()):
        return record
    for other in records_in(record.root):
        if _is_merged_of(other, record) and all(path.exists() for path in other.paths()):
            return other
    return record


def _is_merged_of(merged: Record, pulled: Record) -> bool:
    named = merged.manifest.name == pulled.manifest.name
    return named and bool(pulled.manifest.sources) and not merged.manifest.sources


def pull_command(record: Record) -> str | None:
    """Return the command that fetches the set again, or what is missing of it; None when no hub is known.

    For a merged file that is the command that fetches it merged.
    """
    sets = [record] if record.manifest.sources else _pulled_of(record)
    if not sets:
        return None
    source, *others = sets[0].manifest.sources
    is_only_there = source.hub == "modelscope" and not others
    ref = f"ms:{source.repo_id}" if is_only_there else source.repo_id
    if source.revision not in ("main", "master"):
        ref += f"@{source.revision}"
    words = ["ggufkit", "pull", ref]
    if source.endpoint != endpoint_of(source.hub):  # a mirror
        words += ["--source", source.endpoint]
    if record.manifest.quant is not None:
        words += ["--quant", record.manifest.quant]
    if record.root.absolute() != Path(source.repo_id.rpartition("/")[2]).absolute():
        words += ["--local-dir", str(_shown(record.root.absolute()))]
    if not record.manifest.sources:
        words.append("--merge")
    return shlex.join(words)


def _pulled_of(merged: Record) -> list[Record]:
    return [record for record in records_in(merged.root) if _is_merged_of(merged, record)]


def remember_last(record: Record) -> None:
    """Note that this set was pulled last. A state folder that can't be written costs only the comfort."""
    with contextlib.suppress(OSError):
        _last_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_last_file(), json.dumps({"record": str(record.file.absolute())}).encode())


def last_pulled() -> Record | None:
    """Return the set pulled last, or the file that was merged from it, if it is still recorded."""
    try:
        file = Path(json.loads(_last_file().read_bytes())["record"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    record = _read(_shown(file.parent.parent), file)
    return standing(record) if record is not None else None


def _shown(folder: Path) -> Path:
    """Return the folder as a person would write it: relative where it lies below the current one."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _last_file() -> Path:
    return state_folder() / "last-pulled.json"
