"""What Ollama would be told of a model: one file, a name, a template, parameters, a context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import ToolError, UsageError
from ggufkit.fit.machine import Machine, this_machine
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.runtimes.ollama import Recipe, StorePlace, recipe
from ggufkit.runtimes.ollama_memory import MemoryChoice, choose_memory
from ggufkit.runtimes.ollama_names import ModelName, default_name
from ggufkit.verbs.locate import LocalModel


@dataclass(frozen=True, slots=True)
class Told:
    """A model as Ollama will know it."""

    source: Path
    """The one file that holds it."""
    merge_bytes: int
    """Bytes of `source` if it has to be merged first, else 0."""
    n_bytes: int
    """Size of `source`."""
    name: ModelName
    """A good name, when none is asked for."""
    recipe: Recipe
    """What Ollama is told beside the weights."""
    memory: MemoryChoice
    """The context, and whether the file is mapped."""
    warnings: tuple[str, ...]
    """What the user should know of the file and of what is told."""


def describe(model: LocalModel, place: StorePlace, context_tokens: int | None = None) -> Told:
    """Say what the Ollama of `place` is to be told; nothing is written.

    Raises FormatError for a set that is not whole, UsageError for what is no model by itself.
    """
    headers = model.headers()
    info = model_info(headers)
    _check_kind(model, info)
    source, merge_bytes = _single_file(model)
    n_bytes = merge_bytes or headers[0].file_size_bytes
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    version = place.server.version_text if place.server else ""
    machine = None if place.for_another else _machine()
    memory = choose_memory(info, tensors, n_bytes, machine, version=version, asked_tokens=context_tokens)
    told = recipe(headers[0], info, model.name, place.server, memory.parameters)
    return Told(
        source=source,
        merge_bytes=merge_bytes,
        n_bytes=n_bytes,
        name=default_name(model.name, info.n_parameters),
        recipe=told,
        memory=memory,
        warnings=(*headers[0].warnings, *place.warnings, *told.warnings, *memory.warnings),
    )


def _check_kind(model: LocalModel, info: ModelInfo) -> None:
    if info.kind != "model":
        message = f"{model.files[0]} is no model by itself ({info.kind})"
        raise UsageError(message, hint="name the model's own file")


def _single_file(model: LocalModel) -> tuple[Path, int]:
    """Return the one file to import, and its size if it has to be merged first."""
    if not model.is_sharded:
        return model.files[0].absolute(), 0
    from ggufkit.verbs.merge import plan_merge

    merged = plan_merge(model)
    return merged.output.absolute(), merged.n_bytes


def _machine() -> Machine | None:
    try:
        return this_machine()
    except ToolError:  # a system that does not tell its memory
        return None
