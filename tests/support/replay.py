"""A server that plays recorded streams, and the faults that real ones have."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    lines: tuple[tuple[float, bytes], ...]
    """Seconds after the request, and a line without its end."""
    status: int = 200
    content_type: str = "text/event-stream"
    drop: bool = False
    """Cut the connection in the middle of the body."""
    hang_s: float = 0.0
    """Say nothing for so long before the body ends."""


Route = Reply | Sequence[Reply] | Callable[[Any], Reply]


@dataclass(slots=True)
class Asked:
    """A request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Replay:
    """A running server."""

    url: str
    routes: dict[str, Route]
    asked: list[Asked] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        """Return what was posted to `path`."""
        return [asked.body for asked in self.asked if asked.target == path and asked.method == "POST"]


def recording(name: str, *, speed: float = 1.0) -> Reply:
    """Return a recorded stream, its times divided by `speed`."""
    lines = []
    for line in (RECORDINGS / f"{name}.jsonl").read_text("utf-8").splitlines():
        at, _, text = line.partition("\t")
        lines.append((float(at) / speed, text.encode()))
    status = 400 if name == "ll2_err" else 404 if name == "ol2_err" else 200
    kind = "text/event-stream" if lines[0][1].startswith(b"data:") else "application/x-ndjson"
    return Reply(tuple(lines), status, kind)


def json_reply(document: Any, status: int = 200) -> Reply:
    """Return an answer that is one JSON document."""
    return Reply(((0.0, json.dumps(document).encode()),), status, "application/json")


def sse(*chunks: Any, gap_s: float = 0.01, done: bool = True, **named: Any) -> Reply:
    """Return a stream of chunks, one each `gap_s` seconds."""
    lines = [b"data: " + json.dumps(chunk).encode() for chunk in chunks] + [b"data: [DONE]"] * done
    return Reply(tuple((gap_s * (i + 1), line) for i, line in enumerate(lines)), **named)


def delta(**fields: Any) -> dict[str, Any]:
    """Return a chunk of an OpenAI-like stream."""
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason: str = "stop") -> dict[str, Any]:
    """Return the chunk that ends the text of an OpenAI-like stream."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(n_prompt: int, n_generated: int, **details: Any) -> dict[str, Any]:
    """Return the chunk with the counts of an OpenAI-like stream."""
    counts = {"prompt_tokens": n_prompt, "completion_tokens": n_generated}
    return {"choices": [], "usage": counts | details}


@contextlib.contextmanager
def run_replay(routes: dict[str, Route]) -> Iterator[Replay]:
    """Serve `routes` on loopback: path to an answer, answers in turn (the last stays), or a rule."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    replay = Replay(f"http://127.0.0.1:{server.server_address[1]}", routes)
    server.replay = replay  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield replay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        replay: Replay = self.server.replay  # type: ignore[attr-defined]
        begun = time.perf_counter()
        replay.asked.append(Asked(self.command, self.path, dict(self.headers), body))
        reply = _pick(replay, self.path, body)
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._play(reply, begun)

    def _play(self, reply: Reply, begun: float) -> None:
        end = b"\n\n" if reply.content_type == "text/event-stream" else b"\n"
        for at, line in reply.lines:
            time.sleep(max(0.0, at - (time.perf_counter() - begun)))
            data = line + end
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        if reply.hang_s:
            time.sleep(reply.hang_s)
        if not reply.drop:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_arguments: Any) -> None:
        pass


def _pick(replay: Replay, path: str, body: Any) -> Reply:
    route = replay.routes.get(path)
    if route is None:
        return json_reply({"error": f"no {path} here"}, 404)
    if isinstance(route, Reply):
        return route
    if callable(route):
        return route(body)
    n = sum(asked.target == path for asked in replay.asked)
    return route[min(n, len(route)) - 1]
