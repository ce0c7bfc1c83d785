"""The suite's own hub: each fault does what it says, and the log tells what happened."""

from __future__ import annotations

import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server.asking import ask
from tests.support.faults import Budget, Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub, write_repo

SHARD = f"{FOLDER}/{FOLDER}-00002-of-00004.gguf"
FILE = f"/{REPO_ID}/resolve/main/{SHARD}"
TREE = f"/api/models/{REPO_ID}/tree/main"
LENGTH = 200_007


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return write_repo(tmp_path / "root")


@pytest.fixture
def hub(tmp_path: Path, files: dict[str, bytes]) -> Iterator[TestHub]:
    with run_hub(tmp_path / "root") as hub:
        yield hub


@pytest.fixture
def two_planes(tmp_path: Path, files: dict[str, bytes]) -> Iterator[TestHub]:
    with run_hub(tmp_path / "root", cdn=True) as hub:
        yield hub


def cut_after(url: str, path: str = FILE, headers: dict[str, str] | None = None) -> int:
    """Ask for a file whose answer breaks off, and give how many bytes came."""
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(url, path, headers=headers)
    return len(broken.value.partial)


def test_status_and_headers(hub: TestHub) -> None:
    fault = hub.add(Fault(path="00002-of", status=429, headers={"Retry-After": "3"}, times=2))
    for _ in range(2):
        answer = ask(hub.url, FILE)
        assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "3", b"")
    assert ask(hub.url, FILE).status == 200
    assert fault.hits == 2
    assert [one.status for one in hub.asked()] == [429, 429, 200]
    assert hub.requests[0].faults == (fault,) and hub.requests[2].faults == ()


def test_a_rule_meets_its_path_method_and_turn_only(hub: TestHub) -> None:
    hub.add(Fault(path="00002-of", method="HEAD", status=503, skip=1, times=1))
    asked = [("GET", FILE), ("HEAD", TREE), ("HEAD", FILE), ("HEAD", FILE), ("HEAD", FILE)]
    assert [ask(hub.url, path, method=method).status for method, path in asked] == [200, 200, 200, 503, 200]


def test_headers_alone_are_added(hub: TestHub) -> None:
    hub.add(Fault(headers={"X-Xet-Hash": "1234"}))
    answer = ask(hub.url, FILE)
    assert (answer.status, answer.headers["x-xet-hash"], len(answer.body)) == (200, "1234", LENGTH)


@pytest.mark.parametrize("n_bytes", [0, 1, 65_536, LENGTH - 1])
def test_cut(hub: TestHub, n_bytes: int) -> None:
    hub.add(Fault(path="00002-of", cut_after_bytes=n_bytes, times=1))
    assert cut_after(hub.url) == n_bytes == hub.sent_bytes()
    assert len(ask(hub.url, FILE).body) == LENGTH


def test_cut_counts_from_the_range(hub: TestHub) -> None:
    hub.add(Fault(path="00002-of", cut_after_bytes=10))
    assert cut_after(hub.url, headers={"Range": "bytes=1000-1999"}) == 10
    assert ask(hub.url, FILE, headers={"Range": "bytes=1000-1009"}).status == 206, "no more was asked"


def test_a_listing_can_be_cut(hub: TestHub) -> None:
    hub.add(Fault(path="/tree/", cut_after_bytes=20))
    assert cut_after(hub.url, TREE) == 20


@pytest.mark.parametrize(
    ("asked", "at"),
    [(None, 70_000), ("bytes=69990-70009", 10), ("bytes=0-69999", None), ("bytes=70001-", None)],
)
def test_flipped_byte(hub: TestHub, files: dict[str, bytes], asked: str | None, at: int | None) -> None:
    honest = ask(hub.url, FILE, headers={"Range": asked} if asked else {}).body
    hub.add(Fault(path="00002-of", flip_byte_at=70_000))
    flipped = ask(hub.url, FILE, headers={"Range": asked} if asked else {}).body
    different = [n for n, (one, two) in enumerate(zip(honest, flipped, strict=True)) if one != two]
    assert different == ([] if at is None else [at])
    if at is not None:
        assert flipped[at] == honest[at] ^ 0xFF


def test_range_ignored(hub: TestHub, files: dict[str, bytes]) -> None:
    hub.add(Fault(path="00002-of", ignore_range=True))
    answer = ask(hub.url, FILE, headers={"Range": "bytes=5-9"})
    assert (answer.status, answer.headers.get("content-range")) == (200, None)
    assert answer.body == files[SHARD]


def test_rate(hub: TestHub) -> None:
    hub.add(Fault(path="00002-of", bytes_per_s=400_000))
    started_s = time.monotonic()
    assert len(ask(hub.url, FILE).body) == LENGTH
    assert 0.4 < time.monotonic() - started_s < 5
    (log,) = hub.asked()
    assert (log.ended_s or 0) - log.started_s > 0.4


def test_stall(hub: TestHub) -> None:
    hub.add(Fault(path="00002-of", stall_s=0.5, stall_after_bytes=1000))
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)
    connection.request("GET", FILE)
    response = connection.getresponse()
    started_s = time.monotonic()
    assert len(response.read(1000)) == 1000
    assert time.monotonic() - started_s < 0.4
    assert len(response.read()) == LENGTH - 1000
    assert time.monotonic() - started_s > 0.4
    connection.close()


def test_a_stall_before_the_body_and_a_delay_before_the_answer(hub: TestHub) -> None:
    for fault in (Fault(path="00002-of", stall_s=0.3), Fault(path="00002-of", delay_s=0.3)):
        hub.forget()
        hub.add(fault)
        started_s = time.monotonic()
        assert len(ask(hub.url, FILE).body) == LENGTH
        assert time.monotonic() - started_s > 0.25


def test_stall_then_cut(hub: TestHub) -> None:
    hub.add(
        Fault(path="00002-of", stall_s=0.1, stall_after_bytes=50), Fault(path="00002-of", cut_after_bytes=70)
    )
    assert cut_after(hub.url) == 70
    assert len(hub.requests[0].faults) == 2


def test_more_announced_than_there_is(hub: TestHub) -> None:
    hub.add(Fault(path="00002-of", announced_bytes=LENGTH + 10))
    assert cut_after(hub.url) == LENGTH


def test_less_announced_than_there_is(hub: TestHub, files: dict[str, bytes]) -> None:
    hub.add(Fault(path="00002-of", announced_bytes=100))
    assert ask(hub.url, FILE).body == files[SHARD][:100]


def test_other_bodies(hub: TestHub) -> None:
    hub.add(
        Fault(path="00002-of", body=b"<html>log in</html>", headers={"Content-Type": "text/html"}, times=1)
    )
    page = ask(hub.url, FILE)
    assert (page.status, page.body) == (200, b"<html>log in</html>")
    assert page.headers["content-type"] == "text/html"
    hub.add(Fault(path="00002-of", body=b""))
    empty = ask(hub.url, FILE)
    assert (empty.status, empty.body, empty.headers["content-length"]) == (200, b"", "0")


def test_a_portal_answers_everything(hub: TestHub) -> None:
    hub.add(Fault(status=200, body=b"<html>log in</html>"))
    assert ask(hub.url, TREE).body == ask(hub.url, FILE).body == b"<html>log in</html>"


def test_wrong_content_range(hub: TestHub, files: dict[str, bytes]) -> None:
    hub.add(Fault(path="00002-of", content_range="bytes 0-9/200007"))
    answer = ask(hub.url, FILE, headers={"Range": "bytes=50-59"})
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 0-9/200007")
    assert answer.body == files[SHARD][50:60]


def test_shards_come_from_a_cdn_of_another_name(two_planes: TestHub, files: dict[str, bytes]) -> None:
    hub = two_planes
    assert urlsplit(hub.url).hostname == "127.0.0.1" and urlsplit(hub.cdn_url or "").hostname == "localhost"
    ms_file = f"/api/v1/models/{REPO_ID}/repo?Revision=master&FilePath={SHARD}"
    for method, path in (("HEAD", FILE), ("GET", FILE), ("GET", ms_file)):
        answer = ask(hub.url, path, method=method)
        assert (answer.status, answer.body) == (302, b"")
        assert int(answer.headers["x-linked-size"]) == LENGTH
        assert len(answer.headers["x-repo-commit"]) == 40
        assert answer.headers["x-linked-etag"].strip('"') in answer.headers["location"]
    with urllib.request.urlopen(f"{hub.url}{FILE}") as response:
        assert response.read() == files[SHARD]
    assert [(one.plane, one.status, one.sent_bytes) for one in hub.asked()[-2:]] == [
        ("hub", 302, 0),
        ("cdn", 200, LENGTH),
    ]
    assert ask(hub.url, f"/{REPO_ID}/resolve/main/README.md").body == files["README.md"], (
        "git files are inline"
    )


def test_the_cdn_does_ranges_and_wants_a_signature(two_planes: TestHub, files: dict[str, bytes]) -> None:
    location = ask(two_planes.url, FILE).headers["location"]
    address = location.removeprefix(two_planes.cdn_url or "")
    answer = ask(two_planes.cdn_url or "", address, headers={"Range": "bytes=10-19"})
    assert (answer.status, answer.body) == (206, files[SHARD][10:20])
    assert ask(two_planes.cdn_url or "", address.split("&Signature")[0]).status == 403
    assert ask(two_planes.cdn_url or "", "/lfs/none/none?Signature=x").status == 403


def test_links_expire(two_planes: TestHub) -> None:
    hub = two_planes
    cdn = hub.cdn_url or ""
    first = ask(hub.url, FILE).headers["location"].removeprefix(cdn)
    other = ask(hub.url, FILE.replace("00002", "00003")).headers["location"].removeprefix(cdn)
    hub.add(Fault(path="00002-of", plane="cdn", expire_link=True, times=1))
    assert [ask(cdn, first).status for _ in range(2)] == [403, 403]
    assert ask(cdn, other).status == 200
    assert ask(cdn, ask(hub.url, FILE).headers["location"].removeprefix(cdn)).status == 200, "asked anew"
    hub.expire_links()
    assert ask(cdn, other).status == 403
    hub.link_life_s = 0.05
    short = ask(hub.url, FILE).headers["location"].removeprefix(cdn)
    time.sleep(0.1)
    assert ask(cdn, short).status == 403


def test_body_faults_pass_over_redirects(two_planes: TestHub) -> None:
    fault = two_planes.add(Fault(path="00002-of", cut_after_bytes=5, times=1))
    location = ask(two_planes.url, FILE).headers["location"]
    assert fault.hits == 0
    cdn = two_planes.cdn_url or ""
    assert cut_after(cdn, location.removeprefix(cdn)) == 5
    assert fault.hits == 1


def test_a_plane_can_be_down_alone(two_planes: TestHub) -> None:
    two_planes.add(Fault(plane="cdn", status=503))
    assert ask(two_planes.url, TREE).status == 200
    with (
        pytest.raises(urllib.error.HTTPError, match="503"),
        urllib.request.urlopen(f"{two_planes.url}{FILE}"),
    ):
        pass


def test_the_log(hub: TestHub) -> None:
    ask(hub.url, FILE, headers={"Range": "bytes=0-9", "User-Agent": "me"})
    ask(hub.url, f"{TREE}?recursive=true")
    shard, tree = hub.asked()
    assert (shard.plane, shard.method, shard.path, shard.status) == ("hub", "GET", FILE, 206)
    assert (shard.range, shard.headers["user-agent"], shard.sent_bytes) == ("bytes=0-9", "me", 10)
    assert (tree.path, tree.range) == (f"{TREE}?recursive=true", None)
    assert hub.asked("recursive=true") == [tree] and hub.asked(method="HEAD") == []
    assert hub.sent_bytes("00002-of") == 10
    hub.forget()
    assert hub.requests == []


def test_a_client_that_hangs_up_is_logged_with_what_went_out(hub: TestHub, tmp_path: Path) -> None:
    with (tmp_path / "root" / REPO_ID / "big.gguf").open("wb") as file:
        file.truncate(64 << 20)
    hub.refresh()
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)
    connection.request("GET", f"/{REPO_ID}/resolve/main/big.gguf")
    response = connection.getresponse()
    response.read(1000)
    response.close()
    connection.close()
    hub.settle(timeout_s=30)
    assert hub.requests[-1].ended_s is not None
    assert 1000 <= hub.requests[-1].sent_bytes < 64 << 20


def test_digests_may_be_given(tmp_path: Path) -> None:
    write_repo(tmp_path)
    with run_hub(tmp_path, sha256s={f"{REPO_ID}/{SHARD}": "ab" * 32}) as hub:
        assert ask(hub.url, FILE, method="HEAD").headers["etag"] == f'"{"ab" * 32}"'


def test_a_huge_hole_is_served_fast_and_at_its_far_end(tmp_path: Path) -> None:
    path = tmp_path / REPO_ID / "huge.gguf"
    path.parent.mkdir(parents=True)
    n_bytes = 146 << 30
    with path.open("wb") as file:
        file.truncate(n_bytes - 4)
        file.seek(n_bytes - 4)
        file.write(b"tail")
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    with run_hub(tmp_path, sha256s={f"{REPO_ID}/huge.gguf": "ab" * 32}) as hub:
        address = f"/{REPO_ID}/resolve/main/huge.gguf"
        assert ask(hub.url, address, headers={"Range": f"bytes={n_bytes - 4}-"}).body == b"tail"
        assert int(ask(hub.url, address, method="HEAD").headers["content-length"]) == n_bytes
        started_s = time.monotonic()
        assert len(ask(hub.url, address, headers={"Range": "bytes=0-268435455"}).body) == 256 << 20
        assert time.monotonic() - started_s < 20


def test_it_stops_at_once_with_requests_under_way(tmp_path: Path) -> None:
    write_repo(tmp_path)
    before = set(threading.enumerate())
    with run_hub(tmp_path) as hub:
        hub.add(Fault(path="00002-of", stall_s=60, stall_after_bytes=10))
        connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)
        connection.request("GET", FILE)
        assert connection.getresponse().read(10) == hub_bytes(tmp_path)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 5
    connection.close()
    assert set(threading.enumerate()) <= before, "no thread of it is left"


def hub_bytes(root: Path) -> bytes:
    with (root / REPO_ID / SHARD).open("rb") as file:
        return os.read(file.fileno(), 10)


def test_a_cut_and_a_flip_at_an_offset_of_the_file_happen_as_often_as_they_may(
    hub: TestHub, files: dict[str, bytes]
) -> None:
    hub.add(Fault(cut_at=1000, budget=Budget(1)))
    assert ask(hub.url, FILE, headers={"Range": "bytes=2000-2999"}).body == files[SHARD][2000:3000]
    assert cut_after(hub.url, headers={"Range": "bytes=400-1999"}) == 600
    assert ask(hub.url, FILE).body == files[SHARD]
    hub.faults[:] = [Fault(flip_byte_at=1000, budget=Budget(2))]
    flipped = [ask(hub.url, FILE).body[1000] != files[SHARD][1000] for _ in range(3)]
    assert flipped == [True, True, False]
