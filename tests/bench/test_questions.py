"""The five, and those of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ggufkit.bench.questions import FIVE, five_questions, prompt_question, read_questions
from ggufkit.errors import FormatError, UsageError


def test_five_in_two_languages_that_ask_the_same() -> None:
    for lang in ("en", "zh"):
        five = five_questions(lang)
        assert [question.kind for question in five] == ["essay", "compare", "poem", "logic", "physics"]
        assert all(question.id == f"{question.kind}-{lang}" for question in five)
        assert [question.check is not None for question in five] == [False, True, False, True, True]
    assert [question.check for question in FIVE["en"]] == [question.check for question in FIVE["zh"]]
    ids = [question.id for question in five_questions("both")]
    assert len(set(ids)) == 10 == len({question.sha256 for question in five_questions("both")})


def test_a_prompt_to_be_read_is_the_same_each_time() -> None:
    question = prompt_question(500)
    assert question == prompt_question(500) and len(question.text.split()) == 504
    assert question.kind == "prompt" and question.id == "prompt-500"


def test_a_paragraph_is_a_question(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffWho?\r\nAnd why?\r\n\r\n\r\n什么？\n".encode())
    questions = read_questions(path)
    assert [(q.id, q.text) for q in questions] == [("q1", "Who?\nAnd why?"), ("q2", "什么？")]
    assert {q.lang for q in questions} == {None}


def test_json_questions_have_checks(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    check = {"rule": "choice", "expected": "B"}
    own = {"id": "b", "text": "A or B?", "check": check, "x": 1}
    path.write_text(json.dumps({"questions": ["Who?", own]}))
    first, second = read_questions(path)
    assert (first.id, first.check) == ("q1", None)
    assert second.id == "b" and second.check is not None and second.check.expected == "B"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "[", "not a file of questions"),
        ("a.json", "[]", "no questions"),
        ("a.json", "{}", "no questions"),
        ("a.txt", " \n\n", "no questions"),
        ("a.json", "[7]", "neither text nor an object"),
        ("a.json", '[{"text": 7}]', "text is not a string"),
        ("a.json", '[{"id": "x"}]', "text is missing"),
        ("a.json", '[{"text": " "}]', "is empty"),
        ("a.json", '[{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]', "same id"),
        ("a.json", '[{"text": "a", "check": {"rule": "eval", "expected": "1"}}]', "is not one of"),
        ("a.json", '[{"text": "a", "check": {"rule": "weekday", "expected": "Thu"}}]', "expected is one of"),
        ("a.json", "[" * 100_000, "not a file of questions"),
    ],
)
def test_what_is_no_file_of_questions_is_said_to_be_none(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FormatError, match=reason):
        read_questions(path)


def test_binary_and_huge_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a file of questions"):
        read_questions(path)
    with path.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(UsageError, match="more than 4 MiB"):
        read_questions(path)
