"""Reading the headers of a model that is still on a hub, by range."""

from __future__ import annotations

from ggufkit.gguf.shards import check_set, is_shard
from ggufkit.progress import SILENT, Progress
from ggufkit.transfer.http import Http
from ggufkit.verbs.listing import open_repo
from ggufkit.verbs.locate import LoadedModel


def remote_headers(text: str, source: str = "auto", progress: Progress = SILENT) -> LoadedModel:
    """Return the headers of the quant that `text` names (`owner/name:QUANT`), a set as one model."""
    repo = open_repo(text, source=source, progress=progress)
    quant = repo.pick(None)
    with Http() as http:
        headers = tuple(repo.source(file, http, progress).header() for file in quant.files)
    if len(headers) > 1 or is_shard(headers[0]):
        headers = check_set(headers).headers
    return LoadedModel(quant.stem, headers, f"{repo.listing.hub}: {repo.ref.repo_id}, {quant.name}")
