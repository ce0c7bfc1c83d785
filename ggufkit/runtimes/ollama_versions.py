"""What changed between Ollama 0.5 and 0.33, as far as an import is concerned; said for the one that runs.

Sources: the release of each pull request named; read in Ollama's source at these tags, 0.5.4 and 0.9.3 tried.
"""

from __future__ import annotations

Version = tuple[int, int]

KNOWN: tuple[Version, Version] = ((0, 5), (0, 33))
"""The oldest and the newest version that these notes are about."""

_BEFORE: tuple[tuple[Version, str], ...] = (
    ((0, 9), "thinking is not told apart from the answer, and `think` is not known (0.9 brought it)"),
    ((0, 30), "the GGUF's own chat template is not used (0.30 began to): ours is written"),
    ((0, 30), "a model larger than free memory and swap is refused (not from 0.30 on)"),
)
_SINCE: tuple[tuple[Version, str], ...] = (
    ((0, 21), "blobs without a name are removed at a start when an hour old (before: at once)"),
    ((0, 30), "its own `create` rewrites the file: three times its size on the disk, and another digest"),
    ((0, 30), "it takes sets of shards, by merging them; before, shards were accepted and did not load"),
    ((0, 30), "without a GPU it reads the whole file into memory unless use_mmap says otherwise"),
)


def version_notes(version: Version | None) -> tuple[str, ...]:
    """Say what is peculiar to a version; nothing for a build that does not say its version."""
    if version is None:
        return ()
    notes = [text for limit, text in _BEFORE if version < limit]
    notes += [text for since, text in _SINCE if version >= since]
    oldest, newest = KNOWN
    if not oldest <= version <= newest:
        span = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        notes.append(f"ggufkit knows Ollama {span}: it may do other than is said here")
    return tuple(notes)
