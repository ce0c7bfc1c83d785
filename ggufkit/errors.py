"""Every failure that ggufkit expects, with a message, a hint and an exit code.

GgufkitError
├── UsageError           2  wrong or contradicting arguments
├── NotFoundError        3  no such repo, file, model, quant
├── AccessError          4  gated, private, forbidden, not permitted
├── NetworkError         5  the same command may work again
├── IntegrityError       6  bytes are not what was published
├── FormatError          7  not a sound GGUF (or not a sound set of shards)
├── NoSpaceError         8  disk full, or memory too small under --check
├── TargetExistsError    9  would overwrite
└── ToolError           10  another program is missing or failed
"""

from __future__ import annotations


class GgufkitError(Exception):
    """An expected failure: one sentence, an optional next step, an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GgufkitError):
    """The arguments are wrong or contradict each other."""

    exit_code = 2


class NotFoundError(GgufkitError):
    """A repo, file, model or quant is not there, or a name is ambiguous."""

    exit_code = 3


class AccessError(GgufkitError):
    """The hub or the file system does not let us in."""

    exit_code = 4


class NetworkError(GgufkitError):
    """The network or a hub failed; the same command may work again."""

    exit_code = 5


class IntegrityError(GgufkitError):
    """Bytes are not what was published."""

    exit_code = 6


class FormatError(GgufkitError):
    """A file is not a sound GGUF, or shards are not a sound set."""

    exit_code = 7

    def __init__(self, file: str, reason: str, *, offset: int | None = None, hint: str | None = None) -> None:
        where = f" (at byte {offset:,})" if offset is not None else ""
        super().__init__(f"{printable(file)}: {printable(reason)}{where}", hint=hint)
        self.file = file
        self.reason = reason
        self.offset = offset


class NoSpaceError(GgufkitError):
    """The disk is full, or would be."""

    exit_code = 8


class TargetExistsError(GgufkitError):
    """The target is there already and is not what would be written."""

    exit_code = 9


class ToolError(GgufkitError):
    """Another program (Ollama, LM Studio, llama.cpp) is missing or failed."""

    exit_code = 10


def printable(text: str) -> str:
    """Escape control characters, so that hostile text can't drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
