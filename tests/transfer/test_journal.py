"""The journal: ranges, what is believed after a kill, after a power loss, and of broken notes."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.transfer import journal as journal_module
from ggufkit.transfer.journal import Journal, joined

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "target").open("w+b") as file:
        yield file.fileno()


def covered(pairs: list[tuple[int, int]]) -> set[int]:
    return {i for a, b in pairs for i in range(a, b)}


@given(ranges)
def test_joined_ranges_cover_the_same_and_neither_touch_nor_overlap(pairs: list[tuple[int, int]]) -> None:
    out = joined(pairs)
    assert covered(out) == covered(pairs)
    assert all(a < b for a, b in out)
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(out))


@given(ranges, st.integers(0, 60), st.integers(0, 60))
def test_what_is_missing_and_what_is_there_make_the_whole(
    pairs: list[tuple[int, int]], start: int, end: int
) -> None:
    journal = Journal(Path("nowhere/journal"), "me")
    journal.ranges = joined(pairs)
    missing = journal.missing(start, end)
    assert covered(missing) == set(range(start, end)) - covered(pairs)
    assert all(a < b for a, b in missing)


@given(ranges, st.integers(0, 70))
def test_nothing_beyond_the_end_of_the_file_is_believed(pairs: list[tuple[int, int]], n_bytes: int) -> None:
    journal = Journal(Path("nowhere/journal"), "me")
    journal.ranges = joined(pairs)
    journal.clip(n_bytes)
    assert covered(journal.ranges) == {i for i in covered(pairs) if i < n_bytes}
    assert journal.done_bytes == len(covered(journal.ranges))


@given(st.permutations([(i, i + 1) for i in range(20)]))
def test_any_order_of_writing_ends_in_one_range(order: list[tuple[int, int]]) -> None:
    journal = Journal(Path("nowhere/journal"), "me")
    for start, end in order:
        journal.add(start, end, -1)
    assert journal.ranges == [(0, 20)]


def test_notes_are_saved_every_8_mib_and_synced_every_512(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_EVERY_BYTES", 32 << 20)
    journal = Journal(tmp_path / "notes" / "j", "me")
    step, durable_at = 4 << 20, []
    for i in range(20):
        journal.add(i * step, (i + 1) * step, fd)
        lost = journal.done_bytes - Journal(tmp_path / "notes" / "j", "me").done_bytes
        assert lost <= journal_module.SAVE_EVERY_BYTES
        if (tmp_path / "notes" / "j.durable").exists():
            durable = json.loads((tmp_path / "notes" / "j.durable").read_bytes())["ranges"]
            durable_at.append(durable[0][1])
    assert sorted(set(durable_at)) == [32 << 20, 64 << 20]


def test_after_another_boot_only_the_durable_is_believed(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", "me")
    journal.add(0, 100, fd)
    journal.sync(fd)
    journal.add(100, 300, fd)
    journal.save()
    assert Journal(tmp_path / "j", "me").ranges == [(0, 300)]
    monkeypatch.setattr(journal_module, "boot_id", lambda: "another boot")
    assert Journal(tmp_path / "j", "me").ranges == [(0, 100)]


def test_where_boots_cannot_be_told_apart_only_the_durable_is_believed_and_a_stop_syncs(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "boot_id", lambda: None)
    journal = Journal(tmp_path / "j", "me")
    journal.add(0, 100, fd)
    journal.save()
    assert Journal(tmp_path / "j", "me").ranges == []
    journal.stop(fd)
    assert Journal(tmp_path / "j", "me").ranges == [(0, 100)]
    journal.add(100, 100 + journal_module.SYNC_OFTEN_BYTES, fd)
    assert Journal(tmp_path / "j", "me").done_bytes == 100 + journal_module.SYNC_OFTEN_BYTES


def test_notes_of_another_content_are_ignored_and_known_as_such(tmp_path: Path, fd: int) -> None:
    journal = Journal(tmp_path / "j", "me")
    assert not journal.is_noted()
    journal.add(0, 100, fd)
    journal.save()
    journal.sync(fd)
    assert Journal(tmp_path / "j", "me").is_noted()
    other = Journal(tmp_path / "j", "another")
    assert other.ranges == [] and not other.is_noted()


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"7",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"identity": "me"}',
    b'{"identity": "me", "boot": "", "ranges": 7}',
    b'{"identity": "me", "boot": "", "ranges": [7]}',
    b'{"identity": "me", "boot": "", "ranges": [[1, 2, 3]]}',
    b'{"identity": "me", "boot": "", "ranges": [["a", "b"]]}',
    b'{"identity": "me", "boot": "", "ranges": [[0, Infinity]]}',
    b'{"identity": "me", "boot": "", "ranges": [[0, NaN]]}',
    b'{"identity": "me", "boot": "", "ranges": [[0, 1.5]]}',
    b'{"identity": "me", "boot": "", "ranges": [[-5, 10]]}',
    b'{"identity": "me", "boot": "", "ranges": [[10, 5]]}',
    b'{"identity": "me", "boot": "", "ranges": [[true, 5]]}',
    b'{"identity": "me", "boot": "", "ranges": [[0, 9]',
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_torn_or_broken_notes_are_no_notes(tmp_path: Path, text: bytes) -> None:
    for suffix in ("durable", "written"):
        (tmp_path / f"j.{suffix}").write_bytes(text)
    assert Journal(tmp_path / "j", "me").ranges == []


def test_notes_cut_anywhere_are_whole_or_none(tmp_path: Path, fd: int) -> None:
    journal = Journal(tmp_path / "j", "me")
    for i in range(5):
        journal.add(i * 10, i * 10 + 5, fd)
    journal.sync(fd)
    whole, file = journal.ranges, tmp_path / "j.durable"
    text = file.read_bytes()
    for n_bytes in range(len(text)):
        file.write_bytes(text[:n_bytes])
        assert Journal(tmp_path / "j", "me").ranges == []
    file.write_bytes(text)
    assert Journal(tmp_path / "j", "me").ranges == whole


def test_after_a_failed_sync_only_what_was_synced_before_is_believed(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", "me")
    journal.add(0, 100, fd)
    journal.sync(fd)
    journal.add(100, 200, fd)
    journal.save()

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"):
        journal.sync(fd)
    assert journal.ranges == [(0, 100)]
    assert Journal(tmp_path / "j", "me").ranges == [(0, 100)]


def test_a_system_without_fdatasync_syncs(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fdatasync")
    journal = Journal(tmp_path / "j", "me")
    journal.add(0, 100, fd)
    journal.sync(fd)
    assert json.loads((tmp_path / "j.durable").read_bytes())["ranges"] == [[0, 100]]


def test_forgetting_takes_the_leavings_of_killed_runs_and_the_empty_folders(tmp_path: Path, fd: int) -> None:
    folder = tmp_path / ".ggufkit" / "journal"
    journal = Journal(folder / "j", "me")
    journal.add(0, 100, fd)
    journal.sync(fd)
    journal.save()
    (folder / "j.written.4711-3").write_bytes(b"half a no")
    journal.forget()
    assert not (tmp_path / ".ggufkit").exists()
    assert journal.ranges == [] and journal.done_bytes == 0


def test_forgetting_leaves_what_others_noted(tmp_path: Path, fd: int) -> None:
    folder = tmp_path / ".ggufkit" / "journal"
    other = Journal(folder / "jj", "other")
    other.add(0, 5, fd)
    other.save()
    Journal(folder / "j", "me").save()
    Journal(folder / "j", "me").forget()
    assert Journal(folder / "jj", "other").ranges == [(0, 5)]
    assert sorted(p.name for p in folder.iterdir()) == ["jj.written"]


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".ggufkit" / "journal"
    honest = Path.mkdir
    done: list[bool] = []

    def mkdir(self: Path, *arguments: Any, **named: Any) -> None:
        honest(self, *arguments, **named)
        if self == folder and not done:
            done.append(True)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    Journal(folder / "j", "me").save()
    assert done and Journal(folder / "j", "me").is_noted()


def test_a_full_disk_leaves_the_older_note_and_no_half_one(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", "me")
    journal.add(0, 100, fd)
    journal.save()
    journal.add(100, 200, fd)

    def full(self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            journal.save()
    assert Journal(tmp_path / "j", "me").ranges == [(0, 100)]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "target") == ["j.written"]


def test_this_boot_has_an_identity_here() -> None:
    text = journal_module.boot_id()
    assert text == journal_module.boot_id()
    assert text is None or len(text) == 36


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="no posix_fadvise on this system")
def test_the_disk_is_told_to_begin_with_what_was_written_and_only_that(
    fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def advise(_fd: int, start: int, n_bytes: int, advice: int) -> None:
        assert (_fd, advice) == (fd, os.POSIX_FADV_DONTNEED)
        told.append((start, start + n_bytes))
        raise OSError(errno.EINVAL, "an advice may be refused")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(journal_module, "SAVE_EVERY_BYTES", 100)
    journal = Journal(tmp_path / "journal", "me")
    for start, end in [(0, 60), (500, 530), (60, 90), (90, 95), (600, 660), (530, 580)]:
        journal.add(start, end, fd)
    assert told == [(0, 90), (500, 530), (90, 95), (530, 580), (600, 660)]
