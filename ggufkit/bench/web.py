"""HTTP to a runtime: small JSON answers, and streams read line by line as they come.

The standard library's client: its readline hands a line over as soon as it is there, and the clock is
read right after. A service on this machine is never asked through a proxy.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ggufkit.bench.trace import error_text
from ggufkit.errors import AccessError, GgufkitError, NetworkError, NotFoundError
from ggufkit.transfer.http import USER_AGENT, host_of, proxy_for

CONNECT_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 30.0
MAX_LINE_BYTES = 16 << 20  # Ollama's last line has a number for each token of the context
MAX_ANSWER_BYTES = 64 << 20


class Refused(GgufkitError):
    """The server answered a request with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the server answered {status}: {text}")
        self.status = status
        """The HTTP status."""
        self.text = text
        """The server's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose headers are there."""

    response: http.client.HTTPResponse
    """Its body is yet to be read."""
    sent_at: float
    """Just before the request was sent, connection made: time.perf_counter()."""


@dataclass(slots=True)
class Web:
    """A server to ask."""

    base: str
    """Its URL, no slash at the end."""
    key: str | None = None
    """The API key; sent to this server only, told nobody."""
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def ask(
        self, path: str, document: Mapping[str, Any] | None = None, *, timeout_s: float = ASK_TIMEOUT_S
    ) -> dict[str, Any]:
        """GET `path`, or POST `document`; return the JSON object. Raises Refused, NetworkError."""
        try:
            with self.request(path, document, timeout_s=timeout_s) as answer:
                parsed = json.loads(_read(answer.response, self.base))
        except TimeoutError:
            raise NetworkError(f"{host_of(self.base)} said nothing for {timeout_s:.0f} s") from None
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise Refused(200, "something that is not a JSON object")
        return parsed

    @contextlib.contextmanager
    def request(self, path: str, document: Mapping[str, Any] | None, *, timeout_s: float) -> Iterator[Answer]:
        """Send a request and give its answer, whose body is yet to be read.

        Raises Refused for an HTTP error, NetworkError, and TimeoutError after `timeout_s` without a byte.
        """
        url = self.base + path
        connection, target, headers = _connection(url)
        headers |= {"Accept": "application/json, text/event-stream", "User-Agent": USER_AGENT}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        body = None if document is None else json.dumps(document).encode()
        headers |= {"Content-Type": "application/json"} if body else {}
        with self._connected(connection, timeout_s):
            yield self._answer(connection, "POST" if body else "GET", target, body, headers)

    @contextlib.contextmanager
    def _connected(self, connection: http.client.HTTPConnection, timeout_s: float) -> Iterator[None]:
        """Connect, and let stop() end it meanwhile."""
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        line = connection.sock  # the connection forgets it when the answer's headers are there
        line.settimeout(timeout_s)
        with self._lock:
            self._open.add(line)
            stopped = self._stopped
        try:
            if stopped:
                raise NetworkError("stopped")
            yield
        finally:
            with self._lock:
                self._open.discard(line)
            connection.close()

    def _answer(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        sent_at = time.perf_counter()
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        if response.status != 200:
            raise Refused(response.status, self.hidden(_refusal(response, self.base)))
        return Answer(response, sent_at)

    def _unreachable(self, error: Exception) -> NetworkError:
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"{host_of(self.base)} shows a certificate that nobody here trusts"
            return NetworkError(text, hint="SSL_CERT_FILE names the certificates to trust")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return NetworkError(f"{host_of(self.base)} can't be reached: {self.hidden(reason).lower()}")

    def hidden(self, text: str) -> str:
        """Return `text` without the API key, should a server send it back."""
        return text.replace(self.key, "***") if self.key else text

    def stop(self) -> None:
        """End all requests under way, from another thread, and let no other begin."""
        with self._lock:
            self._stopped = True
            for line in self._open:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)


def lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the lines of a body, each as soon as it is there; raises OSError and HTTPException."""
    while line := response.readline(MAX_LINE_BYTES):
        yield line


def friendly(refusal: Refused, base: str) -> GgufkitError:
    """Return the error that a refusal means at the prompt."""
    where = host_of(base)
    if refusal.status in (401, 403):
        hint = "the key comes from the environment: GGUFKIT_API_KEY, or see ggufkit bench --help"
        return AccessError(f"{where} refuses access ({refusal.status}): {refusal.text}", hint=hint)
    if refusal.status == 404:
        return NotFoundError(f"{where}: {refusal.text}")
    return NetworkError(f"{where} answered {refusal.status}: {refusal.text}")


def _connection(url: str) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
    """Return a connection for `url`, the target of its request line, and headers for a proxy."""
    parts, proxy = urlsplit(url), proxy_for(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    host, port = parts.hostname or "", parts.port
    if proxy is None:
        return _plain(parts.scheme, host, port), target, {}
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if via.scheme not in ("http", "https"):
        raise NetworkError(f"{host_of(proxy)} is no HTTP proxy", hint=f"NO_PROXY={host} asks directly")
    user = unquote(via.netloc.rpartition("@")[0])
    secret = {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    if parts.scheme == "https":
        tunnel = _plain("https", via.hostname or "", via.port or (443 if via.scheme == "https" else 80))
        tunnel.set_tunnel(host, port or 443, secret)
        return tunnel, target, {}
    connection = _plain(via.scheme, via.hostname or "", via.port)
    return connection, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{target}", secret


def _plain(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)


def _read(response: http.client.HTTPResponse, base: str) -> bytes:
    try:
        return response.read(MAX_ANSWER_BYTES)
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise NetworkError(f"{host_of(base)} ended its answer early: {error}") from error


def _refusal(response: http.client.HTTPResponse, base: str) -> str:
    data = _read(response, base)
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="replace").strip()[:200] or response.reason
    return error_text(parsed) if isinstance(parsed, dict) else str(parsed)[:200]
