"""One repo, asked for in several places: who has it, and what is said when nobody does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ggufkit.errors import (
    AccessError,
    GgufkitError,
    IntegrityError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from ggufkit.hubs.calls import PassingError
from ggufkit.hubs.endpoints import TOKEN_VARIABLES
from ggufkit.hubs.hub import Hub, HubName, Listing, RemoteFile, open_hub
from ggufkit.hubs.places import Place
from ggufkit.hubs.together import Question, ask_together
from ggufkit.progress import Progress

_WEIGHTS = (UsageError, IntegrityError, AccessError, NetworkError, NotFoundError)
"""Which refusal counts when several places refuse: the first of these kinds."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A place that has a repo, and what it lists."""

    place: Place
    """Where."""
    hub: Hub
    """The hub, or the mirror spoken to as to one."""
    listing: Listing
    """All files there."""
    _by_path: Mapping[str, RemoteFile] = field(init=False, repr=False, compare=False)
    """The same files by their paths."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {file.path: file for file in self.listing.files})

    def find(self, path: str) -> RemoteFile | None:
        """Return the file of this path as it is listed here."""
        return self._by_path.get(path)


def ask_places(
    places: Sequence[Place], repo_id: str, revision: str | None, progress: Progress
) -> tuple[Holding, ...]:
    """Return the places that have the repo, the most believed first; one at least that serves.

    Raises what they say when none that serves has it.
    """
    for place in places:
        for hub in _protocols(place):
            _load(hub, place.endpoint)
    questions = [
        Question(partial(_list, place, repo_id, place.revision or revision), needed=place.serves)
        for place in places
    ]
    answers = ask_together(questions, progress)
    holdings = [answer for answer in answers if isinstance(answer, Holding)]
    if not any(holding.place.serves for holding in holdings):
        raise _refusal(places, answers, repo_id)
    known = " and ".join(holding.place.title for holding in holdings if holding.place.serves)
    for place, answer in zip(places, answers, strict=True):
        if isinstance(answer, GgufkitError) and place.serves:
            progress.note(f"{answer.message}; going on with {known}")
        elif answer is None and place.serves:
            progress.note(f"{place.title} does not answer; going on with {known}")
    return tuple(sorted(holdings, key=lambda holding: holding.place.rank))


def _protocols(place: Place) -> tuple[HubName, ...]:
    return (place.hub,) if place.hub is not None else ("huggingface", "modelscope")


def _load(hub: HubName, endpoint: str) -> None:
    """Import the hub's client and settle its surroundings now, before several threads use both."""
    open_hub(hub, endpoint=endpoint)


def _list(place: Place, repo_id: str, revision: str | None, progress: Progress) -> Holding:
    """Ask one place, in each protocol that it may speak."""
    refusal: NotFoundError | NetworkError | None = None
    for name in _protocols(place):
        hub = open_hub(name, endpoint=place.endpoint, progress=progress)
        try:
            return Holding(place, hub, hub.list_files(repo_id, revision))
        except PassingError:
            raise  # it is busy or down: no other protocol will help
        except (NotFoundError, NetworkError) as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _refusal(
    places: Sequence[Place], answers: Sequence[Holding | GgufkitError | None], repo_id: str
) -> GgufkitError:
    """Return one error that says what all places that should serve have said."""
    pairs = list(zip(places, answers, strict=True))
    errors = [answer for place, answer in pairs if place.serves and isinstance(answer, GgufkitError)]
    errors.sort(key=_weight)
    first = errors[0]
    if not all(place.serves for place in places):
        known = [answer.place.title for answer in answers if isinstance(answer, Holding)]
        first.hint = (
            f"leave --source out: {known[0]} has it" if known else "leave --source out to ask the hubs"
        )
    if len(errors) == 1:
        return first
    message = "; ".join(dict.fromkeys(error.message for error in errors))
    kind = next(kind for kind in _WEIGHTS if isinstance(first, kind))
    return kind(message, hint=first.hint if isinstance(first, AccessError) else _hint(first, repo_id))


def _weight(error: GgufkitError) -> int:
    return next((i for i, kind in enumerate(_WEIGHTS) if isinstance(error, kind)), len(_WEIGHTS))


def _hint(error: GgufkitError, repo_id: str) -> str | None:
    if isinstance(error, NotFoundError):
        return f"check the name {repo_id}; a private repo needs {' or '.join(TOKEN_VARIABLES.values())}"
    if isinstance(error, NetworkError):
        return "try again; HTTPS_PROXY names a proxy, --source URL a mirror or a ggufkit serve near you"
    return error.hint
