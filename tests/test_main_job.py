"""The main job on real models: from a name on a hub to an answer, through the command line only."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import testbed

from ggufkit.verbs.locate import find_model
from ggufkit.verbs.split import plan_split, split
from tests.support.hub import TestHub, run_hub
from tests.support.runtimes import NO_GPU, run_llama_server, run_ollama

pytestmark = [pytest.mark.models, pytest.mark.runtimes]

REPO, QUANT = "unsloth/DeepSeek-R1-GGUF", "UD-IQ2_XXS"
STEM = f"DeepSeek-R1-{QUANT}"


@dataclass(frozen=True)
class Published:
    """A real model as its publisher gave it."""

    repo: str
    stem: str
    quant: str
    sha256: str
    shard_bytes: int


MODELS = {
    "smollm2": Published(REPO, STEM, QUANT, testbed.SMOLLM2_SHA256, 40_000_000),
    "gemma3": Published(
        "google/gemma-3-270m-GGUF", "gemma-3-270m-Q4_K_M", "Q4_K_M", testbed.GEMMA3_SHA256, 200_000_000
    ),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHub]:
    """A hub with a CDN that has both models in shards."""
    folder = tmp_path_factory.mktemp("main-job")
    for name, model in MODELS.items():
        source = folder / "source" / f"{model.stem}.gguf"
        source.parent.mkdir(exist_ok=True)
        source.symlink_to(testbed.smollm2() if name == "smollm2" else testbed.gemma3())
        target = folder / "hub" / model.repo / model.stem
        split(plan_split(find_model(str(source)), max_bytes=model.shard_bytes, output=target))
    with run_hub(folder / "hub", cdn=True, cache_folder=folder / "cache") as hub:
        yield hub


@dataclass(frozen=True)
class Prompt:
    """A user's prompt: a folder and an environment."""

    folder: Path
    env: dict[str, str]

    def run(self, line: str, **more: str) -> str:
        """Run `ggufkit <line>`; returns its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "ggufkit", *line.split()],
            cwd=self.folder,
            env={**self.env, **more},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def prompt(hub: TestHub, tmp_path: Path) -> Prompt:
    folder = tmp_path / "work"
    folder.mkdir()
    return Prompt(folder, hub.client_env(tmp_path / "home"))


@pytest.mark.parametrize("source", ["hf", "modelscope"])
@pytest.mark.parametrize("name", MODELS)
def test_pulled_over_either_protocol_it_is_what_was_published(
    name: str, source: str, hub: TestHub, prompt: Prompt
) -> None:
    model = MODELS[name]
    report = json.loads(prompt.run(f"pull {model.repo} --quant {model.quant} --source {source} --json"))
    assert report["hub"] == ("huggingface" if source == "hf" else "modelscope")
    assert len(report["files"]) > 1
    for file in report["files"]:
        assert sha256_of(prompt.folder / file["target"]) == file["sha256"]
    merged = json.loads(prompt.run("merge --json"))
    assert merged["sha256"] == model.sha256
    assert sha256_of(prompt.folder / merged["output"]) == model.sha256
    assert "verified" in prompt.run(f"verify {Path(report['files'][0]['target']).parent}")


@pytest.mark.parametrize("name", MODELS)
def test_llama_server_answers_from_the_merged_file_the_shards_and_lm_studios_folder(
    name: str, prompt: Prompt
) -> None:
    model = MODELS[name]
    prompt.run(f"pull {model.repo} --quant {model.quant}")
    shards = sorted(prompt.folder.rglob("*-of-*.gguf"))
    prompt.run(f"lmstudio-import {shards[0]} --models-dir {prompt.folder / 'lmstudio'}")
    imported = next((prompt.folder / "lmstudio").rglob("*-00001-of-*.gguf"))
    assert imported.samefile(shards[0])
    merged = Path(prompt.run("merge -q").strip())
    answers = []
    for path in (prompt.folder / merged, shards[0], imported):
        with run_llama_server(path) as server:
            answers.append(server.complete("The capital of France is", 8))
    assert answers[0].strip()
    assert len(set(answers)) == 1


@pytest.mark.parametrize("version", testbed.OLLAMA_VERSIONS)
def test_the_four_lines_in_a_row(version: str, prompt: Prompt, tmp_path: Path) -> None:
    with run_ollama(testbed.ollama(version), tmp_path / "ollama") as ollama:
        there = {"OLLAMA_HOST": ollama.url, "OLLAMA_MODELS": str(ollama.models_dir)}
        prompt.run(f"pull {REPO} --quant {QUANT}")
        prompt.run("merge")
        imported = json.loads(prompt.run("ollama-import --json", **there))
        verdict = prompt.run("fit --ram 256G -q").strip()
        assert verdict == "fits"
        assert imported["sha256"] == testbed.SMOLLM2_SHA256
        assert imported["name"] in ollama.cli("list").stdout
        merged = prompt.folder / "DeepSeek-R1-GGUF" / f"{STEM}.gguf"
        assert Path(imported["blob"]).samefile(merged), "the bytes are on disk once"
        assert _size_of_others(ollama.models_dir, Path(imported["blob"])) < 1 << 20
        if version == "0.5.4":  # the other build's runner aborts
            question = {"role": "user", "content": "Say hello."}
            options = {**NO_GPU, "num_predict": 16}
            body = {"model": imported["name"], "messages": [question], "stream": False, "options": options}
            status, answer = ollama.api("POST", "/api/chat", body)
            assert status == 200
            assert answer["message"]["content"].strip()


def _size_of_others(store: Path, blob: Path) -> int:
    files = [p for p in store.rglob("*") if p.is_file() and p != blob]
    return sum(p.stat().st_size for p in files)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
