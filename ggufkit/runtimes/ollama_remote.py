"""An Ollama on another machine, or in a container: models are sent to it by its API (ollama docs/api.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ggufkit.errors import NetworkError, ToolError, printable
from ggufkit.progress import SILENT, Progress
from ggufkit.runtimes.ollama_modelfile import modelfile
from ggufkit.runtimes.ollama_server import OllamaServer, ask, request, server_url
from ggufkit.runtimes.ollama_store import SmallLayer

BLOCK_BYTES = 1 << 20
SEND_S = 600.0
"""How long the other side may take nothing, or say nothing after the last byte: it hashes the file."""
CREATE_S = 4 * 3600.0
"""How long `create` may take: 0.30 and later write the file three times."""


def remote_server(address: str) -> OllamaServer:
    """Return the Ollama at an address written as in OLLAMA_HOST; raises NetworkError when none answers."""
    url = server_url(address)
    answer = ask(f"{url}/api/version")
    if answer is None:
        hint = "on that machine: OLLAMA_HOST=0.0.0.0 ollama serve"
        raise NetworkError(f"no Ollama answers at {url}", hint=hint)
    return OllamaServer(url, str(answer.get("version", "")))


def send_blob(server: OllamaServer, path: Path, sha256: str, progress: Progress = SILENT) -> int:
    """Give the server the file unless it has it; return the bytes sent. It checks the digest itself."""
    url = f"{server.url}/api/blobs/sha256:{sha256}"
    if _spoken(url, "HEAD")[0] == 200:
        return 0
    n_bytes = path.stat().st_size
    progress.start(f"sending {path.name} to {server.url}", n_bytes)
    try:
        with path.open("rb", buffering=0) as file:
            status, said = _spoken(url, "POST", _Told(file, progress), n_bytes)
    finally:
        progress.finish()
    if status not in (200, 201):
        raise ToolError(f"{server.url} did not take {path.name}: {_reason(status, said)}")
    return n_bytes


def create(
    server: OllamaServer, name: str, file_name: str, sha256: str, layers: Sequence[SmallLayer]
) -> None:
    """Have the server make a model of a blob that it has; raises ToolError.

    Versions before 0.5.5 know no JSON for it and take a Modelfile.
    """
    texts = {layer.kind: layer.text for layer in layers}
    document: dict[str, Any] = {"model": name, "files": {file_name: f"sha256:{sha256}"}, "stream": False}
    document |= {key: texts[key] for key in ("template", "license") if key in texts}
    if "params" in texts:
        document["parameters"] = json.loads(texts["params"])
    status, answer = request(f"{server.url}/api/create", document, timeout_s=CREATE_S)
    if status == 400 and "Modelfile" in str(answer.get("error")):
        text = modelfile(Path(f"@sha256:{sha256}"), layers)
        old = {"name": name, "model": name, "stream": False, "modelfile": text}
        status, answer = request(f"{server.url}/api/create", old, timeout_s=CREATE_S)
    if status != 200 or "error" in answer:
        said = printable(str(answer.get("error") or f"HTTP {status}"))
        hint = "the file stays in its store until it starts anew, so that a second try does not send it"
        raise ToolError(f"{server.url} made no model of it: {said}", hint=hint)


class _Told:
    """A file that tells how far it was read."""

    def __init__(self, file: Any, progress: Progress) -> None:
        self._file: BinaryIO = file
        self._progress = progress

    def read(self, n_bytes: int = -1) -> bytes:
        data = self._file.read(n_bytes)
        self._progress.advance(len(data))
        return data


def _spoken(url: str, method: str, body: _Told | None = None, n_bytes: int = 0) -> tuple[int, bytes]:
    """Ask without a proxy; return status and body. Raises NetworkError when the line drops."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=SEND_S, blocksize=BLOCK_BYTES)
    headers: Mapping[str, str] = {} if body is None else {"Content-Length": str(n_bytes)}
    try:
        connection.request(method, parts.path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(BLOCK_BYTES)
    except (OSError, HTTPException) as error:
        raise NetworkError(f"{url}: {error}", hint="the same command tries again") from None
    finally:
        connection.close()


def _reason(status: int, said: bytes) -> str:
    return printable(said.decode("utf-8", "replace").strip()) or f"HTTP {status}"
