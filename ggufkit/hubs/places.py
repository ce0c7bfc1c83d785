"""Where a repo is asked for: the two hubs, and mirrors of them, as people write them behind `--source`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ggufkit.errors import UsageError, printable
from ggufkit.hubs.endpoints import TITLES, endpoint_of, is_own_host, title_of
from ggufkit.hubs.refs import HubName, RepoRef, hub_of_host

AUTO = "auto"
_WORDS: dict[str, HubName] = {
    "hf": "huggingface",
    "huggingface": "huggingface",
    "modelscope": "modelscope",
    "ms": "modelscope",
}
_SHORT: dict[HubName, str] = {"huggingface": "hf", "modelscope": "modelscope"}
_EXAMPLE = "auto, hf, modelscope, or a mirror's address like https://hf-mirror.com; several with commas"


@dataclass(frozen=True, slots=True)
class Place:
    """One hub or mirror to be asked."""

    hub: HubName | None
    """Which protocol it speaks; None for a mirror that is to be tried with both."""
    endpoint: str
    """Its base URL."""
    is_mirror: bool = False
    """Whether it was named by its address: somebody's copy, which proves nothing by itself."""
    serves: bool = True
    """Whether bytes may be fetched there; else it is asked for its digests only."""
    revision: str | None = None
    """The revision to ask for there; None is what is asked for everywhere."""

    @property
    def word(self) -> str:
        """The word for it behind `--source`."""
        return self.endpoint if self.is_mirror or self.hub is None else _SHORT[self.hub]

    @property
    def title(self) -> str:
        """What messages call it."""
        if self.is_mirror or self.hub is None:
            return urlsplit(self.endpoint).netloc
        return title_of(self.hub, self.endpoint)

    @property
    def rank(self) -> int:
        """How far its digests are believed: a hub at its own address first, a mirror last."""
        if self.is_mirror or self.hub is None:
            return 2
        return 0 if is_own_host(self.hub, self.endpoint) else 1


def places_to_ask(ref: RepoRef, source: str) -> tuple[Place, ...]:
    """Return the places that `source` (words and addresses, with commas between) names for a repo.

    Where only mirrors are named, the hubs are asked too, for their digests. A hub in `ref` leaves out
    the other hub, and tells which protocol mirrors speak. Raises UsageError for what can't be meant.
    """
    words = [word.strip() for word in source.split(",") if word.strip()] or [AUTO]
    places = [place for word in words for place in _places(word)]
    if ref.hub is not None:
        places = [replace(place, hub=ref.hub) for place in places if place.hub in (None, ref.hub)]
        if not places:
            raise UsageError(f"the name asks for {TITLES[ref.hub]}, --source for {', '.join(words)}")
    if all(place.is_mirror for place in places):
        hubs = [place for place in _hubs() if ref.hub in (None, place.hub)]
        places += [replace(place, serves=False) for place in hubs]
    chosen: list[Place] = []
    for place in places:
        if not any(_is_same(place, before) for before in chosen):
            chosen.append(place)
    return tuple(chosen)


def _is_same(one: Place, other: Place) -> bool:
    """Say whether two places are one server, spoken to in one way: a hub is no witness of itself."""
    same_way = one.hub == other.hub or one.is_mirror or other.is_mirror
    return same_way and one.endpoint == other.endpoint


def _places(word: str) -> list[Place]:
    if word.casefold() == AUTO:
        return _hubs()
    hub = _WORDS.get(word.casefold())
    if hub is not None:
        return [Place(hub, endpoint_of(hub))]
    if not word.casefold().startswith(("http://", "https://")):
        likely = "." in word or ":" in word
        hint = f"write https://{printable(word)}" if likely else _EXAMPLE
        raise UsageError(f"no source is called {printable(word)}", hint=hint)
    endpoint = endpoint_of("huggingface", word)
    known = hub_of_host(urlsplit(endpoint).hostname or "")
    if known is not None and is_own_host(known, endpoint):
        return [Place(known, endpoint)]
    return [Place(known, endpoint, is_mirror=True)]


def _hubs() -> list[Place]:
    return [Place(hub, endpoint_of(hub)) for hub in TITLES]
