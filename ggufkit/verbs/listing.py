"""Asking the hubs what there is: listings, quants, and the one that was meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggufkit.errors import AccessError, NetworkError, NotFoundError, UsageError
from ggufkit.hubs.hub import Hub, HubName, Listing, RemoteFile, RepoRef, open_hub, parse_ref
from ggufkit.hubs.quants import Quant, find_quants, pick_quant
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.http import Http
from ggufkit.transfer.sources import HubSource

SourceName = Literal["auto", "hf", "modelscope"]
SOURCES: dict[str, tuple[HubName, ...]] = {
    "auto": ("huggingface", "modelscope"),
    "hf": ("huggingface",),
    "modelscope": ("modelscope",),
}


@dataclass(frozen=True, slots=True)
class Repo:
    """A repo as a hub lists it."""

    ref: RepoRef
    """What was asked for."""
    hub: Hub
    """The hub that answered."""
    listing: Listing
    """All its files."""

    def quants(self) -> tuple[Quant, ...]:
        """Return the quants that the files make."""
        return find_quants(self.ref.repo_id, self.listing.files)

    def pick(self, quant: str | None) -> Quant:
        """Return the quant asked for (by name, folder or path); raises QuantError with the table."""
        return pick_quant(self.quants(), quant or self.ref.quant, self.ref.repo_id)

    def source(self, file: RemoteFile, http: Http, progress: Progress = SILENT) -> HubSource:
        """Return where a listed file's bytes come from."""
        return HubSource(self.hub, self.ref.repo_id, file, http, progress)


@dataclass(frozen=True, slots=True)
class QuantsReport:
    """The quants of a repo."""

    repo_id: str
    """`owner/name`."""
    hub: HubName
    """The hub that listed them."""
    endpoint: str
    """Its address."""
    commit: str | None
    """The commit that was listed, where the hub names one."""
    quants: tuple[Quant, ...]
    """Complete and incomplete sets."""


def open_repo(
    text: str, *, source: str = "auto", revision: str | None = None, progress: Progress = SILENT
) -> Repo:
    """List the repo that `text` names on its hub; `auto` asks one hub after the other.

    Raises the last hub's error when none of them has the repo.
    """
    ref = parse_ref(text)
    if revision and ref.revision and revision != ref.revision:
        raise UsageError(f"two revisions: {ref.revision} in the name, {revision} as a flag")
    error: NotFoundError | AccessError | NetworkError | None = None
    *_, last = names = _hubs_to_ask(ref, source)
    for name in names:
        hub = open_hub(name, progress=progress)
        try:
            return Repo(ref, hub, hub.list_files(ref.repo_id, revision or ref.revision))
        except (NotFoundError, AccessError, NetworkError) as failure:
            if name != last:
                progress.note(f"{failure.message}; asking the other hub")
            error = error if isinstance(error, AccessError) else failure
    assert error is not None
    raise error


def quants(text: str, *, source: str = "auto", progress: Progress = SILENT) -> QuantsReport:
    """Return the quants of a repo."""
    repo = open_repo(text, source=source, progress=progress)
    listing = repo.listing
    return QuantsReport(listing.repo_id, listing.hub, listing.endpoint, listing.commit, repo.quants())


def _hubs_to_ask(ref: RepoRef, source: str) -> tuple[HubName, ...]:
    if source not in SOURCES:
        raise UsageError(f"no source is called {source}", hint="auto, hf or modelscope")
    if ref.hub is None:
        return SOURCES[source]
    if source != "auto" and ref.hub not in SOURCES[source]:
        raise UsageError(f"the name asks for {ref.hub}, --source for {source}")
    return (ref.hub,)
