"""Finding a manifest: a file, or one of those that come with ggufkit."""

from __future__ import annotations

import difflib
from pathlib import Path

from ggufkit.errors import AccessError, FormatError, NotFoundError, printable
from ggufkit.hubs.manifest import Manifest, from_json

_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIX = ".json"
_MAX_MANIFEST_BYTES = 64 << 20
"""A file larger than this is no manifest: 99,999 shards with every key take 60 MB, R1's 4 take 3 kB."""


def find_manifest(text: str) -> Manifest | None:
    """Return the manifest that `text` names: a file's path, or the name of a shipped one in any case.

    None when it names neither. Raises NotFoundError for the path of a `.json` file that is not there,
    FormatError and AccessError for a file that can't be taken for a manifest.
    """
    path = Path(text).expanduser()
    if _is_file(path):
        return read_manifest(path)
    name = text.removesuffix(_SUFFIX).casefold()
    for shipped in shipped_names():
        if shipped.casefold() == name:
            return read_manifest(shipped_folder() / f"{shipped}{_SUFFIX}")
    if text.lower().endswith(_SUFFIX) and "://" not in text:
        raise NotFoundError(f"{printable(text)}: there is no such file", hint=_shipped_hint(text))
    return None


def need_manifest(text: str) -> Manifest:
    """Return the manifest that `text` names; raises NotFoundError when it names none."""
    manifest = find_manifest(text)
    if manifest is None:
        what = f"'{printable(text)}' is neither a file nor the name of a manifest"
        raise NotFoundError(what, hint=_shipped_hint(text))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file; raises FormatError and AccessError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{printable(str(path))}: {(error.strerror or str(error)).lower()}") from error
    if data[:4] == b"GGUF" or len(data) > _MAX_MANIFEST_BYTES:
        raise FormatError(str(path), "is no manifest", hint="ggufkit manifest make FOLDER makes one of files")
    try:
        return from_json(data.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise FormatError(str(path), "is no manifest: not UTF-8") from error


def shipped_names() -> tuple[str, ...]:
    """Return the names of the manifests that come with ggufkit, sorted."""
    return tuple(
        sorted((p.name[: -len(_SUFFIX)] for p in shipped_folder().glob(f"*{_SUFFIX}")), key=str.casefold)
    )


def shipped_folder() -> Path:
    """Return the folder of the shipped manifests: in the package, or beside it in a source tree."""
    beside = _PACKAGE.parent
    return beside / "manifests" if (beside / "pyproject.toml").is_file() else _PACKAGE / "manifests"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False


def _shipped_hint(text: str) -> str:
    names = shipped_names()
    near = difflib.get_close_matches(text.casefold(), [name.casefold() for name in names], n=1)
    same = [name for name in names if name.casefold() in near]
    return f"did you mean {same[0]}?" if same else f"there are {', '.join(names)}"
