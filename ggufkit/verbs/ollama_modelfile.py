"""Write a Modelfile: what ollama-import would tell Ollama, for who would rather run `ollama create`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError, TargetExistsError
from ggufkit.runtimes.ollama import StorePlace
from ggufkit.runtimes.ollama_modelfile import modelfile
from ggufkit.runtimes.ollama_templates import JINJA_SINCE
from ggufkit.transfer.disk import write_atomic
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.ollama_told import describe


@dataclass(frozen=True, slots=True)
class ModelfilePlan:
    """A Modelfile to be written."""

    target: Path
    """Where to; `-` is the standard output."""
    text: str
    """What is in it."""
    name: str
    """A good name for the model."""
    warnings: tuple[str, ...]
    """What the user should know."""


def plan_modelfile(
    model: LocalModel,
    place: StorePlace,
    target: Path,
    *,
    context_tokens: int | None = None,
    force: bool = False,
) -> ModelfilePlan:
    """Say what the Modelfile of a model has in it; nothing is written.

    Raises NotFoundError for shards that are not merged yet, UsageError for text that no Modelfile can hold,
    TargetExistsError.
    """
    told = describe(model, place, context_tokens)
    if told.merge_bytes:
        message = f"{told.source} is not there yet: a Modelfile names one file"
        raise NotFoundError(message, hint=f"ggufkit merge {model.files[0]}")
    if str(target) != "-" and target.exists() and not force:
        raise TargetExistsError(f"{target} is there already", hint="--force replaces it")
    text = modelfile(told.source, told.recipe.layers)
    warnings = (*told.warnings, *_costs(place, told.n_bytes))
    return ModelfilePlan(target, text, str(told.name), warnings)


def write_modelfile(plan: ModelfilePlan) -> None:
    """Write it."""
    write_atomic(plan.target.absolute(), plan.text.encode())


def _costs(place: StorePlace, n_bytes: int) -> tuple[str, ...]:
    """Say what `ollama create` will do with the file (server/create.go; 0.30: pull request 16031)."""
    version = place.server.version if place.server else None
    gib = n_bytes / 2**30
    if version is not None and version < JINJA_SINCE:
        return (f"`ollama create` copies the file: {gib:.1f} GiB more in its store; ollama-import links it",)
    return (
        f"`ollama create` copies the file ({gib:.1f} GiB more in its store; 0.30 and later rewrite it, and "
        f"need {3 * gib:.1f} GiB while they do); ollama-import links it",
    )
