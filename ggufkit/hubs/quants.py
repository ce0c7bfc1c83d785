"""The quants of a repo: its files grouped into sets, and the one that somebody asks for.

A quant is taken only when its name matches as a whole, all its shards are there, and no other set
could be meant. Whatever is doubtful is an error that says what there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from ggufkit.errors import NotFoundError, printable
from ggufkit.gguf.shards import ShardName, parse_shard_name
from ggufkit.hubs import labels
from ggufkit.hubs.hub import RemoteFile

_EXTRAS = frozenset({"mmproj", "mtp", "draft", "drafter", "eagle", "eagle3"})
"""Words of GGUF files that go with a model and are none by themselves (but where the repo is named so)."""
_MAX_MISSING = 100
"""More missing shards than these are not listed: a hostile name may speak of 99,999."""


@dataclass(frozen=True, slots=True)
class Quant:
    """The files that make one model file: shards, raw parts, or one file."""

    name: str
    """The quant's label, as in `UD-IQ2_XXS`; the stem where the names say none."""
    files: tuple[RemoteFile, ...]
    """The files in the order of their numbers."""
    n_shards: int
    """How many files the set should have."""
    total_bytes: int
    """Size of the files that are there."""
    missing: tuple[int, ...]
    """Numbers, from 1, of files that are not in the repo (the first 100 of them)."""
    kind: Literal["gguf", "raw"]
    """`raw` parts are pieces of one file, to be joined; none can be loaded by itself."""
    folder: str
    """Path of the folder that the files lie in; empty for the repo's own."""
    stem: str
    """The file name without shard numbers, part numbers and `.gguf`."""
    model: str
    """The model's label in the file name: what stands before the quant."""
    sources: tuple[str, ...] = ()
    """The words for `--source` of the places that list all the files alike, where that was asked."""


class QuantError(NotFoundError):
    """A quant is unknown, ambiguous or not whole; `quants` is what there is."""

    def __init__(
        self, message: str, quants: Sequence[Quant], *, hint: str | None = None, is_ambiguous: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.quants = tuple(quants)
        self.is_ambiguous = is_ambiguous
        """More than one is meant: no other place can tell which."""


class _Place(NamedTuple):
    """What the files of one set have in common."""

    folder: str
    stem: str
    total: int | None
    kind: Literal["gguf", "raw"]


def find_quants(repo_id: str, files: Iterable[RemoteFile]) -> tuple[Quant, ...]:
    """Return the sets of model files in a repo, whole or not.

    Those of the model that the repo is named after come first; then they are in order of size.
    Projectors (mmproj), imatrix, MTP and draft files are left out.
    """
    sets: dict[_Place, dict[int, RemoteFile]] = {}
    for file in files:
        placed = None if _is_extra(repo_id, file.path) else _place(file.path)
        if placed is not None:
            place, number = placed
            sets.setdefault(place, {}).setdefault(number, file)
    quants = [_quant(place, numbered) for place, numbered in sets.items()]
    home = {id(quant) for quant in _at_home(quants, repo_id)}
    return tuple(sorted(quants, key=lambda q: (id(q) not in home, q.total_bytes, q.name, q.folder, q.stem)))


def pick_quant(quants: Sequence[Quant], asked: str | None, repo_id: str) -> Quant:
    """Return the quant that `asked` names: a quant's name, or a path, stem or folder in the repo.

    None takes the only quant there is. Files of another model than the one that the repo is named after
    are found only by path. Raises QuantError when none, several or no whole set match.
    """
    if not quants:
        raise QuantError(f"{repo_id} has no GGUF model files", quants)
    home = _at_home(quants, repo_id)
    if asked is None:
        matches = home
        if len({quant.name for quant in home}) > 1:
            hint = f"choose one, as in {repo_id}:{home[0].name}"
            raise QuantError(f"{repo_id} has {len(home)} quants", quants, hint=hint, is_ambiguous=True)
    else:
        matches = _by_file(quants, asked) or _by_name(home, asked) or _by_folder(quants, asked, repo_id)
        if not matches:
            raise _unknown(quants, home, asked, repo_id)
    whole = [quant for quant in matches if not quant.missing]
    best = [quant for quant in whole if quant.kind == "gguf"] or whole
    if not best:
        raise _not_whole(quants, matches, repo_id)
    if len(best) > 1 or len({quant.name for quant in matches}) > 1:
        raise _ambiguous(quants, matches, asked, repo_id)
    return best[0]


def _is_extra(repo_id: str, path: str) -> bool:
    words = labels.words_of(path)
    if "imatrix" in words and not labels.has_quant(path.rpartition("/")[2]):
        return True  # with a quant it is a model that was made with one
    return bool(words & _EXTRAS - labels.words_of(repo_id))


def _place(path: str) -> tuple[_Place, int] | None:
    """Return the set that a file belongs to and its number there; None for other than model files."""
    folder, _, name = path.rpartition("/")
    shard = parse_shard_name(name)
    if shard is not None:
        return _Place(folder, shard.prefix, shard.total, "gguf"), shard.number
    if name.lower().endswith(".gguf"):
        return _Place(folder, name[: -len(".gguf")], 1, "gguf"), 1
    part = labels.parse_raw_part(name)
    if part is not None:
        return _Place(folder, part.file_name[: -len(".gguf")], part.total, "raw"), part.number
    return None


def _quant(place: _Place, numbered: dict[int, RemoteFile]) -> Quant:
    first = 0 if 0 in numbered else 1  # raw parts may count from 0
    n_shards = place.total or max(numbered) + 1 - first
    gaps = (number + 1 - first for number in range(first, n_shards + first) if number not in numbered)
    label = labels.read_label(place.folder, place.stem)
    files = tuple(numbered[number] for number in sorted(numbered))
    return Quant(
        name=label.quant,
        files=files,
        n_shards=n_shards,
        total_bytes=sum(file.size_bytes for file in files),
        missing=tuple(islice(gaps, _MAX_MISSING)),
        kind=place.kind,
        folder=place.folder,
        stem=place.stem,
        model=label.model,
    )


def _at_home(quants: Sequence[Quant], repo_id: str) -> list[Quant]:
    """Return the quants of the model that the repo is named after; all when none bears that name."""
    model = labels.model_key(labels.model_of_repo(repo_id))
    home = [quant for quant in quants if labels.model_key(quant.model) in ("", model)]
    return home or list(quants)


def _by_file(quants: Sequence[Quant], asked: str) -> list[Quant]:
    """Return the quants that have a file of the asked path, name or stem."""
    wanted = asked.strip("/").casefold()
    return [quant for quant in quants if wanted in _names_of(quant)]


def _names_of(quant: Quant) -> set[str]:
    stem = quant.stem.casefold()
    paths = {file.path.casefold() for file in quant.files} | {f"{quant.folder.casefold()}/{stem}", stem}
    return paths | {path.rpartition("/")[2] for path in paths}


def _by_name(home: Sequence[Quant], asked: str) -> list[Quant]:
    """Return the quants of the asked name; `IQ1_M` is also `i1-IQ1_M`, which never lies beside it."""
    key = labels.quant_key(asked)
    exact = [quant for quant in home if labels.quant_key(quant.name) == key]
    return exact or [quant for quant in home if labels.quant_key(quant.name) == f"i1_{key}"]


def _by_folder(quants: Sequence[Quant], asked: str, repo_id: str) -> list[Quant]:
    """Return the quants in the asked folder, before all those of the repo's own model.

    A folder that is named like a quant and nothing else must be written with a '/': without one it is
    the quant that is asked for.
    """
    wanted = asked.strip("/").casefold()
    if "/" not in asked and labels.quant_key(asked) in {labels.quant_key(quant.name) for quant in quants}:
        return []
    if not wanted:
        return []
    inside = [q for q in quants if wanted in (q.folder.casefold(), q.folder.rpartition("/")[2].casefold())]
    home = {id(quant) for quant in _at_home(quants, repo_id)}
    return [quant for quant in inside if id(quant) in home] or inside


def _unknown(quants: Sequence[Quant], home: Sequence[Quant], asked: str, repo_id: str) -> QuantError:
    shown = printable(asked)
    at_home = {id(quant) for quant in home}
    foreign = _by_name([quant for quant in quants if id(quant) not in at_home], asked)
    if foreign:
        message = f"{repo_id} has {shown} of {foreign[0].model}, not of {labels.model_of_repo(repo_id)}"
        return QuantError(message, quants, hint=f"by path it is {repo_id}:{foreign[0].files[0].path}")
    names = list(dict.fromkeys(quant.name for quant in home))
    near = [name for name in names if labels.bare_quant(name) == labels.bare_quant(asked)]
    near += [n for n in difflib.get_close_matches(asked.upper(), names, n=3) if n not in near]
    hint = f"it has {_some(names)}"
    if near:
        hint = f"did you mean {' or '.join(near[:3])}? {hint}"
    return QuantError(f"{repo_id} has no quant {shown}", quants, hint=hint)


def _ambiguous(
    quants: Sequence[Quant], matches: Sequence[Quant], asked: str | None, repo_id: str
) -> QuantError:
    paths = [f"{repo_id}:{quant.files[0].path}" for quant in matches]
    what = f"{printable(asked)} in {repo_id}" if asked else f"the quant of {repo_id}"
    message = f"{what} may be any of {len(matches)} sets of files"
    hint = f"name one by its path: {_some(paths, 4)}"
    return QuantError(message, quants, hint=hint, is_ambiguous=True)


def _not_whole(quants: Sequence[Quant], matches: Sequence[Quant], repo_id: str) -> QuantError:
    faults = [_fault(quant, quants) for quant in matches[:3]]
    message = f"{matches[0].name} in {repo_id} is not whole: {'; '.join(faults)}"
    hint = f"an upload may be under way: try later, or an earlier state with {repo_id}@REVISION"
    return QuantError(message, quants, hint=hint)


def _fault(quant: Quant, quants: Sequence[Quant]) -> str:
    noun = ("shard" if quant.kind == "gguf" else "part") + ("s" if len(quant.missing) > 1 else "")
    verb = "are" if len(quant.missing) > 1 else "is"
    numbers = _some([str(number) for number in quant.missing], 5)
    text = f"{noun} {numbers} of {quant.n_shards} of {quant.stem} {verb} not there"
    strays = [name.file_name() for name in _strays(quant, quants)]
    return f"{text}, but {_some(strays, 3)} in the same folder" if strays else text


def _strays(quant: Quant, quants: Sequence[Quant]) -> list[ShardName]:
    """Return shards beside `quant` that have a missing number and another name: renamed ones?"""
    beside = [q for q in quants if q.folder == quant.folder and q.n_shards == quant.n_shards and q != quant]
    names = [parse_shard_name(file.path.rpartition("/")[2]) for q in beside for file in q.files]
    return [name for name in names if name is not None and name.number in quant.missing]


def _some(texts: Sequence[str], n: int = 12) -> str:
    shown = ", ".join(printable(text) for text in texts[:n])
    return f"{shown} and {len(texts) - n} more" if len(texts) > n else shown
