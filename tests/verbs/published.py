"""Repos of real GGUFs for a hub, and the processes of people who pull from it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ggufs import TensorSpec, gguf_bytes, make_shards, small_llama, small_llama_kv
from tests.support.hub import FOLDER, REPO_ID

NAME = REPO_ID.rpartition("/")[2]
QUANT = "UD-IQ2_XXS"


def sha256(data: bytes | Path) -> str:
    """Return the SHA-256 of bytes, or of a file's."""
    return hashlib.sha256(data.read_bytes() if isinstance(data, Path) else data).hexdigest()


def model_bytes(n_mib: int = 0, seed: int = 1) -> bytes:
    """Return a small llama, or one of about `n_mib` MiB, which has more feed-forward tensors."""
    extra: list[TensorSpec] = [(f"blk.{i % 2}.extra_{i}.weight", (256, 1024), "F32") for i in range(n_mib)]
    kv = small_llama_kv("llama")
    return gguf_bytes(tensors=[*small_llama(), *extra], kv=kv, seed=seed)


def publish(
    root: Path,
    data: bytes | None = None,
    *,
    repo_id: str = REPO_ID,
    stem: str = FOLDER,
    max_tensors: int = 6,
) -> dict[str, bytes]:
    """Cut a GGUF into the shards of a repo in a hub's folder `root`; return its files by path in the repo."""
    folder = root / repo_id / stem
    folder.mkdir(parents=True)
    whole = folder / f"{stem}.gguf"
    whole.write_bytes(model_bytes() if data is None else data)
    shards = make_shards(whole, max_tensors=max_tensors)
    whole.unlink()
    (root / repo_id / "README.md").write_text("# DeepSeek-R1\n")
    return {f"{stem}/{shard.name}": shard.read_bytes() for shard in shards}


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below `folder` that are not hidden, by path."""
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if not name.startswith(".")}


def everything(folder: Path) -> set[str]:
    """Return the paths of all files and folders below `folder`, hidden ones too."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours that runs one command line."""

    zygote: Zygote
    pid: int

    def signal(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return its exit code, or minus the signal that ended it."""
        return self.zygote.wait(self.pid)


class Zygote:
    """A process that has everything imported and forks one child per command: real ones, started fast."""

    def __init__(self, env: Mapping[str, str]) -> None:
        root = Path(__file__).parents[2]
        self._err = Path(env["HOME"]) / "err"
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ZYGOTE],
            env={**env, "PYTHONPATH": str(root)},
            stdin=pipe,
            stdout=pipe,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def start(
        self, cwd: Path, *arguments: str, patch: str = "", env: Mapping[str, str] | None = None
    ) -> Child:
        """Start `ggufkit arguments` in `cwd`, after the code `patch`; it writes to ~/out and ~/err."""
        order = {"cwd": str(cwd), "arguments": arguments, "patch": patch, "env": dict(env or {})}
        return Child(self, self._ask(order))

    def run(self, cwd: Path, *arguments: str, patch: str = "", env: Mapping[str, str] | None = None) -> int:
        """Run a command line to its end, and return its exit code."""
        return self.start(cwd, *arguments, patch=patch, env=env).wait()

    def said(self) -> str:
        """Return the end of what the children wrote to stderr."""
        return self._err.read_text()[-2000:] if self._err.exists() else ""

    def wait(self, pid: int) -> int:
        """Return the exit code of a child."""
        return self._ask({"wait": pid})

    def close(self) -> None:
        """End the process and all its children."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._process.stdout.readline())


_ZYGOTE = """
import json, os, sys
import ggufkit.cli.main, ggufkit.cli.pull, ggufkit.cli.merge, ggufkit.cli.bars
import ggufkit.verbs.pull, ggufkit.verbs.merge, urllib3
from ggufkit.hubs import huggingface, modelscope

def child(order):
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    folder = os.environ["HOME"]
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    exec(order["patch"], {})
    sys.argv[1:] = order["arguments"]
    ggufkit.cli.main.main()

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            code = 1
            try:
                child(order)
            except SystemExit as end:
                code = end.code or 0
            finally:
                os._exit(code)
    print(answer, flush=True)
"""


@contextmanager
def zygote(env: Mapping[str, str]) -> Iterator[Zygote]:
    """Run a zygote inside the block; its children are killed at the end."""
    one = Zygote(env)
    try:
        yield one
    finally:
        one.close()


def moments(seed: int, n: int, longest_s: float) -> list[float]:
    """Return `n` moments within `longest_s` seconds, the same for the same seed; said, for a failing test."""
    sys.stdout.write(f"seed {seed}, within {longest_s:.2f} s\n")
    chance = random.Random(seed)
    return [chance.uniform(0, longest_s) for _ in range(n)]
