"""Send a model to an Ollama on another machine or in a container, by its API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError, TargetExistsError, ToolError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.ollama import OWN_STORE, Recipe, StorePlace
from ggufkit.runtimes.ollama_memory import MemoryChoice
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_remote import create, remote_server, send_blob
from ggufkit.runtimes.ollama_server import OllamaServer
from ggufkit.runtimes.ollama_store import Store
from ggufkit.runtimes.ollama_templates import JINJA_SINCE
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.ollama_told import describe
from ggufkit.verbs.record import digests


@dataclass(frozen=True, slots=True)
class SendPlan:
    """What sending a model would do."""

    source: Path
    """The file."""
    n_bytes: int
    """Its size."""
    name: str
    """What the model will be called there."""
    server: OllamaServer
    """The Ollama that gets it."""
    recipe: Recipe
    """What it is told beside the weights."""
    memory: MemoryChoice
    """The context, if one was asked for."""
    room_bytes: int
    """What it takes there, at the most, while the model is made."""
    warnings: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """What sending a model came to."""

    name: str
    """What it is called there."""
    url: str
    """The Ollama that has it."""
    sha256: str
    """Digest of the file that was sent, bare hex."""
    n_bytes: int
    """Size of the file."""
    sent_bytes: int
    """Bytes that went over the line: 0 when it had them."""
    id: str
    """The model's ID there: its manifest's SHA-256."""
    warnings: tuple[str, ...]
    """What the user should know."""


def plan_ollama_send(
    model: LocalModel,
    address: str,
    *,
    name: str | None = None,
    force: bool = False,
    context_tokens: int | None = None,
) -> SendPlan:
    """Check the model, the name and that the server answers; nothing is sent.

    Raises NetworkError, NotFoundError for shards that are not merged yet, UsageError for a bad name,
    TargetExistsError for a name that is taken there.
    """
    server = remote_server(address)
    told = describe(model, StorePlace(Store(Path()), OWN_STORE, server), context_tokens)
    if told.merge_bytes:
        message = f"{told.source} is not there yet: one file is sent"
        raise NotFoundError(message, hint=f"ggufkit merge {model.files[0]}")
    chosen = str(told.name if name is None else parse_name(name))
    taken = {known.lower(): known for known in server.digests()}
    if chosen.lower() in taken and not force:
        hint = "--force replaces it, --name gives this one another name"
        raise TargetExistsError(f"{server.url} has a model {taken[chosen.lower()]} already", hint=hint)
    rewrites = server.version is None or server.version >= JINJA_SINCE
    return SendPlan(
        source=told.source,
        n_bytes=told.n_bytes,
        name=chosen,
        server=server,
        recipe=told.recipe,
        memory=told.memory,
        room_bytes=told.n_bytes * (3 if rewrites else 1),
        warnings=(*told.warnings, *_costs(server, told.n_bytes, rewrites)),
    )


def ollama_send(plan: SendPlan, progress: Progress = SILENT) -> SendReport:
    """Send the bytes unless the server has them, and have it make the model.

    Raises NetworkError, ToolError when the server does not take it or does not list it afterwards.
    """
    progress.start(f"hashing {plan.source.name}", plan.n_bytes)
    try:
        sha256 = digests().digest(plan.source, progress)
    finally:
        progress.finish()
    sent_bytes = send_blob(plan.server, plan.source, sha256, progress)
    progress.note(f"{plan.server.url} makes the model")
    create(plan.server, plan.name, plan.source.name, sha256, plan.recipe.layers)
    id_ = plan.server.digests().get(plan.name)
    if id_ is None:
        raise ToolError(f"{plan.server.url} does not list {plan.name}, though it said that it made it")
    return SendReport(plan.name, plan.server.url, sha256, plan.n_bytes, sent_bytes, id_, plan.warnings)


def _costs(server: OllamaServer, n_bytes: int, rewrites: bool) -> tuple[str, ...]:
    gib = n_bytes / 2**30
    text = f"{gib:.1f} GiB go over the line, and are in the store there"
    if rewrites:
        text += (
            f"; Ollama {server.version_text} rewrites them, which needs {3 * gib:.1f} GiB there for a time"
        )
    return (f"{text}; on that machine itself ollama-import links the file",)
