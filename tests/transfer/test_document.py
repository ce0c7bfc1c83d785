"""docs/transfer.md: its example runs and prints what it says, and its numbers are the code's."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import ggufkit
from ggufkit.transfer import crew, journal, marks, stream, stretches, tally
from ggufkit.transfer.sources import MAX_FAILURES
from tests.support.hub import run_hub

ROOT = Path(ggufkit.__file__).parents[1]
TEXT = (ROOT / "docs" / "transfer.md").read_text("utf-8")
DATA = random.Random(31).randbytes(9_000_000)


def test_the_example_prints_what_the_document_says(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    file = tmp_path / "hub" / "owner" / "name" / "model.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(DATA)
    sha256s = {"owner/name/model.gguf": hashlib.sha256(DATA).hexdigest()}
    here = tmp_path / "here"
    here.mkdir()
    with ExitStack() as stack:
        one, two = (stack.enter_context(run_hub(tmp_path / "hub", sha256s=sha256s)) for _ in range(2))
        env = {**os.environ, "ONE": one.url, "TWO": two.url, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "error", "-c", found[1]]
        done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout == found[2]


def test_the_numbers_are_those_of_the_code() -> None:
    for words in (
        f"within {stretches.WINDOW_BYTES >> 20} MiB",
        f"({stretches.N_OPENINGS} times as long",
        f"{stretches.STRETCH_S:g} seconds and {stretches.MAX_BYTES >> 20} MiB at most",
        f"silent for {stretches.STALL_S:g} s",
        f"fails {crew.MAX_FAILURES_BESIDE_OTHERS} times in a row without a byte ({MAX_FAILURES} times",
        f"for {crew.SLOW_S:g} s, is left for a minute",
        f"a mark every {marks.MARK_BYTES >> 20} MiB",
        f"{stream.READ_BYTES >> 10} KiB a stream",
        f"kill about {journal.SAVE_EVERY_BYTES >> 20} MiB at most",
        f"power loss at most {journal.SYNC_EVERY_BYTES >> 20} MiB",
    ):
        assert words in TEXT, words
    assert tally.LEFT_S == 60 and crew.SLOW_PART == 0.1 and crew.STOP_S == 1


def test_what_the_table_names_is_there() -> None:
    import importlib

    rows = re.findall(r"^\| (`[^|]+`) \| `([\w.]+)` \|", TEXT, re.MULTILINE)
    assert len(rows) >= 10
    for names, module in rows:
        place = module if module.startswith("ggufkit") else f"ggufkit.{module}"
        place = place if "." in module else f"ggufkit.transfer.{module}"
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(place), name), f"{place} has no {name}"
