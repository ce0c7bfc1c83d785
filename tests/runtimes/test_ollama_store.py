"""The store on disk: paths, manifests as Ollama writes them, and what others may have left there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ggufkit.runtimes.ollama_names import parse_name
from ggufkit.runtimes.ollama_store import SmallLayer, Store, encode_manifest, read_manifest, sha256_of

MODEL = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def put(store: Store, name: str, data: bytes) -> Path:
    file = store.manifests / parse_name(name).path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def manifest(model: str = MODEL, size_bytes: int = 7) -> bytes:
    layers = (SmallLayer("template", "{{ .Prompt }}"), SmallLayer("params", '{"stop":["<｜User｜>"]}'))
    return encode_manifest(b"{}", (model, size_bytes), layers)


def test_paths(store: Store) -> None:
    assert store.blob(MODEL) == store.root / "blobs" / f"sha256-{MODEL}"
    wanted = store.root / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    assert store.manifest(parse_name("m")) == wanted


def test_a_manifest_is_what_ollama_writes() -> None:
    data = manifest()
    assert data.endswith(b"}\n")
    assert b": " not in data
    document = json.loads(data)
    assert list(document) == ["schemaVersion", "mediaType", "config", "layers"]
    assert document["config"] == {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest(),
        "size": 2,
    }
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in document["layers"]]
    assert kinds == ["model", "template", "params"]
    params = '{"stop":["<｜User｜>"]}'.encode()
    assert document["layers"][2]["size"] == len(params), "sizes are of bytes, not of characters"
    assert document["layers"][2]["digest"] == f"sha256:{sha256_of(params)}"


def test_what_was_written_is_read_back(store: Store) -> None:
    stored = read_manifest(put(store, "m", manifest()))
    assert stored is not None
    assert stored.model is not None
    assert (stored.model.sha256, stored.model.size_bytes) == (MODEL, 7)
    assert [layer.size_bytes for layer in stored.layers] == [7, 13, 25]


def test_the_last_of_several_models_counts(store: Store) -> None:
    document = json.loads(manifest())
    document["layers"].append({**document["layers"][0], "digest": "sha256:" + "cd" * 32})
    stored = read_manifest(put(store, "m", json.dumps(document).encode()))
    assert stored is not None
    assert stored.model is not None
    assert stored.model.sha256 == "cd" * 32


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        manifest().replace(b"sha256:ab", b"sha256:.."),
        manifest().replace(b'"size":7', b'"size":null'),
        manifest().replace(b'"layers":', b'"layer":'),
    ],
)
def test_what_is_no_manifest_is_none(store: Store, data: bytes) -> None:
    file = put(store, "bad", data)
    put(store, "good", manifest())
    assert read_manifest(file) is None
    assert len(list(store.models())) == 1


def test_nothing_there(store: Store) -> None:
    assert read_manifest(store.manifest(parse_name("m"))) is None
    assert list(store.models()) == []
    assert not store.uses(MODEL)
    assert not store.has(MODEL, 7)
    assert not store.root.exists()


def test_uses_counts_weights_small_layers_and_configs(store: Store) -> None:
    put(store, "me/m:t", manifest())
    put(store, "hf.co/me/m:t", manifest("cd" * 32))
    assert store.uses(MODEL)
    assert store.uses("cd" * 32)
    assert store.uses(sha256_of(b"{}"))
    assert store.uses(sha256_of(b"{{ .Prompt }}"))
    assert not store.uses("ef" * 32)


def test_has_asks_for_the_size_too(store: Store) -> None:
    store.blobs.mkdir(parents=True)
    store.blob(MODEL).write_bytes(b"7 bytes")
    assert store.has(MODEL, 7)
    assert not store.has(MODEL, 8)
    store.blob("cd" * 32).symlink_to("nowhere")
    assert not store.has("cd" * 32, 7)


@pytest.mark.parametrize(
    ("asked", "spelled"),
    [
        ("Bare", "bare:latest"),
        ("bare:LATEST", "bare:latest"),
        ("BARE:other", "bare:other"),
        ("ME/Model:TAG", "Me/Model:Tag"),
        ("me/new", "Me/new:latest"),
        ("registry.OLLAMA.ai/Library/bare", "bare:latest"),
    ],
)
def test_what_is_there_decides_the_spelling(store: Store, asked: str, spelled: str) -> None:
    put(store, "bare", manifest())
    put(store, "Me/Model:Tag", manifest())
    assert str(store.spelled(parse_name(asked))) == spelled


def test_of_two_spellings_the_one_asked_for_is_taken(store: Store) -> None:
    put(store, "bare", manifest())
    put(store, "BARE", manifest())
    if len(list((store.manifests / "registry.ollama.ai" / "library").iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    assert [store.spelled(parse_name(n)).model for n in ("bare", "BARE", "Bare")] == ["bare", "BARE", "BARE"]


def test_temporary_files_are_where_ollama_does_not_look(store: Store) -> None:
    """Not in blobs/ (emptied of strangers at start), nor four levels down in manifests/ (listed)."""
    for folder in (store.staging, store.manifest_staging):
        assert folder.parent == store.root.resolve()
