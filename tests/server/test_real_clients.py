"""The clients that people have, against the server, as it is and with a CDN behind it: every byte the same.

Each runs in a process of its own: both freeze their environment when they are imported.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub, write_repo

SHARD = f"{FOLDER}/{FOLDER}-00002-of-00004.gguf"
BIN = Path(sys.executable).parent
SHARDS_ONLY = f"{FOLDER}/*.gguf"


@dataclass
class Place:
    """A hub, what it serves, and an empty home to use it from."""

    hub: TestHub
    files: dict[str, bytes]
    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a client to its end, successfully."""
        done = self.try_to(*arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def try_to(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a client to its end."""
        environment = self.hub.client_env(self.home)
        return subprocess.run(
            arguments, env=environment, cwd=self.home, capture_output=True, text=True, timeout=120
        )

    def python(self, script: str) -> Any:
        """Run a script in a process of its own, and give what it put into `result`."""
        code = f"{textwrap.dedent(script)}\nimport json; print('\\n' + json.dumps(result))"
        return json.loads(self.run(sys.executable, "-c", code).stdout.splitlines()[-1])

    def got(self, folder: str) -> dict[str, bytes]:
        """Read what a client put into a folder, but for its own hidden files."""
        root = self.home / folder
        paths = [path for path in root.rglob("*") if path.is_file()]
        names = {path.relative_to(root).as_posix(): path for path in paths}
        return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}

    @property
    def shards(self) -> dict[str, bytes]:
        return {path: content for path, content in self.files.items() if path.endswith(".gguf")}


@pytest.fixture(params=[False, True], ids=["inline", "cdn"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    files = write_repo(tmp_path / "root")
    home = tmp_path / "home"
    home.mkdir()
    with run_hub(tmp_path / "root", cdn=request.param) as hub:
        yield Place(hub, files, home)


def test_huggingface_hub_lists(place: Place) -> None:
    result = place.python(f"""
        from huggingface_hub import HfApi
        api = HfApi()
        tree = list(api.list_repo_tree("{REPO_ID}", recursive=True))
        info = api.model_info("{REPO_ID}", files_metadata=True)
        some = api.get_paths_info("{REPO_ID}", ["README.md", "{SHARD}", "none", "{FOLDER}"])
        result = dict(
            tree=[(f.path, f.size, f.lfs and f.lfs.sha256) for f in tree if hasattr(f, "size")],
            folders=[f.path for f in tree if not hasattr(f, "size")],
            siblings=[(f.rfilename, f.size, f.lfs and f.lfs.sha256) for f in info.siblings],
            sha=info.sha,
            some=[f.path for f in some],
        )
    """)
    expected = [
        [path, len(content), hashlib.sha256(content).hexdigest() if path.endswith(".gguf") else None]
        for path, content in sorted(place.files.items())
    ]
    assert result["tree"] == result["siblings"] == expected
    assert result["folders"] == [FOLDER]
    assert len(result["sha"]) == 40
    assert result["some"] == ["README.md", SHARD, FOLDER]


def test_huggingface_hub_downloads(place: Place) -> None:
    result = place.python(f"""
        from huggingface_hub import HfFileSystem, hf_hub_download, snapshot_download
        snapshot_download("{REPO_ID}", allow_patterns="{SHARDS_ONLY}", local_dir="some")
        one = hf_hub_download("{REPO_ID}", "{SHARD}")
        with HfFileSystem().open("{REPO_ID}/{SHARD}", block_size=4096) as file:
            file.seek(100_000)
            middle = file.read(100).hex()
        result = dict(one=open(one, "rb").read().hex(), middle=middle)
    """)
    assert place.got("some") == place.shards
    assert bytes.fromhex(result["one"]) == place.files[SHARD]
    assert bytes.fromhex(result["middle"]) == place.files[SHARD][100_000:100_100]
    ranges = [one.range for one in place.hub.asked(r"00002-of-00004\.gguf", method="GET") if one.range]
    assert ranges and all(one is not None and one.startswith("bytes=100000-") for one in ranges)
    assert place.hub.sent_bytes("00003-of") == len(place.files[SHARD.replace("00002", "00003")])


def test_huggingface_hub_names_what_is_missing(place: Place) -> None:
    result = place.python(f"""
        from huggingface_hub import HfApi, hf_hub_download
        result = []
        for repo, revision, path in [
            ("none/none", None, "x"), ("{REPO_ID}", "none", "x"), ("{REPO_ID}", None, "none")
        ]:
            try:
                hf_hub_download(repo, path, revision=revision)
            except Exception as error:
                result.append(type(error).__name__)
            try:
                list(HfApi().list_repo_tree(repo, path, revision=revision))
            except Exception as error:
                result.append(type(error).__name__)
    """)
    missing = ["RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"]
    assert result == [name for name in missing for _ in range(2)]


def test_hf_downloads_and_verifies(place: Place) -> None:
    place.run(BIN / "hf", "download", REPO_ID, "--local-dir", "all")
    assert place.got("all") == place.files
    verified = place.run(BIN / "hf", "cache", "verify", REPO_ID, "--local-dir", "all")
    assert "6 file(s)" in verified.stdout
    (place.home / "all" / SHARD).write_bytes(b"damaged")
    (place.home / "all/README.md").write_bytes(b"damaged")
    damaged = place.try_to(BIN / "hf", "cache", "verify", REPO_ID, "--local-dir", "all")
    assert damaged.returncode == 1
    assert SHARD in damaged.stdout + damaged.stderr and "README.md" in damaged.stdout + damaged.stderr


def test_the_endpoint_is_all_that_huggingface_hub_needs(place: Place) -> None:
    place.python(f"""
        import os
        del os.environ["HF_HUB_DISABLE_XET"]
        from huggingface_hub import snapshot_download
        result = snapshot_download("{REPO_ID}", local_dir="all")
    """)
    assert place.got("all") == place.files


def test_modelscope_lists_and_downloads(place: Place) -> None:
    result = place.python(f"""
        from modelscope import snapshot_download
        from modelscope_hub import HubApi
        files = HubApi().list_repo_files("{REPO_ID}", "model")
        snapshot_download("{REPO_ID}", allow_patterns=["{SHARDS_ONLY}"], local_dir="some")
        snapshot_download("{REPO_ID}", cache_dir="cache")
        result = [(f.path, f.size, f.sha256) for f in files if f.type == "blob"]
    """)
    assert result == [
        [path, len(content), hashlib.sha256(content).hexdigest()]
        for path, content in sorted(place.files.items())
    ]
    assert place.got("some") == place.shards
    cached = {path.split("/snapshots/master/")[-1]: data for path, data in place.got("cache").items()}
    assert {path: data for path, data in cached.items() if path in place.files} == place.files


def test_modelscope_command_downloads(place: Place) -> None:
    place.run(BIN / "modelscope", "download", "--model", REPO_ID, "--local_dir", "all")
    assert place.got("all") == place.files


def test_modelscope_names_what_is_missing(place: Place) -> None:
    result = place.python(f"""
        from modelscope_hub import HubApi
        result = []
        for repo, revision in [("none/none", None), ("{REPO_ID}", "none")]:
            try:
                HubApi().list_repo_files(repo, "model", revision=revision)
            except Exception as error:
                result.append(type(error).__name__)
    """)
    assert result == ["NotExistError", "NotExistError"]


def test_modelscope_knows_the_branches(place: Place) -> None:
    result = place.python(f"""
        from modelscope.hub.api import HubApi
        branches, tags = HubApi().get_model_branches_and_tags("{REPO_ID}")
        result = [branches, tags]
    """)
    assert result == [["master"], []]


def test_modelscope_resumes_what_was_cut(place: Place) -> None:
    fault = place.hub.add(Fault(path="00002-of", cut_after_bytes=150_000, times=1))
    place.run(BIN / "modelscope", "download", "--model", REPO_ID, "--local_dir", "all")
    assert fault.hits == 1
    assert place.got("all") == place.files
    plane = "cdn" if place.hub.cdn_url else "hub"
    ranges = [one.range for one in place.hub.asked("00002-of", plane=plane)]  # type: ignore[arg-type]
    assert len(ranges) == 2 and ranges[1] is not None and ranges[1].startswith("bytes=")


def test_modelscope_finds_a_flipped_byte(place: Place) -> None:
    fault = place.hub.add(Fault(path="00002-of", flip_byte_at=5, times=1))
    place.run(BIN / "modelscope", "download", "--model", REPO_ID, "--local_dir", "ms")
    assert fault.hits == 1
    assert place.got("ms") == place.files


def test_tokens_stay_with_the_hub(tmp_path: Path) -> None:
    write_repo(tmp_path / "root")
    with run_hub(tmp_path / "root", cdn=True) as hub:
        place = Place(hub, {}, tmp_path)
        script = f"""
            import os
            os.environ["HF_TOKEN"] = "hf_{"x" * 34}"
            from huggingface_hub import snapshot_download
            result = snapshot_download("{REPO_ID}", local_dir="all")
        """
        place.python(script)
        assert all("authorization" in one.headers for one in hub.asked("/resolve/", plane="hub"))
        assert len(hub.asked(plane="cdn")) == 4
        assert not any("authorization" in one.headers for one in hub.asked(plane="cdn"))
