"""One ranged stream over HTTP, and what its failures mean.

Redirects are followed here, so that every stream gets a freshly signed CDN address, and so that
credentials stay with the host that they belong to.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urljoin, urlsplit

from ggufkit import __version__
from ggufkit.errors import AccessError, NetworkError, NotFoundError
from ggufkit.hubs.calls import reason_of, retry_after_s
from ggufkit.transfer.stream import Pace, Stream, StreamError

if TYPE_CHECKING:
    import urllib3

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5
MAX_KEPT_CONNECTIONS = 32
"""How many idle connections to one host are kept; more may be open."""
MAX_WAIT_S = 300.0
"""The longest that a server's Retry-After is obeyed."""
MAX_DRAIN_BYTES = 64 << 10
"""The largest body of a redirect or refusal that is read to keep its connection."""
SECRET_HEADERS = frozenset({"authorization", "cookie"})
PASSING_STATUSES = frozenset({408, 425})  # RFC 9110 15.5.9, RFC 8470 5.2: the same request may work later
USER_AGENT = f"ggufkit/{__version__}"

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)


class FileRefusedError(AccessError):
    """A hub does not give a file (401, 403)."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        """What was answered."""
        self.headers = headers
        """What the hub says about it: X-Error-Code."""


class FileGoneError(NotFoundError):
    """A hub does not have a file (404, 410)."""

    def __init__(self, message: str, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.status = status
        """What was answered."""
        self.headers = headers
        """What the hub says about it: X-Error-Code."""


class Http:
    """Opens streams; keeps connections for the next one until it is closed. For use with `with`.

    Any number of threads may open streams of one Http at the same time.
    """

    def __init__(self, *, limit_bytes_per_s: int | None = None) -> None:
        """Begin; `limit_bytes_per_s` is what all streams together bring at most, bodies counted."""
        self._managers: dict[str | None, Any] = {}
        self._opening = threading.Lock()
        self.pace = Pace(limit_bytes_per_s) if limit_bytes_per_s is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        for manager in self._managers.values():
            for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container iterates by keys() only
                manager.pools[key].close()
            manager.clear()

    def open(self, url: str, headers: Mapping[str, str], offset: int, end: int, size_bytes: int) -> Stream:
        """Ask for bytes `[offset, end)` of a file of `size_bytes`.

        Returns a stream that starts at `offset` (a server that ignores ranges is read up to there).
        Raises StreamError for what may pass, NotFoundError and AccessError for what won't.
        """
        sent = {"user-agent": USER_AGENT, **{name.lower(): value for name, value in headers.items()}}
        sent |= {"accept-encoding": "identity", "range": f"bytes={offset}-{end - 1}"}
        response = self._get(url, sent)
        try:
            return _checked_stream(response, url, offset, size_bytes, self.pace)
        except BaseException:
            response.close()
            raise

    def _get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """GET with redirects followed; a response of another host never sees the credentials."""
        from urllib3.exceptions import HTTPError

        first = url
        for _ in range(MAX_REDIRECTS):
            try:
                manager = self._manager(url)
                response: urllib3.BaseHTTPResponse = manager.request(
                    "GET", url, headers=headers, redirect=False, preload_content=False, retries=False
                )
            except (HTTPError, OSError) as error:
                raise _unreachable(url, error) from error
            target = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not target:
                _check_status(response, signed=_is_signed(url, first), url=url)
                return response
            _discard(response)
            target = _redirected(url, target)
            if _origin(target) != _origin(url):
                headers = {k: v for k, v in headers.items() if k not in SECRET_HEADERS}
            url = target
        raise StreamError(f"{host_of(first)} redirects in a circle")

    def _manager(self, url: str) -> Any:
        import urllib3

        from ggufkit.transfer.sockets import make_cuttable

        proxy = proxy_for(url)
        with self._opening:
            if proxy not in self._managers:
                timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
                manager = _proxy_manager(proxy, timeout) if proxy else _direct_manager(timeout)
                make_cuttable(manager)
                self._managers[proxy] = manager
            return self._managers[proxy]


def _direct_manager(timeout: urllib3.Timeout) -> Any:
    import urllib3

    return urllib3.PoolManager(maxsize=MAX_KEPT_CONNECTIONS, timeout=timeout)


def _proxy_manager(proxy: str, timeout: urllib3.Timeout) -> Any:
    """Return what goes through an HTTP proxy, or a SOCKS proxy where PySocks is there."""
    import urllib3

    scheme, _, address = proxy.rpartition("://")
    if scheme.lower().startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError:
            hint = "pip install PySocks, or name an http:// proxy in HTTPS_PROXY"
            raise NetworkError(f"{host_of(proxy)} is a SOCKS proxy: PySocks is missing", hint=hint) from None
        return SOCKSProxyManager(proxy, maxsize=MAX_KEPT_CONNECTIONS, timeout=timeout)
    user = unquote(urlsplit(f"//{address}").netloc.rpartition("@")[0])
    headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
    url = f"{scheme or 'http'}://{address.rpartition('@')[2]}"
    return urllib3.ProxyManager(url, proxy_headers=headers, maxsize=MAX_KEPT_CONNECTIONS, timeout=timeout)


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for `url`; loopback never goes through one."""
    from urllib.request import getproxies, proxy_bypass

    host = urlsplit(url).hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(urlsplit(url).scheme) or proxies.get("all")


def host_of(url: str) -> str:
    """Return the host of a URL, for messages: the rest may hold a signature."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _unreachable(url: str, error: BaseException) -> NetworkError:
    import ssl

    if any(isinstance(arg, ssl.SSLCertVerificationError) for arg in (*error.args, error.__cause__)):
        hint = "is a proxy between that reads TLS? SSL_CERT_FILE names the certificates to trust"
        return NetworkError(f"{host_of(url)} shows a certificate that nobody here trusts", hint=hint)
    return StreamError(f"{host_of(url)} can't be reached: {reason_of(error)}")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _is_signed(url: str, first: str) -> bool:
    """Say whether a redirect led to an address that runs out, not only to the hub's new name for a repo."""
    return url != first and (_origin(url) != _origin(first) or bool(urlsplit(url).query))


def _redirected(url: str, target: str) -> str:
    try:
        address = urljoin(url, target)
        if urlsplit(address).scheme in ("http", "https"):
            return address
    except ValueError:
        pass
    raise StreamError(f"{host_of(url)} redirects to what is no address")


def _discard(response: urllib3.BaseHTTPResponse) -> None:
    """Read a small body, so that the connection can serve again; drop the connection of any other."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= MAX_DRAIN_BYTES:
        response.drain_conn()
    else:
        response.close()


def _check_status(response: urllib3.BaseHTTPResponse, *, signed: bool, url: str) -> None:
    status = response.status
    if status in (200, 206):
        return
    host = host_of(url)
    wait_s = min(retry_after_s(response.headers) or 0.0, MAX_WAIT_S)
    _discard(response)
    if status in (401, 403, 410) and signed:
        raise StreamError(f"{host} refused its signed address ({status})", refused=True)
    if status == 407:
        hint = "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT names a proxy with its password"
        raise AccessError("the proxy wants a password (407)", hint=hint)
    if status in (401, 403):
        raise FileRefusedError(f"{host} refuses the file ({status})", status, response.headers)
    if status in (404, 410):
        raise FileGoneError(f"{host} has no such file ({status})", status, response.headers)
    if status == 429:
        raise StreamError(f"{host} is busy ({status})", retry_after_s=wait_s or 5.0)
    if status == 416:
        raise NetworkError(f"{host} has a shorter file than it listed: was it changed?")
    if 400 <= status < 500 and status not in PASSING_STATUSES:
        raise NetworkError(f"{host} refuses the request ({status})")
    raise StreamError(f"{host} answered {status}", retry_after_s=wait_s)


def _checked_stream(
    response: urllib3.BaseHTTPResponse, url: str, offset: int, size_bytes: int, pace: Pace | None
) -> Stream:
    """Return the stream positioned at `offset`, after checking that it is the file asked for."""
    host = host_of(url)
    content_type = response.headers.get("Content-Type", "")
    if content_type.startswith("text/html"):
        raise StreamError(f"{host} sent an HTML page instead of the file: a log-in page of the network?")
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != offset:
            raise StreamError(f"{host} sent another range than asked for")
        _check_size(host, match[3], size_bytes)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != int(match[2]) + 1 - offset:
            raise StreamError(f"{host} sent {int(length):,} bytes for {match[0]}: no part of the file")
        return Stream(response, offset, pace)
    _check_size(host, response.headers.get("Content-Length", "*"), size_bytes)
    stream = Stream(response, 0, pace, is_whole=True)
    while stream.offset < offset:  # the server ignores ranges: read up to where we are
        if not stream.read(min(1 << 20, offset - stream.offset)):
            raise StreamError(f"{host} ended the file early")
    return stream


def _check_size(host: str, announced: str, size_bytes: int) -> None:
    if announced.isdecimal() and int(announced) != size_bytes:
        raise StreamError(f"{host} has a file of {int(announced):,} bytes, not of {size_bytes:,}")
