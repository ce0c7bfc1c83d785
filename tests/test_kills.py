"""A sample of scripts/kills: 31 kills of commands that write, and power cuts, on a small model."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import TestHub, run_hub
from tests.support.kill_scenarios import (
    CONSUME,
    IMPORT,
    IMPORT_SHARDS,
    MERGE,
    PULL,
    PULL_MERGE,
    PULL_OLLAMA,
    Published,
    Scenario,
)
from tests.support.kills import kill_often, publish
from tests.support.lossy import n_calls, restore
from tests.support.power import CUT, OTHER_BOOT, SYNC_OFTEN, can_mount, cut_once
from tests.verbs.published import Zygote, model_bytes
from tests.verbs.published import zygote as run_zygote

N_MIB = 24


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    (folder / "model.gguf").write_bytes(model_bytes(N_MIB))
    return publish(folder, folder / "model.gguf")


@pytest.fixture(scope="module")
def hub(published: Published) -> Iterator[TestHub]:
    with run_hub(published.root, cdn=True) as running:
        yield running


@pytest.fixture(scope="module")
def zygote(hub: TestHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    env = hub.client_env(tmp_path_factory.mktemp("home")) | {"GGUFKIT_PROGRESS": "off"}
    with run_zygote(env) as one:
        yield one


@pytest.mark.parametrize(
    ("scenario", "n_kills"),
    [
        (PULL, 5),
        (PULL_MERGE, 5),
        (PULL_OLLAMA, 5),
        (MERGE, 4),
        (CONSUME, 6),
        (IMPORT, 3),
        (IMPORT_SHARDS, 3),
    ],
)
def test_killed_at_random_moments_all_ends_right(
    scenario: Scenario, n_kills: int, published: Published, hub: TestHub, zygote: Zygote, tmp_path: Path
) -> None:
    outcome = kill_often(scenario, published, zygote, hub, tmp_path, n_kills, seed=1)
    assert outcome.n_kills == n_kills


@pytest.mark.parametrize(("scenario", "n_cuts"), [(PULL, 3), (PULL_MERGE, 3), (PULL_OLLAMA, 3), (CONSUME, 7)])
def test_the_worst_disk_loses_nothing_that_counts(
    scenario: Scenario, n_cuts: int, published: Published, hub: TestHub, zygote: Zygote, tmp_path: Path
) -> None:
    """Power cuts as tests/support/lossy.py plays them, where no loop device is needed."""
    hub.forget()
    n_all = play(scenario, published, zygote, tmp_path / "whole", 0)
    chance = random.Random(7)
    for cut_at in sorted(chance.sample(range(1, n_all + 1), n_cuts)):
        play(scenario, published, zygote, tmp_path / f"{cut_at}", cut_at)


@pytest.mark.parametrize(
    ("scenario", "fault"),
    [
        (CONSUME, "import ggufkit.transfer.consume as c; c.sync = lambda fd: None"),
        (CONSUME, "import ggufkit.transfer.consume as c; c.note = lambda fd, done: None"),
        (PULL, "import ggufkit.transfer.journal as j; j.Journal.flush = lambda self, fd: None"),
    ],
)
def test_the_worst_disk_notices_what_was_forgotten(
    scenario: Scenario, fault: str, published: Published, hub: TestHub, zygote: Zygote, tmp_path: Path
) -> None:
    """These proofs can fail: without the sync, or the note, or the journal's sync, something is lost."""
    hub.forget()

    def cut_often() -> None:
        for cut_at in range(12, 60, 8):
            play(scenario, published, zygote, tmp_path / f"{cut_at}", cut_at, fault)

    with pytest.raises(AssertionError):
        cut_often()


def play(
    scenario: Scenario, published: Published, zygote: Zygote, folder: Path, cut_at: int, fault: str = ""
) -> int:
    """Cut the power before the `cut_at`-th call that reaches the disk; return how many calls did."""
    disk, shadow = folder / "disk", folder / "shadow"
    work = disk / "work"
    work.mkdir(parents=True)
    shadow.mkdir()
    scenario.prepare(work, published)
    home = scenario.env(work) | {"XDG_CACHE_HOME": str(disk / "cache"), "XDG_STATE_HOME": str(disk / "state")}
    wrap = f"from tests.support.lossy import install; install({str(disk)!r}, {str(shadow)!r}, {cut_at})"
    patch = "\n".join([SYNC_OFTEN, fault, wrap])
    code = zygote.run(work, *scenario.arguments, patch=patch, env=home)
    if cut_at:
        assert code == -signal.SIGKILL
        restore(disk, shadow)
        scenario.kept(work, published)
        assert zygote.run(work, *scenario.arguments, patch=OTHER_BOOT, env=home) == 0
    scenario.done(work, published)
    calls = n_calls(shadow)
    shutil.rmtree(folder)
    return calls


def test_a_file_system_whose_image_is_copied_while_it_is_written(
    published: Published, hub: TestHub, zygote: Zygote, tmp_path: Path
) -> None:
    """A real one, where this user may mount (scripts/kills cuts more often); else the played one again."""
    if can_mount(tmp_path):
        chance = random.Random(3)
        for scenario in CUT:
            for i in range(2):
                cut_once(scenario, published, zygote, hub, tmp_path / f"{scenario.name}{i}", chance)
    else:
        for i, scenario in enumerate(CUT):
            play(scenario, published, zygote, tmp_path / f"{i}", 5)
