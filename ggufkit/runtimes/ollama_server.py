"""Questions to a running Ollama on this machine: its version, its store, its models."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from ggufkit.errors import ToolError, printable

DEFAULT_PORT = 11434
TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 64 << 20  # a list of thousands of models has a few
SMOKE_TOKENS = 16
SMOKE_S = 3600.0  # the model is loaded first: 400 GB from a slow disk
ASKED_MODELS = 8  # cloud models have no file here, so one may not be enough

_FROM = re.compile(r"^FROM (.+)[/\\]blobs[/\\]sha256[-:][0-9a-f]{64}\s*$", re.MULTILINE)
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class OllamaServer:
    """An Ollama that answered on this machine."""

    url: str
    """Where it answers, without a slash at the end."""
    version_text: str
    """What it says its version is."""

    @property
    def version(self) -> tuple[int, int] | None:
        """Major and minor version; None for builds that don't say (0.0.0)."""
        match = _VERSION.match(self.version_text)
        version = (int(match[1]), int(match[2])) if match else (0, 0)
        return None if version == (0, 0) else version

    def digests(self) -> dict[str, str]:
        """Return the models that the server lists: name to ID (the manifest's SHA-256, bare hex)."""
        answer = ask(f"{self.url}/api/tags") or {}
        models = answer.get("models") or []
        return {str(m.get("name")): str(m.get("digest")).removeprefix("sha256:") for m in models}

    def store(self) -> Path | None:
        """Return the server's models folder by its own word; None when it has no model to ask about."""
        for name in list(self.digests())[:ASKED_MODELS]:
            shown = ask(f"{self.url}/api/show", {"model": name, "name": name}) or {}
            match = _FROM.search(str(shown.get("modelfile")))
            if match:
                return Path(match[1].strip().strip('"'))
        return None

    def answer(self, name: str) -> str:
        """Have the model write a few words, and return them; raises ToolError when it does not.

        The first answer loads the model, which takes as long as reading the file from the disk.
        """
        document = {
            "model": name,
            "messages": [{"role": "user", "content": "Say hello in one short sentence."}],
            "stream": False,
            "options": {"num_predict": SMOKE_TOKENS},
        }
        status, answer = request(f"{self.url}/api/chat", document, timeout_s=SMOKE_S)
        message = answer.get("message")
        said = message if isinstance(message, dict) else {}
        text = f"{said.get('thinking') or ''}{said.get('content') or ''}".strip()
        if status != 200 or not text:
            reason = answer.get("error") or ("no words" if status == 200 else f"HTTP {status}")
            hint = "the model stays imported; Ollama's log says more"
            raise ToolError(f"{name} does not answer: {printable(str(reason))}", hint=hint)
        return text


def find_server(host: str | None) -> OllamaServer | None:
    """Return the Ollama at `host` (the variable OLLAMA_HOST), if it is on this machine and answers."""
    url = server_url(host)
    if not is_loopback(url):
        return None
    answer = ask(f"{url}/api/version")
    return None if answer is None else OllamaServer(url, str(answer.get("version", "")))


def server_url(host: str | None) -> str:
    """Return the URL that OLLAMA_HOST means (ollama envconfig/config.go `Host`)."""
    text = (host or "").strip().strip("\"'")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    port = {"http": 80, "https": 443}[scheme] if found and scheme in ("http", "https") else DEFAULT_PORT
    rest, slash, path = rest.partition("/")
    parts = urlsplit(f"//{rest}")
    try:
        port = parts.port or port
    except ValueError:
        port = DEFAULT_PORT
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # listens on all; asked on this one
        name = "127.0.0.1" if name == "0.0.0.0" else "::1"
    name = f"[{name}]" if ":" in name else name
    return f"{scheme}://{name}:{port}{slash}{path}".rstrip("/")


def is_loopback(url: str) -> bool:
    """Say whether the URL is of this machine."""
    name = urlsplit(url).hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def ask(url: str, document: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """GET `url`, or POST `document` to it; None when there is no answer, or no JSON object."""
    try:
        status, answer = request(url, document)
    except ToolError:
        return None
    return answer if status == 200 else None


def request(
    url: str, document: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
) -> tuple[int, dict[str, Any]]:
    """GET `url`, or POST `document` to it; return the status and the answer, which is a JSON object.

    Never through a proxy: this machine's services are not the proxy's. Raises ToolError without an answer.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    body = None if document is None else json.dumps(document).encode()
    asked = Request(url, body, {"Content-Type": "application/json"} if body else {})
    try:
        with build_opener(ProxyHandler({})).open(asked, timeout=timeout_s or TIMEOUT_S) as answer:
            return answer.status, _object(answer.read(MAX_ANSWER_BYTES))
    except HTTPError as refusal:
        with refusal:
            with contextlib.suppress(ValueError, OSError, RecursionError):
                return refusal.code, _object(refusal.read(MAX_ANSWER_BYTES))
            return refusal.code, {}
    except (URLError, OSError, ValueError, RecursionError, HTTPException) as error:
        raise ToolError(f"{url}: no answer ({error})") from None


def _object(data: bytes) -> dict[str, Any]:
    parsed = json.loads(data)
    if not isinstance(parsed, dict):
        raise ValueError("no JSON object")
    return parsed
