"""The ways into Ollama's store: hard link, reflink, link by name, move, copy; explained, refused, undone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testbed

from ggufkit.cli.main import run
from ggufkit.errors import AccessError, IntegrityError, ToolError, UsageError
from ggufkit.runtimes import ways
from ggufkit.runtimes.ollama import StorePlace, find_store
from ggufkit.runtimes.ollama_store import Store
from ggufkit.runtimes.ways import Wanted, closed_to, find_way
from ggufkit.transfer import disk
from ggufkit.verbs import ollama_import as verb
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_import import ImportReport, ollama_import, plan_ollama_import
from tests.support.disks import other_file_system
from tests.support.ggufs import make_gguf
from tests.support.runtimes import OllamaServer, run_ollama
from tests.support.trees import disk_bytes, snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_gguf(tmp_path / "mine" / "Tiny-Q4_K_M.gguf")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    with other_file_system(tmp_path) as folder:
        yield folder


def bring(source: Path, store: Store, **named: Any) -> ImportReport:
    place = StorePlace(store, "--models-dir", None)
    return ollama_import(plan_ollama_import(find_model(str(source)), place, **named))


def test_a_moved_file_is_in_the_store_only(source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    report = bring(source, Store(tmp_path / "models"), method="move")
    assert (report.moved, report.method) == (True, "hard-link")
    assert not source.exists()
    assert report.blob.read_bytes() == data
    assert report.blob.stat().st_nlink == 1


def test_a_move_across_disks_is_checked_before_the_file_goes(
    source: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = source.read_bytes()
    monkeypatch.setattr(ways, "sha256_file", lambda *_: "00" * 32)
    with pytest.raises(IntegrityError, match="is kept"):
        bring(source, Store(elsewhere / "models"), method="move")
    assert source.read_bytes() == data
    assert list(elsewhere.iterdir()) == [], "what came out wrong is not left in the store"
    monkeypatch.undo()
    report = bring(source, Store(elsewhere / "models"), method="move")
    assert (report.moved, report.method) == (True, "copy")
    assert not source.exists()
    assert report.blob.read_bytes() == data


def test_a_move_of_what_is_there_gives_up_the_second_file(source: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    second = source.with_name("second.gguf")
    shutil.copyfile(source, second)
    name = bring(source, store).name
    report = bring(second, store, name=name, method="move")
    assert (report.action, second.exists(), source.exists()) == ("nothing", False, True)


def test_a_move_typed_again_says_that_it_is_done(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    move = ["ollama-import", source.name, "--move", "--models-dir"]
    assert run([*move, str(tmp_path / "m"), "--name", "a"]) == 0
    before = snapshot(tmp_path / "m")
    for more in ([], ["--name", "A"], ["--dry-run"]):
        capsys.readouterr()
        assert run([*move, str(tmp_path / "m"), *more]) == 0
        assert capsys.readouterr().out.startswith(f"a:latest is there already, moved from {source}\n")
    assert run([*move, str(tmp_path / "m"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["action"], said["moved"], said["extra_bytes"]) == (
        "a:latest",
        "nothing",
        True,
        0,
    )
    assert snapshot(tmp_path / "m") == before and list(source.parent.iterdir()) == []


def test_a_move_of_what_is_not_there_as_it_was_moved_is_no_move(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ollama-import", str(source), "--move", "--models-dir", str(tmp_path / "m")]
    assert run([*command, "--name", "a"]) == 0
    for arguments in ([*command, "--name", "b"], [*command[:-1], str(tmp_path / "n")], command[:2]):
        assert run(arguments) == 3
        assert "no such file" in capsys.readouterr().err
    (stored,) = Store(tmp_path / "m").models()
    stored.file.write_bytes(stored.data + b"\n")
    assert run(command) == 3, "changed since"
    stored.file.write_bytes(stored.data)
    assert run(command) == 0
    assert stored.model is not None
    Store(tmp_path / "m").blob(stored.model.sha256).unlink()
    assert run(command) == 3


def test_a_move_that_the_server_does_not_list_keeps_the_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlisted(*_: object) -> None:
        raise ToolError("the server does not list it")

    before = snapshot(tmp_path)
    monkeypatch.setattr(verb, "_listed", unlisted)
    with pytest.raises(ToolError):
        bring(source, Store(tmp_path / "models"), method="move")
    assert snapshot(tmp_path / "mine") == {k.removeprefix("mine/"): v for k, v in before.items() if "/" in k}
    assert not (tmp_path / "models").exists()


def test_only_a_file_can_be_moved(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    with pytest.raises(UsageError, match="symbolic link") as refusal:
        bring(link, Store(tmp_path / "models"), method="move")
    assert str(source) in str(refusal.value.hint)


def test_a_link_by_name_crosses_disks_and_takes_nothing(source: Path, elsewhere: Path) -> None:
    report = bring(source, Store(elsewhere / "models"), method="symbolic-link")
    assert (report.method, report.extra_bytes < 2000) == ("symbolic-link", True)
    assert report.blob.is_symlink()
    assert report.blob.readlink() == source
    assert bring(source, Store(elsewhere / "models"), method="symbolic-link").action == "nothing"


def test_a_reflink_is_refused_or_shares_the_blocks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cloned(source_fd: int, target_fd: int) -> bool:
        os.write(target_fd, os.pread(source_fd, 1 << 20, 0))
        return True

    monkeypatch.setattr(disk, "_clone", lambda *_: False)
    with pytest.raises(UsageError, match="no reflink"):
        bring(source, Store(tmp_path / "models"), method="reflink")
    assert not (tmp_path / "models").exists()
    monkeypatch.setattr(disk, "_clone", cloned)
    report = bring(source, Store(tmp_path / "models"), method="reflink")
    assert (report.method, report.blob.samefile(source)) == ("reflink", False)
    assert report.extra_bytes < 2000


@pytest.mark.parametrize("wanted", ["hard-link", "reflink"])
def test_a_refusal_across_disks_says_what_to_type(source: Path, elsewhere: Path, wanted: Wanted) -> None:
    with pytest.raises(UsageError, match="another file system") as refusal:
        find_way(source, elsewhere, 1, wanted)
    assert "--move or --symbolic-link" in str(refusal.value.hint)
    way = find_way(source, elsewhere, 1, "auto")
    assert (way.copy_bytes, "another file system" in way.why, "--move" in str(way.mend)) == (1, True, True)


def test_somebody_elses_file_says_whose_it_is(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "hard_link_refused", lambda *_: "not this user's file")
    way = find_way(source, source.parent, 7, "auto")
    assert way.copy_bytes == 7
    assert f'sudo chown "$USER" {source} (it is {ways.owner_of(source)}\'s)' in str(way.mend)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_a_service_that_may_not_pass_a_folder_gets_no_link_by_name(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    os.chown(root, 65534, 65534)
    source.parent.chmod(0o700)
    (doubt,) = closed_to(source, root, "symbolic-link")
    assert str(source.parent) in doubt
    assert closed_to(source, root, "hard-link") == (), "it leads past the folders"
    source.chmod(0o600)
    assert "chmod o+r" in closed_to(source, root, "hard-link")[0]
    assert closed_to(source, root, "copy") == (), "a copy is made readable"


def test_a_store_of_another_user_names_him(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "models")
    store.blobs.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != store.blobs.resolve())
    with pytest.raises(AccessError) as refusal:
        bring(source, store)
    hint = str(refusal.value.hint)
    assert f"it is {ways.owner_of(store.blobs)}'s: sudo " in hint
    assert hint.endswith(f"ollama-import {source}")


def test_each_way_is_told_in_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "--hard-link": "one file with two names",
        "--reflink": "shares the blocks",
        "--symbolic-link": "breaks when the file is moved away",
        "--move": "has its name there only",
        "--copy": "on the disk twice",
    }
    for flag, said in words.items():
        assert run(["ollama-import", str(source), "--models-dir", str(tmp_path / "m"), "-n", flag]) == 0
        assert said in capsys.readouterr().out


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", testbed.OLLAMA_VERSIONS)
def test_real_servers_take_every_way(version: str, tmp_path: Path) -> None:
    """Listed, shown, kept by the clean-up at the start, and removed without the file (but for a move)."""
    with run_ollama(testbed.ollama(version), tmp_path / "home") as server:
        place = find_store(environ={"OLLAMA_HOST": server.url, "OLLAMA_MODELS": str(server.models_dir)})
        for wanted in ("hard-link", "symbolic-link", "move", "copy"):
            path = tmp_path / "mine" / f"{wanted}.gguf"
            path.parent.mkdir(exist_ok=True)
            disk.link_or_copy(testbed.smollm2(), path)
            report = ollama_import(
                plan_ollama_import(find_model(str(path)), place, name=wanted, method=wanted)
            )
            assert report.listed, wanted
            if wanted != "copy":
                assert disk_bytes(server.models_dir) < 1 << 20, wanted
            _lives(server, report)
            assert path.exists() == (wanted != "move")
            assert not os.path.lexists(report.blob)


def _lives(server: OllamaServer, report: ImportReport) -> None:
    server.restart()
    status, shown = server.api("POST", "/api/show", {"model": report.name, "name": report.name})
    assert (status, shown["details"]["family"]) == (200, "llama")
    assert server.cli("rm", report.name).returncode == 0
