"""A hub with a published set, a folder to work in, and no waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ggufkit.transfer.stream import StreamError
from ggufkit.transfer.tally import Standing
from tests.support.hub import TestHub, run_hub
from tests.verbs.hubs import Hubs
from tests.verbs.published import publish


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, and return it.

    Nothing waits for the disk: what is synced, and when, is a matter of tests/transfer.
    """
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _fd: None)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """The files that the hub has, by path in the repo."""
    return publish(tmp_path / "hub")


@pytest.fixture
def hub(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    """A hub with a CDN, where both kinds of clients look for theirs."""
    with run_hub(tmp_path / "hub", cdn=True) as running:
        for name, value in (running.hf_env | running.ms_env).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the transfer room wait not between its tries, but note how long it would have."""
    seconds: list[float] = []
    honest = Standing.failed

    def failed(self: Standing, error: StreamError, began_s: float) -> float:
        failures = self.failures
        wait_s = honest(self, error, began_s)
        self.free_s = 0.0
        if self.failures > failures and wait_s:
            seconds.append(wait_s)
        return wait_s

    monkeypatch.setattr(Standing, "failed", failed)
    monkeypatch.setattr("ggufkit.transfer.sources.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    with ExitStack() as stack:
        made = Hubs(tmp_path, stack)
        monkeypatch.setenv("HF_ENDPOINT", made.hf.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.ms.url)
        yield made
