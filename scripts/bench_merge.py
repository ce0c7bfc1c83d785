"""Time `ggufkit merge` against `llama-gguf-split --merge`; writes docs/benchmarks.md.

    python scripts/bench_merge.py [--size-gb 3] [--runs 5] [--disk FOLDER] [--quick] [--dry-run]

All programs run in turn as whole processes, after one round that does not count, on warm shards, on tmpfs and
on a disk. The time ends when the merged file is durable: ours syncs it, for the peer a sync is added. Memory
is the operating system's figure of the peak. Needs the test bed (scripts/testbed.py, scripts/gguf_split.py),
and room for three times the size in /dev/shm and in FOLDER.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench_model import SHARDS, STEM, Shards, make_shards
from bench_rounds import OURS, Figure, arguments, in_turn, machine, median, publish, section, settle, timed
from gguf_split import llama_gguf_split

from ggufkit.transfer.digest import DigestCache, sha256_file

COLUMNS = ("on", "command", "time", "against the peer", "peak memory", "extra disk")
PLAIN = "merge, shards proven before"
"""What merging without a second copy is compared with."""
SAMPLE_S = 0.01


@dataclass(frozen=True)
class Rival:
    """One way to merge the shards."""

    title: str
    command: list[str]
    known: bool = False
    """Whether the shards' digests were proven before, and are remembered."""
    consumes: bool = False


def rivals(first: Path, output: Path) -> list[Rival]:
    """Return the ways to merge, the peer first."""
    ours = [OURS, "merge", str(first), "-o", str(output), "-q"]
    return [
        Rival("llama-gguf-split --merge", [str(llama_gguf_split()), "--merge", str(first), str(output)]),
        Rival("merge --no-verify", [*ours, "--no-verify"]),
        Rival("merge, all digests checked", ours),
        Rival(PLAIN, ours, known=True),
        Rival("merge --consume, shards proven before", [*ours, "--consume"], known=True, consumes=True),
    ]


def run_once(rival: Rival, shards: Shards, output: Path, cache: Path) -> tuple[Figure, float]:
    """Run one merge to its durable end; return its figures, and the disk used beyond one copy in percent."""
    for path in (output, part_of(output)):
        path.unlink(missing_ok=True)
    shutil.rmtree(cache, ignore_errors=True)
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "GGUFKIT_PROGRESS": "off"}
    keep = shards.folder / "keep"
    if rival.consumes:
        keep.mkdir(exist_ok=True)
        for path in shards.paths:
            shutil.copy2(path, keep / path.name)
    if rival.known:
        for path, sha256 in zip(shards.paths, shards.sha256s, strict=True):
            DigestCache(cache / "ggufkit").put(path, sha256)
    for path in shards.paths:
        sha256_file(path)  # warm
    os.sync()
    with Peak([*shards.paths, output, part_of(output)]) as peak:
        figure = timed(rival.title, rival.command, env, output)
    if rival.consumes:
        shards.paths[0].parent.mkdir(exist_ok=True)
        for path in shards.paths:
            (keep / path.name).rename(path)
    return figure, 100 * (peak.n_bytes / shards.n_bytes - 1)


def part_of(output: Path) -> Path:
    """Return where a merged file is until it is whole."""
    return output.with_name(f"{output.name}.part")


class Peak:
    """Looks how much disk some files take together, until it is left."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.n_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.n_bytes = max(self.n_bytes, sum(map(_used, self.paths)))


def _used(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def rows(where: str, folder: Path, n_bytes: int, n_runs: int) -> Iterator[list[str]]:
    """Measure all in one folder; the peer is the first."""
    shards = make_shards(folder, n_bytes)
    output = folder / f"{STEM}.gguf"
    runs = {
        rival.title: partial(run_once, rival, shards, output, folder / "cache")
        for rival in rivals(shards.paths[0], output)
    }
    found = in_turn(where, runs, n_runs)
    medians = {title: median(figure for figure, _ in some) for title, some in found.items()}
    peer_s, plain_s = next(iter(medians.values())).wall_s, medians[PLAIN].wall_s
    for title, one in medians.items():
        against = f"{one.wall_s / plain_s:.2f} of plain merge, " if "consume" in title else ""
        yield [
            where,
            title,
            f"{one.wall_s:.2f} s",
            f"{against}{peer_s / one.wall_s:.2f} times as fast",
            f"{one.peak_mb:.0f} MB",
            f"{max(extra for _, extra in found[title]):.1f} %",
        ]


def main() -> None:
    """Measure, print, and put the section into the document."""
    parser = arguments(__doc__, size_gb=3, quick_gb=0.064)
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    given = settle(parser)
    table: list[list[str]] = []
    for where, parent in (("tmpfs", Path("/dev/shm")), ("disk", given.disk)):
        with tempfile.TemporaryDirectory(dir=parent) as name:
            table += rows(where, Path(name).resolve(), given.n_bytes, given.runs)
    about = (
        f"{given.n_bytes / 1e9:g} GB in {SHARDS} shards or so, the largest tensor a sixth; {machine()}; "
        f"whole processes on warm shards, {given.runs} runs each in turn, medians, a sync of the merged file "
        "included in all. The peer is llama.cpp's own, which checks no digest. `all digests checked` takes "
        "each shard's and the merged file's on the way; `proven before` only the latter. The last column is "
        "the most disk space taken beyond one copy."
    )
    publish(section("bench_merge", "Merging shards", about, COLUMNS, table), writes=given.writes)


if __name__ == "__main__":
    main()
