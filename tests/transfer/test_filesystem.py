"""What a disk can't do is told before the first byte: by the list of mounts, and by asking the folder."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, NoSpaceError, UsageError
from ggufkit.transfer import filesystem
from ggufkit.transfer.filesystem import check_file, check_inside, check_target, file_system_of, probe

# As Linux 6 writes them: a root, a FAT32 stick, exFAT through FUSE and by the kernel, a share, NTFS.
MOUNTS = r"""
22 1 252:0 / / rw,relatime - ext4 /dev/vda rw
40 22 8:1 / /media/STICK rw,nosuid,nodev - vfat /dev/sda1 rw,fmask=0022,codepage=437,errors=remount-ro
41 22 8:2 / /media/fuse rw,nosuid,nodev,relatime - fuseblk /dev/sdb1 rw,user_id=0,group_id=0,blksize=4096
42 22 8:3 / /media/My\040Disk rw,nosuid - exfat /dev/sdc1 rw,iocharset=utf8
43 22 0:50 / /mnt/share rw,relatime - cifs //nas/models rw,vers=3.1.1
44 22 0:51 / /mnt/share/cd ro,relatime - iso9660 /dev/sr0 ro
45 22 0:39 / /media/user rw,nosuid,nodev - fuse.fusefat fusefat rw,user_id=0,group_id=0
46 22 8:9 / /media/win rw,relatime - ntfs3 /dev/sdd1 rw
a broken line - that
"""
LARGE = 49_800_000_000


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every folder be where it says, though nothing is mounted there."""
    monkeypatch.setattr(filesystem, "existing_parent", lambda path: path)
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    monkeypatch.setattr(os, "access", lambda *_: True)


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("folder", "kind", "mount", "windows", "links", "sparse", "read_only"),
    [
        ("/home/me/models", "ext4", "/", False, True, True, False),
        ("/media/STICK", "vfat", "/media/STICK", True, False, False, False),
        ("/media/STICKS", "ext4", "/", False, True, True, False),
        ("/media/fuse/a/b", "fuseblk", "/media/fuse", False, True, True, False),
        ("/media/My Disk/models", "exfat", "/media/My Disk", True, False, False, False),
        ("/mnt/share/x", "cifs", "/mnt/share", True, True, True, False),
        ("/mnt/share/cd/x", "iso9660", "/mnt/share/cd", False, True, True, True),
        ("/media/user", "fusefat", "/media/user", True, False, False, False),
        ("/media/win", "ntfs3", "/media/win", True, True, True, False),
    ],
)
def test_the_list_of_mounts_is_read(
    folder: str, kind: str, mount: str, windows: bool, links: bool, sparse: bool, read_only: bool
) -> None:
    system = file_system_of(Path(folder), mountinfo=MOUNTS)
    assert (system.type, system.mount) == (kind, mount)
    assert (system.windows_names, system.hard_links, system.sparse_files) == (windows, links, sparse)
    assert system.read_only is read_only
    assert (system.max_file_bytes == 4_294_967_295) is (kind in ("vfat", "fusefat"))


@pytest.mark.usefixtures("at")
def test_a_shard_that_fat32_can_not_hold_is_refused() -> None:
    root = Path("/media/STICK/r1")
    with pytest.raises(NoSpaceError) as refused:
        check_target(root, [("r1/small.gguf", 5), ("r1/r1-00001-of-00004.gguf", LARGE)], mountinfo=MOUNTS)
    assert refused.value.message == (
        "/media/STICK/r1: r1/r1-00001-of-00004.gguf has 49,800,000,000 bytes, "
        "a file on FAT32 at /media/STICK at most 4,294,967,295 bytes"
    )
    assert refused.value.hint == "name another disk with --local-dir, or format this one as exFAT"
    assert check_target(root, [("m.gguf", 4_294_967_295)], mountinfo=MOUNTS).type == "vfat"
    assert check_target(Path("/media/My Disk"), [("m.gguf", LARGE)], mountinfo=MOUNTS).type == "exfat"


@pytest.mark.usefixtures("at")
def test_a_merged_file_is_asked_for_by_itself() -> None:
    with pytest.raises(NoSpaceError, match=r"^/media/STICK: m\.gguf has .*FAT32") as refused:
        check_file(Path("/media/STICK/m.gguf"), LARGE, "--output", mountinfo=MOUNTS)
    assert refused.value.hint == "name another disk with --output, or format this one as exFAT"
    with pytest.raises(AccessError, match="read-only"):
        check_file(Path("/mnt/share/cd/m.gguf"), 1, "--output", mountinfo=MOUNTS)
    check_file(Path("/media/STICK/m.gguf"), 1, "--output", mountinfo=MOUNTS)
    check_file(Path("/home/m.gguf"), LARGE, "--output", mountinfo=MOUNTS)


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    "name",
    ["what?.gguf", "a:b.gguf", "CON.gguf", "nul", "com1.txt", "a|b", 'a"b', "dot.", "space ", "con/m.gguf"],
)
def test_names_that_windows_can_not_have(name: str) -> None:
    with pytest.raises(UsageError, match=r"^cifs at /mnt/share can't have a file named "):
        check_target(Path("/mnt/share"), [(name, 1)], mountinfo=MOUNTS)
    assert check_target(Path("/home"), [(name, 1)], mountinfo=MOUNTS).type == "ext4"


@pytest.mark.usefixtures("at")
def test_two_names_that_differ_by_case_only() -> None:
    files = [("q/M.gguf", 1), ("q/m.gguf", 1)]
    with pytest.raises(UsageError, match=r"q/M\.gguf and q/m\.gguf are one file on exfat at /media/My Disk"):
        check_target(Path("/media/My Disk"), files, mountinfo=MOUNTS)
    assert check_target(Path("/home"), files, mountinfo=MOUNTS).type == "ext4"


@pytest.mark.usefixtures("at")
def test_a_read_only_disk() -> None:
    with pytest.raises(AccessError, match=r"/mnt/share/cd: iso9660 at /mnt/share/cd is read-only"):
        check_target(Path("/mnt/share/cd"), [("m", 1)], mountinfo=MOUNTS)


def test_names_and_paths_that_are_too_long(tmp_path: Path) -> None:
    assert check_target(tmp_path, [("x" * 250, 1)]).max_name_bytes == 255
    with pytest.raises(UsageError, match=r"256 bytes with \.part of 255"):
        check_target(tmp_path, [("x" * 251, 1)])
    with pytest.raises(UsageError, match=r"is too long a name"):
        check_target(tmp_path, [("模" * 90, 1)])
    with pytest.raises(UsageError, match=r"^.*: the path of d/.* has 4,\d\d\d bytes, 4,096 go$"):
        check_target(tmp_path, [("d/" * 2040 + "m.gguf", 1)])


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(UsageError, match="models is a file, not a folder"):
        check_target(tmp_path / "models" / "r1", [("m.gguf", 1)])


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AccessError, match="this user can't write there"):
        check_target(tmp_path / "new", [("m.gguf", 1)])


# ---- links ----


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "inner").mkdir()
    (root / "in").symlink_to(root / "inner")
    (root / "inner" / "up").symlink_to("../..")
    check_inside(root, "in/m.gguf")
    check_inside(root, "new/folder/m.gguf")
    for path in ("out/m.gguf", "in/up/m.gguf", "out/deeper/m.gguf"):
        with pytest.raises(AccessError, match="is a link that leads out of"):
            check_inside(root, path)
    (tmp_path / "alias").symlink_to(root)
    check_inside(tmp_path / "alias", "in/m.gguf")  # the folder that was named may be a link itself


def test_our_own_folder_may_be_no_link_either(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".ggufkit").symlink_to(tmp_path)
    with pytest.raises(AccessError, match=r"\.ggufkit is a link that leads out of"):
        check_target(tmp_path / "root", [("m.gguf", 1)])


# ---- asking the folder ----


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    system = probe(tmp_path / "new" / "folder", [("m.gguf", LARGE)])
    assert system.hard_links and not system.read_only
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EFBIG, errno.EOVERFLOW])
def test_how_large_a_file_can_be_is_asked_by_seeking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What vfat in the kernel answers beyond 4 GiB, and ext4 beyond 16 TiB."""
    honest = os.lseek

    def lseek(fd: int, position: int, how: int) -> int:
        if position > 4_294_967_295:
            raise OSError(number, os.strerror(number))
        return honest(fd, position, how)

    monkeypatch.setattr(os, "lseek", lseek)
    probe(tmp_path, [("small.gguf", 4_294_967_295)])
    with pytest.raises(NoSpaceError, match=r"m\.gguf has 49,800,000,000 bytes, a file on .* at most less"):
        probe(tmp_path, [("m.gguf", LARGE)])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_links_and_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert not probe(tmp_path, [("m.gguf", 1)]).hard_links
    files = [("a/M.gguf", 1), ("a/m.gguf", 1)]
    probe(tmp_path, files)
    honest = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda self: honest(self) or honest(self.with_name(self.name.lower()))
    )
    monkeypatch.setattr(tempfile, "mkstemp", lower_case_only)
    with pytest.raises(UsageError, match=r"are one file on .*case does not count there"):
        probe(tmp_path, files)
    assert list(tmp_path.iterdir()) == []


def lower_case_only(**options: object) -> tuple[int, str]:
    name = Path(str(options["dir"])) / f"{options['prefix']}abc{options['suffix']}"
    return os.open(name, os.O_RDWR | os.O_CREAT), str(name)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EROFS, AccessError, "the file system is read-only"),
        (errno.EACCES, AccessError, "Permission denied"),
        (errno.ENOSPC, NoSpaceError, "the disk is full"),
        (errno.EDQUOT, NoSpaceError, "your quota is used up"),
    ],
)
def test_a_folder_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], words: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(kind, match=words):
        probe(tmp_path, [("m.gguf", 1)])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: refuse())
    with pytest.raises(kind, match=words):
        probe(tmp_path, [("m.gguf", 1)])
