"""The hub of the suite: the real server with a CDN behind it, a log of the requests, and faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

from aiohttp import web
from aiohttp.typedefs import Middleware

from ggufkit.server.app import Handler, build_app, in_thread
from ggufkit.server.blob import BlobResponse
from ggufkit.server.context import Limits
from ggufkit.server.shelf import Shelf
from ggufkit.transfer.digest import DigestCache
from tests.support.faults import Fault, FaultyResponse, Plane, merge

REPO_ID = "unsloth/DeepSeek-R1-GGUF"
FOLDER = "DeepSeek-R1-UD-IQ2_XXS"
_EXPIRED = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(slots=True)
class Request:
    """One request as the hub saw it; it is in the log from its arrival on."""

    plane: Plane
    """The hub itself, or the CDN that it redirects to."""
    method: str
    """GET, HEAD, POST."""
    path: str
    """Percent-encoded path with the query."""
    headers: dict[str, str]
    """Request headers, names in lower case."""
    started_s: float
    """When it arrived, by time.monotonic()."""
    status: int | None = None
    """What was answered; None while it is not."""
    sent_bytes: int = 0
    """Bytes of the body that went out, also when the client hung up."""
    ended_s: float | None = None
    """When the answer ended, by time.monotonic()."""
    faults: tuple[Fault, ...] = ()
    """The faults that it met."""

    @property
    def range(self) -> str | None:
        """What part of the file was asked for: the Range header."""
        return self.headers.get("range")


@dataclass
class TestHub:
    """A running hub. Everything may be read and changed while it runs."""

    __test__ = False

    root: Path
    """The folder served: `root/owner/name/...`."""
    url: str
    """Where the hub listens; no slash at the end."""
    shelf: Shelf
    """What it serves."""
    cdn_url: str | None = None
    """Where its CDN listens, by another host name; None if files come from the hub itself."""
    requests: list[Request] = field(default_factory=list)
    """All requests so far, in order of arrival; `asked` and `sent_bytes` wait for answers under way."""
    faults: list[Fault] = field(default_factory=list)
    """The faults in force; where several meet a request, the earlier one wins for each setting."""
    link_life_s: float = 3600
    """How long a link to the CDN is good."""
    links: dict[str, float] = field(default_factory=dict)
    """When each signature of a link to the CDN expires, by time.monotonic()."""

    def add(self, *faults: Fault) -> Fault:
        """Put faults in force, and give the first."""
        self.faults.extend(faults)
        return faults[0]

    def asked(
        self, path: str = "", *, plane: Plane | None = None, method: str | None = None
    ) -> list[Request]:
        """List the requests whose path with the query the pattern `path` is found in, the answers logged."""
        self.settle()
        return [
            one
            for one in list(self.requests)
            if re.search(path, one.path) and plane in (None, one.plane) and method in (None, one.method)
        ]

    def sent_bytes(self, path: str = "", *, plane: Plane | None = None) -> int:
        """Count the bytes of the bodies sent so far."""
        return sum(one.sent_bytes for one in self.asked(path, plane=plane))

    def settle(self, timeout_s: float = 1) -> None:
        """Wait for answers under way: a client may have the last byte before the log knows it was sent."""
        deadline_s = time.monotonic() + timeout_s
        while any(one.ended_s is None for one in list(self.requests)) and time.monotonic() < deadline_s:
            time.sleep(0.002)

    def forget(self) -> None:
        """Empty the log and lift all faults."""
        self.requests.clear()
        self.faults.clear()

    def refresh(self) -> None:
        """Serve what is in the folder now; else a changed file is 404, and a new one is seen in 10 s."""
        self.shelf.look()

    def expire_links(self) -> None:
        """Make every link to the CDN given out so far answer 403."""
        self.links.update(dict.fromkeys(self.links, 0.0))

    @property
    def hf_env(self) -> dict[str, str]:
        """The variables that send huggingface_hub here; read when it is imported."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }

    @property
    def ms_env(self) -> dict[str, str]:
        """The variables that send modelscope here; read when it is imported."""
        return {"MODELSCOPE_ENDPOINT": self.url, "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false"}

    def client_env(self, home: Path) -> dict[str, str]:
        """Give the whole environment of a client process: this hub, its own home, no proxy, no token."""
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {**kept, "HOME": str(home), "USERPROFILE": str(home), **self.hf_env, **self.ms_env}


@contextlib.contextmanager
def run_hub(
    root: Path,
    *,
    cdn: bool = False,
    faults: tuple[Fault, ...] = (),
    sha256s: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    link_life_s: float = 3600,
    cache_folder: Path | None = None,
) -> Iterator[TestHub]:
    """Serve `root` from a thread inside the block, at 127.0.0.1 and a free port.

    `cdn`: LFS files (GGUFs, and all over 10 MB) are answered with 302 to a second port, host name localhost.
    `sha256s`: digests to announce, by path below `root`, so that a huge or wrong one need not be computed.
    `limits`: entries of a page of the tree, and of a ModelScope listing before it is cut.
    """
    with contextlib.ExitStack() as stack:
        folder = cache_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hub-cache")))
        digests = DigestCache(folder)
        for path, sha256 in (sha256s or {}).items():
            digests.put(root / path, sha256)
        shelf = Shelf(root, digests)
        shelf.look()
        hub = TestHub(root, "", shelf, faults=list(faults), link_life_s=link_life_s)
        if cdn:
            hub.cdn_url = f"http://localhost:{stack.enter_context(in_thread(_cdn_app(hub)))}"
        app = build_app(shelf, limits)
        app.middlewares.insert(0, _spoil(hub, "hub"))
        hub.url = f"http://127.0.0.1:{stack.enter_context(in_thread(app))}"
        yield hub


def write_repo(
    root: Path, *, shard_bytes: int = 200_000, n_shards: int = 4, seed: int = 1
) -> dict[str, bytes]:
    """Write a repo of random files with the names of a real quant, and give the contents by path in the repo.

    The shards begin like GGUFs and differ in length; beside them lie two small files that are not in LFS.
    """
    chance = random.Random(seed)
    names = [f"{FOLDER}/{FOLDER}-{n:05d}-of-{n_shards:05d}.gguf" for n in range(1, n_shards + 1)]
    files = {name: b"GGUF\3\0\0\0" + chance.randbytes(shard_bytes - n) for n, name in enumerate(names)}
    files |= {"README.md": b"# DeepSeek-R1\n", "config.json": b'{"model_type": "deepseek_v3"}\n'}
    for path, content in files.items():
        file = root / REPO_ID / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return files


def _cdn_app(hub: TestHub) -> web.Application:
    async def get(request: web.Request) -> web.StreamResponse:
        if hub.links.get(request.query.get("Signature", ""), 0.0) < time.monotonic():
            return web.Response(status=403, text=_EXPIRED, content_type="application/xml")
        wanted = request.match_info["sha256"]
        found = [file for one in hub.shelf.newest() for file in one.files.values() if file.sha256 == wanted]
        return BlobResponse(found[0], request, {}) if found else web.Response(status=404)

    app = web.Application(middlewares=[_spoil(hub, "cdn")])
    app.router.add_get("/lfs/{sha256}/{file_name}", get)
    return app


def _spoil(hub: TestHub, plane: Plane) -> Middleware:
    """Make the middleware that logs a request, and answers it as the faults in force want."""

    @web.middleware
    async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        log = Request(plane, request.method, request.raw_path, headers, time.monotonic())
        hub.requests.append(log)
        answer: web.StreamResponse | None = None
        try:
            answer = await _answer(hub, log, request, handler)
            log.status = answer.status
            await answer.prepare(request)
            await answer.write_eof()
        except ConnectionError:
            pass  # cut by a fault or by the client: aiohttp closes what it can no longer write to
        finally:
            log.sent_bytes = _sent_bytes(answer)
            log.ended_s = time.monotonic()
        return answer or web.Response(status=500)

    return spoil


async def _answer(hub: TestHub, log: Request, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer honestly, or as the faults want; log which did."""
    log.faults = _met(hub, log, of_body=False)
    fault = merge(log.faults)
    await asyncio.sleep(fault.delay_s)
    if fault.expire_link:
        hub.links[request.query.get("Signature", "")] = 0.0
    if fault.status is not None:
        return web.Response(status=fault.status, headers=fault.headers, body=fault.body or b"")
    answer = await handler(request)
    if hub.cdn_url and isinstance(answer, BlobResponse) and answer.file.is_lfs and log.plane == "hub":
        answer = _redirect(hub, answer)
    if log.method == "GET" and answer.status in (200, 206):
        spoilers = [
            one for one in list(hub.faults) if one.of_body and one.meets(log.plane, log.method, log.path)
        ]
        log.faults += tuple(spoilers)
        if spoilers:
            answer = FaultyResponse(answer, merge(spoilers))
    answer.headers.update(merge(log.faults).headers)
    return answer


def _met(hub: TestHub, log: Request, *, of_body: bool) -> tuple[Fault, ...]:
    faults = [one for one in list(hub.faults) if one.of_body is of_body]
    return tuple(one for one in faults if one.meets(log.plane, log.method, log.path))


def _redirect(hub: TestHub, blob: BlobResponse) -> web.Response:
    """Send the client to the CDN, with the headers that describe the file, as the real hubs do."""
    signature = secrets.token_urlsafe(24)
    hub.links[signature] = time.monotonic() + hub.link_life_s
    expires = int(time.time() + hub.link_life_s)
    query = urlencode({"Expires": expires, "Key-Pair-Id": "K0000000000000", "Signature": signature})
    address = f"{hub.cdn_url}/lfs/{blob.file.sha256}/{quote(blob.file.path.rsplit('/', 1)[-1])}?{query}"
    kept = {name: blob.headers[name] for name in ("X-Repo-Commit", "X-Linked-Size", "X-Linked-ETag", "ETag")}
    return web.Response(status=302, headers={**kept, "Location": address})


def _sent_bytes(answer: web.StreamResponse | None) -> int:
    if isinstance(answer, BlobResponse | FaultyResponse):
        return answer.sent_bytes
    return len(answer.body) if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else 0
