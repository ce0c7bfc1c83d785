"""Time `ggufkit inspect` against `gguf-dump` on real and full-size headers; writes docs/benchmarks.md.

    python scripts/bench_inspect.py

Both programs run in turn, five times each after a warm-up, as whole processes. Wall seconds and peak memory
are those of the operating system; the ratios are of medians. Needs the test bed (scripts/testbed.py).
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import testbed

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
RUNS = 5
BEGIN, END = "<!-- bench_inspect -->", "<!-- /bench_inspect -->"


@dataclass(frozen=True)
class Figure:
    """Medians over the runs of one program on one file."""

    wall_s: float
    peak_mb: float


def run_once(command: list[str]) -> Figure:
    """Run a command to its end, and return what the operating system says of it."""
    begin = os.times().elapsed
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = os.times().elapsed - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    return Figure(wall_s, usage.ru_maxrss / 1e3)


def compare(commands: dict[str, list[str]]) -> dict[str, Figure]:
    """Run the commands in turn; returns each one's medians."""
    figures: dict[str, list[Figure]] = {name: [] for name in commands}
    for i in range(RUNS + 1):
        for name, command in commands.items():
            figure = run_once(command)
            if i:
                figures[name].append(figure)
    return {
        name: Figure(statistics.median(f.wall_s for f in fs), statistics.median(f.peak_mb for f in fs))
        for name, fs in figures.items()
    }


def rows(folder: Path) -> list[str]:
    """Measure every file and return the rows of the table."""
    # Made by another process: a child's peak memory, as the system counts it, begins with its parent's.
    code = (
        "import sys, pathlib; from tests.support.ggufs import r1_shaped; r1_shaped(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "r1.gguf")], cwd=ROOT, check=True)
    files = {
        "SmolLM2-135M Q4_1 (98 MB)": testbed.smollm2(),
        "Gemma 3 270M Q4_K_M (253 MB)": testbed.gemma3(),
        "DeepSeek-R1's shape (197 GB, sparse; header 4.9 MB)": folder / "r1.gguf",
    }
    scripts = Path(sysconfig.get_path("scripts"))
    out = []
    for title, path in files.items():
        ours, peer = [str(scripts / "ggufkit"), "inspect"], [str(scripts / "gguf-dump")]
        done = compare({"ours": [*ours, str(path)], "peer": [*peer, str(path)]})
        a, b = done["ours"], done["peer"]
        out.append(
            f"| {title} | {b.wall_s:.2f} s, {b.peak_mb:.0f} MB | {a.wall_s:.2f} s, {a.peak_mb:.0f} MB "
            f"| {b.wall_s / a.wall_s:.1f} times | {b.peak_mb / a.peak_mb:.1f} times |"
        )
    return out


def main() -> None:
    """Measure, print, and put the section into the document."""
    with tempfile.TemporaryDirectory() as folder:
        table = rows(Path(folder))
    head = [
        BEGIN,
        "## Inspecting a header",
        "",
        f"`scripts/bench_inspect.py`; {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; whole processes, {RUNS} runs each in turn, medians. The peer is "
        "`gguf-dump` of the `gguf` package.",
        "",
        "| file | gguf-dump | ggufkit inspect | faster | leaner |",
        "|---|---|---|---|---|",
    ]
    section = "\n".join([*head, *table, END])
    print(section)
    write_section(section)


def write_section(section: str) -> None:
    """Replace our section of the document, or add it."""
    text = DOCUMENT.read_text("utf-8") if DOCUMENT.exists() else "# Benchmarks\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(f"{before.rstrip()}\n\n{section}\n{after.lstrip()}", "utf-8")


if __name__ == "__main__":
    main()
