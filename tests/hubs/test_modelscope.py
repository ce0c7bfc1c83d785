"""Listing and URLs through modelscope's real hub client, against a hub that misbehaves."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ggufkit import __version__
from ggufkit.errors import AccessError, GgufkitError, IntegrityError, NetworkError, NotFoundError, UsageError
from ggufkit.hubs.hub import Listing, RemoteFile, open_hub
from tests.hubs.conftest import FILES
from tests.hubs.fake import MS_LIMIT, Answer, FakeHub, ms_answer, ms_entry, sha_of

BUSY = Answer(503, "busy")
# What modelscope.cn answers for a repo that it does not have.
ABSENT = Answer(
    404,
    '{"Code":10010205001,"Data":null,"Message":"模型不存在，请检查模型ID","RequestId":"r","Success":false}',
)
FILE = RemoteFile("x", 1, None, "master")


def listing(fake: FakeHub, revision: str | None = None) -> Listing:
    return open_hub("modelscope", endpoint=fake.url).list_files("o/n", revision)


def refusal(fake: FakeHub, revision: str | None = None) -> GgufkitError:
    with pytest.raises(GgufkitError) as caught:
        listing(fake, revision)
    assert caught.value.hint
    return caught.value


def test_a_listing_has_all_files_with_their_digests(fake: FakeHub) -> None:
    got = listing(fake)
    assert (got.hub, got.endpoint, got.repo_id) == ("modelscope", fake.url, "o/n")
    assert (got.revision, got.commit) == ("master", None)
    assert {file.path: file.size_bytes for file in got.files} == FILES
    assert [file.path for file in got.files] == sorted(FILES)
    assert {file.path: file.sha256 for file in got.files} == {path: sha_of(path) for path in FILES}
    assert {file.revision for file in got.files} == {"master"}
    assert len(fake.log) == 1
    assert f"ggufkit/{__version__}" in fake.log[0][1]["user-agent"]


def test_a_listing_cut_at_its_limit_is_walked_by_folders(fake: FakeHub, naps: list[float]) -> None:
    fake.files = {f"d{n % 5}/{n:05d}.gguf": n for n in range(2 * MS_LIMIT)}
    got = listing(fake)
    assert {file.path: file.size_bytes for file in got.files} == fake.files
    assert len(fake.log) == 2 + 5


def test_a_url_holds_the_revision_and_is_quoted(fake: FakeHub) -> None:
    address = open_hub("modelscope", endpoint=fake.url).locate(
        "o/n", RemoteFile("a b/ü&=%.gguf", 1, None, "v1+")
    )
    url = urlsplit(address.url)
    assert address.url.startswith(f"{fake.url}/api/v1/models/o/n/repo?")
    assert parse_qs(url.query) == {"Revision": ["v1+"], "FilePath": ["a b/ü&=%.gguf"]}
    assert address.headers == {"User-Agent": f"ggufkit/{__version__}"}
    assert fake.log == []


def test_the_endpoint_of_the_environment_is_read_when_the_hub_is_opened(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", fake.url)
    assert open_hub("modelscope").list_files("o/n").files
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    assert (
        open_hub("modelscope").locate("o/n", FILE).url.startswith("https://modelscope.cn/api/v1/models/o/n/")
    )


def test_nothing_is_left_in_the_users_home(fake: FakeHub, clean_environment: Path) -> None:
    listing(fake)
    assert list(clean_environment.rglob("*")) == []


# --- tokens ---


def test_a_token_is_not_shown_to_another_host(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", fake.url)
    hub = open_hub("modelscope")
    file = hub.list_files("o/n").files[0]
    assert {"authorization", "cookie"}.isdisjoint(fake.log[0][1])
    assert set(hub.locate("o/n", file).headers) == {"User-Agent"}


def test_a_token_is_shown_to_hosts_that_the_user_trusts(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    listing(fake)
    assert fake.log[0][1]["authorization"] == "Bearer ms-secret"
    assert fake.log[0][1]["cookie"] == "m_session_id=ms-secret"


def test_a_token_goes_to_the_hub_itself(clean_environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    address = open_hub("modelscope").locate("o/n", FILE)
    assert address.headers["Authorization"] == "Bearer ms-secret"
    assert address.headers["Cookie"] == "m_session_id=ms-secret"
    assert "ms-secret" not in repr(address)


def test_the_token_file_of_the_client_is_read(clean_environment: Path) -> None:
    from modelscope_hub import HubConfig

    HubConfig(endpoint="https://modelscope.cn").save_token("ms-from-file")
    assert open_hub("modelscope").locate("o/n", FILE).headers["Authorization"] == "Bearer ms-from-file"


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04cno.such.module\nX\n.", b"cbuiltins\nno_such\n.", pickle.dumps(7)]
)
def test_a_broken_token_file_is_an_error_with_a_way_out(clean_environment: Path, content: bytes) -> None:
    folder = clean_environment / "modelscope" / "credentials"
    folder.mkdir(parents=True)
    (folder / "cookies").write_bytes(content)
    with pytest.raises(AccessError, match="token file") as caught:
        open_hub("modelscope").locate("o/n", FILE)
    assert "MODELSCOPE_API_TOKEN" in (caught.value.hint or "")


# --- faults that pass ---


def test_a_busy_hub_is_asked_again(fake: FakeHub, naps: list[float]) -> None:
    fake.instead = [BUSY, Answer(500), Answer(502)]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [1, 2, 4]


def test_a_rate_limit_is_honoured(fake: FakeHub, naps: list[float]) -> None:
    fake.instead = [Answer(429, "", {"Retry-After": "7"})]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [7]


def test_a_hub_that_stays_busy_names_the_other(fake: FakeHub, naps: list[float]) -> None:
    fake.forever = BUSY
    error = refusal(fake)
    assert isinstance(error, NetworkError)
    assert "status 503" in error.message
    assert "hf:o/n asks Hugging Face" in (error.hint or "")
    assert len(fake.log) == 4


def test_nobody_listens(clean_environment: Any, naps: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NetworkError, match="can't be reached: Connection refused"):
            open_hub("modelscope", endpoint=url).list_files("o/n")


# --- refusals ---


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (ABSENT, NotFoundError, "has no repo o/n with revision nope, or it is private"),
        (Answer(401, {"Code": 10010103009, "Success": False}), AccessError, "does not let us read o/n"),
        (Answer(403, {"Code": 403, "Success": False}), AccessError, "accepted the terms of o/n"),
        (Answer(400, {"Code": 400, "Success": False}), NetworkError, "status 400"),
        (Answer(200, {"Code": 10010205001, "Data": None, "Success": False}), NotFoundError, "lists no files"),
        (Answer(200, ms_answer([])), NotFoundError, "lists no files in o/n at revision nope"),
        (Answer(200, "<html>", {"Content-Type": "text/html"}), NetworkError, "is no listing of o/n"),
        (Answer(200, ""), NetworkError, "is no listing of o/n"),
        (Answer(200, "[]"), NetworkError, "is no listing of o/n"),
        (Answer(200, "null"), NetworkError, "is no listing of o/n"),
        (Answer(200, "[" * 100_000), NetworkError, "is no listing of o/n"),
        (Answer(200, ms_answer([7])), NetworkError, "is no listing of o/n"),
        (Answer(200, ms_answer([{"Path": "a", "Size": "x"}])), NetworkError, "is no listing of o/n"),
        (Answer(200, ms_answer([{"Path": ["a"], "Size": 1}])), NetworkError, "is no listing of o/n"),
        (Answer(200, ms_answer([{"Path": "a", "Size": -1}])), NetworkError, "is no listing of o/n"),
        (Answer(200, ms_answer([{"Path": "a", "Size": 1, "Sha256": "x"}])), NetworkError, "is no listing of"),
    ],
)
def test_refusals(fake: FakeHub, naps: list[float], answer: Answer, kind: type, words: str) -> None:
    fake.forever = answer
    error = refusal(fake, "nope")
    assert isinstance(error, kind)
    assert words in error.message
    assert naps == []


@pytest.mark.parametrize("repo_id", ["n", "o/n/m", "o/..", "o/n?x", "o/n#"])
def test_what_is_no_repo_is_not_asked_for(fake: FakeHub, repo_id: str) -> None:
    with pytest.raises(UsageError):
        open_hub("modelscope", endpoint=fake.url).list_files(repo_id)
    assert fake.log == []


@pytest.mark.parametrize(
    "path", ["../../.ssh/authorized_keys", "/etc/passwd", "C:\\x", "a\u001b[2J", "\ud800"]
)
def test_unsafe_paths_are_refused(fake: FakeHub, path: str) -> None:
    fake.forever = Answer(body=ms_answer([ms_entry("fine.gguf", 1, "blob"), ms_entry(path, 1, "blob")]))
    assert isinstance(refusal(fake), IntegrityError)


def test_nothing_is_printed(fake: FakeHub, naps: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    fake.files = {f"d/{n:05d}.gguf": n for n in range(MS_LIMIT)}  # the client would log a walk, and a loss
    fake.instead = [BUSY]
    assert len(listing(fake).files) == MS_LIMIT
    fake.forever = ABSENT
    refusal(fake)
    assert capfd.readouterr() == ("", "")
