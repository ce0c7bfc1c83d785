"""Disks that can't hold what is asked for, told by the commands before they write a byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.transfer import filesystem
from tests.cli.conftest import Run
from tests.support.ggufs import make_gguf, make_shards
from tests.support.hub import REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT

LIMIT_BYTES = 200_000


@pytest.fixture
def stick(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in, as if it were on a FAT32 stick whose files are smaller still than 4 GiB."""
    line = f"40 22 8:1 / {work} rw,nosuid,nodev - vfat /dev/sda1 rw,fmask=0022,codepage=437\n"
    monkeypatch.setattr(filesystem, "_mounts", lambda: line)
    monkeypatch.setattr(filesystem, "FAT_MAX_FILE_BYTES", LIMIT_BYTES)
    return work


def test_pull_refuses_a_shard_that_is_too_large(
    hub: TestHub, files: dict[str, bytes], stick: Path, run: Run
) -> None:
    path = next(p for p in sorted(files) if len(files[p]) > LIMIT_BYTES)
    for more in ((), ("--dry-run",), ("--merge",)):
        done = run("pull", REPO_ID, "--quant", QUANT, *more)
        assert done.code == 8
        told = f"{path} has {len(files[path]):,} bytes, a file on FAT32 at {stick} at most 200,000 bytes"
        assert f"error: {NAME}: {told}\nhint: name another disk with --local-dir" in done.err
    assert list(stick.iterdir()) == []


def test_merge_refuses_a_file_that_is_too_large(stick: Path, run: Run, tmp_path: Path) -> None:
    shards = make_shards(make_gguf(tmp_path / "whole" / "m.gguf"), stick / "m", max_tensors=4)
    assert all(shard.stat().st_size < 300_000 for shard in shards)
    done = run("merge", "m")
    assert done.code == 8 and f"a file on FAT32 at {stick} at most 200,000 bytes" in done.err
    assert "hint: name another disk with --output, or format this one as exFAT" in done.err
    assert sorted(p.name for p in stick.iterdir()) == ["m"]


def test_a_read_only_disk(hub: TestHub, work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"40 22 8:1 / {work} ro,relatime - ext4 /dev/sda1 ro\n"
    monkeypatch.setattr(filesystem, "_mounts", lambda: line)
    done = run("pull", REPO_ID)
    assert done.code == 4 and f"error: {NAME}: ext4 at {work} is read-only\n" in done.err
    make_gguf(work / "whole.gguf")
    done = run("split", "whole.gguf", "--max-tensors", "4", "-o", "there")
    assert done.code == 4 and "error: there/whole-00001-of-0000" in done.err
    assert f"ext4 at {work} is read-only\nhint: name another disk with --output\n" in done.err
