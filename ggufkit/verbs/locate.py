"""Which model a command means: a file, any shard, a folder, a repo, or the one at hand."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import FormatError, NotFoundError
from ggufkit.gguf.header import Header
from ggufkit.gguf.shards import ShardName, check_set, is_shard, parse_shard_name
from ggufkit.hubs.hub import is_ref
from ggufkit.hubs.labels import parse_raw_part
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.sources import open_header
from ggufkit.verbs.record import Record, consume_notes, find_record, last_pulled, pull_command, records_in

MMPROJ_PREFIX = "mmproj"  # llama.cpp, LM Studio: the projector beside a model, never the model itself


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine: one file, or a set of shards."""

    name: str
    """The file's name without `.gguf` and shard numbers."""
    files: tuple[Path, ...]
    """The file, or all shards that are there, in order."""
    missing: tuple[str, ...] = ()
    """Names of shards that are not there."""

    @property
    def folder(self) -> Path:
        """The folder that holds the files."""
        return self.files[0].parent

    @property
    def is_sharded(self) -> bool:
        """Whether the files are shards by their names."""
        return parse_shard_name(self.files[0].name) is not None

    @property
    def record(self) -> Record | None:
        """What a pull or a merge recorded of the files."""
        return find_record(self.files[0])

    def headers(self) -> tuple[Header, ...]:
        """Return the checked headers of all files; raises FormatError when the set is not whole."""
        if consume_notes(self.folder, self.name).exists():
            reason = "is being merged, and its shards are partly given up already"
            hint = f"ggufkit merge --consume {shlex.quote(str(self.files[0]))} goes on"
            raise FormatError(str(self.folder / self.name), reason, hint=hint)
        if parse_raw_part(self.files[0].name) is not None:
            hint = f"ggufkit merge {shlex.quote(str(self.files[0]))} joins all of them"
            raise FormatError(str(self.files[0]), "is a raw part of a model, no model by itself", hint=hint)
        if self.missing:
            n = len(self.missing)
            reason = f"{n} of {len(self.files) + n} shards missing: {', '.join(self.missing[:3])}"
            command = pull_command(self.record) if self.record is not None else None
            hint = f"{command or 'pulling the set again'} fetches only what is missing"
            raise FormatError(str(self.folder / self.name), reason, hint=hint)
        headers = tuple(open_header(path) for path in self.files)
        if self.is_sharded:
            return check_set(headers).headers
        if is_shard(headers[0]):
            reason = "is one shard of several, but not named like one (…-00001-of-0000N.gguf)"
            raise FormatError(str(self.files[0]), reason, hint="give it back its published name")
        return headers


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The headers of a model, local or on a hub."""

    name: str
    """The file's name without `.gguf` and shard numbers."""
    headers: tuple[Header, ...]
    """One header, or one per shard."""
    where: str
    """The file or folder, or the repo."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(h.file_size_bytes for h in self.headers)


def load_headers(argument: str | None, *, source: str = "auto", progress: Progress = SILENT) -> LoadedModel:
    """Return the headers of the model that `argument` names; those on a hub are read by range."""
    if argument is not None and is_ref(argument):
        from ggufkit.verbs.remote import remote_headers

        return remote_headers(argument, source, progress)
    model = find_model(argument)
    where = model.folder if model.is_sharded else model.files[0]
    return LoadedModel(model.name, model.headers(), str(where))


def find_model(argument: str | None = None, *, cwd: Path | None = None, shards: bool = False) -> LocalModel:
    """Return the local model that `argument` (a file, any shard, a folder, nothing) means.

    A set of shards and the file merged from it are one model; the merged file stands for it, unless
    `shards` asks for the shards. Raises NotFoundError when there is none, or more than one.
    """
    if argument is None:
        return _at_hand(cwd or Path(), shards)
    path = Path(argument).expanduser()
    if path.is_dir():
        found = models_in(path, shards)
        gone = [record for record in records_in(path) if record.manifest.sources]
        if not found and gone:
            raise _gone(gone[0], "recorded there")
        return _only(found, path)
    if not path.exists():
        fetch = f"ggufkit pull {argument} fetches it from a hub" if is_ref(argument) else None
        raise NotFoundError(f"{path}: no such file", hint=_near(path) or fetch)
    return _of_file(path)


def _of_file(path: Path) -> LocalModel:
    name = parse_shard_name(path.name)
    if name is None:
        return LocalModel(_stem(path), (path,))
    return _set(path.parent, name)


def _set(folder: Path, name: ShardName) -> LocalModel:
    paths = [folder / n.file_name() for n in name.siblings()]
    found = [(path, path.exists()) for path in paths]
    there = tuple(path for path, exists in found if exists)
    return LocalModel(name.prefix, there, tuple(path.name for path, exists in found if not exists))


def _at_hand(cwd: Path, shards: bool) -> LocalModel:
    """Return the model in the current folder or one folder down, else the one pulled last."""
    found = models_in(cwd, shards)
    if len(found) == 1:
        return found[0]
    last = last_pulled()
    paths = [p for p in last.paths() if p.exists()] if last else []
    if last is not None and not paths and not found:
        raise _gone(last, "pulled last")
    if paths:
        pulled = _preferred(_of_file(paths[0]), shards)
        if not found or _real(pulled.files[0]) in (_real(m.files[0]) for m in found):
            return pulled
    return _only(found, cwd)


def _gone(record: Record, how_known: str) -> NotFoundError:
    hint = f"{pull_command(record) or 'pulling it again'} fetches it, or what is missing of it"
    return NotFoundError(f"{record.manifest.name}, {how_known}, is not there", hint=hint)


def _preferred(model: LocalModel, shards: bool) -> LocalModel:
    """Return the merged file that stands for the set, when it is there and wanted."""
    merged = [p for p in merged_names(model) if p.is_file()]
    return _of_file(merged[0]) if merged and not shards else model


def merged_names(model: LocalModel) -> tuple[Path, ...]:
    """Return where the file merged from a set may lie: beside its folder, or beside the shards."""
    name = f"{model.name}.gguf"
    return (model.folder.parent / name, model.folder / name) if model.is_sharded else ()


def models_in(folder: Path, shards: bool = False) -> list[LocalModel]:
    """Return the models in `folder`, one folder down, and those recorded there."""
    folders = [folder, *sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))]
    paths = [p for f in folders for p in sorted(f.glob("*.gguf")) if p.is_file()]
    paths += [p for f in folders for r in records_in(f) for p in r.paths() if p.exists()]
    return _grouped(paths, shards)


def _grouped(paths: Iterable[Path], shards: bool) -> list[LocalModel]:
    """Return the models that the files make, each once however many names lead to it."""
    models: dict[str, LocalModel] = {}
    seen: set[str] = set()
    for path in paths:
        if path.name.lower().startswith(MMPROJ_PREFIX) or _real(path) in seen:
            continue
        model = _of_file(path)
        models[_real(model.files[0])] = model
        seen.update(_real(p) for p in model.files)
    merged = {_real(p) for m in models.values() for p in merged_names(m)}
    out: dict[str, LocalModel] = {}
    for first, model in models.items():
        if first in merged and shards:
            continue  # the shards stand for it
        model = _preferred(model, shards)
        out.setdefault(_real(model.files[0]), model)
    return list(out.values())


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _only(models: list[LocalModel], folder: Path) -> LocalModel:
    where = "this folder" if folder == Path() else str(folder)
    if len(models) == 1:
        return models[0]
    parts = [p for p in (*folder.glob("*"), *folder.glob("*/*")) if parse_raw_part(p.name)]
    if parts and all(parse_raw_part(m.files[0].name) for m in models):
        hint = f"ggufkit merge {shlex.quote(str(min(parts)))} joins them"
        raise NotFoundError(f"no model in {where}, only raw parts of one", hint=hint)
    if not models:
        hint = "ggufkit pull REF --quant Q gets one; or name a file, a shard or a folder"
        raise NotFoundError(f"no model in {where}", hint=hint)
    names = "\n".join(f"  {m.files[0]}" for m in models[:20])
    raise NotFoundError(f"{len(models)} models in {where}:\n{names}", hint="name one of them")


def _near(path: Path) -> str | None:
    import difflib

    folder = path.parent
    names = [p.name for p in folder.glob("*")] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {folder / near[0]}?" if near else None


def _stem(path: Path) -> str:
    return path.name[:-5] if path.name.lower().endswith(".gguf") else path.name
