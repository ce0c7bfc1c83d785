"""Check files against the digests that were recorded when they were pulled; offline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufkit.errors import FormatError
from ggufkit.hubs.manifest import ManifestFile
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.digest import sha256_file
from ggufkit.transfer.sources import open_header
from ggufkit.verbs.locate import LocalModel, find_model, models_in
from ggufkit.verbs.record import Record, digests, find_record, last_pulled, pull_command, records_in

Status = Literal["ok", "unproven", "missing", "size", "digest", "format"]
GOOD: tuple[Status, ...] = ("ok", "unproven")


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What checking one file found."""

    path: Path
    """The file."""
    status: Status
    """`ok`; `unproven`: sound, but nobody published a digest; else what is wrong."""
    size_bytes: int | None
    """Its size; None when it is missing."""
    sha256: str | None
    """The digest that it has, bare hex; None when it was not read to the end."""
    expected_sha256: str | None
    """The digest that it should have."""
    detail: str
    """What is wrong, in words; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What checking a model found."""

    name: str
    """The set's name."""
    repo_id: str | None
    """Where it was pulled from; None without a record."""
    quant: str | None
    """The quant that was pulled."""
    recorded: bool
    """Whether a pull or a merge recorded what the files should be."""
    remedy: str | None
    """The command that fetches what is wrong; None where no hub is known to have it."""
    files: tuple[FileCheck, ...]
    """One check per file."""
    seconds: float
    """How long it took."""

    @property
    def faults(self) -> tuple[FileCheck, ...]:
        """The files that are not what they should be."""
        return tuple(f for f in self.files if f.status not in GOOD)

    @property
    def unproven(self) -> tuple[FileCheck, ...]:
        """The files that nobody published a digest of."""
        return tuple(f for f in self.files if f.status == "unproven")


def verify(argument: str | None = None, progress: Progress = SILENT) -> VerifyReport:
    """Read every byte of the model's files and compare with what was recorded.

    `argument` is a file, any shard, a folder, or nothing (the model at hand). Faults are in the report,
    not raised. Raises NotFoundError when there is no such model.
    """
    began = time.monotonic()
    record, model = _what(argument)
    if record is not None:
        checks = _check_record(record, progress)
        name = record.manifest.name
    else:
        assert model is not None
        checks = _check_unrecorded(model, progress)
        name = model.name
    source = record.manifest.sources[0] if record is not None and record.manifest.sources else None
    return VerifyReport(
        name=name,
        repo_id=source.repo_id if source else None,
        quant=record.manifest.quant if record is not None else None,
        recorded=record is not None,
        remedy=pull_command(record) if record is not None else None,
        files=checks,
        seconds=time.monotonic() - began,
    )


def _what(argument: str | None) -> tuple[Record | None, LocalModel | None]:
    """Return the record that the argument means, or the model when nothing was recorded of it."""
    record = _recorded(argument)
    if record is not None:
        return record, None
    model = find_model(argument, shards=True)
    return find_record(model.files[0]), model


def _recorded(argument: str | None) -> Record | None:
    """Return the record of a missing file, or of a folder whose files may all be gone."""
    if argument is None:
        return last_pulled() if not models_in(Path(), shards=True) else None
    path = Path(argument).expanduser()
    if path.is_dir():
        pulled = [r for r in records_in(path) if r.manifest.sources]
        return pulled[0] if len(pulled) == 1 else None
    return None if path.exists() else find_record(path)


def _check_record(record: Record, progress: Progress) -> tuple[FileCheck, ...]:
    total = record.manifest.total_bytes
    progress.start(f"verifying {record.manifest.name}", total)
    try:
        return tuple(_check(record.path_of(f), f, progress) for f in record.manifest.files)
    finally:
        progress.finish()


def _check(path: Path, file: ManifestFile, progress: Progress) -> FileCheck:
    if not path.is_file():
        return FileCheck(path, "missing", None, None, file.sha256, "is not there")
    size = path.stat().st_size
    if file.size_bytes is not None and size != file.size_bytes:
        detail = f"has {size:,} of {file.size_bytes:,} bytes"
        return FileCheck(path, "size", size, None, file.sha256, detail)
    digest = sha256_file(path, progress)
    if file.sha256 is None:
        return FileCheck(path, "unproven", size, digest, None, "the hub publishes no digest of it")
    if digest != file.sha256:
        detail = f"SHA-256 is {digest}, expected {file.sha256}"
        return FileCheck(path, "digest", size, digest, file.sha256, detail)
    digests().put(path, digest)
    return FileCheck(path, "ok", size, digest, file.sha256, "")


def _check_unrecorded(model: LocalModel, progress: Progress) -> tuple[FileCheck, ...]:
    """Check what can be checked without a record: that the files are a sound set."""
    checks = []
    for path in model.files:
        try:
            open_header(path)
        except FormatError as error:
            checks.append(FileCheck(path, "format", path.stat().st_size, None, None, error.reason))
            continue
        detail = "no digest is recorded for it"
        checks.append(FileCheck(path, "unproven", path.stat().st_size, None, None, detail))
    checks += [
        FileCheck(model.folder / name, "missing", None, None, None, "is not there") for name in model.missing
    ]
    if not any(c.status == "format" for c in checks) and not model.missing:
        model.headers()
    return tuple(checks)
