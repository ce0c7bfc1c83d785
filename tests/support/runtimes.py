"""Start real Ollama and llama.cpp servers on loopback, talk to them, and leave no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPResponse
from json import dumps, loads
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from testbed import LlamaBuild, OllamaBuild, llama_server

START_S = 90.0
"""How long a server may take to answer, seconds; reading the model is part of it."""
STOP_S = 15.0
"""How long a server may take to end when asked to, seconds, before it is killed."""
ANSWER_S = 240.0
"""How long one request may take, seconds."""

# Vulkan's loader finds no driver, CUDA and ROCm no device: the same answers on every machine.
NO_GPU = {"VK_DRIVER_FILES": "/nonexistent", "CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}

_direct = build_opener(ProxyHandler({}))


class RuntimeFailure(AssertionError):
    """A server did not start, or ended; the message carries the end of its log."""


class Service:
    """A server process in a session of its own, with its log; usable as a context manager that stops it.

    A watchdog kills the whole process group when this Python dies without having stopped it.
    """

    def __init__(self, argv: Sequence[str | Path], env: Mapping[str, str], port: int, health: str) -> None:
        """Describe the server; `health` is the path that answers 200 once it is ready."""
        self.argv = [str(word) for word in argv]
        self.env = dict(env)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._health = health
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._closed_log = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The server's process id, which is its process group's too; None while it is stopped."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and return when it is ready; errors: RuntimeFailure after START_S."""
        if self._process:
            raise RuntimeFailure(f"{self.argv[0]} is running already")
        log_start = self._log.seek(0, os.SEEK_END)
        self._process = subprocess.Popen(
            self.argv,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._watchdog = _watch(self._process.pid)
        process = self._process
        answered = _until(lambda: self._ready(log_start) or _ended(process), START_S)
        if _ended(process):
            self._fail("ended instead of starting")
        if not answered:
            self._fail(f"did not answer {self.url}{self._health} within {START_S:.0f} s")

    def stop(self) -> None:
        """End the server and all its children; nothing to do when it is stopped."""
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        if watchdog:
            watchdog.kill()
            watchdog.wait()
            assert watchdog.stdin
            watchdog.stdin.close()
        if process:
            _end_group(process)

    def restart(self) -> None:
        """Stop the server and start it again on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server for good; log_text() goes on to answer."""
        self.stop()
        if not self._log.closed:
            self._closed_log = self.log_text()
            self._log.close()

    def log_text(self) -> str:
        """Return all the server wrote, over restarts."""
        return self._closed_log if self._log.closed else self._log_from(0)

    def _log_from(self, offset: int) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size - offset, offset).decode(errors="replace")

    def _ready(self, log_start: int) -> bool:
        # Both servers write that they are listening; before that an answer comes from someone else's server.
        if "listening" not in self._log_from(log_start).lower():
            return False
        with contextlib.suppress(OSError):  # HTTPError is one: llama-server answers 503 while it loads
            return request(f"{self.url}{self._health}", timeout_s=5)[0] == 200
        return False

    def _fail(self, what: str) -> None:
        process = self._process
        self.stop()
        code = process.returncode if process else None
        raise RuntimeFailure(
            f"{self.argv[0]} {what} (exit code {code}); the end of its log:\n{self.log_text()[-4000:]}"
        )


class OllamaServer(Service):
    """A running Ollama."""

    def __init__(
        self, build: OllamaBuild, home: Path, models: Path | None, env: Mapping[str, str], scratch: Path
    ) -> None:
        """Describe the server; `scratch` is where its temporary files go."""
        port = free_port()
        self.build = build
        self.models_dir = models or home / ".ollama" / "models"
        """Where its blobs/ and manifests/ are."""
        asked = {"OLLAMA_MODELS": str(models)} if models else {}
        own = {"LD_LIBRARY_PATH": build.library_path, "OLLAMA_HOST": f"127.0.0.1:{port}"}
        environment = clean_env(home, scratch) | own | asked | dict(env)
        super().__init__([build.program, "serve"], environment, port, "/api/version")

    @property
    def version(self) -> str:
        """What the running server says its version is."""
        return str(self.api("GET", "/api/version")[1]["version"])

    def api(self, method: str, path: str, json: object = None) -> tuple[int, Any]:
        """Ask the server; return the HTTP status and the parsed answer (NDJSON: a list of its lines).

        What is not JSON is returned as text, an empty body as None. Errors of HTTP are not raised.
        """
        return request(self.url + path, method, json)

    def cli(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the same build's client against this server, its output captured."""
        command = [str(self.build.program), *map(str, arguments)]
        return subprocess.run(
            command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )


class LlamaServer(Service):
    """A running llama-server."""

    def __init__(self, build: LlamaBuild, model: Path, arguments: Sequence[str], home: Path) -> None:
        """Describe the server; `arguments` go after ours, so they win."""
        port = free_port()
        where = ["--host", "127.0.0.1", "--port", str(port)]
        # one thread: two wait for each other spinning, and on a busy machine get less done than one
        small = ["--ctx-size", "2048", "--parallel", "1", "--threads", "1"]
        argv = [str(build.server), "--model", str(model), *where, *small, *arguments]
        super().__init__(argv, clean_env(home, home) | NO_GPU, port, "/health")

    def complete(self, prompt: str, n: int) -> str:
        """Return the `n` tokens (at most) that follow `prompt`, greedily sampled: the same each time."""
        asked = {"prompt": prompt, "n_predict": n, "temperature": 0.0, "seed": 1, "cache_prompt": False}
        status, answer = request(f"{self.url}/completion", "POST", asked)
        if status != 200:
            raise RuntimeFailure(f"llama-server answered {status}: {answer}")
        return str(answer["content"])


@contextlib.contextmanager
def run_ollama(
    build: OllamaBuild, home: Path, models: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[OllamaServer]:
    """Run Ollama with `home` as HOME (made if missing) and `models` as OLLAMA_MODELS if given; `env` wins."""
    home.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ggufkit-ollama-") as scratch,
        OllamaServer(build, home, models, env or {}, Path(scratch)) as server,
    ):
        yield server


@contextlib.contextmanager
def run_llama_server(model: Path, *arguments: str) -> Iterator[LlamaServer]:
    """Run llama-server with `model` loaded: one thread, 2,048 tokens, no GPU, unless `arguments` differ."""
    with (
        tempfile.TemporaryDirectory(prefix="ggufkit-llama-") as home,
        LlamaServer(llama_server(), model, arguments, Path(home)) as server,
    ):
        yield server


def clean_env(home: Path, scratch: Path) -> dict[str, str]:
    """Return a small environment that takes nothing from the caller's: no proxies, tokens or settings."""
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(scratch)}


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request(
    url: str, method: str = "GET", json: object = None, timeout_s: float = ANSWER_S
) -> tuple[int, Any]:
    """Ask past any proxy; return the status and the body: JSON, a list for NDJSON, text, or None if empty."""
    body = None if json is None else dumps(json).encode()
    asked = Request(url, body, {"Content-Type": "application/json"} if body else {}, method=method)
    try:
        with _direct.open(asked, timeout=timeout_s) as answer:
            return answer.status, _parsed(answer)
    except HTTPError as refusal:
        with refusal:
            return refusal.code, _parsed(refusal)


def _parsed(answer: HTTPResponse | HTTPError) -> Any:
    text = answer.read().decode()
    kind = answer.headers.get_content_type()
    if kind == "application/x-ndjson":
        return [loads(line) for line in text.splitlines() if line.strip()]
    if kind == "application/json" and text:
        return loads(text)
    return text or None


def _watch(group: int) -> subprocess.Popen[bytes]:
    """Start a shell that kills the process group when its standard input ends, that is when we die."""
    script = 'read -r line; kill -s KILL -- "-$1"'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "watchdog", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether the process is over, without reaping it: its id and its group's stay taken."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the leader to end (it then ends its own children), kill what is left of its group, reap it."""
    os.kill(process.pid, signal.SIGTERM)
    _until(lambda: _ended(process), STOP_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _until(lambda: not group_exists(process.pid), STOP_S)


def group_exists(group: int) -> bool:
    """Say whether any process of the process group exists, be it a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _until(true: Callable[[], bool], limit_s: float) -> bool:
    """Return whether `true` came true within `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while not (come := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return come
