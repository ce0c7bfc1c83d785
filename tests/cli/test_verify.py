"""`ggufkit verify` at the prompt."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.verbs.pull import plan_pull, pull
from ggufkit.verbs.record import records_in, write_record
from tests.cli.conftest import Run
from tests.support.ggufs import make_gguf, make_shards
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT


@pytest.fixture
def shards(hub: TestHub, files: dict[str, bytes], work: Path) -> list[Path]:
    return [f.target for f in pull(plan_pull(REPO_ID)).files]


def test_what_it_says(shards: list[Path], run: Run) -> None:
    done = run("verify")
    assert done.code == 0
    assert done.lines[0].split() == ["STATUS", "SIZE", "FILE"]
    assert [line.split()[0] for line in done.lines[1:5]] == ["ok"] * 4
    assert [line.split()[-1] for line in done.lines[1:5]] == [str(s) for s in shards]
    assert done.lines[5:] == ["4 of 4 files verified, SHA-256 checked"]
    assert f"model: {NAME}/{FOLDER}/{FOLDER}\n" in done.err and f"verifying {FOLDER}: " in done.err
    assert "model:" not in run("verify", NAME).err
    assert run("verify", NAME, "--strict").code == 0


def test_faults_are_listed_with_the_command_that_mends_them(shards: list[Path], run: Run) -> None:
    shards[0].unlink()
    os.truncate(shards[2], 99)
    done = run("verify", NAME)
    assert done.code == 6
    assert [line.split()[0] for line in done.lines[1:5]] == ["missing", "ok", "truncated", "ok"]
    assert done.lines[1].split()[1] == "-" and done.lines[5] == "2 of 4 files verified, SHA-256 checked"
    error = done.err[done.err.index("error: ") :].splitlines()
    assert error[0] == "error: 2 of 4 files not what was published:"
    assert error[1] == f"  {shards[0]}: is not there"
    assert error[2].startswith(f"  {shards[2]}: ends ") and " bytes early: it has 99 of " in error[2]
    assert error[3:] == [f"hint: ggufkit pull {REPO_ID} --quant {QUANT} fetches what is wrong"]
    assert run("verify", NAME, "-q").lines == [str(shards[0]), str(shards[2])]
    assert run(*error[3].split()[2:6]).code == 0, "the hint is the command"
    assert run("verify", NAME, "-q").out == ""


def test_json(shards: list[Path], run: Run) -> None:
    os.truncate(shards[2], 99)
    done = run("verify", NAME, "--json")
    assert done.code == 6
    document = done.json
    assert document["repo_id"] == REPO_ID and document["recorded"] is True
    assert [f["status"] for f in document["files"]] == ["ok", "ok", "size", "ok"]
    assert document["files"][2]["sha256"] is None and document["files"][2]["expected_sha256"]


def test_unproven_is_not_ok_and_fails_when_strict(shards: list[Path], run: Run) -> None:
    (record,) = records_in(Path(NAME))
    bare = tuple(replace(f, sha256=None) if i == 1 else f for i, f in enumerate(record.manifest.files))
    write_record(record.root, replace(record.manifest, files=bare))
    done = run("verify", NAME)
    assert done.code == 0 and done.lines[2].split()[0] == "unproven"
    assert done.lines[5:] == [
        "3 of 4 files verified, SHA-256 checked",
        "1 of 4 files unproven: the hub publishes no digest of it",
    ]
    assert run("verify", NAME, "-q").out == ""
    strict = run("verify", NAME, "--strict")
    assert strict.code == 6 and "error: 1 of 4 files unproven (--strict):\n" in strict.err
    assert "hint:" not in strict.err, "nothing that could be fetched would help"
    assert run("verify", NAME, "--strict", "-q").lines == [str(shards[1])]


def test_a_model_that_nobody_recorded(work: Path, run: Run) -> None:
    shards = make_shards(make_gguf(work / "w" / "m.gguf"), work / "m", max_tensors=6)
    done = run("verify", "m")
    assert done.code == 0 and done.lines[-1] == "4 of 4 files unproven: no digest is recorded for it"
    assert run("verify", "m", "--strict").code == 6
    os.truncate(shards[1], shards[1].stat().st_size - 5000)
    done = run("verify", "m")
    assert done.code == 7 and f"error: m/{shards[1].name}: " in done.err and "None" not in done.err
    shards[2].unlink()
    done = run("verify", "m")
    assert done.code == 7 and "(and 1 more)" in done.err


def test_nothing_to_verify(work: Path, run: Run) -> None:
    done = run("verify")
    assert done.code == 3 and "hint: ggufkit pull REF" in done.err
