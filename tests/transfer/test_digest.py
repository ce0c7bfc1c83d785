"""Digests: right against hashlib, remembered only for the very state of a file they were taken of."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ggufkit.transfer.digest import DigestCache, FileStamp, sha256_file

OLD_S = 60


@dataclass
class Counter:
    """A listener that counts bytes, and so tells a hash from a memory."""

    advanced: list[int] = field(default_factory=list)

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        raise AssertionError("start belongs to the caller")

    def advance(self, n_bytes: int) -> None:
        self.advanced.append(n_bytes)

    def note(self, message: str) -> None:
        raise AssertionError(message)

    def finish(self) -> None:
        raise AssertionError("finish belongs to the caller")


def settled(path: Path, data: bytes) -> Path:
    """Write a file that looks as if it was last changed a minute ago."""
    path.write_bytes(data)
    then = time.time() - OLD_S
    os.utime(path, (then, then))
    return path


def wrong() -> str:
    """A digest no file of these tests has: the cache gives it only if it did not read the file."""
    return "ab" * 32


@pytest.mark.parametrize("n_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_001])
def test_sha256_file_agrees_with_hashlib(tmp_path: Path, n_bytes: int) -> None:
    data = os.urandom(n_bytes)
    path = tmp_path / "file"
    path.write_bytes(data)
    counter = Counter()
    assert sha256_file(path, counter) == hashlib.sha256(data).hexdigest()
    assert sum(counter.advanced) == n_bytes


def test_a_second_digest_reads_nothing(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"x" * 3_000_000)
    first = DigestCache(tmp_path / "cache").digest(path)
    counter = Counter()
    assert DigestCache(tmp_path / "cache").digest(path, counter) == first
    assert counter.advanced == [3_000_000], "advanced at once, by the whole size"


def test_remembered_is_what_was_put(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    cache = DigestCache(tmp_path / "cache")
    assert cache.get(path) is None
    cache.put(path, wrong())
    assert cache.get(path) == wrong()
    assert cache.digest(path) == wrong(), "the file was not read again"


def test_changed_size_is_hashed_again(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    status = path.stat()
    cache = DigestCache(tmp_path / "cache")
    cache.put(path, wrong())
    with path.open("ab") as file:
        file.write(b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.digest(path) == hashlib.sha256(b"data!").hexdigest()


def test_changed_mtime_is_hashed_again(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    cache = DigestCache(tmp_path / "cache")
    cache.put(path, wrong())
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.digest(path) == hashlib.sha256(b"data").hexdigest()


def test_another_file_with_the_same_name_size_and_time_is_hashed_again(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    cache = DigestCache(tmp_path / "cache")
    cache.put(path, wrong())
    status = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"DATA")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert cache.digest(path) == hashlib.sha256(b"DATA").hexdigest()


def test_a_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    cache = DigestCache(tmp_path / "cache")
    assert cache.digest(path) == hashlib.sha256(b"data").hexdigest()
    assert cache.get(path) is None
    settled(path, b"data")
    cache.digest(path)
    assert cache.get(path) is not None


def test_a_file_changed_while_it_was_read_is_not_remembered(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"x" * 3_000_000)

    class Meddler(Counter):
        def advance(self, n_bytes: int) -> None:
            os.utime(path, (time.time() - OLD_S / 2,) * 2)

    cache = DigestCache(tmp_path / "cache")
    cache.digest(path, Meddler())
    assert cache.get(path) is None


def test_one_file_under_two_names_is_told_by_its_real_path(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    (tmp_path / "link").symlink_to("file")
    cache = DigestCache(tmp_path / "cache")
    cache.put(tmp_path / "link", wrong())
    assert cache.get(path) == wrong()


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    cache = DigestCache(tmp_path / "cache")
    cache.put(tmp_path / "none", wrong())
    assert cache.get(tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        cache.digest(tmp_path / "none")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"schema": 2, "digests": {}}',
        b'{"schema": 1, "digests": []}',
        b'{"schema": 1, "digests": {"PATH": 7, "b": {"sha256": "short"}}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_cache_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = settled(tmp_path / "file", b"data")
    cache = DigestCache(tmp_path / "cache")
    cache.file.parent.mkdir()
    cache.file.write_bytes(content.replace(b"PATH", str(path).encode()))
    assert cache.get(path) is None
    assert cache.digest(path) == hashlib.sha256(b"data").hexdigest()
    assert json.loads(cache.file.read_text())["schema"] == 1
    assert DigestCache(tmp_path / "cache").get(path) == hashlib.sha256(b"data").hexdigest()


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    assert DigestCache(tmp_path / "cache").digest(path) == hashlib.sha256(b"data").hexdigest()


def test_what_another_process_learned_is_seen_and_kept(tmp_path: Path) -> None:
    ours, theirs = settled(tmp_path / "ours", b"1"), settled(tmp_path / "theirs", b"2")
    here, there = DigestCache(tmp_path / "cache"), DigestCache(tmp_path / "cache")
    here.put(ours, wrong())
    there.put(theirs, wrong())
    assert here.get(theirs) == there.get(ours) == wrong()


def test_threads_and_processes_leave_a_whole_file(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from ggufkit.transfer.digest import DigestCache
        cache = DigestCache(Path(sys.argv[1]))
        for round in range(40):
            cache.put(Path(sys.argv[2]), "cd" * 32)
    """
    paths = [settled(tmp_path / f"file{n}", b"data") for n in range(4)]
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "cache")]
    with subprocess.Popen([*arguments, str(paths[0])]) as process:
        cache = DigestCache(tmp_path / "cache")

        def put_often(path: Path) -> None:
            for _ in range(40):
                cache.put(path, wrong())

        threads = [threading.Thread(target=put_often, args=[path]) for path in paths[1:]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert process.wait() == 0
    document = json.loads(cache.file.read_text())
    assert set(document["digests"]) <= {str(path) for path in paths}
    assert [cache.get(path) for path in paths[1:]] == [wrong()] * 3, "its own threads lose nothing"
    assert cache.get(paths[0]) in {None, "cd" * 32}, "of two processes the last one wins"
    assert [entry.name for entry in cache.file.parent.iterdir()] == ["digests.json"], "nothing left over"


def test_a_stamp_tells_states_of_a_file_apart(tmp_path: Path) -> None:
    path = settled(tmp_path / "file", b"data")
    assert FileStamp.of(path.stat()) == FileStamp.of(path.stat())
    assert FileStamp.of(settled(tmp_path / "two", b"data").stat()) != FileStamp.of(path.stat())
