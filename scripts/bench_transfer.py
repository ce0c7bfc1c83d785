"""Time `ggufkit pull` against curl, aria2c, huggingface_hub and modelscope; writes docs/benchmarks.md.

    python scripts/bench_transfer.py [--size-gb 1.0737] [--runs 5] [--disk FOLDER] [--only NAMES]
                                     [--quick] [--dry-run]

A set of 4 shards or so, served by scripts/fast_hub.py from tmpfs in a process of its own, and fetched by
whole processes in turn, after one round that does not count. The time ends when the files are durable: ours
syncs them, for the others a sync is added. CPU seconds are user's and system's of the whole process tree.
aria2c is measured where it is on the PATH. Needs the test bed, and room for four times the size.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench_model import REPO, Served, make_served
from bench_rounds import (
    HASH,
    OURS,
    Figure,
    arguments,
    hub,
    in_turn,
    machine,
    median,
    publish,
    section,
    settle,
    timed,
)
from gguf_split import llama_gguf_split

COLUMNS = ("on", "command", "checked", "time", "rate", "speed", "CPU", "of curl + hashlib", "peak memory")
HASHED = "curl, then hashlib"
"""What CPU seconds are compared with."""
CAP_BYTES_PER_S = 40_000_000

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


@dataclass(frozen=True)
class Rival:
    """One way to get the model."""

    title: str
    command: list[str]
    """`{}` stands for the folder it goes to, `+` stands between two commands."""
    env: dict[str, str]
    checks: bool
    """Whether it holds the bytes against published digests."""


@dataclass(frozen=True)
class Contest:
    """What all blocks of the table have in common."""

    model: Served
    n_runs: int
    only: tuple[str, ...]
    """Parts of the titles wanted; empty: all."""


def curl(model: Served, url: str, *options: str) -> list[str]:
    """Return the command that fetches all shards over one connection."""
    words = ["curl", "-sSf", *options]
    for path in model.paths:
        words += ["-o", f"{{}}/{Path(path).name}", f"{url}/{REPO}/resolve/main/{path}"]
    return words


def pull(url: str, *options: str) -> list[str]:
    """Return our command."""
    return [OURS, "pull", f"hf:{REPO}", "--local-dir", "{}", "--no-adopt", "-q", *options]


def rivals(model: Served, url: str, lists: Path) -> list[Rival]:
    """Return the ways to get the shards, curl first."""
    hf = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ms = {"MODELSCOPE_ENDPOINT": url, "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false"}
    names = [f"{{}}/{Path(path).name}" for path in model.paths]
    out = [
        Rival("curl", curl(model, url), {}, False),
        Rival(HASHED, [*curl(model, url), "+", sys.executable, "-c", HASH, *names], {}, True),
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
    """Run one rival into an empty folder, durably."""
    for path in (folder, home):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    env = {**os.environ, **rival.env, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    env |= {
        "XDG_STATE_HOME": str(home / "state"),
        "GGUFKIT_PROGRESS": "off",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    words = [word.replace("{}", str(folder)) for word in rival.command]
    figure = timed(rival.title, words, env, folder)
    got = sum(path.stat().st_size for path in folder.rglob("*.gguf"))
    if got < n_bytes * 0.99:
        sys.exit(f"{rival.title} left {got:,} of {n_bytes:,} bytes")
    shutil.rmtree(folder)
    return figure


def picked(some: Sequence[Rival], only: Sequence[str]) -> list[Rival]:
    """Return the rivals wanted, and the first, whom they are compared with; none if none is wanted."""
    wanted = [rival for rival in some if not only or any(part in rival.title for part in only)]
    return [rival for rival in some if rival in wanted or rival is some[0]] if wanted else []


def block(contest: Contest, where: str, folder: Path, some: Sequence[Rival]) -> Iterator[list[str]]:
    """Measure rivals in turn, in one folder; the first is what the others are compared with."""
    chosen, n_bytes = picked(some, contest.only), contest.model.n_bytes
    if not chosen:
        return
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        runs = {rival.title: partial(run_once, rival, folder / "out", home, n_bytes) for rival in chosen}
        label = f"{where}: {chosen[0].title} and {len(chosen) - 1} more"
        found = {title: median(figures) for title, figures in in_turn(label, runs, contest.n_runs).items()}
    for rival in chosen:
        one = found[rival.title]
        yield [
            where,
            rival.title,
            "yes" if rival.checks else "no",
            f"{one.wall_s:.2f} s",
            f"{n_bytes / one.wall_s / 1e6:.0f} MB/s",
            f"{found[chosen[0].title].wall_s / one.wall_s:.2f}",
            f"{one.cpu_s:.2f} s",
            f"{one.cpu_s / found[HASHED].cpu_s:.2f}" if HASHED in found else "-",
            f"{one.peak_mb:.0f} MB",
        ]


def everybody(contest: Contest, shm: Path, disk: Path) -> Iterator[list[str]]:
    """Measure everybody, on tmpfs and on a disk."""
    with hub(contest.model.root) as served:
        for where, folder in (("tmpfs", shm), ("disk", disk)):
            some = rivals(contest.model, served.url, shm / "aria2.txt")
            yield from block(contest, where, folder, some)


def over_tls(contest: Contest, folder: Path) -> Iterator[list[str]]:
    """Measure curl and ours over TLS."""
    pem = folder / "cert.pem"
    make_certificate(pem)
    with hub(contest.model.root, "--tls", str(pem)) as served:
        url, trust = served.url, str(pem)
        some = [
            Rival("curl", curl(contest.model, url, "--cacert", trust), {}, False),
            Rival("ggufkit pull", pull(url), {"HF_ENDPOINT": url, "SSL_CERT_FILE": trust}, True),
        ]
        yield from block(contest, "tmpfs, TLS", folder, some)


def make_certificate(pem: Path) -> None:
    """Make a key and a certificate for localhost that signs itself, with the system's openssl."""
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key, cert = pem.with_suffix(".key"), pem.with_suffix(".crt")
    subprocess.run([*words, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    pem.write_bytes(key.read_bytes() + cert.read_bytes())


def capped(contest: Contest, folder: Path) -> Iterator[list[str]]:
    """Measure one source of 40 MB/s against two."""
    limit = ("--limit-rate", str(CAP_BYTES_PER_S))
    with hub(contest.model.root, *limit) as first, hub(contest.model.root, *limit) as second:
        one, two, env = first.url, second.url, {"HF_ENDPOINT": first.url}
        some = [
            Rival("one source of 40 MB/s", pull(one, "--source", one), env, True),
            Rival("two of them", pull(one, "--source", one, "--source", two), env, True),
        ]
        yield from block(contest, "tmpfs", folder, some)


def main() -> None:
    """Measure, print, and put the section into the document."""
    parser = arguments(__doc__, size_gb=1.0737, quick_gb=0.064)
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a disk")
    parser.add_argument(
        "--only",
        metavar="NAMES",
        default="",
        help="only commands whose names have one of these parts, with commas between, each block's first "
        "with them; leaves the document alone",
    )
    given = settle(parser)
    only = tuple(part.strip() for part in given.only.split(",") if part.strip())
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as shm,
        tempfile.TemporaryDirectory(dir=given.disk) as disk,
    ):
        model = make_served(Path(shm), given.n_bytes)
        contest = Contest(model, given.runs, only)
        table = [*everybody(contest, Path(shm), Path(disk))]
        table += over_tls(contest, Path(shm))
        table += capped(contest, Path(shm))
    for part in only:
        if not any(part in title for _, title, *_ in table):
            print(f"--only: no command has {part!r} in its name", file=sys.stderr)
    if not table:
        sys.exit(1)
    on = machine(" (the server's work included)")
    on = machine(" (the server's work included)")
    about = (
        f"{model.n_bytes / 1e9:.2f} GB in {len(model.paths)} shards over loopback; {on}; whole processes "
        f"with their start-up, {given.runs} runs each in turn, medians, a sync of all files included. "
        "*checked*: against the published SHA-256. *speed* is against the first line of each block, *CPU* "
        "against curl and one pass of hashlib."
    )
    publish(section("bench_transfer", "Pulling", about, COLUMNS, table), writes=given.writes and not only)


if __name__ == "__main__":
    main()
