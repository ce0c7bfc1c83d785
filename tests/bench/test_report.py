"""Tables, Markdown, CSV, and two results side by side."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from ggufkit.bench.compare import compare
from ggufkit.bench.report import consecutive_lines, csv_text, markdown, models_grid, questions_grid, warnings
from ggufkit.bench.result import BenchResult, Run
from ggufkit.bench.summary import change_over_time, spread, summarize, together_tokens_per_s
from ggufkit.errors import UsageError
from tests.bench.made import RUN, SETTINGS, made


def test_the_middle_and_the_ends() -> None:
    found = spread([3.0, None, 1.0, 2.0, 10.0])
    assert found is not None
    assert (found.n, found.median, found.low, found.high) == (4, 2.5, 1.0, 10.0)
    assert found.variation == pytest.approx(4.0824829 / 4)
    assert spread([None]) is None and spread([]) is None
    single = spread([2.0])
    assert single is not None and single.variation is None


def test_runs_that_broke_off_count_but_have_no_speed() -> None:
    broken = replace(RUN, status="no_final", verdict=replace(RUN.verdict, judgement="void"))
    summary = summarize([RUN, broken])
    assert (summary.n_runs, summary.n_sound, summary.n_judged, summary.n_passed) == (2, 1, 1, 1)
    assert summary.generation is not None and summary.generation.n == 1
    assert summary.server_generation is not None and summary.server_generation.median == 10.1


def runs_at(*speeds: float) -> list[Run]:
    client = RUN.client
    return [
        replace(RUN, order=i, client=replace(client, generation_tokens_per_s=s)) for i, s in enumerate(speeds)
    ]


def test_a_fall_over_consecutive_answers_is_seen() -> None:
    assert change_over_time(runs_at(10, 10, 8, 8)) == pytest.approx(-0.2)
    assert change_over_time(runs_at(10, 10, 8)) is None
    assert change_over_time(reversed(runs_at(10, 10, 5, 12, 12))) == pytest.approx(0.2)
    (line,) = consecutive_lines(made((10.0, 8.0, 5.0)))
    assert "10.00 10.00 8.00 8.00 5.00 5.00 tokens/s; the later half 50% slower" in line


def test_answers_at_the_same_time_have_a_speed_together() -> None:
    """Two that overlap for half their time, and one an hour later: 303 tokens in 15.75 + 10.5 seconds."""
    times = ("2026-11-22T00:00:00+00:00", "2026-11-22T00:00:05.250+00:00", "2026-11-22T01:00:00+00:00")
    runs = [replace(RUN, asked_at=time) for time in times]
    assert together_tokens_per_s(runs) == pytest.approx(303 / 26.25)
    assert together_tokens_per_s([replace(RUN, status="error")]) is None
    (line,) = consecutive_lines(made(settings=replace(SETTINGS, n_concurrent=4)))
    assert line == "smol, 4 answers at a time: 57.71 tokens/s together"


def test_the_tables_keep_both_clocks_apart() -> None:
    grid = models_grid(made())
    (row,) = grid.rows
    cells = dict(zip(grid.headers, row, strict=True))
    assert (cells["TOKENS/S"], cells["SERVER SAYS"], cells["PROMPT TOKENS/S"]) == ("10.00", "10.10", "200")
    assert (cells["SPREAD"], cells["FIRST"], cells["FIRST OF ANSWER"]) == ("9.90-10.20", "0.50 s", "1.50 s")
    assert (cells["RIGHT"], cells["ANSWERS"]) == ("6 of 6", "6")
    assert (cells["LOAD"], cells["QUANT"]) == ("2.5 s", "Q4_1")
    assert [row[1] for row in questions_grid(made()).rows] == ["compare-zh", "poem-zh"]


def test_what_to_mind() -> None:
    assert warnings(made()) == []
    assert any("vary by" in text for text in warnings(made((10.0, 14.0, 6.0))))
    uncounted = replace(RUN, status="length", tokens=replace(RUN.tokens, source="none"))
    model = made().models[0]
    question = replace(model.questions[0], runs=(uncounted, replace(uncounted, status="error")))
    result = replace(made(), models=(replace(model, questions=(question,)),))
    said = " | ".join(warnings(result))
    assert "the server counted no tokens: 2" in said
    assert "cut at 4,096 tokens, and so not judged: 1" in said and "are not judged: 1" in said


def test_csv_has_a_row_for_each_answer_and_no_formulas() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(made(name="=cmd()")))))
    assert len(rows) == 6
    assert rows[0]["model"] == "'=cmd()" and rows[0]["question"] == "compare-zh"
    assert float(rows[0]["client_generation_tokens_per_s"]) == 10.0
    assert float(rows[0]["server_generation_tokens_per_s"]) == 10.1
    assert rows[0]["server_load_s"] == "" and rows[0]["judgement"] == "pass"


def test_markdown_shows_answers_that_can_t_break_out() -> None:
    text = markdown(made(name="a|b<script>", answer="```\n# not a heading"))
    assert "<script>" not in text and r"a\|b&lt;script>" in text
    assert "````text\n```\n# not a heading\n````" in text
    assert text.count("| ---: |") or text.count("---:")


def test_what_a_model_said_drives_no_terminal() -> None:
    result = made(name="a\x1b[2Jb", answer="one\ttab\r\n\x1b]0;title\x07\x9b2J")
    for text in (markdown(result), csv_text(result)):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert "one tab" in markdown(result) and r"\x1b]0;title\x07" in markdown(result)


def change(a: BenchResult, b: BenchResult) -> tuple[float | None, bool]:
    pair = compare(a, b).pairs[0]
    return pair.change, pair.told_apart


def test_comparing() -> None:
    value, apart = change(made((10.0, 10.2, 9.9)), made((12.0, 12.1, 11.9), name="other"))
    assert value == pytest.approx(0.2) and apart
    value, apart = change(made((10.0, 12.0, 9.0)), made((10.5, 11.0, 10.0)))
    assert value == pytest.approx(0.05) and not apart
    pairs = compare(made((10.0,)), made((20.0,))).pairs
    assert [pair.told_apart for pair in pairs[1:]] == [False, False], "one measurement says little"
    assert [pair.question for pair in compare(made(), made()).pairs] == [None, "compare-zh", "poem-zh"]
    assert compare(made(), made()).warnings == ()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (made(settings=replace(SETTINGS, max_tokens=5)), "max_tokens 4096 and 5"),
        (made(settings=replace(SETTINGS, temperature=0.5)), "temperature the server's own and 0.5"),
        (made(settings=replace(SETTINGS, n_concurrent=2)), "n_concurrent"),
        (made(()), "has not answered all"),
    ],
)
def test_what_can_t_be_compared_is_refused(other: BenchResult, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        compare(made(), other)


def test_other_questions_models_and_counts_are_refused() -> None:
    model = made().models[0]
    fewer = replace(made(), models=(replace(model, questions=model.questions[:1]),))
    with pytest.raises(UsageError, match="other questions"):
        compare(made(), fewer)
    two = replace(made(), models=(model, replace(model, name="two")))
    with pytest.raises(UsageError, match="no model is in both: smol, two in the first, x in the second"):
        compare(two, made(name="x"))
    assert {pair.model_b for pair in compare(two, made()).pairs} == {"smol"}
    bare = tuple(
        replace(q, runs=tuple(replace(r, tokens=replace(r.tokens, source="none")) for r in q.runs))
        for q in model.questions
    )
    with pytest.raises(UsageError, match="did not count its tokens"):
        compare(made(), replace(made(), models=(replace(model, questions=bare),)))


def test_what_else_differs_is_said() -> None:
    model = made().models[0]
    other = replace(
        made(),
        host=replace(made().host, cpu="Another CPU"),
        server=replace(made().server, version="0.9.3"),
        models=(replace(model, facts=replace(model.facts, digest="cd" * 32)),),
    )
    said = " | ".join(compare(made(), other).warnings)
    assert "ollama 0.5.4 and ollama 0.9.3" in said and "A CPU" in said and "not the same file" in said
