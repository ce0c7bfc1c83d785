"""Imports into Ollama that are killed, find no room or are refused: the store is as it was, or is swept."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ggufkit.errors import GgufkitError, NoSpaceError, TargetExistsError
from ggufkit.runtimes import intents
from ggufkit.runtimes.intents import Note, leftovers, sweep
from ggufkit.runtimes.ollama import StorePlace
from ggufkit.runtimes.ollama_store import Store
from ggufkit.runtimes.ollama_writer import sweep_store
from ggufkit.transfer.journal import Journal
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_import import ImportReport, ollama_import, plan_ollama_import
from ggufkit.verbs.record import journal_path
from tests.support.disks import other_file_system
from tests.support.ggufs import make_gguf
from tests.support.trees import snapshot

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

WATCHED = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.chmod", "os.symlink"}


def bring(source: Path, store: Store, **named: Any) -> ImportReport:
    place = StorePlace(store, "--models-dir", None)
    return ollama_import(plan_ollama_import(find_model(str(source)), place, **named))


def killed_at(step: int, store: Store, act: Callable[[], object]) -> bool:
    """Run `act` in a child that is killed before its n-th act on the store; say whether it was."""
    child = os.fork()
    if child == 0:
        _run_and_die(step, store, act)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def _run_and_die(step: int, store: Store, act: Callable[[], object]) -> NoReturn:
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in WATCHED and any(str(store.root) in str(argument) for argument in arguments):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    code = 1
    try:
        sys.addaudithook(watch)
        act()
        code = 0
    finally:
        os._exit(code)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_gguf(tmp_path / "mine" / "Tiny-Q4_K_M.gguf")


@pytest.fixture(params=["link", "copy"])
def method(request: pytest.FixtureRequest) -> str:
    return "auto" if request.param == "link" else "copy"


@pytest.mark.parametrize("there", [True, False])
def test_killed_at_every_step(source: Path, tmp_path: Path, method: str, there: bool) -> None:
    """The next run removes what is left: then the store is as it was, or the model is whole in it."""
    store = Store(tmp_path / "ollama" / "models")
    if there:
        bring(make_gguf(tmp_path / "other.gguf", seed=1), store, name="other")
    else:
        store.root.mkdir(parents=True)
    before = snapshot(store.root)
    n_kills, n_whole = 0, 0
    while killed_at(n_kills, store, lambda: bring(source, store, name="a", method=method)):
        n_kills += 1
        sweep_store(store)
        after = snapshot(store.root)
        if after != before:
            n_whole += 1
            assert whole(store, source), f"killed at step {n_kills}"
            remove(store, before)
    assert n_kills >= 20, "as many moments, and all there are"
    assert 0 < n_whole < n_kills
    bring(source, store, name="a", method=method)
    assert whole(store, source)
    assert not store.staging.exists()


def test_the_notes_of_a_merge_killed_at_its_end_go(source: Path, tmp_path: Path) -> None:
    """Shards are merged for the import; killed after the file has its name, the next one finds the file."""
    notes = journal_path(source.parent, source)
    Journal(notes, "any").save()
    assert list(notes.parent.iterdir())
    growing = source.with_name(f"{source.name}.part")
    growing.touch()
    bring(source, Store(tmp_path / "a"), name="a")
    assert list(notes.parent.iterdir()), "another merge is under way: they are its"
    growing.unlink()
    bring(source, Store(tmp_path / "b"), name="b")
    assert sorted(source.parent.iterdir()) == [source]


def whole(store: Store, source: Path) -> bool:
    """Say whether the model is there, with all its blobs and nothing else in the store."""
    (model,) = (m for m in store.models() if m.file.parent.name == "a")
    assert model.model is not None
    assert store.blob(model.model.sha256).read_bytes() == source.read_bytes()
    used = {b.sha256 for m in store.models() for b in (m.config, *m.layers)}
    return {path.name for path in store.blobs.iterdir()} == {f"sha256-{sha256}" for sha256 in used}


def remove(store: Store, before: dict[str, Any]) -> None:
    """Put the store back to `before`: what is there besides goes."""
    for path in sorted(store.root.rglob("*"), reverse=True):
        if path.relative_to(store.root).as_posix() not in before:
            path.rmdir() if path.is_dir() else path.unlink()
    assert snapshot(store.root) == before


def test_killed_while_replacing(source: Path, tmp_path: Path) -> None:
    """With --force the name has the old model or the new one, at every moment."""
    store = Store(tmp_path / "models")
    other = make_gguf(tmp_path / "other.gguf", seed=1)
    first = bring(other, store, name="a")
    step = 0
    while killed_at(step, store, lambda: bring(source, store, name="a", force=True)):
        (model,) = store.models()
        assert all(store.has(blob.sha256, blob.size_bytes) for blob in (model.config, *model.layers))
        bring(other, store, name="a", force=True)
        step += 3
    assert step > 20
    assert first.blob.exists()


def test_a_running_import_is_not_swept(source: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.staging.mkdir(parents=True)
    store.blobs.mkdir()
    note, half = Note(store.staging), store.staging / ".ggufkit-x.tmp"
    half.write_bytes(b"half")
    blob = store.blob("ab" * 32)
    note.will_make(blob)
    blob.write_bytes(b"made")
    child = os.fork()  # a lock is per open file: this process could take its own again through another one
    if child == 0:
        swept = sweep_store(store)
        os._exit(len(swept))
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    assert (blob.exists(), half.exists()) == (True, True)
    assert len(leftovers(store.staging)) == 2
    os.close(note._fd)
    assert set(sweep_store(store)) == {blob, half}
    assert not store.staging.exists()


def test_a_note_names_nothing_outside_the_store(tmp_path: Path) -> None:
    root, mine = tmp_path / "models", tmp_path / "mine.gguf"
    staging = root / intents.__name__
    staging.mkdir(parents=True)
    mine.write_bytes(b"mine")
    names = [str(mine), f"{root}/../mine.gguf", 7, "cut"]
    lines = "\n".join(json.dumps(name) for name in names)
    nested = "[" * 99999  # json gives up on it with RecursionError
    (staging / "x.note").write_text(f'{nested}\n{lines}\n"{root}/cut of')
    assert sweep(staging, root, lambda _: False) == ()
    assert mine.exists()
    assert not staging.exists()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 512 KiB; skipped where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=512k tmpfs '{folder}' 2>/dev/null") != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        assert os.system(f"umount '{folder}'") == 0


@pytest.mark.parametrize("left_kib", [0, 4, 8, 12, 16, 20, 24])
def test_a_full_disk_leaves_the_store_as_it_was(source: Path, full: Path, left_kib: int) -> None:
    """The weights are linked by name, so that it is one of the small files that finds no room."""
    store = Store(full / "models")
    store.blobs.mkdir(parents=True)
    with (full / "ballast").open("wb") as ballast:
        ballast.write(b"x" * (512 - left_kib << 10))
    before = snapshot(full)
    try:
        report = bring(source, store, name="a", method="symbolic-link")
    except (OSError, GgufkitError) as error:
        assert isinstance(error, NoSpaceError) or getattr(error, "errno", None) == 28
        assert snapshot(full) == before
    else:
        assert left_kib >= 12, "four small files of a block each"
        assert report.blob.read_bytes() == source.read_bytes()


def test_a_copy_that_finds_no_room_leaves_the_store_as_it_was(
    tmp_path: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half way, as if another program had taken the room that was there when it was planned."""
    big = tmp_path / "big.gguf"
    big.write_bytes(make_gguf(tmp_path / "t.gguf").read_bytes() + b"\0" * (1 << 20))
    store = Store(full / "models")
    store.root.mkdir()
    before = snapshot(full)
    monkeypatch.setattr("ggufkit.verbs.ollama_import.free_bytes", lambda _: 1 << 30)
    monkeypatch.setattr("ggufkit.transfer.disk.free_bytes", lambda _: 1 << 30)
    with pytest.raises(NoSpaceError):
        bring(big, store)
    assert snapshot(full) == before


def test_a_name_that_is_taken_leaves_the_store_as_it_was(source: Path, tmp_path: Path) -> None:
    with other_file_system(tmp_path) as elsewhere:
        store = Store(elsewhere / "models")
        bring(make_gguf(tmp_path / "other.gguf", seed=1), store, name="a")
        before = snapshot(elsewhere)
        with pytest.raises(TargetExistsError):
            bring(source, store, name="a")
        assert snapshot(elsewhere) == before
