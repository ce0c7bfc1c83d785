"""Where two listings differ in files that both should have."""

from __future__ import annotations

from collections.abc import Sequence

from ggufkit.errors import printable
from ggufkit.hubs.hub import Listing, RemoteFile


def alike(file: RemoteFile, other: RemoteFile | None, lenient: bool = False) -> bool:
    """Say whether `other` is known to be the same bytes as `file`: same size, same SHA-256.

    `lenient` takes it for the same as long as `other`'s digest is not known: the bytes will be proven.
    """
    if other is None or other.size_bytes != file.size_bytes:
        return False
    if lenient and other.sha256 is None:
        return True
    return file.sha256 is not None and file.sha256 == other.sha256


def differences(files: Sequence[RemoteFile], listing: Listing, title: str) -> str | None:
    """Return how `listing`, of the place `title`, differs in `files`; None when it does not."""
    there = {file.path: file for file in listing.files}
    absent = [file for file in files if file.path not in there]
    common = [(file, there[file.path]) for file in files if file.path in there]
    resized = [file for file, other in common if file.size_bytes != other.size_bytes]
    changed = [
        file
        for file, other in common
        if file.size_bytes == other.size_bytes and None not in (file.sha256, other.sha256)
        if file.sha256 != other.sha256
    ]
    if len(absent) == len(files):
        return f"{title} has none of these files"
    faults = [(absent, "lacks"), (resized, "has another size of"), (changed, "has other bytes in")]
    told = [f"{verb} {_names(group)}" for group, verb in faults if group]
    return f"{title} {' and '.join(told)}" if told else None


def _names(files: Sequence[RemoteFile]) -> str:
    more = f" and {len(files) - 1} more" if files[1:] else ""
    return f"{printable(files[0].path)}{more}"
