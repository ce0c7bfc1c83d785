"""Questions to an Ollama: where it is, what it answers, and what is made of strange answers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ggufkit.runtimes import ollama_server
from ggufkit.runtimes.ollama_server import OllamaServer, ask, find_server, is_loopback, server_url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        ("example.com", "http://example.com:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("example.com:1234", "http://example.com:1234"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://1.2.3.4:1/ollama/", "https://1.2.3.4:1/ollama"),
        ('"127.0.0.1:5"', "http://127.0.0.1:5"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:99", "http://127.0.0.1:99"),
        ("[::]:99", "http://[::1]:99"),
        ("[::1]", "http://[::1]:11434"),
        ("host:70000", "http://host:11434"),
    ],
)
def test_urls_of_ollama_host(host: str | None, url: str) -> None:
    assert server_url(host) == url


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://192.168.0.9:1", False),
        ("http://ollama.lan:1", False),
        ("http://127.0.0.1.evil.example:1", False),
    ],
)
def test_what_is_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) == here


class Fake:
    """A server that answers what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/version": {"version": "0.9.3"}}
        self.asked: list[tuple[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append((self.path, None))
                self.answer()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.asked.append((self.path, json.loads(body)))
                self.answer()

            def answer(self) -> None:
                answer = fake.answers.get(self.path)
                if callable(answer):
                    answer = answer()
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def server(self) -> OllamaServer:
        found = find_server(self.host)
        assert found is not None
        return found


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.9.3", (0, 9)),
        ("0.5.4-ipexllm-20250407", (0, 5)),
        ("0.33.0-rc2", (0, 33)),
        ("0.0.0", None),
        ("", None),
    ],
)
def test_versions(fake: Fake, text: str, version: tuple[int, int] | None) -> None:
    fake.answers["/api/version"] = {"version": text}
    assert fake.server().version == version


def test_loopback_is_asked_past_any_proxy(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fake.server().version_text == "0.9.3"


def test_other_machines_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(ollama_server, "ask", refuse)
    assert find_server("192.0.2.1:11434") is None


def test_nobody_there() -> None:
    assert find_server("127.0.0.1:9") is None


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"<html>", b"[" * 99999])
def test_answers_that_are_none(fake: Fake, answer: bytes) -> None:
    fake.answers["/api/version"] = answer
    assert find_server(fake.host) is None


def test_a_server_that_hangs_is_not_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_server, "TIMEOUT_S", 0.2)
    fake.answers["/api/version"] = lambda: time.sleep(1.0)
    began = time.monotonic()
    assert find_server(fake.host) is None
    assert time.monotonic() - began < 0.9


def test_a_long_answer_is_not_read_to_its_end(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_server, "MAX_ANSWER_BYTES", 100)
    fake.answers["/api/tags"] = {"models": [{"name": "x" * 200}]}
    assert ask(f"http://{fake.host}/api/tags") is None


def test_ids_by_name(fake: Fake) -> None:
    models = [{"name": "a:latest", "digest": "ab"}, {"name": "b:1", "digest": "sha256:cd"}, {}]
    fake.answers["/api/tags"] = {"models": models}
    assert fake.server().digests() == {"a:latest": "ab", "b:1": "cd", "None": "None"}
    fake.answers["/api/tags"] = {"models": None}  # Go's empty slice
    assert fake.server().digests() == {}


def modelfile(folder: str) -> str:
    return (
        '# Modelfile generated by "ollama show"\n# FROM a:latest\n\n'
        f"FROM {folder}/blobs/sha256-{'ab' * 32}\nTEMPLATE {{{{ .Prompt }}}}\n"
    )


@pytest.mark.parametrize("folder", ["/usr/share/ollama/.ollama/models", "/my models/o", "/模型"])
def test_the_store_is_what_the_server_says(fake: Fake, folder: str) -> None:
    fake.answers["/api/tags"] = {"models": [{"name": "a:latest", "digest": "ab"}]}
    fake.answers["/api/show"] = {"modelfile": modelfile(folder)}
    assert fake.server().store() == Path(folder)
    assert fake.asked[-1] == ("/api/show", {"model": "a:latest", "name": "a:latest"})


def test_models_without_a_file_are_passed_over(fake: Fake) -> None:
    answers = iter(["FROM gpt-oss:120b-cloud\n", modelfile("/m")])
    fake.answers["/api/tags"] = {"models": [{"name": n, "digest": n} for n in ("cloud", "here")]}
    fake.answers["/api/show"] = lambda: {"modelfile": next(answers)}
    assert fake.server().store() == Path("/m")


def test_no_model_no_store(fake: Fake) -> None:
    fake.answers["/api/tags"] = {"models": []}
    assert fake.server().store() is None
    fake.answers["/api/tags"] = {"models": [{"name": "a", "digest": "a"}]}
    fake.answers["/api/show"] = {"error": "model not found"}
    assert fake.server().store() is None
