"""Changes to another program's folders: whole, readable, given to the owner, and taken back on failure."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ggufkit.errors import TargetExistsError
from ggufkit.runtimes.changes import Changes
from tests.support.trees import snapshot


class Stop(Exception):
    """What goes wrong half way."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Another program's folder with something in it."""
    folder = tmp_path / "theirs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "config").write_bytes(b"theirs")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"weights")
    return path


def change(root: Path, source: Path, *, fail: bool = False) -> None:
    with Changes(root) as changes:
        changes.folder(root / "a" / "b")
        staging = changes.staging(root / "staging")
        changes.place(source, root / "a" / "b" / "link", method="hard-link", staging=staging)
        changes.place(source, root / "a" / "b" / "copy", method="copy", staging=staging)
        changes.write(root / "a" / "small", b"new", staging=staging)
        changes.write(root / "sub" / "config", b"ours", staging=staging)
        assert staging.is_dir()
        if fail:
            raise Stop


def test_all_is_there_and_readable_whatever_the_umask(root: Path, source: Path) -> None:
    before = os.umask(0o077)
    try:
        change(root, source)
    finally:
        os.umask(before)
    assert (root / "a" / "b" / "link").samefile(source)
    assert (root / "a" / "b" / "copy").read_bytes() == b"weights"
    assert (root / "sub" / "config").read_bytes() == b"ours"
    assert not (root / "staging").exists()
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/b", "a/small", "a/b/copy")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/small": 0o644, "a/b/copy": 0o644}


def test_a_failure_takes_all_back(root: Path, source: Path) -> None:
    before = snapshot(root.parent)
    with pytest.raises(Stop):
        change(root, source, fail=True)
    assert snapshot(root.parent) == before


def test_an_interrupt_takes_all_back(root: Path, source: Path) -> None:
    before = snapshot(root.parent)
    with pytest.raises(KeyboardInterrupt), Changes(root) as changes:
        changes.folder(root / "a")
        changes.place(source, root / "a" / "link", method="auto", staging=root)
        raise KeyboardInterrupt
    assert snapshot(root.parent) == before


def test_a_root_that_is_not_there_is_gone_again(tmp_path: Path, source: Path) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(Stop), Changes(tmp_path / "x" / "y") as changes:
        changes.staging(tmp_path / "x" / "y" / "staging" / "deep")
        changes.write(tmp_path / "x" / "y" / "file", b"", staging=tmp_path / "x" / "y")
        raise Stop
    assert snapshot(tmp_path) == before


def test_what_others_use_meanwhile_stays(root: Path, source: Path) -> None:
    with pytest.raises(Stop), Changes(root) as changes:
        changes.place(source, root / "kept", method="auto", staging=root, unless=lambda: True)
        changes.write(root / "kept too", b"small", staging=root, unless=lambda: True)
        changes.place(source, root / "gone", method="auto", staging=root, unless=lambda: False)
        raise Stop
    assert (root / "kept").exists()
    assert (root / "kept too").exists()
    assert not (root / "gone").exists()


def test_a_folder_that_somebody_else_filled_stays(root: Path) -> None:
    with pytest.raises(Stop), Changes(root) as changes:
        changes.folder(root / "a" / "b")
        (root / "a" / "theirs").write_bytes(b"x")
        raise Stop
    assert (root / "a" / "theirs").exists()
    assert not (root / "a" / "b").exists()


def test_what_was_there_is_not_taken_back(root: Path, source: Path) -> None:
    (root / "link").write_bytes(b"theirs")
    before = snapshot(root.parent)
    with pytest.raises(TargetExistsError), Changes(root) as changes:
        changes.place(source, root / "link", method="auto", staging=root)
    assert snapshot(root.parent) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_root_gives_what_it_makes_to_the_owner_but_not_the_users_file(root: Path, source: Path) -> None:
    os.chown(root, 65534, 65534)
    change(root, source)
    owners = {name: (root / name).stat().st_uid for name in ("a", "a/b", "a/small", "a/b/copy", "a/b/link")}
    assert owners == {"a": 65534, "a/b": 65534, "a/small": 65534, "a/b/copy": 65534, "a/b/link": 0}
