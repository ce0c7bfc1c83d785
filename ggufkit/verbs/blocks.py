"""Which block of a proven file went bad, told without its publisher, who tells one digest per file.

While a file is hashed it is noted what the digest is after each 16 MiB. The next time the first note that
does not come out again tells the block. The notes of a file are `.ggufkit/blocks/<digest>.json`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from ggufkit.hubs.manifest import RECORD_FOLDER
from ggufkit.transfer.disk import write_atomic
from ggufkit.transfer.journal import Range
from ggufkit.transfer.marks import MARK_BYTES
from ggufkit.verbs.scan import Scan

BLOCKS_FOLDER = "blocks"
"""The folder in `.ggufkit` for what is noted of files, by their digests."""
SCHEMA = 1


def keep_blocks(root: Path, sha256: str, marks: Mapping[int, str]) -> None:
    """Note what the digest of a proven file was on the way, by the number of bytes before it.

    A file of one block needs no notes. A folder that can't be written costs only the comfort.
    """
    file = _file(root, sha256)
    if len(marks) < 2 or file.exists():
        return
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        notes = {"schema": SCHEMA, "sha256": sha256, "marks": {str(n): d for n, d in marks.items()}}
        write_atomic(file, json.dumps(notes).encode())


def kept_blocks(root: Path, sha256: str) -> dict[int, str]:
    """Return what is noted of the file with this digest; nothing when that can't be read."""
    try:
        notes = json.loads(_file(root, sha256).read_bytes())
        if notes["schema"] != SCHEMA or notes["sha256"] != sha256:
            return {}
        return {int(n): str(digest) for n, digest in notes["marks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def first_bad_block(scan: Scan, noted: Mapping[int, str]) -> Range | None:
    """Return the first block that is not what it was; None when nothing tells."""
    at = 0
    for n_bytes in sorted(noted):
        if n_bytes not in scan.marks:
            continue
        if not scan.marks[n_bytes].startswith(noted[n_bytes]):
            return at, min(at + max(n_bytes - at, MARK_BYTES), scan.n_bytes)
        at = n_bytes
    return None


def _file(root: Path, sha256: str) -> Path:
    return root / RECORD_FOLDER / BLOCKS_FOLDER / f"{sha256[:32]}.json"
