"""Manifests: a frozen set of files with sizes, digests and the hubs that have them, as JSON.

Schema 1. What is not known has no key: nothing in a manifest is guessed. Keys that are not known here
are passed over: later versions only add.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, get_args

from ggufkit.errors import FormatError, IntegrityError, UsageError
from ggufkit.hubs.endpoints import endpoint_of
from ggufkit.hubs.paths import check_remote_path
from ggufkit.hubs.refs import HubName, check_repo_id, check_revision

SCHEMA = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_SIZE_BYTES = 2**63 - 1  # off_t
T = TypeVar("T")

RECORD_FOLDER = ".ggufkit"
"""The hidden folder beside pulled files that holds their manifests."""
MERGED_FOLDER = "merged"
"""The folder in it for manifests of merged files."""


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A repo that has the files."""

    hub: HubName
    """Which protocol its hub speaks."""
    endpoint: str
    """The hub's base URL."""
    repo_id: str
    """`owner/name`."""
    revision: str
    """The revision that was asked for."""
    commit: str | None
    """The commit that the hub answered with; None where it names none."""
    seen_at: str | None = None
    """Where it was seen that the repo has the files: a URL; None is the hub's own listing."""

    @property
    def asks_for(self) -> str:
        """The revision that brings these very files: a commit, where the hub lists by commits."""
        return self.commit if self.commit and self.hub == "huggingface" else self.revision


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of the set."""

    path: str
    """Path in the repo, with '/' between parts."""
    size_bytes: int | None
    """Size of the file; None where it is not known. What a pull or a merge records always is."""
    sha256: str | None
    """SHA-256 as bare lower-case hex; None where nobody told one."""
    local: str | None = None
    """Where it lies, with '/' between parts, below the folder that holds `.ggufkit/`; None is `path`."""
    rounded_gb: float | None = None
    """Size in GB (10^9 bytes) with one decimal, as hubs' pages show it, where no exact one is known."""
    size_from: str | None = None
    """Where the size was read: a URL; None is a listing of a source, or the file itself."""
    sha256_from: str | None = None
    """Where the digest was read: a URL; None is a listing of a source, or the file itself."""

    def size_fits(self, size_bytes: int) -> bool:
        """Say whether a file of `size_bytes` can be this one, as far as its size is known."""
        if self.size_bytes is not None:
            return size_bytes == self.size_bytes
        # a page cuts or rounds: 0.1 GB to either side
        return self.rounded_gb is None or abs(size_bytes / 1e9 - self.rounded_gb) <= 0.1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a set of files should be, and where it can be had."""

    name: str
    """The set's name."""
    quant: str | None
    """The quant that the files are; None when they are something else."""
    files: tuple[ManifestFile, ...]
    """The files in the order of their shards."""
    sources: tuple[ManifestSource, ...]
    """Repos that have all of the files; the first was asked first."""

    @property
    def total_bytes(self) -> int:
        """Size of all files together whose size is known."""
        return sum(file.size_bytes or 0 for file in self.files)


def to_json(manifest: Manifest) -> str:
    """Return the manifest as JSON text, the same text for the same manifest."""
    known = asdict(manifest, dict_factory=lambda pairs: {k: v for k, v in pairs if v is not None})
    return json.dumps({"schema": SCHEMA, **known}, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str, file: str) -> Manifest:
    """Return the manifest in `text`; `file` is its name for messages.

    Raises FormatError when anything in it is not as it should be, unsafe paths included.
    """
    try:
        return _manifest(json.loads(text))
    except RecursionError:
        raise FormatError(file, "is nested too deeply for a manifest") from None
    except (IntegrityError, UsageError) as error:
        raise FormatError(file, error.message) from error
    except (ValueError, OverflowError) as error:  # JSONDecodeError is a ValueError
        raise FormatError(file, f"is no sound manifest: {error}") from error


def _manifest(value: Any) -> Manifest:
    top = _object(value, "the manifest")
    schema = _get(top, "schema", int)
    if schema != SCHEMA:
        raise ValueError(f"schema is {schema}, this ggufkit reads {SCHEMA}")
    files = tuple(_file(entry) for entry in _get(top, "files", list))
    sources = tuple(_source(entry) for entry in _get(top, "sources", list))
    for paths in ([f.path for f in files], [f.local or f.path for f in files]):
        if len({path.casefold() for path in paths}) != len(paths):
            raise ValueError("two files have the same path")
    if not files:
        raise ValueError("it has no files")
    return Manifest(_text(top, "name"), _optional_text(top, "quant"), files, sources)


def _file(value: Any) -> ManifestFile:
    entry = _object(value, "a file")
    path, local = check_remote_path(_text(entry, "path")), _optional_text(entry, "local")
    size_bytes, sha256 = _optional(entry, "size_bytes", int), _optional_text(entry, "sha256")
    if size_bytes is not None and not 0 <= size_bytes <= _MAX_SIZE_BYTES:
        raise ValueError(f"size_bytes of {path} is {size_bytes}")
    rounded_gb = _number(entry, "rounded_gb")
    if rounded_gb is not None and not 0 <= rounded_gb <= _MAX_SIZE_BYTES / 1e9:
        raise ValueError(f"rounded_gb of {path} is {rounded_gb}")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of {path} is not 64 lower-case hex digits")
    return ManifestFile(
        path,
        size_bytes,
        sha256,
        check_remote_path(local) if local is not None else None,
        rounded_gb,
        _optional_text(entry, "size_from"),
        _optional_text(entry, "sha256_from"),
    )


def _source(value: Any) -> ManifestSource:
    entry = _object(value, "a source")
    hub: HubName = _text(entry, "hub")  # type: ignore[assignment]  # checked in the next line
    if hub not in get_args(HubName):
        raise ValueError(f"hub is {hub}, not one of {', '.join(get_args(HubName))}")
    commit = _optional_text(entry, "commit")
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise ValueError("commit is not 40 lower-case hex digits")
    return ManifestSource(
        hub=hub,
        endpoint=endpoint_of(hub, _text(entry, "endpoint")),
        repo_id=check_repo_id(_text(entry, "repo_id")),
        revision=check_revision(_text(entry, "revision")),
        commit=commit,
        seen_at=_optional_text(entry, "seen_at"),
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object")
    return value


def _get(entry: dict[str, Any], key: str, kind: type[T]) -> T:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key} is missing or of the wrong type")
    return value


def _optional(entry: dict[str, Any], key: str, kind: type[T]) -> T | None:
    return None if entry.get(key) is None else _get(entry, key, kind)


def _number(entry: dict[str, Any], key: str) -> float | None:
    """Return a number as a float; JSON's writers may leave out `.0`."""
    return float(_get(entry, key, int)) if isinstance(entry.get(key), int) else _optional(entry, key, float)


def _text(entry: dict[str, Any], key: str) -> str:
    text = _get(entry, key, str)
    if not text or not text.isprintable():
        raise ValueError(f"{key} is empty or has control characters in it")
    return text


def _optional_text(entry: dict[str, Any], key: str) -> str | None:
    return None if entry.get(key) is None else _text(entry, key)
