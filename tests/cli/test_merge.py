"""`ggufkit merge` at the prompt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.gguf.test_llama_split import MERGED, ORIGINAL, SHARDS
from tests.support.ggufs import make_gguf
from tests.verbs.published import everything, sha256

STEM = "Tiny-Test-Q4_K_M"


@pytest.fixture
def shards(work: Path) -> list[Path]:
    (work / STEM).mkdir()
    return [Path(shutil.copy(path, work / STEM)) for path in SHARDS]


def test_what_it_says(shards: list[Path], work: Path, run: Run) -> None:
    done = run("merge")
    assert done.code == 0
    first, second = done.lines
    assert re.fullmatch(rf"{STEM}\.gguf: 2\.3 MiB from 5 shards in \d+\.\d s", first)
    assert second == f"sha256: {ORIGINAL}"
    lines = done.err.splitlines()
    assert lines[0] == f"model: {STEM}/{STEM}" and lines[1] == f"merging {STEM}.gguf: 2.3 MiB"
    assert lines[-1] == "next: ggufkit ollama-import"
    again = run("merge", STEM)
    assert again.lines[0] == f"{STEM}.gguf is there already and sound: 2.3 MiB" and again.code == 0
    assert "model:" not in again.err, "what was named need not be told"


def test_json_and_quiet(shards: list[Path], work: Path, run: Run) -> None:
    document = run("merge", "--json").json
    assert document["output"] == f"{STEM}.gguf" and document["sha256"] == ORIGINAL
    assert document["n_bytes"] == 2_453_152 and document["n_shards"] == 5 and document["already"] is False
    assert run("merge", STEM, "--json").json["already"] is True
    done = run("merge", shards[0], "-q", "-o", "other.gguf")
    assert (done.out, done.err) == ("other.gguf\n", "")
    document = run("merge", STEM, "--no-verify", "--json", "-o", "third.gguf").json
    assert document["sha256"] is None and sha256(work / "third.gguf") == ORIGINAL


def test_with_the_split_keys(shards: list[Path], work: Path, run: Run) -> None:
    assert run("merge", "--keep-split-keys").lines[1] == f"sha256: {MERGED}"


@pytest.mark.parametrize("there", [None, "other", "same"])
@pytest.mark.parametrize("force", [False, True])
def test_a_dry_run_writes_nothing(
    shards: list[Path], work: Path, own_home: Path, run: Run, there: str | None, force: bool
) -> None:
    if there == "same":
        run("merge")
    elif there == "other":
        (work / f"{STEM}.gguf").write_bytes(b"other")
    flags = ["--force"] if force else []
    before = everything(work), everything(own_home)
    done = run("merge", STEM, "-n", *flags)
    action = "write" if there is None else "replace" if force else "compare"
    assert done.code == 0 and done.err.endswith("[dry run] nothing is written\n")
    assert done.out.startswith(f"{action} {STEM}.gguf: 2.3 MiB from 5 shards, ")
    document = run("merge", STEM, "-n", "--json", *flags).json
    assert document["action"] == action and document["output"] == f"{STEM}.gguf"
    assert run("merge", STEM, "-nq", *flags).out == f"{STEM}.gguf\n"
    assert (everything(work), everything(own_home)) == before


def test_one_file_already(work: Path, run: Run) -> None:
    make_gguf(work / "m.gguf")
    done = run("merge")
    assert done.code == 0 and done.out == "m.gguf is one file already: nothing to merge\n"
    assert run("merge", "-n").out == "m.gguf is one file already\n"
    assert run("merge", "-n", "--json").json["action"] == "none"
    assert run("merge", "-o", "other.gguf").code == 2


def test_failures_end_with_their_codes(shards: list[Path], work: Path, run: Run) -> None:
    (work / f"{STEM}.gguf").write_bytes(b"precious")
    done = run("merge", STEM)
    assert done.code == 9 and "hint: --force replaces it, --output names another file\n" in done.err
    assert run("merge", STEM, "-o", shards[0], "-f").code == 2
    assert run("merge", STEM, "--force").code == 0
    shards[1].unlink()
    done = run("merge", STEM, "-f")
    assert done.code == 7 and f"{STEM}-00002-of-00005.gguf" in done.err and "None" not in done.err
    assert run("merge", "nowhere").code == 3


def test_oddities_are_warned_of(shards: list[Path], work: Path, run: Run) -> None:
    shards[2].write_bytes(shards[2].read_bytes() + b"tail")
    done = run("merge")
    assert done.code == 0 and done.lines[1] == f"sha256: {ORIGINAL}"
    assert re.search(r"^warning: .*00003", done.err, re.MULTILINE)
