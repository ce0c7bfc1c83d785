"""What both protocols share: the shelf behind a request, and files as answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from ggufkit.server.blob import BlobResponse, is_unchanged
from ggufkit.server.shelf import Shelf
from ggufkit.server.snapshot import EntryMissingError, SharedFile, Snapshot

SHELF = web.AppKey("shelf", Shelf)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one listing answers, as the hubs limit theirs."""

    tree_entries: int = 1000
    """Entries on one page of the Hugging Face tree."""
    files_entries: int | None = None
    """Entries after which a ModelScope listing is cut without a word, as modelscope.cn does at 3000."""


LIMITS = web.AppKey("limits", Limits)


def snapshot_of(request: web.Request, revision: str) -> Snapshot:
    """Give the state of the repo in the request's path that `revision` names."""
    shelf = request.app[SHELF]
    shelf.asked()
    return shelf.find("{owner}/{name}".format_map(request.match_info), revision)


async def blob(request: web.Request, one: Snapshot, path: str) -> BlobResponse:
    """Answer with a file and all that the clients of both hubs read from the headers."""
    file = one.file(path)
    if not await asyncio.to_thread(is_unchanged, file):
        raise EntryMissingError(f"{path} changed on the server's disk since it was listed")
    return BlobResponse(file, request, {"X-Repo-Commit": one.commit, **linked(file)})


def linked(file: SharedFile) -> dict[str, str]:
    """Give the headers that describe an LFS file whatever answers for it."""
    if not file.is_lfs:
        return {}
    return {"X-Linked-Size": str(file.size_bytes), "X-Linked-ETag": f'"{file.sha256}"'}
