"""Writing into Ollama's store, in the order that its start-up clean-up and its listing forgive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.intents import sweep
from ggufkit.runtimes.ollama_names import ModelName
from ggufkit.runtimes.ollama_store import Store, sha256_of
from ggufkit.transfer.disk import Method

Placed = Method | Literal["present"]
"""How the weights got into the store; `present` when they were there."""


def sweep_store(store: Store) -> tuple[Path, ...]:
    """Remove what killed imports left in a store; return what was removed."""
    prefix = "sha256-"

    def used(path: Path) -> bool:
        return path.name.startswith(prefix) and store.uses(path.name.removeprefix(prefix))

    return sweep(store.staging, store.root, used)


class StoreWriter:
    """Writes one model into a store: blobs first, the manifest last."""

    def __init__(self, store: Store, changes: Changes) -> None:
        self.store = store
        self.extra_bytes = 0
        """What the model takes on the store's disk."""
        self._changes = changes
        changes.folder(store.blobs)
        self._staging = changes.staging(store.staging)

    def weights(self, source: Path, sha256: str, *, method: Method, progress: Progress = SILENT) -> Placed:
        """Put the weights under their digest; a blob of another size under that name is broken."""
        size_bytes = source.stat().st_size
        blob = self.store.blob(sha256)
        if self.store.has(sha256, size_bytes):
            return "present"
        blob.unlink(missing_ok=True)
        used = self._changes.place(
            source,
            blob,
            method=method,
            staging=self._staging,
            unless=lambda: self.store.uses(sha256),
            progress=progress,
        )
        self.extra_bytes += size_bytes if used == "copy" else 0
        return used

    def blob(self, data: bytes) -> None:
        """Put a small blob under its digest."""
        sha256 = sha256_of(data)
        path = self.store.blob(sha256)
        if path.exists() and path.read_bytes() == data:
            return
        unless = lambda: self.store.uses(sha256)  # noqa: E731
        self._changes.write(path, data, staging=self._staging, unless=unless)
        self.extra_bytes += len(data)

    def manifest(self, name: ModelName, data: bytes) -> Path:
        """Name the model; from now on it is there."""
        file = self.store.manifest(name)
        self._changes.folder(file.parent)
        staging = self._changes.staging(self.store.manifest_staging)
        self._changes.write(file, data, staging=staging, final=True)
        self.extra_bytes += len(data)
        return file
