"""What people and scripts see: tables, sizes, JSON, talk, and progress lines."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.cli import bars
from ggufkit.cli.bars import Bar, Lines, terminal_progress
from ggufkit.cli.meter import BAR_CELLS, Meter
from ggufkit.cli.render import (
    Out,
    count_text,
    display_width,
    gb_text,
    jsonable,
    print_error,
    shortened,
    size_text,
    table,
    to_json,
)
from ggufkit.progress import SILENT

Capture = pytest.CaptureFixture[str]


class Kind(IntEnum):
    F16 = 1


@dataclass(frozen=True, slots=True)
class Inner:
    path: Path
    kind: Kind


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    n_bytes: int
    seconds: float
    sha256: str | None
    inner: tuple[Inner, ...]
    by_name: dict[str, int]


DOCUMENT = Document("中文 é", 1 << 60, 0.5, None, (Inner(Path("a/b"), Kind.F16),), {"x": 1})


def test_a_document_is_the_dataclass_with_the_schema_first() -> None:
    text = to_json(DOCUMENT)
    assert text.splitlines()[1] == '  "schema": 1,' and "中文 é" in text
    assert json.loads(text) == {
        "schema": 1,
        "name": "中文 é",
        "n_bytes": 1 << 60,
        "seconds": 0.5,
        "sha256": None,
        "inner": [{"path": "a/b", "kind": "F16"}],
        "by_name": {"x": 1},
    }


def test_iterables_are_arrays_and_text_is_text() -> None:
    assert jsonable(x for x in (1, 2)) == [1, 2]
    assert jsonable({Path("k"): frozenset({3})}) == {"k": [3]}
    assert jsonable("abc") == "abc" and jsonable(True) is True


@pytest.mark.parametrize(
    ("out", "stdout"),
    [
        (Out(), "text\n"),
        (Out(as_json=True), to_json({"a": 1}) + "\n"),
        (Out(quiet=True), "one\ntw\\x1bo\n"),
        (Out(as_json=True, quiet=True), to_json({"a": 1}) + "\n"),
    ],
)
def test_one_answer_in_the_form_asked_for(capsys: Capture, out: Out, stdout: str) -> None:
    out.result({"a": 1}, "text", quiet=["one", "tw\x1bo"])
    assert capsys.readouterr() == (stdout, "")


def test_talk_goes_to_stderr_and_not_when_quiet(capsys: Capture) -> None:
    for out in (Out(), Out(as_json=True)):
        out.say("said\nin \x1b[2Jtwo")
        out.warn("odd \x07")
        out.hint("next: this")
        out.detail("more")
        assert capsys.readouterr() == ("", "said\nin \\x1b[2Jtwo\nwarning: odd \\x07\nnext: this\n")
    Out(verbose=True).detail("more")
    assert capsys.readouterr() == ("", "more\n")
    quiet = Out(quiet=True, verbose=True)
    for tell in (quiet.say, quiet.warn, quiet.hint, quiet.detail):
        tell("nothing")
    assert capsys.readouterr() == ("", "")


def test_an_error_keeps_its_lines_and_no_control_character(capsys: Capture) -> None:
    print_error("2 models:\n  a\x1b.gguf", hint="b\x9b")
    assert capsys.readouterr() == ("", "error: 2 models:\n  a\\x1b.gguf\nhint: b\\x9b\n")
    print_error("x", hint="y", color=True)
    assert capsys.readouterr().err == "\x1b[31merror: \x1b[0mx\n\x1b[2mhint: \x1b[0my\n"


def test_a_table_aligns_and_cuts_nothing_off_a_terminal() -> None:
    long = "x" * 300
    text = table(("NAME", "SIZE", "WHERE"), [("a", 5, "here"), ("中文", 1234, long)], right=[1])
    assert text.splitlines() == ["NAME  SIZE  WHERE", "a        5  here", f"中文  1234  {long}"]


def test_a_table_on_a_terminal_shrinks_its_widest_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((30, 24)))
    lines = table(("NAME", "SIZE"), [("y" * 50, 12345), ("字" * 30, 1)], right=[1]).splitlines()
    assert lines[1] == "y" * 22 + "…  12345"
    assert all(display_width(line) <= 30 for line in lines) and "…" in lines[2]


@given(st.lists(st.lists(st.text(max_size=20), min_size=3, max_size=3), max_size=5))
def test_a_table_has_a_line_for_every_row(rows: list[list[str]]) -> None:
    lines = table(("A", "B", "C"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1024.0 KiB"),
        (49_800_000_000, "46.4 GiB"),
        (5 << 40, "5.0 TiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes_for_people(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


def test_both_kinds_of_gigabytes_and_counts() -> None:
    assert gb_text(196_200_000_000) == "182.7 GiB (196.2 GB)"
    assert [count_text(n, "file") for n in (0, 1, 2, 1234)] == ["0 files", "1 file", "2 files", "1,234 files"]
    assert count_text(2, "match", "matches") == "2 matches"


def test_widths_of_letters() -> None:
    assert display_width("a中é́") == 1 + 2 + 1 + 0


# ---- progress ----


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(bars, "time", one)
    return one


def test_lines_at_the_start_each_tenth_and_the_end(capsys: Capture, clock: Clock) -> None:
    lines = Lines()
    lines.start("pulling x", 100 << 20)
    for _ in range(100):
        clock.now += 0.5
        lines.advance(1 << 20)
    lines.finish()
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert out == "" and said[0] == "pulling x: 100.0 MiB"
    assert said[1:-1] == [f"pulling x: {n} %, 2.0 MiB/s" for n in range(10, 101, 10)]
    assert said[-1] == "pulling x: 100.0 MiB of 100.0 MiB in 50.0 s"


def test_a_slow_task_says_something_every_30_s_and_a_fast_one_little(capsys: Capture, clock: Clock) -> None:
    lines = Lines()
    lines.start("slow", 1 << 40, 1 << 39)
    for _ in range(90):
        clock.now += 1
        lines.advance(1 << 20)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "slow: 1.0 TiB, resumed at 50 %" and said[1:] == ["slow: 50 %, 1.0 MiB/s"] * 3
    lines.start("fast", 1000)
    for _ in range(1000):
        lines.advance(1)
    lines.finish()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_lines_of_nothing_notes_and_endings_without_a_task(capsys: Capture) -> None:
    lines = Lines()
    lines.finish()
    assert capsys.readouterr().err == ""
    lines.start("empty", 0)
    lines.note("busy \x1b[31m; again in 5 s")
    lines.advance(0)
    lines.finish()
    lines.finish()
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["empty: 0 B", "busy \\x1b[31m; again in 5 s"] and len(said) == 3


@pytest.mark.parametrize("kind", [Lines, Bar])
def test_progress_may_be_told_from_several_threads(kind: type[Lines] | type[Bar], capsys: Capture) -> None:
    listener = kind()
    listener.start("many", 4000)
    threads = [threading.Thread(target=lambda: [listener.advance(1) for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listener.finish()
    if kind is Lines:
        assert "4.0 KiB" not in capsys.readouterr().err.splitlines()[0]
        assert listener._done == 4000  # type: ignore[union-attr]


def test_which_listener_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(terminal_progress(), Lines)
    assert Out(quiet=True).progress() is SILENT
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(Out().progress(), Bar)
    monkeypatch.setenv("GGUFKIT_PROGRESS", "OFF")
    assert Out().progress() is SILENT


@pytest.mark.parametrize("columns", [50, 60, 80, 100, 200])
@pytest.mark.parametrize("ascii_", [False, True])
def test_a_long_name_gives_way_to_rate_and_time_left(columns: int, ascii_: bool) -> None:
    name = "pulling DeepSeek-R1-UD-IQ2_XXS-00001-of-00005.gguf"
    for n_bytes, elapsed_s in ((0, 0.0), (5 << 30, 12.0), (120 << 30, 5025.0)):
        line = Meter.format_meter(
            n_bytes,
            183 << 30,
            elapsed_s,
            ncols=columns,
            prefix=f"{name}: ",
            ascii=ascii_,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
        )
        assert display_width(line) <= columns and line.endswith("B/s]") and "/183G [" in line
        before, bar, _ = line.split("|")
        assert len(bar) >= BAR_CELLS and before.endswith("%")
        assert (name in line) == (columns >= 100)
        if columns in (60, 80):
            assert line.startswith("pul") and ("..." if ascii_ else "…") in before and "uf: " in before


def test_the_middle_goes_first() -> None:
    assert [shortened("abcdefgh", n) for n in (8, 7, 3, 2, 0)] == ["abcdefgh", "abc…fgh", "a…h", "", ""]
    assert shortened("字字字字", 5) == "字…字" and shortened("abcdefgh", 6, "...") == "ab...h"


def test_a_bar_begun_anew_ends_the_one_before(capsys: Capture) -> None:
    bar = Bar()
    bar.finish()
    bar.start("one", 100)
    bar.start("two", 100, 50)
    bar.advance(10)
    bar.note("said")
    bar.finish()
    bar.advance(10)
    err = capsys.readouterr().err
    assert "one" in err and "two" in err and "said\n" in err and bar._bar is None
