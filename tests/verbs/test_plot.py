"""The picture: what is in the chart, and that a PNG or an SVG of it comes out."""

from __future__ import annotations

import builtins
import re
import struct
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import TargetExistsError, ToolError, UsageError
from ggufkit.verbs.chart import MAX_LABEL, Chart, Row, chart_of
from ggufkit.verbs.fit import fit_model
from ggufkit.verbs.fit_machines import Comparison, compare_machines
from ggufkit.verbs.fit_repo import RepoFit, fit_repo
from ggufkit.verbs.plot import check_target, draw, plot
from ggufkit.verbs.rigs import find_rigs
from ggufkit.verbs.several import Several, find_several
from tests.fit.facts import truth_header
from tests.support.ggufs import make_gguf

R1 = "deepseek-r1-671b-mla-ud-iq2xxs"


def comparison() -> Comparison:
    rigs = find_rigs(("z440-1ch", "z440-4ch", "xuanwu"))
    return compare_machines([truth_header(R1)], rigs, name="R1")


def repo(tmp_path: Path, *machines: str) -> RepoFit:
    for name, tokens in (("Q4_0", 64), ("Q8_0", 128)):
        make_gguf(
            tmp_path / f"Tiny $x^2$ \x1b 模型 {'long ' * 12}-{name}.gguf", kv={"general.name": str(tokens)}
        )
    several = find_several(str(tmp_path))
    assert isinstance(several, Several)
    return fit_repo(several, find_rigs(machines, ram_bytes=8 << 30, bandwidth_bytes_per_s=50e9))


def test_machines_side_by_side_with_their_prices() -> None:
    chart = chart_of(comparison())
    assert chart.title == "R1: which machine runs it?"
    assert chart.subtitle == "with 4,096 tokens of context"
    assert [row.label for row in chart.rows] == ["z440-1ch", "z440-4ch", "xuanwu"]
    assert [row.limit_gib for row in chart.rows] == [64, 256, 768]
    assert [row.level for row in chart.rows] == ["pages", "fits", "fits"]
    assert [row.note for row in chart.rows] == [
        "pages from the SSD, 1,200 CNY, 80 W",
        "fits, 2,100 CNY, 80 W",
        "fits, 38,000 CNY",
    ]
    assert all(row.speed and row.bar_gib and row.bar_gib > 180 for row in chart.rows)
    assert "speeds: formula" in chart.footer


def test_quants_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    chart = chart_of(repo(folder))
    assert chart.title == "models: which quant fits?"  # nobody else knows the folder's path
    assert "best choice: Q4_0" in chart.subtitle and chart.limit_gib == 8
    assert [(row.label, row.marked) for row in chart.rows] == [("Q4_0", True), ("Q8_0", False)]
    assert chart.rows[0].note == "up to 2,048 tokens"
    best = chart_of(repo(tmp_path / "again", "z440-1ch", "xuanwu"))
    assert best.title == "again: the best quant for each machine"
    assert [row.note for row in best.rows] == ["Q4_0, 1,200 CNY, 80 W", "Q4_0, 38,000 CNY"]


def test_contexts_of_one_model() -> None:
    (rig,) = find_rigs(("z440-4ch",))
    chart = chart_of(fit_model([truth_header("deepseek-r1-671b-old-ud-iq2xxs")], name="R1", rig=rig))
    assert chart.title == "R1: how much context fits?"
    assert [row.level for row in chart.rows] == ["fits", "fits", "fits", "pages", "no"]
    assert chart.rows[0].label == "2,048 tokens"


def test_long_names_keep_both_ends_and_control_characters_are_escaped(tmp_path: Path) -> None:
    for name in ("One", "Two"):
        make_gguf(tmp_path / f"{name} \x1b{'very ' * 12}long-Q4_0.gguf")
    several = find_several(str(tmp_path))
    assert several is not None
    labels = [row.label for row in chart_of(fit_repo(several, find_rigs(ram_bytes=8 << 30))).rows]
    assert all(len(label) == MAX_LABEL and label.endswith("long-Q4_0") and "…" in label for label in labels)
    assert all(label.isprintable() and "\\x1b" in label for label in labels)


@pytest.mark.parametrize("name", ["a.png", "a.svg", "A.PNG"])
def test_a_picture_comes_out(tmp_path: Path, name: str) -> None:
    path = plot(comparison(), tmp_path / name)
    data = path.read_bytes()
    if name.lower().endswith("png"):
        assert data.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 1200 and 300 < height < width
    else:
        assert ET.fromstring(data).tag.endswith("svg")
        colours = set(re.findall(rb"#[0-9a-f]{6}", data))
        assert {b"#228833", b"#ee6677", b"#4477aa"} <= colours  # fits, pages, memory
    assert not list(tmp_path.glob(".ggufkit*"))


def test_the_same_picture_has_the_same_bytes() -> None:
    chart = chart_of(comparison())
    for format_ in ("png", "svg"):
        assert draw(chart, format_) == draw(chart, format_)


ROW = Row("a", 1.0, "fits", "fits", None)


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (ROW,),
        (ROW, replace(ROW, bar_gib=None, level=None, note="not judged")),
        (replace(ROW, label="$\\frac{1$ 模型 %d", note="$x"),),
        (replace(ROW, bar_gib=0.0001), replace(ROW, bar_gib=99999.0)),
        (ROW,) * 60,
    ],
    ids=["none", "one", "unjudged", "mathematics", "far apart", "many"],
)
@pytest.mark.parametrize("limit", [None, 64.0])
def test_odd_charts_are_drawn(rows: tuple[Row, ...], limit: float | None) -> None:
    assert draw(Chart("title $x", "", rows, limit, ""), "svg").startswith(b"<?xml")


def test_names_in_the_picture_are_taken_as_they_are(tmp_path: Path) -> None:
    assert plot(repo(tmp_path / "models"), tmp_path / "x.svg").stat().st_size > 10_000


def test_what_is_there_is_overwritten_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text("mine")
    with pytest.raises(TargetExistsError, match="is there already"):
        plot(comparison(), path)
    assert path.read_text() == "mine"
    plot(comparison(), path, force=True)
    assert path.read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["a.gif", "a", ".png"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"a picture is \.png or \.svg"):
        check_target(tmp_path / name)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return honest(name, *arguments, **named)

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolError, match="needs matplotlib") as caught:
        plot(comparison(), tmp_path / "a.png")
    assert caught.value.hint == "pip install 'ggufkit[plot]'"
    assert not list(tmp_path.iterdir())
