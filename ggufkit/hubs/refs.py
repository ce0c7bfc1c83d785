"""Names of repos as people write them: `owner/name`, `hf:`, `ms:`, `@revision`, `:QUANT`, page URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from ggufkit.errors import UsageError, printable

HubName = Literal["huggingface", "modelscope"]

_HUB_OF_PREFIX: dict[str, HubName] = {"hf": "huggingface", "ms": "modelscope"}
_HUB_OF_HOST: dict[str, HubName] = {
    "huggingface.co": "huggingface",
    "hf.co": "huggingface",
    "hf-mirror.com": "huggingface",
    "modelscope.cn": "modelscope",
    "modelscope.ai": "modelscope",
}
_PAGES_OF_FILES = ("tree", "blob", "resolve", "raw")
"""Third parts of a page URL that a revision and a path follow."""
_PAGES_OF_REPOS = ("summary", "files", "file", "commits", "commit", "discussions", "feedback")
"""Third parts of a page URL that say nothing about a file."""
_NOT_OWNERS = frozenset({"api", "collections", "datasets", "docs", "models", "spaces", "studios"})
"""First parts of page URLs that are no owner of a model."""

# The Hub allows letters, digits, '-', '_', '.', at most 96 (huggingface_hub utils/_validators.py).
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_PLAIN = re.compile(
    rf"(?:(?P<hub>hf|ms):(?://)?)?(?P<repo_id>{_PART}/{_PART})(?:@(?P<revision>{_REVISION.pattern}))?"
    r"(?::(?P<quant>[^\s:@\\\x00-\x1f][^:@\\\x00-\x1f]*))?"
)
_EXPLICIT = re.compile(r"(?:hf|ms):|https?://", re.IGNORECASE)
_EXAMPLE = "write owner/name, as in unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS; hf: or ms: before it asks one hub"


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repo of a hub, and what of it is wanted."""

    hub: HubName | None
    """The only hub to ask; None asks both."""
    repo_id: str
    """`owner/name`."""
    revision: str | None
    """Branch, tag or commit; None is the hub's default branch."""
    quant: str | None
    """A quant's name, or the path of a file or folder in the repo."""


def parse_ref(text: str) -> RepoRef:
    """Return the repo that `text` names; the disk is not looked at.

    Raises UsageError when it names none.
    """
    ref = _parse(text.strip())
    if ref is None or _is_file_name(text.strip()):
        raise UsageError(f"'{printable(text)}' is not the name of a repo", hint=_EXAMPLE)
    return ref


def is_ref(text: str) -> bool:
    """Say whether `text` looks like a repo's name and is no path on this disk.

    `hf:`, `ms:` and URLs always do; `./x`, `x.gguf` and whatever exists never do.
    """
    text = text.strip()
    if _EXPLICIT.match(text):
        return True
    return _parse(text) is not None and not _is_file_name(text) and not _exists(text)


def check_repo_id(repo_id: str) -> str:
    """Return `repo_id` when it is `owner/name`, so that it can stand in a URL; else raise UsageError."""
    if _parse_plain(repo_id) != RepoRef(None, repo_id, None, None):
        raise UsageError(f"'{printable(repo_id)}' is not the name of a repo", hint=_EXAMPLE)
    return repo_id


def check_revision(revision: str) -> str:
    """Return `revision` when it can be the name of a branch, tag or commit; else raise UsageError."""
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UsageError(
            f"'{printable(revision)}' is not the name of a revision", hint="a branch, tag or commit"
        )
    return revision


def hub_of_host(host: str) -> HubName | None:
    """Return the hub that a host is, or mirrors, where it is a known one."""
    return _HUB_OF_HOST.get(host.lower().removeprefix("www."))


def _parse(text: str) -> RepoRef | None:
    hub, rest = _hub_and_rest(text)
    return _parse_plain(text) if hub is None else _parse_page(hub, rest)


def _hub_and_rest(text: str) -> tuple[HubName | None, str]:
    """Return the hub whose host `text` begins with, and what follows the host."""
    host, _, rest = re.sub(r"^https?://", "", text, flags=re.IGNORECASE).partition("/")
    return hub_of_host(host), rest


def _parse_plain(text: str, hub: HubName | None = None) -> RepoRef | None:
    match = _PLAIN.fullmatch(text)
    if match is None or ".." in match["repo_id"] or ".." in (match["revision"] or ""):
        return None
    if match["hub"] is not None:
        hub = _HUB_OF_PREFIX[match["hub"]]
    return RepoRef(hub, match["repo_id"], match["revision"], match["quant"])


def _parse_page(hub: HubName, rest: str) -> RepoRef | None:
    """Parse what follows the host in a page's URL, or in `hf.co/owner/name:QUANT`."""
    url = urlsplit("//host/" + rest)
    parts = [unquote(part) for part in url.path.split("/") if part]
    if hub == "modelscope" and parts[:1] == ["models"]:
        parts = parts[1:]
    if not parts or parts[0] in _NOT_OWNERS:
        return None
    if parts[2:4] == ["file", "view"]:  # ModelScope's page of a file
        parts[2:4] = ["blob"]
    page = parts[2] if len(parts) > 2 else ""
    if page in _PAGES_OF_FILES:
        return _parse_file_page(hub, parts)
    return _parse_plain("/".join(parts[:2] if page in _PAGES_OF_REPOS else parts), hub)


def _parse_file_page(hub: HubName, parts: list[str]) -> RepoRef | None:
    repo_id = "/".join(parts[:2])
    if not parts[3:]:
        return _parse_plain(repo_id, hub)
    n_revision = 3 if parts[3] == "refs" else 1  # refs/pr/1 has slashes
    revision, path = "/".join(parts[3 : 3 + n_revision]), "/".join(parts[3 + n_revision :])
    ref = _parse_plain(f"{repo_id}@{revision}", hub)
    wanted = path if parts[2] == "tree" or ".gguf" in path.lower() else ""
    return replace(ref, quant=wanted or None) if ref is not None else None


def _is_file_name(text: str) -> bool:
    """Say whether `text` is `folder/x.gguf`; repos that end so are written `X.GGUF` or get a prefix."""
    return text.endswith(".gguf") and ":" not in text and _hub_and_rest(text)[0] is None


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # too long for a file name
        return False
