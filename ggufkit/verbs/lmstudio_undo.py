"""Take an import into LM Studio back: the files that it placed, and the defaults that it wrote."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ggufkit.errors import NotFoundError
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.copying import link_or_copy_told
from ggufkit.runtimes.lmstudio import ModelsPlace, parse_user_repo
from ggufkit.runtimes.lmstudio_defaults import BACKUP
from ggufkit.verbs.receipts import Receipt, find_receipt, forget_receipt, receipts


@dataclass(frozen=True, slots=True)
class PlaceUndo:
    """What is to be taken back."""

    user_repo: str
    """The publisher's and the model's folder."""
    folder: Path
    """That folder."""
    remove: tuple[Path, ...]
    """The files that go."""
    give_back: tuple[tuple[Path, Path], ...]
    """Files that have no other name any more, and the paths that get them back."""
    defaults: Path | None
    """The file of defaults that goes, or becomes what it was before."""
    warnings: tuple[str, ...]
    """What stays, and why."""
    receipt: Receipt
    """What the import wrote down."""


def plan_lmstudio_undo(user_repo: str, place: ModelsPlace) -> PlaceUndo:
    """Look at what an import placed; nothing is changed. Raises NotFoundError when none is known of."""
    chosen = str(parse_user_repo(user_repo))
    receipt = find_receipt("lmstudio", place.folder, chosen)
    if receipt is None:
        known = [r.name for r in receipts() if (r.runtime, r.folder) == ("lmstudio", str(place.folder))]
        hint = f"imported there: {', '.join(known)}" if known else "LM Studio itself removes a model"
        raise NotFoundError(f"this user's ggufkit imported no {chosen} into {place.folder}", hint=hint)
    pairs = [(Path(file.target), Path(file.source)) for file in receipt.files]
    there = [(target, source) for target, source in pairs if os.path.lexists(target)]
    last = [(t, s) for t, s in there if not t.is_symlink() and not _is_apart(s, t)]
    defaults, warnings = _defaults(receipt)
    folder = place.folder / chosen
    remove = tuple(target for target, _ in there)
    return PlaceUndo(chosen, folder, remove, tuple(last), defaults, warnings, receipt)


def undo_lmstudio_import(plan: PlaceUndo, progress: Progress = SILENT) -> PlaceUndo:
    """Do what the plan says: files come back before their last name goes, shard 1 goes first."""
    for target, source in plan.give_back:
        source.parent.mkdir(parents=True, exist_ok=True)
        source.unlink(missing_ok=True)  # a link to the target
        link_or_copy_told(target, source, progress=progress)
    for target in plan.remove:
        target.unlink(missing_ok=True)
    _remove_empty(plan.folder, plan.folder.parent)
    if plan.defaults is not None:
        backup = plan.defaults.with_name(plan.defaults.name + BACKUP)
        backup.replace(plan.defaults) if backup.exists() else plan.defaults.unlink(missing_ok=True)
        _remove_empty(plan.defaults.parent, plan.defaults.parent.parent)
    forget_receipt(plan.receipt)
    return plan


def _is_apart(source: Path, target: Path) -> bool:
    """Say whether the source will be there without the target."""
    return source.exists() and os.path.realpath(source) != os.path.realpath(target)


def _defaults(receipt: Receipt) -> tuple[Path | None, tuple[str, ...]]:
    """Return the defaults to take back, unless they were changed since."""
    for name in receipt.extra:
        path = Path(name)
        if path.exists():
            if hashlib.sha256(path.read_bytes()).hexdigest() == receipt.id:
                return path, ()
            return None, (f"{path} was changed after the import, and stays",)
    return None, ()


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # other files are in it
            folder.rmdir()
