"""Get a quant from a hub: every byte once, resumed, checked against the published digest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufkit.errors import FormatError, IntegrityError, NoSpaceError
from ggufkit.gguf.layout import whole_file
from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.hubs.manifests import find_manifest
from ggufkit.hubs.quants import Quant
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.disk import free_bytes
from ggufkit.transfer.engine import Job, resumable_bytes, write
from ggufkit.transfer.filesystem import check_target, probe
from ggufkit.transfer.http import Http
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.prover import Proof
from ggufkit.transfer.several import CONNECTIONS
from ggufkit.verbs.adopt import Adoption, adopting, link_whole, plan_adoption
from ggufkit.verbs.blocks import keep_blocks
from ggufkit.verbs.leftovers import Places
from ggufkit.verbs.listing import Repo, Served, open_repo
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.pinned import check_nothing_else_is_asked, open_pinned, remarks_on_pinned
from ggufkit.verbs.record import Record, digests, journal_path, remember_last, write_record
from ggufkit.verbs.room import room_text

RESERVE_BYTES = 64 << 20
"""Room to be left on the disk: journals, records, what the file system needs for itself."""

State = Literal["kept", "adopt", "resume", "download"]


@dataclass(frozen=True, slots=True)
class PulledFile:
    """One file of a pull."""

    path: str
    """Path in the repo."""
    target: Path
    """Where it goes."""
    size_bytes: int
    """Size of the whole file."""
    sha256: str | None
    """The published digest."""
    state: State
    """Whether it is there already, lies elsewhere, is partly there, or not."""
    resumed_bytes: int
    """How much of it an earlier run left."""
    adopted: Adoption | None = None
    """What another program left of it, which is taken over."""

    @property
    def here(self) -> Path | None:
        """The file on this machine that has all its bytes, proven; None when there is none."""
        return self.target if self.state == "kept" else self.adopted.whole if self.adopted else None

    @property
    def missing_bytes(self) -> int:
        """How much of it is to be fetched."""
        if self.state == "kept":
            return 0
        return self.size_bytes - self.resumed_bytes - (self.adopted.n_bytes if self.adopted else 0)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would do; nothing was written to make it."""

    repo: Repo
    """The repo, listed."""
    quant: Quant
    """The quant that was meant."""
    root: Path
    """The folder that the repo's paths go below."""
    files: tuple[PulledFile, ...]
    """The files, in the order of shards."""
    free_bytes: int
    """Free room on the target's disk."""
    manifest: Manifest | None = None
    """The manifest that the files are held to; None where what the hubs list is believed."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What should be known before: where the hubs differ, and digests that nobody vouches for."""
        if self.manifest is not None:
            return remarks_on_pinned(self.repo, self.quant, self.manifest)
        return self.repo.remarks(self.quant.files)

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(f.size_bytes for f in self.files)

    @property
    def needed_bytes(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(f.missing_bytes for f in self.files)

    @property
    def copied_bytes(self) -> int:
        """Bytes that other programs left and that are copied: room is needed for them too."""
        return sum(f.adopted.copied_bytes for f in self.files if f.adopted is not None)


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull came to."""

    repo_id: str
    """`owner/name`."""
    quant: str
    """The quant's name."""
    hub: str
    """The hub that counts first."""
    commit: str | None
    """The commit that was pulled, where the hub names one."""
    root: Path
    """The folder that the files are below."""
    files: tuple[PulledFile, ...]
    """The files, with what had to be done for each."""
    total_bytes: int
    """Bytes of all files."""
    fetched_bytes: int
    """Bytes that this run fetched."""
    n_unproven: int
    """Files whose digest the hub does not publish."""
    sources: tuple[Served, ...]
    """Which place served how many of these bytes."""
    seconds: float
    """How long it took."""


def plan_pull(
    ref: str,
    *,
    quant: str | None = None,
    source: str = "auto",
    revision: str | None = None,
    local_dir: Path | None = None,
    adopt: bool = True,
    adopt_dirs: Sequence[Path] = (),
    connections: int = CONNECTIONS,
    limit_bytes_per_s: int | None = None,
    progress: Progress = SILENT,
) -> PullPlan:
    """List the repo, pick the quant, and look at what of it is there.

    What browsers, the hubs' own clients and aria2 left of it in the target folder, in the hubs' caches and
    in `adopt_dirs` is taken over, unless `adopt` is False.

    Bytes come over `connections` streams at a time, `limit_bytes_per_s` at most in all.

    `ref` may be a manifest (a file, or the name of a shipped one), which fixes repo, quant and digests.
    Raises NotFoundError (QuantError with the table for an unknown or ambiguous quant), AccessError,
    NetworkError, IntegrityError when nobody publishes what the manifest says.
    """
    manifest = find_manifest(ref)
    if manifest is None:
        repo = open_repo(ref, source=source, revision=revision, progress=progress)
        picked = repo.pick(quant)
    else:
        check_nothing_else_is_asked(manifest, quant, revision)
        repo, picked = open_pinned(manifest, source=source, progress=progress)
    repo = replace(repo, connections=connections, limit_bytes_per_s=limit_bytes_per_s)
    root = local_dir if local_dir is not None else Path(repo.ref.repo_id.rpartition("/")[2])
    check_target(root, [(file.path, file.size_bytes) for file in picked.files])
    places = Places(repo.ref.repo_id, root, adopt_dirs) if adopt else None
    files = tuple(_look_at(repo, root, file, places, progress) for file in picked.files)
    return PullPlan(repo, picked, root, files, free_bytes(root), manifest)


def pull(plan: PullPlan, progress: Progress = SILENT) -> PullReport:
    """Fetch what is missing, prove it, and record the set.

    Raises NoSpaceError before the first byte when the disk is too small, NetworkError when the hub
    fails, IntegrityError when bytes are not the published ones, FormatError for an unsound set.
    """
    began = time.monotonic()
    _check_room(plan)
    disk = probe(plan.root, [(f.path, f.size_bytes) for f in plan.files if f.state != "kept"])
    remember_last(record_pull(plan))
    for file in plan.files:
        if file.state == "kept":  # a run killed after the last rename leaves its notes
            Journal(journal_path(plan.root, file.target), "").forget()
    if any(f.state != "kept" for f in plan.files):
        done = plan.total_bytes - plan.needed_bytes - plan.copied_bytes
        progress.start(f"pulling {plan.quant.stem}", plan.total_bytes, done)
        try:
            _fetch_all(plan, disk.hard_links, progress)
        finally:
            progress.finish()
    _check_model(plan)
    return _report(plan, time.monotonic() - began)


def _look_at(
    repo: Repo, root: Path, file: RemoteFile, places: Places | None, progress: Progress
) -> PulledFile:
    """Find out whether a file is there, by its remembered digest or else by reading it."""
    target = root / file.path
    state: State = "download"
    resumed, adopted = 0, None
    if target.is_file() and target.stat().st_size == file.size_bytes and _is_proven(target, file, progress):
        state = "kept"
    else:
        job = _job(repo, root, target, file, Http(), progress)
        resumed = resumable_bytes(job)
        adopted = plan_adoption(places, file, job, progress) if places is not None else None
        state = "resume" if resumed or adopted else "download"
        if adopted is not None and adopted.whole:
            state, resumed = "adopt", 0
    return PulledFile(file.path, target, file.size_bytes, file.sha256, state, resumed, adopted)


def _is_proven(target: Path, file: RemoteFile, progress: Progress) -> bool:
    if file.sha256 is None:
        return True  # nobody published a digest: the size is all there is to compare
    cache = digests()
    known = cache.get(target)
    if known is None:
        progress.start(f"checking {target.name}, which is there already", file.size_bytes)
        try:
            known = cache.digest(target, progress)
        finally:
            progress.finish()
    return known == file.sha256


def _job(repo: Repo, root: Path, target: Path, file: RemoteFile, http: Http, progress: Progress) -> Job:
    source = repo.source(file, http, progress)
    proof = Proof(file.path, ((0, file.size_bytes),), file.sha256)
    return Job(target, whole_file(file.size_bytes), (source,), journal_path(root, target), (proof,))


def _fetch_all(plan: PullPlan, links: bool, progress: Progress) -> None:
    with plan.repo.http() as http:
        files = [(p, f) for p, f in zip(plan.files, plan.quant.files, strict=True) if p.state != "kept"]
        jobs = [_job(plan.repo, plan.root, p.target, f, http, progress) for p, f in files]
        found = [(p.adopted, job) for (p, _), job in zip(files, jobs, strict=True) if p.adopted is not None]
        linked = link_whole(plan.root, found, links=links, progress=progress)
        for (pulled, _), job in zip(files, jobs, strict=True):
            if pulled.target in linked:
                continue
            if _came_meanwhile(pulled):
                progress.advance(pulled.missing_bytes)
            else:
                _fetch(plan.root, job, pulled.adopted, progress)


def _came_meanwhile(file: PulledFile) -> bool:
    """Say whether another pull of the same set was faster with this file."""
    if file.sha256 is None or not file.target.is_file() or file.target.stat().st_size != file.size_bytes:
        return False
    return digests().digest(file.target) == file.sha256


def _fetch(root: Path, job: Job, adopted: Adoption | None, progress: Progress) -> None:
    """Fetch a file, or what is missing of it; without what was adopted, when that turns out to be wrong."""
    with_adopted = adopting(job, adopted, progress) if adopted is not None else job
    try:
        report = write(with_adopted, progress)
    except IntegrityError as error:
        if adopted is None:
            hint = "the same command fetches this file again; if it happens twice, try another --source"
            raise IntegrityError(error.message, hint=hint) from error
        progress.note(f"{job.target.name}: what was there already is wrong; fetching it without")
        return _fetch(root, job, None, progress)
    name = job.proofs[0].name
    digests().put(job.target, report.digests[name])
    keep_blocks(root, report.digests[name], report.marks.get(name, {}))
    return None


def _check_room(plan: PullPlan) -> None:
    need = plan.needed_bytes + plan.copied_bytes
    if need and need + RESERVE_BYTES > plan.free_bytes:
        room = room_text(need, plan.free_bytes, kept_bytes=RESERVE_BYTES)
        raise NoSpaceError(f"{plan.root}: {room}", hint="make room, or name another disk with --local-dir")


def record_pull(plan: PullPlan) -> Record:
    """Record what the files should be before the first byte, so that a kill leaves a trace to follow."""
    files = tuple(ManifestFile(f.path, f.size_bytes, f.sha256, None) for f in plan.files)
    origins = plan.repo.origins(plan.quant.files)
    return write_record(plan.root, Manifest(plan.quant.stem, plan.quant.name, files, origins))


def _check_model(plan: PullPlan) -> None:
    """Check that the pulled shards are one sound set."""
    if plan.quant.kind == "raw":
        return
    try:
        find_model(str(plan.files[0].target)).headers()
    except FormatError as error:
        where = f"{plan.repo.titles(plan.quant.files)}: {plan.repo.ref.repo_id}"
        raise FormatError(error.file, f"{error.reason} (this is what is published on {where})") from error


def _report(plan: PullPlan, seconds: float) -> PullReport:
    origin = plan.repo.origins(plan.quant.files)[0]
    return PullReport(
        repo_id=origin.repo_id,
        quant=plan.quant.name,
        hub=origin.hub,
        commit=origin.commit,
        root=plan.root,
        files=plan.files,
        total_bytes=plan.total_bytes,
        fetched_bytes=plan.needed_bytes,
        n_unproven=sum(f.sha256 is None for f in plan.files),
        sources=plan.repo.served(),
        seconds=seconds,
    )
