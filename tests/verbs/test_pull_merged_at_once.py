"""Real processes that pull into one merged file: two at once, and one that is killed in the middle."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub
from tests.verbs.published import NAME, Zygote, everything, model_bytes, publish, sha256
from tests.verbs.published import zygote as run_zygote

PULL = ("pull", REPO_ID, "--merge", "--connections", "1")
MERGED = f"{NAME}/{FOLDER}.gguf"
HEADERS_BYTES = 1 << 20
"""What two runs may read for headers."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(tmp_path / "hub", model_bytes(24), max_tensors=20)
    return tmp_path / "hub"


@pytest.fixture
def hub(root: Path) -> Iterator[TestHub]:
    with run_hub(root, cdn=True) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def zygote(hub: TestHub, home: Path) -> Iterator[Zygote]:
    with run_zygote(hub.client_env(home)) as one:
        yield one


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def published_bytes(root: Path) -> int:
    return sum(p.stat().st_size for p in root.rglob("*.gguf"))


def test_two_processes_on_one_target_end_right_and_fetch_once(
    hub: TestHub, root: Path, zygote: Zygote, home: Path, work: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=20_000_000))
    children = [zygote.start(work, *PULL, "--source", source) for source in ("hf", "modelscope")]
    assert [child.wait() for child in children] == [0, 0], (home / "err").read_text()
    assert sha256(work / MERGED) == sha256(model_bytes(24))
    assert hub.sent_bytes(plane="cdn") <= published_bytes(root) + HEADERS_BYTES
    assert not [p for p in everything(work) if "journal" in p or p.endswith((".part", ".tmp"))]


def test_killed_in_the_middle_the_other_one_goes_on(
    hub: TestHub, root: Path, zygote: Zygote, home: Path, work: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=10_000_000))
    first = zygote.start(work, *PULL)
    part = work / f"{MERGED}.part"
    deadline = time.monotonic() + 60
    while not part.exists() or part.stat().st_blocks * 512 < 9 << 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = zygote.start(work, *PULL)
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 0, (home / "err").read_text()
    assert sha256(work / MERGED) == sha256(model_bytes(24))
    assert hub.sent_bytes(plane="cdn") <= published_bytes(root) + HEADERS_BYTES + (16 << 20)
    assert not [p for p in everything(work) if "journal" in p or p.endswith((".part", ".tmp"))]
