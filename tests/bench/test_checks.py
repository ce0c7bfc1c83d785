"""Answers that are right, wrong, unclear, quoted, decorated: what the checks make of them."""

from __future__ import annotations

import time

import pytest

from ggufkit.bench.checks import answer_start, extract, judge
from ggufkit.bench.questions import FIVE, Check

NUMBER, DAY, LETTER = (FIVE["en"][i].check for i in (1, 3, 4))


def found(check: Check | None, answer: str) -> str | None:
    assert check is not None
    return extract(check, answer)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("9.9", "9.9"),
        ("9.9.", "9.9"),
        ("**9.90**", "9.9"),
        ("Compare the tenths.\n\n9.9", "9.9"),
        ("Compare the tenths.\n\nAnswer: **9.11**", "9.11"),
        ("9.9 has more tenths.\n\\boxed{9.9}", "9.9"),
        ("$\\boxed{9.11}$ is it\nwith 9.9 and 9.11 compared", "9.11"),
        ("9.9 is larger than 9.11.", "9.9"),
        ("9.11 is larger than 9.9.", "9.11"),
        ("9.11 is smaller than 9.9", "9.9"),
        ("9.11 is not larger than 9.9", "9.9"),
        ("9.11 < 9.9", "9.9"),
        ("9.9 > 9.11, because 0.90 > 0.11", "9.9"),
        ("Some say “9.11 > 9.9”, for 11 is more than 9. But 9.9 > 9.11 as 9.90 has more tenths.", "9.9"),
        ("At first sight 9.11 > 9.9. No: 9.9 is greater than 9.11, by 0.79.", "9.9"),
        ("So between 9.11 and 9.9, the larger number is 9.9, by 0.79 over 9.11.", "9.9"),
        ("9.9比9.11大。", "9.9"),
        ("9.11比9.9小，因为9.11的十分位是1。", "9.9"),
        ("9.11 大于 9.9", "9.11"),
        ("因为９.９０＞９.１１，所以9.9大于9.11", "9.9"),
        ("9.9和9.11相比，较大的数是9.9，而不是9.11", "9.9"),
        ("I can't tell 9.11 and 9.9 apart.", None),
        ("19.9 is a nice number", None),
        ("version 9.9.1", None),
        ("", None),
    ],
)
def test_the_larger_number(answer: str, number: str | None) -> None:
    assert found(NUMBER, answer) == number


@pytest.mark.parametrize(
    ("answer", "day"),
    [
        ("Thursday", "thursday"),
        ("It rained on Wednesday.\n\n**Thursday.**", "thursday"),
        ("Yesterday was Wednesday, so today is Thursday.", "thursday"),
        ("Today is Thursday, since yesterday was a Wednesday. Rain on Wednesday is rare.", "thursday"),
        ("星期四", "thursday"),
        ("昨天是星期三，所以今天是周四。", "thursday"),
        ("预报说星期三下雨，昨天下雨。\n答案：**礼拜四**", "thursday"),
        ("今天是星期三。", "wednesday"),
        ("Today is Friday", "friday"),
        ("今天是星期天", "sunday"),
        ("If it is Wednesday or Thursday, who knows?", None),
        ("It is the fourth day.", None),
    ],
)
def test_the_day(answer: str, day: str | None) -> None:
    assert found(DAY, answer) == day


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("D", "D"),
        ("**D**", "D"),
        ("(D)", "D"),
        ("D.", "D"),
        ("Sound is slower.\nAnswer: D", "D"),
        ("\\boxed{\\text{D}}", "D"),
        ("选D", "D"),
        ("答案是D，因为声速约为340米每秒。", "D"),
        ("D项错误，声速约为340米每秒。", "D"),
        ("D选项的说法是错误的，A、B、C都正确。", "D"),
        ("错误的是D。", "D"),
        ("The wrong statement is D, for sound travels at 343 m/s.", "D"),
        ("D is incorrect because it is about 343 m/s.", "D"),
        ("A is true. B is true. C is true. Statement D is false: it is 343 m/s.", "D"),
        ("A body pushed is a body moved. The answer is C, as it is unclear.", "C"),
        ("Ｄ", "D"),
        ("A body at rest stays at rest.", None),
        ("All are true.", None),
    ],
)
def test_the_letter(answer: str, letter: str | None) -> None:
    assert found(LETTER, answer) == letter


@pytest.mark.parametrize(
    ("status", "answer", "judgement"),
    [
        ("complete", "9.9", "pass"),
        ("complete", "9.11", "fail"),
        ("complete", "who knows", "manual"),
        ("length", "9.9", "void"),
        ("no_final", "9.9", "void"),
        ("error", "9.9", "void"),
        ("timeout", "9.9", "void"),
    ],
)
def test_only_whole_answers_are_judged(status: str, answer: str, judgement: str) -> None:
    assert judge(NUMBER, answer, status).judgement == judgement  # type: ignore[arg-type]


def test_what_has_no_check_is_for_a_person() -> None:
    assert judge(None, "a poem", "complete").judgement == "manual"


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("9.9", "9.9"),
        ("<think>9.11</think>9.9", "9.9"),
        ("\n<think>\n\n</think>\n\n9.9", "\n\n9.9"),
        ("9.11 perhaps</think>9.9", "9.9"),
        ("<thinking>x</thinking>9.9", "9.9"),
        ("<think>endless", None),
        ("The tag <think> opens and </think> closes it.", "The tag <think> opens and </think> closes it."),
    ],
)
def test_where_the_answer_begins(content: str, answer: str | None) -> None:
    start = answer_start(content)
    assert (None if start is None else content[start:]) == answer


def test_a_long_line_takes_no_time() -> None:
    """Patterns over what a model repeats for ever."""
    begun = time.monotonic()
    texts = ("9.11 " * 50_000, "9.9 比 9.11 " * 9_000, "wrong is " * 20_000, "今天" * 9_000, '"' * 99_999)
    for text in texts:
        for check in (NUMBER, DAY, LETTER):
            found(check, text)
    assert time.monotonic() - begun < 20
