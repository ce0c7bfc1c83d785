"""The models that a repo or a folder has, and their headers, read several at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header
from ggufkit.gguf.shards import check_set, is_shard
from ggufkit.hubs.hub import RemoteFile, is_ref
from ggufkit.hubs.labels import read_label
from ggufkit.hubs.quants import Quant
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.http import Http
from ggufkit.transfer.likeness import Likeness
from ggufkit.transfer.sources import header_by_range
from ggufkit.verbs.listing import Repo, open_repo
from ggufkit.verbs.locate import LocalModel, models_in

N_AT_ONCE = 8
"""Headers that are read at the same time: each waits for its hub most of the time."""
FIRST_READ_BYTES, GROWTH = 64 << 10, 1.25  # as HubSource.header()

Reader = Callable[[], Header]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of several that may be meant."""

    name: str
    """The quant's label; the file's name where two have the same label."""
    stem: str
    """The file's name without shard numbers and `.gguf`."""
    folder: str
    """Where its files are: in the repo, or on this machine."""
    n_files: int
    """Its files."""
    total_bytes: int
    """Their size."""
    problem: str | None = None
    """Why it can't be judged."""
    readers: tuple[Reader, ...] = field(default=(), repr=False, compare=False)
    """One for each file's header."""


@dataclass(frozen=True, slots=True)
class Several:
    """The models of a repo or a folder."""

    title: str
    """The repo, or the folder."""
    where: str
    """The hub's address; empty for a folder."""
    candidates: tuple[Candidate, ...]
    """The models, in order of size; of other models than the repo is named after last."""
    http: Http | None = field(default=None, repr=False, compare=False)
    """What their headers are read through; to be closed."""


def find_several(
    argument: str | None, *, source: str = "auto", progress: Progress = SILENT
) -> Several | None:
    """Return the models that `argument` leaves open: a repo without a quant, or a folder of several.

    None when it means one model, or is for `load_headers` to judge.
    """
    if argument is None:
        return None
    if is_ref(argument):
        return _in_repo(argument, source, progress)
    folder = Path(argument).expanduser()
    found = models_in(folder) if folder.is_dir() else []
    if len(found) < 2:
        return None
    ordered = sorted(found, key=lambda m: sum(p.stat().st_size for p in m.files))
    return Several(str(folder), "", _with_own_names(_local(model, folder) for model in ordered))


def _in_repo(text: str, source: str, progress: Progress) -> Several | None:
    from ggufkit.hubs.hub import parse_ref

    if parse_ref(text).quant is not None:
        return None
    repo = open_repo(text, source=source, progress=progress)
    quants = repo.quants()
    if len(quants) < 2:
        return None
    http, likeness = Http(), Likeness()
    candidates = _with_own_names(_remote(repo, quant, http, likeness, progress) for quant in quants)
    return Several(repo.ref.repo_id, repo.listing.endpoint, candidates, http)


def _remote(repo: Repo, quant: Quant, http: Http, likeness: Likeness, progress: Progress) -> Candidate:
    problem: str | None = None
    readers: tuple[Reader, ...] = ()
    if quant.missing:
        problem = f"{len(quant.missing)} of {quant.n_shards} files are missing"
    elif quant.kind == "raw":
        readers = (partial(_raw_header, repo, quant, http, progress),)
    else:
        first, *others = quant.files
        readers = (
            partial(_first_header, repo, first, http, likeness, progress),
            *(partial(_header, repo, file, http, progress) for file in others),
        )
    return Candidate(
        quant.name, quant.stem, quant.folder, len(quant.files), quant.total_bytes, problem, readers
    )


def _first_header(repo: Repo, file: RemoteFile, http: Http, likeness: Likeness, progress: Progress) -> Header:
    """Read the header that has the vocabulary: that of a whole file, or of the first shard."""
    return likeness.header(repo.source(file, http, progress))


def _header(repo: Repo, file: RemoteFile, http: Http, progress: Progress) -> Header:
    return repo.source(file, http, progress).header()


def _raw_header(repo: Repo, quant: Quant, http: Http, progress: Progress) -> Header:
    """Read the header of what raw parts will be when they are joined: it lies in the first."""
    source = repo.source(quant.files[0], http, progress)
    return header_by_range(
        lambda n_bytes: source.read(0, n_bytes),
        name=quant.stem,
        file_size_bytes=quant.total_bytes,
        first_read_bytes=FIRST_READ_BYTES,
        growth=GROWTH,
    )


def _local(model: LocalModel, root: Path) -> Candidate:
    folder = model.folder.relative_to(root).as_posix() if model.folder.is_relative_to(root) else ""
    n_missing = len(model.missing)
    n_files = len(model.files) + n_missing
    return Candidate(
        name=read_label(folder, model.name).quant,
        stem=model.name,
        folder=folder,
        n_files=len(model.files),
        total_bytes=sum(path.stat().st_size for path in model.files),
        problem=f"{n_missing} of {n_files} files are missing" if n_missing else None,
        readers=tuple(partial(_local_header, path) for path in model.files),
    )


def _local_header(path: Path) -> Header:
    from ggufkit.transfer.sources import open_header

    return open_header(path)


def _with_own_names(candidates: Iterator[Candidate]) -> tuple[Candidate, ...]:
    """Call those by their files' names that share a label."""
    found = tuple(candidates)
    names = Counter(candidate.name for candidate in found)
    return tuple(replace(c, name=c.stem) if names[c.name] > 1 else c for c in found)


def read_several(
    candidates: Sequence[Candidate], *, n_at_once: int = N_AT_ONCE
) -> Iterator[tuple[Candidate, tuple[Header, ...]]]:
    """Yield each candidate with its headers, in order; those of the next are read meanwhile.

    One that can't be judged comes with its `problem` and no headers. What goes wrong with the network or
    with access is raised.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(n_at_once, thread_name_prefix="header")
    try:
        waiting: list[tuple[Candidate, list[Future[Header]]]] = [
            (one, [] if one.problem else [pool.submit(reader) for reader in one.readers])
            for one in candidates
        ]
        for candidate, futures in waiting:
            if candidate.problem:
                yield candidate, ()
                continue
            try:
                headers = tuple(future.result() for future in futures)
                futures.clear()  # a header keeps its bytes: 4.9 MB of R1's
                if len(headers) > 1 or is_shard(headers[0]):
                    headers = check_set(headers).headers
            except FormatError as error:
                yield replace(candidate, problem=error.message), ()
            else:
                yield candidate, headers
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
