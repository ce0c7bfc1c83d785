"""A shared limit of speed, bodies of every kind, and connections that are cut."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from ggufkit.transfer import sockets
from ggufkit.transfer.http import Http
from ggufkit.transfer.stream import READ_BYTES, Pace, StreamError
from tests.support.hub import run_hub
from tests.transfer.raw import answer, ranged, run_raw

DATA = random.Random(3).randbytes(400_000)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no time pass, but note what would have been slept."""
    slept: list[float] = []
    now = [1000.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("ggufkit.transfer.stream.time.sleep", sleep)
    monkeypatch.setattr("ggufkit.transfer.stream.time.monotonic", lambda: now[0])
    return slept


def test_bytes_are_paid_for_with_waiting(naps: list[float]) -> None:
    pace = Pace(1_000_000)
    for n_bytes in (500_000, 250_000, 250_000):
        pace.spend(n_bytes)
    assert naps == pytest.approx([0.5, 0.25, 0.25])


def test_what_was_not_used_is_not_saved_up(naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(1_000_000)
    pace.spend(1)
    monkeypatch.setattr("ggufkit.transfer.stream.time.monotonic", lambda: 9999.0)
    pace.spend(100_000)
    assert naps[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(("limit", "step"), [(1, 1), (10_000, 500), (10**9, READ_BYTES)])
def test_no_single_wait_is_long(limit: int, step: int) -> None:
    assert Pace(limit).step_bytes == step


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="never ends"):
        Http(limit_bytes_per_s=limit)


def test_all_streams_together_keep_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "o" / "n" / "f.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    digest = hashlib.sha256(DATA).hexdigest()
    got: list[bytes] = []
    with run_hub(tmp_path, sha256s={"o/n/f.gguf": digest}) as hub, Http(limit_bytes_per_s=1_600_000) as http:
        url = f"{hub.url}/o/n/resolve/main/f.gguf"

        def fetch() -> None:
            stream, parts = http.open(url, {}, 0, len(DATA), len(DATA)), b""
            while stream.offset < len(DATA):
                parts += stream.read(READ_BYTES)
            stream.close()
            got.append(parts)

        threads = [threading.Thread(target=fetch) for _ in range(2)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert got == [DATA, DATA]
    assert time.monotonic() - began >= 2 * len(DATA) / 1_600_000 * 0.99


@pytest.mark.parametrize("n_bytes", [1, 100, 8192, 8193, 50_000, 10**6])
@pytest.mark.parametrize("kind", ["plain", "chunked"])
def test_a_body_is_the_same_in_pieces_of_any_size(n_bytes: int, kind: str) -> None:
    data = DATA[:60_000] if n_bytes > 1 else DATA[:9000]
    text = ranged(data, 0)
    if kind == "chunked":
        pieces = [data[at : at + 7000] for at in range(0, len(data), 7000)] + [b""]
        body = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)
        where = f"bytes 0-{len(data) - 1}/{len(data)}"
        text = answer("206 P", body, Content_Range=where, Transfer_Encoding="chunked")
    with run_raw(text) as raw, Http() as http:
        stream = http.open(raw.url, {}, 0, len(data), len(data))
        parts = []
        while part := stream.read(n_bytes):
            assert len(part) <= n_bytes
            parts.append(part)
        stream.close()
    assert b"".join(parts) == data and stream.offset == len(data)


def test_a_thread_that_waits_for_an_answer_can_be_cut_off() -> None:
    errors: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent, Http() as http:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"

        def wait() -> None:
            try:
                http.open(url, {}, 0, 10, 10)
            except StreamError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        until = time.monotonic() + 20
        while thread.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
            assert thread.ident is not None
            sockets.cut(thread.ident)
        thread.join(1)
        assert not thread.is_alive()
        assert thread.ident is not None
        sockets.cut(thread.ident)  # nothing is there any more, and nothing happens
    assert len(errors) == 1


def test_who_let_go_is_not_cut() -> None:
    with run_raw(ranged(DATA, 0)) as raw, Http() as http:
        stream = http.open(raw.url, {}, 0, len(DATA), len(DATA))
        while stream.read(READ_BYTES):
            pass
        assert threading.get_ident() not in sockets._used_by
        stream.close()
