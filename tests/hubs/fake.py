"""A hub that answers as it is told: both protocols' listings on the standard library's HTTP server.

For faults and hostile answers that a real server would not give; JSON shapes as the real hubs give them.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT = "02656f62d2aa9da4d3f0cdb34c341d30dd87c3b6"
MS_LIMIT = 3000  # entries, modelscope_hub constants.py REPO_FILES_TRUNCATION_LIMIT


def sha_of(path: str) -> str:
    """The digest that the hub gives for a file."""
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Answer:
    """What to answer to one request."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeHub:
    """One repo, `o/n`, and answers to give first."""

    url: str
    files: dict[str, int]
    """Sizes by path; what ends with .gguf is an LFS file."""
    instead: list[Answer] = field(default_factory=list)
    """Answers to the next requests, before honest ones."""
    forever: Answer | None = None
    """The answer to all requests, once `instead` is used up."""
    sizes_in_info: bool = True
    """Whether a model's info has sizes; some mirrors drop `?blobs=true`."""
    log: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path with query and headers (lower-case names) of all requests."""

    def answer(self, target: str) -> Answer:
        """Return the answer to a GET."""
        if self.instead:
            return self.instead.pop(0)
        if self.forever is not None:
            return self.forever
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path in ("/api/models/o/n/revision/main", f"/api/models/o/n/revision/{COMMIT}"):
            return Answer(body=self.hf_info(blobs="blobs" in query and self.sizes_in_info))
        if url.path == f"/api/models/o/n/tree/{COMMIT}":
            return self.hf_tree(query)
        if url.path == "/api/v1/models/o/n/repo/files" and query["Revision"] == "master":
            return Answer(body=ms_answer(self.ms_files(query.get("Root", ""), query["Recursive"] == "True")))
        return Answer(404, {"error": "not here"})

    def hf_info(self, *, blobs: bool) -> dict[str, Any]:
        """Return what `/api/models/o/n` says."""
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in self.files]
        for sibling in siblings if blobs else ():
            path = sibling["rfilename"]
            sibling |= {"size": self.files[path], "blobId": sha_of(path)[:40]}
            if path.endswith(".gguf"):
                sibling["lfs"] = {"sha256": sha_of(path), "size": self.files[path], "pointerSize": 134}
        return {
            "_id": "1",
            "id": "o/n",
            "modelId": "o/n",
            "sha": COMMIT,
            "private": False,
            "siblings": siblings,
        }

    def hf_tree(self, query: dict[str, str]) -> Answer:
        """Return one page of two entries, and where the next is."""
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
        entries += [self._hf_entry(path) for path in self.files]
        start = int(query.get("cursor", 0))
        following = f'<{self.url}/api/models/o/n/tree/{COMMIT}?recursive=true&cursor={start + 2}>; rel="next"'
        return Answer(
            body=entries[start : start + 2], headers={"Link": following} if start + 2 < len(entries) else {}
        )

    def _hf_entry(self, path: str) -> dict[str, Any]:
        entry = {"type": "file", "oid": sha_of(path)[:40], "size": self.files[path], "path": path}
        if path.endswith(".gguf"):
            entry["lfs"] = {"oid": sha_of(path), "size": self.files[path], "pointerSize": 134}
        return entry

    def ms_files(self, root: str, recursive: bool) -> list[dict[str, Any]]:
        """Return the entries below `root`, cut off at the server's limit."""
        prefix = f"{root}/" if root else ""
        paths = {path: self.files[path] for path in self.files if path.startswith(prefix)}
        folders = {path[: path.index("/", len(prefix))] for path in paths if "/" in path[len(prefix) :]}
        entries = [ms_entry(folder, 0, "tree") for folder in sorted(folders)]
        entries += [
            ms_entry(path, size, "blob")
            for path, size in paths.items()
            if recursive or "/" not in path[len(prefix) :]
        ]
        return entries[:MS_LIMIT]


def ms_entry(path: str, size_bytes: int, kind: str) -> dict[str, Any]:
    """Return one entry of a ModelScope listing."""
    sha256 = sha_of(path) if kind == "blob" else ""
    name = path.rpartition("/")[2]
    return {
        "Path": path, "Name": name, "Type": kind, "Size": size_bytes, "Sha256": sha256, "Mode": "33188",
        "Revision": "1" * 40, "IsLFS": kind == "blob", "InCheck": False, "CommittedDate": 1737936000,
    }  # fmt: skip


def ms_answer(files: list[Any]) -> dict[str, Any]:
    """Return a ModelScope listing."""
    data = {"Files": files, "IsVisual": 0, "LatestCommitter": {}}
    return {"Code": 200, "Data": data, "Message": "success", "RequestId": "r", "Success": True}


@contextmanager
def run_fake(files: dict[str, int]) -> Iterator[FakeHub]:
    """Serve `o/n` with `files` on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.log.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            answer = hub.answer(self.path)
            body = answer.body if isinstance(answer.body, bytes | str) else json.dumps(answer.body)
            data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
            with suppress(ConnectionError):  # the client has gone
                self._send(answer, data)

        def _send(self, answer: Answer, data: bytes) -> None:
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = FakeHub(f"http://127.0.0.1:{server.server_port}", files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
