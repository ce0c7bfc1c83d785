"""One network for all: the hubs' clients and our own streams see the same certificates and proxies.

Each HTTP library reads other variables: requests REQUESTS_CA_BUNDLE, the others SSL_CERT_FILE; and only
our own streams know that this machine is not asked through a proxy. What one of them would miss is
added to this process's environment, which is where all of them look.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ggufkit.errors import UsageError, printable

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_WAY_OUT = "name a file with the certificates to trust, or unset it"


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine."""
    return host in ("localhost", "::1") or host.startswith("127.")


def settle(endpoint: str) -> None:
    """Make the environment say the same to every HTTP library, before any of them asks `endpoint`.

    Raises UsageError for certificates that can't be read.
    """
    from urllib.request import getproxies

    _share_certificates()
    host = urlsplit(endpoint).hostname or ""
    if is_loopback(host) and getproxies():
        _spare(host)


def _share_certificates() -> None:
    name = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    if name is None:
        return
    path = os.environ[name]
    if not Path(path).exists():
        raise UsageError(f"{name} names {printable(path)}, which is not there", hint=_WAY_OUT)
    if Path(path).is_file():
        if not _holds_certificates(path):
            message = f"{name} names {printable(path)}, which holds no certificates"
            raise UsageError(message, hint=_WAY_OUT)
        os.environ.setdefault("SSL_CERT_FILE", path)
    os.environ.setdefault("REQUESTS_CA_BUNDLE", path)


@cache
def _holds_certificates(path: str) -> bool:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, OSError):
        return False
    return True


def _spare(host: str) -> None:
    """Add `host` to the hosts that no proxy is asked for."""
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"  # the lower-case one goes before
    hosts = [one.strip() for one in os.environ.get(name, "").split(",") if one.strip()]
    if host not in hosts and "*" not in hosts:
        os.environ[name] = ",".join([*hosts, host])
