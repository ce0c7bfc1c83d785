"""Both protocols by raw requests: shapes, ranges, refusals, and nothing outside the folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from ggufkit.server.context import Limits
from tests.server.asking import Answer, ask
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub, write_repo

SHARD = f"{FOLDER}/{FOLDER}-00002-of-00004.gguf"
HF_FILE = f"/{REPO_ID}/resolve/main/{SHARD}"
MS_FILE = f"/api/v1/models/{REPO_ID}/repo?Revision=master&FilePath={quote(SHARD, safe='')}"
MS_PAGE_FILE = f"/models/{REPO_ID}/resolve/master/{SHARD}"
TREE = f"/api/models/{REPO_ID}/tree/main"
MS_TREE = f"/api/v1/models/{REPO_ID}/repo/files"
INSIDE = b"what nobody may read"
ALL_FILES = pytest.mark.parametrize("path", [HF_FILE, MS_FILE, MS_PAGE_FILE])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestHub, dict[str, bytes]]]:
    root = tmp_path_factory.mktemp("hub") / "root"
    files = write_repo(root)
    (root.parent / "secret").write_bytes(INSIDE)
    (root / REPO_ID / "out").symlink_to(root.parent / "secret")
    (root / REPO_ID / ".ggufkit").mkdir()
    (root / REPO_ID / ".ggufkit/state").write_bytes(INSIDE)
    with run_hub(root) as hub:
        yield hub, files


@pytest.fixture
def hub(served: tuple[TestHub, dict[str, bytes]]) -> TestHub:
    return served[0]


@pytest.fixture
def files(served: tuple[TestHub, dict[str, bytes]]) -> dict[str, bytes]:
    return served[1]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@ALL_FILES
def test_a_file_comes_whole(hub: TestHub, files: dict[str, bytes], path: str) -> None:
    answer = ask(hub.url, path)
    assert (answer.status, answer.body) == (200, files[SHARD])
    digest = sha256(files[SHARD])
    assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{digest}"'
    assert int(answer.headers["content-length"]) == int(answer.headers["x-linked-size"]) == len(files[SHARD])
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert re.fullmatch("[0-9a-f]{40}", answer.headers["x-repo-commit"])


@ALL_FILES
def test_head_says_the_same_and_sends_nothing(hub: TestHub, path: str) -> None:
    whole, head = ask(hub.url, path), ask(hub.url, path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@ALL_FILES
@pytest.mark.parametrize(
    ("asked", "part", "content_range"),
    [
        ("bytes=0-0", slice(0, 1), "bytes 0-0/{}"),
        ("bytes=100-199", slice(100, 200), "bytes 100-199/{}"),
        ("bytes=200000-", slice(200000, None), "bytes 200000-200006/{}"),
        ("bytes=-5", slice(-5, None), "bytes 200002-200006/{}"),
        ("bytes=199990-999999", slice(199990, None), "bytes 199990-200006/{}"),
    ],
)
def test_ranges(
    hub: TestHub, files: dict[str, bytes], path: str, asked: str, part: slice, content_range: str
) -> None:
    answer = ask(hub.url, path, headers={"Range": asked})
    assert (answer.status, answer.body) == (206, files[SHARD][part])
    assert answer.headers["content-range"] == content_range.format(len(files[SHARD]))
    assert answer.headers["etag"] == f'"{sha256(files[SHARD])}"'


@ALL_FILES
@pytest.mark.parametrize(
    "asked", ["bytes=200007-", "bytes=-0", "bytes=9-8", "bytes=0-1,4-5", "x", "bytes=x-"]
)
def test_ranges_that_cannot_be_satisfied(
    hub: TestHub, files: dict[str, bytes], path: str, asked: str
) -> None:
    answer = ask(hub.url, path, headers={"Range": asked})
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(files[SHARD])}"


def test_head_has_no_ranges(hub: TestHub, files: dict[str, bytes]) -> None:
    answer = ask(hub.url, HF_FILE, method="HEAD", headers={"Range": "bytes=0-9"})
    assert (answer.status, int(answer.headers["content-length"])) == (200, len(files[SHARD]))


def test_if_range_of_other_content_gets_the_whole_file(hub: TestHub, files: dict[str, bytes]) -> None:
    for condition, status in ((f'"{sha256(files[SHARD])}"', 206), ('"other"', 200)):
        answer = ask(hub.url, HF_FILE, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert answer.status == status


def test_model_info(hub: TestHub, files: dict[str, bytes]) -> None:
    answer = ask(hub.url, f"/api/models/{REPO_ID}").json
    assert answer["id"] == answer["modelId"] == REPO_ID
    assert answer["siblings"] == [{"rfilename": path} for path in sorted(files)]
    by_commit = ask(hub.url, f"/api/models/{REPO_ID}/revision/{answer['sha']}?blobs=true").json
    assert by_commit["sha"] == answer["sha"]
    shard = next(one for one in by_commit["siblings"] if one["rfilename"] == SHARD)
    assert shard["lfs"] == {"sha256": sha256(files[SHARD]), "size": len(files[SHARD]), "pointerSize": 131}
    readme = next(one for one in by_commit["siblings"] if one["rfilename"] == "README.md")
    assert (readme["size"], len(readme["blobId"]), "lfs" in readme) == (len(files["README.md"]), 40, False)


def test_tree(hub: TestHub, files: dict[str, bytes]) -> None:
    top = ask(hub.url, TREE).json
    assert [(one["type"], one["path"]) for one in top] == [
        ("directory", FOLDER),
        ("file", "README.md"),
        ("file", "config.json"),
    ]
    inner = ask(hub.url, f"{TREE}/{FOLDER}").json
    assert [one["path"] for one in inner] == sorted(path for path in files if "/" in path)
    assert inner[1]["lfs"]["oid"] == sha256(files[SHARD])
    everything = ask(hub.url, f"{TREE}?recursive=true").json
    assert sorted(one["path"] for one in everything if one["type"] == "file") == sorted(files)
    assert "lastCommit" in ask(hub.url, f"{TREE}?expand=true").json[0]


def test_tree_comes_in_pages(tmp_path: Path) -> None:
    files = write_repo(tmp_path, n_shards=9, shard_bytes=100)
    with run_hub(tmp_path, limits=Limits(tree_entries=5)) as hub:
        path, paths, n_pages = f"{TREE}?recursive=true&expand=false", [], 0
        while path:
            answer = ask(hub.url, path)
            paths += [one["path"] for one in answer.json]
            n_pages += 1
            link = re.fullmatch(f'<{hub.url}(.*)>; rel="next"', answer.headers.get("link", ""))
            path = link[1] if link else ""
    assert (n_pages, len(paths), set(paths)) == (3, 12, {*files, FOLDER})


def test_paths_info(hub: TestHub, files: dict[str, bytes]) -> None:
    form = f"paths=README.md&paths={quote(SHARD)}&paths=none&paths={FOLDER}&expand=False".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    path = f"/api/models/{REPO_ID}/paths-info/main"
    answer = ask(hub.url, path, method="POST", headers=headers, body=form)
    assert [(one["type"], one["path"]) for one in answer.json] == [
        ("file", "README.md"),
        ("file", SHARD),
        ("directory", FOLDER),
    ]
    assert answer.json[1]["lfs"]["oid"] == sha256(files[SHARD])


def test_modelscope_listing(hub: TestHub, files: dict[str, bytes]) -> None:
    answer = ask(hub.url, f"{MS_TREE}?Revision=master&Recursive=True").json
    assert (answer["Code"], answer["Success"]) == (200, True)
    entries = {one["Path"]: one for one in answer["Data"]["Files"]}
    assert set(entries) == {*files, FOLDER}
    assert entries[FOLDER]["Type"] == "tree"
    for path, content in files.items():
        one = entries[path]
        assert (one["Type"], one["Size"], one["Sha256"]) == ("blob", len(content), sha256(content))
        assert (one["Name"], one["IsLFS"]) == (path.split("/")[-1], path.endswith(".gguf"))
        pinned = ask(hub.url, f"/models/{REPO_ID}/resolve/{one['Revision']}/{path}")
        assert pinned.body == content, "a file's own revision can be asked for"


def test_modelscope_listing_of_a_folder(hub: TestHub) -> None:
    top = ask(hub.url, f"{MS_TREE}?Recursive=False").json["Data"]["Files"]
    assert [one["Path"] for one in top] == [FOLDER, "README.md", "config.json"]
    inner = ask(hub.url, f"{MS_TREE}?Root={FOLDER}").json["Data"]["Files"]
    assert len(inner) == 4


def test_modelscope_listing_can_be_cut(tmp_path: Path) -> None:
    write_repo(tmp_path)
    with run_hub(tmp_path, limits=Limits(files_entries=3)) as hub:
        assert len(ask(hub.url, f"{MS_TREE}?Recursive=True").json["Data"]["Files"]) == 3


def test_modelscope_info_and_revisions(hub: TestHub, files: dict[str, bytes]) -> None:
    info = ask(hub.url, f"/api/v1/models/{REPO_ID}").json["Data"]
    assert f"{info['Path']}/{info['Name']}" == REPO_ID
    assert info["StorageSize"] == sum(map(len, files.values()))
    revisions = ask(hub.url, f"/api/v1/models/{REPO_ID}/revisions").json["Data"]["RevisionMap"]
    assert [one["Revision"] for one in revisions["Branches"]] == ["master"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/none/none", "RepoNotFound"),
        ("/api/models/none/none/revision/main", "RepoNotFound"),
        ("/api/models/none/none/tree/main", "RepoNotFound"),
        ("/none/none/resolve/main/README.md", "RepoNotFound"),
        (f"/api/models/{REPO_ID}/revision/none", "RevisionNotFound"),
        (f"/api/models/{REPO_ID}/tree/refs%2Fpr%2F1", "RevisionNotFound"),
        (f"/{REPO_ID}/resolve/{'0' * 40}/README.md", "RevisionNotFound"),
        (f"/{REPO_ID}/resolve/main/none", "EntryNotFound"),
        (f"/{REPO_ID}/resolve/main/{FOLDER}", "EntryNotFound"),
        (f"{TREE}/none", "EntryNotFound"),
        ("/api/whoami-v2", None),
        ("/none", None),
    ],
)
def test_refusals_of_hugging_face(hub: TestHub, path: str, code: str | None) -> None:
    answer = ask(hub.url, path)
    assert (answer.status, answer.headers.get("x-error-code")) == (404, code)
    assert answer.json["error"] == answer.headers["x-error-message"]
    assert ask(hub.url, path, method="HEAD").headers.get("x-error-code") == code


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/models/none/none",
        "/api/v1/models/none/none/repo/files?Revision=master",
        f"{MS_TREE}?Revision=none",
        f"{MS_TREE}?Root=none",
        f"/api/v1/models/{REPO_ID}/repo?Revision=master&FilePath=none",
        f"/api/v1/models/{REPO_ID}/repo",
        f"/models/{REPO_ID}/resolve/master/none",
        "/api/v1/repos/internalAccelerationInfo",
        "/openapi/v1/models/none/none",
    ],
)
def test_refusals_of_modelscope(hub: TestHub, path: str) -> None:
    answer = ask(hub.url, path)
    assert answer.status == 404
    assert (answer.json["Success"], answer.json["Data"]) == (False, None)
    assert answer.json["Code"] != 200 and answer.json["Message"] and answer.json["RequestId"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("path", ["/", HF_FILE, MS_FILE, TREE, f"/api/models/{REPO_ID}", "/none"])
def test_nothing_is_written(hub: TestHub, method: str, path: str) -> None:
    answer = ask(hub.url, path, method=method, body=b"x")
    assert (answer.status, answer.headers.get("allow")) in {(405, "GET, HEAD"), (400, None)}


def test_paths_info_is_only_asked_by_post(hub: TestHub) -> None:
    assert ask(hub.url, f"/api/models/{REPO_ID}/paths-info/main", method="PUT").status == 405
    assert ask(hub.url, f"/{REPO_ID}/resolve/main/paths-info/x", method="POST").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "../../secret",
        "../../../secret",
        "%2e%2e/%2e%2e/%2e%2e/secret",
        "..%2f..%2f..%2fsecret",
        "%252e%252e/secret",
        "/etc/passwd",
        "//etc/passwd",
        "%2Fetc%2Fpasswd",
        "..\\..\\secret",
        "%5c..%5csecret",
        "out",
        ".ggufkit/state",
        "%2eggufkit/state",
        f"{FOLDER}/../.ggufkit/state",
        f"{FOLDER}/../README.md",
        "./README.md",
        "README.md/",
        "README.md%00",
        "README.md%0d%0aX-Evil:%201",
    ],
)
def test_nothing_outside_the_listing_is_served(hub: TestHub, path: str) -> None:
    for address in (
        f"/{REPO_ID}/resolve/main/{path}",
        f"/models/{REPO_ID}/resolve/master/{path}",
        f"/api/v1/models/{REPO_ID}/repo?Revision=master&FilePath={path}",
        f"{TREE}/{path}",
        f"/{path}",
    ):
        answer = ask(hub.url, address)
        assert answer.status in (400, 404), address
        assert INSIDE not in answer.body
        assert "x-evil" not in answer.headers


def test_hidden_things_are_not_listed(hub: TestHub, files: dict[str, bytes]) -> None:
    listed = [one["path"] for one in ask(hub.url, f"{TREE}?recursive=true").json]
    assert set(listed) == {*files, FOLDER}


def test_the_page_tells_what_to_set(hub: TestHub) -> None:
    text = ask(hub.url, "/")
    assert text.headers["content-type"].startswith("text/plain")
    assert f"HF_ENDPOINT={hub.url}" in text.body.decode()
    assert f"MODELSCOPE_ENDPOINT={hub.url}" in text.body.decode()
    assert f"{REPO_ID}  6 files" in text.body.decode()
    page = ask(hub.url, "/", headers={"Accept": "text/html,*/*", "Host": "<script>.example"})
    assert page.headers["content-type"].startswith("text/html")
    assert b"<script>" not in page.body
    assert ask(hub.url, "/", method="HEAD").status == 200


@pytest.mark.parametrize("host", ["", "a b", "[", "x:y:z", "example.com:99999"])
def test_a_broken_host_header_is_no_server_error(hub: TestHub, host: str) -> None:
    for path in ("/", f"{TREE}?recursive=true"):
        assert ask(hub.url, path, headers={"Host": host}).status in (200, 400)


def test_a_file_changed_on_disk_is_gone_until_it_is_listed_again(tmp_path: Path) -> None:
    write_repo(tmp_path)
    with run_hub(tmp_path) as hub:
        (tmp_path / REPO_ID / SHARD).write_bytes(b"GGUF other content")
        for path in (HF_FILE, MS_FILE):
            answer = ask(hub.url, path)
            assert (answer.status, b"changed" in answer.body) == (404, True)
        assert ask(hub.url, HF_FILE, method="HEAD").headers["x-error-code"] == "EntryNotFound"
        hub.refresh()
        assert ask(hub.url, HF_FILE).body == b"GGUF other content"


def test_names_with_odd_characters(tmp_path: Path) -> None:
    names = ["a b.gguf", "模型.gguf", "100%.gguf", "a+b&c=d#e?.gguf", "x.gguf.gz"]
    for name in names:
        (tmp_path / "o/n").mkdir(parents=True, exist_ok=True)
        (tmp_path / "o/n" / name).write_bytes(name.encode())
    (tmp_path / "o/n/x.gguf").write_bytes(b"plain")
    with run_hub(tmp_path) as hub:
        assert {one["path"] for one in ask(hub.url, "/api/models/o/n/tree/main").json} == {*names, "x.gguf"}
        for name in names:
            assert ask(hub.url, f"/o/n/resolve/main/{quote(name)}").body == name.encode()
            address = f"/api/v1/models/o/n/repo?FilePath={quote(name, safe='')}"
            assert ask(hub.url, address).body == name.encode()
        plain: Answer = ask(hub.url, "/o/n/resolve/main/x.gguf", headers={"Accept-Encoding": "gzip"})
        assert (plain.body, plain.headers.get("content-encoding")) == (b"plain", None)


def test_numbers_beyond_all_measure_are_no_server_error(hub: TestHub) -> None:
    for path in (f"{TREE}?cursor={'9' * 5000}", f"{TREE}?cursor=-1", f"{TREE}?cursor=x"):
        assert len(ask(hub.url, path).json) == 3
    assert ask(hub.url, HF_FILE, headers={"Range": f"bytes={'9' * 5000}-"}).status == 416


def test_a_file_cut_while_it_is_sent_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "o/n/a.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, 64 << 20)
    with run_hub(tmp_path) as hub:
        connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=30)
        connection.request("GET", "/o/n/resolve/main/a.gguf")
        response = connection.getresponse()
        os.truncate(path, 1 << 20)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
        connection.close()


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "o/n").mkdir(parents=True)
    (tmp_path / "o/n/empty.gguf").touch()
    with run_hub(tmp_path) as hub:
        answer = ask(hub.url, "/o/n/resolve/main/empty.gguf")
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
        assert ask(hub.url, "/o/n/resolve/main/empty.gguf", headers={"Range": "bytes=0-"}).status == 416
