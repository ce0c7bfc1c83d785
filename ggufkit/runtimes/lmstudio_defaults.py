"""How LM Studio is to load one model: a file of defaults, merged with what is there.

`<home>/.internal/user-concrete-model-default-config/<publisher>/<model>/<file>.json`, UTF-8 without a byte
order mark (with one LM Studio passes over it); keys of @lmstudio/sdk 2.0 `globalConfigSchematics`. LM Studio
uses it when it loads a model by itself; `lms load` was reported not to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggufkit.errors import FormatError
from ggufkit.runtimes.lmstudio import UserRepo

FOLDER = Path(".internal", "user-concrete-model-default-config")
BACKUP = ".ggufkit-backup"
"""Added to the name of the file that was there before."""


def defaults_file(home: Path, user_repo: UserRepo, file_name: str) -> Path:
    """Return where the defaults of a model are; of a set of shards, by its first."""
    return home / FOLDER / user_repo.user / user_repo.repo / f"{file_name}.json"


def load_fields(context_tokens: int | None, *, pages: bool) -> dict[str, Any]:
    """Return how to load a model: its context, and for one larger than free memory, by mapping it."""
    fields: dict[str, Any] = {} if context_tokens is None else {"llm.load.contextLength": context_tokens}
    if pages:
        fields |= {
            "llm.load.numParallelSessions": 1,
            "llm.load.llama.tryMmap": True,
            "llm.load.llama.keepModelInMemory": False,
        }
    return fields


def talk_fields(parameters: Mapping[str, object]) -> dict[str, Any]:
    """Return how to talk to a model, of Ollama's parameters for its family."""
    fields: dict[str, Any] = {}
    if "temperature" in parameters:
        fields["llm.prediction.temperature"] = parameters["temperature"]
    if "top_p" in parameters:
        fields["llm.prediction.topPSampling"] = {"checked": True, "value": parameters["top_p"]}
    return fields


def merged(before: bytes | None, load: Mapping[str, Any], talk: Mapping[str, Any], file: Path) -> bytes:
    """Return the file with these fields added to what is there, where the user's own stay.

    Raises FormatError when what is there is no such file: then it is not ours to change.
    """
    document: dict[str, Any] = {"preset": "", "operation": {"fields": []}, "load": {"fields": []}}
    if before is not None:
        document = _read(before, file)
    for part, fields in (("operation", talk), ("load", load)):
        there = document.setdefault(part, {}).setdefault("fields", [])
        known = {field["key"] for field in there}
        there += [{"key": key, "value": value} for key, value in fields.items() if key not in known]
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def _read(data: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(data.decode("utf-8-sig"))
        parts = [document[part].get("fields", []) for part in ("operation", "load") if part in document]
        if isinstance(document, dict) and all(isinstance(f["key"], str) for fields in parts for f in fields):
            return dict(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise FormatError(str(file), "not what LM Studio writes", hint="move it away, or leave --defaults out")
