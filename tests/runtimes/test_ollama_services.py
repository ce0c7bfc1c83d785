"""Stores of Ollamas that can't be asked: by the process, by the unit. And what is said of versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import testbed

from ggufkit.runtimes import ollama_services as services
from ggufkit.runtimes.ollama import find_store
from ggufkit.runtimes.ollama_services import folder_of_process, folder_of_unit
from ggufkit.runtimes.ollama_versions import version_notes
from tests.support.runtimes import run_ollama


def process(root: Path, number: int, command: str, environ: dict[str, str]) -> Path:
    folder = root / "proc" / str(number)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"\0".join(word.encode() for word in command.split()) + b"\0")
    (folder / "environ").write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in environ.items()))
    return folder


def test_the_process_that_serves_the_address(tmp_path: Path) -> None:
    process(tmp_path, 1, "/sbin/init", {"OLLAMA_MODELS": "/wrong"})
    process(tmp_path, 2, "/usr/bin/ollama run x", {"OLLAMA_MODELS": "/wrong"})
    process(tmp_path, 3, "/usr/bin/ollama serve", {"OLLAMA_HOST": "127.0.0.1:5", "OLLAMA_MODELS": '"/data"'})
    process(tmp_path, 4, "ollama-lib serve", {"HOME": "/home/me"})
    (tmp_path / "proc/self").mkdir()
    found = folder_of_process("http://127.0.0.1:5", tmp_path)
    assert found is not None
    assert (found.folder, found.found_by) == (Path("/data"), "the environment of process 3")
    default = folder_of_process("http://127.0.0.1:11434", tmp_path)
    assert default is not None
    assert default.folder == Path("/home/me/.ollama/models")
    assert folder_of_process("http://127.0.0.1:6", tmp_path) is None


def test_a_closed_environment_leaves_its_users_home(tmp_path: Path) -> None:
    import pwd

    folder = process(tmp_path, 3, "/usr/bin/ollama serve", {})
    (folder / "environ").unlink()
    found = folder_of_process("http://127.0.0.1:11434", tmp_path)
    assert found is not None
    assert found.folder == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ollama" / "models"
    other = process(tmp_path, 4, "/usr/bin/ollama serve", {})
    (other / "environ").unlink()
    assert folder_of_process("http://127.0.0.1:11434", tmp_path) is None, "which of the two?"


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        ('LoadState=loaded\nEnvironment=PATH=/bin "OLLAMA_MODELS=/mnt/big disk"\nUser=root', "/mnt/big disk"),
        ("LoadState=loaded\nEnvironment=HOME=/srv/o\nUser=root", "/srv/o/.ollama/models"),
        ("LoadState=loaded\nEnvironment=\nUser=nobody-here-has-this-name", None),
        ('LoadState=loaded\nEnvironment="A=b\nUser=root', None),
        ("LoadState=not-found\nEnvironment=\nUser=", None),
        ("", None),
    ],
)
def test_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, folder: str | None) -> None:
    program = tmp_path / "systemctl"
    (tmp_path / "said").write_text(said)
    program.write_text(f"#!/bin/sh\n[ \"$2\" = ollama.service ] && cat '{tmp_path}/said'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = folder_of_unit()
    assert (None if found is None else found.folder) == (None if folder is None else Path(folder))


def test_a_unit_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(services, "SYSTEMCTL_S", 0.2)
    assert folder_of_unit() is None


def test_a_unit_names_the_store_of_a_server_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = services.Serving(tmp_path / "big", services.UNIT)
    monkeypatch.setattr(services, "folder_of_unit", lambda: unit)
    place = find_store(environ={"OLLAMA_HOST": "127.0.0.1:9"}, home=tmp_path)
    assert (place.store.root, place.found_by) == (tmp_path / "big", "ollama.service")
    (tmp_path / ".ollama" / "models").mkdir(parents=True)
    place = find_store(environ={"OLLAMA_HOST": "127.0.0.1:9"}, home=tmp_path)
    assert place.found_by == "ollama.service"
    assert f"there is a store in {tmp_path}/.ollama/models too" in place.warnings


@pytest.mark.runtimes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", testbed.OLLAMA_VERSIONS)
def test_a_real_server_without_models_is_found_by_its_process(version: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with run_ollama(testbed.ollama(version), home, models=tmp_path / "big disk") as server:
        place = find_store(environ={"OLLAMA_HOST": server.url}, home=tmp_path)
        assert place.store.root == tmp_path / "big disk"
        assert place.found_by == f"the environment of process {server.pid}"
        assert place.server is not None


@pytest.mark.parametrize(
    ("version", "words", "n"),
    [
        (None, "", 0),
        ((0, 5), "`think` is not known", 3),
        ((0, 9), "refused", 2),
        ((0, 24), "an hour old", 3),
        ((0, 30), "three times its size", 4),
        ((0, 33), "use_mmap", 4),
        ((0, 34), "0.5 to 0.33", 5),
        ((0, 4), "0.5 to 0.33", 4),
    ],
)
def test_what_is_said_of_versions(version: tuple[int, int] | None, words: str, n: int) -> None:
    notes = version_notes(version)
    assert len(notes) == n
    assert words in " ".join(notes)
