"""Ollama's store on disk: blobs named by digest, manifests named by model; found, read and written.

Layout: `blobs/sha256-<hex>` and `manifests/<host>/<namespace>/<model>/<tag>`, unchanged from 0.1 to 0.33
(ollama manifest/paths.go, server/modelpath.go). A start of the server removes blobs that no manifest names,
and whatever else lies in `blobs/`; a stray file in a tag folder stops that clean-up or is listed as a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufkit.runtimes.ollama_names import ModelName
from ggufkit.transfer.disk import staging_folder

STAGING = ".ggufkit-import"
_LAYER = "application/vnd.ollama.image."
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
MAX_MANIFEST_BYTES = 4 << 20  # a cap of our own: real ones have some hundred bytes


@dataclass(frozen=True, slots=True)
class SmallLayer:
    """A layer that we write ourselves: template, params or license."""

    kind: str
    """The last word of its media type."""
    text: str
    """What is in it."""

    @property
    def data(self) -> bytes:
        """The blob's bytes."""
        return self.text.encode()

    @property
    def sha256(self) -> str:
        """The blob's digest, bare hex."""
        return sha256_of(self.data)


@dataclass(frozen=True, slots=True)
class Blob:
    """What a manifest says of one blob."""

    media_type: str
    """Its media type."""
    sha256: str
    """Its digest, bare hex."""
    size_bytes: int
    """Its size, by the manifest's word."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A manifest in the store."""

    file: Path
    """Where it is."""
    data: bytes
    """Its bytes; their SHA-256 is the model's ID."""
    config: Blob
    """The config blob."""
    layers: tuple[Blob, ...]
    """The layers, in order."""

    @property
    def model(self) -> Blob | None:
        """The layer with the weights (of several, the last wins: images.go `GetModel`)."""
        models = [layer for layer in self.layers if layer.media_type == f"{_LAYER}model"]
        return models[-1] if models else None


@dataclass(frozen=True, slots=True)
class Store:
    """A models folder of Ollama, which need not exist yet."""

    root: Path
    """The folder with `blobs/` and `manifests/`."""

    @property
    def blobs(self) -> Path:
        """The folder of the blobs."""
        return self.root / "blobs"

    @property
    def manifests(self) -> Path:
        """The folder of the manifests."""
        return self.root / "manifests"

    @property
    def staging(self) -> Path:
        """Where a blob is written before it is renamed into place."""
        return staging_folder(self.blobs, STAGING)

    @property
    def manifest_staging(self) -> Path:
        """Where a manifest is written before it is renamed into place."""
        return staging_folder(self.manifests, STAGING)

    def blob(self, sha256: str) -> Path:
        """Return where the blob with this digest (bare hex) is, or would be."""
        return self.blobs / f"sha256-{sha256}"

    def spelled(self, name: ModelName) -> ModelName:
        """Return `name` as it is spelled here.

        Names that differ only in case are one model to Ollama (server/routes.go `getExistingName`): what
        is there already decides.
        """
        folder, parts = self.manifests, []
        for part in name.path.parts:
            parts.append(_spelled(folder, part))
            folder /= parts[-1]
        return ModelName(*parts)

    def manifest(self, name: ModelName) -> Path:
        """Return where the manifest of `name` is, or would be."""
        return self.manifests / self.spelled(name).path

    def models(self) -> Iterator[StoredModel]:
        """Yield the models in the store."""
        for file in sorted(self.manifests.glob("*/*/*/*")):
            model = read_manifest(file)
            if model is not None:
                yield model

    def has(self, sha256: str, size_bytes: int) -> bool:
        """Say whether the blob with this digest is there, with the size it must have."""
        try:
            return self.blob(sha256).stat().st_size == size_bytes
        except OSError:
            return False

    def small_blob(self, sha256: str) -> bytes | None:
        """Return what is in a small blob (a template, parameters, a config); None when it can't be read."""
        try:
            with self.blob(sha256).open("rb") as file:
                return file.read(MAX_MANIFEST_BYTES)
        except OSError:
            return None

    def uses(self, sha256: str) -> bool:
        """Say whether any manifest names the blob with this digest."""
        return any(sha256 == b.sha256 for m in self.models() for b in (m.config, *m.layers))


def read_manifest(file: Path) -> StoredModel | None:
    """Read a manifest; None when it is missing or not one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        with file.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES)
        document = json.loads(data)
        return StoredModel(file, data, _blob(document["config"]), tuple(map(_blob, document["layers"])))
    return None


def encode_manifest(config: bytes, model: tuple[str, int], layers: Sequence[SmallLayer]) -> bytes:
    """Return a manifest as Ollama writes it; `model` is the weights' digest (bare hex) and size in bytes."""
    sha256, n_bytes = model
    described = [_described(f"{_LAYER}model", sha256, n_bytes)]
    described += [_described(f"{_LAYER}{layer.kind}", layer.sha256, len(layer.data)) for layer in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _described(_CONFIG, sha256_of(config), len(config)),
        "layers": described,
    }
    return compact_json(document) + b"\n"  # Go's json.Encoder ends with a newline


def sha256_of(data: bytes) -> str:
    """Return the digest of a small blob, bare hex."""
    return hashlib.sha256(data).hexdigest()


def compact_json(document: Mapping[str, Any]) -> bytes:
    """Encode as Go does: no blanks; other than Go, nothing but what JSON asks for is escaped."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _blob(document: Any) -> Blob:
    match = _DIGEST.fullmatch(document["digest"])
    if match is None:
        raise ValueError("no digest")
    return Blob(str(document["mediaType"]), match[1], int(document["size"]))


def _described(media_type: str, sha256: str, n_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": n_bytes}


def _spelled(folder: Path, part: str) -> str:
    """Return how `part` is spelled in `folder`: as asked if that is there or nothing like it is."""
    try:
        there = sorted(path.name for path in folder.iterdir())
    except OSError:
        return part
    alike = [name for name in there if name.lower() == part.lower()]
    return part if part in alike or not alike else alike[0]
