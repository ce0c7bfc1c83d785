"""The test bed itself: what it fetches is what was pinned, and what it starts answers and goes away again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import testbed
import testbed_recipes as recipes
from testbed_recipes import Item, Stub, Taken, Wheel

from tests.support import runtimes
from tests.support.runtimes import RuntimeFailure, group_exists, run_llama_server, run_ollama

SCRIPTS = Path(testbed.__file__).parent
WHEEL = "toybox-1.0-py3-none-any.whl"
FETCHING_S = 1800  # a first run downloads up to 590 MB
FILE = stat.S_IFREG

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the test bed locks its cache with flock")


# Fetching: the real pip, with a folder of one wheel for its index


def pack(path: Path, members: dict[str, tuple[bytes, int]]) -> None:
    """Write a zip of `members`: name -> (content, Unix mode)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (content, mode) in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give pip a folder with one wheel as its only index, and the test bed an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    information = "toybox-1.0.dist-info"
    pack(
        folder / WHEEL,
        {
            "toybox/bin/tool": (b"#!/bin/sh\necho here\n", FILE | 0o775),
            "toybox/lib/libtoy.so.1": (b"library", FILE | 0o644),
            "toybox/other.txt": (b"not wanted", FILE | 0o644),
            f"{information}/METADATA": (b"Metadata-Version: 2.1\nName: toybox\nVersion: 1.0\n", FILE | 0o644),
            f"{information}/WHEEL": (b"Wheel-Version: 1.0\nTag: py3-none-any\n", FILE | 0o644),
            f"{information}/RECORD": (b"", FILE | 0o644),
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(testbed, "CACHE", tmp_path / "cache")
    return folder


def toy(sha256: str, why: str = "a toy", package: str = "toybox", patterns: tuple[str, ...] = ()) -> Item:
    """Return the recipe of a folder `toy` out of the wheel above."""
    wheel = Wheel(package, "1.0", 1000, sha256, "MIT")
    return Item("toy", why, (Taken(wheel, patterns or ("*/bin/tool", "*/lib/*.so.1")),))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_item_lies_flat_and_runs(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = testbed._unpacked(toy(digest(index / WHEEL)))
    assert sorted(path.name for path in folder.iterdir()) == ["complete", "libtoy.so.1", "tool"]
    assert subprocess.run([folder / "tool"], capture_output=True, check=True).stdout == b"here\n"
    assert stat.S_IMODE((folder / "libtoy.so.1").stat().st_mode) == 0o644
    assert capfd.readouterr().err == "testbed: fetching toybox 1.0, 0.0 MiB: a toy (MIT)\n"


def test_item_is_fetched_once_however_it_is_worded(index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sha256 = digest(index / WHEEL)
    folder = testbed._unpacked(toy(sha256))
    (index / WHEEL).unlink()
    assert testbed._unpacked(toy(sha256, why="said otherwise")) == folder
    assert capfd.readouterr().err.splitlines()[1:] == [f"testbed: already there: {folder}"]


def test_item_is_made_anew_for_another_recipe(index: Path) -> None:
    sha256 = digest(index / WHEEL)
    folder = testbed._unpacked(toy(sha256))
    assert testbed._unpacked(toy(sha256, patterns=("*/bin/*",))) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["complete", "tool"]


def test_wheel_with_another_digest_is_not_used(index: Path) -> None:
    with pytest.raises(testbed.TestbedError, match=r"SHA-256 is [0-9a-f]{64}, expected 0000.*; not used"):
        testbed._unpacked(toy("0" * 64))
    assert [path.name for path in testbed.CACHE.iterdir()] == [".toy.lock"]


def test_wheel_that_is_not_there_is_told_in_the_words_of_pip(index: Path) -> None:
    with pytest.raises(testbed.TestbedError, match=r"could not download nosuchtoy==1\.0:(?s:.*)No match"):
        testbed._unpacked(toy("0" * 64, package="nosuchtoy"))


def test_wheel_without_an_expected_member_is_told(index: Path) -> None:
    with pytest.raises(testbed.TestbedError, match=r"has no member like \*/lib/libother\.so"):
        testbed._unpacked(toy(digest(index / WHEEL), patterns=("*/bin/tool", "*/lib/libother.so")))
    assert not (testbed.CACHE / "toy").exists()


def test_leftovers_of_a_killed_run_are_cleared(index: Path) -> None:
    leftover = testbed.CACHE / ".toy.abcd.part"
    leftover.mkdir(parents=True)
    (leftover / "tool").write_bytes(b"half of i")
    neighbour = testbed.CACHE / ".toy-two.abcd.part"
    neighbour.mkdir()
    testbed._unpacked(toy(digest(index / WHEEL)))
    assert not leftover.exists()
    assert neighbour.exists()


def test_two_processes_fetch_an_item_once(index: Path) -> None:
    script = (
        "import sys, testbed; from testbed_recipes import *; sha256 = sys.argv[1]\n"
        "wheel = Wheel('toybox', '1.0', 1000, sha256, 'MIT')\n"
        "print(testbed._unpacked(Item('toy', 'a toy', (Taken(wheel, ('*/bin/tool',)),))))"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "GGUFKIT_TESTBED": str(testbed.CACHE)}
    command = [sys.executable, "-c", script, digest(index / WHEEL)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert {out.strip() for out, _ in outputs} == {str(testbed.CACHE / "toy")}
    assert sum(err.count("fetching") for _, err in outputs) == 1


def test_links_in_a_wheel_stay_links(tmp_path: Path) -> None:
    pack(
        tmp_path / "links.zip",
        {
            "lib/libtoy.so.1": (b"library", FILE | 0o755),
            "lib/libtoy.so": (b"../lib/libtoy.so.1", stat.S_IFLNK | 0o777),
        },
    )
    (tmp_path / "flat").mkdir()
    testbed.unpack(tmp_path / "links.zip", ("lib/*",), tmp_path / "flat")
    assert (tmp_path / "flat" / "libtoy.so").readlink() == Path("libtoy.so.1")
    assert (tmp_path / "flat" / "libtoy.so").read_bytes() == b"library"


# What the machine must have


def test_stub_is_a_library_that_answers(tmp_path: Path) -> None:
    testbed._compile(Stub("libnone.so", "int answer(void) { return 41 + 1; }"), tmp_path)
    asking = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).answer())"
    command = [sys.executable, "-c", asking, str(tmp_path / "libnone.so")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"42\n"


def test_missing_compiler_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = r"a C compiler is needed .*sudo apt-get install gcc libc6-dev"
    with pytest.raises(testbed.TestbedError, match=expected):
        testbed._compile(Stub("libnone.so", ""), tmp_path)


def test_broken_source_is_told_in_the_words_of_the_compiler(tmp_path: Path) -> None:
    with pytest.raises(testbed.TestbedError, match=r"could not build libnone\.so:\n(?s:.*)error"):
        testbed._compile(Stub("libnone.so", "int answer(void) {"), tmp_path)


@pytest.mark.parametrize("libc", ["glibc 2.31", "glibc 2.4", "another C library"])
def test_old_libc_is_told_before_fetching(libc: str, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GGUFKIT_TEST_LLAMA_SERVER", raising=False)
    monkeypatch.setattr(testbed, "_need_linux_x86_64", lambda what: None)
    monkeypatch.setattr(testbed, "_libc", lambda: libc)
    with pytest.raises(testbed.TestbedError, match=rf"needs glibc 2\.35 or newer .*here is {libc};"):
        testbed.llama_server()
    assert not testbed.CACHE.exists()


def test_other_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(testbed.TestbedError, match=r"Linux on x86-64 only, this is \w+ on aarch64"):
        testbed.ollama("0.5.4")


def test_unknown_ollama_lists_the_known() -> None:
    with pytest.raises(testbed.TestbedError, match=r"no Ollama 0\.1 here; there are 0\.5\.4, 0\.9\.3"):
        testbed.ollama("0.1")


def test_own_llama_server_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, rpc_server = tmp_path / "llama-server", tmp_path / "rpc-server"
    monkeypatch.setenv("GGUFKIT_TEST_LLAMA_SERVER", str(server))
    with pytest.raises(testbed.TestbedError, match=r"GGUFKIT_TEST_LLAMA_SERVER: .* is not a program"):
        testbed.llama_server()
    shutil.copy("/bin/true", server)
    assert testbed.llama_server() == testbed.LlamaBuild(server, None)
    shutil.copy("/bin/true", rpc_server)
    assert testbed.llama_server() == testbed.LlamaBuild(server, rpc_server)


def test_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GGUFKIT_TESTBED", raising=False)
    assert testbed.cache_root() == tmp_path / "ggufkit-testbed"
    monkeypatch.setenv("GGUFKIT_TESTBED", str(tmp_path / "elsewhere"))
    assert testbed.cache_root() == tmp_path / "elsewhere"


# The models


@pytest.mark.models
@pytest.mark.timeout(FETCHING_S)
def test_models_are_the_pinned_ones() -> None:
    command = [sys.executable, str(SCRIPTS / "testbed.py"), "models", "--json"]
    environment = os.environ | {"GGUFKIT_TESTBED": str(testbed.CACHE)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["schema"] == 1
    for name, n_bytes in (("smollm2", 98_362_432), ("gemma3", 253_113_024)):
        path = Path(found[name]["path"])
        assert path.stat().st_size == found[name]["size_bytes"] == n_bytes
        assert digest(path) == found[name]["sha256"]
        assert path.read_bytes()[:4] == b"GGUF"
    parts = [Path(part) for part in found["gemma3_parts"]]
    assert [digest(part) for part in parts] == list(recipes.GEMMA3_PART_SHA256S)
    assert b"".join(part.read_bytes() for part in parts) == Path(found["gemma3"]["path"]).read_bytes()


def test_changed_model_is_noticed(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF and more")
    before = digest(model)
    assert testbed._sound(model, before) == model
    os.utime(model, (1000, 1000))  # another mtime alone is no change
    assert testbed._sound(model, before) == model
    model.write_bytes(b"GGUF and less")
    with pytest.raises(testbed.TestbedError, match=r"is not what was fetched.*delete "):
        testbed._sound(model, before)


# The runtimes


def modelfile(folder: Path) -> Path:
    """Write a Modelfile for SmolLM2 and return its path."""
    path = folder / "Modelfile"
    path.write_text(f"FROM {testbed.smollm2()}\nPARAMETER num_ctx 256\n")
    return path


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_ollama_0_5_4_creates_and_generates(tmp_path: Path) -> None:
    with run_ollama(testbed.ollama("0.5.4"), tmp_path / "home") as server:
        assert server.version.startswith("0.5.4")
        made = server.cli("create", "small", "-f", modelfile(tmp_path))
        assert made.returncode == 0, made.stderr
        options = {"num_gpu": 0, "num_predict": 8, "temperature": 0, "seed": 1}
        asked = {"model": "small", "prompt": "The capital of France is", "stream": False, "options": options}
        status, answer = server.api("POST", "/api/generate", asked)
        assert (status, answer["done_reason"], answer["eval_count"]) == (200, "length", 8)
        messages = [{"role": "user", "content": "Hello"}]
        asked = {"model": "small", "messages": messages, "options": options}
        status, lines = server.api("POST", "/api/chat", asked)
        assert status == 200
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert lines[-1]["eval_count"] == 8
        blob = server.models_dir / "blobs" / f"sha256-{testbed.SMOLLM2_SHA256}"
        assert blob.stat().st_size == testbed.SMOLLM2_BYTES
        group = server.pid
        assert group
    assert not group_exists(group)


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_ollama_0_5_4_has_no_json_create(tmp_path: Path) -> None:
    with run_ollama(testbed.ollama("0.5.4"), tmp_path / "home") as server:
        asked = {"model": "small", "files": {"model.gguf": f"sha256:{testbed.SMOLLM2_SHA256}"}}
        assert server.api("POST", "/api/create", asked) == (400, {"error": "path or Modelfile are required"})


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_ollama_0_9_3_keeps_its_models_over_a_restart(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with run_ollama(testbed.ollama("0.9.3"), tmp_path / "home", models) as server:
        assert (server.version, server.models_dir) == ("0.9.3", models)
        made = server.cli("create", "small", "-f", modelfile(tmp_path))
        assert made.returncode == 0, made.stderr
        first, url = server.pid, server.url
        server.restart()
        assert first
        assert server.pid != first
        assert server.url == url
        assert not group_exists(first)
        status, listed = server.api("GET", "/api/tags")
        assert (status, [model["name"] for model in listed["models"]]) == (200, ["small:latest"])
        status, made_from = server.api("POST", "/api/create", {"model": "other", "from": "small"})
        assert (status, made_from[-1]) == (200, {"status": "success"})
        assert server.api("HEAD", f"/api/blobs/sha256:{'0' * 64}") == (404, None)
        assert server.log_text().count("Listening on") == 2
        server.stop()
        assert server.cli("list").returncode != 0
    assert "Listening on" in server.log_text()


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_ollama_takes_nothing_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "not-this"))
    with run_ollama(testbed.ollama("0.9.3"), tmp_path / "home", env={"OLLAMA_DEBUG": "1"}) as server:
        assert server.cli("list").returncode == 0
        assert (server.models_dir / "blobs").is_dir()
        assert "level=DEBUG" in server.log_text()
    assert not (tmp_path / "not-this").exists()


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_taken_port_is_a_failure_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = testbed.ollama("0.9.3")
    with run_ollama(build, tmp_path / "one") as server:
        monkeypatch.setattr(runtimes, "free_port", lambda: server.port)  # healthy, but someone else's
        with (
            pytest.raises(RuntimeFailure, match=r"ended instead of starting(?s:.*)address already in use"),
            run_ollama(build, tmp_path / "two"),
        ):
            pass
        assert server.api("GET", "/api/version")[0] == 200


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_server_is_killed_when_its_python_dies(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, testbed; from pathlib import Path\n"
        "from tests.support.runtimes import run_ollama\n"
        "with run_ollama(testbed.ollama('0.9.3'), Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    paths = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
    own = {"PYTHONPATH": paths, "GGUFKIT_TESTBED": str(testbed.CACHE), "TMPDIR": str(tmp_path)}
    environment = os.environ | own  # TMPDIR: what it can't clear away when killed
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    group, end = int(run.stdout), time.monotonic() + 20
    while group_exists(group) and time.monotonic() < end:
        time.sleep(0.05)
    assert not group_exists(group)


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_children_of_a_crashed_server_go_too(tmp_path: Path) -> None:
    with run_ollama(testbed.ollama("0.5.4"), tmp_path / "home") as server:
        assert server.cli("create", "small", "-f", modelfile(tmp_path)).returncode == 0
        asked = {"model": "small", "prompt": "a", "options": {"num_gpu": 0, "num_predict": 1}}
        assert server.api("POST", "/api/generate", asked)[0] == 200
        group = server.pid
        assert group
        os.kill(group, signal.SIGKILL)  # its runner is left with the model loaded
    assert not group_exists(group)


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_llama_server_completes_the_same_twice() -> None:
    with run_llama_server(testbed.smollm2()) as server:
        answer = server.complete("The capital of France is", 8)
        assert "Paris" in answer
        assert server.complete("The capital of France is", 8) == answer
        assert "model loaded" in server.log_text()
        group = server.pid
    assert group
    assert not group_exists(group)


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_llama_server_that_cannot_load_is_a_failure_with_the_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with (
        pytest.raises(RuntimeFailure, match=r"(?s)\(exit code 1\); the end of its log.*broken\.gguf"),
        run_llama_server(broken),
    ):
        pass


def await_port(port: int) -> None:
    """Return when something listens on the loopback port; errors: OSError after 20 seconds."""
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.mark.runtimes
@pytest.mark.timeout(FETCHING_S)
def test_rpc_server_carries_a_llama_server() -> None:
    build = testbed.llama_server()
    if build.rpc_server is None:
        pytest.skip("the llama-server in GGUFKIT_TEST_LLAMA_SERVER has no ggml-rpc-server beside it")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [str(build.rpc_server), "--host", "127.0.0.1", "--port", port]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        await_port(int(port))
        rpc = ["--rpc", f"127.0.0.1:{port}", "--device", "RPC0", "--n-gpu-layers", "99"]
        with run_llama_server(testbed.smollm2(), *rpc) as server:
            assert "Paris" in server.complete("The capital of France is", 8)
    finally:
        worker.terminate()
        log = worker.communicate(timeout=20)[0]
    assert "Accepted client connection" in log
