"""What the server answers from: every digest taken once, commits that name contents, changes on disk."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ggufkit.hubs.manifest import ManifestFile
from ggufkit.server import shelf as shelf_module
from ggufkit.server.shelf import Shelf
from ggufkit.server.snapshot import EntryMissingError, RepoMissingError, RevisionMissingError, Snapshot
from ggufkit.transfer.digest import DigestCache
from tests.server.test_catalog import put, record

BIG_BYTES = 3_000_000


@dataclass
class Listener:
    """A listener that keeps what it hears."""

    notes: list[str] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    done_bytes: int = 0
    n_finished: int = 0

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        self.totals.append(total_bytes)

    def advance(self, n_bytes: int) -> None:
        self.done_bytes += n_bytes

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        self.n_finished += 1


def settle(path: Path) -> Path:
    os.utime(path, (time.time() - 60,) * 2)
    return path


def look(root: Path, cache: Path | None = None, listener: Listener | None = None) -> Shelf:
    shelf = Shelf(root, DigestCache(cache or root.parent / "cache"), listener or Listener())
    shelf.look()
    return shelf


def newest(shelf: Shelf) -> Snapshot:
    (one,) = shelf.newest()
    return one


def test_files_are_named_as_git_and_git_lfs_name_them(tmp_path: Path) -> None:
    put(tmp_path / "root/o/n/a.gguf", b"GGUF data")
    put(tmp_path / "root/o/n/README.md", b"# hello\n")
    put(tmp_path / "root/o/n/big.bin", bytes(10_000_001))
    one = newest(look(tmp_path / "root"))
    readme, shard, big = one.file("README.md"), one.file("a.gguf"), one.file("big.bin")
    git = subprocess.run(
        ["git", "hash-object", "--stdin"], input=b"# hello\n", capture_output=True, check=True
    ).stdout
    assert readme.git_oid == git.decode().strip() == readme.etag
    assert readme.sha256 == hashlib.sha256(b"# hello\n").hexdigest()
    assert (readme.is_lfs, shard.is_lfs, big.is_lfs) == (False, True, True)
    assert shard.etag == shard.sha256 == hashlib.sha256(b"GGUF data").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{shard.sha256}\nsize 9\n".encode()
    git = subprocess.run(
        ["git", "hash-object", "--stdin"], input=pointer, capture_output=True, check=True
    ).stdout
    assert (shard.git_oid, shard.pointer_bytes) == (git.decode().strip(), len(pointer))


def test_a_commit_names_the_contents(tmp_path: Path) -> None:
    for root in ("one", "two"):
        put(tmp_path / root / "o/n/a.gguf", b"same")
    one, two = newest(look(tmp_path / "one")), newest(look(tmp_path / "two"))
    assert one.commit == two.commit
    assert len(one.commit) == 40 and int(one.commit, 16) >= 0
    put(tmp_path / "two/o/n/a.gguf", b"SAME")
    assert newest(look(tmp_path / "two")).commit != one.commit


def test_a_big_file_is_read_once_and_announced(tmp_path: Path) -> None:
    settle(put(tmp_path / "root/o/n/a.gguf", bytes(BIG_BYTES)))
    first, second = Listener(), Listener()
    look(tmp_path / "root", listener=first)
    assert first.totals == [BIG_BYTES] and first.done_bytes == BIG_BYTES and first.n_finished == 1
    assert any("SHA-256" in note for note in first.notes)
    look(tmp_path / "root", listener=second)
    assert second == Listener(), "the second server reads nothing"


def test_a_published_digest_is_taken_without_reading(tmp_path: Path) -> None:
    put(tmp_path / "root/R1/a.gguf", b"12345")
    record(tmp_path / "root/R1", ManifestFile("a.gguf", 5, "ab" * 32, None))
    listener = Listener()
    one = newest(look(tmp_path / "root", listener=listener))
    assert one.file("a.gguf").sha256 == "ab" * 32
    assert listener.done_bytes == 0


def test_a_second_look_reads_only_what_changed(tmp_path: Path) -> None:
    put(tmp_path / "root/o/n/a.gguf", bytes(BIG_BYTES))
    listener = Listener()
    shelf = look(tmp_path / "root", listener=listener)
    put(tmp_path / "root/o/n/b.gguf", b"new")
    shelf.look()
    assert listener.done_bytes == BIG_BYTES + 3
    assert set(newest(shelf).files) == {"a.gguf", "b.gguf"}


def test_old_commits_stay_known_and_gone_repos_do_not(tmp_path: Path) -> None:
    put(tmp_path / "root/o/n/a.gguf")
    shelf = look(tmp_path / "root")
    old = newest(shelf)
    put(tmp_path / "root/o/n/b.gguf")
    shelf.look()
    assert shelf.find("o/n", "main") == shelf.find("o/n", "master") == newest(shelf) != old
    assert shelf.find("o/n", old.commit).files == old.files
    with pytest.raises(RevisionMissingError):
        shelf.find("o/n", "ab" * 20)
    for path in ("a.gguf", "b.gguf"):
        (tmp_path / "root/o/n" / path).unlink()
    shelf.look()
    assert shelf.newest() == []
    with pytest.raises(RepoMissingError):
        shelf.find("o/n", old.commit)


def test_commits_of_the_hub_are_names_too(tmp_path: Path) -> None:
    put(tmp_path / "root/R1/a.gguf", b"12345")
    record(tmp_path / "root/R1", ManifestFile("a.gguf", 5, "ab" * 32, None))
    shelf = look(tmp_path / "root")
    assert shelf.find("unsloth/R1", "cd" * 20) == newest(shelf)


def test_a_file_being_written_is_left_out_for_now(tmp_path: Path) -> None:
    path = put(tmp_path / "root/o/n/a.gguf", bytes(BIG_BYTES))
    put(tmp_path / "root/o/n/b.gguf")

    class Writer(Listener):
        def advance(self, n_bytes: int) -> None:
            if not self.done_bytes:
                with path.open("ab") as file:
                    file.write(b"more")
            super().advance(n_bytes)

    writer = Writer()
    shelf = look(tmp_path / "root", listener=writer)
    assert set(newest(shelf).files) == {"b.gguf"}
    assert any("a.gguf" in note and "written" in note for note in writer.notes)
    shelf.look()
    assert newest(shelf).file("a.gguf").size_bytes == BIG_BYTES + 4


def test_a_file_that_goes_away_is_left_out(tmp_path: Path) -> None:
    path = put(tmp_path / "root/o/n/a.gguf")
    put(tmp_path / "root/o/n/b.gguf")

    class Remover(Listener):
        def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
            path.unlink()

    remover = Remover()
    assert set(newest(look(tmp_path / "root", listener=remover)).files) == {"b.gguf"}
    assert any("a.gguf" in note and "No such file" in note for note in remover.notes)


class Clock:
    """A clock that a test moves."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(shelf_module, "time", one)
    return one


def background() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ggufkit-look"]


def test_looking_again_is_rare_and_in_the_background(tmp_path: Path, clock: Clock) -> None:
    put(tmp_path / "root/o/n/a.gguf")
    shelf = look(tmp_path / "root")
    put(tmp_path / "root/o/n/b.gguf")
    shelf.asked()
    assert not background() and set(newest(shelf).files) == {"a.gguf"}, "the last look was just now"
    clock.now_s += 11
    shelf.asked()
    for thread in background():
        thread.join(30)
    assert set(newest(shelf).files) == {"a.gguf"}
    clock.now_s += 3.1
    shelf.asked()
    assert set(newest(shelf).files) == {"a.gguf", "b.gguf"}


def test_what_is_asked_together_is_answered_from_one_state(tmp_path: Path, clock: Clock) -> None:
    path = put(tmp_path / "root/o/n/a.gguf", b"before")
    shelf = look(tmp_path / "root")
    old = newest(shelf)
    path.write_bytes(b"after it")
    clock.now_s += 11
    shelf.asked()
    by_hub = [shelf.find("o/n", "main")]
    for thread in background():
        thread.join(30)
    for _ in range(9):  # a pause is not waited for without end
        clock.now_s += 1
        shelf.asked()
        by_hub.append(shelf.find("o/n", "master"))
    assert by_hub == [old] * 10
    clock.now_s += 1
    shelf.asked()
    assert shelf.find("o/n", "master") == shelf.find("o/n", "main") != old
    assert newest(shelf).file("a.gguf").size_bytes == 8
    assert shelf.find("o/n", old.commit).files == old.files


def test_a_look_that_was_not_answered_from_yet_is_kept_in_mind(tmp_path: Path, clock: Clock) -> None:
    path = put(tmp_path / "root/o/n/a.gguf", b"1")
    shelf = look(tmp_path / "root")
    path.write_bytes(b"22")
    clock.now_s += 11
    shelf.asked()
    for thread in background():
        thread.join(30)
    path.write_bytes(b"333")
    shelf.look()
    assert [one.file("a.gguf").size_bytes for one in shelf._kept["o/n"]] == [3, 2, 1]


def test_paths_below_a_folder(tmp_path: Path) -> None:
    for path in ("a/b/c.gguf", "a/d.gguf", "ab.gguf"):
        put(tmp_path / "root/o/n" / path)
    one = newest(look(tmp_path / "root"))
    assert one.below("", recursive=True) == ["a", "a/b", "a/b/c.gguf", "a/d.gguf", "ab.gguf"]
    assert one.below("", recursive=False) == ["a", "ab.gguf"]
    assert one.below("a", recursive=True) == ["a/b", "a/b/c.gguf", "a/d.gguf"]
    assert one.below("a", recursive=False) == ["a/b", "a/d.gguf"]
    for missing in ("b", "ab.gguf", "a/b/c.gguf", ".."):
        with pytest.raises(EntryMissingError):
            one.below(missing, recursive=True)
