"""The body of one answer, read by the cheapest way that Python has, no faster than allowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
    _recv_into: Callable[[memoryview], int] | None = field(default=None, init=False, repr=False)
    """Reads from the connection, once what http.client took in with the headers is used up."""
    _errors: tuple[type[Exception], ...] = field(init=False, repr=False)
    """What a line that drops raises."""

    def __post_init__(self) -> None:
        from urllib3.exceptions import HTTPError

        self._body = _plain_body(self.response)
        self._errors = (HTTPError, OSError)

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
        if self._failed is not None:
            raise self._failed
        if self.pace is not None:
            buffer = buffer[: self.pace.step_bytes]
        done = self._fill(buffer)
        self.offset += done
        if self.pace is not None:
            self.pace.spend(done)
        return done

    def _fill(self, buffer: memoryview) -> int:
        """Fill `buffer`; of an error that comes after some bytes the next read tells."""
        size_bytes, done = len(buffer), 0
        until_s = time.monotonic() + MAX_READ_S
        try:
            while done < size_bytes and (not done or time.monotonic() < until_s):
                n = self._receive(buffer[done:])
                if not n:
                    break
                done += n
        except self._errors as error:
            self._failed = StreamError(f"the line dropped: {reason_of(error)}")
            if not done:
                raise self._failed from error
        except StreamError as error:
            self._failed = error
            if not done:
                raise
        return done

    def _receive(self, buffer: memoryview) -> int:
        """Return how many bytes came into the buffer; 0 at the end."""
        body = self._body
        if body is None:
            data: bytes = self.response.read1(len(buffer), decode_content=False)
            buffer[: len(data)] = data
            return len(data)
        if not body.length:
            return 0
        if len(buffer) > body.length:
            buffer = buffer[: body.length]
        n = self._recv_into(buffer) if self._recv_into is not None else self._drain(body, buffer)
        if not n:
            raise StreamError(f"the line dropped: {body.length:,} bytes are missing")
        body.length -= n  # http.client's account of what is left
        if not body.length:
            self._hand_back(body)
        return n

    def _drain(self, body: Any, buffer: memoryview) -> int:
        """Take what http.client's reader took in with the headers; then the socket itself is read."""
        from ggufkit.transfer.sockets import held

        data: bytes = body.fp.read1(len(buffer))
        buffer[: len(data)] = data
        if len(data) < len(buffer):
            socket = held()
            self._recv_into = socket.recv_into if socket is not None else body.fp.readinto1
        return len(data)

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
