"""An `ollama-import --move` that is typed again: the file is gone, and in the store as it was moved there."""

from __future__ import annotations

import os
from pathlib import Path

from ggufkit.runtimes.ollama import StorePlace
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_store import read_manifest, sha256_of
from ggufkit.verbs.ollama_import import ImportReport
from ggufkit.verbs.receipts import Receipt, receipts


def moves_of(argument: str) -> list[Receipt]:
    """Return the receipts of what was moved from the file that `argument` names; none while it is there."""
    path = Path(argument).expanduser().absolute()
    if os.path.lexists(path):
        return []
    return [one for one in receipts() if one.runtime == "ollama" and one.moved and _source(one) == path]


def find_moved(argument: str, place: StorePlace, name: str | None = None) -> ImportReport | None:
    """Return what the move of a file that is gone came to, if its model is in the store as it was made.

    Raises UsageError for a bad name.
    """
    wanted = None if name is None else str(place.store.spelled(parse_name(name)))
    for receipt in moves_of(argument):
        if receipt.folder == str(place.store.root) and wanted in (None, receipt.name):
            report = _report(receipt, place)
            if report is not None:
                return report
    return None


def _source(receipt: Receipt) -> Path | None:
    return Path(receipt.files[0].source) if len(receipt.files) == 1 else None


def _report(receipt: Receipt, place: StorePlace) -> ImportReport | None:
    store, server = place.store, place.server
    manifest = store.manifest(parse_name(receipt.name))
    stored = read_manifest(manifest)
    weights = stored.model if stored is not None else None
    if stored is None or weights is None or sha256_of(stored.data) != receipt.id:
        return None
    if not store.has(weights.sha256, weights.size_bytes):
        return None
    return ImportReport(
        name=receipt.name,
        store=store.root,
        for_another=place.for_another,
        manifest=manifest,
        id=receipt.id,
        source=Path(receipt.files[0].source),
        blob=store.blob(weights.sha256),
        sha256=weights.sha256,
        action="nothing",
        method="present",
        moved=True,
        n_bytes=weights.size_bytes,
        extra_bytes=0,
        listed=None if server is None else server.digests().get(receipt.name) == receipt.id,
        warnings=(),
    )
