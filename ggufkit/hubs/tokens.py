"""Whether a hub's client would find a token on this machine; never the token itself."""

from __future__ import annotations

import os
from contextlib import suppress

from ggufkit.errors import AccessError
from ggufkit.hubs.endpoints import TOKEN_VARIABLES
from ggufkit.hubs.refs import HubName


def token_found_by(hub: HubName) -> str | None:
    """Return what holds a token for `hub`: the variable's name, or `its client's own file`; None for none."""
    if os.environ.get(TOKEN_VARIABLES[hub], "").strip():
        return TOKEN_VARIABLES[hub]
    return "its client's own file" if _in_file(hub) else None


def token_trouble(hub: HubName) -> AccessError | None:
    """Return why the token that a client would send to `hub` can't be read; None when nothing is wrong."""
    if hub == "huggingface":
        from ggufkit.hubs import huggingface

        try:
            huggingface.client_token()
        except AccessError as error:
            return error
    return None


def _in_file(hub: HubName) -> bool:
    if hub == "huggingface":
        from ggufkit.hubs import huggingface

        with suppress(AccessError):  # one that can't be read is none
            return bool(huggingface.client_token())
        return False
    from ggufkit.hubs.modelscope import client_token

    return bool(client_token())
