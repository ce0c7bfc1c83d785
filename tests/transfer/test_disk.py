"""Links, copies and durable writes: on two real file systems, and with each fallback forced."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import AccessError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.transfer import disk
from ggufkit.transfer.disk import (
    Method,
    existing_parent,
    free_bytes,
    fsync_folder,
    hard_link_refused,
    link_or_copy,
    replace_durably,
    same_file_system,
    staging_folder,
    write_atomic,
)
from tests.support.disks import other_file_system

DATA = bytes(range(256)) * 5_000


@dataclass
class Ear:
    """A listener that keeps what it hears."""

    n_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        raise AssertionError("start belongs to the caller")

    def advance(self, n_bytes: int) -> None:
        assert n_bytes > 0
        self.n_bytes += n_bytes

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        raise AssertionError("finish belongs to the caller")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that only its owner may read, as a careful download leaves it."""
    path = tmp_path / "from" / "model.gguf"
    path.parent.mkdir()
    path.write_bytes(DATA)
    path.chmod(0o600)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder on the same file system."""
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with other_file_system(tmp_path) as folder:
        yield folder


def refuse(number: int) -> Callable[..., Any]:
    """Make a stand-in for a system call that fails with `number`."""

    def refused(*_arguments: Any, **_named: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def only_file(folder: Path) -> Path:
    """Return the one thing in `folder`: no temporary file was left."""
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("method", ["auto", "hard-link"])
def test_hard_link_is_the_same_file(source: Path, target: Path, method: Method) -> None:
    ear = Ear()
    assert link_or_copy(source, target / "a", method=method, progress=ear) == "hard-link"
    assert (target / "a").samefile(source)
    assert source.stat().st_nlink == 2
    assert stat.S_IMODE(source.stat().st_mode) == 0o600, "a link must not change the user's file"
    assert (ear.n_bytes, ear.notes) == (0, [])


def test_a_symbolic_link_is_followed_to_the_file(source: Path, target: Path) -> None:
    (source.parent / "alias.gguf").symlink_to("model.gguf")
    link_or_copy(source.parent / "alias.gguf", target / "a")
    assert not (target / "a").is_symlink()
    assert (target / "a").samefile(source)


def test_symbolic_link_is_absolute_however_the_source_is_typed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    assert link_or_copy(Path("model.gguf"), target / "a", method="symbolic-link") == "symbolic-link"
    assert (target / "a").readlink() == source.resolve()
    assert (target / "a").read_bytes() == DATA


def test_other_file_system_is_copied_and_said(source: Path, elsewhere: Path) -> None:
    ear = Ear()
    method = link_or_copy(source, elsewhere / "a", progress=ear)
    copy = only_file(elsewhere)
    assert method in ("copy", "reflink")
    assert copy.read_bytes() == DATA
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644
    assert ear.n_bytes == len(DATA)
    (note,) = ear.notes
    assert "another file system" in note
    assert str(source) in note


def test_a_hard_link_asked_for_across_file_systems_is_refused(source: Path, elsewhere: Path) -> None:
    with pytest.raises(UsageError, match="another file system") as refusal:
        link_or_copy(source, elsewhere / "a", method="hard-link")
    assert refusal.value.hint
    assert "--copy" in refusal.value.hint
    assert list(elsewhere.iterdir()) == []


def test_copy_is_another_file(source: Path, target: Path) -> None:
    method = link_or_copy(source, target / "a", method="copy")
    assert method in ("copy", "reflink")
    assert not (target / "a").samefile(source)
    assert only_file(target).read_bytes() == DATA


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_every_refusal_of_a_link_is_answered_with_a_copy(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", refuse(number))
    ear = Ear()
    assert link_or_copy(source, target / "a", progress=ear) in ("copy", "reflink")
    assert (target / "a").read_bytes() == DATA
    assert len(ear.notes) == 1
    with pytest.raises(AccessError if number == errno.EPERM else UsageError):
        link_or_copy(source, target / "b", method="hard-link")
    assert only_file(target).name == "a"


def test_an_unforeseen_error_of_link_is_not_hidden_by_a_copy(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        link_or_copy(source, target / "a")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_without_copy_file_range_bytes_go_through_memory(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", refuse(number), raising=False)
    ear = Ear()
    assert link_or_copy(source, target / "a", method="copy", progress=ear) == "copy"
    assert (target / "a").read_bytes() == DATA
    assert ear.n_bytes == len(DATA)


def test_a_kernel_that_stops_half_way_is_finished_by_hand(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [700_000, 0]

    def half(source: int, target: int, _n_bytes: int, offset: int, at: int) -> int:
        return os.pwrite(target, os.pread(source, steps.pop(0), offset), at)

    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", half, raising=False)
    assert link_or_copy(source, target / "a", method="copy") == "copy"
    assert (target / "a").read_bytes() == DATA
    assert steps == []


def test_a_platform_without_the_call_copies_too(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    assert link_or_copy(source, target / "a", method="copy") == "copy"
    assert (target / "a").read_bytes() == DATA


def test_reflink_alone_is_a_reflink_or_a_refusal(source: Path, target: Path) -> None:
    try:
        method = link_or_copy(source, target / "a", method="reflink")
    except UsageError as refusal:
        assert "no reflink" in refusal.message
        assert list(target.iterdir()) == []
    else:
        assert method == "reflink"
        assert (target / "a").read_bytes() == DATA


@pytest.mark.parametrize("method", ["auto", "hard-link", "symbolic-link", "copy"])
def test_nothing_is_overwritten(source: Path, target: Path, method: Method) -> None:
    (target / "a").write_text("mine")
    with pytest.raises(TargetExistsError):
        link_or_copy(source, target / "a", method=method)
    assert (target / "a").read_text() == "mine"


def test_a_dangling_link_is_in_the_way_too(source: Path, target: Path) -> None:
    (target / "a").symlink_to("nowhere")
    with pytest.raises(TargetExistsError):
        link_or_copy(source, target / "a", method="copy")
    assert (target / "a").is_symlink()


def test_a_copy_without_room_is_refused_before_a_byte(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(disk, "free_bytes", lambda _path: len(DATA) - 1)
    ear = Ear()
    with pytest.raises(NoSpaceError, match="1,280,000 bytes, 1,279,999 are free"):
        link_or_copy(source, target / "a", method="copy", progress=ear)
    assert list(target.iterdir()) == []
    assert ear.n_bytes == 0


def test_a_disk_that_fills_up_leaves_nothing(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC), raising=False)
    with pytest.raises(NoSpaceError, match="full"):
        link_or_copy(source, target / "a", method="copy")
    assert list(target.iterdir()) == []


def test_a_real_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    if os.system(f"mount -t tmpfs -o size=512k tmpfs '{small}' 2>/dev/null") != 0:
        pytest.skip("this container may not mount")
    try:
        with pytest.raises(NoSpaceError, match="524,288 are free"):
            link_or_copy(source, small / "a")
        monkeypatch.setattr(disk, "_check_room", lambda *_: None)  # as if room went while we wrote
        with pytest.raises(NoSpaceError, match="full while copying"):
            link_or_copy(source, small / "a")
        assert list(small.iterdir()) == []
    finally:
        assert os.system(f"umount '{small}'") == 0


def test_staging_keeps_temporaries_out_of_the_folder(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    seen: list[list[Path]] = []

    def peek(source: int, target_fd: int) -> bool:
        seen.append([*staging.iterdir(), *target.iterdir()])
        return False

    monkeypatch.setattr(disk, "_clone", peek)
    link_or_copy(source, target / "a", method="copy", staging=staging)
    assert [[path.parent for path in paths] for paths in seen] == [[staging]]
    assert list(staging.iterdir()) == []


def test_foresees_what_link_would_say(source: Path, target: Path) -> None:
    assert hard_link_refused(source, target / "not" / "yet") is None
    assert not (target / "not").exists()


def test_foresees_another_file_system(source: Path, elsewhere: Path) -> None:
    assert hard_link_refused(source, elsewhere) == "another file system"


@pytest.mark.parametrize(("sysctl", "refused"), [("1\n", True), ("0\n", False)])
def test_foresees_the_rule_on_files_of_others(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, sysctl: str, refused: bool
) -> None:
    if sys.platform != "linux":
        pytest.skip("Linux's rule")
    monkeypatch.setattr(os, "geteuid", lambda: source.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "read_text", lambda *_: sysctl)
    assert (hard_link_refused(source, target) is not None) == refused


def test_free_bytes_is_of_the_disk_the_path_would_be_on(tmp_path: Path, elsewhere: Path) -> None:
    Usage = namedtuple("Usage", "total used free")
    asked: list[Path] = []
    real = shutil.disk_usage
    try:
        shutil.disk_usage = lambda path: asked.append(path) or Usage(0, 0, 7)  # type: ignore
        assert free_bytes(elsewhere / "not" / "yet") == 7
    finally:
        shutil.disk_usage = real
    assert asked == [elsewhere.resolve()]
    assert 0 < free_bytes(tmp_path) <= real(tmp_path).total


def test_same_file_system_of_paths_that_are_not_there(tmp_path: Path, elsewhere: Path) -> None:
    assert same_file_system(tmp_path / "x" / "y", tmp_path)
    assert not same_file_system(tmp_path / "x", elsewhere / "y" / "z")


def test_existing_parent_follows_links(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "models").symlink_to(elsewhere)
    assert existing_parent(tmp_path / "models" / "a" / "b") == elsewhere.resolve()


def test_staging_is_beside_unless_that_is_another_disk(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "blobs").mkdir()
    assert staging_folder(tmp_path / "blobs", ".s") == tmp_path / ".s"
    (tmp_path / "linked").symlink_to(elsewhere)
    assert staging_folder(tmp_path / "linked", ".s") == elsewhere.parent.resolve() / ".s"
    mounted = Path("/dev/shm")
    assert staging_folder(mounted, ".s") == mounted / ".s", "beside a mount point is another file system"


def test_write_atomic_replaces_whole_with_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_atomic(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    write_atomic(path, b"new", mode=0o640)
    assert only_file(tmp_path).read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_write_atomic_writes_beside_a_hard_link_not_into_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    os.link(tmp_path / "mine", tmp_path / "theirs")
    write_atomic(tmp_path / "theirs", b"other")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_atomic(path, b"new")
    assert only_file(tmp_path).read_bytes() == b"old"


def test_replace_is_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's bytes, then its name, then the folder: else a power loss can leave an empty file."""
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def replaced(*arguments: Any) -> None:
        calls.append("replace")
        replace(*arguments)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    (tmp_path / "new").write_bytes(b"new")
    replace_durably(tmp_path / "new", tmp_path / "config")
    assert calls == ["file", "replace", "folder"]


def test_folders_that_do_not_open_are_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def windows(path: Any, *_: Any) -> int:
        asked.append(path)
        raise PermissionError(errno.EACCES, "a folder")

    monkeypatch.setattr(os, "open", windows)
    fsync_folder(tmp_path)
    assert asked == [tmp_path]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_disk_that_keeps_no_permissions_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FAT and exFAT refuse a mode that they can't show."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "chmod", refuse)
    write_atomic(tmp_path / "record", b"text")
    assert (tmp_path / "record").read_bytes() == b"text"
    assert link_or_copy(tmp_path / "record", tmp_path / "copy", method="copy") == "copy"
    assert (tmp_path / "copy").read_bytes() == b"text"
