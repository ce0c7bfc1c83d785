"""Power cuts: the image of a mounted file system, copied while a command writes, mounted and gone on with.

What the kernel has not written to the image when it is copied is lost, as in a power cut. Where no loop
device is to be had (no root, a container), `tests/support/lossy.py` plays the worst disk instead.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import Fault
from tests.support.hub import TestHub
from tests.support.kill_scenarios import CONSUME, PULL, Published, Scenario
from tests.support.kills import PULL_BYTES_PER_S, STREAM_BYTES_PER_S
from tests.verbs.published import Child, Zygote

SYNC_OFTEN = "import ggufkit.transfer.journal as j; j.SYNC_EVERY_BYTES = 4 << 20"
"""So that of a small pull, too, something is durable before its end."""
OTHER_BOOT = f"{SYNC_OFTEN}; j.boot_id = lambda: 'after the power cut'"
"""What a restart changes, and a mount of a copy does not."""
MOUNT_OPTIONS = ("data=ordered", "data=writeback,commit=1", "data=ordered,commit=1,nodelalloc")
MAX_LOOKS = 200
CUT = (PULL, CONSUME)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A file system on a loop device."""

    image: Path
    """The file that it is in."""
    folder: Path
    """Where it is mounted."""
    device: str
    """The device's name, as in `loop0`."""

    def writes(self) -> tuple[int, int]:
        """Return sectors written so far and requests under way (Documentation/block/stat.rst)."""
        fields = Path(f"/sys/block/{self.device}/stat").read_text().split()
        return int(fields[6]), int(fields[8])


@contextlib.contextmanager
def mounted(image: Path, folder: Path, options: str) -> Iterator[Mounted]:
    """Mount an image; it is unmounted in the end, which brings all of it to the image."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-o", f"loop,{options}", str(image), str(folder))
    try:
        device = _run("findmnt", "-n", "-o", "SOURCE", str(folder)).strip().removeprefix("/dev/")
        yield Mounted(image, folder, device)
    finally:
        _unmount(folder)


def can_mount(folder: Path) -> bool:
    """Say whether file systems can be made and mounted here, by doing it."""
    image = folder / "try.img"
    try:
        make_image(image, 16 << 20)
        with mounted(image, folder / "try", MOUNT_OPTIONS[0]) as one:
            return one.writes()[0] >= 0
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        image.unlink(missing_ok=True)


def make_image(image: Path, n_bytes: int) -> None:
    """Make an empty ext4 in a sparse file."""
    with image.open("wb") as file:
        file.truncate(n_bytes)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(image))


def cut_once(
    scenario: Scenario,
    published: Published,
    zygote: Zygote,
    hub: TestHub,
    folder: Path,
    chance: random.Random,
) -> bool:
    """Cut the power at a random moment, go on with what is left; AssertionError unless all ends right.

    Returns whether the command was at work at that moment.
    """
    image, copy, options = folder / "disk.img", folder / "cut.img", chance.choice(MOUNT_OPTIONS)
    folder.mkdir(parents=True, exist_ok=True)
    hub.forget()
    hub.add(Fault(plane="cdn", bytes_per_s=STREAM_BYTES_PER_S))
    make_image(image, 3 * published.total_bytes + (64 << 20))
    try:
        with mounted(image, folder / "disk", options) as disk:
            work = disk.folder / "work"
            work.mkdir()
            scenario.prepare(work, published)
            os.sync()
            child = zygote.start(
                work, *scenario.arguments, patch=SYNC_OFTEN, env=scenario.env(work) | _home(disk.folder)
            )
            time.sleep(chance.uniform(0, _longest_s(scenario, published)))
            child.signal(signal.SIGSTOP)
            _copy(disk, copy)
            at_work = _end(child)
        with mounted(copy, folder / "after", MOUNT_OPTIONS[0]) as disk:
            work = disk.folder / "work"
            scenario.kept(work, published)
            code = zygote.run(
                work, *scenario.arguments, patch=OTHER_BOOT, env=scenario.env(work) | _home(disk.folder)
            )
            assert code == 0, f"{scenario.name} after a power cut ({options}): {zygote.said()}"
            scenario.done(work, published)
    finally:
        image.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return at_work


def rows(
    published: Published, zygote: Zygote, hub: TestHub, folder: Path, n_cuts: int, seed: int
) -> Iterator[str]:
    """Cut the power `n_cuts` times in all; yield the rows of the table."""
    if not can_mount(_made(folder)):
        yield "power cuts: no loop devices here; the suite plays them (tests/test_kills.py)"
        return
    for i, scenario in enumerate(CUT):
        chance = random.Random(f"power {scenario.name} {seed}")
        n = n_cuts * (i + 1) // len(CUT) - n_cuts * i // len(CUT)
        n_met = sum(cut_once(scenario, published, zygote, hub, folder / str(i), chance) for _ in range(n))
        yield f"{scenario.name:<24}{'power cut (ext4)':<24}{n:>6}{n_met:>8} at work"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _longest_s(scenario: Scenario, published: Published) -> float:
    """Return about how long the command runs: a pull by its rate, a merge at some 200 MB/s."""
    rate = PULL_BYTES_PER_S if scenario.fetches else 200e6
    return 0.2 + published.total_bytes / rate


def _home(folder: Path) -> dict[str, str]:
    """Put what commands remember on the same disk: it is cut too."""
    return {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}


def _copy(disk: Mounted, copy: Path) -> None:
    """Copy the image at one moment: again, if the kernel wrote to it meanwhile."""
    for _ in range(MAX_LOOKS):
        before = disk.writes()
        if before[1] == 0:
            shutil.copyfile(disk.image, copy)
            if disk.writes() == before:
                return
        time.sleep(0.02)
    raise AssertionError("the kernel never rests")


def _end(child: Child) -> bool:
    """Kill a stopped child; return whether it was still at work."""
    child.signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


def _unmount(folder: Path) -> None:
    for _ in range(50):
        if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    _run("umount", "-l", str(folder))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
