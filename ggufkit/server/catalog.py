"""What lies below a folder, as hub repos: `DIR/owner/name/...`, and folders that ggufkit pulled into."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ggufkit.errors import FormatError, printable
from ggufkit.hubs.manifest import MERGED_FOLDER, RECORD_FOLDER, Manifest, from_json
from ggufkit.transfer.digest import FileStamp

_REPO_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_UNFINISHED = (".part", ".incomplete", ".parallel_tmp", ".aria2", ".crdownload", ".tmp")
_MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file of a repo, as it lies on disk."""

    path: str
    """Posix path in the repo."""
    local: Path
    """Where it is, with symbolic links resolved."""
    stamp: FileStamp
    """The state it was found in."""
    sha256: str | None
    """What the hub published for it, bare lower-case hex; None if unknown or of another size."""


@dataclass(frozen=True, slots=True)
class Repo:
    """One repo that can be served."""

    repo_id: str
    """`owner/name`."""
    files: tuple[RepoFile, ...]
    """Its files, sorted by path; never empty."""
    revisions: frozenset[str]
    """Revisions and commits under which a hub published these files."""


class _Draft:
    """A repo while it is put together; of two files at one path the first stays."""

    def __init__(self) -> None:
        self.files: dict[str, RepoFile] = {}
        self.revisions: set[str] = set()

    def add(self, file: RepoFile) -> None:
        self.files.setdefault(file.path, file)

    def repo(self, repo_id: str) -> Repo:
        files = tuple(file for _, file in sorted(self.files.items()))
        return Repo(repo_id, files, frozenset(self.revisions))


def find_repos(root: Path, note: Callable[[str], None] = lambda message: None) -> tuple[Repo, ...]:
    """Find the repos below `root`, sorted by name; reads manifests and file names, no file contents.

    A folder with manifests in `.ggufkit` is the repo they name; unless that is `root` itself, any other
    folder two levels down is the repo `owner/name`. Hidden and unfinished files, and links that lead out of
    `root`, are left out. `note` hears which manifests could not be read.
    """
    root = root.resolve()
    drafts: dict[str, _Draft] = {}
    records = {
        folder: found
        for folder in _folders(root, root)
        if (found := _manifests(folder / RECORD_FOLDER, note))
    }
    for folder, manifests in records.items():
        for manifest in manifests:
            _add_manifest(drafts, root, folder, manifest)
        for merged in _manifests(folder / RECORD_FOLDER / MERGED_FOLDER, note):
            _add_merged(drafts, root, folder, merged, manifests)
    for folder in _plain_folders(root, records):
        _add_folder(drafts, root, folder, frozenset(records) - {folder})
    return tuple(draft.repo(repo_id) for repo_id, draft in sorted(drafts.items()) if draft.files)


def _add_manifest(drafts: dict[str, _Draft], root: Path, folder: Path, manifest: Manifest) -> None:
    """Add what a manifest names, to each repo that is a source of it."""
    for source in manifest.sources:
        draft = drafts.setdefault(source.repo_id, _Draft())
        draft.revisions.update(filter(None, (source.revision, source.commit)))
        for file in _files_of(manifest, root, folder):
            draft.add(file)


def _add_merged(
    drafts: dict[str, _Draft], root: Path, folder: Path, merged: Manifest, manifests: tuple[Manifest, ...]
) -> None:
    """Add a merged file to the repos its shards are of, if the shards are gone: a quant is there once."""
    same = [manifest for manifest in manifests if manifest.quant == merged.quant]
    if not any(_files_of(manifest, root, folder) for manifest in same):
        for manifest in same:
            _add_manifest(drafts, root, folder, replace(merged, sources=manifest.sources))


def _files_of(manifest: Manifest, root: Path, folder: Path) -> list[RepoFile]:
    files = []
    for entry in manifest.files:
        if found := _real_file(root, folder / (entry.local or entry.path)):
            local, stamp = found
            known = entry.sha256 if stamp.size_bytes == entry.size_bytes else None
            files.append(RepoFile(entry.path, local, stamp, known))
    return files


def _add_folder(drafts: dict[str, _Draft], root: Path, folder: Path, others: frozenset[Path]) -> None:
    """Add all that lies in `root/owner/name`, but for folders that are other repos."""
    draft = drafts.setdefault(f"{folder.parent.name}/{folder.name}", _Draft())
    for inner in _folders(root, folder, others):
        for path in _entries(inner):
            if found := _real_file(root, path):
                draft.add(RepoFile(path.relative_to(folder).as_posix(), *found, sha256=None))


def _plain_folders(root: Path, records: dict[Path, tuple[Manifest, ...]]) -> Iterator[Path]:
    """Name the folders `root/owner/name` that no manifest gives another name."""
    for owner in _subfolders(root, root) if root not in records else ():
        for folder in _subfolders(root, owner) if owner not in records else ():
            repo_id = f"{owner.name}/{folder.name}"
            named = {source.repo_id for manifest in records.get(folder, ()) for source in manifest.sources}
            if _REPO_ID.fullmatch(repo_id) and (repo_id in named or not named):
                yield folder


def _folders(
    root: Path, top: Path, skip: frozenset[Path] = frozenset(), above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Walk `top` and the folders below it, parents first; a link back to a folder `above` ends there."""
    yield top
    above |= {top.resolve()}
    for child in _subfolders(root, top):
        if child not in skip and child.resolve() not in above:
            yield from _folders(root, child, skip, above)


def _subfolders(root: Path, folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if _is_folder(path) and _inside(root, path.resolve())]


def _entries(folder: Path) -> list[Path]:
    """List what is in a folder and has a name that a hub could give it."""
    try:
        return sorted(path for path in folder.iterdir() if _listable(path.name))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _manifests(folder: Path, note: Callable[[str], None]) -> tuple[Manifest, ...]:
    """Read the manifests in a folder of records, the newest first."""
    found = []
    for file in folder.glob("*.json"):
        try:
            status = file.stat()
            if status.st_size <= _MAX_MANIFEST_BYTES:
                manifest = from_json(file.read_text(encoding="utf-8"), str(file))
                found.append((status.st_mtime_ns, manifest))
        except (FormatError, OSError, UnicodeDecodeError) as error:
            note(f"left out {printable(str(file))}: {printable(str(error))}")
    return tuple(manifest for _, manifest in sorted(found, key=lambda pair: pair[0], reverse=True))


def _real_file(root: Path, path: Path) -> tuple[Path, FileStamp] | None:
    """Resolve a path to a regular file in `root`, or None."""
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except (OSError, RuntimeError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode) or not _inside(root, real):
        return None
    return real, FileStamp.of(status)


def _inside(root: Path, real: Path) -> bool:
    """Tell whether a path without links lies in `root` and in no hidden folder of it."""
    return real.is_relative_to(root) and not any(
        part.startswith(".") for part in real.relative_to(root).parts
    )


def _listable(name: str) -> bool:
    hidden_or_unfinished = name.startswith(".") or name.endswith(_UNFINISHED)
    return not hidden_or_unfinished and name.isprintable() and "\\" not in name
