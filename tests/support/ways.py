"""Ways to a hub as real networks have them: TLS, IPv6, CONNECT and SOCKS proxies, all on loopback."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

_READ_BYTES = 1 << 16
Talk = Callable[[socket.socket], None]


@dataclass
class Proxy:
    """A proxy that brings every host to one port, and notes which was asked for."""

    url: str = ""
    """Where it listens."""
    asked: list[str] = field(default_factory=list)
    """`host:port` of each request, as the client named it."""


def make_certificate(file: Path, *names: str) -> Path:
    """Write a key and a certificate for `names` that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return file


@contextlib.contextmanager
def forward(port: int, *, certificate: Path | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """Bring connections to a new port of `host` (`::1` too) to `port`; with a certificate they speak TLS."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    opened: list[socket.socket] = []

    def talk(client: socket.socket) -> None:
        secure = context.wrap_socket(client, server_side=True) if context is not None else client
        opened.append(secure)
        with secure, socket.create_connection(("127.0.0.1", port)) as server:
            _pipe_both(secure, server)

    with _listening(talk, host) as bound:
        try:
            yield bound
        finally:
            _shut(opened)


@contextlib.contextmanager
def connect_proxy(port: int) -> Iterator[Proxy]:
    """Run an HTTP proxy that knows CONNECT only."""
    proxy = Proxy()

    def talk(client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(_READ_BYTES) or b"\r\n\r\n"
        method, _, rest = request.decode("latin-1").partition(" ")
        proxy.asked.append(rest.partition(" ")[0] if method == "CONNECT" else f"{method} {rest[:60]}")
        if method != "CONNECT":
            client.sendall(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
            return
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as server:
            _pipe_both(client, server)

    with _listening(talk) as bound:
        proxy.url = f"http://127.0.0.1:{bound}"
        yield proxy


@contextlib.contextmanager
def socks_proxy(port: int) -> Iterator[Proxy]:
    """Run a SOCKS 5 proxy that resolves names itself (RFC 1928, CONNECT without a password)."""
    proxy = Proxy()

    def talk(client: socket.socket) -> None:
        n_methods = client.recv(2)[1]
        client.recv(n_methods)
        client.sendall(b"\x05\x00")
        kind = client.recv(4)[3]
        host = client.recv(client.recv(1)[0]).decode() if kind == 3 else socket.inet_ntoa(client.recv(4))
        proxy.asked.append(f"{host}:{int.from_bytes(client.recv(2), 'big')}")
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(("127.0.0.1", port)) as server:
            _pipe_both(client, server)

    with _listening(talk) as bound:
        proxy.url = f"socks5h://127.0.0.1:{bound}"
        yield proxy


@contextlib.contextmanager
def _listening(talk: Talk, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve each connection to a new port in a thread of its own, inside the block."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, IndexError):
            client.settimeout(10)
            talk(client)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            clients.append(client)
            thread = threading.Thread(target=serve, args=(client,), daemon=True)
            threads.append(thread)
            thread.start()

    with socket.create_server((host, 0), family=family) as listener:
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            _shut(clients)
            for thread in (accepting, *threads):
                thread.join(10)


def _shut(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _pipe_both(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pipe, args=(other, one), daemon=True)
    back.start()
    _pipe(one, other)
    back.join(10)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(_READ_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
