"""What is left of `merge --consume` when the shards are gone: the file, notes of a run cut off, folders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ggufkit.errors import NotFoundError
from ggufkit.gguf.shards import parse_shard_name
from ggufkit.hubs.labels import parse_raw_part
from ggufkit.hubs.manifest import RECORD_FOLDER
from ggufkit.transfer.consume_notes import load_notes
from ggufkit.verbs.locate import LocalModel, find_model, models_in
from ggufkit.verbs.record import CONSUME_FOLDER, LEVELS_UP, consume_notes, records_in
from ggufkit.verbs.shard_memory import find_kept


def find_consumed(argument: str | None, output: Path | None = None) -> LocalModel | None:
    """Return what stands for shards that are gone, when `argument` and `output` name such a merge again.

    That is the set itself as long as its removal is not ended, else the file that it went into. An
    `output` counts when it is recorded that it was made of the set that `argument` names.
    """
    path = Path(argument).expanduser() if argument is not None else None
    if path is None and (output is None or _is_model_at_hand()):
        return None
    if path is not None and path.exists() and not _is_bare(path):
        return None
    pending = next(_pending(_folders(path)), None)
    if pending is not None:
        return pending
    names = _set_names(path) if path is not None else None
    for place in _places(path, output, names or ()):
        if place.is_file() and (output is None or _is_made_of(place, names)):
            return find_model(str(place))
    return None


def remove_leavings(argument: str | None, merged: LocalModel) -> None:
    """Remove the empty folders and the notes that a run left which was cut off at its very end."""
    for folder in {merged.folder, *_former_folders(argument, merged)}:
        notes = _notes_in(folder)
        if any(one.suffix == ".json" for one in notes) or not (_is_bare(folder) or folder == merged.folder):
            continue
        for one in notes:
            one.unlink(missing_ok=True)
        for empty in (folder / RECORD_FOLDER / CONSUME_FOLDER, folder / RECORD_FOLDER, folder):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _is_bare(path: Path) -> bool:
    """Say whether it is a folder with nothing in it but what we note."""
    return path.is_dir() and all(entry.name == RECORD_FOLDER for entry in path.iterdir())


def _is_model_at_hand() -> bool:
    if models_in(Path(), shards=True):
        return True
    with contextlib.suppress(NotFoundError):
        return bool(find_model(shards=True))
    return False


def _folders(path: Path | None) -> list[Path]:
    """Return where the shards lay that `path` (a folder, a shard, nothing) means."""
    if path is None:
        return [Path(), *sorted(p for p in Path().iterdir() if p.is_dir())]
    return [path.parent if _set_name(path) is not None else path]


def _notes_in(folder: Path) -> list[Path]:
    return sorted((folder / RECORD_FOLDER / CONSUME_FOLDER).glob("*"))


def _pending(folders: Iterable[Path]) -> Iterator[LocalModel]:
    """Yield the sets whose merge into one file is noted in the folders as under way."""
    for notes in (one for folder in folders for one in _notes_in(folder) if one.suffix == ".json"):
        made = load_notes(notes)
        if made is not None:
            paths = tuple(source.path for source in made.sources)
            name = _set_name(paths[0]) or made.target.stem
            if consume_notes(paths[0].parent, name) == notes:
                yield LocalModel(name, paths)


def _set_name(path: Path) -> str | None:
    """Return the name of the set that a shard or a raw part belongs to."""
    shard, part = parse_shard_name(path.name), parse_raw_part(path.name)
    if shard is not None:
        return shard.prefix
    return part.file_name.removesuffix(".gguf") if part is not None else None


def _set_names(path: Path) -> set[str]:
    """Return the names that the set which `path` means may have: the path's own, and those recorded."""
    names = {_set_name(path) or path.name}
    names |= {record.manifest.name for record in records_in(path)}
    for root in path.absolute().parents[:LEVELS_UP]:
        for record in records_in(root):
            if any(path.absolute() in (p, p.parent) for p in record.paths()):
                names.add(record.manifest.name)
    return names


def _places(path: Path | None, output: Path | None, names: Iterable[str]) -> list[Path]:
    if output is not None:
        return [output / f"{name}.gguf" for name in sorted(names)] if output.is_dir() else [output]
    assert path is not None, "without an output it is named"
    folders = dict.fromkeys(folder for one in _folders(path) for folder in (one.parent, one))
    return [folder / f"{name}.gguf" for name in sorted(names) for folder in folders]


def _is_made_of(place: Path, names: set[str] | None) -> bool:
    """Say whether a file is recorded as made of a set, of one of these names."""
    kept = find_kept(place)
    if kept is None:
        return False
    return names is None or _set_name(Path(kept.files[0].path)) in names


def _former_folders(argument: str | None, merged: LocalModel) -> set[Path]:
    """Return the folders that the shards may have lain in of which a file was merged."""
    kept, names = find_kept(merged.files[0]), {merged.name}
    folders = {kept.path_of(i).parent for i in range(len(kept.files))} if kept is not None else set()
    if kept is not None:
        names |= {_set_name(Path(kept.files[0].path)) or merged.name}
    folders |= {merged.folder / name for name in names}
    if argument is not None:
        return folders | set(_folders(Path(argument).expanduser()))
    noted = (RECORD_FOLDER, CONSUME_FOLDER)
    return folders | {p for p in _folders(None) if p.name in names or p.joinpath(*noted).is_dir()}
