"""What happens around a transfer: other processes, full disks, folders that go away, clocks that jump."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, NoSpaceError
from ggufkit.gguf.layout import whole_file
from ggufkit.hubs.hub import RemoteFile
from ggufkit.transfer import crew, stretches
from ggufkit.transfer import journal as journal_module
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.http import Http
from ggufkit.transfer.prover import Proof
from ggufkit.transfer.several import Several
from ggufkit.transfer.sources import HubSource
from tests.support.faults import Fault
from tests.support.hub import TestHub, run_hub
from tests.transfer.test_several import Notes, Place

ROOT = Path(__file__).parents[2]
DATA = random.Random(21).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
WRITER = """
import sys
from pathlib import Path
from tests.transfer.test_harsh import job
from ggufkit.transfer.engine import write
from ggufkit.transfer.http import Http
with Http() as http:
    report = write(job(Path(sys.argv[1]), sys.argv[2], http))
print(report.resumed_bytes)
"""


class Heard(Notes):
    """A listener that does something once so many bytes came."""

    def __init__(self, at_bytes: int, then: object) -> None:
        super().__init__()
        self.left_bytes = at_bytes
        self.then = then

    def advance(self, n_bytes: int) -> None:
        before, self.left_bytes = self.left_bytes, self.left_bytes - n_bytes
        if before > 0 >= self.left_bytes:
            if isinstance(self.then, type):
                raise self.then
            assert callable(self.then)
            self.then()


def job(folder: Path, url: str, http: Http) -> Job:
    """Return the job of fetching the hub's one file over two streams."""
    file = RemoteFile("f.gguf", len(DATA), SHA256, "main")
    source = Several((HubSource(Place(url), "o/n", file, http),), 2, Notes())
    proof = Proof("f.gguf", ((0, len(DATA)),), SHA256)
    target = folder / "m" / "t.gguf"
    return Job(target, whole_file(len(DATA)), (source,), folder / ".ggufkit" / "j" / "t", (proof,))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "READ_BYTES", 32 << 10)
    monkeypatch.setattr(stretches, "FIRST_BYTES", 300_000)
    monkeypatch.setattr(stretches, "MAX_BYTES", 300_000)
    monkeypatch.setattr(stretches, "MIN_BYTES", 100_000)
    monkeypatch.setattr(journal_module, "SAVE_EVERY_BYTES", 128 << 10)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    file = tmp_path / "hub" / "o" / "n" / "f.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    with run_hub(tmp_path / "hub", sha256s={"o/n/f.gguf": SHA256}) as hub:
        yield hub


@pytest.fixture
def http() -> Iterator[Http]:
    with Http() as http:
        yield http


def test_two_processes_on_one_target_fetch_it_once(hub: TestHub, tmp_path: Path) -> None:
    hub.add(Fault(path="resolve", bytes_per_s=4e5))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out"), hub.url]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)]
    resumed = [int(w.communicate(timeout=90)[0]) for w in writers]
    assert [w.returncode for w in writers] == [0, 0]
    assert (tmp_path / "out" / "m" / "t.gguf").read_bytes() == DATA
    assert sorted(resumed) == [0, len(DATA)], "one wrote all, the other none"
    assert hub.sent_bytes("resolve") <= len(DATA) * 1.1
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["t.gguf"]


@pytest.mark.parametrize("what", ["part", "folder", "all"])
def test_a_target_that_is_removed_meanwhile_is_an_error_and_the_next_run_is_right(
    hub: TestHub, http: Http, tmp_path: Path, what: str
) -> None:
    one = job(tmp_path / "out", hub.url, http)
    gone = {"part": one.part, "folder": one.target.parent, "all": tmp_path / "out"}[what]

    def remove() -> None:
        gone.unlink() if what == "part" else shutil.rmtree(gone)

    with pytest.raises(AccessError, match="removed or replaced") as caught:
        write(one, Heard(1_000_000, remove))
    assert caught.value.exit_code == 4 and caught.value.hint
    assert not one.target.exists()
    assert write(job(tmp_path / "out", hub.url, http)).target.read_bytes() == DATA


@pytest.mark.parametrize("seed", range(4))
def test_a_disk_that_is_full_at_any_byte_keeps_what_came(
    hub: TestHub, http: Http, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        other = disk / "other"
        other.write_bytes(bytes((4 << 20) - chance.randrange(64 << 10, len(DATA))))
        one = job(disk, hub.url, http)
        with pytest.raises(NoSpaceError) as caught:
            write(one)
        assert caught.value.exit_code == 8 and "goes on" in (caught.value.hint or "")
        there, sent = resumable_bytes(one), hub.sent_bytes("resolve")
        os.truncate(other, 0)
        other.unlink()
        report = write(job(disk, hub.url, http))
        assert report.target.read_bytes() == DATA and report.resumed_bytes == there
        assert hub.sent_bytes("resolve") >= sent + len(DATA) - there
        assert [p.name for p in disk.rglob("*") if p.is_file()] == ["t.gguf"]


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """Mount a disk in memory; skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only a root that may mount can make a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400, -3600, 3600, 10 * 365 * 86400])
def test_a_clock_that_jumps_changes_nothing(
    hub: TestHub, http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """The journal does not rest on the time of day, nor on the times of files."""
    honest, honest_ns = time.time, time.time_ns
    jumps = [0]
    monkeypatch.setattr(time, "time", lambda: honest() + jumps[0])
    monkeypatch.setattr(time, "time_ns", lambda: honest_ns() + jumps[0] * 10**9)

    def jump() -> None:
        jumps[0] = jump_s

    one = job(tmp_path / "out", hub.url, http)
    heard = Heard(1_000_000, jump)
    second = Heard(2_000_000, KeyboardInterrupt)

    class Both(Notes):
        def advance(self, n_bytes: int) -> None:
            heard.advance(n_bytes)
            second.advance(n_bytes)

    with pytest.raises(KeyboardInterrupt):
        write(one, Both())
    there = resumable_bytes(one)
    assert there >= 2_000_000
    for path in [one.part, *one.journal.parent.iterdir()]:
        os.utime(path, (honest() + jump_s, honest() + jump_s))
    report = write(job(tmp_path / "out", hub.url, http))
    assert report.target.read_bytes() == DATA and report.resumed_bytes == there
