"""Consuming: each byte durable in one place at every moment, whatever stops it."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, IntegrityError, NoSpaceError
from ggufkit.gguf.layout import Layout, Literal, Span
from ggufkit.transfer import consume as engine
from ggufkit.transfer import consume_notes, copying, holes
from ggufkit.transfer.consume import consume, extra_bytes_needed
from ggufkit.transfer.consume_notes import Consumption, durable_bytes, load_notes
from ggufkit.transfer.digest import FileStamp
from ggufkit.transfer.holders import holders
from ggufkit.transfer.prover import Proof
from ggufkit.transfer.sources import LocalSource
from tests.support.ggufs import render
from tests.verbs.published import sha256

STEP = 64 << 10
SIZES = (3 * STEP + 1234, 70, 5 * STEP, 2 * STEP + 17)
"""Sources: one is all header and goes nowhere, see `layout`."""


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume_notes, "MIN_STEP_BYTES", STEP)


def datas() -> list[bytes]:
    chance = random.Random(5)
    return [chance.randbytes(n) for n in SIZES]


def layout() -> Layout:
    """Headers of odd lengths are left out, and there is padding in between, as after another alignment."""
    return Layout(
        (
            Literal(b"GGUF" + bytes(1000)),
            Span(0, 1234, 2 * STEP),
            Literal(bytes(24)),
            Span(0, 1234 + 2 * STEP, STEP),
            Span(2, 32, 5 * STEP - 32),
            Literal(bytes(7)),
            Span(3, 0, 2 * STEP + 17),
        )
    )


def prepared(folder: Path) -> Consumption:
    """Write the sources anew, and plan their consumption."""
    home = folder / "set"
    home.mkdir(exist_ok=True)
    paths = [home / f"s{i}.gguf" for i in range(len(SIZES))]
    for path, data in zip(paths, datas(), strict=True):
        path.write_bytes(data)
    return planned(folder, paths)


def planned(folder: Path, paths: list[Path]) -> Consumption:
    sources = tuple(LocalSource(path, path.stat().st_size) for path in paths)
    stamps = tuple(FileStamp.of(path.stat()) for path in paths)
    proofs = (Proof("it", ((0, layout().n_bytes),), None),)
    notes = paths[0].parent / ".ggufkit" / "consume" / "set.json"
    return Consumption(folder / "set.gguf", layout(), sources, stamps, notes, proofs)


def whole() -> bytes:
    return render(layout(), datas())


def again(made: Consumption) -> Consumption:
    """Return what the notes say, as another process would find it."""
    found = load_notes(made.notes)
    assert found is not None
    return found


@pytest.fixture
def made(tmp_path: Path) -> Consumption:
    return prepared(tmp_path)


@pytest.fixture
def no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "_fallocate", lambda: None)


def test_the_file_comes_out_and_the_sources_are_gone(made: Consumption, tmp_path: Path) -> None:
    report = consume(made)
    assert made.target.read_bytes() == whole()
    assert report.digests == {"it": sha256(whole())} and report.n_bytes == len(whole())
    assert [p.name for p in tmp_path.iterdir()] == ["set.gguf"], "nor notes, nor the empty folder"


def test_there_is_never_much_more_than_one_copy(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    if not holes.makes_holes(made.target.parent):
        pytest.fail("tests need a temporary folder on a file system with holes (ext4, xfs, btrfs, tmpfs)")
    peak = [0]
    honest = consume_notes.note

    def note(slots: int, done: int) -> None:
        files = [made.part, *(s.path for s in made.sources)]
        peak[0] = max(peak[0], sum(p.stat().st_blocks * 512 for p in files if p.exists()))
        honest(slots, done)

    monkeypatch.setattr(engine, "note", note)
    consume(made)
    assert 0 < peak[0] <= sum(SIZES) + made.extra_bytes + 4096 * 8  # a block at each end of a file
    assert made.step_bytes == STEP and extra_bytes_needed(prepared(made.target.parent)) == made.extra_bytes


@pytest.mark.usefixtures("no_holes")
def test_without_holes_each_source_goes_when_it_is_done(
    made: Consumption, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extra_bytes_needed(made) == made.extra_bytes + max(SIZES)
    lengths: list[list[int]] = []
    honest = consume_notes.note

    def note(slots: int, done: int) -> None:
        lengths.append([s.path.stat().st_size for s in made.sources])
        honest(slots, done)

    monkeypatch.setattr(engine, "note", note)
    consume(made)
    assert made.target.read_bytes() == whole()
    assert all(n in (0, size) for row in lengths for n, size in zip(row, SIZES, strict=True))
    assert lengths[-1][0] == lengths[-1][1] == lengths[-1][2] == 0


def stops() -> Iterator[tuple[str, int]]:
    """Yield a function of the work and which of its calls fails."""
    n_steps = -(-layout().n_bytes // STEP)
    for name in ("note", "_copy_step", "sync"):
        yield from ((name, i) for i in range(0, n_steps, 1 if name == "note" else 3))
    yield from (("fsync_folder", i) for i in range(3))
    yield from (("unlink", i) for i in range(len(SIZES) + 2))
    yield ("replace", 0)


@pytest.mark.parametrize("with_holes", [True, False], ids=["holes", "no holes"])
@pytest.mark.parametrize(("name", "at"), list(stops()))
def test_stopped_anywhere_it_goes_on(
    made: Consumption, monkeypatch: pytest.MonkeyPatch, name: str, at: int, with_holes: bool
) -> None:
    if not with_holes:
        monkeypatch.setattr(holes, "_fallocate", lambda: None)
    calls = [0]
    owner = Path if name in ("unlink", "replace") else engine
    honest = getattr(owner, name)

    def stopped(*arguments: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == at + 1:
            raise KeyboardInterrupt
        return honest(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            consume(made)
    if made.notes.exists():
        report = consume(again(made))
        assert report.digests == {"it": sha256(whole())}
    assert made.target.read_bytes() == whole()
    assert not any(source.path.exists() for source in made.sources)


def test_what_is_given_up_reads_as_no_model(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that is partly a hole has its full length: nobody may take it for sound."""
    honest = consume_notes.note

    def note(slots: int, done: int) -> None:
        honest(slots, done)
        if done >= 3 * STEP:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "note", note)
    with pytest.raises(KeyboardInterrupt):
        consume(made)
    assert durable_bytes(made.notes) == 3 * STEP
    first = made.sources[0].path
    assert first.stat().st_size == SIZES[0] and first.read_bytes()[:4096] == bytes(4096)
    assert made.sources[2].path.read_bytes() == datas()[2], "of the next nothing is given up"


def test_a_second_process_is_kept_out(made: Consumption) -> None:
    with consume_notes.alone(made), pytest.raises(AccessError, match="another process is consuming"):
        consume(made)
    consume(made)
    assert made.target.read_bytes() == whole()


def test_a_file_system_without_locks_is_refused(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(AccessError, match="can't be locked"):
        consume(made)
    monkeypatch.setattr(consume_notes, "fcntl", None)
    with pytest.raises(AccessError, match="no locks that we know"):
        consume(made)
    assert [s.path.read_bytes() for s in made.sources] == datas()


@pytest.mark.parametrize("how", ["changed", "shorter", "gone"])
@pytest.mark.parametrize("when", ["before", "between"])
def test_a_source_changed_since_the_check_is_noticed(
    made: Consumption, monkeypatch: pytest.MonkeyPatch, how: str, when: str
) -> None:
    if when == "between":
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(engine, "note", _interrupt)
            consume(made)
    last = made.sources[3].path
    if how == "gone":
        last.unlink()
    else:
        last.write_bytes(b"?" * (SIZES[3] if how == "changed" else 5))
    with pytest.raises(IntegrityError, match=r"s3\.gguf was changed since it was checked"):
        consume(made if when == "before" else again(made))
    assert made.sources[2].path.read_bytes() == datas()[2]


def test_notes_that_were_not_finished_are_not_left(
    made: Consumption, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(consume_notes, "replace_durably", _interrupt)
        consume(made)
    assert load_notes(made.notes) is None and len(list(made.notes.parent.iterdir())) == 2
    consume(made)
    assert [p.name for p in tmp_path.iterdir()] == ["set.gguf"]


def test_a_source_that_was_fetched_again_will_do(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tuple(replace(s, sha256=sha256(s.path)) for s in made.sources)
    made = replace(made, sources=sources)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "note", _interrupt)
        consume(made)
    made.sources[3].path.unlink()
    made.sources[3].path.write_bytes(datas()[3])
    os.utime(made.sources[3].path, (1, 1))
    consume(again(made))
    assert made.target.read_bytes() == whole()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_restart_that_numbers_devices_anew_is_no_change(made: Consumption) -> None:
    stamps = tuple(FileStamp(s.size_bytes, s.mtime_ns, s.inode, s.device + 1) for s in made.stamps)
    moved = Consumption(made.target, made.layout, made.sources, stamps, made.notes, made.proofs)
    consume(moved)
    assert made.target.read_bytes() == whole()


def test_a_part_that_somebody_removed_is_named(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        honest = consume_notes.note
        patch.setattr(engine, "note", lambda fd, done: honest(fd, done) if done < 3 * STEP else _interrupt())
        consume(made)
    made.part.unlink()
    with pytest.raises(IntegrityError, match=r"set\.gguf\.part, which holds the first 131,072 bytes"):
        consume(again(made))


def test_a_merge_that_runs_beside_is_waited_for(made: Consumption) -> None:
    """It would write zeros, where it comes later than we do."""
    fd = os.open(made.part, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(AccessError, match=r"another process is writing .*set\.gguf"):
        consume(made)
    os.close(fd)
    assert [s.path.read_bytes() for s in made.sources] == datas()
    consume(again(made))
    assert made.target.read_bytes() == whole()


def test_a_part_with_another_name_is_not_thrown_away(
    made: Consumption, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        honest = consume_notes.note
        patch.setattr(engine, "note", lambda fd, done: honest(fd, done) if done < 3 * STEP else _interrupt())
        consume(made)
    other = made.target.with_name("backup")
    os.link(made.part, other)
    with pytest.raises(AccessError, match="has another name"):
        consume(again(made))
    other.unlink()
    consume(again(made))
    assert made.target.read_bytes() == whole()


def test_a_full_disk_keeps_everything(made: Consumption, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = copying.write_all

    def full(fd: int, data: bytes, at: int) -> None:
        if at > 3 * STEP:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_all", full)
        with pytest.raises(NoSpaceError, match="the disk is full"):
            consume(made)
    consume(again(made))
    assert made.target.read_bytes() == whole()


@pytest.mark.parametrize("slot", [b"", b"00000000000000000007 0000000000000000", b"\0" * 512, b"garbage\n"])
def test_a_torn_slot_leaves_the_other(made: Consumption, slot: bytes) -> None:
    progress = made.notes.with_name(made.notes.name + ".progress")
    progress.parent.mkdir(parents=True)
    with progress.open("w+b", buffering=0) as file:
        consume_notes.note(file.fileno(), 1000)
        consume_notes.note(file.fileno(), 2000)
        assert durable_bytes(made.notes) == 2000
        file.seek(512)
        file.write(slot.ljust(512, b"\0"))
    assert durable_bytes(made.notes) == 1000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"target": "../x/bashrc"}, "no GGUF's name"),
        ({"sources": [{"name": "../../x", "size_bytes": 1, "sha256": None}]}, "no file's name"),
        ({"segments": [[1, 2]]}, "missing"),
        ({"segments": ["%"]}, "broken"),
        ({"proofs": None}, "broken"),
    ],
)
def test_notes_are_not_believed_blindly(
    made: Consumption, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], reason: str
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "note", _interrupt)
        consume(made)
    made.notes.write_text(json.dumps(json.loads(made.notes.read_text()) | change))
    with pytest.raises(IntegrityError, match=reason):
        load_notes(made.notes)
    for text in ("{", "[" * 99999):
        made.notes.write_text(text)
        with pytest.raises(IntegrityError, match="broken"):
            load_notes(made.notes)


# ---- who else has a file ----


@pytest.mark.parametrize("only_mapped", [False, True])
def test_programs_that_have_a_file_open_or_mapped_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_mapped: bool
) -> None:
    """llama.cpp closes what it has mapped; Python's mmap keeps a file open, which is passed over here."""
    if only_mapped:
        monkeypatch.setattr("ggufkit.transfer.holders._open_files", lambda *_: ())
    paths = [tmp_path / name for name in ("open", "mapped", "free")]
    for path in paths:
        path.write_bytes(bytes(mmap.PAGESIZE))
    code = (
        "import mmap, sys\n"
        "a = open(sys.argv[1], 'rb'); b = open(sys.argv[2], 'rb')\n"
        "m = mmap.mmap(b.fileno(), 0, prot=mmap.PROT_READ)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(paths[0]), str(paths[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        found = holders(paths)
        assert child.stdin is not None
        child.stdin.close()
    held = {paths[1]} if only_mapped else {paths[0], paths[1]}
    assert {(h.path, h.pid) for h in found} == {(path, child.pid) for path in held}
    assert found[0].program.startswith("python")
    with paths[0].open("rb"):
        assert holders(paths) == (), "our own files are not somebody else's"


def test_without_proc_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggufkit.transfer.holders.PROC", tmp_path / "none")
    assert holders([tmp_path]) == ()


# ---- holes ----


def test_a_hole_frees_blocks_and_keeps_the_rest(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(64 << 10)
    path = tmp_path / "f"
    path.write_bytes(data)
    with path.open("rb+", buffering=0) as file:
        os.fsync(file.fileno())
        before = path.stat().st_blocks
        assert holes.punch_hole(file.fileno(), 4096, 8192)
    assert path.read_bytes() == data[:4096] + bytes(8192) + data[12288:]
    assert path.stat().st_blocks == before - 16


def test_other_failures_are_not_taken_for_a_missing_feature(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with (tmp_path / "f").open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        holes.punch_hole(file.fileno(), 0, 4096)


@pytest.mark.usefixtures("no_holes")
def test_without_fallocate_there_are_no_holes(tmp_path: Path) -> None:
    assert not holes.makes_holes(tmp_path)
    assert list(tmp_path.iterdir()) == []
