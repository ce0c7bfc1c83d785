"""The worst disk there is: at a power cut it has what was synced, and nothing of what was destroyed.

What was written and not synced is lost, and so are names that were made or changed in a folder not synced
since; but what was punched, cut or removed is gone at once. Played by wrapping the calls of one process,
which ends at the call chosen; then `restore` puts the disk into the state that a restart would find.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ggufkit.transfer import consume, holes

STATE = "state.json"


def install(root: str, shadow: str, cut_at: int) -> None:
    """Wrap this process's calls; it is killed before the `cut_at`-th of those that reach `root`."""
    _Disk(Path(root), Path(shadow), cut_at).wrap()


def n_calls(shadow: Path) -> int:
    """Return how many calls reached the disk."""
    return int(json.loads((shadow / STATE).read_text())["n_calls"])


def restore(root: Path, shadow: Path) -> None:
    """Put `root` into the state that was durable; files keep their numbers and, if unharmed, their times."""
    state = json.loads((shadow / STATE).read_text())
    hold = shadow / "hold"
    hold.mkdir()
    for path in [p for p in root.rglob("*") if p.is_file()]:
        path.rename(hold / str(path.stat().st_ino))
    for name, inode in state["names"].items():
        path, held, durable = root / name, hold / str(inode), shadow / str(inode)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = durable.read_bytes() if durable.exists() else b""
        if held.exists():
            held.rename(path)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            os.utime(path, ns=(state["times"].get(str(inode), 0),) * 2)
    shutil.rmtree(hold)


class _Disk:
    """What is durable, kept by file number in the folder `shadow`."""

    def __init__(self, root: Path, shadow: Path, cut_at: int) -> None:
        self.root, self.shadow, self.cut_at = root, shadow, cut_at
        self.n_calls = 0
        self.names: dict[str, int] = {}
        self.times: dict[int, int] = {}
        self.lock = threading.RLock()
        self.honest = {name: getattr(os, name) for name in _CALLS}
        for path in (p for p in root.rglob("*") if p.is_file()):
            self._keep(path, path.stat())
            self.names[self._name(path)] = path.stat().st_ino

    def wrap(self) -> None:
        for name in _CALLS:
            setattr(os, name, self._wrapped(name))
        setattr(consume, "punch_hole", self._punching(holes.punch_hole))  # noqa: B010 - mypy
        self._save()

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.lock:
                after = getattr(self, f"_{name}")(*arguments)
                done = self.honest[name](*arguments, **named)
                if after is not None:
                    after()
                    self._save()
                return done

        return call

    def _punching(self, honest: Callable[[int, int, int], bool]) -> Callable[[int, int, int], bool]:
        def punch(fd: int, offset: int, n_bytes: int) -> bool:
            with self.lock:
                self._count()
                with (self.shadow / str(os.fstat(fd).st_ino)).open("r+b") as file:
                    file.seek(offset)
                    file.write(bytes(n_bytes))
                return honest(fd, offset, n_bytes)

        return punch

    def _count(self) -> None:
        """Cut the power, if it is time."""
        self.n_calls += 1
        if self.n_calls == self.cut_at:
            self._save()
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()

    def _save(self) -> None:
        state = {"n_calls": self.n_calls, "names": self.names, "times": self.times}
        (self.shadow / STATE).write_text(json.dumps(state))

    # ---- each returns what is to be done once the call has succeeded, or None for what is not ours ----

    def _fsync(self, fd: int) -> Callable[[], None] | None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if not path.is_relative_to(self.root):
            return None
        self._count()
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return lambda: self._sync_names(path)
        return lambda: self._keep(Path(f"/proc/self/fd/{fd}"), status)

    _fdatasync = _fsync

    def _unlink(self, path: Any, **_: Any) -> Callable[[], None] | None:
        return self._gone(Path(path).absolute())

    def _replace(self, source: Any, target: Any) -> Callable[[], None] | None:
        """A new name is durable when its folder is synced, and not before."""
        if not Path(source).absolute().is_relative_to(self.root):
            return None
        self._count()
        return lambda: None

    _rename = _replace

    def _truncate(self, path: Any, length: int) -> Callable[[], None] | None:
        status = os.fstat(path) if isinstance(path, int) else Path(path).stat()
        durable = self.shadow / str(status.st_ino)
        if not durable.exists() or length >= durable.stat().st_size:
            return None
        self._count()
        return lambda: self.honest["truncate"](durable, length)

    _ftruncate = _truncate

    def _gone(self, path: Path) -> Callable[[], None] | None:
        if not path.is_relative_to(self.root) or not os.path.lexists(path):
            return None
        self._count()
        inode = path.lstat().st_ino
        self.names.pop(self._name(path), None)
        if inode not in self.names.values() and (self.shadow / str(inode)).exists():
            self.honest["unlink"](self.shadow / str(inode))  # the number may be given to another file
        return lambda: None

    def _keep(self, path: Path, status: os.stat_result) -> None:
        shutil.copyfile(path, self.shadow / str(status.st_ino))
        self.times[status.st_ino] = status.st_mtime_ns

    def _sync_names(self, folder: Path) -> None:
        here = self._name(folder)
        prefix = "" if here == "." else f"{here}/"
        for name in [n for n in self.names if n.startswith(prefix) and "/" not in n[len(prefix) :]]:
            del self.names[name]
        for path in folder.iterdir():
            if path.is_file():
                self.names[self._name(path)] = path.stat().st_ino

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


_CALLS = ("fsync", "fdatasync", "unlink", "replace", "rename", "truncate", "ftruncate")
