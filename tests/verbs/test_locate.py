"""Which model a command means: a file, any shard, a folder, nothing; merged, pulled last, unfinished."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from ggufkit.errors import FormatError, GgufkitError, NotFoundError
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
from ggufkit.verbs.locate import LocalModel, find_model, load_headers
from ggufkit.verbs.record import Record, remember_last, write_record
from tests.support.ggufs import make_gguf, make_shards
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, sha256


def make_set(folder: Path, name: str = "m", *, seed: int = 0) -> tuple[Path, ...]:
    """Write a set of 4 shards into `folder`."""
    whole = make_gguf(folder / f"{name}.whole", seed=seed)
    shards = make_shards(whole, folder, prefix=name, max_tensors=6)
    whole.unlink()
    return shards


def record(root: Path, paths: list[Path], name: str = FOLDER, last: bool = True) -> Record:
    files = tuple(
        ManifestFile(p.relative_to(root).as_posix(), p.stat().st_size, sha256(p), None) for p in paths
    )
    source = ManifestSource("modelscope", "https://modelscope.cn", REPO_ID, "master", None)
    written = write_record(root, Manifest(name, QUANT, files, (source,)))
    if last:
        remember_last(written)
    return written


def found(argument: Path | str | None = None, *, shards: bool = False) -> list[str]:
    """Return the names of the files that are meant, relative to the current folder."""
    model = find_model(None if argument is None else str(argument), shards=shards)
    return [os.path.relpath(p) for p in model.files]


def failure(argument: Path | str | None = None) -> GgufkitError:
    with pytest.raises(NotFoundError) as caught:
        found(argument)
    assert caught.value.exit_code == 3
    return caught.value


def names(folder: str, name: str = "m") -> list[str]:
    return [str(Path(folder) / f"{name}-{n:05d}-of-00004.gguf") for n in range(1, 5)]


# ---- by name ----


def test_a_file(work: Path) -> None:
    make_gguf(work / "m.gguf")
    assert found("m.gguf") == ["m.gguf"]
    model = find_model("m.gguf")
    assert model.name == "m" and not model.is_sharded and model.missing == () and model.record is None


@pytest.mark.parametrize("number", [0, 1, 3])
def test_any_shard_means_the_set(work: Path, number: int) -> None:
    shards = make_set(work / "dir")
    assert found(shards[number]) == names("dir")
    model = find_model(str(shards[number]))
    assert model.name == "m" and model.is_sharded and model.folder == work / "dir"
    assert len(model.headers()) == 4


@pytest.mark.parametrize("argument", [".", "dir", "dir/", "./dir", "../work/dir", "dir/../dir"])
def test_a_folder_means_the_model_in_it_or_one_below(work: Path, argument: str) -> None:
    make_set(work / "dir")
    assert found(argument) == names("dir")


def test_a_home_folder_is_written_with_a_tilde(work: Path, own_home: Path) -> None:
    make_gguf(own_home / "m.gguf")
    assert find_model("~/m.gguf").files == (own_home / "m.gguf",)


def test_a_folder_two_levels_up_is_too_far(work: Path) -> None:
    make_set(work / "a" / "b" / "c")
    assert "no model in a" in failure("a").message
    assert found("a/b") == names("a/b/c")


def test_projectors_and_hidden_folders_are_no_models(work: Path) -> None:
    make_gguf(work / "mmproj-m-f16.gguf")
    make_gguf(work / ".hidden" / "h.gguf")
    (work / "m.gguf.part").write_bytes(b"unfinished")
    (work / "notes.txt").write_text("no model")
    assert "ggufkit pull" in (failure().hint or "")
    make_gguf(work / "m.gguf")
    assert found() == ["m.gguf"]
    assert found("mmproj-m-f16.gguf") == ["mmproj-m-f16.gguf"], "by name it may be meant"


def test_what_is_not_there(work: Path) -> None:
    make_gguf(work / "model.gguf")
    error = failure("modle.gguf")
    assert error.message == "modle.gguf: no such file" and error.hint == "did you mean model.gguf?"
    assert failure("no/such/folder").hint is None


def test_a_link_that_leads_nowhere_is_not_there(work: Path) -> None:
    (work / "m.gguf").symlink_to(work / "gone.gguf")
    failure("m.gguf")
    failure()


def test_two_names_of_one_model_are_one_model(work: Path) -> None:
    make_set(work / "real")
    (work / "link").symlink_to(work / "real")
    assert len(found()) == 4


# ---- merged beside shards ----


@pytest.mark.parametrize("beside", ["the folder", "the shards"])
def test_the_merged_file_stands_for_the_set_except_where_shards_are_wanted(work: Path, beside: str) -> None:
    make_set(work / "m")
    merged = make_gguf(work / "m.gguf" if beside == "the folder" else work / "m" / "m.gguf")
    for argument in (None, work, work / "m"):
        assert [Path(p).name for p in found(argument)] == ["m.gguf"]
        assert found(argument, shards=True) == names("m")
    assert found(merged) == found(merged, shards=True) == [os.path.relpath(merged)]
    assert found(work / "m" / Path(names("m")[2]).name) == names("m"), "a shard that is named is meant"


def test_shards_that_are_gone_after_the_merge_do_not_matter(work: Path) -> None:
    shards = make_set(work / "m")
    make_gguf(work / "m.gguf")
    shards[1].unlink()
    assert found() == ["m.gguf"]
    for shard in shards:
        shard.unlink(missing_ok=True)
    assert found() == found(shards=True) == ["m.gguf"]


def test_a_folder_called_like_the_merged_file_is_not_it(work: Path) -> None:
    make_set(work / "m")
    (work / "m.gguf").mkdir()
    assert found() == names("m")


# ---- two models ----


def test_two_models_are_listed_and_none_is_taken(work: Path) -> None:
    make_set(work / "one", "a")
    make_gguf(work / "b.gguf")
    error = failure()
    assert error.message == "2 models in this folder:\n  b.gguf\n  one/a-00001-of-00004.gguf"
    assert error.hint == "name one of them"
    assert "2 models in " in failure(work).message
    assert found("one") == names("one", "a")


def test_many_models_are_not_all_listed(work: Path) -> None:
    data = make_gguf(work / "first.gguf").read_bytes()
    for i in range(30):
        (work / f"{i}.gguf").write_bytes(data)
    error = failure()
    assert error.message.startswith("31 models") and error.message.count("\n") == 20


def test_of_two_models_the_one_pulled_last_is_meant(work: Path) -> None:
    make_gguf(work / "other.gguf")
    shards = make_set(work / "repo" / "set")
    record(work / "repo", list(shards))
    assert found() == names("repo/set")
    make_gguf(work / "repo" / "m.gguf")  # merged from it
    assert found() == ["repo/m.gguf"] and found(shards=True) == names("repo/set")


# ---- pulled ----


def test_a_pulled_set_is_found_below_its_root(work: Path) -> None:
    shards = make_set(work / "repo" / "set")
    written = record(work / "repo", list(shards), last=False)
    for argument in (None, "repo", "repo/set", shards[2]):
        assert found(argument) == names("repo/set")
    here = find_model("repo").record
    assert here is not None and here.manifest == written.manifest
    assert here.digest_of(Path("repo/set") / shards[1].name) == sha256(shards[1])
    assert here.digest_of(Path("repo/set/other.gguf")) is None


def test_a_pulled_set_is_found_however_deep_its_record_says_it_lies(work: Path) -> None:
    shards = make_set(work / "repo" / "a" / "b" / "c")
    record(work / "repo", list(shards), last=False)
    assert found() == found("repo") == names("repo/a/b/c")
    assert find_model(str(shards[0])).record is not None


def test_elsewhere_the_model_pulled_last_is_meant(work: Path, tmp_path: Path) -> None:
    shards = make_set(tmp_path / "far" / "set")
    record(tmp_path / "far", list(shards))
    model = find_model()
    assert model.files == shards
    make_gguf(work / "here.gguf")
    assert found() == ["here.gguf"], "what is at hand goes before what was pulled last"


def test_below_the_current_folder_it_is_shown_by_its_short_name(work: Path) -> None:
    shards = make_set(work / "deep" / "er" / "set")
    record(work / "deep" / "er", list(shards))
    assert [str(p) for p in find_model().files] == names("deep/er/set")


def test_pulled_last_and_gone_since(work: Path, tmp_path: Path) -> None:
    shards = make_set(tmp_path / "far" / "set")
    record(tmp_path / "far", list(shards))
    for shard in shards:
        shard.unlink()
    error = failure()
    assert error.message == f"{FOLDER}, pulled last, is not there"
    hint = f"ggufkit pull ms:{REPO_ID} --quant {QUANT} --local-dir {tmp_path / 'far'} fetches it"
    assert (error.hint or "").startswith(hint)
    assert "recorded there, is not there" in failure(tmp_path / "far").message
    shutil.rmtree(tmp_path / "far")
    assert "no model in this folder" in failure().message


def test_an_unfinished_pull_says_what_is_missing_and_how_to_go_on(work: Path) -> None:
    shards = make_set(work / NAME / FOLDER, FOLDER)
    record(work / NAME, list(shards))
    shards[2].rename(f"{shards[2]}.part")
    shards[3].unlink()
    model = find_model()
    assert [p.name for p in model.files] == [s.name for s in shards[:2]]
    assert model.missing == (shards[2].name, shards[3].name)
    with pytest.raises(FormatError) as caught:
        model.headers()
    assert f"2 of 4 shards missing: {shards[2].name}, {shards[3].name}" in caught.value.message
    hint = f"ggufkit pull ms:{REPO_ID} --quant {QUANT} fetches only what is missing"
    assert caught.value.hint == hint and caught.value.exit_code == 7


def test_a_set_with_missing_shards_that_nobody_recorded(work: Path) -> None:
    shards = make_set(work / "dir")
    shards[0].unlink()
    model = find_model("dir")
    assert model.missing == (shards[0].name,) and len(model.files) == 3
    with pytest.raises(FormatError, match="1 of 4 shards missing") as caught:
        model.headers()
    assert "None" not in f"{caught.value.message} {caught.value.hint}"


# ---- records that are broken ----

BROKEN = [b"", b"{", b"\xff\xfe", b"[]", b'{"schema": 2}', b'{"schema": 1}', b"[" * 100_000]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_record_is_passed_over(work: Path, text: bytes) -> None:
    shards = make_set(work / "repo")
    written = record(work / "repo", list(shards))
    written.file.write_bytes(text)
    assert find_model().record is None and found() == found("repo") == names("repo")
    for shard in shards:
        shard.unlink()
    assert "no model in this folder" in failure().message


@pytest.mark.parametrize("text", [*BROKEN, b'{"record": 7}', b'{"record": "\\u0000"}'])
def test_a_broken_pointer_points_nowhere(work: Path, own_home: Path, text: bytes) -> None:
    shards = make_set(work / "a" / "b" / "set")
    record(work / "a" / "b", list(shards))
    (pointer,) = own_home.rglob("last-pulled.json")
    pointer.write_bytes(text)
    assert "no model" in failure().message


def test_a_home_that_can_not_be_written_costs_only_the_comfort(work: Path, own_home: Path) -> None:
    (own_home / ".local").write_text("no folder")
    shards = make_set(work / "repo" / "set")
    record(work / "repo", list(shards))
    assert found() == names("repo/set")


# ---- large and odd folders ----


def test_a_name_that_speaks_of_20000_shards_takes_no_time(work: Path) -> None:
    for number in (1, 2, 3, 10_000):
        make_gguf(work / f"m-{number:05d}-of-20000.gguf", tensors=[])
    began = time.monotonic()
    model = find_model()
    assert len(model.files) == 4 and len(model.missing) == 19_996
    assert time.monotonic() - began < 20
    with pytest.raises(FormatError, match="19996 of 20000 shards missing"):
        model.headers()


def test_a_set_of_500_shards_takes_no_time(work: Path) -> None:
    for number in range(1, 501):
        (work / f"m-{number:05d}-of-00500.gguf").touch()
    began = time.monotonic()
    assert len(found()) == 500
    assert time.monotonic() - began < 10


def test_a_single_shard_under_another_name(work: Path) -> None:
    shards = make_set(work / "dir")
    shards[0].rename(work / "m.gguf")
    with pytest.raises(FormatError, match="one shard of several, but not named like one"):
        find_model("m.gguf").headers()


# ---- headers, local or on a hub ----


def test_headers_of_a_local_model(work: Path) -> None:
    make_set(work / "dir")
    loaded = load_headers("dir")
    assert loaded.name == "m" and len(loaded.headers) == 4 and Path(loaded.where) == Path("dir")
    assert loaded.n_bytes == sum((work / p).stat().st_size for p in names("dir"))


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_headers_of_a_model_on_a_hub_are_read_by_range(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str
) -> None:
    loaded = load_headers(f"{REPO_ID}:{QUANT}", source=source)
    assert loaded.name == FOLDER and len(loaded.headers) == 4
    assert loaded.n_bytes == sum(map(len, files.values()))
    assert list(work.iterdir()) == []
    assert all(r.range == "bytes=0-65535" for r in hub.asked(plane="cdn"))


def test_a_folder_goes_before_a_repo_of_that_name(work: Path) -> None:
    shards = make_set(work / "unsloth" / "m-GGUF")
    assert load_headers("unsloth/m-GGUF").headers[0].name == str(Path("unsloth/m-GGUF") / shards[0].name)


def test_a_model_knows_its_folder() -> None:
    model = LocalModel("m", (Path("a/m-00002-of-00002.gguf"),), ("m-00001-of-00002.gguf",))
    assert model.folder == Path("a") and model.is_sharded
