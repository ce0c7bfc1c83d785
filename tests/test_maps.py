"""The rooms that a stranger could get lost in have a map, and it is whole."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ggufkit"


@pytest.mark.parametrize("room", ["fit", "hubs", "transfer", "verbs"])
def test_the_map_of_a_room_names_what_is_in_it(room: str) -> None:
    text = importlib.import_module(f"ggufkit.{room}").__doc__ or ""
    there = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
    named = set(re.findall(r"`(\w+)`", text)) | set(re.findall(r"^    (\w+)", text, re.MULTILINE))
    named |= set(re.findall(r"^    (?:\w+, )+(\w+)", text, re.MULTILINE))
    for line in re.findall(r"^    (\w+(?:, \w+)+)", text, re.MULTILINE):
        named |= set(line.split(", "))
    assert there - named == set(), "not on the map"
    assert {name for name in named if name.islower() and name not in there} <= {"x_y"}
