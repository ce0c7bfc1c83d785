"""`ggufkit manifest` at the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from ggufkit.cli.manifest import command
from tests.cli.conftest import Run
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, everything, sha256

R1 = "DeepSeek-R1-UD-IQ2_XXS"


@pytest.mark.parametrize("name", ["make", "show", "check"])
def test_every_sub_command_has_help_examples_that_parse_and_flags_with_help(name: str) -> None:
    sub = command.commands[name]
    text = sub.help or ""
    assert text.splitlines()[0] == sub.short_help and len(sub.short_help or "") < 60
    lines = [line.split("ggufkit manifest")[1] for line in text.splitlines() if "ggufkit manifest" in line]
    assert lines
    for line in lines:
        words = line.partition(">")[0].split()
        assert words[0] == name
        sub.make_context(name, words[1:])
    assert all(option.help for option in sub.params if isinstance(option, click.Option))


def test_shipped_ones_are_listed(run: Run) -> None:
    done = run("manifest", "show")
    assert done.code == 0 and done.lines[0].split() == ["NAME", "FILES", "SHA-256", "REPO"]
    (row,) = [line for line in done.lines if line.startswith(R1)]
    assert row.split() == [
        R1,
        "4",
        "3",
        "of",
        "4",
        "hf:unsloth/DeepSeek-R1-GGUF,",
        "ms:unsloth/DeepSeek-R1-GGUF",
    ]
    assert run("manifest", "show", "-q").lines == [line.split()[0] for line in done.lines[1:]]
    assert len(run("manifest", "show", "--json").json["manifests"]) == len(done.lines) - 1


def test_one_is_shown_with_what_is_not_known(run: Run) -> None:
    done = run("manifest", "show", R1)
    assert done.code == 0 and done.lines[0] == f"{R1}, 4 files"
    assert f"about 46.4 GiB  -             {R1}/{R1}-00002-of-00004.gguf" in done.lines
    assert "no SHA-256 is known of 1 of 4 files" in done.err and "seen at" not in done.err
    pages = run("manifest", "show", R1, "-v").err
    assert pages.count("SHA-256 from https://") == 3 and pages.count("size from https://") == 4
    document = run("manifest", "show", R1, "--json").json
    assert document["name"] == R1 and document["files"][1]["sha256"] is None


def test_an_unknown_name_is_exit_3_and_names_what_there_is(run: Run) -> None:
    done = run("manifest", "show", "deepseek-r1-ud-iq2")
    assert done.code == 3 and f"did you mean {R1}?" in done.err
    assert run("manifest", "check", "no-such.json").code == 3
    assert run("manifest", "make", "./nowhere").code == 3


def test_making_to_stdout_and_to_a_file(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    done = run("manifest", "make", REPO_ID)
    assert done.code == 0 and "null" not in done.out
    assert [f["sha256"] for f in json.loads(done.out)["files"]] == [sha256(files[p]) for p in sorted(files)]
    dry = run("manifest", "make", REPO_ID, "-o", "r1.json", "-n")
    assert dry.code == 0 and "[dry run]" in dry.err and everything(work) == set()
    first = run("manifest", "make", REPO_ID, "-o", "r1.json")
    assert first.out.startswith("r1.json written: 4 files, ") and Path("r1.json").read_text() == done.out
    assert run("manifest", "make", REPO_ID, "-o", "r1.json").out.startswith("r1.json is that already")
    assert run("manifest", "make", REPO_ID, "-o", "r1.json", "-q").lines == ["r1.json"]
    Path("r1.json").write_text("mine")
    refused = run("manifest", "make", REPO_ID, "-o", "r1.json")
    assert refused.code == 9 and "--force" in refused.err and Path("r1.json").read_text() == "mine"
    forced = run("manifest", "make", REPO_ID, "-o", "r1.json", "--force", "--json")
    assert forced.code == 0 and forced.json["written"] is True and forced.json["manifest"]["name"] == FOLDER


def test_an_unclear_quant_shows_the_table(hub: TestHub, work: Path, run: Run) -> None:
    done = run("manifest", "make", REPO_ID, "--quant", "Q8_0")
    assert done.code == 3 and "QUANT" in done.err and done.out == ""


def test_checking_says_same_changed_and_gone(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    run("manifest", "make", f"hf:{REPO_ID}", "-o", "r1.json")
    same = run("manifest", "check", "r1.json")
    assert same.code == 0 and [line.split()[0] for line in same.lines] == ["STATUS", *["same"] * 4]
    assert same.err == f"asking for hf:{REPO_ID}\n"
    one, two, *_ = sorted(files)
    root = tmp_path / "hub" / REPO_ID
    (root / one).write_bytes(files[one][:-1])
    (root / two).unlink()
    hub.refresh()
    done = run("manifest", "check", "r1.json")
    assert done.code == 6 and [line.split()[0] for line in done.lines[1:3]] == ["changed", "gone"]
    assert (
        f"{one} has {len(files[one]) - 1:,} bytes" in done.err and f"{two} is not there any more" in done.err
    )
    assert "the frozen ones may still be at" in done.err
    assert " now, was frozen at " in done.lines[-1]
    assert run("manifest", "check", "r1.json", "-q").lines == [f"{hub.url}: {one}", f"{hub.url}: {two}"]


def test_what_is_not_known_fails_only_when_strict(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    document = json.loads(run("manifest", "make", f"ms:{REPO_ID}").out)
    del document["files"][1]["sha256"]
    Path("r1.json").write_text(json.dumps(document))
    done = run("manifest", "check", "r1.json")
    assert done.code == 0 and done.lines[2].split()[0] == "unproven"
    strict = run("manifest", "check", "r1.json", "--strict")
    assert strict.code == 6 and "the manifest knows no SHA-256 of it" in strict.err


def test_a_hub_that_is_gone_has_its_own_exit_code(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    run("manifest", "make", f"hf:{REPO_ID}", "-o", "r1.json")
    hub.add(Fault(path="/api/models/", status=404, headers={"X-Error-Code": "RepoNotFound"}))
    done = run("manifest", "check", "r1.json")
    assert done.code == 3 and done.lines[1].startswith("no answer") and REPO_ID in done.err
    assert run("manifest", "check", "r1.json", "--json").json["hubs"][0]["exit_code"] == 3


def test_a_manifest_of_files_on_this_machine(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    run("pull", REPO_ID)
    done = run("manifest", "make", f"./{NAME}")
    assert done.code == 0 and json.loads(done.out)["sources"][0]["repo_id"] == REPO_ID
    assert f"hashing {FOLDER}" in done.err
