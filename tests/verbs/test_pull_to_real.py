"""Real models from both hubs' protocols to real runtimes, on the disk once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import testbed

from ggufkit.transfer.sources import open_header
from ggufkit.verbs.pull import plan_pull
from ggufkit.verbs.pull_merged import plan_pull_merged, pull_merged
from ggufkit.verbs.pull_to import ToReport, plan_pull_to, pull_to
from tests.support.disks import other_file_system
from tests.support.faults import Fault
from tests.support.ggufs import make_shards
from tests.support.hub import TestHub, run_hub
from tests.support.runtimes import NO_GPU, LlamaServer, OllamaServer, clean_env, request, run_ollama

pytestmark = [pytest.mark.runtimes, pytest.mark.models, pytest.mark.timeout(900)]

REPO = "acme/SmolLM2-135M-Instruct-GGUF"
STEM = "SmolLM2-135M-Instruct-Q4_1"
GEMMA = "acme/gemma-3-270m-it-GGUF"
ASKED = {"num_gpu": 0, "num_ctx": 512, "num_predict": 4, "temperature": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of two real models, as a hub has them."""
    root = tmp_path_factory.mktemp("hub")
    for repo, stem, model, n in (
        (REPO, STEM, testbed.smollm2(), 90),
        (GEMMA, "gemma-3-270m-it-Q4_K_M", testbed.gemma3(), 60),
    ):
        folder = root / repo / stem
        folder.mkdir(parents=True)
        source = folder / f"{stem}.gguf"
        source.symlink_to(model)
        assert len(make_shards(source, max_tensors=n)) > 2
        source.unlink()
    return root


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    with run_hub(root, cdn=True) as running:
        for name, value in (running.hf_env | running.ms_env).items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """Ollama's folder, on another disk than the one that is worked on."""
    with other_file_system(tmp_path) as disk:
        yield disk / "models"


@pytest.fixture(params=testbed.OLLAMA_VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path, store: Path) -> Iterator[OllamaServer]:
    with run_ollama(testbed.ollama(request.param), tmp_path / "ollama-home", store) as running:
        yield running


@pytest.mark.parametrize(
    ("source", "repo", "sha256"),
    [("hf", REPO, testbed.SMOLLM2_SHA256), ("modelscope", GEMMA, testbed.GEMMA3_SHA256)],
    ids=["hf-smollm2", "modelscope-gemma3"],
)
def test_the_merged_file_is_the_one_that_was_cut(
    hub: TestHub, work: Path, source: str, repo: str, sha256: str
) -> None:
    report = pull_merged(plan_pull_merged(plan_pull(repo, source=source)))
    assert report.sha256 == sha256 == testbed.sha256_of(report.output)
    listed = sum(f.size_bytes for f in report.shards)
    header_bytes = open_header(report.output).data_offset
    assert report.n_bytes - header_bytes == report.fetched_bytes
    assert hub.sent_bytes(plane="cdn") <= listed + (16 << 20), (
        "but for what was on its way when a range ended"
    )


def test_each_byte_is_written_once(root: Path, work: Path, store: Path) -> None:
    """Hub to `ollama list`: at most 1.02 times the model, and the shards' headers."""
    command = [sys.executable, "-c", _MEASURED, str(root), str(store), REPO]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=True)
    wrote, n_bytes, header_bytes = map(int, done.stdout.split())
    assert n_bytes < wrote <= 1.02 * n_bytes + header_bytes
    files = [p for folder in (store, work) for p in folder.rglob("*") if not p.is_symlink()]
    taken = sum(p.stat().st_blocks * 512 for p in files if p.is_file())
    assert taken <= 1.02 * n_bytes + header_bytes


def test_a_server_that_starts_in_the_middle_of_a_pull_spares_what_grows(
    hub: TestHub, server: OllamaServer, work: Path, store: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=25_000_000))
    environ = {"OLLAMA_MODELS": str(store), "OLLAMA_HOST": server.url}
    plan = plan_pull_to(plan_pull(REPO), ["ollama"], environ=environ)
    done: list[ToReport] = []
    thread = threading.Thread(target=lambda: done.append(pull_to(plan)))
    thread.start()
    try:
        grown = wait_for_part(store)
        server.restart()
        assert grown.exists(), "the clean-up of a start leaves it alone"
        assert server.api("GET", "/api/tags")[1]["models"] == []
    finally:
        thread.join()
    report = done[0].ollama
    assert report is not None and report.sha256 == testbed.SMOLLM2_SHA256 and report.listed
    server.restart()
    assert [m["name"] for m in server.api("GET", "/api/tags")[1]["models"]] == [report.name]
    status, answer = server.api("POST", "/api/show", {"model": report.name, "name": report.name})
    assert status == 200 and answer["details"]["quantization_level"] == "Q4_1"
    if server.build.version.startswith("0.5.4"):  # the other one is made for GPUs that are not here
        asked = {"model": report.name, "prompt": "Hello", "options": ASKED, "stream": False}
        status, answer = server.api("POST", "/api/generate", asked)
        assert status == 200 and answer["response"], answer
    assert done[0].files[0].is_symlink() and done[0].files[0].resolve() == report.blob
    assert not list(store.rglob("*.part")) and not list(store.rglob(".ggufkit*"))
    assert server.cli("rm", report.name).returncode == 0
    assert not report.blob.exists(), "its only name is gone, and so is the room that it took"


def wait_for_part(store: Path) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for part in store.rglob("*.part"):
            if part.stat().st_blocks * 512 > 8 << 20:
                return part
        time.sleep(0.05)
    raise AssertionError("nothing grew")


def test_llama_server_finds_what_came_from_modelscope_offline(
    hub: TestHub, work: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "hf" / "hub"
    plan = plan_pull(REPO, source="modelscope")
    report = pull_to(plan_pull_to(plan, ["hf-cache"], environ={"HF_HUB_CACHE": str(cache)}))
    assert report.hf_cache is not None and report.hf_cache.made_up
    with OfflineServer(cache, f"{REPO}:Q4_1", tmp_path) as running:
        status, answer = request(f"{running.url}/completion", "POST", {"prompt": "Hello", "n_predict": 4})
    assert status == 200 and answer["content"]


class OfflineServer(LlamaServer):
    """A llama-server that is told a repo, and may ask nobody."""

    def __init__(self, cache: Path, name: str, home: Path) -> None:
        super().__init__(testbed.llama_server(), Path("unused"), [], home)
        at = self.argv.index("--model")
        self.argv[at : at + 2] = ["-hf", name, "--offline"]
        self.env = clean_env(home, home) | NO_GPU | {"HF_HUB_CACHE": str(cache)}


_MEASURED = """
import sys
from pathlib import Path
import os

def wrote():
    return int(dict(l.split(": ") for l in Path("/proc/self/io").read_text().splitlines())["wchar"])

from tests.support.hub import run_hub
from ggufkit.verbs.pull import plan_pull
from ggufkit.verbs.pull_to import plan_pull_to, pull_to

root, store, repo = sys.argv[1:]
ready, ask = os.pipe(), os.pipe()
child = os.fork()
if child == 0:  # the hub writes too, to its sockets
    with run_hub(Path(root), cdn=True) as hub:
        os.write(ready[1], (hub.url + "\\n").encode())
        os.read(ask[0], 1)
    os._exit(0)
url = os.read(ready[0], 200).decode().strip()
os.environ |= {"HF_ENDPOINT": url, "MODELSCOPE_ENDPOINT": url}
plan = plan_pull(repo)
before = wrote()
report = pull_to(plan_pull_to(plan, ["ollama"], environ={"OLLAMA_MODELS": store}))
after = wrote()
os.write(ask[1], b"x")
os.waitpid(child, 0)
headers = sum(p.stat().st_size for p in Path(".").rglob("*.header"))
print(after - before, report.pulled.n_bytes, headers)
"""
