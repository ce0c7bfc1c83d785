"""The README's sessions: found, run for real, and written back."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import testbed

from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, to_json
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.split import plan_split, split
from tests.support.ggufs import r1_shards
from tests.support.hub import run_hub
from tests.support.runtimes import run_ollama

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
SMOL_REPO, SMOL_STEM = "demo/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_1"
R1_REPO, R1_STEM = "unsloth/DeepSeek-R1-GGUF", "DeepSeek-R1-UD-IQ2_XXS"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NORMAL = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8090"),
    (re.compile(r"in \d+\.\d s"), "in 0.2 s"),
)


@dataclass(frozen=True, slots=True)
class Session:
    """One block of a README: a command, and what it printed."""

    command: str
    """The line behind `$ `."""
    output: str
    """All that it prints, both streams."""


def sessions(readme: Path) -> list[Session]:
    """Return the sessions of a README, in order."""
    found = []
    for block in _BLOCK.findall(readme.read_text("utf-8")):
        command, _, output = block.partition("\n")
        found.append(Session(command.removeprefix("$ "), output))
    return found


def run_all(commands: list[str], folder: Path) -> list[Session]:
    """Run the commands in order in an empty folder, against a hub and a real Ollama."""
    work = folder / "work"
    work.mkdir()
    with run_hub(fill_hub(folder / "hub")) as hub:
        env = {**hub.client_env(folder / "home"), "GGUFKIT_PROGRESS": "off", "COLUMNS": "100"}
        with run_ollama(testbed.ollama("0.9.3"), folder / "ollama") as ollama:
            env["OLLAMA_HOST"] = ollama.url
            return [Session(command, _run(command, work, env)) for command in commands]


def _run(command: str, work: Path, env: dict[str, str]) -> str:
    program, *arguments = shlex.split(command)
    assert program == "ggufkit", command
    done = subprocess.run(
        [sys.executable, "-m", "ggufkit", *arguments],
        cwd=work,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.replace(f"{work}{os.sep}", "").replace(str(work.parent), "~")
    for pattern, text in _NORMAL:
        output = pattern.sub(text, output)
    return output


def fill_hub(root: Path) -> Path:
    """Make a hub's folder: SmolLM2 in three shards, and R1's full-size sparse shards."""
    source = root.parent / "source" / f"{SMOL_STEM}.gguf"
    source.parent.mkdir(parents=True)
    shutil.copy(testbed.smollm2(), source)
    folder = root / SMOL_REPO / SMOL_STEM
    split(plan_split(find_model(str(source)), max_bytes=40_000_000, output=folder))
    _sparse_r1(root / R1_REPO)
    return root


def _sparse_r1(folder: Path) -> None:
    """Write R1's shards as holes, with a manifest, or the hub would hash 184 GiB of zeros."""
    shards = r1_shards(folder / R1_STEM / f"{R1_STEM}.gguf")
    files = tuple(
        ManifestFile(f"{R1_STEM}/{p.name}", p.stat().st_size, f"{i:064x}", None) for i, p in enumerate(shards)
    )
    source = ManifestSource("huggingface", "https://huggingface.co", R1_REPO, "main", None)
    record = folder / ".ggufkit" / f"{R1_STEM}.json"
    record.parent.mkdir()
    record.write_text(to_json(Manifest(R1_STEM, "UD-IQ2_XXS", files, (source,))))


def rewrite(readme: Path, outputs: dict[str, list[str]]) -> None:
    """Put the outputs of each command, in order, into a README's sessions."""
    left = {command: list(texts) for command, texts in outputs.items()}

    def block(match: re.Match[str]) -> str:
        command = match[1].partition("\n")[0].removeprefix("$ ")
        return f"```console\n$ {command}\n{left[command].pop(0)}```"

    readme.write_text(_BLOCK.sub(block, readme.read_text("utf-8")), "utf-8")


def main() -> None:
    """Run the sessions of README.md and write what they print into both READMEs."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        done = run_all([s.command for s in sessions(READMES[0])], Path(name).resolve())
    outputs: dict[str, list[str]] = {}
    for session in done:
        outputs.setdefault(session.command, []).append(session.output)
    for readme in READMES:
        with contextlib.suppress(FileNotFoundError):
            rewrite(readme, outputs)


if __name__ == "__main__":
    main()
