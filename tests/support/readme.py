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

from ggufkit.verbs.locate import find_model
from ggufkit.verbs.split import plan_split, split
from tests.support.ggufs import r1_shards
from tests.support.hub import run_hub
from tests.support.quants import r1_quant
from tests.support.runtimes import run_ollama

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
SMOL_REPO, SMOL_STEM = "demo/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct-Q4_1"
R1_REPO, R1_STEM = "unsloth/DeepSeek-R1-GGUF", "DeepSeek-R1-UD-IQ2_XXS"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVED = "from Hugging Face at 127.0.0.1:8090: 49.1 MiB, ModelScope at 127.0.0.1:8090: 44.7 MiB"
_NORMAL = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8090"),
    (re.compile(r"in \d+\.\d s"), "in 0.2 s"),
    (re.compile(r"\d+\.\d GiB free"), "120.4 GiB free"),
    # who was faster, of one and the same server
    (re.compile(r"^from (?:Hugging Face|ModelScope) at .*MiB$", re.M), _SERVED),
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
    root = fill_hub(folder / "hub")
    with run_hub(root, sha256s=sparse_digests(root)) as hub:
        env = {**hub.client_env(folder / "home"), "GGUFKIT_PROGRESS": "off", "COLUMNS": "100"}
        with run_ollama(testbed.ollama("0.9.3"), folder / "ollama") as ollama:
            env |= {"OLLAMA_HOST": ollama.url, "OLLAMA_MODELS": str(ollama.models_dir)}
            return [Session(command, _run(command, work, env)) for command in commands]


def _run(command: str, work: Path, env: dict[str, str]) -> str:
    program, *arguments = shlex.split(command)
    assert program == "ggufkit", command
    arguments = [name for word in arguments for name in _expanded(word, work)]
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


def _expanded(word: str, folder: Path) -> list[str]:
    """Expand a pattern as a shell would."""
    names = sorted(str(p.relative_to(folder)) for p in folder.glob(word)) if "*" in word else []
    return names or [word]


def fill_hub(root: Path) -> Path:
    """Make a hub's folder: SmolLM2 in three shards, and R1's full-size sparse shards in five quants."""
    source = root.parent / "source" / f"{SMOL_STEM}.gguf"
    source.parent.mkdir(parents=True)
    shutil.copy(testbed.smollm2(), source)
    folder = root / SMOL_REPO / SMOL_STEM
    split(plan_split(find_model(str(source)), max_bytes=40_000_000, output=folder))
    r1_shards(root / R1_REPO / R1_STEM)
    for quant in ("UD-IQ1_S", "UD-Q2_K_XL", "Q4_K_M", "Q8_0"):
        r1_quant(root / R1_REPO / f"DeepSeek-R1-{quant}", quant, mla=False)
    return root


def sparse_digests(root: Path) -> dict[str, str]:
    """Return made-up digests of R1's shards, or the hub would hash 184 GiB of zeros."""
    shards = sorted((root / R1_REPO).rglob("*.gguf"))
    return {p.relative_to(root).as_posix(): f"{i:064x}" for i, p in enumerate(shards)}


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
