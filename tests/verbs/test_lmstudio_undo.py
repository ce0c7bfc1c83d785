"""Imports into LM Studio taken back, and the defaults that they write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli.main import run
from ggufkit.errors import FormatError, NotFoundError
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.lmstudio import ModelsPlace
from ggufkit.runtimes.lmstudio_defaults import BACKUP, load_fields, merged, talk_fields
from ggufkit.verbs.lmstudio_import import PlaceReport, lmstudio_import, plan_lmstudio_import, with_defaults
from ggufkit.verbs.lmstudio_undo import plan_lmstudio_undo, undo_lmstudio_import
from ggufkit.verbs.locate import find_model
from tests.runtimes.test_ollama_templates import R1_JINJA
from tests.support.ggufs import make_gguf
from tests.support.trees import snapshot

SHARDS = Path(__file__).parents[1] / "data" / "shards"
REPO = "unsloth/Tiny-GGUF"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".lmstudio" / "models").mkdir(parents=True)
    return tmp_path / "home" / ".lmstudio"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHARDS, tmp_path / "mine" / "Tiny-Test-Q4_K_M"))


def place(home: Path) -> ModelsPlace:
    return ModelsPlace(home / "models", "--models-dir")


def bring(source: Path, home: Path, *, defaults: bool = False, **named: Any) -> PlaceReport:
    plan = plan_lmstudio_import(find_model(str(source)), place(home), user_repo=REPO, **named)
    return lmstudio_import(with_defaults(plan, home) if defaults else plan)


@pytest.mark.parametrize("method", ["auto", "copy", "symbolic-link"])
def test_undone_as_a_whole(shards: Path, home: Path, method: str) -> None:
    before = (snapshot(home), snapshot(shards))
    bring(shards, home, defaults=True, method=method)
    assert snapshot(home) != before[0]
    plan = plan_lmstudio_undo(REPO, place(home))
    assert (plan.give_back, plan.warnings) == ((), ())
    undo_lmstudio_import(plan)
    after = snapshot(home)
    for kept in (".internal", ".internal/user-concrete-model-default-config"):
        after.pop(kept)
    assert (after, snapshot(shards)) == before
    with pytest.raises(NotFoundError, match="imported no unsloth/Tiny-GGUF"):
        plan_lmstudio_undo(REPO, place(home))


def test_files_that_lost_their_first_names_come_back(shards: Path, home: Path) -> None:
    data = {path: path.read_bytes() for path in sorted(shards.iterdir()) if path.suffix == ".gguf"}
    bring(shards, home)
    shutil.rmtree(shards)
    plan = plan_lmstudio_undo(REPO, place(home))
    assert [source for _, source in plan.give_back] == list(data)
    undo_lmstudio_import(plan)
    assert {path: path.read_bytes() for path in data} == data
    assert list((home / "models").iterdir()) == []


def test_other_files_in_the_folder_stay(shards: Path, home: Path) -> None:
    report = bring(shards, home)
    (report.folder / "mmproj.gguf").write_bytes(b"mine")
    undo_lmstudio_import(plan_lmstudio_undo(REPO, place(home)))
    assert [path.name for path in report.folder.iterdir()] == ["mmproj.gguf"]


def test_a_second_import_adds_to_the_receipt(shards: Path, home: Path) -> None:
    report = bring(shards, home)
    report.files[-1].unlink()
    assert bring(shards, home).n_placed == 1
    bring(shards, home)
    assert plan_lmstudio_undo(REPO, place(home)).remove == tuple(sorted(report.files))


def test_what_a_killed_import_left_is_swept_or_gone_on_with(shards: Path, home: Path) -> None:
    whole = bring(shards, home)
    expected = snapshot(home)
    whole.files[0].unlink()
    staging = home / ".ggufkit-import"
    staging.mkdir()
    (staging / ".ggufkit-x.tmp").write_bytes(b"half a copy")
    (staging / ".ggufkit-x.note").write_text("\n".join(json.dumps(str(path)) for path in whole.files))
    assert bring(shards, home).n_placed == 1
    assert snapshot(home) == expected


def defaults_of(home: Path, report: PlaceReport) -> Path:
    (found,) = (home / ".internal").rglob("*.json")
    folder = home / ".internal" / "user-concrete-model-default-config" / REPO
    assert found == folder / f"{report.files[0].name}.json", "of a set, shard 1"
    return found


def fields(path: Path, part: str) -> dict[str, Any]:
    data = path.read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf"), "with a mark LM Studio passes over it"
    return {field["key"]: field["value"] for field in json.loads(data)[part]["fields"]}


def test_defaults_of_r1(tmp_path: Path, home: Path) -> None:
    path = make_gguf(
        tmp_path / "DeepSeek-R1-Q4_K_M.gguf", arch="deepseek2", kv={"tokenizer.chat_template": R1_JINJA}
    )
    written = defaults_of(home, bring(path, home, defaults=True))
    assert fields(written, "operation") == {
        "llm.prediction.temperature": 0.6,
        "llm.prediction.topPSampling": {"checked": True, "value": 0.95},
    }
    assert set(fields(written, "load")) == {"llm.load.contextLength"}


def test_ones_own_defaults_stay_and_come_back(shards: Path, home: Path) -> None:
    report = bring(shards, home, defaults=True)
    written = defaults_of(home, report)
    own = {"preset": "mine", "load": {"fields": [{"key": "llm.load.contextLength", "value": 77}]}, "more": 1}
    undo_lmstudio_import(plan_lmstudio_undo(REPO, place(home)))
    written.parent.mkdir(parents=True)
    before = b"\xef\xbb\xbf" + json.dumps(own).encode()
    written.write_bytes(before)
    bring(shards, home, defaults=True)
    assert fields(written, "load")["llm.load.contextLength"] == 77
    assert (json.loads(written.read_bytes())["preset"], json.loads(written.read_bytes())["more"]) == (
        "mine",
        1,
    )
    assert written.with_name(written.name + BACKUP).read_bytes() == before
    undo_lmstudio_import(plan_lmstudio_undo(REPO, place(home)))
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_defaults_that_were_changed_since_stay(shards: Path, home: Path) -> None:
    written = defaults_of(home, bring(shards, home, defaults=True))
    written.write_text("{}")
    plan = plan_lmstudio_undo(REPO, place(home))
    assert "changed after the import" in plan.warnings[0]
    undo_lmstudio_import(plan)
    assert written.read_text() == "{}"


def test_a_failure_takes_the_defaults_back_too(
    shards: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(home)
    write = Changes.write

    def failing(self: Changes, path: Path, data: bytes, **named: Any) -> None:
        write(self, path, data, **named)
        raise OSError(28, "no space left")

    monkeypatch.setattr(Changes, "write", failing)
    with pytest.raises(OSError, match="no space"):
        bring(shards, home, defaults=True)
    assert snapshot(home) == before


@pytest.mark.parametrize("text", ["", "[]", '{"load": 7}', '{"load": {"fields": [7]}}', "{", "[" * 99999])
def test_what_is_no_file_of_defaults_is_not_changed(text: str) -> None:
    with pytest.raises(FormatError, match="not what LM Studio writes"):
        merged(text.encode(), {}, {}, Path("x.json"))


def test_a_model_larger_than_memory_is_mapped() -> None:
    assert load_fields(4096, pages=True) == {
        "llm.load.contextLength": 4096,
        "llm.load.numParallelSessions": 1,
        "llm.load.llama.tryMmap": True,
        "llm.load.llama.keepModelInMemory": False,
    }
    assert (load_fields(None, pages=False), talk_fields({})) == ({}, {})


def test_at_the_prompt(shards: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(home)
    add = ["lmstudio-import", str(shards), "--user-repo", REPO, "--defaults"]
    assert run([*add, "-n"]) == 0
    assert "write" in capsys.readouterr().out
    assert snapshot(home) == before
    assert run([*add, "-n", "--json"]) == 0
    assert "contextLength" in json.loads(capsys.readouterr().out)["defaults_text"]
    assert run([*add, "--ctx-size", "99"]) == 0
    capsys.readouterr()
    (written,) = (home / ".internal").rglob("*.json")
    assert fields(written, "load")["llm.load.contextLength"] == 99
    assert run(["lmstudio-import", "--undo", REPO, "-n"]) == 0
    assert capsys.readouterr().out.count("remove  ") == len(list(shards.glob("*.gguf")))
    assert run(["lmstudio-import", "--undo", REPO]) == 0
    assert list((home / "models").iterdir()) == []
    capsys.readouterr()
    assert run(["lmstudio-import", "--undo", REPO]) == 3
    assert run(["lmstudio-import", "--undo", "no-repo"]) == 2
    assert run(["lmstudio-import", str(shards), "--undo", REPO]) == 2
    assert run(["lmstudio-import", str(shards), "--ctx-size", "9"]) == 2
    assert "--defaults" in capsys.readouterr().err
