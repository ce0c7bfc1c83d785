"""What the file system of a folder can't do, found out before the first byte is written to it.

Read from the kernel's list of mounts and from what the system answers about the folder; nothing is
written by `file_system_of` and `check_target`. `probe` writes one small file, and asks it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ggufkit.errors import AccessError, GgufkitError, NoSpaceError, UsageError, printable
from ggufkit.transfer.disk import existing_parent

MOUNTINFO = Path("/proc/self/mountinfo")
LONGEST_SUFFIX = ".part"
"""What a file's name has behind it while it is written."""
OUR_FOLDER = ".ggufkit"
"""Where notes are kept; it may lead out of the folder as little as any other."""
FAT_MAX_FILE_BYTES = (1 << 32) - 1  # linux/fs/fat/inode.c: s_maxbytes = 0xffffffff
WINDOWS_MAX_PATH = 259  # learn.microsoft.com, "Maximum Path Length Limitation": MAX_PATH 260 with the NUL

_FAT = frozenset({"vfat", "msdos", "fat", "fusefat"})
_WINDOWS = _FAT | {
    "exfat",
    "fuse.exfat",
    "ntfs",
    "ntfs3",
    "fuse.ntfs-3g",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "drvfs",
}
"""Types whose names follow Windows' rules (SMB servers and WSL's drives mostly do)."""
_NO_LINKS = _FAT | {"exfat"}
_NO_HOLES = _FAT | {"exfat", "hfs", "hfsplus"}
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that a folder is on, or would be made on."""

    type: str
    """What the kernel calls it: `ext4`, `vfat`, `fuseblk` (NTFS or exFAT); empty where that can't be told."""
    mount: str
    """Where it is mounted; empty where that can't be told."""
    read_only: bool
    """Whether nothing can be written to it."""
    max_file_bytes: int | None
    """The largest file it can hold; None where that is no limit that matters or not known."""
    max_name_bytes: int
    """The longest name of one file or folder."""
    max_path_bytes: int
    """The longest path that a program can open."""
    windows_names: bool
    """Whether Windows' rules for names hold: forbidden characters and names, case that doesn't count."""
    hard_links: bool
    """Whether a file can have a second name."""
    sparse_files: bool
    """Whether room that was never written takes none."""

    @property
    def title(self) -> str:
        """What to call it in messages."""
        name = "FAT32" if self.type in _FAT else self.type or "the file system"
        return f"{name} at {self.mount}" if self.mount else name


def file_system_of(folder: Path, *, mountinfo: str | None = None) -> FileSystem:
    """Return what is known of the file system of `folder`, which need not exist; reads only.

    `mountinfo` is the kernel's list of mounts (proc(5)), read by default.
    """
    there = existing_parent(folder)
    kind, mount, options = _mount_of(str(there), _mounts() if mountinfo is None else mountinfo)
    fat = kind in _FAT
    return FileSystem(
        type=kind,
        mount=mount,
        read_only="ro" in options or _is_read_only(there),
        max_file_bytes=FAT_MAX_FILE_BYTES if fat else None,
        max_name_bytes=_limit(there, "PC_NAME_MAX", 255),
        max_path_bytes=_limit(there, "PC_PATH_MAX", WINDOWS_MAX_PATH if os.name == "nt" else 4096),
        windows_names=kind in _WINDOWS or os.name == "nt",
        hard_links=kind not in _NO_LINKS,
        sparse_files=kind not in _NO_HOLES,
    )


def check_target(root: Path, files: Sequence[tuple[str, int]], *, mountinfo: str | None = None) -> FileSystem:
    """Check that files (path below `root` with '/', size in bytes) can lie there; returns what they'd lie on.

    Raises NoSpaceError for files that are too large, AccessError for a place that can't be written or that
    a link leads out of, UsageError for names that can't be.
    """
    system = file_system_of(root, mountinfo=mountinfo)
    there = existing_parent(root)
    if system.read_only:
        raise AccessError(f"{root}: {system.title} is read-only", hint="name another disk with --local-dir")
    if not there.is_dir():
        raise UsageError(f"{there} is a file, not a folder", hint="name another folder with --local-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise AccessError(
            f"{there}: this user can't write there", hint="name another folder with --local-dir"
        )
    check_inside(root, f"{OUR_FOLDER}/notes")
    for path, n_bytes in files:
        _check_size(system, root, path, n_bytes, system.max_file_bytes)
        _check_name(system, root, path)
        check_inside(root, path)
    if system.windows_names or _ignores_case(there):
        _check_case(system, [path for path, _ in files])
    return system


def check_file(path: Path, n_bytes: int, flag: str, *, mountinfo: str | None = None) -> None:
    """Check that one file can lie there; `flag` names another place in hints. Raises as `check_target`."""
    system = file_system_of(path.parent, mountinfo=mountinfo)
    if system.read_only:
        raise AccessError(f"{path}: {system.title} is read-only", hint=f"name another disk with {flag}")
    if system.max_file_bytes is not None and n_bytes > system.max_file_bytes:
        raise _too_large(system, path.parent, path.name, n_bytes, flag)


def probe(root: Path, files: Sequence[tuple[str, int]]) -> FileSystem:
    """Ask the folder itself, by a small file that is taken away again, what no list of mounts tells.

    Whether it can be written, how large a file can be (by seeking there: nothing is written so far out),
    whether names in another case are the same, whether a file can have a second name. Makes the folder.
    Raises what `check_target` raises; returns what is known then.
    """
    system = file_system_of(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=root, prefix=".ggufkit-", suffix=".tmp")
    except OSError as error:
        raise _refused(root, error) from error
    small = Path(name)
    try:
        for path, n_bytes in files:
            if not _can_seek(handle, n_bytes):
                raise _too_large(system, root, path, n_bytes)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, b"ggufkit")
        folded = small.with_name(small.name.upper()).exists()
        system = replace(system, hard_links=_has_links(small))
    except OSError as error:
        raise _refused(root, error) from error
    finally:
        os.close(handle)
        small.unlink(missing_ok=True)
    if folded:
        _check_case(system, [path for path, _ in files])
    return system


def _can_seek(handle: int, n_bytes: int) -> bool:
    try:
        os.lseek(handle, n_bytes, os.SEEK_SET)  # Linux vfs_setpos: EINVAL beyond s_maxbytes
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG, errno.EOVERFLOW):
            raise
        return False
    return True


def _has_links(small: Path) -> bool:
    second = small.with_suffix(".tmp2")
    try:
        os.link(small, second)
    except OSError:
        return False
    second.unlink(missing_ok=True)
    return True


def check_inside(root: Path, path: str) -> None:
    """Check that no link in `root` leads the file `path` out of it; raises AccessError."""
    home = Path(os.path.realpath(root))
    folder = root
    for part in PurePosixPath(path).parts[:-1]:
        folder = folder / part
        real = Path(os.path.realpath(folder))
        if not real.is_relative_to(home):
            message = f"{folder} is a link that leads out of {root}, to {real}"
            raise AccessError(message, hint="remove the link, or name its folder with --local-dir")


def _check_size(system: FileSystem, root: Path, path: str, n_bytes: int, limit: int | None) -> None:
    if limit is not None and n_bytes > limit:
        raise _too_large(system, root, path, n_bytes)


def _too_large(
    system: FileSystem, root: Path, path: str, n_bytes: int, flag: str = "--local-dir"
) -> NoSpaceError:
    limit = f"{system.max_file_bytes:,} bytes" if system.max_file_bytes else "less"
    message = f"{root}: {printable(path)} has {n_bytes:,} bytes, a file on {system.title} at most {limit}"
    return NoSpaceError(message, hint=f"name another disk with {flag}, or format this one as exFAT")


def _refused(root: Path, error: OSError) -> GgufkitError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "your quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
        return NoSpaceError(f"{root}: {what}", hint="make room, or name another disk with --local-dir")
    reason = "the file system is read-only" if error.errno == errno.EROFS else error.strerror or str(error)
    return AccessError(f"{root} can't be written: {reason}", hint="name another folder with --local-dir")


def _check_name(system: FileSystem, root: Path, path: str) -> None:
    """Check each part of a path, and the path as a whole, with the suffix that a part file has."""
    another = "name another disk with --local-dir"
    parts = PurePosixPath(path).parts
    for i, part in enumerate(parts):
        n_bytes = len(os.fsencode(part + LONGEST_SUFFIX if i == len(parts) - 1 else part))
        if n_bytes > system.max_name_bytes:
            limit = f"{n_bytes} bytes with {LONGEST_SUFFIX} of {system.max_name_bytes}"
            raise UsageError(
                f"{printable(part)} is too long a name for {system.title}: {limit}", hint=another
            )
        if system.windows_names and (_FORBIDDEN.search(part) or _DEVICES.fullmatch(part) or part[-1] in ". "):
            raise UsageError(f"{system.title} can't have a file named {printable(part)}", hint=another)
    n_bytes = len(os.fsencode(str(root.absolute() / path) + LONGEST_SUFFIX))
    if n_bytes > system.max_path_bytes:
        message = f"{root}: the path of {printable(path)} has {n_bytes:,} bytes, {system.max_path_bytes:,} go"
        raise UsageError(message, hint="name a folder with a shorter path with --local-dir")


def _check_case(system: FileSystem, paths: Iterable[str]) -> None:
    """Check that no two files are the same one where case does not count."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            message = f"{printable(other)} and {printable(path)} are one file on {system.title}"
            raise UsageError(
                f"{message}: case does not count there", hint="name another disk with --local-dir"
            )


def _ignores_case(there: Path) -> bool:
    """Say whether a folder that is there is also found under its name in the other case."""
    other = there.with_name(there.name.swapcase()) if there.name else there
    with contextlib.suppress(OSError):
        return other.name != there.name and other.samefile(there)
    return False


def _limit(there: Path, name: str, default: int) -> int:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        found = os.pathconf(there, name)
        return found if found > 0 else default
    return default


def _is_read_only(there: Path) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        return bool(os.statvfs(there).f_flag & os.ST_RDONLY)
    return False


def _mounts() -> str:
    with contextlib.suppress(OSError):
        return MOUNTINFO.read_text("utf-8", "surrogateescape")
    return ""


def _mount_of(path: str, mountinfo: str) -> tuple[str, str, frozenset[str]]:
    """Return type, mount point and options of the mount that `path` is on; the last one mounted wins."""
    best: tuple[str, str, frozenset[str]] = ("", "", frozenset())
    for line in mountinfo.splitlines():
        fields, _, after = line.partition(" - ")
        words, more = fields.split(" "), after.split(" ")
        if len(words) < 6 or len(more) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), words[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[1]):
            kind = re.sub(r"^fuse(?:blk)?\.", "", more[0])
            best = (kind, point, frozenset(words[5].split(",")) | frozenset(more[2].split(",")))
    return best
