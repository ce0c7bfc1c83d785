"""What an import did, kept in the user's state folder, so that it can be taken back as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ggufkit.folders import state_folder
from ggufkit.transfer.disk import write_atomic

SCHEMA = 1

Runtime = Literal["ollama", "lmstudio"]


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file that an import placed."""

    source: str
    """Where its bytes came from: an absolute path."""
    target: str
    """Where it is now: an absolute path."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One import."""

    runtime: Runtime
    """Whose folder it went to."""
    folder: str
    """That folder: an absolute path."""
    name: str
    """What the model is called there."""
    id: str
    """What tells whether it is still what was imported: the manifest's SHA-256 for Ollama, else empty."""
    moved: bool
    """Whether the first names were given up."""
    files: tuple[PlacedFile, ...]
    """The files."""
    extra: tuple[str, ...] = ()
    """Small files that were written beside them: absolute paths."""

    @property
    def path(self) -> Path:
        """Where it is kept."""
        key = hashlib.sha256(f"{self.runtime}\n{self.folder}\n{self.name}".encode()).hexdigest()
        return _folder() / f"{key[:32]}.json"


def keep_receipt(receipt: Receipt) -> None:
    """Write a receipt, in place of an earlier one of the same name."""
    receipt.path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": SCHEMA, **asdict(receipt)}, ensure_ascii=False, indent=1)
    write_atomic(receipt.path, text.encode())


def find_receipt(runtime: Runtime, folder: Path, name: str) -> Receipt | None:
    """Return the receipt of an import, if there is one."""
    return _read(Receipt(runtime, str(folder), name, "", False, ()).path)


def receipts() -> Iterator[Receipt]:
    """Yield all receipts."""
    for path in sorted(_folder().glob("*.json")):
        receipt = _read(path)
        if receipt is not None:
            yield receipt


def forget_receipt(receipt: Receipt) -> None:
    """Remove a receipt."""
    receipt.path.unlink(missing_ok=True)


def _folder() -> Path:
    return state_folder() / "imports"


def _read(path: Path) -> Receipt | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        return _parsed(json.loads(path.read_text("utf-8")))
    return None


def _parsed(document: dict[str, Any]) -> Receipt:
    if document["schema"] != SCHEMA:
        raise ValueError("of another version")
    return Receipt(
        runtime=document["runtime"],
        folder=str(document["folder"]),
        name=str(document["name"]),
        id=str(document["id"]),
        moved=bool(document["moved"]),
        files=tuple(PlacedFile(str(f["source"]), str(f["target"])) for f in document["files"]),
        extra=tuple(map(str, document["extra"])),
    )
