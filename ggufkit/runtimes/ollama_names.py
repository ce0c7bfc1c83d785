"""Names of Ollama models: the grammar, the short form, and a good name for a file that has none.

Grammar: ollama types/model/name.go `isValidPart`, `isValidLen`, tried against real servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ggufkit.errors import UsageError, printable

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_PARTS = {
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}
_EXAMPLE = "write it like deepseek-r1:671b-ud-iq2_xxs or name/deepseek-r1:671b"

_QUANT = re.compile(
    r"(?P<model>.+?)[-._](?P<quant>(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4\w*|NVFP4))", re.IGNORECASE
)
_SIZE = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bm]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelName:
    """The four parts of a model's name, each valid."""

    host: str
    """Where the name says the model comes from."""
    namespace: str
    """Whose model."""
    model: str
    """The model."""
    tag: str
    """Which one of it."""

    @property
    def path(self) -> PurePosixPath:
        """The manifest's path below `manifests/`: always four levels."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    def __str__(self) -> str:
        """Return the name as `ollama list` shows it: without what is the default, with the tag."""
        name = f"{self.model}:{self.tag}"
        if (self.host, self.namespace) == (DEFAULT_HOST, DEFAULT_NAMESPACE):
            return name
        name = f"{self.namespace}/{name}"
        return name if self.host == DEFAULT_HOST else f"{self.host}/{name}"


def parse_name(text: str) -> ModelName:
    """Read a name as Ollama does (`[[host/]namespace/]model[:tag]`); raises UsageError."""
    head, slash, last = text.rpartition("/")
    model, colon, tag = last.partition(":")
    host, second_slash, namespace = head.rpartition("/")
    parts = {
        "host": host if second_slash else DEFAULT_HOST,
        "namespace": namespace if slash else DEFAULT_NAMESPACE,
        "model": model,
        "tag": tag if colon else DEFAULT_TAG,
    }
    for what, part in parts.items():
        if not _PARTS[what].fullmatch(part):
            reason = f"its {what} {part!r} is not valid" if part else f"it has no {what}"
            raise UsageError(f"{printable(text)!r} is no name for an Ollama model: {reason}", hint=_EXAMPLE)
    return ModelName(**parts)


def default_name(set_name: str, n_parameters: int) -> ModelName:
    """Make a name of a set's: `DeepSeek-R1-UD-IQ2_XXS` gives `deepseek-r1:671b-ud-iq2_xxs`.

    As in Ollama's library the model's size begins the tag; a name that has none gets it from the
    number of parameters.
    """
    label, quant = split_quant(set_name)
    words = [word for word in label.split("-") if word]
    at = next((i for i, word in enumerate(words) if i and _SIZE.fullmatch(word)), None)
    if at is None:
        model, size = words, [size_tag(n_parameters)]
    else:
        model, size = words[:at], words[at:]
    tag = "-".join([*size, quant] if quant else size)
    return parse_name(f"{_clean('-'.join(model)) or 'model'}:{_clean(tag) or DEFAULT_TAG}")


def split_quant(set_name: str) -> tuple[str, str]:
    """Cut a set's name into the model and its quant; the quant is empty when the name has none."""
    match = _QUANT.fullmatch(set_name)
    return (match["model"], match["quant"]) if match else (set_name, "")


def size_tag(n_parameters: int) -> str:
    """Return the size as tags have it: `671b`, `7.6b`, `135m`; empty for less than a million."""
    if n_parameters >= 1_000_000_000:
        return f"{n_parameters / 1e9:.1f}b".replace(".0b", "b")
    return f"{n_parameters / 1e6:.0f}m" if n_parameters >= 1_000_000 else ""


def _clean(part: str) -> str:
    """Make a valid part of any text: lower case, other characters as `-`, at most 80."""
    return re.sub(r"[^a-z0-9_.-]+", "-", part.lower()).strip("-.")[:80].strip("-.")
