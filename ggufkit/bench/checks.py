"""Answers judged: thinking taken away, then what the answer ends by saying, quotations passed over."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ggufkit.bench.questions import WEEKDAYS, Check
from ggufkit.bench.result import Status, Verdict

_OPEN = re.compile(r"\s*<(think|thinking)>")
_CLOSE = re.compile(r"</(?:think|thinking)>")
_QUOTED = re.compile(r"“[^”\n]*”|‘[^’\n]*’|「[^」\n]*」|\"[^\"\n]*\"|^>.*$", re.MULTILINE)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?([^{}]*)\}")
_DECORATION = re.compile(r"[*_`$#]+|\\[()\[\]]")
_ANSWER = re.compile(r"(?:(?:final )?answer|答案|因此|所以|therefore)\s*(?:is|应?[为是])?\s*[:,]?\s*", re.I)
_NOT = r"(?:not|n't|不)"
_LARGER = r"(?:larger|greater|bigger|higher|更大|较大|大于|大|>)"
_SMALLER = r"(?:smaller|less|lower|更小|较小|小于|小|<)"
_DAYS = {
    day: re.compile(rf"\b{day}\b|(?:星期|周|礼拜){characters}", re.IGNORECASE)
    for day, characters in zip(WEEKDAYS, ("一", "二", "三", "四", "五", "六", "[日天]"), strict=True)
}
_IS_TODAY = re.compile(
    r"(?:today(?: is|'s|’s| must be| would be)(?: a)?|今天(?:就|应该?|必定|肯定)?是?)"
    rf"\s*({'|'.join(WEEKDAYS)}|(?:星期|周|礼拜).)",
    re.IGNORECASE,
)
_TODAY = re.compile(r"(?:today|今天)[^.!?。！？\n]*", re.IGNORECASE)
_LETTER = r"(?<![A-Za-z0-9])\(?([A-Z])\)?(?![A-Za-z0-9'’])"
_WRONG = r"(?:wrong|incorrect|false|not (?:true|correct|right)|错误|不正确|错的|有误|不对|说法错)"
_CHOICES = (
    re.compile(rf"(?:answer|option|选|答案)\s*(?:is|应?[为是]|项)?\s*[:]?\s*{_LETTER}", re.IGNORECASE),
    re.compile(rf"{_WRONG}[^.\n。;]{{0,24}}?(?:is|[是为:])\s*(?:statement|option|选项)?\s*{_LETTER}", re.I),
    re.compile(rf"{_LETTER}\s*(?:项|选项)?\s*(?:的?说法)?\s*(?:is|是)\s*(?:the )?{_WRONG}", re.IGNORECASE),
    re.compile(rf"{_LETTER}\s*(?:项|选项)?\s*(?:的?说法)?{_WRONG}", re.IGNORECASE),
)


def answer_start(content: str) -> int | None:
    """Return where the answer begins in a text that may begin with thinking in tags.

    The opening tag may be missing: R1's template puts it into the prompt. None: it is all thinking.
    """
    opened, closed = _OPEN.match(content), _CLOSE.search(content)
    if closed and (opened or not re.search(r"<(?:think|thinking)>", content[: closed.start()])):
        return closed.end()
    return None if opened else 0


def judge(check: Check | None, answer: str, status: Status) -> Verdict:
    """Judge an answer without its thinking; one that is cut short is void, an unclear one is for a person."""
    if status != "complete":
        return Verdict("void", None)
    if check is None:
        return Verdict("manual", None)
    found = extract(check, answer)
    if found is None:
        return Verdict("manual", None)
    return Verdict("pass" if found == check.expected else "fail", found)


def extract(check: Check, answer: str) -> str | None:
    """Return what the answer says in the end; None when that is not clear."""
    text = unicodedata.normalize("NFKC", answer)
    boxed = _BOXED.findall(text)
    text = _DECORATION.sub("", text)
    last = _last_line(text)
    unquoted = _QUOTED.sub(" ", text)
    if check.rule == "number":
        numbers = (check.expected, *check.others)
        return _one(_numbers(boxed[-1:] or [last], numbers)) or _larger(unquoted, numbers)
    if check.rule == "weekday":
        return _one(_days(boxed[-1:] or [last])) or _today(unquoted)
    return _letter(boxed[-1] if boxed else last) or _choice(unquoted)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _ANSWER.sub("", lines[-1]) if lines else ""


def _one(found: Iterable[str]) -> str | None:
    """Return the only one of its kind."""
    kinds = set(found)
    return kinds.pop() if len(kinds) == 1 else None


def _number(number: str) -> str:
    """Return a pattern for a decimal number however many zeros it ends with, and no part of another."""
    zeros = "0*" if "." in number else r"(?:\.0+)?"
    return rf"(?<![\d.]){re.escape(number)}{zeros}(?![\d])(?!\.\d)"


def _numbers(texts: Iterable[str], numbers: Iterable[str]) -> list[str]:
    return [number for number in numbers for text in texts if re.search(_number(number), text)]


def _larger(text: str, numbers: tuple[str, ...]) -> str | None:
    """Return the number that the last comparison in the text makes the larger one."""
    claims = [claim for one in numbers for claim in _called_larger(text, one)]
    claims += [
        claim for one in numbers for two in numbers if one != two for claim in _compared(text, one, two)
    ]
    return max(claims)[1] if claims else None


def _called_larger(text: str, number: str) -> list[tuple[int, str]]:
    """Return where the text calls a number the larger one: `the larger number is 9.9`, `较大的是9.9`."""
    named = r"(?:larger|greater|bigger)(?: number| one| value)?(?: is|:)"
    named += r"|(?:更大|较大)的?(?:那?个?数|一个)?[是为:]"
    called = r"(?:is |是)?(?:the )?(?:larger|greater|bigger|更大|较大)(?! ?than)"
    pattern = rf"(?:{named})\s*{_number(number)}|{_number(number)}\s*{called}"
    return [(match.start(), number) for match in re.finditer(pattern, text, re.IGNORECASE)]


def _compared(text: str, one: str, two: str) -> list[tuple[int, str]]:
    """Return where the text compares `one` with `two` in this order, and which it makes the larger one."""
    claims = []
    for word, larger, smaller in ((_LARGER, one, two), (_SMALLER, two, one)):
        english = rf"{_number(one)}\s*(?:is)?\s*({_NOT}\s*)?{word}\s*(?:than)?\s*{_number(two)}"
        chinese = rf"{_number(one)}\s*({_NOT}\s*)?比\s*{_number(two)}\s*要?{word}"
        for pattern in (english, chinese):
            for match in re.finditer(pattern, text, re.IGNORECASE):
                claims.append((match.start(), smaller if match[1] else larger))
    return claims


def _days(texts: Iterable[str]) -> list[str]:
    return [day for day, pattern in _DAYS.items() for text in texts if pattern.search(text)]


def _today(text: str) -> str | None:
    """Return the day that today is said to be, else the only one in the last sentence about today."""
    said = _IS_TODAY.findall(text)
    if said:
        return _one(_days(said[-1:]))
    named = [_one(_days([match[0]])) for match in _TODAY.finditer(text)]
    return next((day for day in reversed(named) if day), None)


def _letter(line: str) -> str | None:
    """Return the letter of a line that holds little else."""
    match = re.fullmatch(rf"\W*(?:选项?|option|statement)?\s*{_LETTER}\W*", line, re.IGNORECASE)
    return match[1].upper() if match else None


def _choice(text: str) -> str | None:
    claims = [(match.start(1), match[1]) for pattern in _CHOICES for match in pattern.finditer(text)]
    claims = [(at, letter) for at, letter in claims if letter.isupper()]
    return max(claims)[1] if claims else None
