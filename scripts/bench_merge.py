"""Time `ggufkit merge` against `llama-gguf-split --merge`; writes docs/benchmarks.md.

    python scripts/bench_merge.py [--size-gb 3] [--runs 5] [--disk FOLDER] [--dry-run]

All programs run in turn as whole processes, after one round that does not count, on warm shards, on tmpfs and
on a disk. The time ends when the merged file is durable: ours syncs it, for the peer a sync is added. Memory
is the operating system's figure of the peak. Needs the test bed (scripts/testbed.py, scripts/gguf_split.py),
and room for three times the size in /dev/shm and in FOLDER.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from bench_inspect import ROOT, Figure
from gguf_split import llama_gguf_split

sys.path.insert(0, str(ROOT))

from ggufkit.gguf.header import encode_header, encode_kv, pad
from ggufkit.gguf.types import ValueType
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.transfer.digest import DigestCache, sha256_file
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.record import write_record
from ggufkit.verbs.split import plan_split, split

DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench_merge -->", "<!-- /bench_merge -->"
SHARDS = 5
STEM = "bench"
BLOCK_BYTES = 8 << 20
SAMPLE_S = 0.01
OURS = str(Path(sysconfig.get_path("scripts")) / "ggufkit")


@dataclass(frozen=True)
class Rival:
    """One way to merge the shards."""

    title: str
    command: list[str]
    known: bool = False
    """Whether the shards' digests were proven before, and are remembered."""
    consumes: bool = False


@dataclass(frozen=True)
class Bench:
    """A folder with the shards, whose digests are recorded, and where the rest of the work is done."""

    folder: Path
    shards: tuple[Path, ...]
    digests: tuple[str, ...]

    @property
    def output(self) -> Path:
        return self.folder / f"{STEM}.gguf"

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.shards)


def make_model(path: Path, n_bytes: int) -> None:
    """Write a GGUF of about `n_bytes`: tensors of random bytes, one of them a sixth of all."""
    from tests.support.ggufs import tensor_infos

    small = max(1, n_bytes // 60 // 4096)
    specs = [("blk.0.ffn_gate_exps.weight", (1024, max(1, n_bytes // 6 // 4096)), "F32")]
    specs += [(f"blk.{i}.ffn_up.weight", (1024, small), "F32") for i in range(50)]
    infos = tensor_infos(specs)
    chance = random.Random(1)
    with path.open("wb") as file:
        file.write(encode_header([encode_kv("general.architecture", ValueType.STRING, "llama")], infos))
        for info in infos:
            left = pad(info.n_bytes, 32)
            while left:
                left -= file.write(chance.randbytes(min(BLOCK_BYTES, left)))


def prepare(folder: Path, n_bytes: int) -> Bench:
    """Make the shards in `folder`, recorded as a pull would."""
    source = folder / "source" / f"{STEM}.gguf"
    source.parent.mkdir(parents=True)
    make_model(source, n_bytes)
    limit = n_bytes // SHARDS + n_bytes // 10
    plan = plan_split(find_model(str(source)), max_bytes=limit, output=folder / STEM)
    shards = tuple(shard.path for shard in split(plan).shards)
    source.unlink()
    digests = tuple(sha256_file(path) for path in shards)
    files = tuple(
        ManifestFile(f"{STEM}/{path.name}", path.stat().st_size, sha256, None)
        for path, sha256 in zip(shards, digests, strict=True)
    )
    write_record(folder, Manifest(STEM, None, files, ()))
    return Bench(folder, shards, digests)


def rivals(bench: Bench) -> list[Rival]:
    """Return the ways to merge, the peer first."""
    first, out = str(bench.shards[0]), str(bench.output)
    ours = [OURS, "merge", first, "-o", out, "-q"]
    return [
        Rival("llama-gguf-split --merge", [str(llama_gguf_split()), "--merge", first, out]),
        Rival("merge --no-verify", [*ours, "--no-verify"]),
        Rival("merge, all digests checked", ours),
        Rival("merge, shards proven before", ours, known=True),
        Rival("merge --consume, shards proven before", [*ours, "--consume"], known=True, consumes=True),
    ]


def run_once(bench: Bench, rival: Rival, cache: Path) -> tuple[Figure, float]:
    """Run one merge to its durable end; return its figures, and the disk used beyond one copy in percent."""
    for path in (bench.output, bench.output.with_name(f"{STEM}.gguf.part")):
        path.unlink(missing_ok=True)
    shutil.rmtree(cache, ignore_errors=True)
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "GGUFKIT_PROGRESS": "off"}
    keep = bench.folder / "keep"
    if rival.consumes:
        keep.mkdir(exist_ok=True)
        for path in bench.shards:
            shutil.copy2(path, keep / path.name)
    if rival.known:
        for path, sha256 in zip(bench.shards, bench.digests, strict=True):
            DigestCache(cache / "ggufkit").put(path, sha256)
    for path in bench.shards:
        sha256_file(path)  # warm
    os.sync()
    peak = _Peak(bench)
    with peak:
        figure = _timed(rival.command, env, bench.output)
    if rival.consumes:
        bench.shards[0].parent.mkdir(exist_ok=True)
        for path in bench.shards:
            (keep / path.name).rename(path)
    return figure, 100 * (peak.n_bytes / bench.n_bytes - 1)


# In a lean process of its own: a child's peak memory, as the system counts it, begins with its parent's
LAUNCHER = """
import os, sys, time
begin = time.monotonic()
quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(pid, 0)
if status: sys.exit(1)
fd = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(fd)
print(time.monotonic() - begin, usage.ru_maxrss / 1e3)
"""


def _timed(command: list[str], env: dict[str, str], output: Path) -> Figure:
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(output), *command]
    done = subprocess.run(launch, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed {done.stderr}")
    wall_s, peak_mb = map(float, done.stdout.split())
    return Figure(wall_s, peak_mb)


class _Peak:
    """Looks how much disk the shards and the merged file take together, until it is left."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.n_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        out = self.bench.output
        paths = [*self.bench.shards, out, out.with_name(f"{out.name}.part")]
        while not self._done.wait(SAMPLE_S):
            self.n_bytes = max(self.n_bytes, sum(map(_used, paths)))


def _used(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def measure(bench: Bench, n_runs: int, cache: Path) -> dict[str, tuple[Figure, float]]:
    """Run all in turn; return the medians, and the most disk beyond one copy, by title."""
    found: dict[str, list[tuple[Figure, float]]] = {}
    all_rivals = rivals(bench)
    for i in range(n_runs + 1):
        for rival in all_rivals:
            one = run_once(bench, rival, cache)
            if i:
                found.setdefault(rival.title, []).append(one)
    return {t: (_median([f for f, _ in some]), max(e for _, e in some)) for t, some in found.items()}


def _median(figures: list[Figure]) -> Figure:
    wall_s = statistics.median(figure.wall_s for figure in figures)
    return Figure(wall_s, statistics.median(figure.peak_mb for figure in figures))


def rows(where: str, found: dict[str, tuple[Figure, float]]) -> list[str]:
    """Return the table's rows of one file system."""
    peer = next(iter(found.values()))[0].wall_s
    plain = found["merge, shards proven before"][0].wall_s
    out = []
    for title, (figure, extra) in found.items():
        against = f"{figure.wall_s / plain:.2f} of plain merge, " if "consume" in title else ""
        out.append(
            f"| {where} | {title} | {figure.wall_s:.2f} s "
            f"| {against}{peer / figure.wall_s:.2f} times as fast | {figure.peak_mb:.0f} MB | {extra:.1f} % |"
        )
    return out


def main() -> None:
    """Measure, print, and put the section into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gb", type=float, default=3.0, help="size of the model [3]")
    parser.add_argument("--runs", type=int, default=5, help="runs that count [5]")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    parser.add_argument("--dry-run", action="store_true", help="print only; leave the document alone")
    given = parser.parse_args()
    table: list[str] = []
    for where, parent in (("tmpfs", Path("/dev/shm")), ("disk", given.disk)):
        with tempfile.TemporaryDirectory(dir=parent) as name:
            bench = prepare(Path(name).resolve(), int(given.size_gb * 1e9))
            table += rows(where, measure(bench, given.runs, Path(name) / "cache"))
    section = "\n".join([*head(given.size_gb, given.runs), *table, END])
    print(section)
    if not given.dry_run:
        write_section(section)


def head(size_gb: float, n_runs: int) -> list[str]:
    """Return the lines above the rows."""
    return [
        BEGIN,
        "## Merging shards",
        "",
        f"`scripts/bench_merge.py`; {size_gb:g} GB in {SHARDS} shards or so, the largest tensor a sixth; "
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; whole processes "
        f"on warm shards, {n_runs} runs each in turn, medians, a sync of the merged file included in all. "
        "The peer is llama.cpp's own, which checks no digest. `all digests checked` takes each shard's and "
        "the merged file's on the way; `proven before` only the latter. The last column is the most disk "
        "space taken beyond one copy.",
        "",
        "| on | command | time | against the peer | peak memory | extra disk |",
        "|---|---|---|---|---|---|",
    ]


def write_section(section: str) -> None:
    """Replace our section of the document, or add it."""
    text = DOCUMENT.read_text("utf-8") if DOCUMENT.exists() else "# Benchmarks\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(f"{before.rstrip()}\n\n{section}\n{after.lstrip()}", "utf-8")


if __name__ == "__main__":
    main()
