"""Time `ggufkit pull` over two hubs of which one is killed in the middle; writes docs/benchmarks.md.

    python scripts/bench_auto.py [--size-gb 1.074] [--runs 5] [--quick] [--dry-run]

Two hubs (scripts/fast_hub.py), one asked as Hugging Face, one as ModelScope, have the same set. In turn,
after one round that does not count: the healthy one alone, both, and both while the first is killed with
SIGKILL as soon as half of the bytes are there. Needs the test bed, and room for three times the size.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench_model import REPO, Served, make_served
from bench_rounds import OURS, Hub, arguments, hub, in_turn, machine, publish, section, settle

COLUMNS = ("hubs", "pull from", "time", "of the healthy one alone", "from each", "again")
CAP_BYTES_PER_S = 100_000_000
WAYS = ("the healthy hub alone", "both hubs", "both, one killed in the middle")


@dataclass(frozen=True)
class Run:
    """What one pull came to."""

    wall_s: float
    shares: dict[str, int]
    """Bytes that each source brought."""


def kill_in_the_middle(victim: Hub, folder: Path, n_bytes: int, over: threading.Event) -> None:
    """Kill a hub as soon as half of the bytes are in the folder."""
    while not over.wait(0.005):
        with contextlib.suppress(FileNotFoundError):
            if sum(path.stat().st_blocks * 512 for path in folder.rglob("*.gguf*")) >= n_bytes / 2:
                victim.process.kill()
                return


def run_once(model: Served, way: str, folder: Path, limit: int | None) -> Run:
    """Pull into an empty folder, with hubs of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    home = folder.with_name("home")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    over = threading.Event()
    options = ("--limit-rate", str(limit)) if limit else ()
    with hub(model.root, *options) as first, hub(model.root, *options) as second:
        env = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
        env |= {"HF_ENDPOINT": first.url, "MODELSCOPE_ENDPOINT": second.url, "GGUFKIT_PROGRESS": "off"}
        source = "modelscope" if way == WAYS[0] else "auto"
        words = [OURS, "pull", REPO, "--local-dir", str(folder), "--no-adopt", "--json", "--source", source]
        killer = threading.Thread(target=kill_in_the_middle, args=(first, folder, model.n_bytes, over))
        if way == WAYS[2]:
            killer.start()
        began = time.monotonic()
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        wall_s = time.monotonic() - began
        over.set()
        if way == WAYS[2]:
            killer.join()
            if first.process.poll() is None:
                sys.exit("the pull was done before the hub was killed")
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    shutil.rmtree(folder)
    return Run(wall_s, {one["source"]: one["n_bytes"] for one in json.loads(done.stdout)["sources"]})


def rows(model: Served, folder: Path, limit: int | None, n_runs: int) -> Iterator[list[str]]:
    """Measure the three ways in turn."""
    each = f"{limit / 1e6:.0f} MB/s each" if limit else "loopback"
    found = in_turn(each, {way: partial(run_once, model, way, folder, limit) for way in WAYS}, n_runs)
    walls_s = {way: statistics.median(run.wall_s for run in runs) for way, runs in found.items()}
    for way, runs in found.items():
        hf, modelscope = (
            statistics.median(run.shares.get(source, 0) for run in runs) for source in ("hf", "modelscope")
        )
        yield [
            each,
            way,
            f"{walls_s[way]:.2f} s",
            f"{walls_s[way] / walls_s[WAYS[0]]:.2f}",
            f"{hf / 1e6:.0f} MB, {modelscope / 1e6:.0f} MB",
            f"{max(sum(run.shares.values()) for run in runs) - model.n_bytes:,}",
        ]


def main() -> None:
    """Measure, print, and put the section into the document."""
    given = settle(arguments(__doc__, size_gb=1.0737, quick_gb=0.128))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        model = make_served(Path(shm), given.n_bytes)
        table = [*rows(model, Path(shm) / "out", CAP_BYTES_PER_S, given.runs)]
        table += rows(model, Path(shm) / "out", None, given.runs)
    on = machine(" (the servers' work included)")
    about = (
        f"{model.n_bytes / 1e9:.2f} GB in {len(model.paths)} shards; {on}; whole processes with their "
        f"start-up, {given.runs} runs each in turn, medians. The hub is killed with SIGKILL when half of the "
        "bytes are on the disk. *again*: bytes that came twice, the most of all runs."
    )
    publish(section("bench_auto", "Two hubs, one of which dies", about, COLUMNS, table), writes=given.writes)


if __name__ == "__main__":
    main()
