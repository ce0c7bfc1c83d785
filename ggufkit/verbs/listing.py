"""Asking the hubs what there is: listings, quants, and the one that was meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ggufkit.errors import GgufkitError, IntegrityError, NotFoundError, UsageError
from ggufkit.hubs.asking import Holding, ask_places
from ggufkit.hubs.compare import alike, differences
from ggufkit.hubs.hub import Hub, HubName, Listing, RemoteFile, RepoRef, parse_ref
from ggufkit.hubs.manifest import ManifestSource
from ggufkit.hubs.places import places_to_ask
from ggufkit.hubs.quants import Quant, QuantError, find_quants, pick_quant
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.http import Http
from ggufkit.transfer.several import CONNECTIONS, Several
from ggufkit.transfer.sources import HubSource
from ggufkit.transfer.tally import Tally


@dataclass(frozen=True, slots=True)
class Served:
    """What one place brought."""

    source: str
    """The word for it behind `--source`."""
    title: str
    """What people call it."""
    n_bytes: int
    """Bytes that came from there."""


@dataclass(frozen=True, slots=True)
class Repo:
    """A repo as hubs and mirrors list it, asked at one moment."""

    ref: RepoRef
    """What was asked for."""
    holdings: tuple[Holding, ...]
    """The places that have it, the most believed first; some may be asked for their digests only."""
    connections: int = CONNECTIONS
    """Streams at a time."""
    limit_bytes_per_s: int | None = None
    """What all streams together bring at most; None is no limit."""
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)
    """What each place brought, and how it behaves, over all files."""

    @property
    def serving(self) -> tuple[Holding, ...]:
        """The places that bytes are fetched from: one at least."""
        return tuple(holding for holding in self.holdings if holding.place.serves)

    @property
    def hub(self) -> Hub:
        """The hub that counts first."""
        return self.serving[0].hub

    @property
    def listing(self) -> Listing:
        """All files, as that hub lists them."""
        return self.serving[0].listing

    def quants(self) -> tuple[Quant, ...]:
        """Return the quants that the files make, and which places list all files of each alike."""
        found: dict[tuple[str, str, int, str], Quant] = {}
        for holding in self.serving:
            for quant in find_quants(self.ref.repo_id, holding.listing.files):
                found.setdefault((quant.folder, quant.stem, quant.n_shards, quant.kind), quant)
        return tuple(replace(quant, sources=self._words(quant)) for quant in found.values())

    def pick(self, quant: str | None) -> Quant:
        """Return the quant asked for (by name, folder or path); raises QuantError with the table.

        The first hub that has it whole counts. Digests of what only mirrors have are the hubs', where
        these list the file as well.
        """
        asked, refusal = quant or self.ref.quant, None
        for holding in self.serving:
            quants = find_quants(self.ref.repo_id, holding.listing.files)
            try:
                picked = pick_quant(quants, asked, self.ref.repo_id)
            except QuantError as error:
                refusal = refusal or error
                if error.is_ambiguous:
                    break
                continue
            files = tuple(self._believed(holding, file) for file in picked.files)
            return replace(picked, files=files, sources=self._words(replace(picked, files=files)))
        assert refusal is not None
        raise refusal

    def http(self) -> Http:
        """Return what opens streams, within the limit; for use with `with`."""
        return Http(limit_bytes_per_s=self.limit_bytes_per_s)

    def source(self, file: RemoteFile, http: Http, progress: Progress = SILENT) -> Several:
        """Return where a listed file's bytes come from: all places that have these very bytes.

        Raises NotFoundError or IntegrityError when no place that serves has this very file.
        """
        holders = self._holders(file)
        if not holders:
            raise self._nobody(file)
        repo_id, sha256 = self.ref.repo_id, file.sha256
        sources = [
            HubSource(one.hub, repo_id, replace(listed, sha256=sha256), http, progress, title=one.place.title)
            for one, listed in holders
        ]
        return Several(tuple(sources), self.connections, progress, self.tally)

    def served(self) -> tuple[Served, ...]:
        """Return which places have brought bytes, and how many."""
        brought = self.tally.served
        places = [one.place for one in self.serving if one.place.title in brought]
        return tuple(Served(place.word, place.title, brought[place.title]) for place in places)

    def origins(self, files: Sequence[RemoteFile]) -> tuple[ManifestSource, ...]:
        """Return the repos that serve every one of `files`, the first one first."""
        return tuple(_origin(one) for one in self._holders_of_all(files) or self.serving[:1])

    def titles(self, files: Sequence[RemoteFile]) -> str:
        """Return what the places that serve every one of `files` are called."""
        names = [one.place.title for one in self._holders_of_all(files) or self.serving[:1]]
        return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)

    def remarks(self, files: Sequence[RemoteFile]) -> tuple[str, ...]:
        """Return what should be known before `files` are fetched, a sentence each.

        Where the hubs differ in them, and whether nobody but a mirror vouches for them.
        """
        told = [differences(files, one.listing, one.place.title) for one in self.holdings]
        found = ["the hubs differ: " + "; ".join(filter(None, told))] if any(told) else []
        hubs = [one for one in self.holdings if not one.place.is_mirror]
        known = [file for file in files if file.sha256 is not None]
        if not all(any(alike(file, one.find(file.path)) for one in hubs) for file in known):
            found.append(f"the digests are {self.titles(files)}'s own: no hub vouches for them")
        return tuple(found)

    def _words(self, quant: Quant) -> tuple[str, ...]:
        return tuple(
            one.place.word
            for one in self.serving
            if all(alike(file, one.find(file.path)) for file in quant.files)
        )

    def _believed(self, holding: Holding, file: RemoteFile) -> RemoteFile:
        """Return the file as the most believed hub lists it, when `holding` is but a mirror."""
        if not holding.place.is_mirror:
            return file
        return next((found for one in self.holdings if (found := one.find(file.path)) is not None), file)

    def _holders_of_all(self, files: Sequence[RemoteFile]) -> tuple[Holding, ...]:
        places = [{id(holding) for holding, _ in self._holders(file)} for file in files]
        return tuple(one for one in self.serving if all(id(one) in holders for holders in places))

    def _holders(self, file: RemoteFile) -> list[tuple[Holding, RemoteFile]]:
        """Return the places that serve this very file; only one when no digest tells that they do."""
        listed = [(one, found) for one in self.serving if (found := one.find(file.path)) is not None]
        if file.sha256 is not None:
            return [(one, found) for one, found in listed if alike(file, found, one.place.is_mirror)]
        same = [(one, found) for one, found in listed if found == file]
        return (same or [(one, found) for one, found in listed if found.size_bytes == file.size_bytes])[:1]

    def _nobody(self, file: RemoteFile) -> GgufkitError:
        names = " and ".join(one.place.title for one in self.serving)
        if all(one.find(file.path) is None for one in self.serving):
            return NotFoundError(f"{names} has no {file.path}", hint="leave --source out to ask the hubs")
        publisher = next(one.place.title for one in self.holdings if one.find(file.path) == file)
        hint = "it may hold an earlier state of the repo; leave --source out to ask the hubs"
        return IntegrityError(f"{names} has other bytes in {file.path} than {publisher} publishes", hint=hint)


@dataclass(frozen=True, slots=True)
class QuantsReport:
    """The quants of a repo."""

    repo_id: str
    """`owner/name`."""
    hub: HubName
    """The hub that counts first."""
    endpoint: str
    """Its address."""
    commit: str | None
    """The commit that was listed, where the hub names one."""
    sources: tuple[ManifestSource, ...]
    """All places that listed the repo."""
    quants: tuple[Quant, ...]
    """Complete and incomplete sets."""


def open_repo(
    text: str, *, source: str = "auto", revision: str | None = None, progress: Progress = SILENT
) -> Repo:
    """List the repo that `text` names in the places that `source` names, all at once.

    Raises what they say when none of them that serves has the repo.
    """
    ref = parse_ref(text)
    if revision and ref.revision and revision != ref.revision:
        raise UsageError(f"two revisions: {ref.revision} in the name, {revision} as a flag")
    places = places_to_ask(ref, source)
    holdings = ask_places(places, ref.repo_id, revision or ref.revision, progress)
    return Repo(ref, holdings)


def quants(text: str, *, source: str = "auto", progress: Progress = SILENT) -> QuantsReport:
    """Return the quants of a repo."""
    repo = open_repo(text, source=source, progress=progress)
    listing = repo.listing
    sources = tuple(_origin(one) for one in repo.serving)
    return QuantsReport(
        listing.repo_id, listing.hub, listing.endpoint, listing.commit, sources, repo.quants()
    )


def _origin(holding: Holding) -> ManifestSource:
    listing = holding.listing
    return ManifestSource(listing.hub, listing.endpoint, listing.repo_id, listing.revision, listing.commit)
