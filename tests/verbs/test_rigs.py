"""Which machine is judged for, and what is remembered of this one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import NotFoundError
from ggufkit.fit.bandwidth import Bandwidth
from ggufkit.fit.machine import read_cpu, this_machine
from ggufkit.fit.rig import READ_SHARE, Bandwidths, KnownRun
from ggufkit.fit.speed import Run
from ggufkit.folders import state_folder
from ggufkit.verbs import machine as machine_module
from ggufkit.verbs.machine import describe_machine
from ggufkit.verbs.rigs import (
    Remembered,
    find_rigs,
    remember_bandwidth,
    remember_run,
    remembered,
)

GIB = 1 << 30
CPU = read_cpu()


def test_without_a_name_it_is_this_machine() -> None:
    (rig,) = find_rigs()
    assert rig.profile is None
    assert rig.memory.ram_bytes == this_machine().ram_bytes
    assert find_rigs(ram_bytes=GIB)[0].memory.ram_bytes == GIB


def test_profiles_come_in_the_order_asked_each_once() -> None:
    rigs = find_rigs(("xuanwu", "z440-1ch", "xuanwu"), disk_bytes_per_s=3e9)
    assert [rig.name for rig in rigs] == ["xuanwu", "z440-1ch"]
    assert [rig.memory.ram_bytes // GIB for rig in rigs] == [768, 64]
    assert all(rig.disk_bytes_per_s == 3e9 for rig in rigs)
    given = find_rigs(("xuanwu",), ram_bytes=GIB, bandwidth_bytes_per_s=5e9)[0]
    assert (given.memory.ram_bytes, given.bandwidth) == (GIB, Bandwidths(5e9, "given"))


@pytest.mark.parametrize(("name", "hint"), [("z440", "did you mean z440-"), ("?", "machine --list")])
def test_an_unknown_name_is_told_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(NotFoundError, match="no machine is called") as caught:
        find_rigs((name,))
    assert hint in (caught.value.hint or "")


def test_what_was_measured_is_remembered_and_used() -> None:
    assert remembered(CPU) == Remembered()
    remember_bandwidth(CPU, 17e9)
    remember_run(CPU, KnownRun("it", Run(5e9, 2.0)))
    assert remembered(CPU) == Remembered(17e9, KnownRun("it", Run(5e9, 2.0)))
    (rig,) = find_rigs()
    assert rig.bandwidth is not None
    assert rig.bandwidth.bytes_per_s <= 17e9 / READ_SHARE
    assert rig.known_run == KnownRun("it", Run(5e9, 2.0))
    assert find_rigs(("xuanwu",))[0].known_run is None
    remember_run(CPU, None)
    assert remembered(CPU) == Remembered(17e9)


def test_a_machine_with_another_cpu_in_the_same_home_has_its_own() -> None:
    other = replace(CPU, name="Another CPU")
    remember_bandwidth(CPU, 17e9)
    remember_bandwidth(other, 34e9)
    assert (remembered(CPU).read_bytes_per_s, remembered(other).read_bytes_per_s) == (17e9, 34e9)


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"machines": []}', '{"machines": {"KEY": 7}}']
    + ['{"machines": {"KEY": {"read_bytes_per_s": "x", "run": []}}}']
    + ['{"machines": {"KEY": {"read_bytes_per_s": -1, "run": {"tokens_per_s": 1}}}}'],
)
def test_a_broken_memory_is_as_none(text: str) -> None:
    remember_bandwidth(CPU, 17e9)
    file = state_folder() / "machines.json"
    (key,) = json.loads(file.read_text())["machines"]
    file.write_text(text.replace("KEY", key))
    assert remembered(CPU) == Remembered()
    remember_bandwidth(CPU, 18e9)
    assert remembered(CPU) == Remembered(18e9)


def test_a_state_folder_that_can_t_be_written_costs_only_the_comfort(own_home: Path) -> None:
    (own_home / ".local").write_text("in the way")
    remember_bandwidth(CPU, 17e9)
    assert remembered(CPU) == Remembered()


def test_machine_remembers_what_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "measured_set_bytes", lambda *_: 1 << 20)
    monkeypatch.setattr(machine_module, "measure_bandwidth", lambda *_: Bandwidth(20e9, 0.05, 2, 1 << 20))
    describe_machine()
    assert remembered(CPU) == Remembered(20e9)
    monkeypatch.setattr(machine_module, "measure_bandwidth", lambda *_: Bandwidth(99e9, 0.5, 2, 1 << 20))
    describe_machine()
    assert remembered(CPU) == Remembered(20e9)  # a noisy measurement is none
