"""Questions to a running Ollama on this machine: its version, its store, its models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

DEFAULT_PORT = 11434
TIMEOUT_S = 3.0
MAX_ANSWER_BYTES = 64 << 20  # a list of thousands of models has a few
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
    """GET `url`, or POST `document` to it; None when there is no answer, or no JSON object.

    Never through a proxy: this machine's services are not the proxy's.
    """
    from http.client import HTTPException
    from urllib.request import ProxyHandler, Request, build_opener

    body = None if document is None else json.dumps(document).encode()
    request = Request(url, body, {"Content-Type": "application/json"} if body else {})
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            parsed = json.loads(answer.read(MAX_ANSWER_BYTES))
    except (URLError, OSError, ValueError, HTTPException):
        return None
    return parsed if isinstance(parsed, dict) else None
