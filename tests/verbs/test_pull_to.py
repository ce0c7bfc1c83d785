"""`pull --to`: the runtimes have the model, and its bytes are on the disk once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import AccessError, NetworkError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.runtimes.ollama import find_store
from ggufkit.runtimes.ollama_store import read_manifest
from ggufkit.verbs.inspect import inspect
from ggufkit.verbs.locate import find_model, load_headers
from ggufkit.verbs.ollama_import import ollama_import, plan_ollama_import
from ggufkit.verbs.pull import plan_pull
from ggufkit.verbs.pull_merged import default_target
from ggufkit.verbs.pull_to import Runtime, ToReport, plan_pull_to, pull_to
from ggufkit.verbs.verify import verify
from tests.support.disks import other_file_system
from tests.support.faults import Fault
from tests.support.ggufs import make_gguf
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.support.trees import snapshot
from tests.verbs.published import NAME, QUANT, everything, publish, sha256

MERGED = f"{NAME}/{FOLDER}.gguf"


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Folders of all runtimes, on the same disk as the pulled files."""
    return environ(tmp_path)


def environ(folder: Path) -> dict[str, str]:
    return {"OLLAMA_MODELS": str(folder / "ollama"), "HF_HUB_CACHE": str(folder / "hf" / "hub")}


@pytest.fixture
def lmstudio(own_home: Path) -> Path:
    return own_home / ".lmstudio" / "models"


def get(*to: Runtime, places: dict[str, str], repo: str = REPO_ID, **how: Any) -> ToReport:
    plan = plan_pull(repo, quant=QUANT if repo == REPO_ID else None)
    return pull_to(plan_pull_to(plan, to, environ=places, **how))


def n_names(path: Path) -> int:
    return path.stat().st_nlink


# ---- on one disk ----


def test_to_ollama_it_is_one_file_with_two_names(
    hub: TestHub, work: Path, places: dict[str, str], tmp_path: Path
) -> None:
    report = get("ollama", places=places)
    assert report.ollama is not None and report.ollama.method == "hard-link"
    stored = read_manifest(report.ollama.manifest)
    assert stored is not None and stored.model is not None
    assert report.ollama.blob.name == f"sha256-{stored.model.sha256}"
    assert report.files == (Path(MERGED),) and report.files[0].samefile(report.ollama.blob)
    assert sha256(report.ollama.blob) == stored.model.sha256 and n_names(report.ollama.blob) == 2
    assert report.ollama.extra_bytes < 64 << 10
    assert {p.name for p in (tmp_path / "ollama").iterdir()} == {"blobs", "manifests"}


def test_the_whole_digest_is_taken_while_it_arrives(
    hub: TestHub, work: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.transfer.digest.sha256_file", None)  # nothing is read a second time
    report = get("ollama", places=places)
    assert report.ollama is not None
    assert report.ollama.sha256 == sha256(report.files[0])


def test_to_lmstudio_the_shards_stay_as_published(
    hub: TestHub, files: dict[str, bytes], work: Path, places: dict[str, str], lmstudio: Path
) -> None:
    report = get("lmstudio", places=places)
    folder = lmstudio / REPO_ID
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        Path(path).name: data for path, data in files.items()
    }
    assert all(p.stat().st_nlink == 2 for p in folder.iterdir())
    assert report.lmstudio is not None and report.lmstudio.extra_bytes == 0
    assert verify(NAME).faults == ()


def test_to_lmstudio_and_ollama_it_is_the_merged_file(
    hub: TestHub, work: Path, places: dict[str, str], lmstudio: Path
) -> None:
    report = get("lmstudio", "ollama", places=places, name="r1:x", user_repo="me/mine")
    (placed,) = (lmstudio / "me" / "mine").iterdir()
    assert report.ollama is not None and report.ollama.name == "r1:x"
    assert placed.name == f"{FOLDER}.gguf" and placed.samefile(report.ollama.blob) and n_names(placed) == 3
    assert not list(work.rglob("*-of-*.gguf"))


@pytest.mark.parametrize("source", ["hf", "modelscope", "auto"])
def test_to_the_hf_cache_under_the_commit_that_is_known(
    hub: TestHub, files: dict[str, bytes], work: Path, places: dict[str, str], source: str
) -> None:
    plan = plan_pull(REPO_ID, quant=QUANT, source=source)
    report = pull_to(plan_pull_to(plan, ["hf-cache"], environ=places))
    assert report.hf_cache is not None
    assert {
        p.relative_to(report.hf_cache.snapshot).as_posix(): p.read_bytes() for p in report.hf_cache.files
    } == files
    assert report.hf_cache.made_up == (source == "modelscope")
    known = [h.listing.commit for h in plan.repo.holdings if h.listing.hub == "huggingface"]
    assert source == "modelscope" or report.hf_cache.commit == known[0]
    assert all(
        p.samefile(work / NAME / path) for path, p in zip(sorted(files), report.hf_cache.files, strict=True)
    )


def test_a_model_of_one_file(
    hub: TestHub, work: Path, places: dict[str, str], lmstudio: Path, tmp_path: Path
) -> None:
    make_gguf(tmp_path / "hub" / "a" / "b-GGUF" / "b-Q8_0.gguf")
    hub.refresh()
    report = get("ollama", "lmstudio", "hf-cache", places=places, repo="a/b-GGUF", merge=True)
    assert report.files == (Path("b-GGUF/b-Q8_0.gguf"),) and n_names(report.files[0].resolve()) == 4
    assert (lmstudio / "a" / "b-GGUF" / "b-Q8_0.gguf").samefile(report.files[0])


def test_again_is_nothing_to_do(
    hub: TestHub, work: Path, places: dict[str, str], lmstudio: Path, tmp_path: Path
) -> None:
    get("ollama", "lmstudio", places=places)
    before = snapshot(tmp_path / "ollama") | snapshot(lmstudio)
    hub.requests.clear()
    again = get("ollama", "lmstudio", places=places)
    assert again.ollama is not None and again.ollama.action == "nothing"
    assert again.lmstudio is not None and again.lmstudio.n_placed == 0
    assert snapshot(tmp_path / "ollama") | snapshot(lmstudio) == before and not hub.asked(plane="cdn")


def test_planning_writes_nothing(hub: TestHub, work: Path, places: dict[str, str], tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    plan = plan_pull_to(plan_pull(REPO_ID, quant=QUANT), ["ollama", "lmstudio"], environ=places)
    assert plan.ollama is not None and plan.ollama.copy_bytes == 0 and plan.merged is not None
    assert snapshot(tmp_path) == before


# ---- on another disk ----


@pytest.mark.parametrize("to", ["ollama", "lmstudio", "hf-cache"])
def test_on_another_disk_the_files_grow_there(
    hub: TestHub,
    work: Path,
    tmp_path: Path,
    own_home: Path,
    to: Runtime,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ggufkit.transfer.digest.sha256_file", None)  # nothing is read a second time
    with other_file_system(tmp_path) as disk:
        (own_home / ".lmstudio").mkdir()
        (own_home / ".lmstudio" / "models").symlink_to(disk / "lms")
        (disk / "lms").mkdir()
        report = get(to, places=environ(disk))
        for file in report.files:
            assert (
                file.is_symlink()
                and file.stat().st_dev == disk.stat().st_dev
                and n_names(file.resolve()) == 1
            )
        assert not list(disk.rglob("*.part")) and not list(disk.rglob(".ggufkit*"))
        assert taken_bytes(disk) < sum(map(len, files.values())) + (256 << 10)
        assert taken_bytes(work) < 1 << 20
        assert verify(NAME).faults == () and inspect(load_headers(None)).n_bytes > 0
        hub.requests.clear()
        before = snapshot(disk)
        get(to, places=environ(disk))
        assert snapshot(disk) == before and not hub.asked(plane="cdn")


def test_no_room_for_lmstudios_copy_names_the_command_that_needs_none(
    hub: TestHub, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NoSpaceError("full", hint="--symbolic-link takes none")

    monkeypatch.setattr("ggufkit.verbs.pull_to.lmstudio_import", full)
    with pytest.raises(NoSpaceError) as caught:
        get("lmstudio", places=environ(tmp_path))
    command = caught.value.hint or ""
    assert command.startswith("make room, or ggufkit lmstudio-import ")
    assert command.endswith("-00001-of-00004.gguf --symbolic-link needs none")


def test_no_room_on_the_stores_disk_names_what_names_it(
    hub: TestHub, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_file_system(tmp_path) as disk:
        monkeypatch.setattr("ggufkit.verbs.pull_merged.free_bytes", lambda _: 1000)
        with pytest.raises(NoSpaceError, match="/ollama/") as caught:
            get("ollama", places=environ(disk))
        assert caught.value.hint == "make room, or name another disk with OLLAMA_MODELS"
    with pytest.raises(NoSpaceError) as caught:
        get("ollama", places=environ(tmp_path))
    assert caught.value.hint == "make room, or name another disk with --local-dir"


def test_on_another_disk_the_file_is_the_stores_own(hub: TestHub, work: Path, tmp_path: Path) -> None:
    """A service that runs as another user may read it, and owns it where we may give it away."""
    with other_file_system(tmp_path) as disk:
        blobs = disk / "ollama" / "blobs"
        blobs.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(blobs, 65534, 65534)
        umask = os.umask(0o077)
        try:
            report = get("ollama", places=environ(disk))
        finally:
            os.umask(umask)
        assert report.ollama is not None
        status = report.ollama.blob.stat()
        assert status.st_mode & 0o777 == 0o644 and status.st_uid == blobs.stat().st_uid


@pytest.mark.parametrize("to", ["ollama", "lmstudio", "hf-cache"])
def test_a_disk_without_hard_links_has_it_once_in_the_end(
    hub: TestHub, work: Path, tmp_path: Path, own_home: Path, to: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with other_file_system(tmp_path) as disk:
        (own_home / ".lmstudio").mkdir()
        (own_home / ".lmstudio" / "models").symlink_to(disk / "lms")
        (disk / "lms").mkdir()
        monkeypatch.setattr("os.link", refused)
        report = get(to, places=environ(disk))
        assert all(file.is_symlink() and file.stat().st_dev == disk.stat().st_dev for file in report.files)
        assert not list(disk.rglob(".ggufkit*")) and verify(NAME).faults == ()
        shown = {p.resolve() for p in disk.rglob("*") if p.is_file()}
        assert {file.resolve() for file in report.files} <= shown
        assert len(shown) <= len(report.files) + 5, "the model once, and small files"


def taken_bytes(folder: Path) -> int:
    seen = {p.lstat().st_ino: p.lstat().st_blocks * 512 for p in folder.rglob("*") if not p.is_dir()}
    return sum(seen.values())


@pytest.mark.parametrize("to", ["ollama", "lmstudio"])
def test_on_another_disk_it_goes_on_where_it_was_stopped(
    hub: TestHub, work: Path, tmp_path: Path, own_home: Path, naps: list[float], to: Runtime
) -> None:
    with other_file_system(tmp_path) as disk:
        (own_home / ".lmstudio").mkdir()
        (own_home / ".lmstudio" / "models").symlink_to(disk / "lms")
        (disk / "lms").mkdir()
        plan = plan_pull_to(plan_pull(REPO_ID, quant=QUANT), [to], environ=environ(disk))
        hub.add(Fault(plane="cdn", path="00003-of", status=503))
        with pytest.raises(NetworkError):
            pull_to(plan)
        grown = [p for p in disk.rglob("*") if p.is_file() and ".ggufkit-pull" in p.parts]
        assert grown and not [p for p in disk.rglob("*") if p.is_file() and ".ggufkit-pull" not in p.parts]
        hub.forget()
        again = plan_pull_to(plan_pull(REPO_ID, quant=QUANT), [to], environ=environ(disk))
        resumed = (
            again.merged.resumed_bytes
            if again.merged
            else sum(f.size_bytes - f.missing_bytes for f in again.pull.files)
        )
        assert resumed > 0
        pull_to(again)
        assert verify(NAME).faults == () and not list(disk.rglob(".ggufkit*"))


def test_killed_between_the_import_and_the_links_it_ends_right(
    hub: TestHub, work: Path, tmp_path: Path
) -> None:
    with other_file_system(tmp_path) as disk:

        def killed(*_arguments: object) -> None:
            raise KeyboardInterrupt

        for name in ("settle", "_to_ollama", "point_to"):
            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(f"ggufkit.verbs.pull_to.{name}", killed)
                get("ollama", places=environ(disk))
            hub.requests.clear()
            report = get("ollama", places=environ(disk))
            assert not hub.asked(plane="cdn")
            assert report.files[0].is_symlink() and n_names(report.files[0].resolve()) == 1
            assert not list(disk.rglob(".ggufkit*"))
            for path in (disk / "ollama").rglob("*"):
                if path.is_file():
                    path.unlink()
            (work / MERGED).unlink()


# ---- what is refused ----


def test_a_name_that_is_taken_is_said_before_the_first_byte(
    hub: TestHub, work: Path, places: dict[str, str], tmp_path: Path
) -> None:
    other = make_gguf(tmp_path / "other.gguf", kv={"general.description": "another one"})
    ollama_import(plan_ollama_import(find_model(str(other)), find_store(environ=places), name="r1:x"))
    with pytest.raises(TargetExistsError) as caught:
        get("ollama", places=places, name="r1:x")
    assert "--force" not in f"{caught.value.hint}" and "--name" in f"{caught.value.hint}"
    assert everything(work) == set()


def test_wishes_that_contradict_each_other(hub: TestHub, work: Path, places: dict[str, str]) -> None:
    plan = plan_pull(REPO_ID, quant=QUANT)
    for to, how, words in (
        (["hf-cache", "ollama"], {}, "as they are published"),
        (["hf-cache"], {"merge": True}, "as they are published"),
        (["lmstudio"], {"name": "x"}, "--name"),
        (["ollama"], {"user_repo": "a/b"}, "--user-repo"),
    ):
        with pytest.raises(UsageError) as caught:
            plan_pull_to(plan, to, environ=places, **how)  # type: ignore[arg-type]
        assert words in caught.value.message
    assert everything(work) == set()


def test_a_store_that_may_not_be_written(
    hub: TestHub, work: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.verbs.ollama_import.os.access", lambda *_: False)
    with pytest.raises(AccessError):
        get("ollama", places=places)
    assert everything(work) == set()


def test_a_split_repo_without_folder(
    hub: TestHub, work: Path, places: dict[str, str], tmp_path: Path
) -> None:
    publish(tmp_path / "hub", repo_id="a/b-GGUF", stem="b-Q4_0")
    hub.refresh()
    plan = plan_pull("a/b-GGUF")
    report = pull_to(plan_pull_to(plan, ["ollama"], environ=places))
    assert report.files == (default_target(plan),)
