"""A Modelfile for `ollama create`, in the quotes that Ollama's parser takes off again.

Grammar: ollama parser/parser.go (`ParseFile`, `quote`, `unquote`), tried against real servers: a value in
three quotes ends where a line does and the quotes are closed; nothing can be escaped; characters
that don't print are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ggufkit.errors import UsageError
from ggufkit.runtimes.ollama_store import SmallLayer

_QUOTES = '"""'
_COMMANDS = {"template": "TEMPLATE", "license": "LICENSE", "system": "SYSTEM"}


def modelfile(source: Path, layers: Sequence[SmallLayer]) -> str:
    """Return a Modelfile of the file and of what Ollama is told beside it.

    Raises UsageError for text that a Modelfile can't hold.
    """
    lines = [f"FROM {_plain(str(source), 'the path')}"]
    for layer in layers:
        if layer.kind == "params":
            lines += [_parameter(key, value) for key, value in _pairs(layer.text)]
        else:
            lines.append(f"{_COMMANDS[layer.kind]} {_quoted(layer.text, layer.kind)}")
    return "\n".join(lines) + "\n"


def _pairs(text: str) -> list[tuple[str, object]]:
    """Return the parameters one by one: a list is as many lines."""
    document = json.loads(text)
    lists = {key: value if isinstance(value, list) else [value] for key, value in document.items()}
    return [(key, value) for key, values in lists.items() for value in values]


def _parameter(key: str, value: object) -> str:
    if isinstance(value, str):
        return f'PARAMETER {key} "{_plain(value, key)}"'
    return f"PARAMETER {key} {json.dumps(value)}"


def _quoted(text: str, what: str) -> str:
    if any(line.endswith(_QUOTES) for line in text.split("\n")) or text.endswith('"'):
        raise _unsayable(what, "quotes at the end of a line")
    return f"{_QUOTES}{_printable(text, what)}{_QUOTES}"


def _plain(text: str, what: str) -> str:
    if "\n" in text or text.endswith('"') or text != text.strip():
        raise _unsayable(what, "a line break, or a blank or quote at its end")
    return _printable(text, what)


def _printable(text: str, what: str) -> str:
    dropped = next((c for c in text if c not in "\n\t" and not c.isprintable()), None)
    if dropped is not None:
        raise _unsayable(what, f"U+{ord(dropped):04X}, which Ollama drops")
    return text


def _unsayable(what: str, why: str) -> UsageError:
    return UsageError(f"{what} has {why}: no Modelfile can say it", hint="import it without --modelfile")
