"""The profiles: all machines of the posts, every number with a source, and what was measured on them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources

import pytest
import speed_table

from ggufkit.errors import FormatError
from ggufkit.fit.machine import machine_profiles
from ggufkit.fit.machines import MachineProfile, MeasuredSpeed, ProfileGpu, Sourced, parse_profiles
from ggufkit.fit.speed import predict_speed

PROFILES = machine_profiles()
TEXT = resources.files("ggufkit.fit").joinpath("machines.toml").read_text("utf-8")


def numbers(profile: MachineProfile) -> Iterator[Sourced]:
    parts: list[MachineProfile | ProfileGpu | MeasuredSpeed] = [profile, *profile.gpus, *profile.measured]
    for part in parts:
        for field in fields(part):
            name, value = field.name, getattr(part, field.name)
            assert not isinstance(value, int | float), f"{profile.name}: {name} has no source"
            if isinstance(value, Sourced):
                yield value


def test_the_machines_of_the_posts_are_there() -> None:
    bandwidths = {name: profile.bandwidth_bytes_per_s / 1e9 for name, profile in PROFILES.items()}
    assert bandwidths == pytest.approx(
        {
            "z440-1ch": 19.2,
            "z440-1ch-p106": 19.2,
            "z440-4ch": 76.8,
            "z440-4ch-p106": 76.8,
            "dell-r630": 153.6,
            "dell-r730": 153.6,
            "mini-i3-8100t": 38.4,
            "beelink-ser7": 89.6,
            "beelink-ser8": 89.6,
            "mac-mini-64": 273,
            "epyc-7702": 153.6,
            "epyc-9004-2s": 921.6,
            "xeon-6138": 127.968,
            "xeon-6138-2s": 255.936,
            "xeon-8175m": 127.968,
            "xeon-8175m-2s": 255.936,
            "amd-workstation-8ch": 187.712,
            "xeon-w-arc": 307.2,
            "xuanwu": 537.6,
        }
    )


@pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
def test_every_number_has_a_source(profile: MachineProfile) -> None:
    found = list(numbers(profile))
    assert len(found) >= 3
    assert all(number.value > 0 and len(number.source) > 5 for number in found)
    assert profile.ram_bytes == profile.ram_gib.value * 2**30
    assert (profile.n_sockets.value == 2) == (profile.family == "cpu_2s_numa")


def test_every_source_is_used() -> None:
    listed = set(tomllib.loads(TEXT)["sources"].values())
    assert {number.source for profile in PROFILES.values() for number in numbers(profile)} == listed


def measured() -> Iterator[tuple[str, str, float]]:
    for profile in PROFILES.values():
        for speed in profile.measured:
            yield profile.name, speed.model, speed.tokens_per_s.value


@pytest.mark.parametrize(("name", "model", "tokens_per_s"), list(measured()))
def test_what_was_measured_is_in_the_range(name: str, model: str, tokens_per_s: float) -> None:
    rows = json.loads(speed_table.POINTS.read_text("utf-8"))["points"]
    active = next(row["active_gb_per_token"] * 1e9 for row in rows if row["model"] == model)
    profile = PROFILES[name]
    bandwidth, n_sockets = profile.bandwidth_bytes_per_s, int(profile.n_sockets.value)
    speed = predict_speed(profile.family, bandwidth, active, model.startswith("r1"), n_sockets)
    assert speed.low_tokens_per_s < tokens_per_s < speed.high_tokens_per_s


def entry(**changes: str) -> str:
    keys = {
        "title": '"A"',
        "family": '"gpu"',
        "n_sockets": '[1, "me"]',
        "ram_gib": '[8, "me"]',
        "bandwidth_gb_per_s": '[100, "me"]',
    } | changes
    lines = [f"{key} = {value}" for key, value in keys.items() if value]
    return "\n".join(['[sources]\nme = "myself"', "[machines.a]", *lines])


def test_a_sound_entry() -> None:
    assert parse_profiles(entry())["a"].ram_gib == Sourced(8, "myself")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (entry(ram_gib="8"), "machine a: ram_gib is no .number, source."),
        (entry(ram_gib='[0, "me"]'), "ram_gib is no"),
        (entry(ram_gib='["8", "me"]'), "ram_gib is no"),
        (entry(ram_gib='[8, "you"]'), "ram_gib names a source that is not listed: you"),
        (entry(ram_gib=""), "lacks .'ram_gib'."),
        (entry(colour='[1, "me"]'), "knows no .'colour'."),
        (entry(family='"abacus"'), "no family is called abacus"),
        (entry(bandwidth_gb_per_s=""), "neither channels"),
        (entry(bandwidth_gb_per_s="", n_channels='[4, "me"]'), "neither channels"),
        (entry(gpus='[{ name = "x", n = [1, "me"], vram_gib = 6 }]'), "vram_gib is no"),
        (entry(measured='[{ model = "x" }]'), "tokens_per_s is no"),
        ("[machines", "is no TOML"),
    ],
)
def test_an_unsound_entry_is_told(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_profiles(text)
