"""The body of one answer, read by the cheapest way that Python has, no faster than allowed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from io import DEFAULT_BUFFER_SIZE
from typing import TYPE_CHECKING, Any

from ggufkit.errors import NetworkError
from ggufkit.hubs.calls import reason_of

if TYPE_CHECKING:
    import urllib3

READ_BYTES = 256 << 10
"""What is read and written at a time: fits the processor's cache, and costs few calls."""
MAX_READ_S = 0.25
"""How long bytes that came may wait for more of them, and so be lost with a kill."""
_PACED_READ_S = 0.05
"""How much time's worth of bytes is read at once under a limit."""


class StreamError(NetworkError):
    """A stream failed in a way that another try may mend."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0, refused: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds that the server asked us to wait, else 0."""
        self.refused = refused
        """The CDN refused a signed address (expired): ask the hub for a new one, at once."""
        self.reached = 0
        """Offset in the file after the last byte that came before the failure."""


class Pace:
    """A speed that any number of streams share: bytes are paid for with waiting, in the order they came."""

    def __init__(self, limit_bytes_per_s: int) -> None:
        if limit_bytes_per_s <= 0:
            raise ValueError("a speed of nothing never ends")
        self.limit_bytes_per_s = limit_bytes_per_s
        self.step_bytes = max(1, min(READ_BYTES, int(limit_bytes_per_s * _PACED_READ_S)))
        """How much to read at once, so that no wait is long."""
        self._free_s = 0.0
        self._lock = threading.Lock()

    def spend(self, n_bytes: int) -> None:
        """Wait until `n_bytes` that came are paid for."""
        with self._lock:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + n_bytes / self.limit_bytes_per_s
            wait_s = self._free_s - now_s
        time.sleep(wait_s)


@dataclass(slots=True)
class Stream:
    """The body of one answer, from some offset of the file on."""

    response: urllib3.BaseHTTPResponse
    """The answer, not yet read."""
    offset: int
    """Offset in the file of the next byte that `read` returns."""
    pace: Pace | None = None
    """How fast it may be read."""
    is_whole: bool = False
    """Whether the server ignored the range and sends the whole file."""
    _failed: StreamError | None = None
    """How the line dropped."""
    _body: Any = field(init=False, repr=False)
    """http.client's answer, where it is read directly."""
    _is_drained: bool = field(default=False, init=False, repr=False)
    """Whether what its reader took in with the headers is used up."""

    def __post_init__(self) -> None:
        self._body = _plain_body(self.response)

    def read(self, n_bytes: int) -> bytes:
        """Return what comes within MAX_READ_S, `n_bytes` at most; nothing at the end.

        Raises StreamError when the line drops, and never loses what came before.
        """
        buffer = memoryview(bytearray(n_bytes))
        return bytes(buffer[: self.read_into(buffer)])

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` with what comes within MAX_READ_S; returns how much, 0 at the end.

        Raises StreamError when the line drops, and never loses what came before.
        """
        size_bytes, done = len(buffer), 0
        if self.pace is not None:
            size_bytes = min(size_bytes, self.pace.step_bytes)
        until_s = time.monotonic() + MAX_READ_S
        while done < size_bytes and (not done or time.monotonic() < until_s):
            try:
                n = self._read_some(buffer[done:size_bytes])
            except StreamError:
                if done:
                    break  # the next read fails the same way
                raise
            if not n:
                break
            done += n
        self.offset += done
        if self.pace is not None:
            self.pace.spend(done)
        return done

    def _read_some(self, buffer: memoryview) -> int:
        from urllib3.exceptions import HTTPError

        if self._failed is not None:
            raise self._failed
        try:
            if self._body is not None:
                return self._read_plain(self._body, buffer)
            data: bytes = self.response.read1(len(buffer), decode_content=False)
        except (HTTPError, OSError) as error:
            self._failed = StreamError(f"the line dropped: {reason_of(error)}")
            raise self._failed from error
        buffer[: len(data)] = data
        return len(data)

    def _read_plain(self, body: Any, buffer: memoryview) -> int:
        """Let the kernel write into the buffer; keep http.client's account of what is left."""
        if not body.length:
            return 0
        buffer = buffer[: body.length]
        if self._is_drained and len(buffer) > DEFAULT_BUFFER_SIZE:  # below, its reader would take more in
            n: int = body.fp.readinto1(buffer)
        else:
            data = body.fp.read1(len(buffer))
            n = len(data)
            buffer[:n] = data
            self._is_drained = n < len(buffer)
        if not n:
            self._failed = StreamError(f"the line dropped: {body.length:,} bytes are missing")
            raise self._failed
        body.length -= n
        if not body.length:
            self._hand_back(body)
        return n

    def _hand_back(self, body: Any) -> None:
        """Keep the connection for the next stream."""
        from ggufkit.transfer.sockets import let_go

        let_go()
        body.close()
        self.response.release_conn()

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end."""
        from ggufkit.transfer.sockets import let_go

        let_go()
        self.response.close()


def _plain_body(response: Any) -> Any:
    """Return http.client's answer where its body is so many bytes as they come.

    urllib3 itself copies each byte twice more (HTTPResponse.read1, _raw_read); a body in chunks, and
    whatever future versions look like, goes that way.
    """
    body = getattr(response, "_fp", None)
    is_plain = getattr(body, "length", None) is not None and not getattr(body, "chunked", True)
    return body if is_plain and hasattr(getattr(body, "fp", None), "readinto1") else None
