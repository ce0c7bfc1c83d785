"""`ggufkit split` at the prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.ggufs import make_gguf
from tests.verbs.published import everything, sha256

NAMES = [f"m/m-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.fixture
def model(work: Path) -> Path:
    return make_gguf(work / "m.gguf")


def test_what_it_says(model: Path, work: Path, run: Run) -> None:
    done = run("split", "--max-tensors", "8")
    assert done.code == 0 and re.fullmatch(r"3 shards in m: \d+\.\d KiB, in \d+\.\d s\n", done.out)
    assert done.err.splitlines()[0] == "model: m.gguf" and "splitting m.gguf: " in done.err
    again = run("split", model, "--max-tensors", "8")
    assert again.code == 0 and re.fullmatch(r"3 shards in \S+/m: \d+\.\d KiB, there already\n", again.out)


def test_json_and_quiet(model: Path, work: Path, run: Run) -> None:
    document = run("split", "--max-tensors", "8", "--json").json
    assert [s["path"] for s in document["shards"]] == NAMES
    assert [s["sha256"] for s in document["shards"]] == [sha256(work / p) for p in NAMES]
    assert document["already"] is False and document["source"] == "m.gguf"
    done = run("split", "--max-tensors", "8", "-q", "m.gguf", "-o", "other")
    assert done.lines == [p.replace("m/", "other/", 1) for p in NAMES] and done.err == ""


def test_a_dry_run_writes_nothing(model: Path, work: Path, own_home: Path, run: Run) -> None:
    before = everything(work), everything(own_home)
    done = run("split", "--max-tensors", "8", "-n")
    assert done.code == 0 and [line.split()[-1] for line in done.lines[1:4]] == NAMES
    assert {line.split()[-2] for line in done.lines[1:4]} == {"write"}
    assert " in all, " in done.lines[-1] and "[dry run] nothing is written" in done.err
    document = run("split", "--max-tensors", "8", "-n", "--json").json
    assert [s["path"] for s in document["shards"]] == NAMES
    assert (everything(work), everything(own_home)) == before


@pytest.mark.parametrize("size", ["216K", "216000", "216KB", "0.216M", "210.9375KiB"])
def test_sizes_are_decimal_as_llama_gguf_split_has_them(model: Path, work: Path, run: Run, size: str) -> None:
    """Three tensors of 73,728 bytes go into 216 KiB, and not into 216 kB."""
    assert len(run("split", "--max-size", size, "-nq").lines) == 5
    assert len(run("split", "--max-size", "216KiB", "-nq").lines) == 4


def test_failures_end_with_their_codes(model: Path, work: Path, run: Run) -> None:
    assert run("split", "--max-tensors", "8", "--max-size", "1G").code == 2
    assert run("split", "--max-size", "1K").code == 2
    assert run("split", "nowhere.gguf").code == 3
    run("split", "--max-tensors", "8")
    assert run("split", NAMES[0]).code == 2
    (work / NAMES[1]).write_bytes(b"precious")
    done = run("split", "m.gguf", "--max-tensors", "8")
    assert done.code == 9 and "hint: --force" in done.err
    assert run("split", "m.gguf", "--max-tensors", "8", "--force").code == 0
    (work / "no.gguf").write_bytes(b"no model")
    assert run("split", "no.gguf").code == 7


def test_no_tensor_first(model: Path, work: Path, run: Run) -> None:
    assert len(run("split", "--max-tensors", "8", "--no-tensor-first", "-nq").lines) == 4
