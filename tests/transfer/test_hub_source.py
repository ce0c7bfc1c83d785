"""A hub's file as a source: the budget of failures, new addresses, and where it goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, FormatError, NetworkError, NotFoundError
from ggufkit.hubs.hub import Address, HubName, Listing, RemoteFile
from ggufkit.transfer.http import Http
from ggufkit.transfer.sources import MAX_FAILURES, HubSource
from tests.support.ggufs import make_gguf, r1_shaped
from tests.transfer.raw import Raw, answer, ranged, run_raw

DATA = random.Random(6).randbytes(100_000)


class Place:
    """A hub whose every address is the same server's."""

    name: HubName = "huggingface"

    def __init__(self, raw: Raw) -> None:
        self.endpoint = raw.url
        self.n_located = 0

    def list_files(self, repo_id: str, revision: str | None = None) -> Listing:
        raise AssertionError("not asked")

    def locate(self, repo_id: str, file: RemoteFile) -> Address:
        self.n_located += 1
        return Address(f"{self.endpoint}/{repo_id}/{file.path}?n={self.n_located}", {})


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


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleep not, but note how long it would have been."""
    seconds: list[float] = []
    monkeypatch.setattr("ggufkit.transfer.sources.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def source_of(stack: ExitStack, *answers: bytes | float, data: bytes = DATA) -> tuple[HubSource, Raw]:
    raw = stack.enter_context(run_raw(*answers))
    http = stack.enter_context(Http())
    file = RemoteFile("dir/f.gguf", len(data), "0" * 64, "main")
    return HubSource(Place(raw), "o/n", file, http, Notes()), raw


def notes(source: HubSource) -> list[str]:
    assert isinstance(source.progress, Notes)
    return source.progress.notes


def cut(data: bytes, start: int, n_bytes: int) -> bytes:
    """Return an answer from `start` on that ends after `n_bytes`."""
    where = f"bytes {start}-{len(data) - 1}/{len(data)}"
    length = len(data) - start
    body = data[start : start + n_bytes]
    return answer("206 P", body, Content_Range=where, Content_Length=length)


def test_a_dropped_line_goes_on_at_the_next_byte_however_often(stack: ExitStack, naps: list[float]) -> None:
    steps = range(0, len(DATA), 5000)  # 20 drops, more than a budget
    source, raw = source_of(stack, *[cut(DATA, at, 5000) for at in steps])
    assert source.read(0, len(DATA)) == DATA
    assert [a["range"] for a in raw.asked] == [f"bytes={at}-{len(DATA) - 1}" for at in steps]
    assert len(raw.asked) == 20 > MAX_FAILURES
    assert set(naps) == {0.5}, "a drop after new bytes is the first failure again"


def test_every_try_asks_the_hub_for_the_address(stack: ExitStack, naps: list[float]) -> None:
    source, raw = source_of(stack, answer("500 X"), answer("500 X"), ranged(DATA, 0))
    assert source.read(0, 10) == DATA[:10]
    assert [a[""] for a in raw.asked] == [f"GET /o/n/dir/f.gguf?n={n} HTTP/1.1" for n in (1, 2, 3)]


def test_failures_without_a_new_byte_wait_longer_and_end(stack: ExitStack, naps: list[float]) -> None:
    source, raw = source_of(stack, *[answer("503 X")] * 20)
    with pytest.raises(NetworkError, match=r"f\.gguf: .* answered 503, 8 times in a row") as caught:
        source.read(0, 10)
    assert len(raw.asked) == MAX_FAILURES
    assert naps == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert caught.value.exit_code == 5 and "goes on" in (caught.value.hint or "")
    assert notes(source)[0].endswith("answered 503; again in 0.5 s (1 of 8)")


def test_the_server_says_how_long_to_wait(stack: ExitStack, naps: list[float]) -> None:
    busy = answer("429 X", b"", **{"Retry-After": "7"})
    source, _ = source_of(stack, busy, busy, ranged(DATA, 0))
    source.read(0, 10)
    assert naps == [7.0, 7.0]


def test_an_expired_address_is_asked_for_anew_at_once(stack: ExitStack, naps: list[float]) -> None:
    cdn = stack.enter_context(run_raw(answer("403 X"), ranged(DATA, 0), host="localhost"))
    there = answer("302 X", Location=f"{cdn.url}/x?Signature=1")
    source, raw = source_of(stack, there, there)
    assert source.read(0, 10) == DATA[:10]
    assert naps == [] and notes(source) == [] and len(raw.asked) == 2


def test_a_cdn_that_always_refuses_ends_the_tries(stack: ExitStack, naps: list[float]) -> None:
    cdn = stack.enter_context(run_raw(*[answer("403 X")] * 20, host="localhost"))
    source, _ = source_of(stack, *[answer("302 X", Location=f"{cdn.url}/x?Signature=1")] * 20)
    with pytest.raises(NetworkError, match="refused its signed address"):
        source.read(0, 10)
    assert len(naps) == MAX_FAILURES - 2


@pytest.mark.parametrize(("status", "kind", "hint"), [
    (401, AccessError, "HF_TOKEN"), (403, AccessError, "o/n may be gated or private; HF_TOKEN"),
    (404, NotFoundError, "--source"), (416, NetworkError, None),
])  # fmt: skip
def test_what_does_not_pass_is_not_tried_again(
    stack: ExitStack, naps: list[float], status: int, kind: type[Exception], hint: str | None
) -> None:
    source, raw = source_of(stack, *[answer(f"{status} X")] * 3)
    with pytest.raises(kind, match=f"{status}|shorter") as caught:
        source.read(0, 10)
    assert len(raw.asked) == 1 and naps == []
    if hint is not None:
        assert "dir/f.gguf: " in str(caught.value) and hint in caught.value.hint  # type: ignore[attr-defined]


def test_a_server_that_ignores_ranges_is_gone_on_with(stack: ExitStack, naps: list[float]) -> None:
    short = answer("200 OK", DATA[:60_000], Content_Length=len(DATA))
    source, _ = source_of(stack, short, short, answer("200 OK", DATA))
    assert source.read(0, len(DATA)) == DATA
    assert len(naps) == 2


def test_bytes_go_to_their_place_in_the_target_and_are_told(stack: ExitStack, tmp_path: Path) -> None:
    source, _ = source_of(stack, cut(DATA, 1000, 500), ranged(DATA, 1500, 3000))
    told: list[tuple[int, int]] = []
    began = time.monotonic()
    with (tmp_path / "t").open("w+b") as file:
        source.copy_to(file.fileno(), 7, 1000, 2000, lambda a, b, _data=None: told.append((a, b)))
    assert (tmp_path / "t").read_bytes() == bytes(7) + DATA[1000:3000]
    assert told == [(7, 507), (507, 2007)]
    assert 0.5 <= time.monotonic() - began < 5, "this once the nap was real"


def test_the_version_is_the_digest_and_without_one_the_revision() -> None:
    with Http() as http:
        raw = Raw("http://hub")
        known = HubSource(Place(raw), "o/n", RemoteFile("f", 1, "a" * 64, "main"), http)
        other = HubSource(Place(Raw("http://mirror")), "x/y", RemoteFile("f", 1, "a" * 64, "b"), http)
        assert known.version == other.version, "another hub may go on with it"
        bare = [HubSource(Place(raw), "o/n", RemoteFile("f", 1, None, r), http).version for r in "ab"]
        assert len({*bare, known.version}) == 3


# ---- headers by range ----


def test_a_small_header_takes_one_request_of_64_kib(stack: ExitStack, tmp_path: Path) -> None:
    data = make_gguf(tmp_path / "m.gguf").read_bytes()
    source, raw = source_of(stack, ranged(data, 0, 64 << 10), data=data)
    assert len(source.header().tensors) == 21
    assert [a["range"] for a in raw.asked] == ["bytes=0-65535"]


def test_r1s_header_takes_few_requests_and_5_mb(stack: ExitStack, tmp_path: Path) -> None:
    from tests.support.hub import run_hub

    path = r1_shaped(tmp_path / "o" / "n" / "m.gguf")
    hub = stack.enter_context(run_hub(tmp_path, sha256s={"o/n/m.gguf": "0" * 64}))
    raw = Raw(f"{hub.url}/o/n/resolve/main/m.gguf?")
    http = stack.enter_context(Http())
    file = RemoteFile("", path.stat().st_size, "0" * 64, "main")

    class Direct(Place):
        def locate(self, repo_id: str, file: RemoteFile) -> Address:
            return Address(self.endpoint, {})

    header = HubSource(Direct(raw), "o/n", file, http).header()
    assert len(header.tensors) == 1025
    gets = hub.asked("resolve", method="GET")
    assert len(gets) <= 4
    assert header.header_end <= hub.sent_bytes("resolve") <= 1.25 * header.header_end + (64 << 10)


def test_a_header_of_something_else_is_told_after_one_request(stack: ExitStack) -> None:
    source, raw = source_of(stack, ranged(DATA, 0, 64 << 10))
    with pytest.raises(FormatError, match=r"dir/f\.gguf"):
        source.header()
    assert len(raw.asked) == 1
