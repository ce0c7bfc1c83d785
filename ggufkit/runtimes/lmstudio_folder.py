"""What is wrong in LM Studio's models folder, and the moves that mend it. Only looks; the mending is apart.

LM Studio indexes files exactly two folders deep and passes over all others without a word; a set of shards
must lie together, which `lms import -y` breaks (a folder for each shard); a dangling link can hide the whole
folder on Windows; an mmproj is known by the beginning of its name. Sources: docs import-model.md, lms
importCmd.ts, bug-tracker 406, 834, 2096, unsloth 6084.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import GgufkitError
from ggufkit.gguf.model import model_info
from ggufkit.gguf.shards import ShardName, parse_shard_name
from ggufkit.runtimes.lmstudio import NOBODY, infer_user_repo, plain_name
from ggufkit.transfer.sources import open_header

DEPTH = 3
"""Parts of a file's path below the models folder: publisher, model, file."""
MAX_FILES = 100_000
"""Where looking ends: a folder with more entries than this is no models folder."""

Kind = Literal["depth", "scattered", "dangling", "mmproj", "incomplete"]


@dataclass(frozen=True, slots=True)
class Move:
    """A file that gets another name below the models folder; without one, a link that is removed."""

    source: Path
    """The file or link."""
    target: Path | None
    """Its new place."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that LM Studio will pass over or fail to load."""

    kind: Kind
    """What kind it is."""
    text: str
    """What is wrong, in a sentence."""
    moves: tuple[Move, ...]
    """What mends it; none where moving files can't."""


def find_troubles(models: Path) -> tuple[Trouble, ...]:
    """Look through LM Studio's models folder; nothing is changed, links to folders are not followed."""
    files, dangling = _walk(models)
    found = [
        Trouble("dangling", f"{link.relative_to(models)} points to what is not there", (Move(link, None),))
        for link in dangling
    ]
    sets: dict[tuple[str, int], list[tuple[Path, ShardName]]] = defaultdict(list)
    for file in files:
        name = parse_shard_name(file.name)
        if name is not None:
            sets[(name.prefix, name.total)].append((file, name))
        elif _is_projector_in_disguise(file):
            better = f"mmproj-{file.name}"
            text = f"{file.relative_to(models)}: a projector is known by a name that begins with mmproj"
            found.append(Trouble("mmproj", text, (Move(file, _home_of(models, file) / better),)))
        elif _depth(models, file) != DEPTH:
            found.append(_misplaced(models, [file]))
    for shards in sets.values():
        found += _set_troubles(models, shards)
    return tuple(found)


def unsafe_moves(moves: Iterable[Move]) -> list[Move]:
    """Return the moves that can't be made: something has the name already, or two want the same."""
    moves = list(moves)
    wanted = Counter(move.target for move in moves if move.target is not None)
    return [
        move
        for move in moves
        if move.target is not None and (os.path.lexists(move.target) or wanted[move.target] > 1)
    ]


def _walk(models: Path) -> tuple[list[Path], list[Path]]:
    """Return the GGUF files, and the links that point to nothing."""
    files, dangling, seen = [], [], 0
    for folder, _, names in os.walk(models):
        for name in sorted(names):
            path = Path(folder, name)
            seen += 1
            if not path.exists():
                if path.is_symlink():
                    dangling.append(path)
            elif name.lower().endswith(".gguf"):
                files.append(path)
        if seen > MAX_FILES:
            break
    return sorted(files), sorted(dangling)


def _depth(models: Path, file: Path) -> int:
    return len(file.relative_to(models).parts)


def _is_projector_in_disguise(file: Path) -> bool:
    name = file.name.lower()
    return "mmproj" in name and not name.startswith("mmproj")


def _set_troubles(models: Path, shards: list[tuple[Path, ShardName]]) -> Iterator[Trouble]:
    """Judge the shards of one name, wherever they lie."""
    by_folder: dict[Path, list[tuple[Path, ShardName]]] = defaultdict(list)
    for file, name in shards:
        by_folder[file.parent].append((file, name))
    name = shards[0][1]
    numbers = Counter(shard.number for _, shard in shards)
    if len(by_folder) > 1 and max(numbers.values()) == 1:
        yield _scattered(models, name, [file for file, _ in shards])
        groups = [shards]
    else:
        groups = list(by_folder.values())
        for group in groups:
            if _depth(models, group[0][0]) != DEPTH:
                yield _misplaced(models, [file for file, _ in group])
    for group in groups:
        there = {shard.number for _, shard in group}
        missing = [n.file_name() for n in name.siblings() if n.number not in there]
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            yield Trouble(
                "incomplete", f"{name.prefix}: {len(missing)} of {name.total} shards missing: {shown}", ()
            )


def _scattered(models: Path, name: ShardName, files: list[Path]) -> Trouble:
    publishers = Counter(file.relative_to(models).parts[0] for file in files if _depth(models, file) > 1)
    publisher = publishers.most_common(1)[0][0] if publishers else NOBODY
    home = models / publisher / plain_name(name.prefix)
    moves = tuple(Move(file, home / file.name) for file in files if file.parent != home)
    where = len({file.parent for file in files})
    return Trouble(
        "scattered", f"{name.prefix}: its shards lie in {where} folders, and load from none", moves
    )


def _misplaced(models: Path, files: list[Path]) -> Trouble:
    home = _home_of(models, files[0])
    what = str(files[0].relative_to(models)) + (f" and {len(files) - 1} more shards" if files[1:] else "")
    depth = _depth(models, files[0]) - 1
    text = f"{what}: {depth} folder{'' if depth == 1 else 's'} deep, LM Studio looks exactly two deep"
    return Trouble("depth", text, tuple(Move(file, home / file.name) for file in files))


def _home_of(models: Path, file: Path) -> Path:
    """Return the folder two deep that a file belongs to: where it lies too deep, or by what it says."""
    folders = file.relative_to(models).parts[:-1]
    if len(folders) >= DEPTH - 1:
        return models.joinpath(*folders[: DEPTH - 1])
    name = parse_shard_name(file.name)
    stem = name.prefix if name else file.name[: -len(".gguf")]
    try:
        chosen = infer_user_repo(stem, model_info((open_header(file, whole_file=False),)), None)
    except GgufkitError:
        return models / (folders[0] if folders else NOBODY) / plain_name(stem)
    return models / (folders[0] if folders else chosen.user) / chosen.repo
