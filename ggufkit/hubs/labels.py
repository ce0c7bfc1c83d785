"""What the names of files and folders in a repo say: quant words, the model's label, raw parts.

Names are free text that publishers agree on more or less; the real ones that this was made for are in
tests/data/real_repos.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A quant word stands between '-', '.', '_', or the ends: Q4_K_M, IQ2_XXS, Q2_K_XL, Q4_0_4_8, TQ1_0,
# MXFP4_MOE, BF16. All its parts belong to it, so that Q2_K is never found in Q2_K_L. Known ones:
# llama.cpp `llama_ftype` names; UD- is unsloth's (dynamic), i1- mradermacher's (importance matrix).
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?:(?P<prefix>UD|i1|smol)-)?"
    r"(?P<word>(?:[IT]?Q\d{1,2}|MXFP\d|NVFP\d)(?:_[A-Z0-9]{1,4})*|BF16|FP?(?:8|16|32))(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# Byte pieces of one file, to be joined in order (mradermacher .part1of2, .split-aa; TheBloke -split-a;
# Qwen .a; plain `split -d` .part00, .001).
_RAW_PART = re.compile(
    r"(?P<file>.+\.gguf)(?:"
    r"[.-]part(?P<number>\d{1,4})of(?P<total>\d{1,4})"
    r"|[.-]part[-_]?(?P<count>\d{1,4})"
    r"|[.-](?:split|part)[-_]?(?P<letters>[a-z]{1,2})"
    r"|\.(?P<suffix>[a-z]|a[a-z]|\d{2,3}))",  # two letters only from 'a' on: .gz and .xz are no parts
    re.IGNORECASE | re.ASCII,
)
_SEPARATORS = re.compile(r"[-_.\s]+")


@dataclass(frozen=True, slots=True)
class RawPart:
    """The name of one byte piece of a file."""

    file_name: str
    """The name of the whole file, as in `grok-1.i1-IQ1_M.gguf`."""
    number: int
    """Place among the parts, as the name counts (from 0 or 1; letters from 1)."""
    total: int | None
    """How many parts there are, where the name says it."""


def parse_raw_part(file_name: str) -> RawPart | None:
    """Return what `file_name` (no folder) says, or None when it is no raw part's name."""
    match = _RAW_PART.fullmatch(file_name)
    if match is None:
        return None
    text = match["number"] or match["count"] or match["letters"] or match["suffix"]
    total = int(match["total"]) if match["total"] else None
    if text.isdigit():
        return RawPart(match["file"], int(text), total)
    number = 0
    for letter in text.lower():
        number = number * 26 + ord(letter) - ord("a")
    return RawPart(match["file"], number + 1, total)


@dataclass(frozen=True, slots=True)
class Label:
    """What a file's stem and its folders say together."""

    quant: str
    """The quant's name (`UD-IQ2_XXS`), or the stem where no quant is named."""
    model: str
    """What stands before the first quant word of the stem."""


def read_label(folder: str, stem: str) -> Label:
    """Return the quant and the model that a file `stem` in `folder` is of.

    Where a stem has several quant words (`BF16-256x20B-Q8_0`) the folder decides, else the last one.
    """
    words = list(_QUANT.finditer(stem))
    model = stem[: words[0].start()].rstrip("-_. ") if words else stem
    in_stem = [_written(word) for word in words]
    of_folder = _quant_of_folder(folder)
    if not in_stem:
        return Label(of_folder or stem, model)
    agreeing = [name for name in in_stem if of_folder and bare_quant(name) == bare_quant(of_folder)]
    return Label(max([*agreeing, of_folder], key=len) if agreeing else in_stem[-1], model)


def _quant_of_folder(folder: str) -> str:
    for part in reversed(folder.split("/")):
        words = list(_QUANT.finditer(part))
        if words:
            return _written(words[-1])
    return ""


def _written(match: re.Match[str]) -> str:
    prefix = match["prefix"]
    word = match["word"].upper()
    if prefix is None:
        return word
    return f"{prefix.upper() if prefix.lower() == 'ud' else prefix.lower()}-{word}"


def has_quant(text: str) -> bool:
    """Say whether a quant is named in `text`."""
    return _QUANT.search(text) is not None


def quant_key(name: str) -> str:
    """Return `name` as it is compared: separators and case don't count, FP16 is F16."""
    return re.sub(r"\bFP(?=16|32)", "F", _SEPARATORS.sub("_", name), flags=re.IGNORECASE).casefold()


def bare_quant(name: str) -> str:
    """Return the key of `name` without UD-, i1- and the like."""
    return re.sub(r"^(?:ud|i1|smol)_", "", quant_key(name))


def words_of(text: str) -> frozenset[str]:
    """Return the words of a path or a repo's name, in lower case."""
    return frozenset(_SEPARATORS.split(text.replace("/", "-").casefold()))


def model_key(label: str) -> str:
    """Return a model's label as it is compared: separators, case and a leading `ggml-` don't count."""
    return _SEPARATORS.sub("-", label.casefold()).strip("-").removeprefix("ggml-")


def model_of_repo(repo_id: str) -> str:
    """Return the model that a repo is named after: its name without the owner and without `-GGUF`."""
    name = repo_id.rpartition("/")[2]
    return re.sub(r"(?:[-_.](?:i1|imat|imatrix))?[-_.]gguf\b.*", "", name, flags=re.IGNORECASE)
