"""At full size, on sparse files: a terabyte listed, read by range, noted and marked in little memory."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ggufkit.gguf.layout import whole_file
from ggufkit.hubs.hub import RemoteFile, open_hub
from ggufkit.transfer import journal as journal_module
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.http import Http
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.marks import MARK_BYTES, Marks
from ggufkit.transfer.several import Several
from ggufkit.transfer.sources import HubSource, Wrote
from ggufkit.transfer.stretches import Stretches
from tests.support.hub import run_hub

TERABYTE = 10**12
MIB = 1 << 20


def resident_bytes() -> int:
    """Return how much memory this process has now (Linux)."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("no /proc: the memory in use can't be told")
    return int(status.read_text().split()[1]) * 4096


@dataclass
class Hollow:
    """A source of a terabyte of nothing, that comes in the order of many streams."""

    size_bytes: int = TERABYTE
    sha256: str | None = None
    name: str = "hollow"
    version: str = "1"
    stop_at: int = TERABYTE

    def copy_to(self, fd: int, at: int, offset: int, n_bytes: int, wrote: Wrote) -> None:
        work, chance, came = Stretches(offset, offset + n_bytes), random.Random(1), 0
        streams = [work.take(1e8, 0.2, 0.0) for _ in range(8)]
        while not work.is_done:
            i = chance.randrange(8)
            stretch = streams[i] = streams[i] or work.take(1e8, 0.2, 0.0)
            if stretch is None:
                continue
            start = stretch.at
            end = start + work.claim(stretch, 16 * MIB, 0.0)
            if stretch.at >= stretch.end:
                work.close(stretch)
                streams[i] = None
            if start < end:
                wrote(start - offset + at, end - offset + at)
            came += end - start
            if came > self.stop_at:
                raise KeyboardInterrupt


def test_a_terabyte_is_noted_in_few_bytes_and_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SAVE_EVERY_BYTES", 1 << 30)  # the same notes, 128 times less often
    monkeypatch.setattr(journal_module, "SYNC_EVERY_BYTES", 64 << 30)
    source = Hollow(stop_at=TERABYTE * 2 // 3)
    job = Job(tmp_path / "t", whole_file(TERABYTE), (source,), tmp_path / "notes" / "j" / "t")
    with (tmp_path / "t.part").open("wb") as file:
        file.truncate(TERABYTE)
    before = resident_bytes()
    with pytest.raises(KeyboardInterrupt):
        write(job)
    sizes = {p.suffix: p.stat().st_size for p in job.journal.parent.iterdir()}
    assert sizes.keys() == {".written", ".durable"} and max(sizes.values()) < 4096
    there = resumable_bytes(job)
    assert TERABYTE * 2 // 3 < there < TERABYTE * 2 // 3 + 17 * MIB
    source.stop_at = 2 * TERABYTE
    assert write(job).resumed_bytes == there
    assert resident_bytes() - before < 50 * MIB


def test_the_worst_journal_is_bounded_by_the_window(tmp_path: Path) -> None:
    """Whatever order stretches of one window come in, the notes have no more ranges than these."""
    journal = Journal(tmp_path / "j" / "t", "x")
    work, chance = Stretches(0, 4 << 30), random.Random(2)
    pieces = []
    while (stretch := work.take(0.25e6, 0.2, 0.0)) is not None:  # as many as can be under way at all
        pieces.append((stretch.start, stretch.end))
    chance.shuffle(pieces)
    with (tmp_path / "t").open("wb") as file:
        for start, end in pieces:
            journal.add(start, end, file.fileno())
            assert len(journal.ranges) <= 129
    assert max(len(p.read_bytes()) for p in (tmp_path / "j").iterdir()) < 8192


def test_the_marks_of_a_terabyte(tmp_path: Path) -> None:
    before, path = resident_bytes(), tmp_path / "t.marks"
    marks = Marks(path, "x")
    n_marks = TERABYTE // MARK_BYTES
    lines = [json.dumps([n * MARK_BYTES, "0" * 32, "m/m-00001-of-00004.gguf"]) for n in range(1, n_marks)]
    marks.add("m/m-00001-of-00004.gguf", TERABYTE, "0" * 64)
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")
    assert path.stat().st_size < 7_000_000
    began = time.monotonic()
    assert len(Marks(path, "x").of("m/m-00001-of-00004.gguf")) == n_marks
    assert time.monotonic() - began < 30
    assert resident_bytes() - before < 60 * MIB


def test_a_sparse_terabyte_is_listed_and_read_by_range(tmp_path: Path) -> None:
    """Offsets beyond 32 bits everywhere: in listings, requests, answers and writes."""
    n_bytes, at = TERABYTE + 12_345, TERABYTE - 100_000
    file = tmp_path / "hub" / "o" / "n" / "m.gguf"
    file.parent.mkdir(parents=True)
    data = random.Random(5).randbytes(100_000 + 12_345)
    with file.open("wb") as sparse:
        sparse.seek(at)
        sparse.write(data)
    before = resident_bytes()
    with run_hub(tmp_path / "hub", sha256s={"o/n/m.gguf": "a" * 64}) as hub, Http() as http:
        place = open_hub("huggingface", endpoint=hub.url)
        (listed,) = place.list_files("o/n").files
        assert listed == RemoteFile("m.gguf", n_bytes, "a" * 64, listed.revision)
        source = Several((HubSource(place, "o/n", listed, http),))
        assert source.read(at + 7, 1000) == data[7:1007]
        with (tmp_path / "t").open("w+b") as target:
            source.copy_to(target.fileno(), at, at, n_bytes - at, lambda _start, _end, _data=None: None)
            target.seek(at)
            assert target.read() == data
    assert resident_bytes() - before < 150 * MIB
