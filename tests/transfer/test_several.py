"""Several streams and several sources: who serves what, who is left, and how it all ends."""

from __future__ import annotations

import _thread
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, GgufkitError, IntegrityError, NetworkError, NotFoundError
from ggufkit.hubs.hub import Address, HubName, Listing, RemoteFile
from ggufkit.transfer import crew, stretches
from ggufkit.transfer.http import Http
from ggufkit.transfer.several import Several
from ggufkit.transfer.sources import HubSource
from ggufkit.transfer.tally import Tally
from tests.support.faults import Fault
from tests.support.ggufs import make_gguf
from tests.support.hub import TestHub, run_hub

DATA = random.Random(8).randbytes(6_000_003)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Place:
    """A hub whose address is a hub of the suite."""

    name: HubName = "huggingface"

    def __init__(self, url: str) -> None:
        self.endpoint = url

    def list_files(self, repo_id: str, revision: str | None = None) -> Listing:
        raise AssertionError("not asked")

    def locate(self, repo_id: str, file: RemoteFile) -> Address:
        return Address(f"{self.endpoint}/{repo_id}/resolve/main/{file.path}", {})


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        raise AssertionError

    def advance(self, n_bytes: int) -> None:
        raise AssertionError

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        raise AssertionError


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale everything down to files of a few megabytes."""
    monkeypatch.setattr(crew, "READ_BYTES", 16 << 10)
    monkeypatch.setattr(stretches, "FIRST_BYTES", 200_000)
    monkeypatch.setattr(stretches, "MIN_BYTES", 100_000)
    monkeypatch.setattr(stretches, "MAX_BYTES", 400_000)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        before = threading.active_count()
        yield stack
        hubs = threading.active_count()  # those of the hubs end with the stack
        assert not [t for t in threading.enumerate() if "_work" in t.name], (before, hubs)


def hub(stack: ExitStack, tmp_path: Path, *faults: Fault, data: bytes = DATA) -> TestHub:
    folder = tmp_path / f"hub{len(list(tmp_path.iterdir()))}"
    file = folder / "o" / "n" / "f.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return stack.enter_context(run_hub(folder, faults=faults, sha256s={"o/n/f.gguf": SHA256}))


def several(
    stack: ExitStack, *hubs: TestHub | str, connections: int = 4, size_bytes: int = len(DATA)
) -> Several:
    http = stack.enter_context(Http())
    file = RemoteFile("f.gguf", size_bytes, SHA256, "main")
    urls = [h if isinstance(h, str) else h.url for h in hubs]
    sources = tuple(HubSource(Place(url), "o/n", file, http) for url in urls)
    return Several(sources, connections, Notes())


def fetch(
    source: Several,
    path: Path,
    offset: int = 0,
    end: int = len(DATA),
    wrote: Callable[[], None] = lambda: None,
) -> bytes:
    """Fetch a range and hold that each byte was told once, in this thread."""
    told: list[tuple[int, int]] = []

    def note(start: int, stop: int, _data: memoryview | None = None) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append((start, stop))
        wrote()

    with (path / "t").open("w+b") as file:
        source.copy_to(file.fileno(), 10, offset, end - offset, note)
    told.sort()
    assert [a for a, _ in told] == [10, *(b for _, b in told)][:-1]
    assert told[-1][1] == 10 + end - offset
    return (path / "t").read_bytes()[10:]


def notes(source: Several) -> list[str]:
    assert isinstance(source.progress, Notes)
    return source.progress.notes


@pytest.mark.parametrize("connections", [1, 2, 4, 9])
def test_a_file_comes_whole_over_any_number_of_connections(
    stack: ExitStack, tmp_path: Path, connections: int
) -> None:
    one = hub(stack, tmp_path, Fault(path="resolve", bytes_per_s=8e6))
    source = several(stack, one, connections=connections)
    assert fetch(source, tmp_path) == DATA
    assert list(source.served.values()) == [len(DATA)]
    asked = one.asked("resolve", method="GET")
    at_once = max(sum(a.started_s <= b.started_s < (a.ended_s or 0) for a in asked) for b in asked)
    assert at_once == connections
    assert one.sent_bytes("resolve") == len(DATA) or connections > 4, "nothing is asked for twice"


def test_a_line_that_one_stream_fills_gets_no_other(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "TRY_S", 30)
    for enough, at_once in ((1e6, 1), (1e12, 4)):
        monkeypatch.setattr(crew, "ENOUGH_BYTES_PER_S", enough)
        one = hub(stack, tmp_path, Fault(path="resolve", bytes_per_s=4e6))
        assert fetch(several(stack, one), tmp_path) == DATA
        asked = one.asked("resolve", method="GET")
        found = max(sum(a.started_s <= b.started_s < (a.ended_s or 0) for a in asked) for b in asked)
        assert found == at_once, "the first stretch tells, whatever is allowed"


def test_a_part_of_a_file(stack: ExitStack, tmp_path: Path) -> None:
    source = several(stack, hub(stack, tmp_path))
    assert fetch(source, tmp_path, 1_234_567, 4_000_001) == DATA[1_234_567:4_000_001]


def test_two_sources_serve_at_the_same_time(stack: ExitStack, tmp_path: Path) -> None:
    paced = [Fault(path="resolve", bytes_per_s=3e6) for _ in range(2)]
    hubs = [hub(stack, tmp_path, fault) for fault in paced]
    source = several(stack, *hubs)
    assert fetch(source, tmp_path) == DATA
    served = sorted(source.served.values())
    assert len(served) == 2 and served[0] > len(DATA) / 4 and sum(served) == len(DATA)
    assert notes(source) == []


def test_the_faster_source_gets_more(stack: ExitStack, tmp_path: Path) -> None:
    slow, fast = Fault(path="resolve", bytes_per_s=0.3e6), Fault(path="resolve", bytes_per_s=2e6)
    hubs = [hub(stack, tmp_path, fault) for fault in (slow, fast)]
    source = several(stack, *hubs)
    assert fetch(source, tmp_path) == DATA
    of_slow, of_fast = source.served.values()
    assert of_fast > 2 * of_slow


BAD = {
    "busy": Fault(path="resolve", status=503),
    "gone": Fault(path="resolve", status=404),
    "gated": Fault(path="resolve", status=403),
    "a page": Fault(path="resolve", headers={"Content-Type": "text/html"}, body=b"<html>"),
    "dropping": Fault(path="resolve", cut_after_bytes=0),
    "stalling": Fault(path="resolve", stall_s=30, stall_after_bytes=50_000),
    "silent": Fault(path="resolve", delay_s=30),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_source_that_fails_is_left_and_the_other_goes_on(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_first: bool
) -> None:
    monkeypatch.setattr(crew, "SLOW_S", 0.5)
    monkeypatch.setattr(crew, "LOOK_S", 0.2)
    fault = replace(BAD[kind])
    bad, good = hub(stack, tmp_path, fault), hub(stack, tmp_path, Fault(path="resolve", bytes_per_s=2e6))
    source = several(stack, *((bad, good) if is_first else (good, bad)))
    assert fetch(source, tmp_path) == DATA
    assert source.served[source.sources[is_first].label] > len(DATA) * 0.8
    if fault.status is not None or fault.stall_s or fault.delay_s:
        label = source.sources[not is_first].label
        told = [n for n in notes(source) if label in n and "going on without it" in n]
        assert len(told) == 1 or (kind == "busy" and not told), notes(source)


def test_nobody_listens_at_one_of_two_addresses(stack: ExitStack, tmp_path: Path) -> None:
    source = several(stack, "http://127.0.0.1:9", hub(stack, tmp_path))
    assert fetch(source, tmp_path) == DATA


@pytest.mark.parametrize(("fault", "kind", "words"), [
    (Fault(path="resolve", status=404), NotFoundError, "no such file"),
    (Fault(path="resolve", status=403), AccessError, "HF_TOKEN"),
    (Fault(path="resolve", status=503), NetworkError, "3 times in a row"),
    (Fault(path="resolve", status=416), NetworkError, "shorter file"),
], ids=lambda p: str(p.status) if isinstance(p, Fault) else "")  # fmt: skip
def test_when_all_fail_the_error_says_why(
    stack: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    kind: type[GgufkitError],
    words: str,
) -> None:
    monkeypatch.setattr(crew, "MAX_FAILURES", 3)
    source = several(stack, hub(stack, tmp_path, fault), hub(stack, tmp_path, fault))
    with pytest.raises(kind, match=r"f\.gguf") as caught:
        fetch(source, tmp_path)
    assert type(caught.value) is kind and words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint


def test_what_would_help_is_said_for_one_source_and_for_several(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_none(*_: object) -> None:
        raise NetworkError("a certificate that nobody trusts", hint="SSL_CERT_FILE")

    monkeypatch.setattr(Http, "open", open_none)
    for urls in (["http://127.0.0.1:9"], ["http://127.0.0.1:9", "http://127.0.0.1:10"]):
        with pytest.raises(NetworkError, match=r"^f\.gguf: .*nobody trusts") as caught:
            fetch(several(stack, *urls), tmp_path)
        assert caught.value.hint == "SSL_CERT_FILE"
        assert ("Hugging Face" in caught.value.message) == (len(urls) > 1)


def test_one_source_has_the_whole_budget_and_one_outage_is_one_failure(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.transfer.tally.MAX_WAIT_S", 0.05)
    fault = Fault(path="resolve", status=503)
    one = hub(stack, tmp_path, fault)
    source = several(stack, one)
    with pytest.raises(NetworkError, match="8 times in a row"):
        fetch(source, tmp_path)
    assert 8 <= len(one.asked("resolve")) <= 32
    assert len(notes(source)) == 7 and notes(source)[-1].endswith("(7 of 8)")


def test_drops_that_bring_bytes_never_end_it(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.transfer.tally.MAX_WAIT_S", 0.01)
    one = hub(stack, tmp_path, Fault(path="resolve", cut_after_bytes=70_000))
    source = several(stack, one)
    assert fetch(source, tmp_path) == DATA
    assert len(one.asked("resolve")) >= len(DATA) // 70_000


def test_a_source_that_failed_is_asked_again_when_the_other_one_fails_later(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.transfer.tally.MAX_WAIT_S", 0.02)
    first = hub(stack, tmp_path, Fault(path="resolve", status=503, times=6))
    second = hub(stack, tmp_path, Fault(path="resolve", bytes_per_s=2e6))
    source = several(stack, first, second, connections=2)
    done = 0

    def wrote() -> None:
        nonlocal done
        done += 1
        if done == 60:
            second.add(Fault(path="resolve", status=503))
            second.faults.reverse()

    assert fetch(source, tmp_path, wrote=wrote) == DATA
    assert len(source.served) == 2


@pytest.mark.parametrize("n_hubs", [1, 2])
def test_a_source_that_ignores_ranges_is_read_once(stack: ExitStack, tmp_path: Path, n_hubs: int) -> None:
    odd = hub(stack, tmp_path, Fault(path="resolve", ignore_range=True, bytes_per_s=8e6))
    hubs = [odd, hub(stack, tmp_path)][:n_hubs]
    assert fetch(several(stack, *hubs), tmp_path) == DATA
    assert odd.sent_bytes("resolve") < 1.5 * len(DATA)
    assert len(odd.asked("resolve")) <= 12


# ---- stopping ----


@pytest.mark.parametrize("kind", ["stalling", "silent", "busy"])
def test_an_interruption_ends_all_streams_within_a_second(
    stack: ExitStack, tmp_path: Path, kind: str
) -> None:
    source = several(stack, hub(stack, tmp_path, replace(BAD[kind])))
    interrupted_s = 0.0

    def interrupt() -> None:
        nonlocal interrupted_s
        interrupted_s = time.monotonic()
        _thread.interrupt_main()

    timer = threading.Timer(0.4, interrupt)
    work = crew.Crew(source._members, 4, Notes())
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        work.fetch(0, len(DATA), lambda data, at: None, lambda a, b, data=None: None)
    assert time.monotonic() - interrupted_s < crew.STOP_S + 1
    assert not [t for t in work._threads if t.is_alive()]


def test_what_the_listener_raises_ends_it(stack: ExitStack, tmp_path: Path) -> None:
    source = several(stack, hub(stack, tmp_path))

    def wrong() -> None:
        raise IntegrityError("found on the way")

    with pytest.raises(IntegrityError, match="on the way"):
        fetch(source, tmp_path, wrote=wrong)


def test_a_disk_that_fails_ends_it_and_what_was_written_is_told(stack: ExitStack, tmp_path: Path) -> None:
    source = several(stack, hub(stack, tmp_path))
    written: list[tuple[int, int]] = []
    told: list[tuple[int, int]] = []
    lock = threading.Lock()

    def put(data: memoryview, at: int) -> None:
        with lock:
            if len(written) == 50:
                raise OSError(28, "No space left on device")
            written.append((at, at + len(data)))

    work = crew.Crew(source._members, 4, Notes())
    with pytest.raises(OSError, match="No space"):
        work.fetch(0, len(DATA), put, lambda a, b, _data=None: told.append((a, b)))
    assert sorted(told) == sorted(written) and len(told) == 50


# ---- what it says of itself ----


def test_sources_of_different_files_are_refused(stack: ExitStack) -> None:
    with Http() as http:
        files = [
            RemoteFile("f", 1, "a" * 64, "x"),
            RemoteFile("f", 1, "b" * 64, "x"),
            RemoteFile("f", 1, None, "x"),
        ]
        sources = [HubSource(Place("http://hub"), "o/n", file, http) for file in files]
        with pytest.raises(IntegrityError, match="different files"):
            Several((sources[0], sources[1]))
        with pytest.raises(IntegrityError, match="without a digest"):
            Several((sources[2], sources[2]))
        assert Several((sources[2],)).version == sources[2].version
        assert Several((sources[0],)).version == "a" * 64


def test_one_tally_learns_from_file_to_file(stack: ExitStack, tmp_path: Path) -> None:
    tally = Tally()
    bad, good = hub(stack, tmp_path, Fault(path="resolve", status=503)), hub(stack, tmp_path)
    for _ in range(2):
        base = several(stack, bad, good)
        source = Several(base.sources, 4, base.progress, tally)
        tally.standing(source.sources[0].label).failures = 2
        assert fetch(source, tmp_path) == DATA
        asked = len(bad.asked("resolve"))
    assert tally.served == {source.sources[1].label: 2 * len(DATA)}
    assert len(bad.asked("resolve")) == asked <= 8


def test_a_header_and_a_range_come_from_the_first_that_gives_them(stack: ExitStack, tmp_path: Path) -> None:
    data = make_gguf(tmp_path / "m.gguf").read_bytes()
    bad = hub(stack, tmp_path, Fault(path="resolve", status=404), data=data)
    good = hub(stack, tmp_path, data=data)
    source = several(stack, bad, good, size_bytes=len(data))
    assert len(source.header().tensors) == 21
    assert source.read(5, 100) == data[5:105]
    assert len(notes(source)) == 2 and "asking the next one" in notes(source)[0]
    with pytest.raises(NotFoundError):
        several(stack, bad, bad.url.replace("127.0.0.1", "localhost"), size_bytes=len(data)).read(0, 5)
