"""A repo held to a manifest: what differs from it is refused, whoever lists it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ggufkit.errors import IntegrityError, NotFoundError, UsageError
from ggufkit.hubs.agreement import Agreement, compare, held_to
from ggufkit.hubs.asking import Holding, ask_places
from ggufkit.hubs.hub import RepoRef
from ggufkit.hubs.manifest import Manifest
from ggufkit.hubs.pins import places_of
from ggufkit.hubs.quants import Quant, find_quants
from ggufkit.progress import SILENT, Progress
from ggufkit.verbs.listing import Repo

_MAX_TOLD = 3
"""So many differing files are named of each place."""


def check_nothing_else_is_asked(manifest: Manifest, quant: str | None, revision: str | None) -> None:
    """Raise UsageError when flags ask for what a manifest has settled."""
    for flag, value in (("--quant", quant), ("--revision", revision)):
        if value is not None:
            message = f"{flag} {value}: the manifest {manifest.name} settles that"
            raise UsageError(message, hint="leave the flag out, or name the repo instead of the manifest")


def open_pinned(
    manifest: Manifest, *, source: str = "auto", progress: Progress = SILENT
) -> tuple[Repo, Quant]:
    """List the manifest's repos and return those that publish exactly its files, and the files as a quant.

    A place that lists another size or digest, or lacks a file, is left out; its difference is told. Digests
    are the manifest's; where it knows none, those that are listed. Raises IntegrityError when no place is
    left, UsageError for a manifest without a repo, and what the places say when none answers.
    """
    pairs = places_of(manifest, source)
    repo_id = pairs[0][0].repo_id
    places = [
        replace(place, revision=one.asks_for) for one, place in pairs if one.repo_id == repo_id
    ]  # a repo of another name is another repo: not asked in the same breath
    agreeing, faults = [], []
    for holding in ask_places(places, repo_id, None, progress):
        differing = [file for file in compare(manifest, holding.listing.files) if file.differs]
        if differing:
            faults.append(_fault(holding, differing))
        else:
            agreeing.append(_held(holding, manifest))
    if not any(holding.place.serves for holding in agreeing):
        raise _refusal(manifest, faults)
    for fault in faults:
        progress.note(f"{fault}; it is left out")
    repo = Repo(RepoRef(None, repo_id, None, manifest.quant), tuple(agreeing))
    return repo, _quant(repo, manifest)


def remarks_on_pinned(repo: Repo, quant: Quant, manifest: Manifest) -> tuple[str, ...]:
    """Return what should be known before the files are fetched: of what the manifest does not settle."""
    settled = {file.path for file in manifest.files if file.sha256 is not None}
    open_files = [file for file in quant.files if file.path not in settled]
    return repo.remarks(open_files) if open_files else ()


def _held(holding: Holding, manifest: Manifest) -> Holding:
    """Return the place as if it had the manifest's files only, with the digests that they are held to."""
    files = held_to(manifest, holding.listing.files)
    return Holding(holding.place, holding.hub, replace(holding.listing, files=files))


def _quant(repo: Repo, manifest: Manifest) -> Quant:
    """Return the manifest's files as one quant; the most believed place tells what it leaves open."""
    files = repo.holdings[0].listing.files
    found = find_quants(repo.ref.repo_id, files)
    if len(found) == 1 and len(found[0].files) == len(files) and not found[0].missing:
        return replace(found[0], name=manifest.quant or found[0].name)
    what = f"the files of the manifest {manifest.name} are not one whole model"
    raise NotFoundError(
        what, hint="a manifest for pull has one model: a file, all its shards, or all its parts"
    )


def _refusal(manifest: Manifest, faults: Sequence[str]) -> IntegrityError:
    lines = "\n".join(f"  {fault}" for fault in faults)
    message = f"what is published is not what the manifest {manifest.name} says:\n{lines}"
    return IntegrityError(message, hint="ggufkit manifest check tells of each file; nothing was fetched")


def _fault(holding: Holding, differing: Sequence[Agreement]) -> str:
    told = [f"{file.path} {file.detail}" for file in differing[:_MAX_TOLD]]
    more = f" (and {len(differing) - _MAX_TOLD} more files)" if len(differing) > _MAX_TOLD else ""
    return f"{holding.place.title}: {'; '.join(told)}{more}"
