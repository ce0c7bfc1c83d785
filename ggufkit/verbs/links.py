"""Names below a pulled folder for files that lie on another disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ggufkit.errors import AccessError


def point_to(name: Path, file: Path) -> None:
    """Make `name` a symbolic link to `file`, in place of a link that is there, but never of a file.

    Raises AccessError where that can't be had.
    """
    if name.exists() and not name.is_symlink():
        raise AccessError(f"{name} is there and is a file of its own", hint=f"the other one is {file}")
    temporary = name.with_name(f".{name.name}.{os.getpid()}.link")
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(file.absolute())
        temporary.replace(name)
    except OSError as error:
        hint = f"the file itself is {file}; or pull to a folder on its disk, with --local-dir"
        raise AccessError(f"{name}: no symbolic link there: {error.strerror or error}", hint=hint) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def settle(name: Path, file: Path, home: Path) -> None:
    """Let `name` lead to `home`, the same as `file`, and take away the name under which it grew."""
    point_to(name, home)
    file.unlink()


def hand_over(file: Path) -> None:
    """Let everybody read a file that has become a program's own; root gives it to who owns its folder."""
    status, owner = file.stat(), file.parent.stat()
    with contextlib.suppress(PermissionError):
        file.chmod(status.st_mode | 0o444)
        if owner.st_uid != status.st_uid and getattr(os, "geteuid", lambda: -1)() == 0:
            os.chown(file, owner.st_uid, owner.st_gid)


def remove_empty(folder: Path, top: Path) -> None:
    """Remove `folder` and what is in it, and the folders above it up to `top`, as far as they are empty."""
    with contextlib.suppress(OSError):
        for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            path.rmdir()
        while folder != top.parent:
            folder.rmdir()
            folder = folder.parent
