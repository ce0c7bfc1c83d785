"""The faults that the hubs' own clients were tried with, one at a time, against a pull of ours.

Each test is a row of docs/hubs.md: what the document says of exit code and bytes moved is what is asserted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ggufkit.transfer import crew as crew_module
from ggufkit.transfer import http as http_module
from ggufkit.transfer.stream import StreamError
from ggufkit.transfer.tally import Standing
from ggufkit.verbs import pull as pull_module
from tests.cli.conftest import Run, run
from tests.support.faults import Budget, Fault
from tests.support.hub import TestHub, run_hub
from tests.verbs.published import Zygote, everything, model_bytes, sha256, tree
from tests.verbs.published import zygote as run_zygote

__all__ = ["run"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "hubs.md"
REPO, NAME, FILE = "demo/Model-GGUF", "Model-GGUF", "Model-Q4_K_M.gguf"
MB = 1_000_000
SOURCES = ["hf", "modelscope"]
ON_ITS_WAY_BYTES = 2 * MB
"""What a server may have sent that was on its way when a connection ended."""
ON_FILE = "resolve|FilePath"
"""Requests to the hub for a file, in either protocol."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the document says of a fault."""

    exit_code: int
    """How the pull ends."""
    max_bytes: float
    """How many bytes may be moved until the file is right, or the pull gives up."""

    def holds(self, code: int, moved_bytes: int) -> None:
        """Assert that it is so."""
        assert code == self.exit_code
        assert moved_bytes <= self.max_bytes, f"{moved_bytes / MB:.1f} MB moved"


def rows() -> dict[str, str]:
    """Return the cell about us of each row of the document, by the name of its test."""
    text = DOCUMENT.read_text("utf-8")
    lines = re.findall(r"^\|[^|\n]*\|[^|\n]*\|[^|\n]*\|([^|\n]*)\| `(test_\w+)` \|$", text, re.MULTILINE)
    return {name: cell for cell, name in lines}


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The row that names this test."""
    cell = rows()[request.node.originalname]
    code, most = re.search(r"exit (\d+)", cell), re.search(r"at most ([\d.]+) MB", cell)
    assert code and most, f"no numbers: {cell}"
    return Row(int(code[1]), float(most[1]) * MB + (ON_ITS_WAY_BYTES if float(most[1]) else 0))


@pytest.fixture(scope="module")
def data() -> bytes:
    """A model in one file of 20.7 MB."""
    return model_bytes(19)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    file = folder / REPO / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[TestHub]:
    with run_hub(root, cdn=True) as one:
        yield one


@pytest.fixture
def hub(running: TestHub, monkeypatch: pytest.MonkeyPatch) -> TestHub:
    """The hub for clients of both kinds, without faults but a line's speed: 40 MB/s a connection."""
    running.settle()
    running.forget()
    running.add(Fault(plane="cdn", bytes_per_s=40 * MB))
    for name, value in (running.hf_env | running.ms_env).items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture(params=SOURCES)
def pull(request: pytest.FixtureRequest) -> tuple[str, ...]:
    # one connection: of several, idle ones take stretches over from slow ones, how many is chance
    return ("pull", REPO, "--source", request.param, "--connections", "1")


@pytest.fixture
def naps(naps: list[float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let no source rest, but note for how long it would have."""
    honest = Standing.failed

    def failed(self: Standing, error: StreamError, began_s: float) -> float:
        free_s = self.free_s
        naps.append(honest(self, error, began_s))
        self.free_s = free_s
        return naps[-1]

    monkeypatch.setattr(Standing, "failed", failed)
    monkeypatch.setattr(crew_module, "_POLL_S", 0.005)
    return naps


def moved(hub: TestHub) -> int:
    return hub.sent_bytes(plane="cdn")


def nothing_is_left_over(work: Path) -> bool:
    return not [p for p in everything(work) if "journal/" in p or p.endswith((".part", ".tmp"))]


def kept_bytes(work: Path) -> int:
    """Return what is on the disk of files that are not whole."""
    return sum(p.stat().st_blocks * 512 for p in work.rglob("*.part"))


def is_right(work: Path, data: bytes) -> bool:
    return tree(work / NAME) == {FILE: data} and nothing_is_left_over(work)


# ---- the line ----


def test_the_body_is_cut_once(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    once = Budget(1)
    hub.add(Fault(plane="cdn", cut_at=8 * MB, budget=once))
    row.holds(run(*pull).code, moved(hub))
    assert once.left < 1 and is_right(work, data)


def test_the_body_is_cut_at_each_megabyte(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    fault = hub.add(Fault(plane="cdn", cut_after_bytes=MB))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits >= 20 and is_right(work, data)


def test_the_object_is_short_and_says_so(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    n_bytes = 20 * MB
    hub.add(Fault(plane="cdn", body=data[:n_bytes], content_range=f"bytes 0-{n_bytes - 1}/{n_bytes}"))
    done = run(*pull)
    row.holds(done.code, 0)
    assert FILE in done.err and FILE not in tree(work / NAME)
    hub.forget()
    assert run(*pull).code == 0 and is_right(work, data)


def test_a_line_that_stalls(
    hub: TestHub,
    data: bytes,
    work: Path,
    run: Run,
    naps: list[float],
    pull: tuple[str, ...],
    row: Row,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.5)
    fault = hub.add(Fault(plane="cdn", stall_s=3, stall_after_bytes=2 * MB, times=1))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits == 1 and is_right(work, data)


# ---- the bytes ----


def test_a_byte_is_flipped_once(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    once = Budget(1)
    hub.add(Fault(plane="cdn", flip_byte_at=10 * MB, budget=once))
    done = run(*pull)
    if done.code == 6:
        assert sha256(data) in done.err and tree(work / NAME) == {}
        done = run(*pull)
    row.holds(done.code, moved(hub))
    assert once.left < 1 and is_right(work, data)


def test_a_byte_is_flipped_always(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    hub.add(Fault(plane="cdn", flip_byte_at=10 * MB))
    done = run(*pull)
    row.holds(done.code, moved(hub))
    assert sha256(data) in done.err and tree(work / NAME) == {}, "never believed"
    hub.forget()
    assert run(*pull).code == 0 and is_right(work, data)


# ---- busy servers ----


def test_the_cdn_asks_to_come_back_in_two_seconds_twice(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    hub.add(Fault(plane="cdn", status=429, headers={"Retry-After": "2"}, times=2))
    row.holds(run(*pull).code, moved(hub))
    assert is_right(work, data) and naps.count(2.0) >= 2, "what was asked for is waited for"


def test_the_cdn_answers_503(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    fault = hub.add(Fault(plane="cdn", status=503, times=1))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits == 1 and is_right(work, data)


def test_the_hub_answers_503_for_the_file(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    fault = hub.add(Fault(path=ON_FILE, plane="hub", status=503, times=1))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits == 1 and is_right(work, data)


@pytest.mark.parametrize("skip", [0, 1], ids=["first call", "second call"])
def test_the_listing_answers_503(
    hub: TestHub,
    data: bytes,
    work: Path,
    run: Run,
    naps: list[float],
    pull: tuple[str, ...],
    row: Row,
    skip: int,
) -> None:
    fault = hub.add(Fault(path="/api/", plane="hub", status=503, times=1, skip=skip))
    row.holds(run(*pull).code, moved(hub))
    assert is_right(work, data) and (fault.hits == 1 or skip)


# ---- addresses that run out, ranges that are not kept to ----


def test_a_range_is_ignored_on_resume(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    hub.add(Fault(plane="cdn", cut_at=8 * MB, budget=Budget(1)))
    hub.add(Fault(plane="cdn", ignore_range=True))
    row.holds(run(*pull).code, moved(hub))
    assert is_right(work, data)


def test_the_signature_has_expired(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    fault = hub.add(Fault(plane="cdn", expire_link=True, times=1))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits == 1 and is_right(work, data)


def test_the_body_is_cut_and_the_signature_expires(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], pull: tuple[str, ...], row: Row
) -> None:
    once = Budget(1)
    hub.add(Fault(plane="cdn", cut_at=8 * MB, budget=once))
    fault = hub.add(Fault(plane="cdn", expire_link=True, skip=1, times=1))
    row.holds(run(*pull).code, moved(hub))
    assert fault.hits == 1 and once.left < 1 and is_right(work, data)


# ---- the disk ----


def test_a_finished_file_is_damaged_on_the_disk(
    hub: TestHub, data: bytes, work: Path, run: Run, pull: tuple[str, ...], row: Row
) -> None:
    assert run(*pull).code == 0
    target = work / NAME / FILE
    status = target.stat()
    with target.open("r+b") as file:
        file.seek(5 * MB)
        file.write(bytes([data[5 * MB] ^ 1]))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run("verify", NAME).code == 6, "as if nothing had written to it: the digest tells"
    os.utime(target)
    row.holds(run(*pull).code, moved(hub))
    assert is_right(work, data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={12 * MB}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount (a container?)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_disk_is_full(
    hub: TestHub,
    data: bytes,
    work: Path,
    run: Run,
    pull: tuple[str, ...],
    row: Row,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = ("--local-dir", small_disk / NAME)
    row.holds(run(*pull, *target).code, moved(hub))
    assert everything(small_disk) == set()
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: 10**12)  # it fills up only later
    done = run(*pull, *target)
    assert done.code == 8 and "goes on" in done.err and kept_bytes(small_disk) > 8 * MB


# ---- people and processes ----


def test_two_pulls_of_one_file_at_once(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], row: Row
) -> None:
    plans = [pull_module.plan_pull(REPO, source=source) for source in SOURCES]
    threads = [threading.Thread(target=pull_module.pull, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    row.holds(run("verify", NAME).code, moved(hub))
    assert is_right(work, data)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def zygote(running: TestHub, home: Path) -> Iterator[Zygote]:
    with run_zygote(running.client_env(home)) as one:
        yield one


def wait_for_bytes(hub: TestHub, work: Path, n_bytes: int) -> None:
    deadline = time.monotonic() + 60
    while kept_bytes(work) < n_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_killed_in_the_middle(
    hub: TestHub,
    data: bytes,
    work: Path,
    zygote: Zygote,
    pull: tuple[str, ...],
    row: Row,
    number: signal.Signals,
) -> None:
    hub.faults[0].bytes_per_s = 10 * MB
    child = zygote.start(work, *pull)
    wait_for_bytes(hub, work, 12 * MB)
    child.signal(number)
    assert child.wait() in (-signal.SIGKILL, 130)
    hub.faults.clear()
    row.holds(zygote.run(work, *pull), moved(hub))
    assert is_right(work, data)


def test_interrupted_in_the_middle(
    hub: TestHub, data: bytes, work: Path, zygote: Zygote, home: Path, pull: tuple[str, ...], row: Row
) -> None:
    hub.faults[0].bytes_per_s = 10 * MB
    child = zygote.start(work, *pull)
    wait_for_bytes(hub, work, 8 * MB)
    child.signal(signal.SIGINT)
    code = child.wait()
    assert "the same command goes on from here" in (home / "err").read_text()
    hub.faults.clear()
    assert zygote.run(work, *pull) == 0
    row.holds(code, moved(hub))
    assert is_right(work, data)


# ---- what the clients make of large files, and of Xet ----


def test_a_file_of_more_than_50_gb(
    tmp_path: Path, work: Path, run: Run, naps: list[float], row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sparse, and the pull is ended by the hub, after its first megabytes."""
    path, n_bytes = "big/Big-GGUF/Big-Q8_0.gguf", 50_000_000_001
    (tmp_path / "hub" / path).parent.mkdir(parents=True)
    (tmp_path / "hub" / path).touch()
    os.truncate(tmp_path / "hub" / path, n_bytes)
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: 10**12)
    with run_hub(tmp_path / "hub", cdn=True, sha256s={path: "a" * 64}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add(Fault(plane="cdn", cut_after_bytes=MB, times=4))
        hub.add(Fault(path="resolve", plane="hub", status=404, skip=4))
        done = run("pull", "hf:big/Big-GGUF")
        row.holds(0 if moved(hub) else done.code, moved(hub))
    assert done.code == 3 and kept_bytes(work) >= MB, "it went as far as the hub let it, and is kept"
    hub.forget()


def test_xet_is_announced_and_can_not_be_reached(
    hub: TestHub, data: bytes, work: Path, run: Run, naps: list[float], row: Row
) -> None:
    tree_url = f"{hub.url}/api/models/{REPO}/tree/main?recursive=true&expand=false"
    with urllib.request.urlopen(tree_url) as answer:
        entries = json.load(answer)
    for entry in entries:
        entry["xetHash"] = "0" * 64
    token = f'<{hub.url}/api/models/{REPO}/xet-read-token/main>; rel="xet-auth"'
    hub.forget()
    hub.add(Fault(path="/tree/", body=json.dumps(entries).encode()))
    hub.add(Fault(path=ON_FILE, plane="hub", headers={"X-Xet-Hash": "0" * 64, "Link": token}))
    hub.add(Fault(path="xet", status=404))
    row.holds(run("pull", REPO, "--source", "hf").code, moved(hub))
    assert is_right(work, data) and not hub.asked("xet"), "nobody asks for it"


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    mine = {name for name in globals() if name.startswith("test_")}
    assert rows().keys() == mine - {"test_every_row_has_its_test_and_every_test_its_row"}
    assert len(rows()) == 20
