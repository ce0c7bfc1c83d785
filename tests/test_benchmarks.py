"""What the benchmark scripts share: rounds that count, figures of the system, a document kept in place."""

from __future__ import annotations

import itertools
import re
import sys
from functools import partial
from pathlib import Path

import pytest
from bench_rounds import (
    DOCUMENT,
    ROOT,
    Figure,
    arguments,
    hub,
    in_turn,
    median,
    publish,
    section,
    settle,
    timed,
)
from bench_transfer import Rival, picked

FILL = "import sys, os; held = bytearray(int(sys.argv[1])); open(sys.argv[2], 'wb').write(held[:9])"


def sections() -> list[str]:
    """Return the document's sections, marks included."""
    return [m[0] for m in re.finditer(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", DOCUMENT.read_text("utf-8"), re.S)]


def test_every_section_of_the_document_has_a_script_and_its_format() -> None:
    assert len(sections()) == 5
    for text in sections():
        name, title, about, columns = re.findall(
            r"<!-- (\w+) -->\n## (.*)\n\n`.*?`; (.*)\n\n\| (.*) \|\n", text
        )[0]
        rows = [line[2:-2].split(" | ") for line in text.split("\n") if line.startswith("| ")][1:]
        assert (ROOT / "scripts" / f"{name}.py").is_file()
        assert section(name, title, about, columns.split(" | "), rows) == text


@pytest.mark.parametrize("text", sections(), ids=lambda text: text.split()[1])
def test_a_section_is_replaced_where_it_stands(text: str, tmp_path: Path) -> None:
    whole = DOCUMENT.read_text("utf-8")
    document = tmp_path / "benchmarks.md"
    document.write_text(whole.replace(text, text.replace("\n| ", "\n| old, ")), "utf-8")
    assert document.read_text("utf-8") != whole
    publish(text, writes=True, document=document)
    assert document.read_text("utf-8") == whole


def test_a_new_section_comes_last_and_nothing_is_written_unless_wanted(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    first, second = (section(name, name, "about.", ["a", "b"], [["1", "2"]]) for name in ("one", "two"))
    publish(first, writes=False, document=document)
    assert not document.exists()
    publish(first, writes=True, document=document)
    publish(second, writes=True, document=document)
    assert document.read_text("utf-8") == f"# Benchmarks\n\n{first}\n\n{second}\n"


def test_the_first_round_does_not_count_and_each_says_a_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    times = itertools.count(1)
    runs = {name: partial(next, times) for name in ("a", "b")}
    assert in_turn("tmpfs", runs, 2) == {"a": [3, 5], "b": [4, 6]}
    out, err = capfd.readouterr()
    assert not out
    assert re.fullmatch(
        r"tmpfs: the round that does not count, [\d.]+ s\n"
        r"tmpfs: run 1 of 2, [\d.]+ s\ntmpfs: run 2 of 2, [\d.]+ s\n",
        err,
    )


def test_medians_are_taken_number_by_number() -> None:
    assert median([Figure(1, 9, 5), Figure(2, 8, 4), Figure(3, 7, 9)]) == Figure(2, 8, 5)


def test_the_figures_are_the_commands_own(tmp_path: Path) -> None:
    """The larger of two commands' peaks, whatever this process holds."""
    ours = bytearray(200_000_000)
    command = [sys.executable, "-S", "-c", FILL, "60000000", str(tmp_path / "a")]
    both = [*command, "+", sys.executable, "-S", "-c", FILL, "1", str(tmp_path / "b")]
    one = timed("two commands", both, synced=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert 60 < one.peak_mb < len(ours) / 1e6
    assert one.wall_s > 0 and one.cpu_s > 0


def test_a_command_that_fails_or_leaves_nothing_ends_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"curl failed: .*no such hub"):
        timed("curl", [sys.executable, "-c", "import sys; sys.exit('no such hub')"])
    with pytest.raises(SystemExit, match=r"merge failed: .*gone is not there"):
        timed("merge", [sys.executable, "-c", ""], synced=tmp_path / "gone")


def test_a_hub_can_be_killed_and_is_over_with_its_block(tmp_path: Path) -> None:
    with hub(tmp_path) as first, hub(tmp_path) as second:
        assert first.url.startswith("http://127.0.0.1:")
        first.process.kill()
        first.process.wait()
        assert second.process.poll() is None
    assert second.process.returncode == 0


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], (5, 1_000_000_000, True)),
        (["--runs", "2", "--size-gb", "2"], (2, 2_000_000_000, True)),
        (["--dry-run"], (5, 1_000_000_000, False)),
        (["--quick", "--runs", "9"], (1, 64_000_000, False)),
    ],
)
def test_quick_and_dry_runs_leave_the_document_alone(
    words: list[str], wanted: tuple[int, int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    given = settle(arguments("story", size_gb=1, quick_gb=0.064))
    assert (given.runs, given.n_bytes, given.writes) == wanted


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        ((), ["curl", "ggufkit pull", "modelscope"]),
        (("model",), ["curl", "modelscope"]),
        (("curl",), ["curl"]),
        (("pull", "scope"), ["curl", "ggufkit pull", "modelscope"]),
        (("aria2c",), []),
    ],
)
def test_only_some_rivals_keep_the_first_as_their_peer(only: tuple[str, ...], wanted: list[str]) -> None:
    some = [Rival(title, [], {}, True) for title in ("curl", "ggufkit pull", "modelscope")]
    assert [rival.title for rival in picked(some, only)] == wanted
