"""One ranged stream: what is asked, what is believed of the answer, where secrets go, what failures say."""

from __future__ import annotations

import builtins
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import AccessError, GgufkitError, NetworkError, NotFoundError
from ggufkit.transfer import http as http_module
from ggufkit.transfer.http import FileGoneError, FileRefusedError, Http, proxy_for
from ggufkit.transfer.stream import StreamError
from tests.transfer.raw import Raw, answer, ranged, run_raw

DATA = bytes(range(256)) * 40
SIZE = len(DATA)
SECRETS = {"Authorization": "Bearer hf_secret", "Cookie": "m_session_id=secret", "X-Plain": "yes"}


def fetch(raw: Raw, *, offset: int = 0, end: int = SIZE, path: str = "/f?Signature=s3cret") -> bytes:
    with Http() as http:
        stream = http.open(raw.url + path, SECRETS, offset, end, SIZE)
        try:
            parts = []
            while stream.offset < end and (data := stream.read(1000)):
                parts.append(data)
            return b"".join(parts)
        finally:
            stream.close()


def failure(raw: Raw, **arguments: Any) -> GgufkitError:
    with pytest.raises(GgufkitError) as caught:
        fetch(raw, **arguments)
    assert "s3cret" not in str(caught.value) and "secret" not in str(caught.value)
    return caught.value


def test_a_range_is_asked_for_as_it_is_and_nothing_compressed() -> None:
    with run_raw(ranged(DATA, 100, 200)) as raw:
        assert fetch(raw, offset=100, end=200) == DATA[100:200]
    asked = raw.asked[0]
    assert asked["range"] == "bytes=100-199" and asked["accept-encoding"] == "identity"
    assert asked["user-agent"].startswith("ggufkit/")
    assert asked["authorization"] == "Bearer hf_secret"


def test_a_caller_may_name_itself() -> None:
    with run_raw(ranged(DATA, 0)) as raw, Http() as http:
        http.open(raw.url, {"User-Agent": "me/1", "RANGE": "bytes=5-6"}, 0, SIZE, SIZE).close()
    assert raw.asked[0]["user-agent"] == "me/1" and raw.asked[0]["range"] == f"bytes=0-{SIZE - 1}"


def test_a_server_that_ignores_ranges_is_read_up_to_where_we_are() -> None:
    with run_raw(answer("200 OK", DATA)) as raw:
        assert fetch(raw, offset=3000) == DATA[3000:]


def test_a_body_without_a_length_is_taken() -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(DATA), DATA) for _ in range(1)) + b"0\r\n\r\n"
    with run_raw(answer("200 OK", chunked, Transfer_Encoding="chunked")) as raw:
        assert fetch(raw) == DATA


def test_a_shorter_range_than_asked_for_is_taken_for_what_it_is() -> None:
    with run_raw(ranged(DATA, 100, 300)) as raw:
        assert fetch(raw, offset=100) == DATA[100:300]


def part(body: bytes = DATA, /, **headers: object) -> bytes:
    return answer("206 Partial Content", body, **headers)


LIES = {
    "another start": (
        answer("206 OK", DATA[7:], Content_Range=f"bytes 7-{SIZE - 1}/{SIZE}"),
        "another range",
    ),
    "no range": (part(), "another range"),
    "an odd range": (part(Content_Range="bytes */10240"), "another range"),
    "several ranges": (part(Content_Type="multipart/byteranges"), "another range"),
    "another body": (part(b'{"Code": 500}', Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}"), "sent 13 bytes for"),
    "another size, 206": (part(Content_Range=f"bytes 0-{SIZE - 1}/7"), "of 7 bytes"),
    "another size, 200": (answer("200 OK", DATA[:-1]), "of 10,239 bytes, not of 10,240"),
    "nothing": (answer("200 OK"), "of 0 bytes"),
    "a page": (answer("200 OK", DATA, Content_Type="text/html; charset=utf-8"), "HTML page"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "can't be reached"),
    "silence": (b"", "can't be reached"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_is_not_the_file_may_pass(lie: str) -> None:
    text, message = LIES[lie]
    with run_raw(text) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError) and message in error.message and not error.refused


@pytest.mark.parametrize("length", ["²", "-5", "1e3", "x"])
def test_a_length_that_is_no_number_says_nothing(length: str) -> None:
    with run_raw(answer("200 OK", DATA, Content_Length=length)) as raw:
        assert fetch(raw) == DATA


def test_a_body_that_ends_early_is_told_with_what_came_before() -> None:
    with run_raw(answer("200 OK", DATA[:5000], Content_Length=SIZE)) as raw, Http() as http:
        stream = http.open(raw.url, {}, 0, SIZE, SIZE)
        got = b""
        with pytest.raises(StreamError, match="the line dropped"):
            while True:
                got += stream.read(1000)
        stream.close()
    assert got == DATA[:5000] and stream.offset == 5000


def test_a_stall_is_told_after_the_read_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.2)
    head = answer("200 OK", DATA[:2000], Content_Length=SIZE)
    with run_raw(head, 0.5) as raw:
        began = time.monotonic()
        error = failure(raw)
    assert isinstance(error, StreamError) and "timed out" in error.message
    assert time.monotonic() - began < 3


def test_what_came_before_a_stall_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.3)
    head = answer("200 OK", DATA[:2000], Content_Length=SIZE)
    with run_raw(head, 0.6) as raw, Http() as http:
        stream = http.open(raw.url, {}, 0, SIZE, SIZE)
        assert stream.read(SIZE) == DATA[:2000] and stream.offset == 2000
        with pytest.raises(StreamError, match="timed out"):
            stream.read(SIZE)
        stream.close()


def test_a_slow_line_gives_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggufkit.transfer.stream.MAX_READ_S", 0.1)
    head = answer("200 OK", DATA[:2000], Content_Length=SIZE)
    with run_raw(head, 0.3, DATA[2000:4000], 0.3, DATA[4000:]) as raw, Http() as http:
        stream = http.open(raw.url, {}, 0, SIZE, SIZE)
        reads = []
        while stream.offset < SIZE:
            reads.append(stream.read(SIZE))
        stream.close()
    assert b"".join(reads) == DATA and 2 <= len(reads) <= 6


def test_a_hub_that_says_nothing_is_told_after_the_read_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.2)
    with run_raw(b"", 0.5) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError) and "timed out" in error.message


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        raw = Raw(f"http://127.0.0.1:{unused.getsockname()[1]}")
        error = failure(raw)
    assert isinstance(error, StreamError) and "Connection refused" in error.message


# ---- statuses ----


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, NetworkError, "refuses the request (400)"),
        (401, FileRefusedError, "refuses the file (401)"),
        (403, FileRefusedError, "refuses the file (403)"),
        (404, FileGoneError, "no such file (404)"),
        (407, AccessError, "proxy wants a password"),
        (408, StreamError, "answered 408"),
        (410, FileGoneError, "no such file (410)"),
        (416, NetworkError, "shorter file than it listed"),
        (425, StreamError, "answered 425"),
        (429, StreamError, "is busy (429)"),
        (451, NetworkError, "refuses the request (451)"),
        (500, StreamError, "answered 500"),
        (503, StreamError, "answered 503"),
        (204, StreamError, "answered 204"),
        (304, StreamError, "answered 304"),
    ],
)
def test_each_status_of_the_hub_is_told_for_what_it_is(
    status: int, kind: type[GgufkitError], words: str
) -> None:
    body = b"" if status in (204, 304) else b"why"
    with run_raw(answer(f"{status} X", body, X_Error_Code="Why")) as raw:
        error = failure(raw)
    assert type(error) is kind and words in error.message
    if isinstance(error, FileRefusedError | FileGoneError):
        assert error.status == status and error.headers["X-Error-Code"] == "Why"


@pytest.mark.parametrize(("status", "refused"), [(401, True), (403, True), (410, True), (404, False)])
def test_a_refused_signed_address_is_to_be_asked_for_again(status: int, refused: bool) -> None:
    with run_raw(answer(f"{status} X"), host="localhost") as cdn, run_raw() as raw:
        raw.answers += [answer("302 Found", Location=f"{cdn.url}/lfs?Signature=s3cret")]
        error = failure(raw)
    assert isinstance(error, StreamError if refused else NotFoundError)
    assert getattr(error, "refused", False) == refused


def test_a_repo_that_moved_and_may_not_be_read_is_no_expired_address() -> None:
    with run_raw(answer("307 Moved", Location="/new/name/f"), answer("403 Forbidden")) as raw:
        error = failure(raw)
    assert isinstance(error, AccessError) and not isinstance(error, StreamError)
    assert raw.asked[1][""] == "GET /new/name/f HTTP/1.1"
    assert raw.asked[1]["authorization"] == "Bearer hf_secret", "the same host: the same secret"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "100000"}, 300),
        ({"Retry-After": "²"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 56),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_how_long_to_wait_is_heard_and_limited(headers: dict[str, str], wait_s: float, status: int) -> None:
    with run_raw(answer(f"{status} X", b"", **headers)) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError)
    assert error.retry_after_s == (wait_s or (5 if status == 429 else 0))


def test_a_date_to_wait_for_is_heard() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    with run_raw(answer("503 X", b"", **{"Retry-After": date})) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError) and 15 < error.retry_after_s <= 20


# ---- redirects ----


def test_secrets_stay_with_the_host_that_they_belong_to() -> None:
    with run_raw(ranged(DATA, 0), host="localhost") as cdn, run_raw() as raw:
        raw.answers += [answer("302 Found", Location=f"{cdn.url}/lfs?Signature=x")]
        assert fetch(raw) == DATA
    assert raw.asked[0]["authorization"] and raw.asked[0]["cookie"]
    assert not {"authorization", "cookie"} & set(cdn.asked[0])
    assert cdn.asked[0]["x-plain"] == "yes" and cdn.asked[0]["range"] == f"bytes=0-{SIZE - 1}"


def test_another_port_of_the_same_host_is_another_host() -> None:
    with run_raw(ranged(DATA, 0)) as cdn, run_raw(answer("302 Found", Location=f"{cdn.url}/lfs")) as raw:
        fetch(raw)
    assert not {"authorization", "cookie"} & set(cdn.asked[0])


def test_secrets_do_not_come_back_when_the_way_leads_back() -> None:
    with run_raw() as hub, run_raw() as other:
        other.answers += [answer("302 Found", Location=f"{hub.url}/back")]
        hub.answers += [answer("302 Found", Location=f"{other.url}/there"), ranged(DATA, 0)]
        assert fetch(hub) == DATA
    assert "authorization" in hub.asked[0] and "authorization" not in hub.asked[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_relative_redirects_of_every_kind_are_followed(status: int) -> None:
    with run_raw(answer(f"{status} X", b"gone", Location="../g?x=1"), ranged(DATA, 0)) as raw:
        assert fetch(raw, path="/a/b/f") == DATA
    assert raw.asked[1][""] == "GET /a/g?x=1 HTTP/1.1"


def test_a_circle_ends() -> None:
    with run_raw(*[answer("302 Found", Location="/f")] * 20) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError) and "in a circle" in error.message
    assert len(raw.asked) == http_module.MAX_REDIRECTS


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://localhost/f", "http://[::1", "javascript:x", "http://[x]/"]
)
def test_a_redirect_to_what_is_no_address_is_an_error(location: str) -> None:
    with run_raw(answer("302 Found", Location=location)) as raw:
        error = failure(raw)
    assert isinstance(error, StreamError) and "no address" in error.message


@pytest.mark.parametrize("status", ["302 Found", "403 Forbidden", "500 Oh"])
def test_the_body_of_a_redirect_or_refusal_is_not_read_beyond_measure(status: str) -> None:
    huge = answer(status, bytes(64 << 20), Location="/next", Content_Length=1 << 40)
    with run_raw(huge, ranged(DATA, 0)) as raw:
        if status == "302 Found":
            assert fetch(raw) == DATA
        else:
            assert isinstance(failure(raw), NetworkError | AccessError)
    assert raw.sent_bytes < 32 << 20


# ---- connections ----


def test_a_stream_read_to_its_end_gives_its_connection_to_the_next_and_closing_ends_it() -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    connections, ends = [], []

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.client_address)

        def finish(self) -> None:
            super().finish()
            ends.append(self.client_address)

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(SIZE))
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server:
        Thread(target=server.serve_forever).start()
        raw = Raw(f"http://127.0.0.1:{server.server_port}")
        with Http() as http:
            for _ in range(3):
                stream = http.open(raw.url, {}, 0, SIZE, SIZE)
                while stream.offset < SIZE:
                    stream.read(4096)
                stream.close()
            assert len(connections) == 1 and not ends
        deadline = time.monotonic() + 5
        while not ends and time.monotonic() < deadline:
            time.sleep(0.01)
        server.shutdown()
    assert len(ends) == 1


def test_a_refused_or_dropped_stream_leaves_no_open_socket() -> None:
    def sockets() -> int:
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            try:
                found += str(link.readlink()).startswith("socket:")
            except OSError:
                continue
        return found

    before = sockets()
    for text in (LIES["a page"][0], answer("403 X", b"no"), answer("200 OK", DATA[:9], Content_Length=SIZE)):
        with run_raw(text) as raw:
            failure(raw)
    assert sockets() == before


# ---- TLS ----


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a key and a certificate for localhost that signs itself."""
    x509 = pytest.importorskip("cryptography.x509")  # modelscope brings it
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    file = tmp_path / "cert.pem"
    file.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_certificate_is_checked_and_secrets_do_not_leave_tls(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_raw(host="localhost", certificate=certificate) as hub, run_raw(host="localhost") as plain:
        plain.answers += [ranged(DATA, 0)]
        hub.answers += [answer("302 Found", Location=f"{plain.url}/f")]
        error = failure(hub)
        assert type(error) is NetworkError and "certificate" in error.message
        assert "SSL_CERT_FILE" in (error.hint or "") and hub.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(hub) == DATA
    assert hub.asked[0]["authorization"] and "authorization" not in plain.asked[0]


# ---- proxies ----


def test_a_proxy_is_asked_for_other_hosts_and_gets_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_raw(ranged(DATA, 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://us%40er:p%3Aw@"))
        assert fetch(Raw("http://hub.example")) == DATA
    assert proxy.asked[0][""] == "GET http://hub.example/f?Signature=s3cret HTTP/1.1"
    assert proxy.asked[0]["proxy-authorization"] == "Basic dXNAZXI6cDp3"  # us@er:p:w


def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_raw(ranged(DATA, 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        assert fetch(Raw("http://hub.example")) == DATA


def test_this_machine_and_what_no_proxy_names_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:1")
    monkeypatch.setenv("ALL_PROXY", "http://all.example:1")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_for("http://127.0.0.1:8090/x") is None
    assert proxy_for("http://localhost:8090/x") is None
    assert proxy_for("http://[::1]:8090/x") is None
    assert proxy_for("http://hub.inside.example/x") is None
    assert proxy_for("http://hub.example/x") == "http://proxy.example:1"
    assert proxy_for("https://hub.example/x") == "http://all.example:1"


def test_a_socks_proxy_is_used_where_pysocks_is_there_and_named_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("socks")
    with run_raw(b"") as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("http", "socks5h"))
        error = failure(Raw("http://hub.example"))
        assert isinstance(error, StreamError), "it was tried, and failed in passing"
        honest = builtins.__import__

        def without(name: str, *arguments: Any, **named: Any) -> Any:
            if name.startswith("urllib3.contrib.socks"):
                raise ImportError(name)
            return honest(name, *arguments, **named)

        monkeypatch.setattr(builtins, "__import__", without)
        error = failure(Raw("http://hub.example"))
    assert type(error) is NetworkError and "PySocks" in (error.hint or "")
