"""Proofs beside a writer: any order, any number, wrong digests, stopping, and no silent end."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufkit.errors import IntegrityError
from ggufkit.transfer import prover as prover_module
from ggufkit.transfer.prover import DigestMismatch, FileRange, Proof, Prover

CONTENT = random.Random(2).randbytes(5 * prover_module.BLOCK_BYTES + 777)
STEP = 300_000
STEPS = [(at, min(at + STEP, len(CONTENT))) for at in range(0, len(CONTENT), STEP)]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


WHOLE = Proof("whole", ((0, len(CONTENT)),), sha256(CONTENT))


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "target").open("w+b") as file:
        yield file.fileno()


def write(prover: Prover, fd: int, steps: list[tuple[int, int]]) -> None:
    for start, end in steps:
        os.pwrite(fd, CONTENT[start:end], start)
        prover.wrote(start, end)


def proven(fd: int, proofs: tuple[Proof, ...], steps: list[tuple[int, int]]) -> dict[str, str]:
    prover = Prover(fd, proofs, [])
    try:
        write(prover, fd, steps)
        return prover.finish()
    finally:
        prover.stop()


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_the_order_of_writing_does_not_matter(fd: int, order: str) -> None:
    steps = STEPS[::-1] if order == "backwards" else list(STEPS)
    if order == "shuffled":
        random.Random(3).shuffle(steps)
    assert proven(fd, (WHOLE,), steps) == {"whole": sha256(CONTENT)}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(CONTENT)), max_size=6), st.randoms(use_true_random=False))
def test_any_cuts_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chance: random.Random
) -> None:
    ends = sorted({0, len(CONTENT), *cuts})
    steps = list(itertools.pairwise(ends))
    chance.shuffle(steps)
    with (tmp_path_factory.mktemp("any") / "t").open("w+b") as file:
        assert proven(file.fileno(), (WHOLE,), steps) == {"whole": sha256(CONTENT)}


def test_pieces_are_hashed_in_their_order_and_files_beside_the_target_too(fd: int, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.write_bytes(bytes(range(256)) * 8192)  # 2 MiB: more than a block
    pieces = (FileRange(beside, 1, 2_000_000), (1000, 2000), FileRange(beside, 7, 7), (0, 10))
    wanted = beside.read_bytes()[1:2_000_000] + CONTENT[1000:2000] + CONTENT[:10]
    proofs = (Proof("odd", pieces, sha256(wanted)), Proof("taken", ((5, 50),), None))
    assert proven(fd, proofs, STEPS) == {"odd": sha256(wanted), "taken": sha256(CONTENT[5:50])}


def test_what_was_there_before_is_read_from_the_file(fd: int) -> None:
    os.pwrite(fd, CONTENT, 0)
    prover = Prover(fd, (WHOLE,), [(0, len(CONTENT))])
    assert prover.finish() == {"whole": sha256(CONTENT)}
    prover.stop()


def lend(prover: Prover, steps: list[tuple[int, int]]) -> None:
    for start, end in steps:
        prover.wrote(start, end, memoryview(CONTENT)[start:end])


def test_what_is_lent_in_order_is_not_read(fd: int) -> None:
    os.ftruncate(fd, len(CONTENT))  # zeros: the digest can only come of what was lent
    prover = Prover(fd, (WHOLE,), [])
    began = time.monotonic()
    for step in STEPS:
        while prover._lanes[0].lent and time.monotonic() < began + 10:
            time.sleep(0.001)
        lend(prover, [step])
    assert prover.finish() == {"whole": sha256(CONTENT)}
    prover.stop()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(CONTENT)), max_size=9), st.randoms(use_true_random=False))
def test_lent_or_not_in_any_order_and_for_any_proofs(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chance: random.Random
) -> None:
    steps = list(itertools.pairwise(sorted({0, len(CONTENT), *cuts})))
    if chance.random() < 0.5:
        chance.shuffle(steps)
    parts = list(itertools.pairwise(sorted({0, len(CONTENT), *cuts[:3]})))
    proofs = (WHOLE, *(Proof(f"{a}", ((a, b),), sha256(CONTENT[a:b])) for a, b in parts))
    with (tmp_path_factory.mktemp("lent") / "t").open("w+b") as file:
        prover = Prover(file.fileno(), proofs, [])
        try:
            for start, end in steps:
                os.pwrite(file.fileno(), CONTENT[start:end], start)
                lent = memoryview(CONTENT)[start:end] if chance.random() < 0.7 else None
                prover.wrote(start, end, lent)
            assert prover.finish() == {proof.name: proof.expected for proof in proofs}
        finally:
            prover.stop()


def test_no_more_is_lent_than_may_wait_in_memory(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prover_module, "MAX_LENT_BYTES", 2 * STEP)
    os.pwrite(fd, CONTENT, 0)
    is_let_on = threading.Event()

    class Slow:
        def __init__(self) -> None:
            self.sha256 = hashlib.sha256()

        def update(self, data: bytes | memoryview, /) -> None:
            is_let_on.wait(10)
            self.sha256.update(data)

        def hexdigest(self) -> str:
            return self.sha256.hexdigest()

    prover = Prover(fd, (WHOLE,), [], lambda _proof: Slow())
    writer = threading.Thread(target=lend, args=(prover, STEPS))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive() and len(prover._lanes[0].lent) <= 3 < len(STEPS), "it waits"
    is_let_on.set()
    writer.join(10)
    assert not writer.is_alive()
    assert prover.finish() == {"whole": sha256(CONTENT)}
    prover.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_proof_that_dies_leaves_no_writer_waiting(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prover_module, "MAX_LENT_BYTES", STEP)

    class Dying:
        def update(self, data: bytes | memoryview, /) -> None:
            raise MemoryError

        def hexdigest(self) -> str:
            raise AssertionError

    prover = Prover(fd, (WHOLE,), [], lambda _proof: Dying())
    lend(prover, STEPS)
    with pytest.raises(IntegrityError, match="could not be taken"):
        prover.finish()
    prover.stop()


def test_nothing_has_a_digest_too(fd: int) -> None:
    assert proven(fd, (Proof("empty", ((0, 0),), sha256(b"")),), []) == {"empty": sha256(b"")}
    assert proven(fd, (), STEPS) == {}


def test_a_wrong_digest_names_what_it_is_of(fd: int) -> None:
    wrong = Proof("shard 2", ((0, 100),), sha256(b"something else"))
    with pytest.raises(DigestMismatch) as caught:
        proven(fd, (WHOLE, wrong), STEPS)
    assert caught.value.name == "shard 2"
    assert caught.value.expected == sha256(b"something else")
    assert caught.value.digest == sha256(CONTENT[:100])
    assert caught.value.exit_code == 6


def test_a_wrong_digest_is_told_at_the_next_write_and_not_at_the_end(fd: int) -> None:
    prover = Prover(fd, (Proof("begin", ((0, 100),), sha256(b"")),), [])
    try:
        write(prover, fd, STEPS[:1])
        deadline = time.monotonic() + 10
        while not prover._errors:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with pytest.raises(DigestMismatch):
            write(prover, fd, STEPS[1:2])
    finally:
        prover.stop()


def test_stopping_ends_the_threads_at_once_whatever_is_missing(fd: int) -> None:
    before = set(threading.enumerate())
    prover = Prover(fd, (WHOLE, Proof("other", ((5, 10),), None)), [])
    write(prover, fd, STEPS[3:])
    assert len(set(threading.enumerate()) - before) == 2
    began = time.monotonic()
    prover.stop()
    assert time.monotonic() - began < 1
    assert set(threading.enumerate()) <= before
    assert prover.digests == {}


def test_a_proof_that_was_stopped_is_no_proof(fd: int) -> None:
    prover = Prover(fd, (WHOLE,), [])
    prover.stop()
    with pytest.raises(IntegrityError, match="could not be taken"):
        prover.finish()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_no_proof(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(prover_module, "read_at", die)
    with pytest.raises(IntegrityError, match="could not be taken"):
        proven(fd, (WHOLE,), STEPS)


def test_a_target_that_shrinks_is_an_error(fd: int) -> None:
    os.pwrite(fd, CONTENT[:100], 0)
    prover = Prover(fd, (WHOLE,), [(0, len(CONTENT))])
    with pytest.raises(IntegrityError, match="shrank"):
        prover.finish()
    prover.stop()


def test_a_file_beside_that_shrinks_is_an_error(fd: int, tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.write_bytes(b"abc")
    with pytest.raises(IntegrityError, match="beside shrank"):
        proven(fd, (Proof("odd", (FileRange(beside, 0, 4),), None),), STEPS)


def test_a_read_error_is_told(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(prover_module, "read_at", fail)
    with pytest.raises(OSError, match="Input/output"):
        proven(fd, (WHOLE,), STEPS)


def test_parts_that_follow_each_other_share_a_thread_beside_the_whole(fd: int) -> None:
    parts = tuple(Proof(f"part {a}", ((a, b),), sha256(CONTENT[a:b])) for a, b in STEPS)
    before = set(threading.enumerate())
    prover = Prover(fd, (WHOLE, *parts), [])
    try:
        assert len(set(threading.enumerate()) - before) == 2
        write(prover, fd, STEPS[::-1])
        assert prover.finish() == {p.name: p.expected for p in (WHOLE, *parts)}
    finally:
        prover.stop()
    assert set(threading.enumerate()) <= before
