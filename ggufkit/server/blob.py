"""A file as an answer: whole or one range, sent by the kernel, and only in the state that was listed.

aiohttp's own FileResponse names a file by its time, would send `x.gguf.gz` for `x.gguf`, and hides how much
it sent; a hub must name the content, send that very content, and know.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ggufkit.server.snapshot import SharedFile
from ggufkit.transfer.digest import FileStamp

_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes of a file."""

    start: int
    """Offset of the first byte."""
    n_bytes: int
    """Length."""


def parse_range(header: str, size_bytes: int) -> Span | None:
    """Read a Range header (RFC 9110, 14.2) that asks for one range; None if it can't be satisfied.

    Several ranges, other units and malformed headers are refused too: to answer them with a whole shard, as
    the RFC allows, helps nobody.
    """
    match = _ONE_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last, tail = match.groups()
    start = max(size_bytes - int(tail), 0) if tail else int(first)
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    return Span(start, end - start) if start < end else None


class BlobResponse(web.StreamResponse):
    """Answers a GET or HEAD for one file: 200, 206 or 416."""

    def __init__(self, file: SharedFile, request: web.BaseRequest, headers: dict[str, str]) -> None:
        super().__init__(headers={"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **headers})
        self.file = file
        self.span: Span | None = Span(0, file.size_bytes)
        self.sent_bytes = 0
        if (asked := _asked_range(request, file)) is not None:
            self._set_range(asked)
        self.content_length = self.span.n_bytes if self.span else 0
        self.content_type = "application/octet-stream"

    def _set_range(self, asked: str) -> None:
        size_bytes = self.file.size_bytes
        self.span = parse_range(asked, size_bytes)
        if self.span is None:
            self.set_status(416)
            self.headers["Content-Range"] = f"bytes */{size_bytes}"
        else:
            self.set_status(206)
            last = self.span.start + self.span.n_bytes - 1
            self.headers["Content-Range"] = f"bytes {self.span.start}-{last}/{size_bytes}"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers and the bytes."""
        if self.prepared or self.span is None or not self.span.n_bytes or request.method == "HEAD":
            return await super().prepare(request)
        try:
            opened = await asyncio.to_thread(open_unchanged, self.file)
        except OSError:
            return await self._gone(request)
        with opened:
            writer = await super().prepare(request)
            await self._send(request, opened, self.span)
        await super().write_eof()
        return writer

    async def _send(self, request: web.BaseRequest, opened: BinaryIO, span: Span) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        opened.seek(span.start)
        try:
            await asyncio.get_running_loop().sendfile(transport, opened, span.start, span.n_bytes)
        finally:
            # loop.sendfile leaves the position at what was sent, also when it fails (asyncio, "Event Loop")
            self.sent_bytes = opened.tell() - span.start
        if self.sent_bytes < span.n_bytes:
            transport.close()  # aiohttp leaves it open, and the client would wait for the rest
            raise ConnectionResetError("the file was cut while it was sent")

    async def _gone(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self.set_status(404)
        self.headers.clear()
        self.content_length = 0
        return await super().prepare(request)


def is_unchanged(file: SharedFile) -> bool:
    """Tell whether a file is still in the state that was listed."""
    try:
        return FileStamp.of(file.local.stat()) == file.stamp
    except OSError:
        return False


def open_unchanged(file: SharedFile) -> BinaryIO:
    """Open a file in the state that was listed; OSError if it is gone or changed."""
    opened = file.local.open("rb", buffering=0)
    if FileStamp.of(os.fstat(opened.fileno())) != file.stamp:
        opened.close()
        raise FileNotFoundError(f"{file.local} changed since it was listed")
    return opened


def _asked_range(request: web.BaseRequest, file: SharedFile) -> str | None:
    """Give the Range header if it counts: only GET has ranges, and If-Range must name this content."""
    condition = request.headers.get("If-Range")
    if request.method != "GET" or (condition is not None and condition != f'"{file.etag}"'):
        return None
    return request.headers.get("Range")
