"""Listing and URLs over the real huggingface_hub's session, against a hub that misbehaves."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors, hf_hub_url

from ggufkit import __version__
from ggufkit.errors import AccessError, GgufkitError, IntegrityError, NetworkError, NotFoundError, UsageError
from ggufkit.hubs import calls, huggingface
from ggufkit.hubs.hub import Hub, Listing, RemoteFile, open_hub
from ggufkit.hubs.tokens import token_found_by
from ggufkit.progress import Silent
from tests.hubs.conftest import FILES
from tests.hubs.fake import COMMIT, Answer, FakeHub, sha_of

BUSY = Answer(503, "busy")


def hub_at(fake: FakeHub) -> Hub:
    return open_hub("huggingface", endpoint=fake.url)


def listing(fake: FakeHub, revision: str | None = None) -> Listing:
    return hub_at(fake).list_files("o/n", revision)


def refusal(fake: FakeHub, revision: str | None = None) -> GgufkitError:
    with pytest.raises(GgufkitError) as caught:
        listing(fake, revision)
    assert caught.value.hint
    return caught.value


def test_a_listing_has_all_files_with_the_commit_in_one_request(fake: FakeHub) -> None:
    got = listing(fake)
    assert (got.hub, got.endpoint, got.repo_id) == ("huggingface", fake.url, "o/n")
    assert (got.revision, got.commit) == ("main", COMMIT)
    assert {file.path: file.size_bytes for file in got.files} == FILES
    assert [file.path for file in got.files] == sorted(FILES)
    assert {file.revision for file in got.files} == {COMMIT}
    digests = {file.path: file.sha256 for file in got.files}
    assert digests == {path: sha_of(path) if path.endswith(".gguf") else None for path in FILES}
    assert [path for path, _ in fake.log] == ["/api/models/o/n/revision/main?blobs=true"]
    assert f"ggufkit/{__version__}" in fake.log[0][1]["user-agent"]


@pytest.mark.parametrize("trusted", ["127.0.0.1", ""])
def test_a_process_loads_asks_and_leaves_nothing_more(
    fake: FakeHub, clean_environment: Path, trusted: str
) -> None:
    """Half of the client is slower to import than hubs to answer; its headers ask a question of their own."""
    fake.sizes_in_info = False
    code = (
        "from ggufkit.hubs.hub import open_hub; import sys; hub = open_hub('huggingface'); "
        "hub.locate('o/n', hub.list_files('o/n').files[0]); "
        "print([m for m in sys.modules if m in ('huggingface_hub.hf_api', 'huggingface_hub.file_download')])"
    )
    home = str(clean_environment)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, text=True,
        env={"HOME": home, "USERPROFILE": home, "HF_ENDPOINT": fake.url, "GGUFKIT_TOKEN_HOSTS": trusted},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert [path.partition("?")[0] for path, _ in fake.log] == [
        "/api/models/o/n/revision/main",
        *[f"/api/models/o/n/tree/{COMMIT}"] * 3,
    ]
    assert list(clean_environment.rglob("*")) == []


def test_a_commit_may_be_asked_for(fake: FakeHub) -> None:
    assert listing(fake, COMMIT).commit == COMMIT


def test_a_mirror_that_gives_no_sizes_is_asked_for_the_tree(fake: FakeHub) -> None:
    straight = listing(fake)
    fake.sizes_in_info = False
    fake.log.clear()
    assert listing(fake) == straight
    assert [path.partition("?")[0] for path, _ in fake.log] == [
        "/api/models/o/n/revision/main",
        *[f"/api/models/o/n/tree/{COMMIT}"] * 3,  # pages
    ]


def test_only_the_query_is_taken_of_a_link_to_the_next_page(fake: FakeHub) -> None:
    """A mirror may pass on the Hub's own link; nobody else is asked, and nothing is left out."""
    straight = listing(fake)
    fake.sizes_in_info = False
    honest = fake.answer

    def answer(target: str) -> Answer:
        got = honest(target)
        if "Link" in got.headers:
            got.headers["Link"] = got.headers["Link"].replace(fake.url, "https://huggingface.example")
        return got

    fake.answer = answer  # type: ignore[method-assign]
    assert listing(fake) == straight
    assert len(fake.log) == 1 + 1 + 3


@pytest.mark.parametrize("query", ["?recursive=true", "", "?cursor=\x01", "?cursor=" + "x" * 70_000])
def test_pages_that_lead_nowhere_are_no_listing(fake: FakeHub, query: str) -> None:
    fake.instead = [Answer(body=fake.hf_info(blobs=False))]
    fake.forever = Answer(200, [], {"Link": f'<{fake.url}/api/models/o/n/tree/x{query}>; rel="next"'})
    assert "is no listing of o/n" in refusal(fake).message
    assert len(fake.log) == 2


def test_pages_without_end_are_no_listing(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "MAX_PAGES", 5)
    honest = fake.answer

    def answer(target: str) -> Answer:
        if "tree" not in target:
            return honest(target)
        return Answer(200, [], {"Link": f'<{fake.url}?cursor={len(fake.log)}>; rel="next"'})

    fake.sizes_in_info = False
    monkeypatch.setattr(fake, "answer", answer)
    assert "is no listing of o/n" in refusal(fake).message
    assert len(fake.log) == 1 + 5


def test_as_many_pages_as_there_may_be_are_read(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "MAX_PAGES", 3)
    fake.sizes_in_info = False
    assert len(listing(fake).files) == len(FILES)


@pytest.mark.parametrize("path", ["a b/ü#?%.gguf", "x~(1)+&=;@:,$!*'.gguf", "a/b/模型.gguf"])
@pytest.mark.parametrize("revision", [COMMIT, "refs/pr/1", "v1+#?"])
def test_urls_are_the_clients(fake: FakeHub, path: str, revision: str) -> None:
    url = hub_at(fake).locate("o/n", RemoteFile(path, 1, None, revision)).url
    assert url == hf_hub_url("o/n", path, revision=revision, endpoint=fake.url)


def test_a_url_holds_the_commit_and_is_quoted(fake: FakeHub) -> None:
    file = RemoteFile("a b/ü#?%.gguf", 1, None, COMMIT)
    address = hub_at(fake).locate("o/n", file)
    assert address.url == f"{fake.url}/o/n/resolve/{COMMIT}/a%20b/%C3%BC%23%3F%25.gguf"
    assert set(address.headers) == {"user-agent"}
    assert fake.log == []


def test_the_endpoint_of_the_environment_is_read_when_the_hub_is_opened(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", fake.url + "/")
    hub = open_hub("huggingface")
    assert hub.endpoint == fake.url
    assert hub.list_files("o/n").files
    assert hub.locate("o/n", RemoteFile("x", 1, None, "main")).url == f"{fake.url}/o/n/resolve/main/x"
    monkeypatch.delenv("HF_ENDPOINT")
    address = open_hub("huggingface").locate("o/n", RemoteFile("x", 1, None, "main"))
    assert address.url == "https://huggingface.co/o/n/resolve/main/x"


# --- tokens ---


def test_a_token_is_not_shown_to_a_mirror(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    hub = open_hub("huggingface")
    file = hub.list_files("o/n").files[0]
    assert "authorization" not in fake.log[0][1]
    assert "authorization" not in hub.locate("o/n", file).headers


def test_a_token_is_shown_to_hosts_that_the_user_trusts(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    address = hub_at(fake).locate("o/n", listing(fake).files[0])
    assert fake.log[0][1]["authorization"] == "Bearer hf_secret"
    assert address.headers["authorization"] == "Bearer hf_secret"
    assert "hf_secret" not in repr(address)


def test_a_token_goes_to_the_hub_itself(clean_environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    file = RemoteFile("x", 1, None, "main")
    assert open_hub("huggingface").locate("o/n", file).headers["authorization"] == "Bearer hf_secret"
    mirror = open_hub("huggingface", endpoint="https://hf-mirror.com")
    assert "authorization" not in mirror.locate("o/n", file).headers


def test_no_token_is_shown_unasked_where_the_client_is_told_so(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    listing(fake)
    assert "authorization" not in fake.log[0][1]


def test_a_token_in_the_clients_file_is_found(
    fake: FakeHub, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clean_environment / "hf-token").write_text("hf_from_file\n")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    listing(fake)
    assert fake.log[0][1]["authorization"] == "Bearer hf_from_file"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "hf_\u00fc".encode(), None])
def test_a_broken_token_file_is_an_error_with_a_way_out(
    clean_environment: Path, content: bytes | None
) -> None:
    file = clean_environment / "hf-token"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(AccessError, match="token of huggingface_hub") as caught:
        open_hub("huggingface").locate("o/n", RemoteFile("x", 1, None, "main"))
    assert caught.value.hint == "run 'hf auth login' again, or set HF_TOKEN"
    assert token_found_by("huggingface") is None


@pytest.mark.skipif(not hasattr(errors, "OIDCError"), reason="huggingface_hub 1 knows no CI providers")
def test_a_ci_providers_token_that_is_not_there(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_OIDC_RESOURCE", "o/n")
    for name in ("HF_OIDC_ID_TOKEN", "GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AccessError) as caught:
        open_hub("huggingface").list_files("o/n")
    assert caught.value.hint == "unset HF_OIDC_RESOURCE"
    assert token_found_by("huggingface") is None


def test_a_redirect_to_another_host_is_not_shown_the_token(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    elsewhere = fake.url.replace("127.0.0.1", "localhost") + "/api/models/o/n/revision/main?blobs=true"
    fake.instead = [Answer(307, "", {"Location": elsewhere})]
    assert listing(fake).files
    assert ["authorization" in headers for _, headers in fake.log] == [True, False]


def test_no_error_shows_the_token(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    fake.forever = Answer(401, "", {"X-Error-Message": "Invalid credentials in Authorization header"})
    error = refusal(fake)
    assert isinstance(error, AccessError)
    assert "hf_secret" not in f"{error.message} {error.hint} {error.__cause__}"


# --- faults that pass ---


def test_a_busy_hub_is_asked_again(fake: FakeHub, naps: list[float]) -> None:
    fake.instead = [BUSY, Answer(500), Answer(502)]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [1, 2, 4]


def test_a_rate_limit_is_honoured(fake: FakeHub, naps: list[float]) -> None:
    fake.instead = [Answer(429, "", {"Retry-After": "7"}), Answer(429, "", {"RateLimit": '"api";r=0;t=8'})]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [7, 9]


def test_a_busy_tree_is_asked_again(fake: FakeHub, naps: list[float]) -> None:
    fake.sizes_in_info = False
    info = Answer(body=fake.hf_info(blobs=False))
    fake.instead = [info, BUSY, info, Answer(429, "", {"Retry-After": "5"})]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [1, 5]


def test_the_client_waits_for_no_tree_behind_our_back(fake: FakeHub, naps: list[float]) -> None:
    fake.instead = [Answer(body=fake.hf_info(blobs=False))]
    fake.forever = Answer(429, "", {"Retry-After": "3600"})
    assert "status 429" in refusal(fake).message
    assert (naps, len(fake.log)) == ([], 2)


def test_a_retry_is_told(fake: FakeHub, naps: list[float]) -> None:
    notes: list[str] = []

    class Listener(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    fake.instead = [BUSY]
    open_hub("huggingface", endpoint=fake.url, progress=Listener()).list_files("o/n")
    where = fake.url.removeprefix("http://")
    assert notes == [
        f"Hugging Face at {where} answered with status 503 for o/n; trying again in 1 s (2 of 4)"
    ]


def test_a_hub_that_stays_busy_names_the_other(fake: FakeHub, naps: list[float]) -> None:
    fake.forever = BUSY
    error = refusal(fake)
    assert isinstance(error, NetworkError)
    assert error.exit_code == 5
    assert "ms:o/n asks ModelScope" in (error.hint or "")
    assert len(fake.log) == calls.N_TRIES


def test_a_long_rate_limit_is_not_waited_for(fake: FakeHub, naps: list[float]) -> None:
    fake.forever = Answer(429, "", {"Retry-After": "3600"})
    assert "status 429" in refusal(fake).message
    assert (naps, len(fake.log)) == ([], 1)


def test_nobody_listens(clean_environment: Any, naps: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NetworkError, match="can't be reached: Connection refused"):
            open_hub("huggingface", endpoint=url).list_files("o/n")
    assert len(naps) == calls.N_TRIES_UNANSWERED - 1


@pytest.mark.parametrize("with_tree", [False, True])
def test_a_hub_that_never_answers_is_given_up(
    fake: FakeHub, naps: list[float], monkeypatch: pytest.MonkeyPatch, with_tree: bool
) -> None:
    """Both requests have a time limit."""
    monkeypatch.setattr(calls, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setattr(calls, "N_TRIES", 2)
    honest, given_up = fake.answer, threading.Event()

    def answer(target: str) -> Answer:
        if "tree" in target or not with_tree:
            given_up.wait(10)
        return honest(target)

    fake.sizes_in_info = not with_tree
    monkeypatch.setattr(fake, "answer", answer)
    start = time.perf_counter()
    assert "timed out" in refusal(fake).message
    given_up.set()
    assert time.perf_counter() - start < 9


# --- refusals ---


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(404, "", {"X-Error-Code": "RepoNotFound"}), NotFoundError, "has no repo o/n, or it is"),
        (Answer(401, "", {"X-Error-Code": "RepoNotFound"}), NotFoundError, "has no repo o/n, or it is"),
        (Answer(404, "", {"X-Error-Code": "RevisionNotFound"}), NotFoundError, "no revision nope in o/n"),
        (Answer(403, "", {"X-Error-Code": "GatedRepo"}), AccessError, "accepted the terms of o/n"),
        (Answer(403, ""), AccessError, "does not let us read o/n"),
        (Answer(404, "<html>"), NotFoundError, "has no repo o/n with revision nope"),
        (Answer(400, "bad"), NetworkError, "status 400"),
        (Answer(200, "<html>", {"Content-Type": "text/html"}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "sha": "../x", "siblings": []}), NetworkError, "is no listing of o/n"),
        (Answer(200, ""), NetworkError, "is no listing of o/n"),
        (Answer(200, "[]"), NetworkError, "is no listing of o/n"),
        (Answer(200, "null"), NetworkError, "is no listing of o/n"),
        (Answer(200, "{}"), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "sha": COMMIT, "siblings": 7}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "sha": COMMIT, "siblings": [{}]}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "siblings": []}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "sha": 7}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "siblings": {"rfilename": "a"}}), NetworkError, "is no listing of o/n"),
        (Answer(200, {"id": "o/n", "siblings": ["a"]}), NetworkError, "is no listing of o/n"),
        (Answer(200, "[" * 100_000), NetworkError, "is no listing of o/n"),
        (Answer(200, "\xff\ufffe"), NetworkError, "is no listing of o/n"),
        (Answer(300, {}), NetworkError, "is no listing of o/n"),
        (Answer(418, "[]"), NetworkError, "status 418"),
        (Answer(404, "null"), NotFoundError, "has no repo o/n with revision nope"),
    ],
)  # fmt: skip
def test_refusals(fake: FakeHub, naps: list[float], answer: Answer, kind: type, words: str) -> None:
    fake.forever = answer
    error = refusal(fake, "nope")
    assert type(error) is kind
    assert words in error.message
    assert naps == []


@pytest.mark.parametrize("location", ["http://127.0.0.1:70000/", "ftp://127.0.0.1/", "?again"])
def test_a_redirect_that_leads_nowhere(fake: FakeHub, naps: list[float], location: str) -> None:
    fake.forever = Answer(307, "", {"Location": location})
    assert "can't be reached" in refusal(fake).message


@pytest.mark.parametrize(
    "page",
    [{}, "null", "7", '"abc"', [7], ["a"], [{}], [[]], [{"type": "file"}], [{"type": "file", "path": "a"}],
     [{"type": "file", "path": "a", "size": "7"}], [{"type": "file", "path": "a", "size": 1, "lfs": 7}],
     [{"type": "file", "path": "a", "size": 1, "lfs": {"size": 1}}], "<html>", "[" * 100_000],
)  # fmt: skip
def test_a_tree_that_is_none(fake: FakeHub, page: Any) -> None:
    fake.instead = [Answer(body=fake.hf_info(blobs=False))]
    fake.forever = Answer(200, page)
    error = refusal(fake)
    assert type(error) is NetworkError
    assert "is no listing of o/n" in error.message


@pytest.mark.parametrize("body", ["[]", "null", '{"error": 7}', '{"errors": 7}', "[" * 100_000])
def test_the_words_of_a_refusal_do_not_hide_its_status(fake: FakeHub, naps: list[float], body: str) -> None:
    fake.instead = [Answer(503, body)]
    assert len(listing(fake).files) == len(FILES)
    assert naps == [1]


def test_where_a_gated_repo_can_be_opened(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", "127.0.0.1")
    fake.forever = Answer(403, "", {"X-Error-Code": "GatedRepo"})
    assert refusal(fake).hint == f"accept them at {fake.url}/o/n, then set HF_TOKEN"


@pytest.mark.parametrize("repo_id", ["o/a--b", "o/n.git"])
def test_a_name_that_only_modelscope_allows(fake: FakeHub, repo_id: str) -> None:
    with pytest.raises(NotFoundError) as caught:  # so that whoever asks both goes on to the other
        hub_at(fake).list_files(repo_id)
    assert caught.value.hint == f"ms:{repo_id} asks ModelScope"
    assert fake.log == []


@pytest.mark.parametrize("repo_id", ["n", "o/n/m", "o/..", "o/n?x"])
def test_what_is_no_repo_is_not_asked_for(fake: FakeHub, repo_id: str) -> None:
    with pytest.raises(UsageError):
        hub_at(fake).list_files(repo_id)
    assert fake.log == []


def test_a_repo_that_was_renamed_is_found_and_its_new_name_told(fake: FakeHub) -> None:
    class Listener(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    notes: list[str] = []
    fake.instead = [Answer(307, "", {"Location": "/api/models/o/n/revision/main?blobs=true"})]
    got = open_hub("huggingface", endpoint=fake.url, progress=Listener()).list_files("o/old-n")
    assert len(got.files) == len(FILES) and got.repo_id == "o/old-n"
    assert notes == ["o/old-n is now called o/n"]


def test_offline_mode(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(fake).message


# --- hostile listings ---


@pytest.mark.parametrize(
    "path", ["../../.ssh/authorized_keys", "/etc/passwd", "C:\\x", "a\u001b[2J", "\ud800", ""]
)
@pytest.mark.parametrize("sizes_in_info", [True, False])
def test_unsafe_paths_are_refused(fake: FakeHub, path: str, sizes_in_info: bool) -> None:
    fake.files = {"fine.gguf": 1, path: 1}
    fake.sizes_in_info = sizes_in_info
    assert isinstance(refusal(fake), IntegrityError)


@pytest.mark.parametrize("size", [-1, 1.5, "7", None, [1]])
def test_impossible_sizes_are_refused(fake: FakeHub, size: Any) -> None:
    fake.forever = Answer(200, {"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": "a", "size": size}]})
    assert "is no listing of o/n" in refusal(fake).message


def test_an_impossible_digest_is_refused(fake: FakeHub) -> None:
    lfs = {"sha256": "../x", "size": 1, "pointerSize": 134}
    sibling = {"rfilename": "a.gguf", "size": 1, "lfs": lfs}
    fake.forever = Answer(200, {"id": "o/n", "sha": COMMIT, "siblings": [sibling]})
    assert "is no listing of o/n" in refusal(fake).message


def test_nothing_is_printed(fake: FakeHub, naps: list[float], capfd: pytest.CaptureFixture[str]) -> None:
    fake.sizes_in_info = False
    fake.instead = [BUSY, Answer(body=fake.hf_info(blobs=False)), BUSY]
    listing(fake)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("huggingface_hub").level < logging.CRITICAL
