"""A wrong digest: the bad blocks are found and fetched again, and nothing else is."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.gguf.layout import Layout, Literal, Span, whole_file
from ggufkit.hubs.hub import RemoteFile
from ggufkit.transfer import crew, engine, marks, mend, stretches
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.http import Http
from ggufkit.transfer.marks import Marks
from ggufkit.transfer.prover import DigestMismatch, FileRange, Proof
from ggufkit.transfer.several import Several
from ggufkit.transfer.sources import HubSource, LocalSource, Source
from tests.support.faults import Fault
from tests.support.hub import TestHub, run_hub
from tests.transfer.test_several import Notes, Place

MARK = 1 << 20
DATA = random.Random(12).randbytes(10 * MARK + 12_345)
BAD_AT = 4 * MARK + 77
"""A byte of the fifth of eleven blocks."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Heard(Notes):
    """A listener that may stop the work."""

    stop_after_bytes = 10**12

    def advance(self, n_bytes: int) -> None:
        self.stop_after_bytes -= n_bytes
        if self.stop_after_bytes < 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "MARK_BYTES", MARK)
    monkeypatch.setattr(mend, "MARK_BYTES", MARK)
    monkeypatch.setattr(crew, "READ_BYTES", 64 << 10)
    monkeypatch.setattr(stretches, "FIRST_BYTES", MARK)
    monkeypatch.setattr(stretches, "MAX_BYTES", MARK)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def hub(stack: ExitStack, folder: Path, *faults: Fault, data: bytes = DATA) -> TestHub:
    """Serve the data, which may be wrong, under the digest of the right ones."""
    file = folder / "o" / "n" / "f.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return stack.enter_context(run_hub(folder, faults=faults, sha256s={"o/n/f.gguf": sha256(DATA)}))


def source_of(stack: ExitStack, *hubs: TestHub) -> Several:
    http = stack.enter_context(Http())
    file = RemoteFile("f.gguf", len(DATA), sha256(DATA), "main")
    return Several(tuple(HubSource(Place(h.url), "o/n", file, http) for h in hubs), progress=Notes())


def job_of(folder: Path, source: Source) -> Job:
    proof = Proof("f.gguf", ((0, len(DATA)),), sha256(DATA))
    return Job(folder / "t.gguf", whole_file(len(DATA)), (source,), folder / "notes" / "j" / "t", (proof,))


def sent(hub: TestHub) -> int:
    return hub.sent_bytes("resolve")


@pytest.mark.parametrize("kind", ["one stream", "several"])
def test_a_byte_that_the_network_spoiled_is_found_and_only_its_block_is_kept_anew(
    stack: ExitStack, tmp_path: Path, kind: str
) -> None:
    one = hub(stack, tmp_path / "hub", Fault(path="resolve", flip_byte_at=BAD_AT))
    source = source_of(stack, one)
    heard = Heard()

    class Mending(Heard):
        def note(self, message: str) -> None:
            if "looking" in message:
                one.faults.clear()
            heard.note(message)

    job = job_of(tmp_path, source.sources[0] if kind == "one stream" else source)
    report = write(job, Mending())
    assert report.target.read_bytes() == DATA
    assert (report.n_mended_blocks, report.refetched_bytes) == (1, 5 * MARK), "up to the bad block"
    assert len(DATA) + 5 * MARK <= sent(one) <= len(DATA) + 6 * MARK
    assert [n.partition(": ")[2] for n in heard.notes] == [
        "the SHA-256 is wrong; looking for the bad blocks",
        "the disk has what came, as far as is known; fetching it again, to compare",
        "1 bad block fetched again: now it is right",
    ]
    assert not (tmp_path / "notes").exists()


def interrupted(tmp_path: Path, source: Source, after_bytes: int) -> Job:
    job, heard = job_of(tmp_path, source), Heard()
    heard.stop_after_bytes = after_bytes
    with pytest.raises(KeyboardInterrupt):
        write(job, heard)
    assert resumable_bytes(job) > after_bytes
    return job


@pytest.mark.parametrize("bad", [[BAD_AT], [3, BAD_AT, BAD_AT + 1, 7 * MARK]])
def test_bytes_that_the_disk_spoiled_cost_their_blocks_and_nothing_else(
    stack: ExitStack, tmp_path: Path, bad: list[int]
) -> None:
    one = hub(stack, tmp_path / "hub", Fault(path="resolve", bytes_per_s=30e6))
    source = source_of(stack, one).sources[0]
    job = interrupted(tmp_path, source, 9 * MARK)
    with job.part.open("r+b") as file:
        for at in bad:
            file.seek(at)
            file.write(bytes([DATA[at] ^ 1]))
    n_blocks = len({at // MARK for at in bad})
    report = write(job)
    assert report.target.read_bytes() == DATA and report.resumed_bytes > 9 * MARK
    assert (report.n_mended_blocks, report.refetched_bytes) == (n_blocks, n_blocks * MARK)


def test_a_source_that_lies_is_found_beside_an_honest_one(stack: ExitStack, tmp_path: Path) -> None:
    spoiled = bytearray(DATA)
    for at in range(0, len(DATA), 200_000):
        spoiled[at] ^= 0x20
    paced = [Fault(path="resolve", bytes_per_s=5e6) for _ in range(2)]
    liar = hub(stack, tmp_path / "liar", paced[0], data=bytes(spoiled))
    honest = hub(stack, tmp_path / "honest", paced[1])
    source = source_of(stack, liar, honest)
    report = write(job_of(tmp_path, source))
    assert report.target.read_bytes() == DATA
    lied = source.served[source.sources[0].label]
    assert report.n_mended_blocks >= lied // MARK > 0
    assert report.refetched_bytes <= 2 * len(DATA)
    assert source.tally.standing(source.sources[0].label).lies
    assert isinstance(source.progress, Notes)
    assert any("sent wrong bytes" in n for n in source.progress.notes)
    before = sent(liar)
    again = Several(source.sources, 4, Notes(), source.tally)
    write(replace(job_of(tmp_path / "again", again)))
    assert sent(liar) == before, "it is asked no more"


def test_what_the_hub_publishes_wrong_stays_an_error(stack: ExitStack, tmp_path: Path) -> None:
    one = hub(stack, tmp_path / "hub", data=DATA[:-1] + b"!")
    with pytest.raises(DigestMismatch, match=sha256(DATA)):
        write(job_of(tmp_path, source_of(stack, one)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hub"]
    assert 2 * len(DATA) <= sent(one) <= 2 * len(DATA) + MARK, "compared once, block by block"


def test_two_sources_that_agree_are_not_asked_a_third_time(stack: ExitStack, tmp_path: Path) -> None:
    wrong = DATA[:-1] + b"!"
    hubs = [hub(stack, tmp_path / n, data=wrong) for n in ("a", "b")]
    with pytest.raises(DigestMismatch):
        write(job_of(tmp_path, source_of(stack, *hubs)))
    assert sum(map(sent, hubs)) <= 2 * len(DATA) + 4 * MARK


def test_when_the_other_source_fails_the_first_is_asked_again(stack: ExitStack, tmp_path: Path) -> None:
    one = hub(stack, tmp_path / "a", Fault(path="resolve", flip_byte_at=BAD_AT, times=1))
    two = hub(stack, tmp_path / "b", Fault(path="resolve", status=404))
    source = replace(source_of(stack, one, two), connections=1)
    report = write(job_of(tmp_path, source))
    assert report.target.read_bytes() == DATA and report.n_mended_blocks <= 1


def test_a_merged_file_is_mended_in_the_shard_that_is_wrong(stack: ExitStack, tmp_path: Path) -> None:
    """Two shards without their headers, one after the other behind a header of their own."""
    header, cut = b"G" * 1000, 300_001
    own = tmp_path / "headers"
    own.write_bytes(DATA[:cut])
    one = hub(stack, tmp_path / "hub")
    hub_source = source_of(stack, one)
    there = tmp_path / "other"
    there.write_bytes(DATA[:500_000])
    n_bytes = len(DATA) - cut
    layout = Layout((Literal(header), Span(1, 0, 500_000), Span(0, cut, n_bytes)))
    data_range = (501_000, 501_000 + n_bytes)
    proofs = (
        Proof("here", ((1000, 501_000),), sha256(DATA[:500_000])),
        Proof("there", (FileRange(own, 0, cut), data_range), sha256(DATA)),
        Proof("merged", ((0, layout.n_bytes),), None),
    )
    sources: tuple[Source, ...] = (hub_source, LocalSource(there, 500_000))
    job = Job(tmp_path / "t.gguf", layout, sources, tmp_path / "notes" / "j" / "t", proofs)
    one.add(Fault(path="resolve", flip_byte_at=BAD_AT))

    class Mending(Heard):
        def note(self, message: str) -> None:
            one.faults.clear()

    report = write(job, Mending())
    wanted = header + DATA[:500_000] + DATA[cut:]
    assert report.target.read_bytes() == wanted
    assert report.digests["merged"] == sha256(wanted)
    assert report.n_mended_blocks == 1 and report.refetched_bytes == 5 * MARK - cut


def test_a_local_source_is_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(DATA[::-1])
    heard = Heard()
    with pytest.raises(DigestMismatch):
        write(job_of(tmp_path, LocalSource(tmp_path / "s", len(DATA))), heard)
    assert heard.notes == []


# ---- marks ----


def test_marks_of_another_content_or_torn_are_none(tmp_path: Path) -> None:
    path = tmp_path / "t.marks"
    first = Marks(path, "a")
    first.add("p", 10, "1" * 64)
    first.add("p", 10, "2" * 64)
    first.add("q\n[", 20, "3" * 64)
    assert Marks(path, "a").of("p") == {10: "1" * 32} == first.of("p")
    assert Marks(path, "a").of("q\n[") == {20: "3" * 32}
    assert Marks(path, "b").of("p") == {}
    with path.open("a") as file:
        file.write('[5, 6, "p"]\nnull\n[[[[\n[30, "44", "p"')
    assert Marks(path, "a").of("p") == {10: "1" * 32}
    path.write_bytes(b"\xff\x00\n" * 100)
    assert Marks(path, "a").of("p") == {}
    assert Marks(tmp_path / "none" / "t", "a").of("p") == {}


def test_forgotten_marks_stay_forgotten_and_another_content_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.marks"
    first = Marks(path, "a")
    first.add("p", 10, "1" * 64)
    first.forget("p")
    first.add("p", 20, "2" * 64)
    assert Marks(path, "a").of("p") == {20: "2" * 32}
    Marks(path, "b").add("p", 5, "3" * 64)
    assert Marks(path, "b").of("p") == {5: "3" * 32} and Marks(path, "a").of("p") == {}


def test_marks_that_cannot_be_written_are_no_error(tmp_path: Path) -> None:
    kept = Marks(tmp_path / "no such folder" / "t", "a")
    kept.add("p", 10, "1" * 64)
    assert kept.of("p") == {10: "1" * 32}


def test_the_journal_takes_the_marks_with_it(stack: ExitStack, tmp_path: Path) -> None:
    one = hub(stack, tmp_path / "hub", Fault(path="resolve", bytes_per_s=30e6))
    job = interrupted(tmp_path, source_of(stack, one), 7 * MARK)
    assert [p.suffix for p in sorted(job.journal.parent.iterdir())] == [".marks", ".written"]
    write(job)
    assert not job.journal.parent.exists()
    assert engine.PART_SUFFIX not in "".join(p.name for p in tmp_path.iterdir())
