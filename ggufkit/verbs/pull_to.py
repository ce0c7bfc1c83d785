"""Get a quant to where runtimes read it, with its bytes on the disk once.

The files are pulled (a split quant as one file, where the runtime wants one) and linked into the runtime's
folders. Where those are on another disk the files grow there, beside the runtime's own folder, and what is
left below the pulled folder is a symbolic link.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import NoSpaceError, TargetExistsError, UsageError
from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import whole_file
from ggufkit.gguf.model import model_info
from ggufkit.gguf.shards import check_set
from ggufkit.hubs.compare import alike
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.hfcache import (
    MAIN,
    CachedFile,
    CachePlace,
    CacheReport,
    check_cache,
    find_cache,
    put_in_cache,
)
from ggufkit.runtimes.lmstudio import find_models, infer_user_repo, parse_user_repo
from ggufkit.runtimes.ollama import StorePlace, find_store
from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ways import check_moved
from ggufkit.transfer.disk import free_bytes, same_file_system, staging_folder
from ggufkit.transfer.engine import Job, resumable_bytes
from ggufkit.transfer.http import Http
from ggufkit.transfer.sources import Source, open_header
from ggufkit.verbs.links import hand_over, point_to, remove_empty, settle
from ggufkit.verbs.lmstudio_import import PlacePlan, PlaceReport, lmstudio_import, plan_lmstudio_import
from ggufkit.verbs.locate import LocalModel, find_model
from ggufkit.verbs.ollama_import import ImportPlan, ImportReport, ollama_import, plan_ollama_import
from ggufkit.verbs.pull import PulledFile, PullPlan, PullReport, pull
from ggufkit.verbs.pull_merged import MergedPlan, MergedReport, is_split, plan_pull_merged, pull_merged
from ggufkit.verbs.record import digests, journal_path

Runtime = Literal["ollama", "lmstudio", "hf-cache"]
RUNTIMES: tuple[Runtime, ...] = ("ollama", "lmstudio", "hf-cache")

GROWING = ".ggufkit-pull"
"""Folder beside a runtime's own, which neither its listing nor its clean-up looks into."""


@dataclass(frozen=True, slots=True)
class ToPlan:
    """What a pull to runtimes would do."""

    pull: PullPlan
    """The files of the hub."""
    merged: MergedPlan | None
    """The one file that they make; None when they stay as published."""
    grow_in: Path | None
    """The folder on the runtime's disk where the files grow; None when they grow where they are pulled to."""
    ollama: ImportPlan | None
    """What Ollama gets."""
    lmstudio: PlacePlan | None
    """What LM Studio gets."""
    hf_cache: CachePlace | None
    """The Hugging Face cache that gets the files."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""
        plans = (self.ollama, self.lmstudio)
        return tuple(dict.fromkeys(w for plan in plans if plan is not None for w in plan.warnings))


@dataclass(frozen=True, slots=True)
class ToReport:
    """What a pull to runtimes came to."""

    pulled: PullReport | MergedReport
    """What was fetched."""
    files: tuple[Path, ...]
    """The files by their names below the pulled folder: links, where they are on another disk."""
    ollama: ImportReport | None
    """What Ollama got."""
    lmstudio: PlaceReport | None
    """What LM Studio got."""
    hf_cache: CacheReport | None
    """What the Hugging Face cache got."""


@dataclass(frozen=True, slots=True)
class _Coming(LocalModel):
    """A model whose files are still to come, and whose headers are known."""

    coming: tuple[Header, ...] = field(default=(), repr=False)
    """The files' headers."""

    def headers(self) -> tuple[Header, ...]:
        """Return the headers that the files will have."""
        return self.coming


def plan_pull_to(
    pull: PullPlan,
    to: Sequence[Runtime],
    *,
    environ: Mapping[str, str],
    merge: bool = False,
    name: str | None = None,
    user_repo: str | None = None,
    progress: Progress = SILENT,
) -> ToPlan:
    """Check, before the first byte of data, that the runtimes can have what is to be pulled.

    `name` is the model's in Ollama, `user_repo` its folders in LM Studio. Ollama's model is one file, so a
    split quant is merged for it. Raises what planning the pull and the imports raises, UsageError for
    wishes that contradict each other.
    """
    merge = is_split(pull) and (merge or "ollama" in to)
    check_names(to, name, user_repo)
    _check_wishes(pull, to, merge)
    store = find_store(environ=environ) if "ollama" in to else None
    models = find_models(environ=environ) if "lmstudio" in to else None
    cache = find_cache(environ) if "hf-cache" in to else None
    homes = [(store.store.blobs, "OLLAMA_MODELS")] if store else []
    homes += [(models.folder, "LM Studio's settings")] if models is not None else []
    homes += [(cache.folder, "HF_HUB_CACHE")] if cache is not None else []
    grow_in = _growing_folder(pull, [folder for folder, _ in homes])
    named_by = homes[0][1] if grow_in is not None else "--local-dir"
    merged = None
    if merge:
        merged = plan_pull_merged(pull, grow_in=grow_in, disk_named_by=named_by, progress=progress)
    if merged is None:
        pull = _redirected(pull, grow_in)
    model = _coming(pull, merged, progress)
    if cache is not None:
        check_cache(cache)
    return ToPlan(
        pull=pull,
        merged=merged,
        grow_in=grow_in,
        ollama=_plan_ollama(model, store, name) if store else None,
        lmstudio=plan_lmstudio_import(model, models, user_repo=user_repo or _user_repo(pull, model))
        if models
        else None,
        hf_cache=cache,
    )


def pull_to(plan: ToPlan, progress: Progress = SILENT) -> ToReport:
    """Pull, then give the runtimes what they are to have; done again it does what is still missing.

    Raises what the pull and the imports raise; what was pulled stays when an import fails.
    """
    pulled: PullReport | MergedReport
    if plan.merged is not None:
        pulled = pull_merged(plan.merged, progress)
        named = [(plan.merged.place, plan.merged.output)]
    else:
        pulled = pull(plan.pull, progress)
        named = [(plan.pull.root / f.path, f.target) for f in plan.pull.files]
    for name, file in named:
        if name != file:
            point_to(name, file)
    model = find_model(str(named[0][0]), shards=True)
    ollama = _to_ollama(plan.ollama, model, progress)
    lmstudio = _to_lmstudio(plan.lmstudio, model, progress)
    cached = _to_cache(plan, progress)
    if plan.grow_in is not None:
        for (name, _), home in zip(named, _homes(ollama, lmstudio, cached), strict=True):
            _settle(name, plan.grow_in, home)
        remove_empty(plan.grow_in, plan.grow_in.parent)
    return ToReport(pulled, tuple(name for name, _ in named), ollama, lmstudio, cached)


def check_names(to: Sequence[str], name: str | None, user_repo: str | None) -> None:
    """Raise UsageError for names that nobody gets, or that are none; needs no network."""
    if name is not None and "ollama" not in to:
        raise UsageError("--name is the model's name in Ollama", hint="add --to ollama")
    if user_repo is not None and "lmstudio" not in to:
        raise UsageError("--user-repo names folders of LM Studio", hint="add --to lmstudio")
    if name is not None:
        parse_name(name)
    if user_repo is not None:
        parse_user_repo(user_repo)


def _check_wishes(pull: PullPlan, to: Sequence[Runtime], merge: bool) -> None:
    if merge and "hf-cache" in to:
        message = "the Hugging Face cache has files as they are published, so the shards can't be merged"
        raise UsageError(message, hint="pull --to hf-cache by itself, without --merge and --to ollama")
    if pull.quant.kind == "raw" and not merge and "lmstudio" in to:
        raise UsageError("raw parts are no model before they are joined", hint="add --merge")


def _growing_folder(pull: PullPlan, homes: Sequence[Path]) -> Path | None:
    """Return where the files grow when no runtime's folder is on the disk that they are pulled to."""
    held = any(f.target.is_file() and not f.target.is_symlink() for f in pull.files)
    if held or any(same_file_system(pull.root, home) for home in homes):
        return None
    return staging_folder(homes[0], GROWING) / pull.root.absolute().name


def _redirected(pull: PullPlan, grow_in: Path | None) -> PullPlan:
    """Let the files that are not there grow in another folder."""
    if grow_in is None:
        return pull
    files = zip(pull.files, pull.quant.files, strict=True)
    with Http() as http:
        moved = tuple(
            file
            if file.state == "kept"
            else _moved(pull, file, grow_in / file.path, pull.repo.source(listed, http))
            for file, listed in files
        )
    return replace(pull, files=moved, free_bytes=free_bytes(grow_in))


def _moved(pull: PullPlan, file: PulledFile, target: Path, source: Source) -> PulledFile:
    """Look at what an earlier run left of a file in the folder where it grows."""
    if file.adopted is not None:
        return replace(file, target=target)
    if target.is_file() and digests().get(target) == file.sha256 is not None:
        return replace(file, target=target, state="kept", resumed_bytes=0)
    job = Job(target, whole_file(file.size_bytes), (source,), journal_path(pull.root, target))
    resumed = resumable_bytes(job)
    return replace(file, target=target, state="resume" if resumed else "download", resumed_bytes=resumed)


def _coming(pull: PullPlan, merged: MergedPlan | None, progress: Progress) -> LocalModel:
    """Return the model as it will be, its headers read by range."""
    if merged is not None:
        return _Coming(merged.place.stem, (merged.output,), coming=(merged.header,))
    with Http() as http:
        headers = tuple(
            open_header(pulled.here)
            if pulled.here is not None
            else pull.repo.source(file, http, progress).header()
            for pulled, file in zip(pull.files, pull.quant.files, strict=True)
        )
    if len(headers) > 1:
        headers = check_set(headers).headers
    return _Coming(pull.quant.stem, tuple(f.target for f in pull.files), coming=headers)


def _plan_ollama(model: LocalModel, place: StorePlace, name: str | None) -> ImportPlan:
    try:
        return plan_ollama_import(model, place, name=name)
    except TargetExistsError as error:
        hint = "--name gives this one another name; ollama rm takes the other one out"
        raise TargetExistsError(error.message, hint=hint) from error


def _user_repo(pull: PullPlan, model: LocalModel) -> str:
    info = model_info(model.headers())
    return str(infer_user_repo(model.name, info, pull.repo.ref.repo_id))


def _to_ollama(plan: ImportPlan | None, model: LocalModel, progress: Progress) -> ImportReport | None:
    if plan is None:
        return None
    file = model.files[0]
    try:
        return ollama_import(plan_ollama_import(find_model(str(file)), plan.place, name=plan.name), progress)
    except TargetExistsError as error:
        hint = shlex.join(["ggufkit", "ollama-import", str(file)]) + " with --name or --force goes on"
        raise TargetExistsError(error.message, hint=hint) from error


def _to_lmstudio(plan: PlacePlan | None, model: LocalModel, progress: Progress) -> PlaceReport | None:
    if plan is None:
        return None
    again = plan_lmstudio_import(model, plan.place, user_repo=str(plan.user_repo))
    try:
        return lmstudio_import(again, progress)
    except NoSpaceError as error:
        command = shlex.join(["ggufkit", "lmstudio-import", str(model.files[0]), "--symbolic-link"])
        raise NoSpaceError(error.message, hint=f"make room, or {command} needs none") from error


def _to_cache(plan: ToPlan, progress: Progress) -> CacheReport | None:
    if plan.hf_cache is None:
        return None
    repo, cache = plan.pull.repo, digests()
    files = [
        CachedFile(f.path, f.target, f.size_bytes, f.sha256 or cache.digest(f.target))
        for f in plan.pull.files
    ]
    revision, commit = MAIN, None
    for holding in repo.holdings:
        listed = [alike(file, holding.find(file.path)) for file in plan.pull.quant.files]
        if holding.listing.hub == "huggingface" and holding.listing.commit and all(listed):
            revision, commit = holding.listing.revision, holding.listing.commit
            break
    return put_in_cache(
        plan.hf_cache, repo.ref.repo_id, files, revision=revision, commit=commit, progress=progress
    )


def _settle(name: Path, grow_in: Path, home: Path) -> None:
    """Let `name` lead to where the runtime has the file, no more to where it grew."""
    cache, grown = digests(), name.resolve()
    if not grown.is_relative_to(grow_in.resolve()):
        return
    sha256 = cache.digest(grown)
    check_moved(grown, home, sha256)  # a copy (a disk without hard links) is read first
    settle(name, grown, home)
    hand_over(home)
    cache.put(name, sha256)  # it is remembered by the path, which is another one now


def _homes(
    ollama: ImportReport | None, lmstudio: PlaceReport | None, cached: CacheReport | None
) -> tuple[Path, ...]:
    """Return where the runtime that the files grew beside has them now."""
    if ollama is not None:
        return (ollama.blob,)
    if lmstudio is not None:
        return lmstudio.files
    assert cached is not None, "files grow elsewhere for a runtime only"
    return tuple(path.resolve() for path in cached.files)
