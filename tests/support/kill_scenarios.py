"""Commands that write, what each finds, and what must hold after a kill and in the end."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ggufkit.gguf.layout import Span
from ggufkit.transfer.consume_notes import durable_bytes, load_notes
from ggufkit.verbs.record import consume_notes
from tests.verbs.published import everything

REPO_ID = "demo/Kill-Test-GGUF"
NAME = "Kill-Test-GGUF"
STEM = "Kill-Test-Q4_K_M"
BLOCK_BYTES = 1 << 20
OLDER = b"what had the merged file's name before"
OLLAMA_STORE = "ollama-models"
OLLAMA_NAME = "kill-test"
OLLAMA_OTHER = {"config": b"what another model is", "model": b"GGUF of another model"}
"""What a model that was in Ollama's store before consists of."""


@dataclass(frozen=True, slots=True)
class Published:
    """A model as it was published, and the file that its shards make."""

    root: Path
    """The hub's folder."""
    merged: Path
    """The file before it was cut."""
    shards: tuple[Path, ...]
    """The shards, in the hub's folder."""

    @property
    def total_bytes(self) -> int:
        """Size of all shards."""
        return sum(path.stat().st_size for path in self.shards)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, what it finds, and what must hold after a kill and in the end."""

    name: str
    """What the table calls it."""
    arguments: tuple[str, ...]
    """The command line."""
    prepare: Callable[[Path, Published], None]
    """Puts into an empty folder what the command finds."""
    kept: Callable[[Path, Published], None]
    """Asserts after a kill that nothing is lost."""
    done: Callable[[Path, Published], None]
    """Asserts in the end that everything is right."""
    fetches: bool = False
    """Whether it pulls from the hub."""

    def env(self, work: Path) -> dict[str, str]:
        """Return where the command finds Ollama's store: beside the work."""
        return {"OLLAMA_MODELS": str(work / OLLAMA_STORE)}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same(path: Path, other: Path) -> None:
    """Assert that two files are the same."""
    assert digest(path) == digest(other), f"{path.name} is not what it should be"


def no_leavings(work: Path) -> None:
    """Assert that nothing of the work is left.

    A temporary file of a note or a record that a kill met may be: it is removed when it is an hour old.
    """
    left = [p for p in everything(work) if "journal" in p or "consume" in p or p.endswith(".part")]
    left += [p for p in everything(work) if p.endswith(".tmp") and ".ggufkit/" not in p]
    assert not left, left


def copied_shards(work: Path, published: Published) -> None:
    """Put copies of the shards into a folder of their own."""
    (work / STEM).mkdir()
    for path in published.shards:
        shutil.copy(path, work / STEM)


def shards_and_an_older_file(work: Path, published: Published) -> None:
    """Put copies of the shards beside something that is to be replaced."""
    copied_shards(work, published)
    (work / f"{STEM}.gguf").write_bytes(OLDER)


def pulled(work: Path, published: Published) -> None:
    """Assert that the shards are there as published."""
    for path in published.shards:
        same(work / NAME / STEM / path.name, path)
    no_leavings(work)


def pulled_into_one(work: Path, published: Published) -> None:
    """Assert that the merged file is there, and no shard."""
    same(work / NAME / f"{STEM}.gguf", published.merged)
    assert not list(work.rglob("*-of-*.gguf"))
    no_leavings(work)


def in_ollama(work: Path, published: Published) -> None:
    """Assert that Ollama's store has the merged file, once, under its digest, and a manifest of it."""
    pulled_into_one(work, published)
    sha256 = digest(published.merged)
    blob = work / OLLAMA_STORE / "blobs" / f"sha256-{sha256}"
    assert blob.samefile(work / NAME / f"{STEM}.gguf"), "its bytes are on the disk once"
    (manifest,) = models_in_ollama(work).values()
    assert f"sha256-{sha256}" in manifest
    only_models_in_ollama(work)


def one_file_and_another_model(work: Path, published: Published) -> None:
    """Put a copy of the merged file into the folder, and another model into Ollama's store."""
    shutil.copy(published.merged, work / f"{STEM}.gguf")
    another_model(work)


def shards_and_another_model(work: Path, published: Published) -> None:
    """Put copies of the shards into a folder, and another model into Ollama's store."""
    copied_shards(work, published)
    another_model(work)


def another_model(work: Path) -> None:
    """Make Ollama's store, with a model in it."""
    store = work / OLLAMA_STORE
    layers = {}
    for kind, data in OLLAMA_OTHER.items():
        sha256 = hashlib.sha256(data).hexdigest()
        layers[kind] = {"digest": f"sha256:{sha256}", "size": len(data)}
        (store / "blobs").mkdir(parents=True, exist_ok=True)
        (store / "blobs" / f"sha256-{sha256}").write_bytes(data)
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "other" / "latest"
    manifest.parent.mkdir(parents=True)
    model = {**layers["model"], "mediaType": "application/vnd.ollama.image.model"}
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": layers["config"], "layers": [model]}))


def before_or_whole(work: Path, published: Published) -> None:
    """Assert that the file is as it was, the store as it was or the model whole in it, its bytes once."""
    same(work / f"{STEM}.gguf", published.merged)
    store_before_or_whole(work, published)


def shards_kept(work: Path, published: Published) -> None:
    """Assert that no shard was touched, and the store is as it was or the model whole in it."""
    shards_intact(work, published)
    store_before_or_whole(work, published)


def store_before_or_whole(work: Path, published: Published) -> None:
    """Assert that Ollama's store has the other model, and the new one not at all or whole."""
    sha256 = digest(published.merged)
    blob = work / OLLAMA_STORE / "blobs" / f"sha256-{sha256}"
    assert not blob.exists() or blob.samefile(work / f"{STEM}.gguf"), "its bytes are on the disk twice"
    models = models_in_ollama(work)
    assert set(models) in ({"other"}, {"other", OLLAMA_NAME})
    assert f"sha256-{sha256}" in models.get(OLLAMA_NAME, {f"sha256-{sha256}"})


def imported(work: Path, published: Published) -> None:
    """Assert that both models are in Ollama's store, the new one as a second name of its file."""
    before_or_whole(work, published)
    blob = work / OLLAMA_STORE / "blobs" / f"sha256-{digest(published.merged)}"
    assert blob.samefile(work / f"{STEM}.gguf")
    assert set(models_in_ollama(work)) == {"other", OLLAMA_NAME}
    only_models_in_ollama(work)


def shards_imported(work: Path, published: Published) -> None:
    """Assert that the shards are as they were, and the file merged of them in Ollama's store as well."""
    merged(work, published)
    imported(work, published)


def models_in_ollama(work: Path) -> dict[str, set[str]]:
    """Return the names of the blobs of each model in the store; asserts that they are there and whole."""
    store = work / OLLAMA_STORE
    manifests = [p for p in (store / "manifests").rglob("*") if p.is_file() and p.suffix != ".tmp"]
    models = {
        p.parent.name: {f"sha256-{name}" for name in re.findall(r"sha256:([0-9a-f]{64})", p.read_text())}
        for p in manifests
    }
    for name in {name for blobs in models.values() for name in blobs}:
        assert f"sha256-{digest(store / 'blobs' / name)}" == name, f"{name} is not what it should be"
    return models


def only_models_in_ollama(work: Path) -> None:
    """Assert that the store has nothing but its models."""
    store = work / OLLAMA_STORE
    blobs = {name for one in models_in_ollama(work).values() for name in one}
    assert {p.name for p in (store / "blobs").iterdir()} == blobs, "all blobs, and no leavings"
    assert {p.name for p in store.iterdir()} == {"blobs", "manifests"}


def shards_intact(work: Path, published: Published) -> None:
    """Assert that no shard was touched, and that the merged file's name has all of it, or what was there."""
    for path in published.shards:
        same(work / STEM / path.name, path)
    output = work / f"{STEM}.gguf"
    if output.exists() and output.read_bytes() != OLDER:
        same(output, published.merged)


def merged(work: Path, published: Published) -> None:
    """Assert that the merged file is there beside the shards."""
    shards_intact(work, published)
    same(work / f"{STEM}.gguf", published.merged)
    no_leavings(work)


def nothing_lost(work: Path, published: Published) -> None:
    """Assert that each byte is in the merged file's beginning, if noted as durable, or else in its shard."""
    notes = consume_notes(work / STEM, STEM)
    made = load_notes(notes)
    if made is None:
        if (work / f"{STEM}.gguf").exists():
            same(work / f"{STEM}.gguf", published.merged)
        else:
            shards_intact(work, published)
        return
    done = durable_bytes(notes)
    whole = made.part if made.part.exists() else made.target
    if done:
        same_range(whole, 0, published.merged, 0, done)
    for position, segment in made.layout.placed():
        if isinstance(segment, Span) and position + segment.n_bytes > done:
            skip = max(0, done - position)
            source, at = made.sources[segment.source].path, segment.offset + skip
            same_range(source, at, published.merged, position + skip, segment.n_bytes - skip)


def consumed(work: Path, published: Published) -> None:
    """Assert that only the merged file is left."""
    same(work / f"{STEM}.gguf", published.merged)
    assert not list(work.rglob("*-of-*.gguf"))
    no_leavings(work)


def same_range(a: Path, at_a: int, b: Path, at_b: int, n_bytes: int) -> None:
    """Assert that two stretches are the same."""
    with a.open("rb") as file, b.open("rb") as other:
        file.seek(at_a)
        other.seek(at_b)
        while n_bytes > 0:
            data = file.read(min(BLOCK_BYTES, n_bytes))
            assert data and data == other.read(len(data)), f"{a.name} differs after byte {file.tell():,}"
            n_bytes -= len(data)


def nothing(work: Path, published: Published) -> None:
    """Prepare nothing; or there is nothing that could be lost."""


PULL = Scenario("pull", ("pull", REPO_ID), nothing, nothing, pulled, fetches=True)
PULL_MERGE = Scenario(
    "pull --merge", ("pull", REPO_ID, "--merge"), nothing, nothing, pulled_into_one, fetches=True
)
PULL_OLLAMA = Scenario(
    "pull --to ollama", ("pull", REPO_ID, "--to", "ollama"), nothing, nothing, in_ollama, fetches=True
)
MERGE = Scenario("merge", ("merge", STEM, "--force"), shards_and_an_older_file, shards_intact, merged)
CONSUME = Scenario("merge --consume", ("merge", STEM, "--consume"), copied_shards, nothing_lost, consumed)
IMPORT = Scenario(
    "ollama-import",
    ("ollama-import", f"{STEM}.gguf", "--name", OLLAMA_NAME),
    one_file_and_another_model,
    before_or_whole,
    imported,
)
IMPORT_SHARDS = Scenario(
    "ollama-import of shards",
    ("ollama-import", STEM, "--name", OLLAMA_NAME),
    shards_and_another_model,
    shards_kept,
    shards_imported,
)
SCENARIOS = (PULL, PULL_MERGE, PULL_OLLAMA, MERGE, CONSUME, IMPORT, IMPORT_SHARDS)
