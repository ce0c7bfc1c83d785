"""The ways out of real networks: listing by the hubs' clients, and bytes by our streams, alike."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import pytest

from ggufkit.errors import NetworkError, UsageError
from ggufkit.verbs.pull import plan_pull, pull
from tests.support.hub import REPO_ID, TestHub
from tests.support.ways import connect_proxy, forward, make_certificate, socks_proxy
from tests.verbs.published import NAME, tree

HOST = "hub.example"
"""A name that nobody here can resolve: only a proxy can bring anybody there."""
SOURCES = ["hf", "modelscope"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def new_session() -> Iterator[None]:
    """Let huggingface_hub look at the variables anew: it keeps one session for the process."""
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def plain(hub: TestHub) -> TestHub:
    """A hub without a CDN: all its bytes come by the way that is tried."""
    hub.cdn_url = None
    return hub


def port_of(hub: TestHub) -> int:
    port = urlsplit(hub.url).port
    assert port is not None
    return port


def send_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT"):
        monkeypatch.setenv(name, url)


@pytest.fixture
def tls(plain: TestHub, stack: ExitStack, tmp_path: Path) -> tuple[int, Path]:
    """A port of the hub that speaks TLS as hub.example and localhost, and the certificate."""
    certificate = make_certificate(tmp_path / "cert.pem", HOST, "localhost")
    return stack.enter_context(forward(port_of(plain), certificate=certificate)), certificate


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_of_ones_own_hold_for_all(
    files: dict[str, bytes],
    work: Path,
    tls: tuple[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variable: str,
) -> None:
    port, certificate = tls
    send_to(monkeypatch, f"https://localhost:{port}")
    monkeypatch.setenv(variable, str(certificate))
    pull(plan_pull(REPO_ID, source=source))
    assert tree(work / NAME) == files


@pytest.mark.parametrize("source", SOURCES)
def test_a_certificate_that_nobody_trusts_is_refused(
    work: Path, tls: tuple[int, Path], monkeypatch: pytest.MonkeyPatch, naps: list[float], source: str
) -> None:
    monkeypatch.setattr("ggufkit.hubs.calls.sleep", naps.append)
    send_to(monkeypatch, f"https://localhost:{tls[0]}")
    with pytest.raises(NetworkError, match="certificate"):
        plan_pull(REPO_ID, source=source)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_certificates_that_are_none_are_told(
    hub: TestHub, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*ca\.pem, which"):
        plan_pull(REPO_ID)


@pytest.mark.parametrize("source", [*SOURCES, "auto"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_connect_proxy_brings_listing_and_bytes(
    files: dict[str, bytes],
    work: Path,
    stack: ExitStack,
    tls: tuple[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variable: str,
) -> None:
    port, certificate = tls
    proxy = stack.enter_context(connect_proxy(port))
    send_to(monkeypatch, f"https://{HOST}")
    monkeypatch.setenv(variable, proxy.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pull(plan_pull(REPO_ID, source=source))
    assert tree(work / NAME) == files
    assert set(proxy.asked) == {f"{HOST}:443"} and len(proxy.asked) >= 2


@pytest.mark.parametrize("source", SOURCES)
def test_a_socks_proxy_resolves_the_names(
    files: dict[str, bytes],
    work: Path,
    stack: ExitStack,
    plain: TestHub,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    proxy = stack.enter_context(socks_proxy(port_of(plain)))
    send_to(monkeypatch, f"http://{HOST}")
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    pull(plan_pull(REPO_ID, source=source))
    assert tree(work / NAME) == files
    assert set(proxy.asked) == {f"{HOST}:80"} and len(proxy.asked) >= 2


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("no_proxy", ["", "inside.example"])
def test_this_machine_is_never_asked_through_a_proxy(
    hub: TestHub,
    files: dict[str, bytes],
    work: Path,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variable: str,
    no_proxy: str,
) -> None:
    proxy = stack.enter_context(connect_proxy(9))
    monkeypatch.setenv(variable, proxy.url)
    if no_proxy:
        monkeypatch.setenv("NO_PROXY", no_proxy)
    pull(plan_pull(REPO_ID, source=source))
    assert tree(work / NAME) == files and proxy.asked == []
    assert os.environ["NO_PROXY"].split(",") == [*filter(None, [no_proxy]), "127.0.0.1"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_host_that_no_proxy_names_is_asked_directly(
    work: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, source: str, naps: list[float]
) -> None:
    monkeypatch.setattr("ggufkit.hubs.calls.sleep", naps.append)
    asked: list[str] = []

    def getaddrinfo(host: object, *_arguments: object, **_named: object) -> object:
        asked.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    proxy = stack.enter_context(connect_proxy(9))
    send_to(monkeypatch, f"http://{HOST}")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", HOST)
    with pytest.raises(NetworkError, match="can't be reached"):
        plan_pull(REPO_ID, source=source)
    assert HOST in asked and proxy.asked == []


@pytest.mark.parametrize("source", [*SOURCES, "auto", "URL"])
def test_ipv6(
    files: dict[str, bytes],
    work: Path,
    stack: ExitStack,
    plain: TestHub,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    url = f"http://[::1]:{stack.enter_context(forward(port_of(plain), host='::1'))}"
    send_to(monkeypatch, url)
    pull(plan_pull(REPO_ID, source=url if source == "URL" else source))
    assert tree(work / NAME) == files
