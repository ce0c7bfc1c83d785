"""ModelScope's protocol: repo info, revisions, file listing, download.

Shapes as modelscope_hub reads them (`_legacy_api.LegacyClient`, `_download`).
"""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from ggufkit.server.blob import BlobResponse
from ggufkit.server.context import LIMITS, blob, snapshot_of
from ggufkit.server.snapshot import SharedFile, Snapshot

_API = "/api/v1/models/{owner}/{name}"
_NOT_FOUND = 10010205001  # what modelscope.cn answers for a repo or file that is not there
_FILE_MODE = "33188"  # 0o100644, git's mode of a plain file


def routes() -> list[web.RouteDef]:
    """List the routes."""
    return [
        web.get(_API, model_info),
        web.get(_API + "/revisions", revisions),
        web.get(_API + "/repo/files", repo_files),
        web.get(_API + "/repo", download),
        web.get("/models/{owner}/{name}/resolve/{revision}/{path:.+}", resolve),
    ]


async def model_info(request: web.Request) -> web.Response:
    """Answer what a repo is."""
    one = snapshot_of(request, "master")
    owner, name = one.repo_id.split("/")
    size_bytes = sum(file.size_bytes for file in one.files.values())
    info = {"Path": owner, "Name": name, "StorageSize": size_bytes, "LastUpdatedTime": int(one.changed_s)}
    return _answer(200, info)


async def revisions(request: web.Request) -> web.Response:
    """Answer the branches: there is one."""
    one = snapshot_of(request, "master")
    branch = {"Revision": "master", "CreatedAt": int(one.changed_s)}
    return _answer(200, {"RevisionMap": {"Branches": [branch], "Tags": []}})


async def repo_files(request: web.Request) -> web.Response:
    """Answer what is in the folder `Root`, or below it if `Recursive=True`."""
    one = snapshot_of(request, request.query.get("Revision") or "master")
    root = request.query.get("Root", "").strip("/")
    paths = one.below(root, request.query.get("Recursive", "").lower() == "true")
    entries = [_entry(one, path) for path in paths[: request.app[LIMITS].files_entries]]
    return _answer(200, {"Files": entries, "IsVisual": 0, "LatestCommitter": {}})


async def download(request: web.Request) -> BlobResponse:
    """Answer with the file `FilePath`."""
    one = snapshot_of(request, request.query.get("Revision") or "master")
    return await blob(request, one, request.query.get("FilePath", ""))


async def resolve(request: web.Request) -> BlobResponse:
    """Answer with a file, by the address that ModelScope's pages link to."""
    one = snapshot_of(request, request.match_info["revision"])
    return await blob(request, one, request.match_info["path"])


def refusal(status: int, message: str, error: Exception | None = None) -> web.Response:
    """Say no in ModelScope's envelope."""
    return _answer(status, None, code=_NOT_FOUND if error else status, message=message)


def _answer(status: int, data: object, *, code: int = 200, message: str = "success") -> web.Response:
    envelope = {
        "Code": code,
        "Data": data,
        "Message": message,
        "RequestId": str(uuid.uuid4()),
        "Success": status == 200,
    }
    return web.json_response(envelope, status=status)


def _entry(one: Snapshot, path: str) -> dict[str, Any]:
    file = one.files.get(path)
    entry = {
        "Path": path,
        "Name": path.rsplit("/", 1)[-1],
        "Revision": one.commit,
        "CommittedDate": int(one.changed_s),
        "CommitMessage": "",
        "CommitterName": "",
        "InCheck": False,
    }
    return entry | (_file_fields(file) if file else {"Type": "tree", "Size": 0, "Sha256": "", "IsLFS": False})


def _file_fields(file: SharedFile) -> dict[str, Any]:
    size_bytes, is_lfs = file.size_bytes, file.is_lfs
    return {"Type": "blob", "Size": size_bytes, "Sha256": file.sha256, "IsLFS": is_lfs, "Mode": _FILE_MODE}
