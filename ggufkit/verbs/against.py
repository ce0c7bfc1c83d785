"""What files that ggufkit did not pull should be: by a hub's listing, or by a manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ggufkit.errors import NotFoundError, UsageError, printable
from ggufkit.gguf.shards import parse_shard_name
from ggufkit.hubs.hub import is_ref
from ggufkit.hubs.manifest import RECORD_FOLDER, Manifest, ManifestFile
from ggufkit.hubs.manifests import find_manifest, need_manifest
from ggufkit.hubs.quants import Quant
from ggufkit.progress import SILENT, Progress
from ggufkit.verbs.listing import Repo, open_repo
from ggufkit.verbs.record import Record

MAX_DEPTH = 3
"""How far below the folder files are looked for: `<name>/<quant>/<file>`."""


def expected_files(argument: str | None, against: str, progress: Progress = SILENT) -> Record:
    """Return what the files in the folder `argument` should be, as if a pull had recorded it.

    `argument` may be one file of the set, or nothing: the current folder. Each file of `against` is found
    by its path, else by its name alone. Raises NotFoundError when nothing there has such a name.
    """
    path = Path(argument).expanduser() if argument is not None else Path()
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    local = _files_below(folder)
    manifest = _manifest(against, local, folder, progress)
    files = tuple(replace(f, local=_place_of(f, local, folder)) for f in manifest.files)
    if path.is_file():
        files = tuple(f for f in files if _same_set(f.path, path.name))
    if not any((folder / (f.local or f.path)).exists() for f in files):
        hint = f"it has {', '.join(printable(f.path) for f in manifest.files[:3])}"
        raise NotFoundError(f"{path}: nothing there is named like a file of {printable(against)}", hint=hint)
    return Record(folder, folder / RECORD_FOLDER, replace(manifest, files=files))


def _manifest(against: str, local: dict[str, list[str]], folder: Path, progress: Progress) -> Manifest:
    manifest = find_manifest(against)
    if manifest is not None or not is_ref(against):
        return manifest or need_manifest(against)
    repo = open_repo(against, progress=progress)
    quants = [repo.pick(None)] if repo.ref.quant else _named_like(repo.quants(), local)
    if not quants:
        hint = f"ggufkit quants {printable(against)} shows what it has"
        message = f"{folder}: nothing there is named like a file of {printable(against)}"
        raise NotFoundError(message, hint=hint)
    if len(quants) > 1:
        names = ", ".join(quant.name for quant in quants[:12])
        hint = f"name one: --against {printable(against)}:{quants[0].name}"
        raise UsageError(f"{folder} has files of {len(quants)} quants: {names}", hint=hint)
    return _of_quant(repo, quants[0])


def _named_like(quants: Iterable[Quant], local: dict[str, list[str]]) -> list[Quant]:
    return [quant for quant in quants if any(_name(file.path) in local for file in quant.files)]


def _of_quant(repo: Repo, quant: Quant) -> Manifest:
    files = tuple(ManifestFile(f.path, f.size_bytes, f.sha256, None) for f in quant.files)
    return Manifest(quant.stem, quant.name, files, repo.origins(quant.files))


def _files_below(folder: Path) -> dict[str, list[str]]:
    """Return the paths of the files in `folder` by name, the least deep ones first; not in linked folders."""
    found: dict[str, list[str]] = {}
    level = [folder]
    for _ in range(MAX_DEPTH):
        deeper: list[Path] = []
        for one in level:
            for path in sorted(one.iterdir()):
                if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                    deeper.append(path)
                elif path.is_file():
                    found.setdefault(path.name, []).append(path.relative_to(folder).as_posix())
        level = deeper
    return found


def _place_of(file: ManifestFile, local: dict[str, list[str]], folder: Path) -> str | None:
    """Return where the file of a repo lies, or None when it is at its own path, or nowhere.

    Of several that have its name one of its size is meant.
    """
    places = local.get(_name(file.path), [])
    if file.path in places or not places:
        return None
    return next((p for p in places if file.size_fits((folder / p).stat().st_size)), places[0])


def _same_set(path: str, name: str) -> bool:
    """Say whether the file of the repo is the one of this name, or another shard of its set."""
    mine, other = parse_shard_name(_name(path)), parse_shard_name(name)
    if mine is None or other is None:
        return _name(path) == name
    return (mine.prefix, mine.total) == (other.prefix, other.total)


def _name(path: str) -> str:
    return PurePosixPath(path).name
