"""Files put into Hugging Face's cache are what its own client finds there, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, TargetExistsError
from ggufkit.runtimes.hfcache import CachedFile, CachePlace, check_cache, find_cache, put_in_cache
from tests.support.trees import snapshot
from tests.verbs.published import sha256

REPO = "acme/Smol-GGUF"
COMMIT = "a" * 40
OTHER = "b" * 40
ASK = """
import sys
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
repo, path, revision = sys.argv[1:4]
found = hf_hub_download(repo, path, revision=revision or None, local_files_only=True)
assert found == try_to_load_from_cache(repo, path, revision=revision or None), found
scanned = scan_cache_dir()
assert not scanned.warnings, scanned.warnings
assert [one.repo_id for one in scanned.repos] == [repo]
print(found)
"""


@pytest.fixture
def place(tmp_path: Path) -> CachePlace:
    return CachePlace(tmp_path / "hf" / "hub", "HF_HUB_CACHE")


@pytest.fixture
def files(tmp_path: Path) -> list[CachedFile]:
    made = []
    for path in ("m.gguf", "Q4/m-Q4-00001-of-00002.gguf", "Q4/m-Q4-00002-of-00002.gguf"):
        source = tmp_path / "pulled" / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(path.encode() * 1000)
        made.append(CachedFile(path, source, source.stat().st_size, sha256(source)))
    return made


def downloaded(place: CachePlace, path: str, revision: str = "") -> Path:
    """Return where huggingface_hub, which may not ask anybody, says that the file is."""
    env = {"HF_HUB_CACHE": str(place.folder), "HF_HUB_OFFLINE": "1", "HOME": str(place.folder.parent)}
    command = [sys.executable, "-c", ASK, REPO, path, revision]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_real_client_finds_the_files_without_a_network(
    place: CachePlace, files: list[CachedFile]
) -> None:
    report = put_in_cache(place, REPO, files, commit=COMMIT)
    assert (report.commit, report.made_up, report.n_placed, report.extra_bytes) == (COMMIT, False, 3, 0)
    assert report.methods == ("hard-link",) and report.warnings == ()
    for file in files:
        found = downloaded(place, file.path)
        assert found == report.snapshot / file.path and found.is_symlink()
        assert found.samefile(file.source) and not found.readlink().is_absolute()
    assert downloaded(place, "m.gguf", COMMIT) == downloaded(place, "m.gguf", "main")
    assert {p.name for p in place.folder.iterdir()} == {"models--acme--Smol-GGUF"}
    assert list(place.folder.parent.iterdir()) == [place.folder], "nothing is left beside it"


def test_again_is_nothing_to_do(place: CachePlace, files: list[CachedFile]) -> None:
    put_in_cache(place, REPO, files, commit=COMMIT)
    before = snapshot(place.folder)
    again = put_in_cache(place, REPO, files, commit=COMMIT)
    assert (again.n_placed, again.methods) == (0, ()) and snapshot(place.folder) == before


def test_a_newer_commit_shares_the_blobs_and_main_moves_on(
    place: CachePlace, files: list[CachedFile]
) -> None:
    put_in_cache(place, REPO, files[:1], commit=COMMIT)
    report = put_in_cache(place, REPO, files, commit=OTHER)
    assert report.n_placed == 2
    assert downloaded(place, "m.gguf") == report.snapshot / "m.gguf"
    assert downloaded(place, "m.gguf", COMMIT).samefile(downloaded(place, "m.gguf", OTHER))


def test_another_branch_and_a_bare_commit(place: CachePlace, files: list[CachedFile]) -> None:
    put_in_cache(place, REPO, files[:1], revision="refs/pr/7", commit=COMMIT)
    assert downloaded(place, "m.gguf", "refs/pr/7").is_file()
    put_in_cache(place, REPO, files[:1], revision=OTHER)
    assert downloaded(place, "m.gguf", OTHER).is_file()
    assert {p.name for p in (place.repo(REPO) / "refs").iterdir()} == {"refs"}


def test_without_a_commit_one_is_made_up_once(place: CachePlace, files: list[CachedFile]) -> None:
    report = put_in_cache(place, REPO, files)
    assert report.made_up and len(report.commit) == 40
    assert "made-up" in report.warnings[0]
    assert downloaded(place, "m.gguf").samefile(files[0].source)
    again = put_in_cache(place, REPO, files)
    assert (again.commit, again.made_up) == (report.commit, False)


def test_without_a_commit_files_join_what_the_cache_has(place: CachePlace, files: list[CachedFile]) -> None:
    put_in_cache(place, REPO, files[:1], commit=COMMIT)
    report = put_in_cache(place, REPO, files[1:])
    assert report.commit == COMMIT and not report.made_up and "joined" in report.warnings[0]
    assert {downloaded(place, f.path).parents[len(Path(f.path).parts) - 1] for f in files} == {
        report.snapshot
    }


def test_a_broken_blob_and_a_foreign_file_in_the_snapshot_are_replaced(
    place: CachePlace, files: list[CachedFile]
) -> None:
    blob = place.repo(REPO) / "blobs" / files[0].sha256
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"cut")
    shown = place.repo(REPO) / "snapshots" / COMMIT / "m.gguf"
    shown.parent.mkdir(parents=True)
    shown.write_bytes(b"old")
    put_in_cache(place, REPO, files[:1], commit=COMMIT)
    assert downloaded(place, "m.gguf").samefile(files[0].source)


def test_a_cache_without_symbolic_links(
    place: CachePlace, files: list[CachedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    report = put_in_cache(place, REPO, files[:1], commit=COMMIT)
    assert report.files[0].samefile(files[0].source) and not report.files[0].is_symlink()


def test_a_failure_leaves_the_cache_as_it_was(
    place: CachePlace, files: list[CachedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_cache(place, REPO, files[:1], commit=COMMIT)
    before = snapshot(place.folder)
    files[2].source.unlink()
    with pytest.raises((OSError, TargetExistsError)):
        put_in_cache(place, REPO, files, commit=OTHER)
    assert snapshot(place.folder) == before


@pytest.mark.parametrize(
    ("environ", "folder", "found_by"),
    [
        ({}, "home/.cache/huggingface/hub", "default"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "XDG_CACHE_HOME"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub", "HF_HOME"),
        ({"HUGGINGFACE_HUB_CACHE": "/o", "HF_HOME": "/h"}, "/o", "HUGGINGFACE_HUB_CACHE"),
        ({"HF_HUB_CACHE": "/c", "HUGGINGFACE_HUB_CACHE": "/o"}, "/c", "HF_HUB_CACHE"),
    ],
)
def test_the_cache_is_found_where_its_client_looks(
    environ: dict[str, str], folder: str, found_by: str
) -> None:
    assert find_cache(environ, Path("home")) == CachePlace(Path(folder), found_by)
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    env = {"HOME": "home", **environ}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == folder


def test_a_cache_that_may_not_be_written_is_said(place: CachePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    check_cache(place)
    monkeypatch.setattr("ggufkit.runtimes.hfcache.os.access", lambda *_: False)
    with pytest.raises(AccessError) as caught:
        check_cache(place)
    assert "HF_HUB_CACHE" in caught.value.message
