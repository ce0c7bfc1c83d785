"""Whether what a hub lists is what a manifest says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.manifest import Manifest, ManifestFile

Status = Literal["same", "unproven", "changed", "gone"]
DIFFERENT: tuple[Status, ...] = ("changed", "gone")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One file of a manifest beside the hub's."""

    path: str
    """Path in the repo."""
    status: Status
    """`unproven`: nothing differs, but one side knows no digest."""
    size_bytes: int | None
    """The size that the hub lists; None when the file is gone."""
    sha256: str | None
    """The digest that the hub lists, bare hex; None when it lists none."""
    expected_sha256: str | None
    """The digest in the manifest."""
    detail: str
    """What differs or is not known, in words; empty for `same`."""

    @property
    def differs(self) -> bool:
        """Whether the hub publishes something else."""
        return self.status in DIFFERENT


def compare(manifest: Manifest, listed: Iterable[RemoteFile]) -> tuple[Agreement, ...]:
    """Return for each file of the manifest how the hub's file of that path agrees with it."""
    by_path = {file.path: file for file in listed}
    return tuple(_compare(file, by_path.get(file.path)) for file in manifest.files)


def held_to(manifest: Manifest, listed: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """Return the manifest's files as the hub lists them, with the manifest's digests where it knows them.

    All must be listed (see `compare`).
    """
    by_path = {file.path: file for file in listed}
    files = [(file, by_path[file.path]) for file in manifest.files]
    return tuple(
        RemoteFile(remote.path, remote.size_bytes, file.sha256 or remote.sha256, remote.revision)
        for file, remote in files
    )


def _compare(file: ManifestFile, remote: RemoteFile | None) -> Agreement:
    status: Status
    if remote is None:
        return Agreement(file.path, "gone", None, None, file.sha256, "is not there any more")
    if not file.size_fits(remote.size_bytes):
        status, detail = "changed", f"has {remote.size_bytes:,} bytes, expected {_size_text(file)}"
    elif file.sha256 is None:
        status, detail = "unproven", "the manifest knows no SHA-256 of it"
    elif remote.sha256 is None:
        status, detail = "unproven", "the hub gives no SHA-256 of it"
    elif remote.sha256 != file.sha256:
        status, detail = "changed", f"SHA-256 is {remote.sha256}, expected {file.sha256}"
    else:
        status, detail = "same", ""
    return Agreement(file.path, status, remote.size_bytes, remote.sha256, file.sha256, detail)


def _size_text(file: ManifestFile) -> str:
    return f"{file.size_bytes:,}" if file.size_bytes is not None else f"about {file.rounded_gb} GB"
