"""A server that answers byte for byte what a test wants, one connection for each answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Raw:
    """What the server answers, and what it was asked."""

    url: str
    """Where it listens, without a slash at the end."""
    answers: list[bytes | float] = field(default_factory=list)
    """One answer per connection; a number is a pause of so many seconds, within the answer before it."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The request line (under `""`) and the headers of each request, names in lower case."""
    sent_bytes: int = 0
    """Bytes that went out."""


def answer(status: str = "200 OK", body: bytes = b"", /, **headers: object) -> bytes:
    """Return an answer; `_` in a header's name stands for `-`, and Content-Length is honest unless given."""
    given = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    if not {"content-length", "transfer-encoding"} & {name.lower() for name in given}:
        given["Content-Length"] = str(len(body))
    given.setdefault("Connection", "close")
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ranged(data: bytes, start: int, end: int | None = None) -> bytes:
    """Return an honest 206 with bytes from `start` on."""
    stop = len(data) if end is None else end
    where = f"bytes {start}-{stop - 1}/{len(data)}"
    return answer("206 Partial Content", data[start:stop], Content_Range=where)


@contextlib.contextmanager
def run_raw(
    *answers: bytes | float, host: str = "127.0.0.1", certificate: Path | None = None
) -> Iterator[Raw]:
    """Serve the answers in their order; after the last one connections are closed without any.

    With a `certificate` (and its key, in one file) it speaks TLS.
    """
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scheme = "http" if context is None else "https"
        raw = Raw(f"{scheme}://{host}:{listener.getsockname()[1]}", list(answers))
        thread = threading.Thread(target=_serve, args=(listener, raw, context))
        thread.start()
        try:
            yield raw
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def _serve(listener: socket.socket, raw: Raw, context: ssl.SSLContext | None) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            if context is None:
                _answer(connection, raw)
                continue
            with context.wrap_socket(connection, server_side=True) as secure:
                _answer(secure, raw)


def _answer(connection: socket.socket, raw: Raw) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        data = connection.recv(65536)
        if not data or not data[:1].isalpha():  # gone, or no HTTP
            return
        request += data
    first, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    raw.asked.append({"": first, **{name.lower(): value for name, _, value in pairs}})
    while raw.answers:
        step = raw.answers.pop(0)
        if isinstance(step, float):
            time.sleep(step)
            continue
        for at in range(0, len(step), 65536):
            connection.sendall(step[at : at + 65536])
            raw.sent_bytes += len(step[at : at + 65536])
        if not raw.answers or not isinstance(raw.answers[0], float):
            return
