"""Put a model where LM Studio looks: all files of the set into one folder, shard 1 last, no second copy."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import AccessError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.fit.machine import this_machine
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.changes import Changes
from ggufkit.runtimes.intents import sweep
from ggufkit.runtimes.lmstudio import ModelsPlace, UserRepo, infer_user_repo, parse_user_repo
from ggufkit.runtimes.lmstudio_defaults import BACKUP, defaults_file, load_fields, merged, talk_fields
from ggufkit.runtimes.ollama_memory import choose_memory
from ggufkit.runtimes.ollama_templates import chat_format
from ggufkit.transfer.disk import (
    Method,
    existing_parent,
    free_bytes,
    hard_link_refused,
    same_file_system,
    staging_folder,
)
from ggufkit.verbs.locate import LocalModel
from ggufkit.verbs.receipts import PlacedFile as ReceiptFile
from ggufkit.verbs.receipts import Receipt, find_receipt, keep_receipt
from ggufkit.verbs.record import records_in

STAGING = ".ggufkit-import"
_BLOCK_BYTES = 1 << 20

State = Literal["place", "present", "compare"]
"""`present`: it is the very file; `compare`: only its bytes can tell whether it is the same."""


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """One file of the model, and its place."""

    source: Path
    """The file."""
    target: Path
    """Its place in LM Studio's folder."""
    n_bytes: int
    """Its size."""
    state: State
    """What is to be done."""


@dataclass(frozen=True, slots=True)
class PlacePlan:
    """What an import into LM Studio would do."""

    model: LocalModel
    """The model: one file, or all its shards."""
    place: ModelsPlace
    """LM Studio's models folder, and how it was found."""
    user_repo: UserRepo
    """The publisher's and the model's folder."""
    files: tuple[PlacedFile, ...]
    """The files in order; they are placed from the last to the first."""
    method: Method
    """How they get there; `auto` links if it can."""
    copy_bytes: int
    """Bytes that this takes, as far as can be foreseen: 0 with links."""
    free_bytes: int
    """Free room on the disk of the models folder."""
    warnings: tuple[str, ...]
    """What the user should know."""
    defaults: Path | None = None
    """The file that tells LM Studio how to load the model, if it is to be written."""
    defaults_text: str = ""
    """What will be in it."""

    @property
    def folder(self) -> Path:
        """The folder that the files go to."""
        return self.files[0].target.parent


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What an import into LM Studio came to."""

    folder: Path
    """The model's folder."""
    user_repo: UserRepo
    """Its publisher and model."""
    files: tuple[Path, ...]
    """The files there, in order."""
    n_bytes: int
    """Their size."""
    n_placed: int
    """How many were not there before."""
    extra_bytes: int
    """Bytes that the import took on the disk."""
    methods: tuple[Method, ...]
    """How the placed files got there, each way once."""
    warnings: tuple[str, ...]
    """What the user should know."""


def plan_lmstudio_import(
    model: LocalModel, place: ModelsPlace, *, user_repo: str | None = None, method: Method = "auto"
) -> PlacePlan:
    """Check the set and its place; nothing is written. The files may be still to come.

    Raises FormatError for a set that is not whole, UsageError for a bad publisher/model, TargetExistsError
    for another file of the same name, NoSpaceError, AccessError.
    """
    headers = model.headers()
    info = model_info(headers)
    if info.kind != "model":
        raise UsageError(f"{model.files[0]} is no model by itself ({info.kind})")
    chosen = parse_user_repo(user_repo) if user_repo else _inferred(model, info)
    folder = place.folder / chosen.user / chosen.repo
    sized = zip(model.files, headers, strict=True)
    files = tuple(_placed(path.absolute(), header.file_size_bytes, folder) for path, header in sized)
    plan = PlacePlan(
        model=model,
        place=place,
        user_repo=chosen,
        files=files,
        method=method,
        copy_bytes=_bytes_to_copy(files, folder, method),
        free_bytes=free_bytes(folder),
        warnings=(*headers[0].warnings, *place.warnings, *_path_doubt(folder)),
    )
    _check_folder(plan)
    return plan


def with_defaults(plan: PlacePlan, home: Path, context_tokens: int | None = None) -> PlacePlan:
    """Add a file of defaults to the plan: the context that fits, and how the model's family is talked to.

    Raises FormatError for a file that is there and is none of LM Studio's.
    """
    headers = plan.model.headers()
    info = model_info(headers)
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    n_bytes = sum(file.n_bytes for file in plan.files)
    memory = choose_memory(info, tensors, n_bytes, this_machine(), asked_tokens=context_tokens)
    jinja = headers[0].string("tokenizer.chat_template")
    names = (plan.model.name, info.name)
    chat = chat_format(jinja, architecture=info.architecture, names=names, server=None)
    file = defaults_file(home, plan.user_repo, plan.files[0].target.name)
    before = file.read_bytes() if file.exists() else None
    load = load_fields(memory.num_ctx, pages=memory.use_mmap)
    data = merged(before, load, talk_fields(chat.parameters if chat else {}), file)
    return replace(
        plan, defaults=file, defaults_text=data.decode(), warnings=(*plan.warnings, *memory.warnings)
    )


def lmstudio_import(plan: PlacePlan, progress: Progress = SILENT) -> PlaceReport:
    """Do what the plan says; on failure the models folder is left as it was.

    Shard 1 comes last: LM Studio loads a set by it, so a set is seen when it is whole.
    """
    to_place = [file for file in plan.files if not _is_there(file, progress)]
    methods: list[Method] = []
    extra_bytes = 0
    staging = staging_folder(plan.place.folder, STAGING)
    sweep(staging, plan.place.folder, lambda path: path.is_file())  # whole files are gone on with
    with Changes(plan.place.folder, staging) as changes:
        for file in reversed(to_place):
            changes.folder(plan.folder)
            changes.staging(staging)
            used = changes.place(
                file.source, file.target, method=plan.method, staging=staging, progress=progress
            )
            methods.append(used)
            extra_bytes += file.n_bytes if used == "copy" else 0
        if plan.defaults is not None:
            _write_defaults(changes, plan.defaults, plan.defaults_text.encode())
    _keep_receipt(plan, to_place)
    return PlaceReport(
        folder=plan.folder,
        user_repo=plan.user_repo,
        files=tuple(file.target for file in plan.files),
        n_bytes=sum(file.n_bytes for file in plan.files),
        n_placed=len(to_place),
        extra_bytes=extra_bytes,
        methods=tuple(dict.fromkeys(methods)),
        warnings=plan.warnings,
    )


def _write_defaults(changes: Changes, file: Path, data: bytes) -> None:
    """Write the defaults; what was there before is kept beside them, the first time."""
    before = file.read_bytes() if file.exists() else None
    if before == data:
        return
    changes.folder(file.parent)
    backup = file.with_name(file.name + BACKUP)
    if before is not None and not backup.exists():
        changes.write(backup, before, staging=file.parent)
    changes.write(file, data, staging=file.parent)


def _keep_receipt(plan: PlacePlan, placed: Sequence[PlacedFile]) -> None:
    """Write down what was placed, with what earlier imports of the same model placed."""
    known = find_receipt("lmstudio", plan.place.folder, str(plan.user_repo))
    files = {file.target: file for file in known.files} if known else {}
    files |= {str(f.target): ReceiptFile(str(f.source), str(f.target)) for f in placed}
    if not files and plan.defaults is None:
        return
    extra = (str(plan.defaults),) if plan.defaults else known.extra if known else ()
    id_ = (
        hashlib.sha256(plan.defaults_text.encode()).hexdigest()
        if plan.defaults
        else known.id
        if known
        else ""
    )
    ordered = tuple(sorted(files.values(), key=lambda file: file.target))
    keep_receipt(Receipt("lmstudio", str(plan.place.folder), str(plan.user_repo), id_, False, ordered, extra))


def _inferred(model: LocalModel, info: ModelInfo) -> UserRepo:
    """Name the folders by the pull of the model, or of the shards that it was merged from."""
    record = model.record
    pulled = [r for r in records_in(record.root) if r.manifest.name == record.manifest.name] if record else []
    repos = [source.repo_id for r in pulled for source in r.manifest.sources]
    return infer_user_repo(model.name, info, repos[0] if repos else None)


def _placed(source: Path, n_bytes: int, folder: Path) -> PlacedFile:
    """Say what is to be done for one file; raises TargetExistsError for another one of its name."""
    target = folder / source.name
    if not os.path.lexists(target):
        return PlacedFile(source, target, n_bytes, "place")
    if not target.exists():
        raise TargetExistsError(f"{target} is a link to nothing", hint=f"remove it: rm '{target}'")
    if source.exists() and target.samefile(source):
        return PlacedFile(source, target, n_bytes, "present")
    if target.is_file() and target.stat().st_size == n_bytes:
        return PlacedFile(source, target, n_bytes, "compare")
    raise _other_file(target)


def _other_file(target: Path) -> TargetExistsError:
    hint = "--user-repo names another folder; or remove that file"
    return TargetExistsError(f"{target} is there and is another file", hint=hint)


def _is_there(file: PlacedFile, progress: Progress) -> bool:
    """Say whether the file is in its place; raises TargetExistsError for one with other bytes."""
    if file.state != "compare":
        return file.state == "present"
    progress.start(f"comparing {file.target.name}, which is there already", file.n_bytes)
    try:
        if _same_bytes(file.source, file.target, progress):
            return True
    finally:
        progress.finish()
    raise _other_file(file.target)


def _same_bytes(a: Path, b: Path, progress: Progress) -> bool:
    with a.open("rb") as one, b.open("rb") as other:
        while block := one.read(_BLOCK_BYTES):
            if other.read(_BLOCK_BYTES) != block:
                return False
            progress.advance(len(block))
        return not other.read(1)


def _bytes_to_copy(files: tuple[PlacedFile, ...], folder: Path, method: Method) -> int:
    to_place = [file for file in files if file.state == "place"]
    if method == "symbolic-link":
        return 0
    if method in ("auto", "hard-link"):
        refusals = {file.source: _link_refused(file.source, folder) for file in to_place}
        refused = [source for source, reason in refusals.items() if reason]
        if refused and method == "hard-link":
            reason = refusals[refused[0]]
            raise UsageError(f"no hard link from {refused[0]} to {folder}: {reason}", hint="--copy")
        return sum(file.n_bytes for file in to_place if file.source in refused)
    return sum(file.n_bytes for file in to_place)


def _link_refused(source: Path, folder: Path) -> str | None:
    if source.exists():
        return hard_link_refused(source, folder)
    return None if same_file_system(source, folder) else "another file system"


def _path_doubt(folder: Path) -> tuple[str, ...]:
    """Warn where LM Studio on Windows is known to trip (lmstudio-bug-tracker 625)."""
    if sys.platform != "win32" or str(folder).isascii():
        return ()
    return (f"{folder}: pictures may not work in LM Studio below folders with such letters",)


def _check_folder(plan: PlacePlan) -> None:
    if all(file.state == "present" for file in plan.files):
        return
    parent = existing_parent(plan.folder)
    if not parent.is_dir():
        raise TargetExistsError(f"{parent} is no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise AccessError(f"{parent}: this user may not write there")
    if plan.copy_bytes > plan.free_bytes:
        room = f"{plan.copy_bytes / 2**30:.1f} GiB to copy, {plan.free_bytes / 2**30:.1f} GiB free"
        raise NoSpaceError(f"{plan.place.folder}: {room}", hint="--symbolic-link takes none")
