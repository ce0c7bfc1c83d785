"""The page at `/`: what is here, and the two variables that send another machine here."""

from __future__ import annotations

import html
from collections.abc import Sequence

from aiohttp import web

from ggufkit.server.context import SHELF
from ggufkit.server.snapshot import Snapshot

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ggufkit</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><pre>{text}</pre></body></html>
"""


async def index(request: web.Request) -> web.Response:
    """Answer with the page: HTML for browsers, plain text for the rest."""
    shelf = request.app[SHELF]
    shelf.asked()
    text = index_text(str(request.url.origin()), shelf.newest())
    if "text/html" in request.headers.get("Accept", ""):
        return web.Response(text=_PAGE.format(text=html.escape(text)), content_type="text/html")
    return web.Response(text=text)


def index_text(url: str, repos: Sequence[Snapshot]) -> str:
    """Say what is served, and how another machine gets it."""
    example = repos[0].repo_id if repos else "owner/name"
    lines = [
        "A ggufkit hub: read-only, speaks the protocols of Hugging Face and ModelScope.",
        "",
        "On the other machine set one of these, or both:",
        f"  export HF_ENDPOINT={url}",
        f"  export MODELSCOPE_ENDPOINT={url}",
        "and then, as ever, one of:",
        f"  ggufkit pull {example}",
        f"  hf download {example}",
        f"  modelscope download --model {example}",
        "",
        f"Repos here: {len(repos)}",
        *(f"  {_line(one)}" for one in repos),
    ]
    return "\n".join(lines) + "\n"


def _line(one: Snapshot) -> str:
    n_bytes = sum(file.size_bytes for file in one.files.values())
    size = f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
    return f"{one.repo_id}  {len(one.files)} files  {size}"
