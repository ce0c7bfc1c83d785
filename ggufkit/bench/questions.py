"""The questions: five of our own in two languages, or those of a file."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ggufkit.bench.load import load
from ggufkit.errors import FormatError, UsageError

Lang = Literal["en", "zh"]
Rule = Literal["number", "weekday", "choice"]
MAX_FILE_BYTES = 4 << 20
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LANGS = (*get_args(Lang), "both")


@dataclass(frozen=True, slots=True)
class Check:
    """How an answer is judged without a person."""

    rule: Rule
    """What to look for: one of some numbers, a day of the week, or a letter."""
    expected: str
    """The right one: `9.9`, `thursday`, `D`."""
    others: tuple[str, ...] = ()
    """For `number`: the wrong ones that the question names."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question."""

    id: str
    """Its name in the result file, unlike any other's."""
    lang: str | None
    """Language, `en` or `zh`; None when a file did not say."""
    kind: str
    """essay, compare, poem, logic, physics, prompt, or what a file says."""
    text: str
    """What is asked, before the nonce that defeats prompt caches."""
    check: Check | None = None
    """None when a person has to judge."""

    @property
    def sha256(self) -> str:
        """Return the digest of the text, bare hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_NUMBERS = Check("number", "9.9", ("9.11",))
_DAY = Check("weekday", "thursday")
_LETTER = Check("choice", "D")

# What the five ask is told in articles of February to May 2025 on R1 at home; the wording is ours.
FIVE: dict[Lang, tuple[Question, ...]] = {
    "en": (
        Question(
            "essay-en",
            "en",
            "essay",
            'Write a composition as a primary school pupil would. Its title begins "That Really Made Me"; '
            "complete the title first, then write about 300 words.",
        ),
        Question(
            "compare-en",
            "en",
            "compare",
            "Of the two numbers 9.11 and 9.9, which is larger? Give your reason, then end with one line that "
            "holds only the larger number.",
            _NUMBERS,
        ),
        Question(
            "poem-en",
            "en",
            "poem",
            "Write a poem of four lines about autumn. Then explain the images in it, such as falling leaves "
            "or a lone wild goose.",
        ),
        Question(
            "logic-en",
            "en",
            "logic",
            "The forecast said that it would rain on Wednesday of this week. Yesterday it rained, just as "
            "forecast. What day of the week is it today? End with one line that holds only the day.",
            _DAY,
        ),
        Question(
            "physics-en",
            "en",
            "physics",
            "Which one of these statements is wrong?\n"
            "A. In nature, sound generally travels faster through solids than through liquids or gases.\n"
            "B. A body on which no net force acts stays at rest or keeps moving at constant velocity.\n"
            "C. When one body pushes another, it is pushed back with a force equal in size and opposite "
            "in direction.\n"
            "D. Sound travels through air at 1000 metres per second.\n"
            "Explain, then end with one line that holds only the letter.",
            _LETTER,
        ),
    ),
    "zh": (
        Question(
            "essay-zh",
            "zh",
            "essay",
            "请像小学生那样写一篇作文，题目是《那件事真让我____》：先把题目补充完整，再写正文，大约450字。",
        ),
        Question(
            "compare-zh",
            "zh",
            "compare",
            "9.11和9.9这两个数，哪一个更大？请说明理由，最后一行只写出较大的那个数。",
            _NUMBERS,
        ),
        Question(
            "poem-zh",
            "zh",
            "poem",
            "请写一首描写秋天的五言绝句，再分析诗里的意象，例如落叶、孤雁。",
        ),
        Question(
            "logic-zh",
            "zh",
            "logic",
            "天气预报说本周的星期三会下雨，昨天果然下雨了。请问今天是星期几？最后一行只写出是星期几。",
            _DAY,
        ),
        Question(
            "physics-zh",
            "zh",
            "physics",
            "下面关于物理的说法，哪一项是错误的？\n"
            "A. 在自然界中，声音在固体里一般比在液体和气体里传播得快。\n"
            "B. 不受外力作用的物体，保持静止或做匀速直线运动。\n"
            "C. 一个物体推另一个物体时，也受到大小相等、方向相反的力。\n"
            "D. 声音在空气中的传播速度是1000米每秒。\n"
            "请说明理由，最后一行只写出选项的字母。",
            _LETTER,
        ),
    ),
}

_WORDS = ("river", "stone", "cloud", "paper", "garden", "window", "silver", "morning", "bridge", "letter")


def five_questions(lang: str) -> tuple[Question, ...]:
    """Return the five in `en` or `zh`, or all ten for `both`."""
    return FIVE["en"] + FIVE["zh"] if lang == "both" else FIVE["zh" if lang == "zh" else "en"]


def prompt_question(n_words: int) -> Question:
    """Return a prompt of `n_words` words that is only there to be read: its speed is prompt processing."""
    words = random.Random(n_words).choices(_WORDS, k=n_words)
    return Question(f"prompt-{n_words}", "en", "prompt", f"Answer only with OK. {' '.join(words)}")


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read a file: JSON (a list, or an object with `questions`), else one question a paragraph."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB: a file of questions?")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        parsed = json.loads(text) if path.suffix.lower() == ".json" else _paragraphs(text)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(str(path), f"not a file of questions: {error}") from None
    entries = parsed.get("questions") if isinstance(parsed, dict) else parsed
    if not isinstance(entries, list) or not entries:
        raise FormatError(str(path), "no questions in it")
    questions = tuple(_question(entry, number, path) for number, entry in enumerate(entries, 1))
    ids = [question.id for question in questions]
    if len(set(ids)) < len(ids):
        raise FormatError(str(path), "two questions have the same id")
    return questions


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _question(entry: Any, number: int, path: Path) -> Question:
    if isinstance(entry, str):
        entry = {"text": entry}
    if not isinstance(entry, dict):
        raise FormatError(str(path), f"question {number} is neither text nor an object")
    filled = {"id": f"q{number}", "lang": None, "kind": "own", "check": None, **entry}
    question = load(Question, filled, str(path), f"questions[{number - 1}]")
    if not question.text.strip() or not question.id.strip():
        raise FormatError(str(path), f"question {number} is empty")
    if question.check and question.check.rule == "weekday" and question.check.expected not in WEEKDAYS:
        raise FormatError(str(path), f"question {number}: expected is one of {', '.join(WEEKDAYS)}")
    return question
