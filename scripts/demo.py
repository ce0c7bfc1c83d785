"""The main job, end to end, on two real models: run by `scripts/demo`.

Cuts SmolLM2 into shards under the name of a well-known repo, serves it and Gemma 3 as a hub, pulls over
both protocols, proves, merges, inspects, fits, imports into LM Studio's folder and Ollama's store, and lets
llama-server and Ollama answer from there. All below one folder that is made anew and removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import testbed

from tests.support.runtimes import NO_GPU, run_llama_server, run_ollama

REPO = "unsloth/DeepSeek-R1-GGUF"
QUANT = "UD-IQ2_XXS"
STEM = f"DeepSeek-R1-{QUANT}"
GEMMA_REPO = "google/gemma-3-270m-GGUF"


class Demo:
    """A folder to work in, and commands shown as they are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        home = folder / "home"
        home.mkdir()
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
        self.env = {**keep, "HOME": str(home), "GGUFKIT_PROGRESS": "off"}

    def run(self, *arguments: str | Path) -> str:
        """Run ggufkit, showing the command and what it prints; returns its standard output."""
        words = [str(a) for a in arguments]
        print(f"\n$ ggufkit {shlex.join(words)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "ggufkit", *words],
            cwd=self.work,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        print(done.stdout, end="", flush=True)
        if done.returncode:
            sys.exit(f"this should have worked, but ended with {done.returncode}")
        return done.stdout

    @contextlib.contextmanager
    def hub(self, root: Path) -> Iterator[str]:
        """Run `ggufkit serve` on `root`; yields its address."""
        print(f"\n$ ggufkit serve {root.name} --port 0 &", flush=True)
        server = subprocess.Popen(
            [sys.executable, "-m", "ggufkit", "serve", str(root), "--port", "0"],
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
        )
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            print(line, end="", flush=True)
            url = re.search(r"http://\S+", line)
            if url is None:
                sys.exit("the hub did not start")
            self.env |= {"HF_ENDPOINT": url[0], "MODELSCOPE_ENDPOINT": url[0]}
            yield url[0]
        finally:
            server.terminate()
            server.wait(10)


def say(title: str) -> None:
    """Print what comes next."""
    print(f"\n=== {title}", flush=True)


def proven(what: str, published: str, output: str) -> None:
    """Print the published digest beside the one we got, and stop when they differ."""
    found = re.search(r"sha256: ([0-9a-f]{64})", output)
    got = found[1] if found else "none"
    print(f"{what}:\n  published {published}\n  got       {got}")
    if got != published:
        sys.exit("the digests differ")


def fill_hub(demo: Demo) -> Path:
    """Make the hub's folder: SmolLM2 in shards under a famous name, Gemma 3 as one file."""
    root = demo.folder / "hub"
    original = demo.work / f"{STEM}.gguf"
    os.link(testbed.smollm2(), original) if _same_disk(demo) else shutil.copy(testbed.smollm2(), original)
    demo.run("split", original.name, "--max-size", "40M", "-o", root / REPO / STEM)
    original.unlink()
    gemma = root / GEMMA_REPO / "gemma-3-270m-Q4_K_M.gguf"
    gemma.parent.mkdir(parents=True)
    shutil.copy(testbed.gemma3(), gemma)
    return root


def _same_disk(demo: Demo) -> bool:
    return testbed.smollm2().stat().st_dev == demo.work.stat().st_dev


def pull_and_prove(demo: Demo) -> None:
    """Pull over both protocols, verify, merge, and compare with the published digests."""
    say("over the Hugging Face Hub's protocol, then over ModelScope's")
    demo.run("quants", REPO)
    demo.run("pull", REPO, "--quant", QUANT, "--source", "hf")
    demo.run("pull", REPO, "--quant", QUANT, "--source", "modelscope", "--local-dir", "from-modelscope")
    demo.run("verify", "from-modelscope")
    merged = demo.run("merge", "from-modelscope")
    proven("SmolLM2-135M-Instruct, merged from ModelScope's shards", testbed.SMOLLM2_SHA256, merged)
    shutil.rmtree(demo.work / "from-modelscope")
    demo.run("pull", f"ms:{GEMMA_REPO}")
    demo.run("verify", "gemma-3-270m-GGUF")
    proven("Gemma 3 270M", testbed.GEMMA3_SHA256, demo.run("merge", "gemma-3-270m-GGUF"))
    shutil.rmtree(demo.work / "gemma-3-270m-GGUF")


def four_lines(demo: Demo) -> None:
    """Run the four lines of the README in a row, in an empty folder, against a running Ollama."""
    say("the four lines, with a real Ollama 0.5.4 running")
    with run_ollama(testbed.ollama("0.5.4"), demo.folder / "ollama") as server:
        demo.env |= {"OLLAMA_HOST": server.url, "OLLAMA_MODELS": str(server.models_dir)}
        demo.run("pull", REPO, "--quant", QUANT)
        proven("SmolLM2-135M-Instruct, merged", testbed.SMOLLM2_SHA256, demo.run("merge"))
        demo.run("ollama-import", "--name", "smollm2:demo")
        demo.run("fit", "--ram", "256G")
        print("\n$ ollama list")
        print(server.cli("list").stdout)
        _show_one_copy(demo, server.models_dir)
        question = {"role": "user", "content": "Say hello."}
        options = {**NO_GPU, "num_predict": 24}
        body = {"model": "smollm2:demo", "messages": [question], "stream": False, "options": options}
        status, answer = server.api("POST", "/api/chat", body)
        print(f"Ollama {server.version} answers ({status}; this build's text is poor):")
        print(f"  {answer['message']['content']!r}")
        demo.env.pop("OLLAMA_HOST")


def _show_one_copy(demo: Demo, store: Path) -> None:
    merged = demo.work / "DeepSeek-R1-GGUF" / f"{STEM}.gguf"
    blob = next(p for p in (store / "blobs").iterdir() if p.stat().st_size == merged.stat().st_size)
    same = "the same bytes on disk" if blob.samefile(merged) else "a copy"
    print(f"{blob.name[:19]}… in Ollama's store and {merged.name}: {same}")


def lmstudio(demo: Demo) -> None:
    """Look into the model, link its shards where LM Studio looks, and let llama-server answer from there."""
    say("LM Studio's folder, and llama-server loading the shards from it")
    demo.run("inspect", f"DeepSeek-R1-GGUF/{STEM}.gguf")
    models = demo.folder / "lmstudio-models"
    shards = f"DeepSeek-R1-GGUF/{STEM}/{STEM}-00001-of-00003.gguf"  # a shard means its set
    demo.run("lmstudio-import", shards, "--models-dir", models)
    shard = next(models.rglob("*-00001-of-*.gguf"))
    with run_llama_server(shard) as server:
        print(f"llama-server answers from {shard.relative_to(demo.folder)}:")
        print(f"  The capital of France is{server.complete('The capital of France is', 16)}")


def main() -> None:
    """Do it all."""
    # Beside the cached models, so that links can be made where the file system has them.
    with tempfile.TemporaryDirectory(prefix="demo-", dir=testbed.CACHE) as folder:
        demo = Demo(Path(folder))
        say("a hub of our own, with two real models")
        with demo.hub(fill_hub(demo)):
            pull_and_prove(demo)
            four_lines(demo)
            lmstudio(demo)
    print("\nDone: two real models, both hubs' protocols, every digest as published, one copy on disk.")


if __name__ == "__main__":
    main()
