"""Check files against the digests that were recorded or published, and name the cause of a fault."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header
from ggufkit.gguf.shards import parse_shard_name
from ggufkit.hubs.manifest import ManifestFile
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.sources import open_header
from ggufkit.verbs import causes
from ggufkit.verbs.against import expected_files
from ggufkit.verbs.blocks import first_bad_block, keep_blocks, kept_blocks
from ggufkit.verbs.causes import Cause, Place
from ggufkit.verbs.locate import LocalModel, find_model, models_in
from ggufkit.verbs.record import (
    Record,
    digests,
    find_record,
    last_pulled,
    pull_command,
    records_in,
    standing,
)
from ggufkit.verbs.scan import Scan, scan_file

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
    cause: causes.CauseName | None = None
    """The kind of fault; None when there is none."""
    places: tuple[Place, ...] = ()
    """Where the fault is, when it is not all of the file."""


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


def verify(
    argument: str | None = None, progress: Progress = SILENT, *, against: str | None = None
) -> VerifyReport:
    """Read every byte of the model's files and compare with what was recorded, or with `against`.

    `argument` is a file, any shard, a folder, or nothing (the model at hand). `against` is a repo on a hub
    (which is asked) or a manifest, and says what files that nobody recorded should be. Faults are in the
    report, not raised. Raises NotFoundError when there is no such model.
    """
    began = time.monotonic()
    record, model = (expected_files(argument, against, progress), None) if against else _what(argument)
    if record is not None:
        files = _Checker(record, progress, asked=against is not None).check_all()
        name = record.manifest.name
    else:
        assert model is not None
        files = _check_unrecorded(model)
        name = model.name
    source = record.manifest.sources[0] if record is not None and record.manifest.sources else None
    return VerifyReport(
        name=name,
        repo_id=source.repo_id if source else None,
        quant=record.manifest.quant if record is not None else None,
        recorded=record is not None,
        remedy=pull_command(record) if record is not None else _rename_command(files),
        files=files,
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
        return standing(pulled[0]) if len(pulled) == 1 else None
    return None if path.exists() else find_record(path)


class _Checker:
    """Checks the files of one record: reads each once, and compares those that are wrong with the rest."""

    def __init__(self, record: Record, progress: Progress, *, asked: bool) -> None:
        self.record = record
        self.progress = progress
        self.asked = asked
        self.scans: dict[Path, Scan] = {}
        self.right: list[Header] = []

    def check_all(self) -> tuple[FileCheck, ...]:
        """Return one check per file, in order."""
        files = [(self.record.path_of(f), f) for f in self.record.manifest.files]
        with _told(self.progress, f"verifying {self.record.manifest.name}", files):
            good = [self._is_right(path, file) for path, file in files]
        return tuple(self._check(path, file, ok) for (path, file), ok in zip(files, good, strict=True))

    def _is_right(self, path: Path, file: ManifestFile) -> bool:
        """Say whether the file is not known to be wrong; reads it when its size does not tell."""
        if not path.is_file() or not file.size_fits(path.stat().st_size):
            return False
        scan = self.scans[path] = scan_file(path, self.progress)
        right = file.sha256 in (None, scan.sha256)
        header = causes.read_header(path) if right else None
        if header is not None:
            self.right.append(header)
        return right

    def _check(self, path: Path, file: ManifestFile, right: bool) -> FileCheck:
        scan, size = self.scans.get(path), path.stat().st_size if path.is_file() else None
        if right and scan is not None:
            if file.sha256 is not None:
                digests().put(path, scan.sha256)
                keep_blocks(self.record.root, scan.sha256, scan.marks)
                return FileCheck(path, "ok", size, scan.sha256, file.sha256, "")
            wrong = causes.by_content(path, file.size_bytes) or causes.by_bytes(path, (), None)
            if wrong is None:
                return FileCheck(
                    path, "unproven", size, scan.sha256, None, "the hub publishes no digest of it"
                )
            return FileCheck(path, "format", size, scan.sha256, None, wrong.detail, wrong.name, wrong.places)
        cause = self._cause(path, file, size, scan)
        status: Status = "missing" if size is None else "digest" if scan else "size"
        digest = scan.sha256 if scan else None
        return FileCheck(path, status, size, digest, file.sha256, cause.detail, cause.name, cause.places)

    def _cause(self, path: Path, file: ManifestFile, size: int | None, scan: Scan | None) -> Cause:
        if size is None:
            return Cause("missing", "is not there")
        cause = causes.by_content(path, file.size_bytes) or self._changed(path, file)
        if cause is None and scan is not None:
            names = {f.sha256: f.path for f in self.record.manifest.files if f.sha256 is not None}
            cause = causes.by_digest(path, scan.sha256, names)
        cause = cause or causes.by_header(path, file.size_bytes, self.right)
        if cause is not None:
            return cause
        if scan is None:
            return causes.of_length(size, file.size_bytes or 0)
        detail = f"SHA-256 is {scan.sha256}, expected {file.sha256}"
        noted = kept_blocks(self.record.root, file.sha256 or "")
        return causes.by_bytes(path, scan.zeros, first_bad_block(scan, noted)) or Cause("digest", detail)

    def _changed(self, path: Path, file: ManifestFile) -> Cause | None:
        """Tell that the file is what was pulled, and it is the hub that has another one now."""
        record = find_record(path) if self.asked else None
        if record is None:
            return None
        pulled, size = record.digest_of(path), path.stat().st_size
        scan = self.scans.get(path) or scan_file(path, self.progress)
        if pulled is None or pulled != scan.sha256:
            return None
        wanted = f"SHA-256 {file.sha256}" if size == file.size_bytes else f"{file.size_bytes or 0:,} bytes"
        return Cause("changed", f"is what was pulled, but another file is published now: {wanted}")


@contextmanager
def _told(progress: Progress, task: str, files: Sequence[tuple[Path, ManifestFile]]) -> Iterator[None]:
    sizes = [(path.stat().st_size, f) for path, f in files if path.is_file()]
    progress.start(task, sum(size for size, file in sizes if file.size_fits(size)))
    try:
        yield
    finally:
        progress.finish()


def _check_unrecorded(model: LocalModel) -> tuple[FileCheck, ...]:
    """Check what can be checked without a record: that the files are a sound set."""
    checks = [_check_alone(path) for path in model.files]
    checks += [
        FileCheck(model.folder / name, "missing", None, None, None, "is not there", "missing")
        for name in model.missing
    ]
    if all(c.status == "unproven" for c in checks):
        model.headers()
    return tuple(checks)


def _check_alone(path: Path) -> FileCheck:
    size = path.stat().st_size
    cause = _unsound(path, None)
    if cause is None:
        return FileCheck(path, "unproven", size, None, None, "no digest is recorded for it")
    return FileCheck(path, "format", size, None, None, cause.detail, cause.name, cause.places)


def _unsound(path: Path, expected_bytes: int | None) -> Cause | None:
    """Tell what is wrong with a file that nobody published a digest of, as far as it alone tells."""
    cause = causes.by_content(path, expected_bytes)
    if cause is not None or not path.name.lower().endswith(".gguf"):
        return cause
    try:
        header = open_header(path)
    except FormatError as error:
        return Cause("format", error.reason)
    return causes.by_header(path, expected_bytes, ()) or causes.holes_of(path, header)


def _rename_command(files: Sequence[FileCheck]) -> str | None:
    """Return the command that gives a shard back its name, when that is all that is wrong."""
    wrong = [check for check in files if check.cause not in (None, "missing")]
    if len(wrong) != 1 or wrong[0].cause != "renamed":
        return None
    path = wrong[0].path
    name, header = parse_shard_name(path.name), causes.read_header(path)
    if name is None or header is None:
        return None
    right = path.with_name(replace(name, number=(header.integer("split.no") or 0) + 1).file_name())
    return None if right.exists() else shlex.join(["mv", "-n", str(path), str(right)])
