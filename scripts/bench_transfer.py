"""Time `ggufkit pull` against curl, aria2c, huggingface_hub and modelscope; writes docs/benchmarks.md.

    python scripts/bench_transfer.py [--size-gb 1.074] [--runs 5] [--disk FOLDER] [--quick] [--dry-run]

A set of 4 shards or so, served by scripts/fast_hub.py from tmpfs in a process of its own, and fetched by
whole processes in turn, after one round that does not count. The time ends when the files are durable: ours
syncs them, for the others a sync is added. CPU seconds are user's and system's of the whole process tree.
aria2c is measured where it is on the PATH. Needs the test bed, and room for four times the size.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_merge import DOCUMENT, STEM, prepare
from gguf_split import llama_gguf_split

BEGIN, END = "<!-- bench_transfer -->", "<!-- /bench_transfer -->"
SCRIPTS = Path(sysconfig.get_path("scripts"))
OURS = str(SCRIPTS / "ggufkit")
REPO = "bench/bench-GGUF"
CAP_BYTES_PER_S = 40_000_000

HASH = """
import hashlib, sys
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest())
"""
HUGGING_FACE = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], local_dir=sys.argv[2], max_workers=4)
"""
MODELSCOPE = """
import sys
from modelscope import snapshot_download
snapshot_download(sys.argv[1], local_dir=sys.argv[2])
"""
# In a lean process of its own: a child's peak memory, as the system counts it, begins with its parent's.
# Commands, with "+" between, run one after the other; at the end all files below the folder are synced.
LAUNCHER = """
import os, resource, sys, time
begin = time.monotonic()
words, commands = sys.argv[3:], [[]]
for word in words:
    commands.append([]) if word == "+" else commands[-1].append(word)
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
quiet = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
peak = 0
for command in commands:
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    peak = max(peak, usage.ru_maxrss)
    if status:
        sys.exit(1)
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        fd = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, peak / 1e3)
"""


@dataclass(frozen=True)
class Figure:
    """What one run, or the median of several, came to."""

    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Model:
    """What is served."""

    root: Path
    """The folder served."""
    paths: tuple[str, ...]
    """The shards' paths in the repo."""
    sha256s: tuple[str, ...]
    """Their digests."""
    n_bytes: int
    """Their sizes together."""


@dataclass(frozen=True)
class Rival:
    """One way to get the model."""

    title: str
    command: list[str]
    """`{}` stands for the folder it goes to, `+` stands between two commands."""
    env: dict[str, str]
    checks: bool
    """Whether it holds the bytes against published digests."""


@contextlib.contextmanager
def hub(root: Path, *options: str) -> Iterator[str]:
    """Run the fast hub; yields its address."""
    command = [sys.executable, str(Path(__file__).with_name("fast_hub.py")), str(root), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("the hub did not start")
        yield url
    finally:
        process.stdin.close()
        process.wait(10)


def make_model(folder: Path, n_bytes: int) -> Model:
    """Make the shards, in a repo of their own."""
    made = prepare(folder / "made", n_bytes)
    repo = folder / "root" / REPO / STEM
    repo.mkdir(parents=True)
    for path in made.shards:
        path.rename(repo / path.name)
    paths = tuple(f"{STEM}/{path.name}" for path in made.shards)
    sizes = [(repo / path.name).stat().st_size for path in made.shards]
    return Model(folder / "root", paths, made.digests, sum(sizes))


def curl(model: Model, url: str, *options: str) -> list[str]:
    """Return the command that fetches all shards over one connection."""
    words = ["curl", "-sSf", *options]
    for path in model.paths:
        words += ["-o", f"{{}}/{Path(path).name}", f"{url}/{REPO}/resolve/main/{path}"]
    return words


def pull(url: str, *options: str) -> list[str]:
    """Return our command."""
    return [OURS, "pull", f"hf:{REPO}", "--local-dir", "{}", "--no-adopt", "-q", *options]


def rivals(model: Model, url: str, lists: Path) -> list[Rival]:
    """Return the ways to get the shards, curl first."""
    hf = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ms = {"MODELSCOPE_ENDPOINT": url, "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false"}
    names = [f"{{}}/{Path(path).name}" for path in model.paths]
    out = [
        Rival("curl", curl(model, url), {}, False),
        Rival("curl, then hashlib", [*curl(model, url), "+", sys.executable, "-c", HASH, *names], {}, True),
        Rival("ggufkit pull", pull(url), hf, True),
        Rival("ggufkit pull --connections 1", pull(url, "--connections", "1"), hf, True),
        Rival("ggufkit pull --merge", pull(url, "--merge"), hf, True),
        Rival("huggingface_hub", [sys.executable, "-c", HUGGING_FACE, REPO, "{}"], hf, False),
        Rival(
            "hf, then llama-gguf-split --merge",
            [sys.executable, "-c", HUGGING_FACE, REPO, "{}", "+", str(llama_gguf_split()), "--merge"]
            + [f"{{}}/{model.paths[0]}", "{}/merged.gguf"],
            hf,
            False,
        ),
        Rival("modelscope", [sys.executable, "-c", MODELSCOPE, REPO, "{}"], ms, True),
    ]
    if shutil.which("aria2c"):
        lines = [
            f"{url}/{REPO}/resolve/main/{path}\n  out={Path(path).name}\n  checksum=sha-256={sha256}\n"
            for path, sha256 in zip(model.paths, model.sha256s, strict=True)
        ]
        lists.write_text("".join(lines))
        words = ["aria2c", "-q", "-x8", "-s8", "-j1", "--file-allocation=none", "-d", "{}", "-i", str(lists)]
        out.append(Rival("aria2c -x8 with sha-256", words, {}, True))
    return out


def run_once(rival: Rival, folder: Path, home: Path, n_bytes: int) -> Figure:
    """Run one rival into an empty folder, durably; its log is shown if it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    folder.mkdir()
    home.mkdir()
    env = {**os.environ, **rival.env, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    env |= {
        "XDG_STATE_HOME": str(home / "state"),
        "GGUFKIT_PROGRESS": "off",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    words = [word.replace("{}", str(folder)) for word in rival.command]
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(folder), str(home / "log"), *words]
    done = subprocess.run(launch, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        log = (home / "log").read_text(errors="replace") if (home / "log").exists() else ""
        sys.exit(f"{rival.title} failed: {done.stderr}{log[-2000:]}")
    got = sum(path.stat().st_size for path in folder.rglob("*.gguf"))
    if got < n_bytes * 0.99:
        sys.exit(f"{rival.title} left {got:,} of {n_bytes:,} bytes")
    shutil.rmtree(folder)
    return Figure(*map(float, done.stdout.split()))


def measure(some: list[Rival], folder: Path, n_bytes: int, n_runs: int) -> dict[str, Figure]:
    """Run all in turn; return the medians by title."""
    found: dict[str, list[Figure]] = {}
    with tempfile.TemporaryDirectory() as home:
        for i in range(n_runs + 1):
            for rival in some:
                figure = run_once(rival, folder / "out", Path(home) / "home", n_bytes)
                if i:
                    found.setdefault(rival.title, []).append(figure)
    return {title: median(figures) for title, figures in found.items()}


def median(figures: list[Figure]) -> Figure:
    """Return the medians of each number."""
    values = ([f.wall_s for f in figures], [f.cpu_s for f in figures], [f.peak_mb for f in figures])
    return Figure(*map(statistics.median, values))


def rows(where: str, found: dict[str, Figure], some: list[Rival], n_bytes: int) -> list[str]:
    """Return the rows of one table; the first rival is what the others are compared with."""
    first = found[some[0].title]
    hashed = found.get("curl, then hashlib")
    out = []
    for rival in some:
        one = found[rival.title]
        cpu = f"{one.cpu_s / hashed.cpu_s:.2f}" if hashed else "-"
        out.append(
            f"| {where} | {rival.title} | {'yes' if rival.checks else 'no'} | {one.wall_s:.2f} s "
            f"| {n_bytes / one.wall_s / 1e6:.0f} MB/s | {first.wall_s / one.wall_s:.2f} | {one.cpu_s:.2f} s "
            f"| {cpu} | {one.peak_mb:.0f} MB |"
        )
    return out


def capped(model: Model, folder: Path, n_runs: int) -> list[str]:
    """Measure one source of 40 MB/s against two."""
    limit = ("--limit-rate", str(CAP_BYTES_PER_S))
    with hub(model.root, *limit) as one, hub(model.root, *limit) as two:
        some = [
            Rival("one source of 40 MB/s", pull(one, "--source", one), {"HF_ENDPOINT": one}, True),
            Rival("two of them", pull(one, "--source", one, "--source", two), {"HF_ENDPOINT": one}, True),
        ]
        return rows("tmpfs", measure(some, folder, model.n_bytes, n_runs), some, model.n_bytes)


def over_tls(model: Model, folder: Path, n_runs: int) -> list[str]:
    """Measure curl and ours over TLS."""
    pem = folder / "cert.pem"
    make_certificate(pem)
    with hub(model.root, "--tls", str(pem)) as url:
        some = [
            Rival("curl", curl(model, url, "--cacert", str(pem)), {}, False),
            Rival("ggufkit pull", pull(url), {"HF_ENDPOINT": url, "SSL_CERT_FILE": str(pem)}, True),
        ]
        return rows("tmpfs, TLS", measure(some, folder, model.n_bytes, n_runs), some, model.n_bytes)


def make_certificate(pem: Path) -> None:
    """Make a key and a certificate for localhost that signs itself, with the system's openssl."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key, cert = pem.with_suffix(".key"), pem.with_suffix(".crt")
    subprocess.run([*words, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    pem.write_bytes(key.read_bytes() + cert.read_bytes())


def main() -> None:
    """Measure, print, and put the section into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-gb", type=float, default=1.0737, help="size of the model [1.0737: 1 GiB]")
    parser.add_argument("--runs", type=int, default=5, help="runs that count [5]")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    parser.add_argument("--quick", action="store_true", help="64 MB, 1 run: does it work at all?")
    parser.add_argument("--dry-run", action="store_true", help="print only; leave the document alone")
    given = parser.parse_args()
    n_runs, size_gb = (1, 0.064) if given.quick else (given.runs, given.size_gb)
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as shm,
        tempfile.TemporaryDirectory(dir=given.disk) as disk,
    ):
        model = make_model(Path(shm), int(size_gb * 1e9))
        table = [*over_all(model, Path(shm), Path(disk), n_runs)]
        table += over_tls(model, Path(shm), n_runs)
        table += capped(model, Path(shm), n_runs)
    section = "\n".join([*head(model, n_runs), *table, END])
    print(section)
    if not (given.dry_run or given.quick):
        write_section(section)


def over_all(model: Model, shm: Path, disk: Path, n_runs: int) -> Iterator[str]:
    """Measure everybody, on tmpfs and on a disk."""
    with hub(model.root) as url:
        for where, folder in (("tmpfs", shm), ("disk", disk)):
            some = rivals(model, url, shm / "aria2.txt")
            yield from rows(where, measure(some, folder, model.n_bytes, n_runs), some, model.n_bytes)


def head(model: Model, n_runs: int) -> list[str]:
    """Return the lines above the rows."""
    return [
        BEGIN,
        "## Pulling",
        "",
        f"`scripts/bench_transfer.py`; {model.n_bytes / 1e9:.2f} GB in {len(model.paths)} shards over "
        f"loopback; {platform.machine()}, {os.cpu_count()} cores (the server's work included), Python "
        f"{platform.python_version()}; whole processes with their start-up, {n_runs} runs each in turn, "
        "medians, a sync of all files included. *checked*: against the published SHA-256. *speed* is against "
        "the first line of each block, *CPU* against curl and one pass of hashlib.",
        "",
        "| on | command | checked | time | rate | speed | CPU | of curl + hashlib | peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
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
