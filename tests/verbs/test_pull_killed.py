"""Real processes that pull: killed at random moments, interrupted, two at once."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import Fault
from tests.support.hub import REPO_ID, TestHub, run_hub
from tests.verbs.published import NAME, QUANT, Child, Zygote, everything, model_bytes, moments, publish, tree
from tests.verbs.published import zygote as run_zygote

PULL = ("pull", REPO_ID, "--quant", QUANT)
N_MIB = 24
MAX_TWICE_BYTES = 16 << 20
"""How much one kill may cost: 8 MiB between two notes, and what was on its way."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A set of 3 shards, 26 MB in all."""
    root = tmp_path_factory.mktemp("hub")
    found = publish(root, model_bytes(N_MIB), max_tensors=20)
    assert len(found) == 3
    _roots.append(root)
    return found


_roots: list[Path] = []


@pytest.fixture(scope="module")
def hub(files: dict[str, bytes]) -> Iterator[TestHub]:
    with run_hub(_roots[-1], cdn=True) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def zygote(hub: TestHub, home: Path) -> Iterator[Zygote]:
    with run_zygote(hub.client_env(home)) as one:
        yield one


@pytest.fixture(autouse=True)
def anew(hub: TestHub, home: Path) -> None:
    hub.forget()
    for name in ("out", "err"):
        (home / name).unlink(missing_ok=True)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def total(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_it_goes_on_and_fetches_little_twice(
    hub: TestHub, files: dict[str, bytes], zygote: Zygote, tmp_path: Path, seed: int
) -> None:
    """10 kills for each seed; a pull is killed up to three times before it may end."""
    hub.add(Fault(plane="cdn", bytes_per_s=30_000_000))  # of each of four streams
    for name, flags in (("alone", ("--connections", "1")), ("unharmed", ())):
        began = time.monotonic()
        (tmp_path / name).mkdir()
        assert zygote.run(tmp_path / name, *PULL, *flags, env={"GGUFKIT_PROGRESS": "off"}) == 0
        if flags:  # of several streams, idle ones take over from slow ones
            assert hub.sent_bytes(plane="cdn") == total(files)
    longest_s = time.monotonic() - began
    n_resumed, waits = 0, moments(seed, 10, longest_s)
    for n_kills in (1, 2, 3, 1, 2, 1):
        hub.requests.clear()
        work = tmp_path / f"{n_kills}-{len(waits)}"
        work.mkdir()
        for _ in range(n_kills):
            child = zygote.start(work, *PULL)
            time.sleep(waits.pop())
            child.signal(signal.SIGKILL)
            assert child.wait() in (-signal.SIGKILL, 0)
        n_resumed += any(p.suffix in (".part", ".gguf") for p in work.rglob("*"))
        assert zygote.run(work, *PULL) == 0
        assert tree(work / NAME) == files
        twice = hub.sent_bytes(plane="cdn") - total(files)
        assert 0 <= twice <= n_kills * MAX_TWICE_BYTES
        assert not [p for p in everything(work) if "journal" in p or p.endswith(".part")]
    assert not waits and n_resumed >= 3, "enough of the kills met a transfer"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize("when", ["transfer", "stall", "wait", "listing"])
def test_an_interruption_ends_within_a_second_and_says_how_to_go_on(
    hub: TestHub,
    files: dict[str, bytes],
    zygote: Zygote,
    home: Path,
    work: Path,
    number: signal.Signals,
    when: str,
) -> None:
    fault = {
        "transfer": Fault(plane="cdn", bytes_per_s=10_000_000),
        "stall": Fault(plane="cdn", stall_s=20, stall_after_bytes=1 << 20),
        "wait": Fault(plane="cdn", status=503, headers={"Retry-After": "60"}),
        "listing": Fault(path="/api/models/", plane="hub", delay_s=20),
    }[when]
    hub.add(fault)
    child = zygote.start(work, *PULL)
    wait_until_hit(fault)
    time.sleep(0.25)
    began = time.monotonic()
    child.signal(number)
    assert child.wait() == 130
    assert time.monotonic() - began < 1.0
    lines = (home / "err").read_text().rstrip().splitlines()
    assert lines[-2:] == ["error: interrupted", "hint: the same command goes on from here"]
    assert not [line for line in lines if "Traceback" in line]
    if when == "transfer":
        kept = [p.stat().st_blocks * 512 for p in work.rglob("*.part")]  # it has holes: several streams
        assert len(kept) == 1 and kept[0] > 1 << 19
    hub.forget()
    assert zygote.run(work, *PULL) == 0
    assert tree(work / NAME) == files
    if when == "transfer":
        assert hub.sent_bytes(plane="cdn") < total(files) - kept[0] + (1 << 20)


def wait_until_hit(fault: Fault) -> None:
    deadline = time.monotonic() + 30
    while not fault.hits:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_on_one_target_end_right_and_fetch_once(
    hub: TestHub, files: dict[str, bytes], zygote: Zygote, home: Path, work: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=60_000_000))
    one = (*PULL, "--connections", "1")  # of several streams the slowest may be overtaken near the end
    children = [zygote.start(work, *one, "--source", source) for source in ("hf", "modelscope")]
    assert [child.wait() for child in children] == [0, 0]
    assert tree(work / NAME) == files
    assert hub.sent_bytes(plane="cdn") == total(files)
    assert (home / "err").read_text().count("another process is writing") >= 1
    assert not [p for p in everything(work) if "journal" in p or p.endswith((".part", ".tmp"))]


def test_the_second_takes_over_when_the_first_is_killed(
    hub: TestHub, files: dict[str, bytes], zygote: Zygote, home: Path, work: Path
) -> None:
    fault = hub.add(Fault(plane="cdn", bytes_per_s=30_000_000))
    first = zygote.start(work, *PULL)
    wait_until_hit(fault)
    second = zygote.start(work, *PULL)
    deadline = time.monotonic() + 20
    while "another process is writing" not in _text(home / "err"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0
    assert tree(work / NAME) == files
    assert hub.sent_bytes(plane="cdn") <= total(files) + MAX_TWICE_BYTES


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_off_a_terminal_progress_is_plain_lines(
    hub: TestHub, files: dict[str, bytes], zygote: Zygote, home: Path, work: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=16_000_000))
    child: Child = zygote.start(work, *PULL, "--connections", "1")
    assert child.wait() == 0
    text = (home / "err").read_text()
    assert "\r" not in text and "\x1b" not in text
    percents = [int(n) for n in re.findall(r"^pulling .*: (\d+) %, [\d.]+ MiB/s$", text, re.MULTILINE)]
    assert percents == sorted(percents) and 1 <= len(percents) <= 12
    assert re.search(r"^pulling \S+: 24\.\d MiB$", text, re.MULTILINE)
    assert re.search(r"^pulling \S+: (24\.\d MiB) of \1 in \d+\.\d s$", text, re.MULTILINE)
