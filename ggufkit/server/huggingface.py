"""The Hugging Face Hub's protocol: model info, tree, paths-info, resolve.

Shapes as huggingface_hub reads them (`hf_api.ModelInfo`, `RepoFile`, `RepoFolder`; `get_hf_file_metadata`).
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ggufkit.errors import printable
from ggufkit.server.blob import BlobResponse
from ggufkit.server.context import LIMITS, blob, snapshot_of
from ggufkit.server.snapshot import (
    EntryMissingError,
    RepoMissingError,
    RevisionMissingError,
    SharedFile,
    Snapshot,
)

_API = "/api/models/{owner}/{name}"
_ERROR_CODES: dict[type, str] = {
    RepoMissingError: "RepoNotFound",
    RevisionMissingError: "RevisionNotFound",
    EntryMissingError: "EntryNotFound",
}


def routes() -> list[web.RouteDef]:
    """List the routes; a slash within a revision comes as %2F."""
    return [
        web.get(_API, model_info),
        web.get(_API + "/revision/{revision}", model_info),
        web.get(_API + "/tree/{revision}", tree),
        web.get(_API + "/tree/{revision}/{folder:.*}", tree),
        web.post(_API + "/paths-info/{revision}", paths_info),
        web.get("/{owner}/{name}/resolve/{revision}/{path:.+}", resolve),
    ]


async def model_info(request: web.Request) -> web.Response:
    """Answer what a repo is, with sizes and digests if `?blobs=true`."""
    one = snapshot_of(request, request.match_info.get("revision", "main"))
    blobs = _is_true(request.query.get("blobs"))
    return _answer(one, _model(one) | {"siblings": [_sibling(file, blobs) for file in one.files.values()]})


async def tree(request: web.Request) -> web.Response:
    """Answer what is in a folder, or below it if `?recursive=true`; a Link header names the next page."""
    one = snapshot_of(request, request.match_info["revision"])
    folder = request.match_info.get("folder", "").strip("/")
    paths = one.below(folder, _is_true(request.query.get("recursive")))
    start = _number(request.query.get("cursor"))
    end = start + request.app[LIMITS].tree_entries
    answer = _answer(one, [_entry(one, path, request.query.get("expand")) for path in paths[start:end]])
    if end < len(paths):
        answer.headers["Link"] = f'<{request.url.update_query(cursor=end)}>; rel="next"'
    return answer


async def paths_info(request: web.Request) -> web.Response:
    """Answer the tree's entries of the paths in the form; unknown ones are left out, as by the Hub."""
    one = snapshot_of(request, request.match_info["revision"])
    form = await request.post()
    known = set(one.entries())
    paths = [path for path in map(str, form.getall("paths", [])) if path in known]
    return _answer(one, [_entry(one, path, str(form.get("expand"))) for path in paths])


async def resolve(request: web.Request) -> BlobResponse:
    """Answer with a file."""
    one = snapshot_of(request, request.match_info["revision"])
    return await blob(request, one, request.match_info["path"])


def refusal(status: int, message: str, error: Exception | None = None) -> web.Response:
    """Say no in the way the clients map to their exceptions: by X-Error-Code."""
    headers = {"X-Error-Message": printable(message)}
    if code := _ERROR_CODES.get(type(error)):
        headers["X-Error-Code"] = code
    return web.json_response({"error": message}, status=status, headers=headers)


def _answer(one: Snapshot, document: object) -> web.Response:
    return web.json_response(document, headers={"X-Repo-Commit": one.commit})


def _model(one: Snapshot) -> dict[str, Any]:
    changed = datetime.fromtimestamp(one.changed_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {
        "_id": hashlib.sha256(one.repo_id.encode()).hexdigest()[:24],
        "id": one.repo_id,
        "modelId": one.repo_id,
        "author": one.repo_id.split("/")[0],
        "sha": one.commit,
        "createdAt": changed,
        "lastModified": changed,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["gguf"],
    }


def _sibling(file: SharedFile, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    sibling = {"rfilename": file.path, "size": file.size_bytes, "blobId": file.git_oid}
    lfs = {"sha256": file.sha256, "size": file.size_bytes, "pointerSize": file.pointer_bytes}
    return sibling | {"lfs": lfs} if file.is_lfs else sibling


def _entry(one: Snapshot, path: str, expand: str | None) -> dict[str, Any]:
    entry = _file_entry(one.files[path]) if path in one.files else _folder_entry(one, path)
    if _is_true(expand):
        entry["lastCommit"] = {"id": one.commit, "title": "", "date": _model(one)["lastModified"]}
    return entry


def _file_entry(file: SharedFile) -> dict[str, Any]:
    entry = {"type": "file", "oid": file.git_oid, "size": file.size_bytes, "path": file.path}
    lfs = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": file.pointer_bytes}
    return entry | {"lfs": lfs} if file.is_lfs else entry


def _folder_entry(one: Snapshot, path: str) -> dict[str, Any]:
    oid = hashlib.sha1(f"{one.commit}/{path}".encode(), usedforsecurity=False).hexdigest()
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in {"true", "1"}


def _number(text: str | None) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text or "") and text else 0
