"""The engine: any layout, resumed at any byte, alone or not, on a full disk, with sources that change."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufkit.errors import AccessError, IntegrityError, NetworkError, NoSpaceError, TargetExistsError
from ggufkit.gguf.layout import Layout, Literal, Span, whole_file
from ggufkit.transfer import alone, engine
from ggufkit.transfer import journal as journal_module
from ggufkit.transfer.copying import write_all
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.prover import DigestMismatch, Proof
from ggufkit.transfer.sources import LocalSource, Source, Wrote

CONTENT = random.Random(4).randbytes(1_000_003)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Memory:
    """A source in memory, told when a step of it is about to be written."""

    data: bytes
    before_step: Callable[[int], None] = lambda _offset: None
    step: int = 64 << 10
    name: str = "memory"
    served: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    @property
    def sha256(self) -> str | None:
        return sha256(self.data)

    @property
    def version(self) -> str:
        return sha256(self.data)

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        for start in range(offset, offset + n_bytes, self.step):
            self.before_step(start)
            end = min(start + self.step, offset + n_bytes)
            write_all(fd, self.data[start:end], at + start - offset)
            self.served.append((start, end))
            wrote(at + start - offset, at + end - offset)


class Heard:
    """A listener that adds up."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self.notes: list[str] = []

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        raise AssertionError("start is the caller's")

    def advance(self, n_bytes: int) -> None:
        assert n_bytes >= 0
        self.n_bytes += n_bytes

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        raise AssertionError("finish is the caller's")


def job_of(folder: Path, source: Source, *, expected: str | None = "right") -> Job:
    digest = source.sha256 if expected == "right" else expected
    proof = Proof("it", ((0, source.size_bytes),), digest)
    journal = folder / ".ggufkit" / "journal" / "t"
    return Job(folder / "sub" / "t.gguf", whole_file(source.size_bytes), (source,), journal, (proof,))


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def interrupt(source: Memory, at: int) -> None:
    """Let the source be interrupted once when it comes to offset `at`."""

    def stop(offset: int) -> None:
        if offset >= at:
            source.before_step = lambda _offset: None
            raise KeyboardInterrupt

    source.before_step = stop


def test_a_file_is_written_proven_and_named_and_nothing_else_is_left(tmp_path: Path) -> None:
    heard = Heard()
    report = write(job_of(tmp_path, Memory(CONTENT)), heard)
    assert report.target.read_bytes() == CONTENT
    assert report.digests == {"it": sha256(CONTENT)}
    assert (report.n_bytes, report.resumed_bytes) == (len(CONTENT), 0)
    assert heard.n_bytes == len(CONTENT) and heard.notes == []
    assert names(tmp_path) == ["sub/t.gguf"]
    assert [p.name for p in tmp_path.iterdir()] == ["sub"]


def test_an_empty_file(tmp_path: Path) -> None:
    report = write(job_of(tmp_path, Memory(b"")))
    assert report.target.read_bytes() == b"" and report.digests == {"it": sha256(b"")}


segments = st.lists(
    st.one_of(
        st.binary(max_size=40).map(Literal),
        st.builds(Span, st.integers(0, 1), st.integers(0, 1000), st.integers(0, 3000)),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(segments, st.integers(0, 12_000), st.booleans())
def test_any_layout_interrupted_anywhere_gives_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Literal | Span], stop_at: int, local: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    data = [CONTENT[:5000], CONTENT[5000:10_000]]
    wanted = b"".join(
        p.data if isinstance(p, Literal) else data[p.source][p.offset : p.offset + p.n_bytes] for p in parts
    )
    sources: list[Source] = [Memory(d, step=97, name=str(i)) for i, d in enumerate(data)]
    if local:
        for i, d in enumerate(data):
            (folder / str(i)).write_bytes(d)
        sources = [LocalSource(folder / str(i), 5000) for i in range(2)]
    layout = Layout(tuple(parts))
    proof = Proof("it", ((0, layout.n_bytes),), sha256(wanted))
    job = Job(folder / "t", layout, tuple(sources), folder / "j" / "t", (proof,))
    told = 0

    class Stopper(Heard):
        def advance(self, n_bytes: int) -> None:
            nonlocal told
            told += n_bytes
            if told >= stop_at:
                raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        write(job, Stopper())
    before = resumable_bytes(job)
    report = write(job)
    assert report.target.read_bytes() == wanted
    assert report.resumed_bytes == before


@pytest.mark.parametrize("at", [0, 1, 300_000, 983_000, 10**9])
def test_an_interruption_loses_nothing_that_was_written(tmp_path: Path, at: int) -> None:
    source = Memory(CONTENT)
    job = job_of(tmp_path, source)
    interrupt(source, at)
    with contextlib.suppress(KeyboardInterrupt):
        write(job)
    served = sum(b - a for a, b in source.served)
    assert job.target.exists() == (at > len(CONTENT))
    assert resumable_bytes(job) == (0 if job.target.exists() else served)
    heard, before = Heard(), served
    report = write(job, heard)
    assert report.target.read_bytes() == CONTENT
    if at < len(CONTENT):
        assert report.resumed_bytes == before
        assert sum(b - a for a, b in source.served) == len(CONTENT), "no byte was asked for twice"
        assert heard.n_bytes == len(CONTENT) - before


def test_asking_how_much_is_there_touches_nothing(tmp_path: Path) -> None:
    assert resumable_bytes(job_of(tmp_path, Memory(CONTENT))) == 0
    assert list(tmp_path.iterdir()) == []


def stopped(tmp_path: Path, source: Memory) -> Job:
    """Return a job that was interrupted after about half of it."""
    job = job_of(tmp_path, source)
    interrupt(source, 500_000)
    with pytest.raises(KeyboardInterrupt):
        write(job)
    assert resumable_bytes(job) > 400_000
    return job


def test_another_content_under_the_same_name_begins_anew(tmp_path: Path) -> None:
    stopped(tmp_path, Memory(CONTENT))
    other = Memory(CONTENT[::-1])
    assert resumable_bytes(job_of(tmp_path, other)) == 0
    assert write(job_of(tmp_path, other)).target.read_bytes() == CONTENT[::-1]


def test_a_shorter_content_leaves_no_tail_of_a_longer_one(tmp_path: Path) -> None:
    stopped(tmp_path, Memory(CONTENT))
    assert write(job_of(tmp_path, Memory(CONTENT[:1000]))).target.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("keep", [0, 1, 100_000])
def test_a_part_file_that_somebody_cut_is_filled_again(tmp_path: Path, keep: int) -> None:
    source = Memory(CONTENT)
    job = stopped(tmp_path, source)
    os.truncate(job.part, keep)
    assert resumable_bytes(job) == keep
    assert write(job).target.read_bytes() == CONTENT


def test_without_its_part_file_a_journal_says_nothing(tmp_path: Path) -> None:
    job = stopped(tmp_path, Memory(CONTENT))
    job.part.unlink()
    assert resumable_bytes(job) == 0
    report = write(job)
    assert report.resumed_bytes == 0 and report.target.read_bytes() == CONTENT


def test_a_part_file_without_a_journal_is_written_over(tmp_path: Path) -> None:
    job = job_of(tmp_path, Memory(CONTENT))
    job.target.parent.mkdir()
    job.part.write_bytes(b"who knows what" * 99_999)
    assert resumable_bytes(job) == 0
    assert write(job).target.read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["symbolic link", "hard link"])
def test_what_a_part_file_is_linked_to_is_not_written_to(tmp_path: Path, kind: str) -> None:
    job = job_of(tmp_path, Memory(CONTENT))
    job.target.parent.mkdir()
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    if kind == "hard link":
        job.part.hardlink_to(precious)
    else:
        job.part.symlink_to(precious)
    assert write(job).target.read_bytes() == CONTENT
    assert precious.read_bytes() == b"mine" and not job.target.is_symlink()


def test_the_old_file_stays_until_the_new_one_is_proven_and_other_names_keep_it(tmp_path: Path) -> None:
    source = Memory(CONTENT)
    job = job_of(tmp_path, source)
    job.target.parent.mkdir()
    job.target.write_bytes(b"old")
    (tmp_path / "second name").hardlink_to(job.target)
    interrupt(source, 500_000)
    with pytest.raises(KeyboardInterrupt):
        write(job)
    assert job.target.read_bytes() == b"old"
    write(job)
    assert job.target.read_bytes() == CONTENT
    assert (tmp_path / "second name").read_bytes() == b"old"


def test_a_wrong_digest_leaves_nothing_and_the_next_run_is_right(tmp_path: Path) -> None:
    source = Memory(CONTENT)
    job = job_of(tmp_path, source)
    spoiled = bytearray(CONTENT)
    spoiled[777_777] ^= 1
    source.data = bytes(spoiled)
    with pytest.raises(DigestMismatch, match=sha256(CONTENT)):
        write(job)
    assert names(tmp_path) == []
    source.data = CONTENT
    assert write(job).target.read_bytes() == CONTENT


def test_bytes_that_changed_on_the_disk_between_two_runs_are_found(tmp_path: Path) -> None:
    job = stopped(tmp_path, Memory(CONTENT))
    with job.part.open("r+b") as file:
        file.seek(1234)
        file.write(b"rot")
    with pytest.raises(DigestMismatch):
        write(job)
    assert write(job).target.read_bytes() == CONTENT


def test_after_a_power_loss_only_what_was_synced_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_EVERY_BYTES", 192 << 10)
    job = stopped(tmp_path, Memory(CONTENT))
    there = resumable_bytes(job)
    monkeypatch.setattr(journal_module, "boot_id", lambda: "after the power loss")
    durable = resumable_bytes(job)
    assert 0 < there - durable < 192 << 10
    with job.part.open("r+b") as file:  # what was not synced is gone: a hole
        file.truncate(durable)
    assert write(job).target.read_bytes() == CONTENT


# ---- sources that change ----


def test_a_source_replaced_between_two_runs_is_not_mixed(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(CONTENT)
    job = job_of(tmp_path, LocalSource(shard, len(CONTENT)), expected=None)

    class Stop(Heard):
        def advance(self, n_bytes: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(job, Stop())
    assert resumable_bytes(job) > 0
    shard.unlink()
    shard.write_bytes(CONTENT[::-1])
    assert resumable_bytes(job) == 0
    assert write(job).target.read_bytes() == CONTENT[::-1]


def test_a_source_changed_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(CONTENT)
    job = job_of(tmp_path, LocalSource(shard, len(CONTENT)), expected=None)

    class Change(Heard):
        def advance(self, n_bytes: int) -> None:
            with shard.open("r+b") as file:
                file.write(b"changed")
            os.utime(shard, ns=(1, 1))

    with pytest.raises(IntegrityError, match="changed while it was read"):
        write(job, Change())
    assert names(tmp_path) == ["shard"]


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_source_that_shrinks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    shard = tmp_path / "shard"
    shard.write_bytes(CONTENT)
    job = job_of(tmp_path, LocalSource(shard, len(CONTENT)), expected=None)
    os.truncate(shard, 1000)
    with pytest.raises(IntegrityError, match=r"shard ended 999,003 bytes early"):
        write(job)
    assert names(tmp_path) == ["shard"]


def test_a_wrong_digest_that_is_found_while_copying_is_told_as_such(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(CONTENT)
    job = job_of(tmp_path, LocalSource(shard, len(CONTENT)), expected=None)
    begin = Proof("begin", ((0, 10),), sha256(b"something else"))
    layout = Layout(tuple(Span(0, at, 1000) for at in range(0, 900_000, 1000)))

    class Slow(Heard):
        def advance(self, n_bytes: int) -> None:
            time.sleep(0.01)

    with pytest.raises(DigestMismatch, match="begin"):
        write(replace(job, layout=layout, proofs=(begin,)), Slow())


def test_without_a_digest_a_hub_file_is_known_by_its_repo_and_revision(tmp_path: Path) -> None:
    @dataclass
    class Unproven(Memory):
        revision: str = "a"

        @property
        def version(self) -> str:
            return self.revision

    first, second = Unproven(CONTENT), Unproven(CONTENT[::-1], revision="b")
    job = job_of(tmp_path, first, expected=None)
    interrupt(first, 500_000)
    with pytest.raises(KeyboardInterrupt):
        write(job)
    assert write(job_of(tmp_path, second, expected=None)).target.read_bytes() == CONTENT[::-1]


# ---- failures of the network and the disk ----


def test_a_network_failure_keeps_what_came(tmp_path: Path) -> None:
    source = Memory(CONTENT)
    job = job_of(tmp_path, source)

    def fail(offset: int) -> None:
        if offset >= 500_000:
            raise NetworkError("gone")

    source.before_step = fail
    with pytest.raises(NetworkError):
        write(job)
    assert resumable_bytes(job) > 400_000
    source.before_step = lambda _offset: None
    write(job)
    assert sum(b - a for a, b in source.served) == len(CONTENT)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=lambda c: errno.errorcode[c])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "open", "mkdir"])
def test_a_full_disk_is_told_as_one_whichever_call_meets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    job = job_of(tmp_path, Memory(CONTENT))

    def full(*_arguments: object, **_named: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "mkdir" else os, call, full)
        with pytest.raises(NoSpaceError, match="the disk is full") as caught:
            write(job)
    assert caught.value.exit_code == 8 and "goes on" in (caught.value.hint or "")
    assert write(job).target.read_bytes() == CONTENT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount (a container?)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_in_the_middle_keeps_all_and_goes_on(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SAVE_EVERY_BYTES", 256 << 10)
    data = random.Random(5).randbytes(3 << 20)
    other = small_disk / "other"
    other.write_bytes(bytes(2 << 20))
    source = Memory(data)
    job = job_of(small_disk, source)
    for _ in range(2):
        with pytest.raises(NoSpaceError):
            write(job)
    there = resumable_bytes(job)
    assert there >= (1 << 20), "what came before the disk was full is believed"
    assert other.stat().st_size == 2 << 20
    other.unlink()
    source.served.clear()
    report = write(job)
    assert report.target.read_bytes() == data and report.resumed_bytes == there
    assert sum(b - a for a, b in source.served) == len(data) - there
    assert names(small_disk) == ["sub/t.gguf"]


# ---- two at once ----


def in_threads(jobs: list[Callable[[], object]]) -> list[object]:
    """Run the jobs at the same time; return what each returned or raised."""
    results: list[object] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        barrier.wait()
        try:
            results[i] = jobs[i]()
        except Exception as error:  # noqa: BLE001 - to be looked at by the test
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def slow(seconds: float) -> Callable[[int], None]:
    return lambda _offset: time.sleep(seconds)


@pytest.mark.parametrize("n_writers", [2, 4])
def test_writers_of_one_target_end_right_and_fetch_once(tmp_path: Path, n_writers: int) -> None:
    sources = [Memory(CONTENT, slow(0.02)) for _ in range(n_writers)]
    heard = [Heard() for _ in sources]

    jobs = [job_of(tmp_path, source) for source in sources]
    reports = in_threads([functools.partial(write, *pair) for pair in zip(jobs, heard, strict=True)])
    for report in reports:
        assert isinstance(report, engine.WriteReport), report
        assert report.digests == {"it": sha256(CONTENT)}
    assert (tmp_path / "sub" / "t.gguf").read_bytes() == CONTENT
    assert names(tmp_path) == ["sub/t.gguf"]
    assert sum(b - a for s in sources for a, b in s.served) == len(CONTENT)
    assert [h.n_bytes for h in heard] == [len(CONTENT)] * n_writers
    assert sum(bool(h.notes) for h in heard) == n_writers - 1
    assert all("waiting" in note for h in heard for note in h.notes)


def test_a_waiting_writer_goes_on_where_a_killed_one_ended(tmp_path: Path) -> None:
    first, second = Memory(CONTENT, slow(0.02)), Memory(CONTENT)
    job = job_of(tmp_path, first)

    def killed() -> None:
        with pytest.raises(KeyboardInterrupt):
            write(job)

    def waiting() -> engine.WriteReport:
        while not job.part.exists():
            time.sleep(0.001)
        return write(job_of(tmp_path, second), heard)

    def stop_late(offset: int) -> None:
        time.sleep(0.02)
        if offset > 700_000:
            raise KeyboardInterrupt

    heard, first.before_step = Heard(), stop_late
    results = in_threads([killed, waiting])
    assert results[0] is None, results[0]
    assert isinstance(results[1], engine.WriteReport), results[1]
    assert job.target.read_bytes() == CONTENT
    assert sum(b - a for s in (first, second) for a, b in s.served) == len(CONTENT)
    assert heard.n_bytes == len(CONTENT)


def test_a_waiting_writer_of_another_content_does_not_take_it_for_its_own(tmp_path: Path) -> None:
    other = Memory(CONTENT[::-1], name="other")
    jobs = [
        job_of(tmp_path, Memory(CONTENT, slow(0.02)), expected=None),
        job_of(tmp_path, other, expected=None),
    ]

    def second() -> object:
        while not jobs[0].part.exists():
            time.sleep(0.001)
        time.sleep(0.05)
        return write(jobs[1])

    results = in_threads([lambda: write(jobs[0]), second])
    assert isinstance(results[0], engine.WriteReport)
    assert isinstance(results[1], TargetExistsError), results[1]
    assert jobs[0].target.read_bytes() == CONTENT
    assert names(tmp_path) == ["sub/t.gguf"]


@pytest.mark.parametrize("locks", ["lie", "fail", "are not there"])
def test_where_there_are_no_locks_two_writers_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    if locks == "are not there":
        monkeypatch.setattr(alone, "fcntl", None)
    else:

        def flock(_fd: int, _how: int) -> None:
            if locks == "fail":
                raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", flock)
    for round_ in range(5):
        folder = tmp_path / str(round_)
        sources = [Memory(CONTENT, slow(0.002 * (i + 1))) for i in range(2)]
        results = in_threads([functools.partial(write, job_of(folder, source)) for source in sources])
        assert (folder / "sub" / "t.gguf").read_bytes() == CONTENT
        for result in results:
            assert isinstance(result, engine.WriteReport), result
        assert names(folder) == ["sub/t.gguf"]


def test_a_writer_whose_part_file_was_replaced_publishes_nothing(tmp_path: Path) -> None:
    source = Memory(CONTENT)
    job = job_of(tmp_path, source)

    def replace(offset: int) -> None:
        if offset > 500_000 and job.part.stat().st_size:
            job.part.unlink()
            job.part.write_bytes(b"")

    source.before_step = replace
    with pytest.raises(AccessError, match="removed or replaced") as caught:
        write(job)
    assert caught.value.exit_code == 4
    assert not job.target.exists()
    source.before_step = lambda _offset: None
    assert write(job).target.read_bytes() == CONTENT


def test_a_file_system_without_lasting_numbers_is_an_error_and_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "is_at", lambda _fd, _path: False)
    monkeypatch.setattr(engine, "POLL_S", 0.001)
    with pytest.raises(AccessError, match="another file each time"):
        write(job_of(tmp_path, Memory(CONTENT)))


def test_a_system_that_renames_no_open_file_renames_a_closed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, was_open = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            was_open.append(self in open_files())
            if was_open[-1]:
                raise PermissionError(errno.EACCES, "The process cannot access the file")
        return honest(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert write(job_of(tmp_path, Memory(CONTENT))).target.read_bytes() == CONTENT
    assert was_open == [True, False]
    assert names(tmp_path) == ["sub/t.gguf"]


def open_files() -> list[Path]:
    """Return what this process has open (Linux)."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder's own, closed by now
            found.append(link.readlink())
    return found


def test_a_local_file_is_read_once_and_its_target_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CONTENT * (1 + (8 << 20) // len(CONTENT))
    (tmp_path / "source").write_bytes(data)
    source = LocalSource(tmp_path / "source", len(data), sha256(data))

    def read_back(*_: object) -> bytes:
        raise AssertionError("the digest is taken of what is lent")

    monkeypatch.setattr("ggufkit.transfer.prover.read_at", read_back)
    report = write(job_of(tmp_path, source))
    assert report.digests == {"it": sha256(data)} and report.target.read_bytes() == data


def test_no_descriptor_and_no_thread_is_left(tmp_path: Path) -> None:
    n_open, threads = len(open_files()), set(threading.enumerate())
    source = Memory(CONTENT)
    job = stopped(tmp_path, source)
    source.data = CONTENT[::-1]
    with pytest.raises(DigestMismatch):
        write(job)
    assert len(open_files()) == n_open and set(threading.enumerate()) <= threads
