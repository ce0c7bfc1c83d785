"""What a disk can do for us: links, clones, room, and writes that survive a power loss."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from ggufkit.errors import AccessError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.copying import copy_range

Method = Literal["auto", "hard-link", "symbolic-link", "reflink", "copy"]
"""How a file gets a second place; `auto` is a hard link, else a reflink, else a copy."""

_FICLONE = 0x40049409  # linux/fs.h FICLONE: _IOW(0x94, 9, int)

_CANNOT_LINK = {
    errno.EXDEV: "another file system",
    errno.EPERM: "not permitted here: not this user's file, or a file system without hard links",
    errno.EMLINK: "the file has as many names as its file system allows",
    errno.ENOTSUP: "a file system without hard links",
    errno.EOPNOTSUPP: "a file system without hard links",
    errno.ENOSYS: "a file system without hard links",
}
"""Why link(2) may refuse though a copy would work."""

_CANNOT_CLONE = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
}
"""How a file system says that it can't share blocks."""


def link_or_copy(
    src: Path,
    dst: Path,
    *,
    method: Method = "auto",
    staging: Path | None = None,
    progress: Progress = SILENT,
) -> Method:
    """Give the file `src` a second place `dst`, which must not exist; return the method that worked.

    A copy is written in the folder `staging` (of the file system of `dst`; its own folder by default) and
    appears at `dst` whole, with mode 0644. A link changes nothing about the file. A refused hard link is
    told to `progress` before the copy begins. Raises UsageError or AccessError when `method` can't be had,
    NoSpaceError before a copy that has no room, TargetExistsError.
    """
    real = Path(os.path.realpath(src))  # link(2) would give a symbolic link itself a second name
    if os.path.lexists(dst):
        raise TargetExistsError(f"{dst} is there already")
    if method == "symbolic-link":
        dst.symlink_to(real)
        return method
    if method in ("auto", "hard-link"):
        reason = _hard_link(real, dst)
        if reason is None:
            return "hard-link"
        if method == "hard-link":
            raise _no_hard_link(src, dst, reason)
        progress.note(f"no hard link from {src} to {dst.parent} ({reason}): copying")
    return _copy(real, dst, staging or dst.parent, only_reflink=method == "reflink", progress=progress)


def hard_link_refused(src: Path, folder: Path) -> str | None:
    """Return why a hard link of `src` in `folder` will surely be refused, or None when it may work.

    Reads only; the folder need not exist. Answers for what can be known beforehand: the file system, and
    Linux's rule that a user links only files that are his, or that he may read and write.
    """
    if not same_file_system(src, folder):
        return _CANNOT_LINK[errno.EXDEV]
    if not _linkable_by_us(src):
        return _CANNOT_LINK[errno.EPERM]
    return None


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write where `path` is, or would be made."""
    return shutil.disk_usage(existing_parent(path)).free


def same_file_system(a: Path, b: Path) -> bool:
    """Say whether two paths, which need not exist, are on one file system."""
    return existing_parent(a).stat().st_dev == existing_parent(b).stat().st_dev


def existing_parent(path: Path) -> Path:
    """Return `path` if it exists, else the nearest folder above it that does."""
    path = Path(os.path.realpath(path))
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def staging_folder(folder: Path, name: str) -> Path:
    """Return where to write what will be renamed into `folder`: `name` beside it, of the same file system.

    Beside and not inside, because programs scan the folder itself; inside only where beside it is another
    file system. Nothing is made.
    """
    real = Path(os.path.realpath(folder))
    beside = real.parent / name
    return beside if same_file_system(beside, real) else real / name


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, staging: Path | None = None) -> None:
    """Write `data` to `path` durably, all or nothing, with `mode`; replaces what is there.

    The temporary file is in `staging` (of the same file system; the file's own folder by default).
    """
    handle, name = tempfile.mkstemp(dir=staging or path.parent, prefix=".ggufkit-", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        set_mode(temporary, mode)  # mkstemp gives 0600
        replace_durably(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def set_mode(path: Path, mode: int) -> None:
    """Set permissions where the file system keeps any: FAT and exFAT refuse it (linux/fs/fat/file.c)."""
    with contextlib.suppress(OSError):
        path.chmod(mode)


def replace_durably(tmp: Path, dst: Path) -> None:
    """Rename `tmp` to `dst` so that after a power loss there is the whole new file or the old one."""
    with tmp.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(tmp, dst)  # noqa: PTH105 - Path.replace is the same; this one says that it replaces
    fsync_folder(dst.parent)


def begin_writing(fd: int, start: int, end: int) -> None:
    """Let the disk begin with `[start, end)` of an open file that was just written, and wait for nothing.

    So the sync at the end finds most of it done. Linux does so for POSIX_FADV_DONTNEED (mm/fadvise.c), and
    drops only those pages from memory that are on the disk already.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # an advice
            os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the platform can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folders; there the file system's own journal keeps names
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(handle)
    finally:
        os.close(handle)


def _hard_link(src: Path, dst: Path) -> str | None:
    """Link, or return why the file system refuses although a copy may work."""
    try:
        os.link(src, dst)
    except FileExistsError:
        raise TargetExistsError(f"{dst} is there already") from None
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return _CANNOT_LINK[error.errno]
    fsync_folder(dst.parent)
    return None


def _linkable_by_us(src: Path) -> bool:
    """Foresee fs.protected_hardlinks (Linux, Documentation/admin-guide/sysctl/fs.rst)."""
    if sys.platform != "linux" or os.geteuid() == 0:
        return True
    with contextlib.suppress(OSError):
        if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "0":
            return True
    return src.stat().st_uid == os.geteuid() or os.access(src, os.R_OK | os.W_OK)


def _no_hard_link(src: Path, dst: Path, reason: str) -> UsageError | AccessError:
    message = f"no hard link from {src} to {dst.parent}: {reason}"
    if reason == _CANNOT_LINK[errno.EPERM]:
        return AccessError(message, hint="--copy, or run as the file's owner")
    return UsageError(message, hint="--copy, or move the file there first")


def _copy(src: Path, dst: Path, staging: Path, *, only_reflink: bool, progress: Progress) -> Method:
    handle, name = tempfile.mkstemp(dir=staging, prefix=".ggufkit-", suffix=".tmp")
    temporary = Path(name)
    try:
        with src.open("rb", buffering=0) as source, os.fdopen(handle, "wb", buffering=0) as target:
            method = _fill(source.fileno(), target.fileno(), src, dst, only_reflink, progress)
        set_mode(temporary, 0o644)
        replace_durably(temporary, dst)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return method


def _fill(source: int, target: int, src: Path, dst: Path, only_reflink: bool, progress: Progress) -> Method:
    size_bytes = os.fstat(source).st_size
    if _clone(source, target):
        progress.advance(size_bytes)
        return "reflink"
    if only_reflink:
        raise UsageError(f"no reflink from {src} to {dst.parent}: its file system can't", hint="--copy")
    _check_room(dst, size_bytes)
    try:
        copy_range(source, 0, target, 0, size_bytes, lambda start, end: progress.advance(end - start))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{dst.parent}: the disk is full while copying {src.name}") from None
        raise
    if os.fstat(target).st_size != size_bytes or os.fstat(source).st_size != size_bytes:
        raise AccessError(f"{src} changed while it was copied")
    return "copy"


def _check_room(dst: Path, size_bytes: int) -> None:
    free = free_bytes(dst)
    if free < size_bytes:
        raise NoSpaceError(f"{dst.parent}: a copy needs {size_bytes:,} bytes, {free:,} are free")


def _clone(source: int, target: int) -> bool:
    """Share the blocks of `source` with `target`, where the file system can (btrfs, XFS, bcachefs)."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True
