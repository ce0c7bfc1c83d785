"""Time `ggufkit inspect` against `gguf-dump` on real and full-size headers; writes docs/benchmarks.md.

    python scripts/bench_inspect.py [--runs 5] [--quick] [--dry-run]

Both programs run in turn after a round that does not count, as whole processes. Wall seconds and peak memory
are those of the operating system; the ratios are of medians. Needs the test bed (scripts/testbed.py).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import testbed
from bench_rounds import (
    OURS,
    PROGRAMS,
    ROOT,
    arguments,
    in_turn,
    machine,
    median,
    publish,
    section,
    settle,
    timed,
)

COLUMNS = ("file", "gguf-dump", "ggufkit inspect", "faster", "leaner")


def headers(folder: Path) -> dict[str, Path]:
    """Return the files to look into, by title."""
    code = (
        "import sys, pathlib; from tests.support.ggufs import r1_shaped; r1_shaped(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "r1.gguf")], cwd=ROOT, check=True)
    return {
        "SmolLM2-135M Q4_1 (98 MB)": testbed.smollm2(),
        "Gemma 3 270M Q4_K_M (253 MB)": testbed.gemma3(),
        "DeepSeek-R1's shape (197 GB, sparse; header 4.9 MB)": folder / "r1.gguf",
    }


def row(title: str, path: Path, n_runs: int) -> list[str]:
    """Measure both programs on one file."""
    commands = {"ours": [OURS, "inspect", str(path)], "peer": [str(PROGRAMS / "gguf-dump"), str(path)]}
    runs = {name: partial(timed, command[0], command) for name, command in commands.items()}
    found = in_turn(title, runs, n_runs)
    ours, peer = median(found["ours"]), median(found["peer"])
    return [
        title,
        f"{peer.wall_s:.2f} s, {peer.peak_mb:.0f} MB",
        f"{ours.wall_s:.2f} s, {ours.peak_mb:.0f} MB",
        f"{peer.wall_s / ours.wall_s:.1f} times",
        f"{peer.peak_mb / ours.peak_mb:.1f} times",
    ]


def main() -> None:
    """Measure, print, and put the section into the document."""
    given = settle(arguments(__doc__))
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(title, path, given.runs) for title, path in headers(Path(folder)).items()]
    about = (
        f"{machine()}; whole processes, {given.runs} runs each in turn, medians. The peer is `gguf-dump` of "
        "the `gguf` package."
    )
    publish(section("bench_inspect", "Inspecting a header", about, COLUMNS, rows), writes=given.writes)


if __name__ == "__main__":
    main()
