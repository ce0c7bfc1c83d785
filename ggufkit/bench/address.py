"""Where a server is, which API it speaks, and which key it may see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ggufkit.bench.clients import Client, LMStudio, Ollama, OpenAI
from ggufkit.bench.result import Api
from ggufkit.bench.web import Refused, Web, friendly
from ggufkit.errors import NetworkError, UsageError
from ggufkit.runtimes.ollama_server import server_url

LMSTUDIO_URL = "http://127.0.0.1:1234"  # lmstudio-js createClient.ts DEFAULT_SERVER_PORT
KEY_OF_HOST = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.deepseek.com": "DEEPSEEK_API_KEY",
    "ollama.com": "OLLAMA_API_KEY",
}
KEY_OF_API = {"lmstudio": "LM_API_TOKEN"}
ANY_KEY = "GGUFKIT_API_KEY"
PROBE_TIMEOUT_S = 10.0

_ENDPOINT = re.compile(r"/(chat/completions|completions|models|chat|generate|tags)$")
_VERSION = re.compile(r"/v\d+$")


def open_client(url: str | None, api: Api | None, environ: Mapping[str, str]) -> Client:
    """Return the client for a server; what is left out is guessed by asking the server.

    Raises UsageError for a URL that is none, NetworkError when nobody answers.
    """
    if url is None:
        url = _default_url(api, environ)
    base, root = split_url(url)
    web = Web(base, _key(base, api, environ))
    found: Api = api or _guess(web)
    web.key = _key(base, found, environ)
    if found == "ollama":
        return Ollama(web, _text(_probe(web, "/api/version").get("version")))
    if found == "lmstudio":
        return LMStudio(web)
    return _openai(web, root)


def _default_url(api: Api | None, environ: Mapping[str, str]) -> str:
    if api == "openai":
        raise UsageError("--api openai needs an address", hint="--url http://127.0.0.1:8080/v1")
    return LMSTUDIO_URL if api == "lmstudio" else server_url(environ.get("OLLAMA_HOST"))


def split_url(url: str) -> tuple[str, str]:
    """Return a server's address without path of an API, and what stands before /chat/completions there.

    `host:8080`, `http://host:8080/v1/` and `http://host:8080/v1/chat/completions` are the same server.
    """
    text = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise UsageError(f"{url} is no address", hint="--url http://127.0.0.1:11434") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url} is no address", hint="--url http://127.0.0.1:11434")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = _ENDPOINT.sub("", parts.path.rstrip("/"))
    version = _VERSION.search(path)
    path = _VERSION.sub("", path)
    if path == "/api":
        path = ""
    return f"{parts.scheme}://{host}{port}{path}", version[0] if version else "/v1"


def _key(base: str, api: Api | None, environ: Mapping[str, str]) -> str | None:
    """Return the key that this server may see: one named for it, else the one for any server."""
    own = KEY_OF_HOST.get(urlsplit(base).hostname or "")
    names = [name for name in (own, KEY_OF_API.get(api or ""), ANY_KEY) if name]
    return next((environ[name] for name in names if environ.get(name)), None)


def _guess(web: Web) -> Api:
    if "version" in _probe(web, "/api/version"):
        return "ollama"
    if _probe(web, "/lmstudio-greeting").get("lmstudio"):
        return "lmstudio"
    return "openai"


def _openai(web: Web, root: str) -> OpenAI:
    """Return the client, after a look at what kind of server it is."""
    client = OpenAI(web, root)
    props = _probe(web, "/props")
    if "build_info" in props or "default_generation_settings" in props:
        client.kind, client.version = "llama-server", _text(props.get("build_info"))
    elif "version" in (found := _probe(web, "/api/version")):
        client.kind, client.version = "ollama", _text(found.get("version"))
    return client


def _probe(web: Web, path: str) -> dict[str, Any]:
    """Return what a path answers, nothing for a refusal; raises NetworkError when nobody is there."""
    try:
        return web.ask(path, timeout_s=PROBE_TIMEOUT_S)
    except Refused as refusal:
        if refusal.status in (407, 502, 503, 504):
            raise friendly(refusal, web.base) from None
        return {}
    except NetworkError as error:
        error.hint = error.hint or "is it running? --url names another address"
        raise


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
