"""Raw parts: byte pieces of one file (`.gguf.part1of2`, `.gguf-split-a`, `.gguf.00`), joined again.

Names only propose: the first part must begin with a GGUF header, no other may, and the header says how long
the whole is, to the byte, so that a missing, doubled or cut part is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ggufkit.errors import FormatError, NotFoundError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import join_layout
from ggufkit.hubs.labels import RawPart, parse_raw_part
from ggufkit.transfer.copying import read_at
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.sources import LocalSource, header_by_range
from ggufkit.verbs.consume import ConsumePlan, begun_consumption, plan_consume_of, resumed_plan
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.merge import MergePlan, check_output, merge_job
from ggufkit.verbs.record import last_pulled, pull_command

MAGIC = b"GGUF"
_Key = tuple[Path, str, int | None]


def find_parts(argument: str | None = None, *, cwd: Path | None = None) -> LocalModel | None:
    """Return the raw parts that `argument` (any part, a folder, nothing) means; None when it means no parts.

    Whether they are all there and belong together is for `plan_join` to say. Raises NotFoundError when
    a folder has several sets of parts.
    """
    if argument is not None and not Path(argument).expanduser().is_dir():
        path = Path(argument).expanduser()
        name = parse_raw_part(path.name)
        if name is None or not path.is_file():
            return None
        return _model(
            path.parent, name.file_name, _sets([path.parent])[path.parent, name.file_name, name.total]
        )
    home = Path(argument).expanduser() if argument is not None else cwd or Path()
    sets = _in_folder(home)
    if not sets and argument is None and not list(home.glob("*.gguf")):
        sets = _pulled_last()
    if len(sets) > 1:
        names = "\n".join(f"  {folder / file}" for folder, file, _ in sets)
        raise NotFoundError(f"raw parts of {len(sets)} files in {home}:\n{names}", hint="name one part")
    return next((_model(folder, file, parts) for (folder, file, _), parts in sets.items()), None)


def plan_join(
    model: LocalModel, *, output: Path | None = None, verify: bool = True, force: bool = False
) -> MergePlan:
    """Check that the raw parts are one whole file, and lay it out; nothing is written.

    Raises FormatError that names the part that is missing, doubled or no part at all.
    """
    parts = _checked(model.files)
    record = model.record
    sources = tuple(
        LocalSource(path, path.stat().st_size, record.digest_of(path) if record is not None else None)
        for path in parts
    )
    name = f"{model.name}.gguf"
    header = _whole_header(name, sources)
    output = output or model.folder / name
    if output.is_dir():
        output = output / name
    check_output(model, output, "part")
    job = merge_job(output, join_layout([s.size_bytes for s in sources]), sources, record, verify)
    return MergePlan(
        model=replace(model, files=parts),
        output=output,
        n_shards=len(parts),
        n_bytes=header.file_size_bytes,
        job=job,
        exists=output.exists(),
        force=force,
        free_bytes=free_bytes(output.parent),
        warnings=header.warnings,
        pieces="part",
    )


def plan_consuming_join(
    model: LocalModel, *, output: Path | None = None, verify: bool = True, force: bool = False
) -> ConsumePlan:
    """Check the parts, and plan to join them in the space of one copy, or go on with that."""
    begun = begun_consumption(model)
    if begun is not None:
        return resumed_plan(model, begun, output, verify, pieces="part")
    plan = plan_join(model, output=output, verify=verify, force=force)
    return plan_consume_of(plan, verify=verify)


def _sets(folders: Sequence[Path]) -> dict[_Key, list[tuple[RawPart, Path]]]:
    """Return the files that are raw parts by name, by what they are parts of."""
    found: dict[_Key, list[tuple[RawPart, Path]]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            name = parse_raw_part(path.name)
            if name is not None and path.is_file():
                found.setdefault((folder, name.file_name, name.total), []).append((name, path))
    return found


def _in_folder(home: Path) -> dict[_Key, list[tuple[RawPart, Path]]]:
    """Return the sets in a folder and one folder down; none where other models lie, which come first."""
    folders = [home, *sorted(p for p in home.iterdir() if p.is_dir() and not p.name.startswith("."))]
    sets = _sets(folders)
    joined = {folder / file for folder, file, _ in sets}
    others = [p for folder in folders for p in folder.glob("*.gguf") if p not in joined]
    return {} if any(not p.name.lower().startswith("mmproj") for p in others) else sets


def _pulled_last() -> dict[_Key, list[tuple[RawPart, Path]]]:
    record = last_pulled()
    paths = [p for p in record.paths() if p.exists()] if record is not None else []
    name = parse_raw_part(paths[0].name) if paths else None
    if name is None:
        return {}
    folder = paths[0].parent
    key = (folder, name.file_name, name.total)
    return {key: _sets([folder])[key]}


def _model(folder: Path, file: str, parts: list[tuple[RawPart, Path]]) -> LocalModel:
    ordered = sorted(parts, key=lambda part: (part[0].number, part[1].name))
    return LocalModel(file[: -len(".gguf")], tuple(path for _, path in ordered))


def _checked(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the parts in order; raises FormatError when one is missing by its number, or there twice."""
    names = [parse_raw_part(path.name) for path in paths]
    numbers = [name.number for name in names if name is not None]
    first = 0 if 0 in numbers else 1
    total = next((name.total for name in names if name is not None and name.total), None)
    wanted = range(first, first + (total or max(numbers) + 1 - first))
    for number, path in zip(numbers, paths, strict=True):
        if numbers.count(number) > 1:
            raise FormatError(str(path), f"two files are part {number}: which one is meant?")
    missing = [str(n) for n in wanted if n not in numbers]
    if missing:
        text = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise FormatError(
            str(paths[0]), f"is one of {len(wanted)} parts, without part {text}", hint=_again(paths)
        )
    return tuple(paths)


def _whole_header(name: str, sources: tuple[LocalSource, ...]) -> Header:
    """Return the header of what the parts make; raises FormatError when their sizes don't fit it."""
    for i, source in enumerate(sources):
        begins = _begins(source.path)
        if i == 0 and begins != MAGIC:
            raise FormatError(str(source.path), "is the first part, but does not begin like a GGUF")
        if i and begins == MAGIC:
            reason = "begins like a GGUF of its own: these are no raw parts of one file"
            raise FormatError(str(source.path), reason)
    total = sum(source.size_bytes for source in sources)
    header = header_by_range(_reader(sources), name=name, file_size_bytes=total, whole_file=False)
    end = header.data_offset + header.data_bytes
    last = header.tensors[-1] if header.tensors else None
    least = header.data_offset + last.offset + last.n_bytes if last is not None else end
    if not least <= total <= end:
        off = f"{least - total:,} bytes are missing" if total < least else f"{total - end:,} bytes too many"
        reason = f"the {len(sources)} parts have {total:,} bytes, but the header speaks of {end:,}: {off}"
        raise FormatError(name, reason, hint=_again([source.path for source in sources]))
    return header


def _again(paths: Sequence[Path]) -> str:
    record = LocalModel(paths[0].name, tuple(paths)).record
    command = pull_command(record) if record is not None else None
    return f"{command or 'pulling the parts again'} fetches what is missing"


def _begins(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        return read_at(file.fileno(), len(MAGIC), 0)


def _reader(sources: tuple[LocalSource, ...]) -> Callable[[int], bytes]:
    """Return what reads the first bytes of all parts together."""

    def read(n_bytes: int) -> bytes:
        parts = []
        for source in sources:
            with source.path.open("rb", buffering=0) as file:
                while n_bytes and (data := file.read(n_bytes)):
                    parts.append(data)
                    n_bytes -= len(data)
        return b"".join(parts)

    return read
