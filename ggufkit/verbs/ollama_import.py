"""Make an Ollama model of a GGUF without a second copy of its bytes: blobs first, the manifest last."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import AccessError, IntegrityError, NoSpaceError, TargetExistsError, ToolError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.ollama import Recipe, StorePlace, told_already
from ggufkit.runtimes.ollama_memory import MemoryChoice
from ggufkit.runtimes.ollama_names import ModelName, parse_name
from ggufkit.runtimes.ollama_store import (
    Store,
    StoredModel,
    compact_json,
    encode_manifest,
    read_manifest,
    sha256_of,
)
from ggufkit.runtimes.ollama_writer import Placed, StoreWriter, sweep_store
from ggufkit.runtimes.ways import Wanted, Way, check_moved, closed_to, find_way, owner_of, quote
from ggufkit.transfer.disk import Method, existing_parent, free_bytes, same_file_system
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.ollama_told import describe
from ggufkit.verbs.receipts import PlacedFile, Receipt, keep_receipt
from ggufkit.verbs.record import digests

Action = Literal["import", "replace", "nothing", "compare"]
"""`compare`: only the file's digest, not taken yet, can tell whether it is there already."""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import into Ollama would do."""

    model: LocalModel
    """The model: one file, or shards that are merged first."""
    source: Path
    """The one file that goes into the store."""
    merge_bytes: int
    """Bytes of `source` if it has to be merged first, else 0."""
    name: str
    """The model's name, as `ollama list` will show it."""
    place: StorePlace
    """The store, and how it was found."""
    action: Action
    """What is to be done under this name."""
    method: Wanted
    """How the weights get into the store; `auto` links if it can."""
    why: str
    """What that will be here, and why, in one line."""
    mend: str | None
    """What to do about a link that is refused."""
    n_bytes: int
    """Size of the weights."""
    copy_bytes: int
    """Bytes that the weights will take in the store, as far as can be foreseen: 0 with a link."""
    free_bytes: int
    """Free room on the store's disk."""
    sha256: str | None
    """Digest of the weights, bare hex, when it is known already."""
    recipe: Recipe
    """What Ollama is told beside the weights."""
    context_tokens: int | None
    """The context that was asked for: 0 is the model's own, None one that fits."""
    memory: MemoryChoice
    """The context, and whether the file is mapped."""
    force: bool
    """Whether another model of this name may be replaced."""
    warnings: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import into Ollama came to."""

    name: str
    """The model's name, as `ollama list` shows it."""
    store: Path
    """The store's folder."""
    for_another: bool
    """Whether the store is to be laid over another machine's."""
    manifest: Path
    """The model's manifest."""
    id: str
    """SHA-256 of the manifest, bare hex; `ollama list` shows its first 12."""
    source: Path
    """The file that was imported."""
    blob: Path
    """The weights in the store."""
    sha256: str
    """Digest of the weights, bare hex."""
    action: Action
    """What was done; `nothing` when it was there already."""
    method: Placed
    """How the weights got there."""
    moved: bool
    """Whether the file has no name but the store's any more."""
    n_bytes: int
    """Size of the weights."""
    extra_bytes: int
    """Bytes that the import took on the store's disk."""
    listed: bool | None
    """Whether the running Ollama lists the model; None when none runs here."""
    warnings: tuple[str, ...]
    """What the user should know."""


def plan_ollama_import(
    model: LocalModel,
    place: StorePlace,
    *,
    name: str | None = None,
    method: Wanted = "auto",
    force: bool = False,
    context_tokens: int | None = None,
) -> ImportPlan:
    """Check the model, the name and the store; nothing is written and no server is asked.

    `context_tokens` becomes Ollama's `num_ctx`: 0 is the model's own; left out, one is chosen that fits.

    Raises FormatError for a set that is not whole, UsageError for a bad name or a file that is no model by
    itself, TargetExistsError for a name that another model has, NoSpaceError, AccessError.
    """
    if place.for_another and method == "symbolic-link":
        raise UsageError("a link by name leads nowhere on another machine", hint="--store without it")
    told = describe(model, place, context_tokens)
    sha256 = None if told.merge_bytes else digests().get(told.source)
    chosen = place.store.spelled(told.name if name is None else parse_name(name))
    way = _way(place.store, told.source, told.n_bytes, sha256, method)
    plan = ImportPlan(
        model=model,
        source=told.source,
        merge_bytes=told.merge_bytes,
        name=str(chosen),
        place=place,
        action=_action(place.store, chosen, told.source, told.n_bytes, sha256, force),
        method=method,
        why=way.why,
        mend=way.mend,
        n_bytes=told.n_bytes,
        copy_bytes=way.copy_bytes,
        free_bytes=free_bytes(place.store.blobs),
        sha256=sha256,
        recipe=told.recipe,
        context_tokens=context_tokens,
        memory=told.memory,
        force=force,
        warnings=(*told.warnings, *closed_to(told.source, place.store.root, method)),
    )
    if plan.action == "nothing":
        return replace(plan, copy_bytes=0, warnings=())
    _check_store(plan)
    return plan


def ollama_import(plan: ImportPlan, progress: Progress = SILENT) -> ImportReport:
    """Do what the plan says; on failure the store is left as it was (a file merged first stays).

    Raises what the plan does, IntegrityError when the file is not what was pulled, ToolError when the server
    that named the store does not list the model.
    """
    sha256 = _merged(plan, progress) if plan.merge_bytes else _digest(plan, progress)
    store, name = plan.place.store, parse_name(plan.name)
    config = compact_json(plan.recipe.config)
    manifest = encode_manifest(config, (sha256, plan.n_bytes), plan.recipe.layers)
    swept = sweep_store(store)
    if swept:
        progress.note(f"removed {len(swept)} things that an import left when it was killed")
    action = _action(store, name, plan.source, plan.n_bytes, sha256, plan.force)
    stored = read_manifest(store.manifest(name))
    if action == "nothing" and stored is not None:
        return _already(plan, stored, sha256, progress)
    how: Method = "auto" if plan.method == "move" else plan.method
    with Changes(store.root, store.staging) as changes:
        writer = StoreWriter(store, changes)
        method = writer.weights(plan.source, sha256, method=how, progress=progress)
        for data in (config, *(layer.data for layer in plan.recipe.layers)):
            writer.blob(data)
        writer.manifest(name, manifest)
        # A server that started meanwhile has removed what no manifest named yet; now it would not.
        writer.weights(plan.source, sha256, method=how, progress=progress)
        for data in (config, *(layer.data for layer in plan.recipe.layers)):
            writer.blob(data)
        listed, doubts = _listed(plan, sha256_of(manifest))
        if plan.method == "move":
            check_moved(plan.source, store.blob(sha256), sha256, progress)
    _keep_receipt(plan, sha256, manifest)
    if plan.method == "move":  # what is done now is not undone any more
        plan.source.unlink()
    return _report(plan, sha256, manifest, action, method, writer.extra_bytes, listed, doubts)


def _merged(plan: ImportPlan, progress: Progress) -> str:
    from ggufkit.verbs.merge import merge, plan_merge

    report = merge(plan_merge(plan.model), progress)
    return report.sha256 or _digest(plan, progress)


def _digest(plan: ImportPlan, progress: Progress) -> str:
    """Return the file's digest, taken now unless it is remembered of this state of the file."""
    from ggufkit.verbs.merge import forget_notes

    forget_notes(plan.source)  # of an import that was killed just when it had merged the shards
    cache = digests()
    sha256 = cache.get(plan.source)
    if sha256 is None:
        progress.start(f"hashing {plan.source.name}", plan.n_bytes)
        try:
            sha256 = cache.digest(plan.source, progress)
        finally:
            progress.finish()
    record = plan.model.record
    expected = record.digest_of(plan.source) if record else None
    if expected not in (None, sha256):
        message = f"{plan.source}: SHA-256 is {sha256}, recorded is {expected}"
        raise IntegrityError(message, hint=f"ggufkit verify {plan.source}")
    return sha256


def _action(
    store: Store, name: ModelName, source: Path, n_bytes: int, sha256: str | None, force: bool
) -> Action:
    """Say what is to be done under a name; raises TargetExistsError when another model has it."""
    file = store.manifest(name)
    if not file.exists():
        return "import"
    if force:
        return "replace"
    stored = read_manifest(file)
    weights = stored.model if stored else None
    if weights is not None:
        if sha256 is None and not _is_file(store, weights.sha256, source):
            if weights.size_bytes == n_bytes:
                return "compare"
        elif sha256 in (None, weights.sha256):
            return "nothing" if store.has(weights.sha256, n_bytes) else "replace"
    what = "with other weights" if weights else f"but its manifest is broken ({file})"
    hint = "--force replaces it, --name gives this one another name"
    raise TargetExistsError(f"{name} is in {store.root} already, {what}", hint=hint)


def _is_file(store: Store, sha256: str, source: Path) -> bool:
    """Say whether the blob is the very file (a hard link of it)."""
    try:
        return store.blob(sha256).samefile(source)
    except OSError:
        return False


def _way(store: Store, source: Path, n_bytes: int, sha256: str | None, wanted: Wanted) -> Way:
    if sha256 is not None and store.has(sha256, n_bytes):
        return Way("the weights are in the store already", None, 0)
    return find_way(source, store.blobs, n_bytes, wanted)


def _check_store(plan: ImportPlan) -> None:
    store = plan.place.store
    for folder in map(existing_parent, (store.blobs, store.manifests)):
        if not os.access(folder, os.W_OK | os.X_OK):
            line = f'sudo "$(command -v ggufkit)" ollama-import {quote(plan.source)}'
            hint = f"it is {owner_of(folder)}'s: {line}"
            raise AccessError(f"{folder}: this user may not write there", hint=hint)
    need = plan.copy_bytes
    if same_file_system(plan.source, store.blobs):
        need += plan.merge_bytes
    if need > plan.free_bytes:
        room = f"{need / 2**30:.1f} GiB to write, {plan.free_bytes / 2**30:.1f} GiB free"
        raise NoSpaceError(
            f"{store.root}: {room}", hint=plan.mend or "a hard link takes none: put the file on that disk"
        )


def _listed(plan: ImportPlan, id_: str) -> tuple[bool | None, tuple[str, ...]]:
    """Ask the server whether it has the model now."""
    server = plan.place.server
    if server is None:
        return None, ()
    if server.digests().get(plan.name) == id_:
        return True, ()
    message = f"the Ollama at {server.url} does not list {plan.name}"
    if plan.place.by_server:
        raise ToolError(f"{message}, though {plan.place.store.root} is its store; all was undone")
    if plan.place.found_by == "default":
        hint = "set OLLAMA_MODELS to the folder that it keeps its models in"
        raise ToolError(f"{message}: {plan.place.store.root} is not its store; all was undone", hint=hint)
    return False, (f"{message}: it keeps its models in another folder",)


def _already(plan: ImportPlan, stored: StoredModel, sha256: str, progress: Progress) -> ImportReport:
    if plan.method == "move":
        check_moved(plan.source, plan.place.store.blob(sha256), sha256, progress)
        _keep_receipt(plan, sha256, stored.data)
        plan.source.unlink()
    chosen = plan.context_tokens is None
    told = told_already(plan.place.store, stored, plan.recipe.layers, but_memory=chosen)
    doubts = () if told else ("its template or parameters are others; --force writes ours",)
    listed, more = _listed(plan, sha256_of(stored.data))
    return _report(plan, sha256, stored.data, "nothing", "present", 0, listed, (*doubts, *more))


def _keep_receipt(plan: ImportPlan, sha256: str, manifest: bytes) -> None:
    store = plan.place.store
    receipt = Receipt(
        runtime="ollama",
        folder=str(store.root),
        name=plan.name,
        id=sha256_of(manifest),
        moved=plan.method == "move",
        files=(PlacedFile(str(plan.source), str(store.blob(sha256))),),
    )
    keep_receipt(receipt)


def _report(
    plan: ImportPlan,
    sha256: str,
    manifest: bytes,
    action: Action,
    method: Placed,
    extra_bytes: int,
    listed: bool | None,
    warnings: tuple[str, ...],
) -> ImportReport:
    store = plan.place.store
    known = plan.warnings
    if listed:  # then it was the right store
        known = tuple(warning for warning in known if warning not in plan.place.warnings)
    return ImportReport(
        name=plan.name,
        store=store.root,
        for_another=plan.place.for_another,
        manifest=store.manifest(parse_name(plan.name)),
        id=sha256_of(manifest),
        source=plan.source,
        blob=store.blob(sha256),
        sha256=sha256,
        action=action,
        method=method,
        moved=plan.method == "move",
        n_bytes=plan.n_bytes,
        extra_bytes=extra_bytes,
        listed=listed,
        warnings=(*known, *warnings),
    )
