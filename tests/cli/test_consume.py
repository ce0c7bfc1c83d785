"""`ggufkit merge --consume` and `ggufkit split --restore` at the prompt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.gguf.test_llama_split import ORIGINAL, SHARDS
from tests.verbs.published import everything, sha256
from tests.verbs.test_merge import record_of

STEM = "Tiny-Test-Q4_K_M"


@pytest.fixture
def shards(work: Path) -> list[Path]:
    (work / STEM).mkdir()
    return [Path(shutil.copy(path, work / STEM)) for path in SHARDS]


def test_there_and_back(shards: list[Path], work: Path, run: Run) -> None:
    record_of(work, shards)
    done = run("merge", "--consume")
    assert done.code == 0
    text = rf"{STEM}\.gguf: 2\.3 MiB from 5 shards in \d+\.\d s, 2\.3 MiB of shards given up"
    assert re.fullmatch(text, done.lines[0]) and done.lines[1] == f"sha256: {ORIGINAL}"
    assert f"checking the shards: {2.3} MiB" in done.err and "warning" not in done.err
    again = run("merge", "--consume")
    assert again.lines[0] == f"{STEM}.gguf is one file already: nothing to merge" and again.code == 0
    for gone in (STEM, shards[2]):
        assert run("merge", "--consume", gone).code == 0, "the same command, when its shards are gone"
    assert run("merge", "--consume", "elsewhere").code == 3
    plan = run("split", "--restore", "--dry-run")
    assert plan.lines[1].endswith(f"write   {STEM}/{STEM}-00001-of-00005.gguf")
    back = run("split", "--restore", "--json").json
    assert [s["sha256"] for s in back["shards"]] == [sha256(p) for p in SHARDS] and not back["already"]


@pytest.mark.parametrize("left", ["", ".ggufkit", f".ggufkit/consume/{STEM}.json.progress"])
def test_what_a_power_cut_at_the_very_end_leaves_of_the_folder(
    shards: list[Path], work: Path, run: Run, left: str
) -> None:
    record_of(work, shards)
    assert run("merge", "--consume").code == 0 and not (work / STEM).exists()
    leaving = work / STEM / left
    leaving.parent.mkdir(parents=True, exist_ok=True)
    leaving.write_text("0\n") if leaving.suffix == ".progress" else leaving.mkdir(exist_ok=True)
    before = everything(work)
    assert run("merge", "--consume", STEM, "--dry-run").code == 0 and everything(work) == before
    again = run("merge", "--consume", STEM)
    assert again.lines[0] == f"{STEM}.gguf is one file already: nothing to merge" and again.code == 0
    assert not (work / STEM).exists()


def test_what_nobody_published_is_said_to_be_unproven(shards: list[Path], run: Run) -> None:
    done = run("merge", "--consume", "--json")
    assert done.json["freed_bytes"] == sum(p.stat().st_size for p in SHARDS)
    assert f"warning: no digest is known of {STEM}-00001-of-00005.gguf, " in done.err
    assert "…: merged as it is, unproven" in done.err


def test_a_dry_run_writes_nothing(shards: list[Path], work: Path, run: Run) -> None:
    before = everything(work)
    done = run("merge", "--consume", "--dry-run")
    text = rf"write {STEM}\.gguf: 2\.3 MiB, and give up 5 shards; needs \d\.\d MiB besides, \d+\.\d GiB free"
    assert re.fullmatch(text, done.lines[0]) and everything(work) == before
    document = run("merge", "--consume", "-n", "--json").json
    assert document["action"] == "consume" and document["resumed_bytes"] == 0
    assert document["shards"] == [f"{STEM}/{p.name}" for p in SHARDS]
    assert everything(work) == before


def test_what_cannot_be_asked_for_together(shards: list[Path], run: Run) -> None:
    run("merge")
    done = run("split", f"{STEM}.gguf", "--restore", "--max-tensors", "3")
    assert done.code == 2 and "error: --restore takes no sizes" in done.err
    done = run("split", f"{STEM}.gguf", "--restore")
    assert done.code == 3 and "is not recorded" in done.err and "hint: ggufkit split --max-size" in done.err


def test_raw_parts_are_called_parts(work: Path, run: Run) -> None:
    data = SHARDS[0].parent.joinpath(SHARDS[0].name).read_bytes()
    for i in range(2):
        (work / f"m.gguf.part{i + 1}of2").write_bytes(data[i * 1000 : (i + 1) * 1000 if i == 0 else None])
    done = run("merge", "--dry-run", "--json")
    assert done.json["n_shards"] == 2 and done.json["output"] == "m.gguf"
    done = run("merge", "--keep-split-keys")
    assert done.code == 2 and "raw parts have no split keys" in done.err
    assert "m.gguf: " in run("merge").lines[0] and (work / "m.gguf").read_bytes() == data
    done = run("merge", "--consume", "-o", "n.gguf")
    assert re.search(r"n\.gguf: .* from 2 parts in .* of parts given up", done.lines[0])
    assert sorted(p.name for p in work.iterdir() if p.is_file()) == ["m.gguf", "n.gguf"]
