"""Serve a folder as a hub as fast as the kernel can, for benchmarks: files by sendfile, the rest by ours.

    python scripts/fast_hub.py DIR [--tls PEM] [--limit-rate BYTES_PER_S]

A thread per connection; what is asked of a file's bytes is answered here, all else by `ggufkit.server`, in
the same process. Prints its address, and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import mmap
import os
import re
import socket
import ssl
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from bench_rounds import ROOT

sys.path.insert(0, str(ROOT))

from ggufkit.server.app import build_app, in_thread
from ggufkit.server.shelf import Shelf
from ggufkit.transfer.digest import DigestCache
from ggufkit.transfer.stream import Pace

STEP_BYTES = 1 << 20
PACED_BYTES = 64 << 10
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)")
_MODELSCOPE = re.compile(r"/api/v1/models/([^/]+/[^/]+)/repo")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Server:
    """What connections share."""

    def __init__(self, root: Path, port: int, pace: Pace | None) -> None:
        self.root = root
        self.port = port
        self.pace = pace

    def serve(self, connection: socket.socket) -> None:
        """Answer requests until the client hangs up."""
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting = b""
            while True:
                while b"\r\n\r\n" not in waiting:
                    data = connection.recv(65536)
                    if not data:
                        return
                    waiting += data
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                self.answer(connection, head.decode("latin-1"))

    def answer(self, connection: socket.socket, head: str) -> None:
        """Send a range of a file, or what our own server says."""
        method, target, _ = head.split("\r\n")[0].split(" ")
        path = self.file(target)
        if method != "GET" or path is None:
            self.relay(connection, method, target, head)
            return
        size = path.stat().st_size
        asked = _RANGE.search(head)
        start = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else size
        lines = [
            "HTTP/1.1 206 Partial Content" if asked else "HTTP/1.1 200 OK",
            f"Content-Length: {end - start}",
        ]
        lines += [f"Content-Range: bytes {start}-{end - 1}/{size}"] if asked else []
        lines += ["Accept-Ranges: bytes", "Content-Type: application/octet-stream"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        with path.open("rb") as file:
            self.send(connection, file.fileno(), start, end)

    def file(self, target: str) -> Path | None:
        """Return the file whose bytes are asked for, in either protocol."""
        parts = urlsplit(target)
        path: str | None = None
        if found := _RESOLVE.fullmatch(unquote(parts.path)):
            path = f"{found[1]}/{found[2]}"
        elif found := _MODELSCOPE.fullmatch(parts.path):
            path = f"{found[1]}/{parse_qs(parts.query).get('FilePath', [''])[0]}"
        return self.root / path if path and (self.root / path).is_file() else None

    def send(self, connection: socket.socket, fd: int, start: int, end: int) -> None:
        """Send bytes of an open file, in the kernel where TLS does not forbid it."""
        if isinstance(connection, ssl.SSLSocket):
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data, memoryview(data) as view:
                while start < end:
                    with view[start : min(start + PACED_BYTES, end)] as part:
                        connection.sendall(part)
                        start += len(part)
            return
        while start < end:
            n = os.sendfile(connection.fileno(), fd, start, min(self.step_bytes, end - start))
            start += n
            if self.pace:
                self.pace.spend(n)

    @property
    def step_bytes(self) -> int:
        return PACED_BYTES if self.pace else STEP_BYTES

    def relay(self, connection: socket.socket, method: str, target: str, head: str) -> None:
        """Ask our own server, and pass on what it says."""
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        backend = http.client.HTTPConnection("127.0.0.1", self.port)
        backend.request(method, target, headers=headers)
        answer = backend.getresponse()
        body = answer.read()
        length = answer.headers.get("Content-Length", "0") if method == "HEAD" else str(len(body))
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {length}"]
        kept = ("content-length", "connection", "transfer-encoding")
        lines += [f"{k}: {v}" for k, v in answer.headers.items() if k.lower() not in kept]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        backend.close()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tls", type=Path, help="a file with a key and a certificate")
    parser.add_argument("--limit-rate", type=int, help="bytes per second, over all connections")
    given = parser.parse_args()
    context = None
    if given.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.tls)
    pace = Pace(given.limit_rate) if given.limit_rate else None
    with (
        tempfile.TemporaryDirectory() as cache,
        socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
    ):
        shelf = Shelf(given.folder, DigestCache(Path(cache)))
        shelf.look()
        with in_thread(build_app(shelf)) as port:
            server = Server(given.folder, port, pace)
            threading.Thread(target=accept, args=(listener, context, server), daemon=True).start()
            scheme, host = ("https", "localhost") if context else ("http", "127.0.0.1")
            print(f"{scheme}://{host}:{listener.getsockname()[1]}", flush=True)
            sys.stdin.read()


def accept(listener: socket.socket, context: ssl.SSLContext | None, server: Server) -> None:
    """Give every connection a thread."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=begin, args=(connection, context, server), daemon=True).start()


def begin(connection: socket.socket, context: ssl.SSLContext | None, server: Server) -> None:
    """Speak TLS first, if that is wanted."""
    with contextlib.suppress(OSError, BufferError):  # a client that hangs up
        server.serve(context.wrap_socket(connection, server_side=True) if context else connection)


if __name__ == "__main__":
    main()
