"""Changes to folders that another program owns: readable by it, and undone when not all can be done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.copying import link_or_copy_told
from ggufkit.runtimes.intents import Note
from ggufkit.transfer.disk import Method, existing_parent, write_atomic

FOLDER_MODE = 0o755
FILE_MODE = 0o644


class Changes:
    """What is written into folders of another program. Leaving the `with` block by an error undoes all of it.

    What is made belongs to the owner of the folder it is made in, if we are root and so may give it away:
    a service must be able to remove what was imported into its store.
    """

    def __init__(self, root: Path, note_in: Path | None = None) -> None:
        """Begin; `root` is the program's folder, which may not exist yet.

        What is made is noted before in the staging folder `note_in`, so that `intents.sweep` can remove it
        if we are killed.
        """
        status = existing_parent(root).stat()
        self._owner = (status.st_uid, status.st_gid)
        self._undo: list[Callable[[], None]] = []
        self._staging: list[Path] = []
        self._note_in = note_in
        self._note: Note | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.undo()
        self._end_note()
        for folder in self._staging:
            with contextlib.suppress(OSError):  # gone, or another import's file is in it
                folder.rmdir()

    def undo(self) -> None:
        """Take back what was done, last first; what can't be taken back is left."""
        while self._undo:
            with contextlib.suppress(OSError):
                self._undo.pop()()

    def undoing(self, undo: Callable[[], None]) -> None:
        """Have `undo` called if all is taken back: for what was done without this object's help."""
        self._undo.append(undo)

    def folder(self, path: Path) -> None:
        """Make a folder, and those above it that are missing."""
        self._begin_note()
        for folder in _missing(path):
            self._about_to_make(folder)
            self._make(folder)
            self._undo.append(folder.rmdir)

    def staging(self, path: Path) -> Path:
        """Make a folder that is gone when the changes are done; the folders above it stay."""
        self.folder(path)
        if path not in self._staging:
            self._staging.append(path)
        return path

    def place(
        self,
        src: Path,
        dst: Path,
        *,
        method: Method,
        staging: Path,
        unless: Callable[[], bool] = lambda: False,
        progress: Progress = SILENT,
    ) -> Method:
        """Link or copy a file; undone unless `unless()` says then that somebody else uses it."""
        self._about_to_make(dst)
        used = link_or_copy_told(src, dst, method=method, staging=staging, progress=progress)
        self._undo.append(lambda: None if unless() else dst.unlink())
        if used in ("copy", "reflink"):
            self._give(dst)
        return used

    def write(
        self,
        path: Path,
        data: bytes,
        *,
        staging: Path,
        unless: Callable[[], bool] = lambda: False,
        final: bool = False,
    ) -> None:
        """Write a small file, all or nothing; undone to what was there before.

        With a `final` one all is there: who is killed after it leaves nothing to be removed.
        """
        before = path.read_bytes() if path.exists() else None
        if before is None and not final:
            self._about_to_make(path)
        self._write(path, data, staging)
        if before is None:
            self._undo.append(lambda: None if unless() else path.unlink())
        else:
            self._undo.append(lambda: self._write(path, before, staging))

    def _write(self, path: Path, data: bytes, staging: Path) -> None:
        write_atomic(path, data, FILE_MODE, staging=staging)
        self._give(path)

    def _begin_note(self) -> None:
        """Make the staging folder and the note in it; the folders that takes are noted afterwards."""
        if self._note_in is None or self._note is not None:
            return
        missing = _missing(self._note_in)
        for folder in missing:
            self._make(folder)
            if folder != self._note_in:
                self._undo.append(folder.rmdir)
        self._note = Note(self._note_in)
        self._undo.append(self._end_note)
        for folder in missing:
            self._note.will_make(folder)

    def _end_note(self) -> None:
        """All is done, or taken back but for the folders around the note."""
        if self._note is None or self._note_in is None:
            return
        self._note.close()
        self._note = None
        with contextlib.suppress(OSError):  # another import's files are in it
            self._note_in.rmdir()

    def _about_to_make(self, path: Path) -> None:
        if self._note is not None:
            self._note.will_make(path)

    def _make(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(FOLDER_MODE)  # whatever the umask
        self._give(folder)

    def _give(self, path: Path) -> None:
        uid, gid = self._owner
        if uid != 0 and getattr(os, "geteuid", lambda: -1)() == 0:
            os.chown(path, uid, gid, follow_symlinks=False)


def _missing(path: Path) -> list[Path]:
    """Return the folders that must be made for `path` to be there, the outermost first."""
    return [p for p in reversed((path, *path.parents)) if not p.exists()]
