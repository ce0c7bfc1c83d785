"""Which hubs and mirrors a manifest can be asked for at."""

from __future__ import annotations

from dataclasses import replace

from ggufkit.errors import UsageError
from ggufkit.hubs.endpoints import DEFAULTS, endpoint_of
from ggufkit.hubs.manifest import Manifest, ManifestSource
from ggufkit.hubs.places import AUTO, Place, places_to_ask
from ggufkit.hubs.refs import RepoRef


def places_of(manifest: Manifest, source: str = AUTO) -> tuple[tuple[ManifestSource, Place], ...]:
    """Return the places to ask, each with the repo that the manifest names for it.

    `auto` is the manifest's own hubs; `source` else means what `places_to_ask` takes it for, and mirrors
    have the repos of the hub whose protocol they speak. Raises UsageError when that leaves no place.
    """
    if not manifest.sources:
        hint = f"ggufkit verify FOLDER --against {manifest.name} compares files on this machine"
        raise UsageError(f"the manifest {manifest.name} names no repo", hint=hint)
    if source.strip().casefold() in ("", AUTO):
        return tuple((one, _own_place(one)) for one in manifest.sources)
    pairs = []
    for place in places_to_ask(RepoRef(None, manifest.sources[0].repo_id, None, None), source):
        fitting = [one for one in manifest.sources if place.hub in (None, one.hub)]
        if fitting:
            pairs.append((fitting[0], replace(place, hub=fitting[0].hub)))
    if not any(place.serves for _, place in pairs):
        hubs = " and ".join(dict.fromkeys(one.hub for one in manifest.sources))
        raise UsageError(f"the manifest {manifest.name} names repos on {hubs} only, --source {source}")
    return tuple(pairs)


def _own_place(source: ManifestSource) -> Place:
    """Return the manifest's hub, or the mirror that the environment puts in its place."""
    moved = None if source.endpoint == DEFAULTS[source.hub] else source.endpoint
    return Place(source.hub, endpoint_of(source.hub, moved))
