"""The hubs' addresses, and which of them may see a token."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ggufkit.errors import UsageError, printable
from ggufkit.hubs.refs import HubName

TITLES: dict[HubName, str] = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
TOKEN_VARIABLES: dict[HubName, str] = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
DEFAULTS: dict[HubName, str] = {
    "huggingface": "https://huggingface.co",  # huggingface_hub constants.py _HF_DEFAULT_ENDPOINT
    "modelscope": "https://modelscope.cn",  # modelscope_hub constants.py DEFAULT_ENDPOINT
}
TOKEN_HOSTS_VARIABLE = "GGUFKIT_TOKEN_HOSTS"
"""Hosts, with commas between, that may see tokens besides the hubs' own."""

_VARIABLES: dict[HubName, tuple[str, ...]] = {
    "huggingface": ("HF_ENDPOINT",),
    "modelscope": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),  # the second is deprecated, and still read
}
_OWN_HOSTS: dict[HubName, frozenset[str]] = {
    "huggingface": frozenset({"huggingface.co", "hf.co"}),
    "modelscope": frozenset({"modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai"}),
}


def endpoint_of(hub: HubName, endpoint: str | None = None) -> str:
    """Return the base URL to ask: `endpoint`, else what the environment says now, else the hub's own.

    Raises UsageError when it is no http(s) address.
    """
    names = [name for name in _VARIABLES[hub] if os.environ.get(name, "").strip()]
    text = endpoint or (os.environ[names[0]] if names else DEFAULTS[hub])
    url = text.strip()
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
        url = f"https://{url}"
    if not _is_address(url):
        source = "the endpoint" if endpoint else names[0]
        example = f"write it like {DEFAULTS[hub]}"
        shown = re.sub(r"//[^/@]*@", "//…@", printable(text))  # a name and a password are nobody's business
        raise UsageError(f"{source} '{shown}' is not the address of a hub", hint=example)
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    # a name or password in the URL would end up in messages and manifests
    plain = parts.username is None and not parts.query and not parts.fragment and not re.search(r"\s", url)
    return plain and parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and port != 0


def may_see_token(hub: HubName, endpoint: str) -> bool:
    """Say whether a token may be sent to `endpoint`: only to the hub itself over TLS.

    A mirror, even one set by HF_ENDPOINT, is somebody else's machine: it sees the token only when
    GGUFKIT_TOKEN_HOSTS names its host.
    """
    parts = urlsplit(endpoint)
    if parts.scheme.lower() == "https" and parts.hostname in _OWN_HOSTS[hub] and parts.port in (None, 443):
        return True
    trusted = {host.strip().lower() for host in os.environ.get(TOKEN_HOSTS_VARIABLE, "").split(",")}
    return bool(trusted & {parts.hostname, parts.netloc.lower()})


def is_own_host(hub: HubName, endpoint: str) -> bool:
    """Say whether `endpoint` is one of the hub's own hosts, and no mirror of it."""
    return urlsplit(endpoint).hostname in _OWN_HOSTS[hub]


def title_of(hub: HubName, endpoint: str) -> str:
    """Return what messages call the hub: its name, and the host when it is not the hub's own."""
    return TITLES[hub] if is_own_host(hub, endpoint) else f"{TITLES[hub]} at {urlsplit(endpoint).netloc}"


def page_url(hub: HubName, endpoint: str, repo_id: str) -> str:
    """Return the repo's page for people."""
    return f"{endpoint}/models/{repo_id}" if hub == "modelscope" else f"{endpoint}/{repo_id}"
