"""Take an import into Ollama back: the name, and blobs nobody else uses. The file stays or comes back."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import AccessError, NotFoundError, UsageError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.copying import link_or_copy_told
from ggufkit.runtimes.ollama import StorePlace
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_store import Store, StoredModel, read_manifest, sha256_of
from ggufkit.transfer.disk import existing_parent
from ggufkit.verbs.receipts import Receipt, find_receipt, forget_receipt, receipts


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What is to be taken back."""

    name: str
    """The model's name, as `ollama list` shows it."""
    store: Path
    """The store's folder."""
    manifest: Path
    """The manifest, which goes."""
    blobs: tuple[Path, ...]
    """The blobs that no other model uses, which go."""
    kept: int
    """How many blobs other models use."""
    give_back: tuple[Path, Path] | None
    """The weights, and the path that gets them back: the file has no other name."""
    receipt: Receipt
    """What the import wrote down."""


def plan_undo(name: str, place: StorePlace) -> UndoPlan:
    """Look at the store; nothing is changed.

    Raises NotFoundError for a name without a model, UsageError for a model that no import of ours made as it
    is, AccessError when this user may not change the store.
    """
    store = place.store
    found = store.spelled(parse_name(name))
    receipt = find_receipt("ollama", store.root, str(found))
    stored = read_manifest(store.manifest(found))
    if stored is None:
        raise NotFoundError(f"{store.root} has no model {found}", hint=_others(store))
    if receipt is None or receipt.id != sha256_of(stored.data):
        what = (
            "was not imported by this user's ggufkit" if receipt is None else "was changed after the import"
        )
        raise UsageError(f"{found} {what}", hint=f"ollama rm {found} takes it out")
    blobs = _only_its(store, stored)
    _check_access(store)
    return UndoPlan(
        name=str(found),
        store=store.root,
        manifest=stored.file,
        blobs=blobs,
        kept=len({b.sha256 for b in (stored.config, *stored.layers)}) - len(blobs),
        give_back=_give_back(receipt, blobs),
        receipt=receipt,
    )


def undo_ollama_import(plan: UndoPlan, progress: Progress = SILENT) -> UndoPlan:
    """Do what the plan says: first the file comes back, then the name goes, then the blobs."""
    if plan.give_back is not None:
        blob, source = plan.give_back
        source.parent.mkdir(parents=True, exist_ok=True)
        source.unlink(missing_ok=True)  # a link to the blob
        link_or_copy_told(blob, source, progress=progress)
    plan.manifest.unlink()
    for blob in plan.blobs:
        blob.unlink(missing_ok=True)
    for folder in (plan.manifest.parent, *plan.manifest.parents[1:3]):
        with contextlib.suppress(OSError):  # other models are in it
            folder.rmdir()
    forget_receipt(plan.receipt)
    return plan


def _only_its(store: Store, stored: StoredModel) -> tuple[Path, ...]:
    """Return the blobs of a model that no other manifest names."""
    others = {
        blob.sha256
        for model in store.models()
        if model.file != stored.file
        for blob in (model.config, *model.layers)
    }
    own = dict.fromkeys(blob.sha256 for blob in (stored.config, *stored.layers))
    return tuple(store.blob(sha256) for sha256 in own if sha256 not in others)


def _give_back(receipt: Receipt, blobs: tuple[Path, ...]) -> tuple[Path, Path] | None:
    """Say whether the file would be gone with the store's name for it, and where it comes back."""
    (file,) = receipt.files
    blob, source = Path(file.target), Path(file.source)
    if blob.is_symlink() or not blob.exists():
        return None
    if source.exists() and not (source.is_symlink() and source.samefile(blob)):
        return None
    return (blob, source) if receipt.moved or blob in blobs else None


def _check_access(store: Store) -> None:
    for folder in (store.blobs, store.manifests):
        if not os.access(existing_parent(folder), os.W_OK | os.X_OK):
            hint = "undo it as the user who imported it"
            raise AccessError(f"{folder}: this user may not write there", hint=hint)


def _others(store: Store) -> str | None:
    names = [receipt.name for receipt in receipts() if receipt.folder == str(store.root)]
    return f"imported there: {', '.join(names)}" if names else None
