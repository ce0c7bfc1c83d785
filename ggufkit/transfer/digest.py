"""SHA-256 of files, and a memory of it that a restored name or a new file does not fool."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import write_atomic

_BUFFER_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000  # FAT keeps times to 2 s, the coarsest in use (Microsoft, "File Times")
_MAX_ENTRIES = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells one state of a file from another without reading it."""

    size_bytes: int
    """Length of the file."""
    mtime_ns: int
    """Time of the last change, in nanoseconds since the epoch."""
    inode: int
    """Number of the file on its device; a file written anew has another."""
    device: int
    """Number of the device."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Take the stamp out of what `os.stat` or `os.fstat` answered."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def sha256_file(path: Path, progress: Progress = SILENT) -> str:
    """Hash a whole file; bare lower-case hex.

    Advances `progress` by the bytes read, and leaves start and finish to the caller, who may hash several.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(buffer):
            digest.update(buffer[:n_bytes])
            progress.advance(n_bytes)
    return digest.hexdigest()


class DigestCache:
    """Digests remembered in one JSON file of `folder`, each good only for one state of its file.

    Safe with several threads and processes: the file is replaced whole, and of two writers the last one wins.
    A cache that is missing, broken or not writable costs time, never an error.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "digests.json"
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, object]] = {}
        self._read_at: FileStamp | None = None

    def get(self, path: Path) -> str | None:
        """Give the remembered digest of `path`, or None when the file is new or changed since."""
        with self._lock:
            self._read()
            entry = self._entries.get(_key(path))
        stamp = _stamp(path)
        if entry is None or stamp is None or {**entry, **asdict(stamp)} != entry:
            return None
        return str(entry["sha256"])

    def put(self, path: Path, sha256: str) -> None:
        """Remember a digest that the caller took while writing `path`, and vouches for."""
        if stamp := _stamp(path):
            self._remember(path, stamp, sha256)

    def digest(self, path: Path, progress: Progress = SILENT) -> str:
        """Give the digest of `path`, hashing it only if the remembered one is not of this state of it.

        Advances `progress` by the file's size either way. A file changed in the last 2 s, or while it was
        read, is not remembered: one more change could leave the same stamp.
        """
        if known := self.get(path):
            progress.advance(path.stat().st_size)
            return known
        before, now_ns = _stamp(path), time.time_ns()
        sha256 = sha256_file(path, progress)
        if before is not None and before == _stamp(path) and now_ns - before.mtime_ns > _SETTLED_NS:
            self._remember(path, before, sha256)
        return sha256

    def _remember(self, path: Path, stamp: FileStamp, sha256: str) -> None:
        with self._lock:
            self._read()
            key = _key(path)
            self._entries.pop(key, None)
            self._entries[key] = {**asdict(stamp), "sha256": sha256}
            for oldest in list(self._entries)[:-_MAX_ENTRIES]:
                del self._entries[oldest]
            self._write()

    def _read(self) -> None:
        """Read what is on disk, if another process wrote it since."""
        stamp = _stamp(self.file)
        if stamp is None or stamp == self._read_at:
            return
        self._read_at = stamp
        with contextlib.suppress(OSError, ValueError, RecursionError):
            self._entries.update(_checked(json.loads(self.file.read_bytes())))

    def _write(self) -> None:
        text = json.dumps({"schema": 1, "digests": self._entries}, indent=0)
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.file, text.encode())
            self._read_at = _stamp(self.file)


def _checked(document: object) -> dict[str, dict[str, object]]:
    """Keep the entries of a cache file that have a digest; the stamps are compared when they are used."""
    entries = document.get("digests") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not isinstance(document, dict) or document.get("schema") != 1:
        return {}
    return {
        key: entry
        for key, entry in entries.items()
        if isinstance(entry, dict) and _SHA256.fullmatch(str(entry.get("sha256")))
    }


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _stamp(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path.stat())
    except OSError:
        return None
