"""Block digests for nothing: what the hash of a proof was after each stretch of it.

A proof reads all its bytes in order anyway, and SHA-256 tells what it has come to at any point. So a
mark every MARK_BYTES costs no second hash, and tells later, when the bytes are read again, which is
the first block that is not what it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ggufkit.transfer.prover import Proof

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK_BYTES = 16 << 20
"""What is fetched again for one bad byte; a mark takes about 100 bytes on the disk: 6 MB for 1 TB."""
_MARK_DIGITS = 32  # half a SHA-256: it finds blocks, it proves nothing


class Marks:
    """The marks of one target's proofs, kept beside its journal; of two for one place the first stays.

    A file of them that is missing, torn or of another content is no marks; that they can't be written
    is no error. Thread-safe.
    """

    def __init__(self, path: Path, identity: str) -> None:
        """Read the marks at `path`; `identity` names the content that they must be of."""
        self._path = path
        self._identity = identity
        self._lock = threading.Lock()
        self._known: dict[str, dict[int, str]] = {}
        self._changed: set[str] = set()
        self._is_ours = False
        for n_bytes, digits, name in self._load():
            self._take(n_bytes, digits, name)

    def of(self, name: str) -> dict[int, str]:
        """Return the marks of one proof: digits of the digest by the number of bytes before it."""
        with self._lock:
            return dict(self._known.get(name, {}))

    def add(self, name: str, n_bytes: int, digest: str) -> None:
        """Note what the proof's hash is after its first `n_bytes`."""
        digits = digits_of(digest)
        with self._lock:
            known = self._known.get(name, {}).get(n_bytes)
            if known is not None and known != digits:
                self._changed.add(name)  # what comes behind a changed block would hide the next one
            elif known is None and name not in self._changed:
                self._take(n_bytes, digits, name)
                self._append([n_bytes, digits, name])

    def forget(self, name: str) -> None:
        """Drop a proof's marks: what they are of was replaced."""
        with self._lock:
            self._changed.discard(name)
            if self._known.pop(name, None):
                self._append([0, "", name])

    def hasher(self, proof: Proof) -> MarkingHash:
        """Return a SHA-256 for `proof` that leaves marks here."""
        return MarkingHash(self, proof.name)

    def _take(self, n_bytes: int, digits: str, name: str) -> None:
        if n_bytes:
            self._known.setdefault(name, {})[n_bytes] = digits
        else:
            self._known.pop(name, None)

    def _append(self, line: list[object]) -> None:
        text = json.dumps(line) + "\n"
        if not self._is_ours:
            text = json.dumps([self._identity]) + "\n" + text
        with contextlib.suppress(OSError):
            with self._path.open("a" if self._is_ours else "w", encoding="ascii") as file:
                file.write(text)
            self._is_ours = True

    def _load(self) -> Iterator[tuple[int, str, str]]:
        try:
            lines = self._path.read_text("ascii", errors="replace").splitlines()
        except OSError:
            return
        self._is_ours = lines[:1] == [json.dumps([self._identity])]
        for line in lines[1:] if self._is_ours else []:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                n_bytes, digits, name = json.loads(line)
                if type(n_bytes) is int and isinstance(digits, str) and isinstance(name, str):
                    yield n_bytes, digits, name


class MarkingHash:
    """A SHA-256 that leaves a mark every MARK_BYTES, and one at the end."""

    def __init__(self, marks: Marks, name: str) -> None:
        self._marks = marks
        self._name = name
        self._sha256 = hashlib.sha256()
        self._n_bytes = 0
        self._next_mark = MARK_BYTES

    def update(self, data: bytes | memoryview) -> None:
        """Hash `data` too."""
        view = memoryview(data)
        while view:
            part = view[: self._next_mark - self._n_bytes]
            self._sha256.update(part)
            self._n_bytes += len(part)
            view = view[len(part) :]
            if self._n_bytes == self._next_mark:
                self._marks.add(self._name, self._n_bytes, self._sha256.hexdigest())
                self._next_mark += MARK_BYTES

    def hexdigest(self) -> str:
        """Return the digest of all that was hashed."""
        digest = self._sha256.hexdigest()
        self._marks.add(self._name, self._n_bytes, digest)
        return digest


def digits_of(digest: str) -> str:
    """Return as much of a digest as a mark keeps."""
    return digest[:_MARK_DIGITS]
