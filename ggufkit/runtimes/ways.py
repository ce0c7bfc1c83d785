"""Ways for a file into a runtime's folder: which it will be, why, and what to type when it is refused."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import IntegrityError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.digest import sha256_file
from ggufkit.transfer.disk import Method, existing_parent, hard_link_refused, same_file_system

Wanted = Method | Literal["move"]
"""What may be asked for; `move` links or copies, and gives up the first name when all is done."""

OTHER_DISK = "another file system"

_WHY: dict[Wanted, str] = {
    "auto": "a hard link: one file with two names, no second copy",
    "hard-link": "a hard link: one file with two names, no second copy",
    "reflink": "a reflink: a file of its own that shares the blocks until one of them is changed",
    "symbolic-link": "a symbolic link: it works across disks, and breaks when the file is moved away",
    "move": "moved: the file has its name there only",
    "copy": "a copy, as asked for: the bytes are on the disk twice",
}


@dataclass(frozen=True, slots=True)
class Way:
    """How a file will get to its place."""

    why: str
    """What it will be, and why, in one line."""
    mend: str | None
    """What to do, if a link was wanted and is refused."""
    copy_bytes: int
    """Bytes that it takes there, as far as can be foreseen: 0 with a link."""


def find_way(source: Path, folder: Path, n_bytes: int, wanted: Wanted) -> Way:
    """Say how `source`, which may be still to come, gets into `folder`; nothing is written.

    Raises UsageError where the way that was asked for can't be gone.
    """
    if wanted == "move" and source.is_symlink():
        raise UsageError(
            f"{source} is a symbolic link: only a file can be moved", hint=f"--move {_real(source)}"
        )
    if wanted == "symbolic-link":
        return Way(_WHY[wanted], None, 0)
    if wanted == "copy":
        return Way(_WHY[wanted], None, n_bytes)
    refused = _refused(source, folder)
    if refused is None or (wanted == "reflink" and refused != OTHER_DISK):
        return Way(_WHY[wanted], None, 0)
    mend = _mend(source, refused)
    if wanted in ("hard-link", "reflink"):
        raise UsageError(f"no {wanted.replace('-', ' ')} from {source} to {folder}: {refused}", hint=mend)
    if wanted == "move":
        return Way(f"moved by a copy ({refused}), which is checked before the file goes", None, n_bytes)
    return Way(f"a copy, for a hard link is refused: {refused}", mend, n_bytes)


def check_moved(source: Path, target: Path, sha256: str, progress: Progress = SILENT) -> None:
    """Raise IntegrityError unless `target` is the same file as `source`, or has the digest `sha256`."""
    if target.samefile(source):
        return
    progress.start(f"checking the copy of {source.name}", target.stat().st_size)
    try:
        found = sha256_file(target, progress)
    finally:
        progress.finish()
    if found != sha256:
        raise IntegrityError(f"{target}: SHA-256 is {found}, expected {sha256}; {source} is kept")


def closed_to(source: Path, folder: Path, wanted: Wanted) -> tuple[str, ...]:
    """Warn of what keeps the owner of `folder`, whom a service runs as, from reading `source`."""
    if not source.exists() or not hasattr(os, "geteuid"):
        return ()
    owner, status = existing_parent(folder).stat().st_uid, source.stat()
    if owner in (0, status.st_uid):
        return ()
    if not status.st_mode & 0o004 and wanted != "copy":
        return (f"only its owner may read {source}: if the server runs as another user, chmod o+r it",)
    if wanted != "symbolic-link":
        return ()  # a hard link leads past the folders above
    shut = [above for above in _real(source).parents if not above.stat().st_mode & 0o001]
    return tuple(
        f"other users may not pass {above}: a link by name leads nowhere for them" for above in shut[:1]
    )


def _refused(source: Path, folder: Path) -> str | None:
    if source.exists():
        return hard_link_refused(source, folder)
    return None if same_file_system(source, folder) else OTHER_DISK


def owner_of(path: Path) -> str:
    """Return the name of the user who owns a file or folder, else his number."""
    uid = path.stat().st_uid
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):  # Windows; a user of another machine
        return f"user {uid}"


def quote(path: Path) -> str:
    """Return a path as a shell wants it."""
    return shlex.quote(str(path))


def _mend(source: Path, refused: str) -> str:
    if refused == OTHER_DISK:
        return "--move or --symbolic-link has it once"
    return f'--symbolic-link, or: sudo chown "$USER" {quote(source)} (it is {owner_of(source)}\'s)'


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
