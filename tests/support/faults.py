"""What can go wrong between a hub and its client, as rules that the hub of the suite follows."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ggufkit.server.blob import BlobResponse

Plane = Literal["hub", "cdn"]
_CHUNK_BYTES = 1 << 16
_counting = threading.Lock()


@dataclass(eq=False)
class Budget:
    """How often something may still happen, over all requests."""

    left: int
    """Times left."""

    def take(self) -> bool:
        """Say whether it may happen once more, and count it."""
        with _counting:
            self.left -= 1
            return self.left >= 0


@dataclass(kw_only=True, eq=False)
class Fault:
    """One rule: which requests it meets, and what becomes of the answer.

    Settings of the body change answers to GET that carry one (200 or 206), a file or a listing; they neither
    meet nor count a redirect or a refusal.
    """

    path: str = ""
    """Pattern to find in the percent-encoded path with the query; the CDN's path ends in the file's name."""
    plane: Plane | None = None
    """Only requests to the hub, or to the CDN."""
    method: str | None = None
    """Only requests of this method."""
    times: int | None = None
    """How many requests to spoil; None for all."""
    skip: int = 0
    """How many to let pass before."""
    hits: int = field(default=0, init=False)
    """How many were spoiled so far."""
    seen: int = field(default=0, init=False)
    """How many matched so far."""

    status: int | None = None
    """Answer with this status instead, with `headers` and `body`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers to set on the answer: Retry-After, X-Error-Code, Content-Type, ..."""
    delay_s: float = 0
    """Wait before answering at all."""
    expire_link: bool = False
    """Make the signature of this CDN link, and so every further try of it, expired: 403."""

    body: bytes | None = None
    """Send this instead of the body, with an honest length: a login page, nothing."""
    cut_after_bytes: int | None = None
    """Close the connection after so many bytes of the body."""
    cut_at: int | None = None
    """Close the connection before the byte at this offset of the file, if it is asked for."""
    flip_byte_at: int | None = None
    """Turn over all bits of the byte at this offset of the file, if it is sent."""
    budget: Budget | None = None
    """How often `cut_at` and `flip_byte_at` happen in all; None for each time."""
    ignore_range: bool = False
    """Answer 200 with the whole file whatever range was asked for."""
    bytes_per_s: float | None = None
    """Send no faster than this."""
    stall_s: float = 0
    """Send nothing for so long ..."""
    stall_after_bytes: int = 0
    """... once, after so many bytes of the body."""
    announced_bytes: int | None = None
    """Claim this Content-Length; the connection ends after what there is to send."""
    content_range: str | None = None
    """Claim this Content-Range on a 206, like `bytes 0-9/100`, whatever is sent."""

    @property
    def of_body(self) -> bool:
        """Whether it changes the body of an answer, and so needs one."""
        return self.status is None and any(getattr(self, name) != _DEFAULTS[name] for name in _OF_BODY)

    def meets(self, plane: Plane, method: str, path: str) -> bool:
        """Tell whether a request is to be spoiled, and count it."""
        if self.plane not in (None, plane) or self.method not in (None, method):
            return False
        if not re.search(self.path, path):
            return False
        with _counting:
            self.seen += 1
            spoiled = self.seen > self.skip and (self.times is None or self.hits < self.times)
            self.hits += spoiled
            return spoiled


_OF_BODY = (
    "body",
    "cut_after_bytes",
    "cut_at",
    "flip_byte_at",
    "ignore_range",
    "bytes_per_s",
    "stall_s",
    "announced_bytes",
    "content_range",
)
_DEFAULTS: dict[str, Any] = {one.name: getattr(Fault(), one.name) for one in dataclasses.fields(Fault)}


def merge(faults: Iterable[Fault]) -> Fault:
    """Make one rule of several: for each setting the first that sets it wins."""
    merged = Fault()
    for fault in reversed(list(faults)):
        for name, default in _DEFAULTS.items():
            if (value := getattr(fault, name)) != default:
                setattr(merged, name, value)
    return merged


class FaultyResponse(web.StreamResponse):
    """An honest answer, spoiled by a fault of the body."""

    def __init__(self, honest: web.StreamResponse, fault: Fault) -> None:
        super().__init__(status=honest.status, headers=honest.headers)
        self.sent_bytes = 0
        self._fault = fault
        self._source, self._from, n_bytes = self._what(honest)
        self._total_bytes = n_bytes
        self._stop_bytes = self._where_to_stop(n_bytes)
        self.content_length = n_bytes if fault.announced_bytes is None else fault.announced_bytes
        if fault.content_range is not None and self.status == 206:
            self.headers["Content-Range"] = fault.content_range

    def _what(self, honest: web.StreamResponse) -> tuple[BlobResponse | bytes, int, int]:
        """Find what to send: from which file or bytes, from which offset, how much."""
        if self._fault.body is not None:
            return self._fault.body, 0, len(self._fault.body)
        if isinstance(honest, BlobResponse):
            assert honest.span is not None
            if not self._fault.ignore_range:
                return honest, honest.span.start, honest.span.n_bytes
            self.set_status(200)
            self.headers.pop("Content-Range", None)
            return honest, 0, honest.file.size_bytes
        assert isinstance(honest, web.Response) and isinstance(honest.body, bytes)
        return honest.body, 0, len(honest.body)

    def _where_to_stop(self, n_bytes: int) -> int:
        """Say how much may be sent before the connection is cut."""
        fault, stop = self._fault, n_bytes
        if fault.cut_after_bytes is not None:
            stop = min(stop, fault.cut_after_bytes)
        if fault.cut_at is not None and 0 <= fault.cut_at - self._from < stop and self._may_happen():
            stop = fault.cut_at - self._from
        return stop

    def _may_happen(self) -> bool:
        return self._fault.budget is None or self._fault.budget.take()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers and what the fault lets through; ConnectionResetError if that is not all."""
        if self.prepared:
            return await super().prepare(request)
        writer = await super().prepare(request)
        await self._send(request)
        return writer

    async def _send(self, request: web.BaseRequest) -> None:
        started_s, stalled = time.monotonic(), not self._fault.stall_s
        while (n_bytes := self._next_bytes(stalled)) or not stalled:
            if not stalled and self.sent_bytes >= min(self._fault.stall_after_bytes, self._stop_bytes):
                await asyncio.sleep(self._fault.stall_s)
                stalled = True
                continue
            await self.write(self._read(n_bytes))
            self.sent_bytes += n_bytes
            if self._fault.bytes_per_s:
                await asyncio.sleep(started_s + self.sent_bytes / self._fault.bytes_per_s - time.monotonic())
        if self.sent_bytes < max(self._total_bytes, self._fault.announced_bytes or 0):
            if request.transport is not None:
                request.transport.close()  # what was written still goes out
            raise ConnectionResetError("cut by a fault")

    def _next_bytes(self, stalled: bool) -> int:
        """Say how much to send before the next thing happens; 0 at the end."""
        stops = [self._stop_bytes]
        if not stalled and self._fault.stall_after_bytes > self.sent_bytes:
            stops.append(self._fault.stall_after_bytes)
        chunk_bytes = min(_CHUNK_BYTES, max(1, int((self._fault.bytes_per_s or 1e12) / 20)))
        return max(0, min(chunk_bytes, min(stops) - self.sent_bytes))

    def _read(self, n_bytes: int) -> bytes:
        offset = self._from + self.sent_bytes
        if isinstance(self._source, bytes):
            data = bytearray(self._source[offset : offset + n_bytes])
        else:
            with self._source.file.local.open("rb") as file:
                data = bytearray(os.pread(file.fileno(), n_bytes, offset))
        flip = self._fault.flip_byte_at
        if flip is not None and offset <= flip < offset + len(data) and self._may_happen():
            data[flip - offset] ^= 0xFF
        return bytes(data)
