"""What the benchmarks share: rounds of whole processes, a hub to fetch from, and docs/benchmarks.md.

Imports nothing heavy: a child's peak memory, as the system counts it, begins with its parent's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
PROGRAMS = Path(sysconfig.get_path("scripts"))
"""Where this Python's command line programs are."""
OURS = str(PROGRAMS / "ggufkit")
LOG_BYTES = 2000
"""How much of a failed command's log is shown, from its end."""

HASH = """
import hashlib, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest())
"""
# In a lean process of its own, for the same reason. Commands, with "+" between, run one after the other; at
# the end the file, or all files below the folder, are synced, if one is named.
LAUNCHER = """
import os, resource, sys, time
begin = time.monotonic()
target, commands = sys.argv[1], [[]]
for word in sys.argv[2:]:
    commands.append([]) if word == "+" else commands[-1].append(word)
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
peak = 0
for command in commands:
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    peak = max(peak, usage.ru_maxrss)
    if status:
        sys.exit(1)
if target and not os.path.exists(target):
    sys.exit(target + " is not there")
paths = [target] if os.path.isfile(target) else []
paths += [os.path.join(folder, name) for folder, _, names in os.walk(target) for name in names]
for path in paths:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, peak / 1e3)
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """What one run, or the median of several, came to."""

    wall_s: float
    cpu_s: float
    """User's and system's, of the whole process tree."""
    peak_mb: float


@dataclass(frozen=True)
class Hub:
    """A hub that runs."""

    url: str
    process: subprocess.Popen[str]


def arguments(story: str, *, size_gb: float = 0, quick_gb: float = 0) -> argparse.ArgumentParser:
    """Return the arguments that the benchmarks have in common; `settle` reads them."""
    parser = argparse.ArgumentParser(description=story, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "1 run"
    if size_gb:
        parser.add_argument(
            "--size-gb", type=float, default=size_gb, help="size of what is used [%(default)s]"
        )
        quick = f"{quick_gb * 1000:.0f} MB, 1 run"
    parser.add_argument("--runs", type=int, default=5, help="runs that count [%(default)s]")
    parser.add_argument("--quick", action="store_true", help=f"{quick}: does it work at all?")
    parser.add_argument("--dry-run", action="store_true", help="print only; leave the document alone")
    parser.set_defaults(quick_gb=quick_gb)
    return parser


def settle(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; adds `n_bytes`, and `writes`: whether the document is to be changed."""
    given = parser.parse_args()
    if given.quick:
        given.runs, given.size_gb = 1, given.quick_gb
    given.n_bytes = int(getattr(given, "size_gb", 0) * 1e9)
    given.writes = not (given.quick or given.dry_run)
    return given


def timed(
    title: str, command: Sequence[str], env: Mapping[str, str] | None = None, synced: Path | None = None
) -> Figure:
    """Run a command to its end, durably if `synced` (a file or folder) is given; its log ends us if it fails.

    "+" stands between commands that run one after the other.
    """
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(synced or ""), *command]
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(launch, env=env, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
        if done.returncode:
            log.seek(0)
            sys.exit(f"{title} failed: {log.read()[-LOG_BYTES:].decode(errors='replace')}")
    return Figure(*map(float, done.stdout.split()))


def in_turn(label: str, runs: Mapping[str, Callable[[], T]], n_runs: int) -> dict[str, list[T]]:
    """Run all in turn, `n_runs` times after one round that does not count; says when a round is over."""
    found: dict[str, list[T]] = {name: [] for name in runs}
    for i in range(n_runs + 1):
        began = time.monotonic()
        for name, run in runs.items():
            one = run()
            if i:
                found[name].append(one)
        what = f"run {i} of {n_runs}" if i else "the round that does not count"
        print(f"{label}: {what}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return found


def median(figures: Iterable[Figure]) -> Figure:
    """Return the medians of each number."""
    values = zip(*((f.wall_s, f.cpu_s, f.peak_mb) for f in figures), strict=True)
    return Figure(*map(statistics.median, values))


@contextlib.contextmanager
def hub(root: Path, *options: str) -> Iterator[Hub]:
    """Run the fast hub (scripts/fast_hub.py) on a folder, in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("fast_hub.py")), str(root), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("the hub did not start")
        yield Hub(url, process)  # it ends when its standard input is closed, at the end of this block


def machine(note: str = "") -> str:
    """Return what the figures were measured on; the note stands behind the cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores{note}, Python {platform.python_version()}"


def section(name: str, title: str, about: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the part of the document that a script owns, between its marks."""
    return "\n".join(
        [
            f"<!-- {name} -->",
            f"## {title}",
            "",
            f"`scripts/{name}.py`; {about}",
            "",
            f"| {' | '.join(columns)} |",
            "|" + "---|" * len(columns),
            *(f"| {' | '.join(row)} |" for row in rows),
            f"<!-- /{name} -->",
        ]
    )


def publish(text: str, *, writes: bool, document: Path = DOCUMENT) -> None:
    """Put a section, if wanted, in its place in the document, or at its end; and print it."""
    if writes:
        lines = text.split("\n")
        old = document.read_text("utf-8") if document.exists() else "# Benchmarks\n"
        before, _, rest = old.partition(lines[0])
        after = rest.partition(lines[-1])[2].strip()
        document.write_text("\n\n".join([before.rstrip(), text, *([after] if after else [])]) + "\n", "utf-8")
    print(text)
