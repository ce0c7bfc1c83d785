"""Ollama on this machine: which store it uses, and what it needs to run a model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufkit.errors import ToolError
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import ModelInfo
from ggufkit.runtimes import ollama_services
from ggufkit.runtimes.ollama_server import OllamaServer, find_server, is_loopback, server_url
from ggufkit.runtimes.ollama_store import SmallLayer, Store, StoredModel, compact_json
from ggufkit.runtimes.ollama_templates import JINJA_SINCE, ChatFormat, chat_format

OWN_STORE = "--store"
"""What names a store that no server here uses: it is for another machine."""
MEMORY_PARAMETERS = ("num_ctx", "use_mmap")
"""What is told for the machine's sake, not for the model's."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store, and how it was found."""

    store: Store
    """The store."""
    found_by: str
    """What named it: `--models-dir`, `--store`, `OLLAMA_MODELS`, the server's URL, or `default`."""
    server: OllamaServer | None
    """The Ollama that answered on this machine."""
    warnings: tuple[str, ...] = ()
    """What makes the choice doubtful."""

    @property
    def for_another(self) -> bool:
        """Whether the store is to be laid over another machine's."""
        return self.found_by == OWN_STORE

    @property
    def by_server(self) -> bool:
        """Whether the server itself named the store."""
        return self.server is not None and self.found_by == self.server.url


@dataclass(frozen=True, slots=True)
class Recipe:
    """What Ollama is told of a model beside its weights."""

    family: str | None
    """How the model is talked to; None when it is not known."""
    config: Mapping[str, Any]
    """The config blob."""
    layers: tuple[SmallLayer, ...]
    """Template, license and params, as far as there are."""
    warnings: tuple[str, ...]
    """What is not known, or was assumed."""


def recipe(
    header: Header,
    info: ModelInfo,
    set_name: str,
    server: OllamaServer | None,
    memory: Mapping[str, object] | None = None,
) -> Recipe:
    """Return what Ollama is to be told of a model; `header` is the first of its headers.

    `memory` are further parameters, for the machine that it runs on.
    """
    jinja = header.string("tokenizer.chat_template")
    version = server.version if server else None
    chat = chat_format(jinja, architecture=info.architecture, names=(set_name, info.name), server=version)
    warnings = tuple(_doubts(jinja, chat, server))
    return Recipe(chat.name if chat else None, config_document(info), small_layers(chat, memory), warnings)


def config_document(info: ModelInfo) -> dict[str, Any]:
    """Return what the config blob says (ollama types/model/config.go `ConfigV2`)."""
    family = info.architecture or "unknown"
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": human_number(info.n_parameters),
        "file_type": info.file_type or "unknown",
        "architecture": "amd64",  # these two are constants on every platform (server/create.go)
        "os": "linux",
    }


def small_layers(
    chat: ChatFormat | None, memory: Mapping[str, object] | None = None
) -> tuple[SmallLayer, ...]:
    """Return the layers beside the weights for a family (None: not known); `memory` as for `recipe`."""
    known = chat or ChatFormat("", None)
    parameters = {**known.parameters, **(memory or {})}
    encoded = compact_json(parameters).decode() if parameters else None
    texts = {"template": known.template, "license": known.license, "params": encoded}
    return tuple(SmallLayer(kind, text) for kind, text in texts.items() if text)


def told_already(
    store: Store, stored: StoredModel, layers: Sequence[SmallLayer], *, but_memory: bool
) -> bool:
    """Say whether the store has these layers beside the weights of a model.

    `but_memory` leaves out the parameters that were chosen for the memory that was free.
    """
    there = {layer.sha256 for layer in stored.layers[1:]}
    ours = {layer.sha256: layer for layer in layers}
    if there == set(ours):
        return True
    other, new = there - set(ours), set(ours) - there
    if not but_memory or len(other) > 1 or len(new) > 1 or any(ours[s].kind != "params" for s in new):
        return False
    before = [store.small_blob(sha256) or b"" for sha256 in other]
    after = [ours[sha256].data for sha256 in new]
    return _lasting(before) == _lasting(after)


def _lasting(params: Sequence[bytes]) -> dict[str, object] | None:
    """Return parameters without those for the memory; None for what are none."""
    try:
        document = json.loads(params[0]) if params else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return {key: value for key, value in document.items() if key not in MEMORY_PARAMETERS}


def human_number(n: int) -> str:
    """Return a count as Ollama shows it: `671.0B`, `134.52M` (format/format.go `HumanNumber`)."""
    if n >= 1_000_000_000:
        return f"{n // 1_000_000_000}B" if n % 1_000_000_000 == 0 else f"{n / 1e9:.1f}B"
    if n >= 1_000_000:
        return f"{n // 1_000_000}M" if n % 1_000_000 == 0 else f"{n / 1e6:.2f}M"
    return f"{n / 1e3:.0f}K" if n >= 1_000 else str(n)


def find_store(
    *, models_dir: Path | None = None, environ: Mapping[str, str], home: Path | None = None
) -> StorePlace:
    """Find the store: the one named, that of OLLAMA_MODELS, of the running server, of its unit, the default.

    A server's answer comes from this machine only (OLLAMA_HOST, else port 11434); one without models
    is known by its process. Nothing is made.
    """
    host = environ.get("OLLAMA_HOST")
    server = find_server(host)
    named = environ.get("OLLAMA_MODELS", "").strip().strip("\"'")  # as envconfig.Var does
    if models_dir is not None:
        return StorePlace(Store(models_dir.expanduser().absolute()), "--models-dir", server)
    if named:
        return StorePlace(Store(Path(named).absolute()), "OLLAMA_MODELS", server)
    if server is not None and (folder := server.store()) is not None:
        return StorePlace(Store(_here(folder, server)), server.url, server)
    if server is not None and (serving := ollama_services.folder_of_process(server.url)) is not None:
        return StorePlace(Store(serving.folder), serving.found_by, server)
    if server is None and (serving := ollama_services.folder_of_unit()) is not None:
        return _of_unit(serving, home or Path.home())
    return _default(home or Path.home(), server, host)


def own_store(folder: Path) -> StorePlace:
    """Return a store that is to be laid over another machine's."""
    return StorePlace(Store(folder.expanduser().absolute()), OWN_STORE, None)


def default_folders(home: Path) -> tuple[Path, ...]:
    """Return where a store is by default, the user's own first.

    Sources: envconfig.Models; scripts/install.sh; the packages of Linux distributions.
    """
    own = home / ".ollama" / "models"
    if os.name == "nt":
        return (own,)
    services = (
        "/usr/share/ollama/.ollama/models",
        "/var/lib/ollama/.ollama/models",
        "/var/lib/ollama/models",
    )
    return (own, *map(Path, services))


def _of_unit(serving: ollama_services.Serving, home: Path) -> StorePlace:
    """Take the service's store; one's own may be there from times without it."""
    own = default_folders(home)[0]
    doubt = (f"there is a store in {own} too",) if own.is_dir() and own != serving.folder else ()
    return StorePlace(Store(serving.folder), serving.found_by, None, doubt)


def _here(folder: Path, server: OllamaServer) -> Path:
    if not folder.is_dir():
        raise ToolError(
            f"the Ollama at {server.url} keeps its models in {folder}, which is not on this machine: "
            "it runs in a container?",
            hint="--models-dir names the folder that is mounted there",
        )
    return folder


def _default(home: Path, server: OllamaServer | None, host: str | None) -> StorePlace:
    """Take the user's own store, or a service's when that is the only one there is."""
    own, *services = default_folders(home)
    others = [folder for folder in services if folder.is_dir()]
    warnings = []
    if server is not None:
        warnings.append(f"the Ollama at {server.url} has no model yet to ask for its folder")
    url = server_url(host)
    if not is_loopback(url):
        warnings.append(
            f"OLLAMA_HOST names another machine ({url}): this store is taken; --server sends it there"
        )
    if own.is_dir() and others:
        warnings.append(f"there is a store in {others[0]} too")
    chosen = others[0] if others and not own.is_dir() else own
    return StorePlace(Store(chosen), "default", server, tuple(warnings))


def _doubts(jinja: str | None, chat: ChatFormat | None, server: OllamaServer | None) -> Iterator[str]:
    version = server.version if server else None
    if version is None and chat is not None and chat.template and "$.IsThinkSet" in chat.template:
        yield "no Ollama that says its version runs here: the template is for 0.9 and later"
    if not jinja:
        yield "the file has no chat template: Ollama will send prompts as they are"
    elif chat is None and (version is None or version < JINJA_SINCE):
        yield (
            "no template of ours fits this model's own chat template: Ollama 0.30 and later uses that one, "
            "earlier ones send prompts as they are"
        )
