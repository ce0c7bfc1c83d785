"""Frozen sets of files: make one of a repo or of local files, and ask the hubs whether they still have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ggufkit.errors import GgufkitError, NotFoundError, TargetExistsError, UsageError, printable
from ggufkit.hubs.agreement import Agreement, compare
from ggufkit.hubs.hub import RemoteFile, is_ref, open_hub
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, from_json, to_json
from ggufkit.hubs.pins import places_of
from ggufkit.hubs.places import Place
from ggufkit.hubs.quants import Quant, QuantError, find_quants, pick_quant
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.digest import sha256_file
from ggufkit.transfer.disk import write_atomic
from ggufkit.verbs.listing import open_repo
from ggufkit.verbs.record import Record, find_record


@dataclass(frozen=True, slots=True)
class HubCheck:
    """What one hub says about a manifest."""

    source: ManifestSource
    """The repo as the manifest names it."""
    endpoint: str
    """The hub that was asked: the manifest's, or the one that the environment puts in its place."""
    commit: str | None
    """The commit that its branch is at now; None where it names none, or did not answer."""
    files: tuple[Agreement, ...]
    """Each file of the manifest beside the hub's; empty when the hub did not answer."""
    error: str | None
    """Why there is no answer."""
    exit_code: int
    """The exit code that goes with the error; 0 for none."""

    @property
    def differing(self) -> tuple[Agreement, ...]:
        """The files of which the hub publishes something else, or nothing."""
        return tuple(file for file in self.files if file.differs)


@dataclass(frozen=True, slots=True)
class ManifestCheck:
    """Whether the hubs still publish what a manifest says."""

    name: str
    """The set's name."""
    hubs: tuple[HubCheck, ...]
    """One per source of the manifest."""


def make_manifest(
    argument: str,
    *,
    quant: str | None = None,
    source: str = "auto",
    revision: str | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Freeze a quant of the repo that `argument` names, or of the files in a folder (or a file's set).

    A repo is listed, nothing is fetched; local files are read to the end. Raises NotFoundError (QuantError
    when it is not clear which set is meant), FormatError for a name that no manifest may hold.
    """
    if is_ref(argument):
        manifest = _of_repo(argument, quant, source, revision, progress)
    elif revision is not None:
        raise UsageError("--revision is for repos", hint=f"{argument} is on this machine")
    else:
        manifest = _of_files(Path(argument).expanduser(), quant, progress)
    return from_json(to_json(manifest), argument)  # read back as strictly as it will be


def write_manifest(manifest: Manifest, output: Path, *, force: bool = False) -> bool:
    """Write the manifest to a file; False when the file has just that already.

    Raises TargetExistsError when there is something else in it and `force` is not set.
    """
    data = to_json(manifest).encode()
    if output.is_file() and output.stat().st_size == len(data) and output.read_bytes() == data:
        return False
    if output.exists() and not force:
        message = f"{output} is there already, with something else in it"
        raise TargetExistsError(message, hint="--force writes over it")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, data)
    return True


def check_manifest(manifest: Manifest, *, source: str = "auto", progress: Progress = SILENT) -> ManifestCheck:
    """Ask each hub of the manifest (or only `source`) whether it still publishes exactly this.

    The branch is asked for, not the frozen commit, which never changes. What a hub says, also that it does
    not answer, is in the report. Raises UsageError when the manifest names no hub to ask.
    """
    pairs = [pair for pair in places_of(manifest, source) if pair[1].serves]
    return ManifestCheck(manifest.name, tuple(_check(manifest, *pair, progress) for pair in pairs))


def _check(manifest: Manifest, source: ManifestSource, place: Place, progress: Progress) -> HubCheck:
    hub = open_hub(source.hub, endpoint=place.endpoint, progress=progress)
    try:
        listing = hub.list_files(source.repo_id, source.revision)
    except GgufkitError as error:
        return HubCheck(source, hub.endpoint, None, (), error.message, error.exit_code)
    return HubCheck(source, hub.endpoint, listing.commit, compare(manifest, listing.files), None, 0)


def _of_repo(ref: str, quant: str | None, source: str, revision: str | None, progress: Progress) -> Manifest:
    repo = open_repo(ref, source=source, revision=revision, progress=progress)
    picked = repo.pick(quant)
    for remark in repo.remarks(picked.files):
        progress.note(remark)
    files = tuple(ManifestFile(f.path, f.size_bytes, f.sha256) for f in picked.files)
    return Manifest(picked.stem, picked.name, files, repo.origins(picked.files))


def _of_files(path: Path, asked: str | None, progress: Progress) -> Manifest:
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder, and not the name of a repo")
    root = path if path.is_dir() else path.parent
    picked = _pick(root, path, asked)
    paths = [root / file.path for file in picked.files]
    progress.start(f"hashing {picked.stem}", picked.total_bytes)
    try:
        files = tuple(
            ManifestFile(file.path, file.size_bytes, sha256_file(path, progress))
            for file, path in zip(picked.files, paths, strict=True)
        )
    finally:
        progress.finish()
    manifest = Manifest(picked.stem, picked.name, files, ())
    record = find_record(paths[0])
    return manifest if record is None else _as_recorded(manifest, paths, record, progress)


def _as_recorded(manifest: Manifest, paths: list[Path], record: Record, progress: Progress) -> Manifest:
    """Take the paths and the sources of a pull, when the files are what was pulled."""
    known = {record.path_of(file).absolute(): file for file in record.manifest.files}
    recorded = [known.get(path.absolute()) for path in paths]
    files = tuple(
        replace(file, path=was.path) if was is not None else file
        for file, was in zip(manifest.files, recorded, strict=True)
    )
    same = all(
        was is not None and was.sha256 in (None, file.sha256) and was.size_fits(file.size_bytes or 0)
        for file, was in zip(files, recorded, strict=True)
    )
    if not same and record.manifest.sources:
        progress.note("the files are not what was pulled: the manifest names no hub that has them")
    return replace(manifest, files=files, sources=record.manifest.sources if same else ())


def _pick(root: Path, path: Path, asked: str | None) -> Quant:
    files = [RemoteFile(name, size, None, "") for name, size in _files_below(root, path.is_dir())]
    name = root.resolve().name
    try:
        return pick_quant(find_quants(name, files), path.name if path.is_file() else asked, name)
    except QuantError as error:
        message = f"{printable(str(path))} has no GGUF model files" if not error.quants else error.message
        hint = "choose one with --quant: its name, or a file's path in the folder" if error.quants else None
        raise QuantError(message, error.quants, hint=hint) from error


def _files_below(root: Path, deep: bool) -> Iterator[tuple[str, int]]:
    """Yield the path relative to `root` and the size of each file; hidden folders are other programs'."""
    for path in sorted(root.rglob("*") if deep else root.iterdir()):
        relative = path.relative_to(root)
        if not any(part.startswith(".") for part in relative.parts) and path.is_file():
            yield relative.as_posix(), path.stat().st_size
