"""The MODEL that a command is about; when none was named, it says which one is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.render import Out
from ggufkit.errors import printable

if TYPE_CHECKING:
    from ggufkit.verbs.locate import LoadedModel, LocalModel


def model_here(out: Out, model: str | None) -> LocalModel:
    """Find the model on this machine."""
    from ggufkit.verbs.locate import find_model

    found = find_model(model)
    if model is None:
        out.say(f"model: {found.folder / found.name}")
    return found


def model_headers(out: Out, model: str | None, source: str) -> LoadedModel:
    """Load the headers of the model, which may be in a repo on a hub."""
    from ggufkit.verbs.locate import load_headers

    loaded = load_headers(model, source=source, progress=out.progress())
    if model is None:
        out.say(f"model: {printable(loaded.where)}")
    return loaded
