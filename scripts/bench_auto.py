"""Time `ggufkit pull` over two hubs of which one is killed in the middle; writes docs/benchmarks.md.

    python scripts/bench_auto.py [--size-gb 1.074] [--runs 5] [--quick] [--dry-run]

Two hubs (scripts/fast_hub.py), one asked as Hugging Face, one as ModelScope, have the same set. In turn,
after one round that does not count: the healthy one alone, both, and both while the first is killed with
SIGKILL as soon as half of the bytes are there. Needs the test bed, and room for three times the size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_merge import DOCUMENT
from bench_transfer import OURS, REPO, Model, make_model

BEGIN, END = "<!-- bench_auto -->", "<!-- /bench_auto -->"
CAP_BYTES_PER_S = 100_000_000
WAYS = ("the healthy hub alone", "both hubs", "both, one killed in the middle")


@dataclass(frozen=True)
class Run:
    """What one pull came to."""

    wall_s: float
    shares: dict[str, int]
    """Bytes that each source brought."""


@contextlib.contextmanager
def hub(root: Path, limit: int | None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a hub; yields its address and its process, which may be killed."""
    words = [sys.executable, str(Path(__file__).with_name("fast_hub.py")), str(root)]
    words += ["--limit-rate", str(limit)] if limit else []
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("the hub did not start")
        yield url, process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def kill_in_the_middle(
    victim: subprocess.Popen[str], folder: Path, n_bytes: int, over: threading.Event
) -> None:
    """Kill a hub as soon as half of the bytes are in the folder."""
    while not over.wait(0.005):
        with contextlib.suppress(FileNotFoundError):
            if sum(path.stat().st_blocks * 512 for path in folder.rglob("*.gguf*")) >= n_bytes / 2:
                victim.kill()
                return


def run_once(model: Model, way: str, folder: Path, limit: int | None) -> Run:
    """Pull into an empty folder, with hubs of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    home = folder.with_name("home")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    over = threading.Event()
    with hub(model.root, limit) as (first, victim), hub(model.root, limit) as (second, _):
        env = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
        env |= {"HF_ENDPOINT": first, "MODELSCOPE_ENDPOINT": second, "GGUFKIT_PROGRESS": "off"}
        source = "modelscope" if way == WAYS[0] else "auto"
        words = [OURS, "pull", REPO, "--local-dir", str(folder), "--no-adopt", "--json", "--source", source]
        killer = threading.Thread(target=kill_in_the_middle, args=(victim, folder, model.n_bytes, over))
        if way == WAYS[2]:
            killer.start()
        began = time.monotonic()
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        wall_s = time.monotonic() - began
        over.set()
        if way == WAYS[2]:
            killer.join()
            if victim.poll() is None:
                sys.exit("the pull was done before the hub was killed")
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    shutil.rmtree(folder)
    return Run(wall_s, {one["source"]: one["n_bytes"] for one in json.loads(done.stdout)["sources"]})


def rows(model: Model, folder: Path, limit: int | None, n_runs: int) -> list[str]:
    """Measure the three ways in turn and return their rows."""
    found: dict[str, list[Run]] = {way: [] for way in WAYS}
    for i in range(n_runs + 1):
        for way in WAYS:
            run = run_once(model, way, folder, limit)
            if i:
                found[way].append(run)
    alone_s = statistics.median(run.wall_s for run in found[WAYS[0]])
    out = []
    for way, runs in found.items():
        wall_s = statistics.median(run.wall_s for run in runs)
        shares = {
            word: statistics.median(run.shares.get(word, 0) for run in runs) for word in ("hf", "modelscope")
        }
        again = max(sum(run.shares.values()) for run in runs) - model.n_bytes
        each = f"{limit / 1e6:.0f} MB/s each" if limit else "loopback"
        out.append(
            f"| {each} | {way} | {wall_s:.2f} s | {wall_s / alone_s:.2f} "
            f"| {shares['hf'] / 1e6:.0f} MB, {shares['modelscope'] / 1e6:.0f} MB | {again:,} |"
        )
    return out


def main() -> None:
    """Measure, print, and put the section into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gb", type=float, default=1.0737, help="size of the model [1.0737: 1 GiB]")
    parser.add_argument("--runs", type=int, default=5, help="runs that count [5]")
    parser.add_argument("--quick", action="store_true", help="128 MB, 1 run: does it work at all?")
    parser.add_argument("--dry-run", action="store_true", help="print only; leave the document alone")
    given = parser.parse_args()
    n_runs, size_gb = (1, 0.128) if given.quick else (given.runs, given.size_gb)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        model = make_model(Path(shm), int(size_gb * 1e9))
        table = rows(model, Path(shm) / "out", CAP_BYTES_PER_S, n_runs)
        table += rows(model, Path(shm) / "out", None, n_runs)
    section = "\n".join([*head(model, n_runs), *table, END])
    print(section)
    if not (given.dry_run or given.quick):
        write_section(section)


def head(model: Model, n_runs: int) -> list[str]:
    """Return the lines above the rows."""
    return [
        BEGIN,
        "## Two hubs, one of which dies",
        "",
        f"`scripts/bench_auto.py`; {model.n_bytes / 1e9:.2f} GB in {len(model.paths)} shards; "
        f"{platform.machine()}, {os.cpu_count()} cores (the servers' work included), Python "
        f"{platform.python_version()}; whole processes with their start-up, {n_runs} runs each in turn, "
        "medians. The hub is killed with SIGKILL when half of the bytes are on the disk. *again*: bytes that "
        "came twice, the most of all runs.",
        "",
        "| hubs | pull from | time | of the healthy one alone | from each | again |",
        "|---|---|---|---|---|---|",
    ]


def write_section(section: str) -> None:
    """Replace our section of the document, or add it."""
    text = DOCUMENT.read_text("utf-8") if DOCUMENT.exists() else "# Benchmarks\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before.rstrip()}\n\n{section}\n{after.lstrip()}", "utf-8")


if __name__ == "__main__":
    main()
