"""Who else needs a file as it is: other names of it, and programs that have it open or mapped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")  # Linux, proc(5): <pid>/fd/, <pid>/maps, <pid>/comm


@dataclass(frozen=True, slots=True)
class Holder:
    """A program that has a file open or mapped."""

    path: Path
    """The file."""
    pid: int
    """The process."""
    program: str
    """What the process is called."""


def holders(paths: Sequence[Path]) -> tuple[Holder, ...]:
    """Return the other processes that have any of `paths` open or mapped, one entry for each pair.

    Sees what this user may see: all processes as root, else the user's own. Where there is no /proc
    nothing is known, and nothing is returned.
    """
    wanted: dict[tuple[int, int], Path] = {}
    for path in paths:
        status = path.stat()
        wanted[status.st_dev, status.st_ino] = path
    by_name = {os.path.realpath(path): path for path in paths}
    found: list[Holder] = []
    for process in _processes():
        held = {*_open_files(process, wanted), *_mapped_files(process, by_name)}
        found += [Holder(path, int(process.name), _program(process)) for path in sorted(held)]
    return tuple(found)


def _processes() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for entry in sorted(PROC.iterdir()):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                yield entry


def _open_files(process: Path, wanted: dict[tuple[int, int], Path]) -> Iterator[Path]:
    for link in _listed(process / "fd"):
        with contextlib.suppress(OSError):
            status = link.stat()
            path = wanted.get((status.st_dev, status.st_ino))
            if path is not None:
                yield path


def _mapped_files(process: Path, by_name: dict[str, Path]) -> Iterator[Path]:
    """Yield the files that are mapped: llama.cpp closes a model's file and keeps the mapping.

    By name, since btrfs tells another device here than stat(2) does.
    """
    with contextlib.suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6:
                path = by_name.get(os.fsdecode(fields[5]).replace("\\012", "\n"))
                if path is not None:
                    yield path


def _listed(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()  # another user's, or gone


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "?"
