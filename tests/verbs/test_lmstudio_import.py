"""Imports into LM Studio's folder: whole sets, linked, shard 1 last; loaded from there by a real server."""

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
from ggufkit.errors import AccessError, FormatError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.gguf.layout import Literal, split_layouts
from ggufkit.gguf.shards import ShardName
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.lmstudio import ModelsPlace
from ggufkit.transfer.sources import open_header
from ggufkit.verbs import lmstudio_import as verb
from ggufkit.verbs.lmstudio_import import PlacePlan, PlaceReport, lmstudio_import, plan_lmstudio_import
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import merge, plan_merge
from ggufkit.verbs.record import write_record
from tests.support.disks import other_file_system
from tests.support.ggufs import make_gguf
from tests.support.runtimes import run_llama_server
from tests.support.trees import disk_bytes, snapshot

SHARDS = Path(__file__).parents[1] / "data" / "shards"
REPO = "unsloth/Tiny-GGUF"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache, state and LM Studio out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A pulled set in the folder of its quant, as in the big repos."""
    folder = tmp_path / "Tiny-GGUF" / "Tiny-Test-Q4_K_M"
    folder.parent.mkdir()
    shutil.copytree(SHARDS, folder)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """LM Studio's models folder."""
    folder = tmp_path / "home" / ".lmstudio" / "models"
    folder.mkdir(parents=True)
    return folder


def plan(source: Path, models: Path, **named: Any) -> PlacePlan:
    named.setdefault("user_repo", REPO)
    return plan_lmstudio_import(find_model(str(source)), ModelsPlace(models, "--models-dir"), **named)


def bring(source: Path, models: Path, **named: Any) -> PlaceReport:
    return lmstudio_import(plan(source, models, **named))


def test_the_whole_set_is_linked_two_folders_deep(shards: Path, models: Path) -> None:
    sources = sorted(shards.glob("*.gguf"))
    report = bring(shards, models)
    assert report.folder == models / "unsloth" / "Tiny-GGUF", "the quant's own folder is left out"
    assert [path.name for path in report.files] == [path.name for path in sources]
    assert all(a.samefile(b) for a, b in zip(report.files, sources, strict=True))
    assert (report.methods, report.n_placed, report.extra_bytes) == (("hard-link",), len(sources), 0)
    assert disk_bytes(models) == 0
    found = [path.relative_to(models) for path in models.rglob("*") if path.is_file()]
    assert sorted(path.parts[:2] for path in found) == [("unsloth", "Tiny-GGUF")] * len(sources)
    assert sorted(path.name for path in models.parent.iterdir()) == ["models"], "nothing staged is left"


@pytest.mark.parametrize("which", [0, 1, -1])
def test_any_shard_means_the_set(shards: Path, models: Path, which: int) -> None:
    sources = sorted(shards.glob("*.gguf"))
    assert len(bring(sources[which], models).files) == len(sources)


def test_shard_1_comes_last(shards: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    place = Changes.place

    def noted(self: Changes, src: Path, dst: Path, **named: Any) -> Any:
        order.append(dst.name)
        return place(self, src, dst, **named)

    monkeypatch.setattr(Changes, "place", noted)
    report = bring(shards, models)
    assert order == [path.name for path in reversed(report.files)]
    assert "-00001-of-" in order[-1]


def test_again_is_nothing_to_do(shards: Path, models: Path) -> None:
    bring(shards, models)
    before = snapshot(models)
    made = plan(shards, models)
    assert {file.state for file in made.files} == {"present"}
    report = lmstudio_import(made)
    assert (report.n_placed, report.methods, report.extra_bytes) == (0, (), 0)
    assert snapshot(models) == before


def test_what_is_missing_is_added(shards: Path, models: Path) -> None:
    first = bring(shards, models)
    first.files[1].unlink()
    report = bring(shards, models)
    assert report.n_placed == 1
    assert first.files[1].exists()


def test_one_file_is_one_file(tmp_path: Path, models: Path) -> None:
    source = make_gguf(tmp_path / "Tiny-Q4_K_M.gguf")
    (target,) = bring(source, models).files
    assert target == models / "unsloth" / "Tiny-GGUF" / "Tiny-Q4_K_M.gguf"
    assert target.samefile(source)


def test_the_repo_of_the_pull_names_the_folder(shards: Path, models: Path) -> None:
    files = tuple(ManifestFile(f"{shards.name}/{path.name}", path.stat().st_size, None, None)
                  for path in sorted(shards.glob("*.gguf")))  # fmt: skip
    source = ManifestSource("modelscope", "https://modelscope.cn", "unsloth/DeepSeek-R1-GGUF", "master", None)
    write_record(shards.parent, Manifest("Tiny-Test-Q4_K_M", "Q4_K_M", files, (source,)))
    made = plan(shards, models, user_repo=None)
    assert (str(made.user_repo), made.user_repo.found_by) == ("unsloth/DeepSeek-R1-GGUF", "pull")
    merged = merge(plan_merge(find_model(str(shards)))).output
    made = plan(merged, models, user_repo=None)
    assert [file.source for file in made.files] == [merged]
    assert str(made.user_repo) == "unsloth/DeepSeek-R1-GGUF", "the repo of the shards it was merged from"


def test_without_a_pull_the_file_names_it(shards: Path, models: Path) -> None:
    made = plan(shards, models, user_repo=None)
    assert str(made.user_repo) == "Unsloth/Tiny-Test"
    assert made.user_repo.found_by == "file"


def test_symbolic_links_are_absolute(shards: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards)
    report = bring(Path(), models, method="symbolic-link")
    assert report.methods == ("symbolic-link",)
    assert all(path.is_symlink() and path.readlink().is_absolute() for path in report.files)
    assert all(path.exists() for path in report.files)
    assert bring(Path(), models, method="symbolic-link").n_placed == 0


def test_a_copy_asked_for_is_a_copy(shards: Path, models: Path) -> None:
    report = bring(shards, models, method="copy")
    assert set(report.methods) <= {"copy", "reflink"}
    assert not any(path.samefile(shards / path.name) for path in report.files)
    assert all(path.read_bytes() == (shards / path.name).read_bytes() for path in report.files)
    again = plan(shards, models)
    assert {file.state for file in again.files} == {"compare"}
    assert lmstudio_import(again).n_placed == 0


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with other_file_system(tmp_path) as folder:
        yield folder


def test_across_file_systems_it_is_copied(shards: Path, elsewhere: Path) -> None:
    models = elsewhere / "home" / "models"
    models.mkdir(parents=True)
    made = plan(shards, models)
    assert made.copy_bytes == sum(path.stat().st_size for path in shards.glob("*.gguf"))
    report = lmstudio_import(made)
    assert report.methods == ("copy",)
    assert report.extra_bytes == made.copy_bytes
    assert sorted(path.name for path in models.parent.iterdir()) == ["models"]
    assert bring(shards, models).n_placed == 0


def test_a_link_asked_for_across_file_systems_is_refused(shards: Path, elsewhere: Path) -> None:
    with pytest.raises(UsageError, match="another file system"):
        plan(shards, elsewhere / "models", method="hard-link")
    assert list(elsewhere.iterdir()) == []


def test_no_room_is_known_before(shards: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "free_bytes", lambda _path: 1000)
    with pytest.raises(NoSpaceError) as refusal:
        plan(shards, elsewhere / "models")
    assert "--symbolic-link" in str(refusal.value.hint)
    assert plan(shards, shards.parent / "models").copy_bytes == 0


def test_a_folder_of_somebody_else_is_told_of_before(
    shards: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AccessError, match="may not write"):
        plan(shards, models)


@pytest.mark.parametrize("same_size", [False, True])
def test_another_file_of_the_name_is_not_overwritten(shards: Path, models: Path, same_size: bool) -> None:
    report = bring(shards, models)
    victim = report.files[1]
    n_bytes = victim.stat().st_size
    victim.unlink()
    victim.write_bytes(bytes(n_bytes if same_size else 10))
    report.files[0].unlink()
    before = snapshot(models)
    with pytest.raises(TargetExistsError, match="another file"):
        bring(shards, models)
    assert snapshot(models) == before


def test_a_dangling_link_is_named(shards: Path, models: Path) -> None:
    folder = models / "unsloth" / "Tiny-GGUF"
    folder.mkdir(parents=True)
    (folder / sorted(shards.glob("*.gguf"))[0].name).symlink_to("/nowhere")
    with pytest.raises(TargetExistsError, match="link to nothing"):
        plan(shards, models)


def test_a_file_where_a_folder_must_be(shards: Path, models: Path) -> None:
    (models / "unsloth").write_text("x")
    with pytest.raises(TargetExistsError, match="no folder"):
        plan(shards, models)


def test_a_set_with_a_hole_is_refused(shards: Path, models: Path) -> None:
    sorted(shards.glob("*.gguf"))[1].unlink()
    with pytest.raises(FormatError, match="missing"):
        plan(shards, models)
    assert list(models.iterdir()) == []


def test_a_projector_is_no_model(tmp_path: Path, models: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", arch="clip", kv={"general.type": "mmproj"})
    with pytest.raises(UsageError, match="mmproj"):
        plan(path, models)


@pytest.mark.parametrize("user_repo", ["../evil", "a/..", "a", "a/b/c", "con/x", "/"])
def test_nothing_leaves_the_models_folder(shards: Path, models: Path, user_repo: str) -> None:
    with pytest.raises(UsageError):
        plan(shards, models, user_repo=user_repo)
    assert list(models.iterdir()) == []


class Stop(Exception):
    """What goes wrong half way."""


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("method", ["auto", "copy"])
def test_a_failure_leaves_no_part_of_a_set(
    shards: Path, models: Path, monkeypatch: pytest.MonkeyPatch, step: int, method: str
) -> None:
    made = plan(shards, models, method=method)
    assert len(made.files) > step
    before = snapshot(models.parent)
    place = Changes.place
    left = step

    def failing(self: Changes, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Stop
        left -= 1
        return place(self, *arguments, **named)

    monkeypatch.setattr(Changes, "place", failing)
    with pytest.raises(Stop):
        lmstudio_import(made)
    assert snapshot(models.parent) == before
    assert all(path.stat().st_nlink == 1 for path in shards.glob("*.gguf"))


def test_a_plan_writes_nothing(shards: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    made = plan(shards, tmp_path / "not" / "there")
    assert made.copy_bytes == 0
    assert snapshot(tmp_path) == before


def test_at_the_prompt(
    shards: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shards.parent)
    before = snapshot(models.parent)
    assert run(["lmstudio-import", "--dry-run"]) == 0
    planned = capsys.readouterr()
    assert "[dry run]" in planned.err
    assert f"{models} (default)" in planned.err
    assert planned.out.count("hard-link") == len(list(shards.glob("*.gguf")))
    assert snapshot(models.parent) == before, "no folder, no pointer file, no settings"
    assert run(["lmstudio-import"]) == 0
    done = capsys.readouterr()
    assert "Unsloth/Tiny-Test" in done.out
    assert "a guess" in done.err
    assert run(["lmstudio-import", "-q", "-y"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list(shards.glob("*.gguf")))
    assert run(["lmstudio-import", "--json", "--user-repo", REPO]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["methods"]) == (1, ["hard-link"])
    assert document["user_repo"]["repo"] == "Tiny-GGUF"
    assert run(["lmstudio-import", "--user-repo", "../evil"]) == 2
    assert run(["lmstudio-import", "-n", "--json"]) == 0
    assert [file["state"] for file in json.loads(capsys.readouterr().out)["files"]] == ["present"] * len(
        list(shards.glob("*.gguf"))
    )


def cut(source: Path, folder: Path) -> Path:
    """Cut a model into shards of at most 40 MB, as a big repo has it; return their folder."""
    folder.mkdir(parents=True)
    data = source.read_bytes()
    layouts = split_layouts(open_header(source), max_bytes=40_000_000)
    for i, layout in enumerate(layouts, 1):
        name = ShardName(source.stem, i, len(layouts)).file_name()
        parts = (
            s.data if isinstance(s, Literal) else data[s.offset : s.offset + s.n_bytes]
            for s in layout.segments
        )
        (folder / name).write_bytes(b"".join(parts))
    return folder


@pytest.mark.runtimes
@pytest.mark.models
@pytest.mark.parametrize("whole", [True, False])
def test_a_real_server_loads_it_from_lm_studios_folder(tmp_path: Path, models: Path, whole: bool) -> None:
    """LM Studio's engine is llama.cpp: it loads a set by shard 1, and finds the others beside it."""
    source = testbed.smollm2() if whole else cut(testbed.smollm2(), tmp_path / "repo" / "SmolLM2-Q4_1")
    report = bring(source, models, user_repo="HuggingFaceTB/SmolLM2-GGUF")
    assert len(report.files) == (1 if whole else 3)
    with run_llama_server(testbed.smollm2()) as server:
        wanted = server.complete("The capital of France is", 8)
    with run_llama_server(report.files[0]) as server:
        assert server.complete("The capital of France is", 8) == wanted
    assert wanted.strip()
    assert report.extra_bytes == 0
