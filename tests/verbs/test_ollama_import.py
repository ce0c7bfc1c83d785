"""Imports into Ollama's store without a server: what is planned, written, refused and undone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli.main import run
from ggufkit.errors import (
    AccessError,
    FormatError,
    IntegrityError,
    NoSpaceError,
    TargetExistsError,
    UsageError,
)
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.runtimes import ollama_writer
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.ollama import StorePlace
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_store import Store, read_manifest
from ggufkit.verbs import ollama_import as verb
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.ollama_import import ImportPlan, ImportReport, ollama_import, plan_ollama_import
from ggufkit.verbs.record import digests, write_record
from tests.runtimes.test_ollama_templates import CHATML_JINJA, R1_JINJA
from tests.support.disks import other_file_system
from tests.support.ggufs import make_gguf
from tests.support.trees import disk_bytes, snapshot

SHARDS = Path(__file__).parents[1] / "data" / "shards"
NAME = "tiny:1m-q4_k_m"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache, state and Ollama out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_gguf(tmp_path / "mine" / "Tiny-Q4_K_M.gguf", kv={"tokenizer.chat_template": CHATML_JINJA})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "ollama" / "models")


def plan(source: Path, store: Store, **named: Any) -> ImportPlan:
    return plan_ollama_import(find_model(str(source)), StorePlace(store, "--models-dir", None), **named)


def bring(source: Path, store: Store, **named: Any) -> ImportReport:
    return ollama_import(plan(source, store, **named))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bytes_are_on_the_disk_once(source: Path, store: Store) -> None:
    before = (sha256_of(source), source.stat().st_mtime_ns)
    report = bring(source, store)
    assert (report.name, report.action, report.method) == (NAME, "import", "hard-link")
    assert report.blob == store.blob(before[0])
    assert report.blob.samefile(source)
    assert (sha256_of(source), source.stat().st_mtime_ns) == before
    assert report.extra_bytes < 2000
    assert disk_bytes(store.root) < 64 << 10, "five small files, rounded up to blocks"
    assert report.listed is None


def test_what_is_written_is_what_ollama_reads(source: Path, store: Store) -> None:
    report = bring(source, store)
    assert report.manifest == store.manifest(parse_name(NAME))
    data = report.manifest.read_bytes()
    assert hashlib.sha256(data).hexdigest() == report.id
    document = json.loads(data)
    for blob in [document["config"], *document["layers"]]:
        content = store.blob(blob["digest"].removeprefix("sha256:")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == blob["digest"].removeprefix("sha256:")
        assert len(content) == blob["size"]
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in document["layers"]]
    assert kinds == ["model", "template", "params"]
    config = json.loads(store.blob(document["config"]["digest"].removeprefix("sha256:")).read_bytes())
    assert (config["model_family"], config["file_type"]) == ("llama", "Q4_K_M")


def test_nothing_else_is_left_in_the_store(source: Path, store: Store) -> None:
    bring(source, store)
    names = sorted(path.name for path in store.root.iterdir())
    assert names == ["blobs", "manifests"]
    assert all(path.name.startswith("sha256-") for path in store.blobs.iterdir())
    files = [p.relative_to(store.manifests) for p in store.manifests.rglob("*") if p.is_file()]
    assert files == [Path("registry.ollama.ai/library/tiny/1m-q4_k_m")]


def test_modes_let_a_service_read(source: Path, store: Store) -> None:
    before = os.umask(0o077)
    try:
        bring(source, store)
    finally:
        os.umask(before)
    for path in [store.root, *store.root.rglob("*")]:
        if not path.samefile(source):
            wanted = 0o755 if path.is_dir() else 0o644
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_again_is_nothing_to_do(source: Path, store: Store) -> None:
    first = bring(source, store)
    before = snapshot(store.root)
    again = plan(source, store)
    assert (again.action, again.copy_bytes) == ("nothing", 0)
    report = ollama_import(again)
    assert (report.action, report.method, report.extra_bytes) == ("nothing", "present", 0)
    assert report.id == first.id
    assert report.warnings == ()
    assert snapshot(store.root) == before


def test_again_needs_no_digest_when_it_is_the_same_file(
    source: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(source, store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "forgotten"))
    assert plan(source, store).action == "nothing"


def test_a_copy_of_it_is_compared_by_its_digest(source: Path, store: Store) -> None:
    bring(source, store)
    other = source.with_name("Tiny-copy.gguf")
    shutil.copyfile(source, other)
    assert plan(other, store, name=NAME).action == "compare"
    assert bring(other, store, name=NAME).action == "nothing"


def test_the_same_weights_under_a_second_name_are_there_already(source: Path, store: Store) -> None:
    bring(source, store)
    report = bring(source, store, name="me/second:v1")
    assert (report.name, report.action, report.method) == ("me/second:v1", "import", "present")
    assert len(list(store.models())) == 2
    assert len(list(store.blobs.iterdir())) == 4


def test_another_models_name_is_not_taken(source: Path, store: Store, tmp_path: Path) -> None:
    bring(source, store)
    other = make_gguf(tmp_path / "other" / "Other.gguf", seed=1)
    before = snapshot(store.root)
    # The first is refused by size at once, the second once it is hashed.
    longer = make_gguf(tmp_path / "longer.gguf", kv={"general.description": "x" * 1000})
    for path in (longer, make_gguf(other, kv={"tokenizer.chat_template": CHATML_JINJA}, seed=1)):
        with pytest.raises(TargetExistsError, match="other weights") as refusal:
            bring(path, store, name=NAME)
        assert "--force" in str(refusal.value.hint)
    assert snapshot(store.root) == before


def test_force_replaces(source: Path, store: Store, tmp_path: Path) -> None:
    bring(source, store)
    other = make_gguf(tmp_path / "other.gguf", seed=1)
    report = bring(other, store, name=NAME, force=True)
    assert report.action == "replace"
    stored = read_manifest(report.manifest)
    assert stored is not None
    assert stored.model is not None
    assert stored.model.sha256 == sha256_of(other)
    assert source.exists()


@pytest.mark.parametrize("name", ["TINY:1M-Q4_K_M", "Tiny:1m-q4_k_m"])
def test_names_that_differ_in_case_are_one(source: Path, store: Store, tmp_path: Path, name: str) -> None:
    bring(source, store)
    again = bring(source, store, name=name)
    assert (again.name, again.action) == (NAME, "nothing")
    other = make_gguf(tmp_path / "other.gguf", seed=1)
    with pytest.raises(TargetExistsError):
        bring(other, store, name=name)
    assert bring(other, store, name=name, force=True).name == NAME
    assert len(list(store.models())) == 1


def test_a_broken_manifest_is_in_the_way(source: Path, store: Store) -> None:
    file = store.manifest(parse_name(NAME))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    with pytest.raises(TargetExistsError, match="broken"):
        bring(source, store)
    assert bring(source, store, force=True).action == "replace"


def test_other_parameters_are_told_of_not_overwritten(source: Path, store: Store) -> None:
    made = plan(source, store)
    ollama_import(replace(made, recipe=replace(made.recipe, layers=made.recipe.layers[:1])))
    report = bring(source, store)
    assert report.action == "nothing"
    assert "--force" in report.warnings[-1]


def test_a_context_that_is_asked_for(source: Path, store: Store) -> None:
    bring(source, store, context_tokens=1024)
    stored = read_manifest(store.manifest(parse_name(NAME)))
    assert stored is not None
    params = json.loads(store.blob(stored.layers[-1].sha256).read_bytes())
    assert params["num_ctx"] == 1024
    assert bring(source, store).warnings == (), "what was chosen for the memory is no difference"
    assert "--force" in bring(source, store, context_tokens=2048).warnings[-1]


def test_a_lost_blob_is_put_back(source: Path, store: Store) -> None:
    report = bring(source, store)
    report.blob.unlink()
    again = bring(source, store)
    assert (again.action, again.method) == ("replace", "hard-link")
    assert again.blob.samefile(source)


def test_a_broken_blob_is_replaced(source: Path, store: Store) -> None:
    store.blobs.mkdir(parents=True)
    store.blob(sha256_of(source)).write_bytes(b"a download that broke off")
    assert bring(source, store).blob.samefile(source)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with other_file_system(tmp_path) as folder:
        yield folder


def test_across_file_systems_it_is_copied_and_said(source: Path, elsewhere: Path) -> None:
    store = Store(elsewhere / "models")
    source.chmod(0o600)
    assert plan(source, store).copy_bytes == source.stat().st_size
    report = bring(source, store)
    assert report.method == "copy"
    assert report.extra_bytes > report.n_bytes == source.stat().st_size
    assert sha256_of(report.blob) == report.sha256
    assert stat.S_IMODE(report.blob.stat().st_mode) == 0o644
    assert sorted(path.name for path in store.root.iterdir()) == ["blobs", "manifests"]
    assert sorted(path.name for path in elsewhere.iterdir()) == ["models"]


def test_a_link_asked_for_across_file_systems_is_refused(source: Path, elsewhere: Path) -> None:
    with pytest.raises(UsageError, match="another file system"):
        plan(source, Store(elsewhere / "models"), method="hard-link")
    assert list(elsewhere.iterdir()) == []


def test_a_copy_asked_for_is_a_copy(source: Path, store: Store) -> None:
    report = bring(source, store, method="copy")
    assert report.method in ("copy", "reflink")
    assert not report.blob.samefile(source)
    assert sha256_of(report.blob) == sha256_of(source)


def test_no_room_is_known_before(source: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "free_bytes", lambda _path: source.stat().st_size - 1)
    with pytest.raises(NoSpaceError):
        plan(source, Store(elsewhere / "models"))
    assert plan(source, Store(source.parent / "models")).copy_bytes == 0, "a link needs no room"


def test_the_digest_of_a_merge_or_pull_is_not_taken_again(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests().put(source, sha256_of(source))
    monkeypatch.setattr("ggufkit.transfer.digest.sha256_file", lambda *_: pytest.fail("hashed"))
    made = plan(source, store)
    assert made.sha256 == sha256_of(source)
    assert ollama_import(made).method == "hard-link"


def test_a_file_that_is_not_what_was_pulled(source: Path, store: Store) -> None:
    file = ManifestFile(source.name, source.stat().st_size, "ab" * 32, None)
    write_record(source.parent, Manifest("Tiny", None, (file,), ()))
    with pytest.raises(IntegrityError, match="ab" * 32):
        bring(source, store)
    assert not store.root.exists()


def test_shards_are_merged_first(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "Tiny-Test-Q4_K_M"
    shutil.copytree(SHARDS, folder)
    made = plan(next(iter(sorted(folder.glob("*-00002-of-*.gguf")))), store)
    assert made.merge_bytes == made.n_bytes > 0
    assert not made.source.exists()
    report = ollama_import(made)
    assert report.sha256 == "3333e6f744a7740dabbb59a1bcb1eca769f4d603dc5aab4cb918b607c33b0123"
    assert report.blob.samefile(report.source)
    assert report.source.name == "Tiny-Test-Q4_K_M.gguf"
    again = plan(folder, store)
    assert again.action == "nothing"


def test_a_set_with_a_hole_is_refused_before_the_store_is_touched(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "Tiny-Test-Q4_K_M"
    shutil.copytree(SHARDS, folder)
    sorted(folder.glob("*.gguf"))[1].unlink()
    with pytest.raises(FormatError, match="missing"):
        bring(folder, store)
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32, "LFS"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"", "empty|0 bytes|no GGUF|too short"),
    ],
)
def test_what_is_no_gguf_is_refused(tmp_path: Path, store: Store, data: bytes, words: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=words):
        bring(path, store)
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("arch", "kv"), [("clip", {"general.type": "mmproj"}), ("llama", {"general.type": "adapter"})]
)
def test_what_is_no_model_by_itself_is_refused(
    tmp_path: Path, store: Store, arch: str, kv: dict[str, Any]
) -> None:
    path = make_gguf(tmp_path / "part.gguf", arch=arch, kv=kv)
    with pytest.raises(UsageError, match="no model by itself"):
        bring(path, store)
    assert not store.root.exists()


def test_a_bad_name_is_refused(source: Path, store: Store) -> None:
    with pytest.raises(UsageError, match="no name"):
        plan(source, store, name="../../etc")
    assert not store.root.exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_store_of_somebody_else_is_told_of_before(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.blobs.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != store.blobs.resolve())
    with pytest.raises(AccessError, match="blobs") as refusal:
        plan(source, store)
    assert "sudo" in str(refusal.value.hint)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_root_leaves_no_root_owned_files_in_a_services_store(source: Path, store: Store) -> None:
    store.root.mkdir(parents=True)
    os.chown(store.root, 65534, 65534)
    source.chmod(0o600)
    made = plan(source, store)
    assert "chmod o+r" in made.warnings[-1]
    report = ollama_import(made)
    for path in store.root.rglob("*"):
        assert path.stat().st_uid == (0 if path == report.blob else 65534), path


class Stop(Exception):
    """What goes wrong half way."""


@pytest.mark.parametrize("step", range(10))
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_at_any_step_leaves_the_store_as_it_was(
    source: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, there: bool
) -> None:
    """With a store that is empty, and with one where another model has the name (--force)."""
    if there:
        bring(make_gguf(tmp_path / "other.gguf", seed=1), store, name=NAME)
    made = plan(source, store, name=NAME, force=True)
    before = snapshot(tmp_path / "ollama") if there else None
    left = step

    def failing(method: Any) -> Any:
        def act(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Stop
            left -= 1
            return method(*arguments, **named)

        return act

    for name in ("folder", "place", "write", "staging"):
        monkeypatch.setattr(Changes, name, failing(getattr(Changes, name)))
    with pytest.raises(Stop):
        ollama_import(made)
    assert source.stat().st_nlink == 1
    assert (snapshot(tmp_path / "ollama") if there else (tmp_path / "ollama").exists()) == (before or False)


def test_a_blob_that_another_import_uses_meanwhile_stays(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(source, store)

    def overtaken(self: Any, name: Any, data: bytes) -> Path:
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(source.parent / "cache"))
        bring(source, store, name="other")
        raise Stop

    monkeypatch.setattr(ollama_writer.StoreWriter, "manifest", overtaken)
    with pytest.raises(Stop):
        ollama_import(made)
    (model,) = store.models()
    assert all(store.has(b.sha256, b.size_bytes) for b in (model.config, *model.layers))


def test_a_server_start_between_blobs_and_manifest_is_survived(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the manifest is there, a starting Ollama removes all blobs as unused."""
    write = ollama_writer.StoreWriter.manifest

    def cleaned(self: Any, name: Any, data: bytes) -> Path:
        for blob in store.blobs.iterdir():
            blob.unlink()
        return write(self, name, data)

    monkeypatch.setattr(ollama_writer.StoreWriter, "manifest", cleaned)
    report = bring(source, store)
    stored = read_manifest(report.manifest)
    assert stored is not None
    assert all(store.has(b.sha256, b.size_bytes) for b in (stored.config, *stored.layers))


def test_a_plan_writes_nothing(source: Path, store: Store, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    plan(source, store)
    assert snapshot(tmp_path) == before


def test_r1_by_its_template(tmp_path: Path, store: Store) -> None:
    path = make_gguf(
        tmp_path / "DeepSeek-R1-UD-IQ2_XXS.gguf", arch="deepseek2", kv={"tokenizer.chat_template": R1_JINJA}
    )
    made = plan(path, store)
    assert made.name == "deepseek-r1:1m-ud-iq2_xxs"
    assert made.recipe.family == "deepseek-r1"
    assert any("0.9" in warning for warning in made.warnings)


def test_at_the_prompt(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(source.parent)
    where = ["--models-dir", str(store.root)]
    assert run(["ollama-import", "--dry-run", *where]) == 0
    planned = capsys.readouterr()
    assert "[dry run]" in planned.err
    assert "link" in planned.out
    assert not store.root.exists()
    assert run(["ollama-import", *where]) == 0
    done = capsys.readouterr()
    assert NAME in done.out
    assert sha256_of(source) in done.out
    assert str(store.root) in done.err
    assert run(["ollama-import", *where, "-q"]) == 0
    assert capsys.readouterr().out == f"{NAME}\n"
    assert run(["ollama-import", *where, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["action"], document["listed"]) == (1, "nothing", None)
    make_gguf(source.with_name("z.gguf"), seed=1)
    assert run(["ollama-import", "z.gguf", "--name", NAME, *where]) == 9
    assert run(["ollama-import", "z.gguf", "--name", "no good", *where]) == 2


def test_the_plan_as_json(source: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ollama-import", str(source), "--models-dir", str(store.root), "-n", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["action"] == "import"
    assert document["recipe"]["config"]["file_type"] == "Q4_K_M"
    assert [layer["kind"] for layer in document["recipe"]["layers"]] == ["template", "params"]
    assert f'"num_ctx":{document["memory"]["num_ctx"]}' in document["recipe"]["layers"][1]["text"]
