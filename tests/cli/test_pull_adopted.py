"""What `pull` says of what other programs left, and of places that it does not write to."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import Run
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.support.trees import snapshot
from tests.verbs.published import NAME, QUANT, tree


def test_the_plan_and_the_report_say_what_is_taken_over(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    whole, partly = sorted(files)[:2]
    down = work / "downloads"
    down.mkdir()
    names = [path.rpartition("/")[2] for path in (whole, partly)]
    (down / names[0]).write_bytes(files[whole])
    (down / f"{names[1]}.crdownload").write_bytes(files[partly][:50_000])
    before = snapshot(work)
    done = run("pull", REPO_ID, "--adopt", "downloads", "--dry-run")
    assert done.code == 0 and snapshot(work) == before
    assert [line.split()[2] for line in done.lines[1:5]] == ["adopt", "resume", "download", "download"]
    size = f"{len(files[whole]) / 1024:.1f} KiB"
    assert done.lines[5] == f"{size} of {names[0]} from downloads/{names[0]} (linked, no second copy)"
    told = f"48.8 KiB of {names[1]} from downloads/{names[1]}.crdownload (copied, proven with the rest)"
    assert done.lines[6] == told
    document = run("pull", REPO_ID, "--adopt", down, "-n", "--json").json
    assert document["needed_bytes"] == document["total_bytes"] - len(files[whole]) - 50_000
    assert document["copied_bytes"] == 50_000
    assert document["files"][0]["adopted"]["whole"] == str(down / names[0])
    done = run("pull", REPO_ID, "--adopt", "downloads")
    assert done.code == 0 and told in done.err
    assert "(1 adopted, 1 resumed, 2 downloaded), SHA-256 checked" in done.out
    assert tree(work / NAME) == files
    assert (work / NAME / whole).samefile(down / names[0])


def test_nothing_is_looked_for_when_that_is_not_wanted(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    first = min(files)
    (work / NAME).mkdir()
    (work / NAME / first.rpartition("/")[2]).write_bytes(files[first])
    assert run("pull", REPO_ID, "-n", "--json").json["files"][0]["state"] == "adopt"
    assert run("pull", REPO_ID, "-n", "--json", "--no-adopt").json["files"][0]["state"] == "download"


def test_a_folder_to_search_must_be_there(work: Path, run: Run) -> None:
    done = run("pull", REPO_ID, "--adopt", "nowhere")
    assert done.code == 2 and "'nowhere' does not exist" in done.err


def test_a_link_out_of_the_folder_is_refused_before_anything_is_written(
    hub: TestHub, work: Path, run: Run
) -> None:
    outside = work.parent / "outside"
    outside.mkdir()
    (work / NAME).mkdir()
    (work / NAME / FOLDER).symlink_to(outside)
    for more in ((), ("--dry-run",), ("--merge",)):
        done = run("pull", REPO_ID, "--quant", QUANT, *more)
        assert done.code == 4
        told = f"error: {NAME}/{FOLDER} is a link that leads out of {NAME}, to {os.path.realpath(outside)}"
        assert told in done.err
        assert "hint: remove the link, or name its folder with --local-dir" in done.err
    assert list(outside.iterdir()) == [] and not (work / NAME / ".ggufkit").exists()
