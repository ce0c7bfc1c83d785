"""Time the HTTP clients of Python in the job that ggufkit has for one; writes docs/benchmarks.md.

    python scripts/bench_http.py [--size-gb 1] [--runs 5] [--quick] [--dry-run]

Each client fetches one file from scripts/fast_hub.py over loopback, writes it at its offsets (pwrite) and
takes its SHA-256 in a second thread, as a pull does, in a process of its own, in turn, after one round that
does not count. The clients live in a throwaway environment made for this; one that can't be installed is
left out, and said.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import venv
from functools import partial
from pathlib import Path

from bench_rounds import HASH, Figure, arguments, hub, in_turn, machine, median, publish, section, settle

COLUMNS = ("client", "version", "time", "rate", "CPU", "of http.client", "peak memory")
PACKAGES = {"urllib3": "urllib3", "httpx": "httpx", "pycurl": "pycurl", "aiohttp": "aiohttp"}

# The job: `fetch(url, write)` is the client's part; `write(data)` takes any buffer and is done with it.
FRAME = """
import hashlib, os, queue, resource, sys, threading, time
url, target = sys.argv[1:3]
begin = time.monotonic()
fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
there, at = queue.SimpleQueue(), 0
def write(data):
    global at
    view = memoryview(data)
    while view:
        n = os.pwrite(fd, view, at)
        view, at = view[n:], at + n
    there.put(at)
def prove():
    sha256, done = hashlib.sha256(), 0
    while (upto := there.get()) is not None:
        while done < upto:
            data = os.pread(fd, min(1 << 20, upto - done), done)
            sha256.update(data)
            done += len(data)
    print(sha256.hexdigest())
thread = threading.Thread(target=prove)
thread.start()
fetch(url, write)
there.put(None)
thread.join()
usage = resource.getrusage(resource.RUSAGE_SELF)
print(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)
"""
CLIENTS = {
    "http.client, readinto one buffer": """
import http.client, urllib.parse
def fetch(url, write):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    answer, buffer = connection.getresponse(), memoryview(bytearray(256 << 10))
    while n := answer.readinto(buffer):
        write(buffer[:n])
""",
    "urllib3, its socket's recv_into beneath (ours)": """
import urllib3
def fetch(url, write):
    answer = urllib3.PoolManager().request("GET", url, preload_content=False)
    body, buffer = answer._fp, memoryview(bytearray(256 << 10))
    first = body.fp.read1(256 << 10)
    write(first)
    left = body.length - len(first)
    while left:
        n = 0
        while n < min(left, 256 << 10):
            n += answer.connection.sock.recv_into(buffer[n:left])
        write(buffer[:n])
        left -= n
""",
    "urllib3, read1": """
import urllib3
def fetch(url, write):
    answer = urllib3.PoolManager().request("GET", url, preload_content=False)
    while data := answer.read1(256 << 10, decode_content=False):
        write(data)
""",
    "urllib3, stream": """
import urllib3
def fetch(url, write):
    answer = urllib3.PoolManager().request("GET", url, preload_content=False)
    for data in answer.stream(256 << 10, decode_content=False):
        write(data)
""",
    "httpx, iter_raw": """
import httpx
def fetch(url, write):
    with httpx.stream("GET", url) as answer:
        for data in answer.iter_raw(256 << 10):
            write(data)
""",
    "pycurl, 512 KiB buffer": """
import pycurl
def fetch(url, write):
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.BUFFERSIZE, 512 << 10)
    curl.setopt(pycurl.WRITEFUNCTION, write)
    curl.perform()
""",
    "aiohttp, iter_chunked": """
import asyncio, aiohttp
async def bring(url, write):
    async with aiohttp.ClientSession(read_bufsize=256 << 10) as session, session.get(url) as answer:
        async for data in answer.content.iter_chunked(256 << 10):
            write(data)
def fetch(url, write):
    asyncio.run(bring(url, write))
""",
}


def environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """Make an environment with the clients that can be had; returns its Python, and their versions."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    versions = {"http": platform.python_version()}
    for module, package in PACKAGES.items():
        install = [str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", package]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            print(f"{package} can't be installed here: left out", file=sys.stderr)
            continue
        show = f"from importlib.metadata import version; print(version({package!r}))"
        done = subprocess.run([str(python), "-c", show], capture_output=True, text=True, check=True)
        versions[module] = done.stdout.strip()
    return python, versions


def run_once(python: Path, client: str, url: str, target: Path, sha256: str) -> Figure:
    """Run one client in a process of its own, and hold it to the digest."""
    target.unlink(missing_ok=True)
    code = CLIENTS[client] + FRAME
    command = [str(python), "-c", code, url, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")
    if done.returncode or lines[0] != sha256:
        sys.exit(f"{client} failed: {done.stderr[-2000:]}")
    return Figure(*map(float, lines[1].split()))


def make_file(path: Path, n_bytes: int) -> str:
    """Write random bytes; returns their SHA-256."""
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for at in range(0, n_bytes, 1 << 20):
            file.write(os.urandom(min(1 << 20, n_bytes - at)))
    done = subprocess.run([sys.executable, "-c", HASH, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def measure(folder: Path, n_bytes: int, n_runs: int) -> list[list[str]]:
    """Run all clients in turn; returns the rows of the table, by CPU."""
    python, versions = environment(folder / "environment")
    clients = [client for client in CLIENTS if package_of(client) in versions]
    sha256 = make_file(folder / "root" / "o" / "n" / "f.gguf", n_bytes)
    with hub(folder / "root") as served:
        url = f"{served.url}/o/n/resolve/main/f.gguf"
        runs = {c: partial(run_once, python, c, url, folder / "target", sha256) for c in clients}
        found = {client: median(some) for client, some in in_turn("one stream", runs, n_runs).items()}
    by_cpu = sorted(found.items(), key=lambda one: one[1].cpu_s)
    best_cpu_s = found[clients[0]].cpu_s
    return [row(client, versions[package_of(client)], one, n_bytes, best_cpu_s) for client, one in by_cpu]


def package_of(client: str) -> str:
    """Return what a client is called in the table of versions."""
    return client.partition(",")[0].partition(".")[0]


def row(client: str, version: str, one: Figure, n_bytes: int, best_cpu_s: float) -> list[str]:
    """Return one row."""
    return [
        client,
        version,
        f"{one.wall_s:.2f} s",
        f"{n_bytes / one.wall_s / 1e6:.0f} MB/s",
        f"{one.cpu_s:.2f} s",
        f"{one.cpu_s / best_cpu_s:.2f}",
        f"{one.peak_mb:.0f} MB",
    ]


def main() -> None:
    """Measure, print, and put the section into the document."""
    given = settle(arguments(__doc__, size_gb=1.0737, quick_gb=0.064))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        rows = measure(Path(name), given.n_bytes, given.runs)
    about = (
        f"{given.n_bytes / 1e9:.2f} GB over loopback, written with pwrite and hashed behind the writer in a "
        f"second thread; {machine()}; {given.runs} runs each in turn, medians; the time begins when the "
        "client is imported, CPU and memory with the process. Sorted by CPU."
    )
    publish(section("bench_http", "HTTP clients for one stream", about, COLUMNS, rows), writes=given.writes)


if __name__ == "__main__":
    main()
