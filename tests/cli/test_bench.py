"""`ggufkit bench` at the prompt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ggufkit.bench.file import published_schema, read_result, write_result
from ggufkit.cli import bench as module
from ggufkit.cli.main import run
from tests.bench.asking import OLLAMA
from tests.bench.made import made
from tests.bench.schema_check import faults
from tests.support.replay import Replay, Reply, delta, finish, recording, run_replay, sse, usage

GOOD = sse(delta(content="9"), delta(content=".9"), finish(), usage(70, 3), gap_s=0.002)


@pytest.fixture
def ollama() -> Iterator[Replay]:
    with run_replay({**OLLAMA, "/api/chat": recording("ol2_chat", speed=20)}) as server:
        yield server


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


Captured = pytest.CaptureFixture[str]


def ask(server: Replay, *words: str) -> int:
    return run(["bench", "--url", server.url, "--model", "smol", "--repeat", "1", *words])


def test_five_questions_and_a_table(ollama: Replay, capsys: Captured) -> None:
    assert ask(ollama, "-o", "r.json", "--prompt-words", "20") == 0
    out, err = capsys.readouterr()
    names = ["QUESTION", "essay-en", "compare-en", "poem-en", "logic-en", "physics-en", "prompt-20"]
    assert [line.split()[1] for line in out.splitlines()[3:10]] == names
    assert "SERVER SAYS" in out and "one answer after the other" in out
    assert f"ollama 0.5.4 at {ollama.url}: smol; 6 questions, 6 answers, to r.json" in err
    assert "cut at 4,096 tokens, and so not judged: 5" in err and "next: ggufkit bench show r.json" in err
    assert len(read_result(Path("r.json")).models[0].questions) == 6


def test_json_is_the_file_and_quiet_its_name(ollama: Replay, capsys: Captured) -> None:
    assert ask(ollama, "-o", "r.json", "--json", "--lang", "zh") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(Path("r.json").read_text("utf-8"))
    schema = published_schema()
    assert faults(document, schema, schema) == [] and document["schema"] == "ggufkit.bench/1"
    assert ask(ollama, "-q") == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file() and out.startswith("bench-") and err == ""


def test_a_dry_run_asks_and_writes_nothing(ollama: Replay, capsys: Captured) -> None:
    assert ask(ollama, "-o", "r.json", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "5 questions, 5 answers, to r.json" in out and "[dry run]" in err
    assert not Path("r.json").exists() and ollama.bodies("/api/chat") == []
    os.environ["GGUFKIT_API_KEY"] = "k-secret"
    try:
        assert ask(ollama, "--dry-run", "--json") == 0
    finally:
        del os.environ["GGUFKIT_API_KEY"]
    assert "k-secret" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--resume"], 2, "--resume needs the file"),
        (["-o", "there.json"], 9, "there.json is there already"),
        (["-o", "there.json", "--resume"], 7, "not JSON"),
        (["-o", "none/r.json"], 3, "no such folder"),
        (["--model", "nope"], 3, "the server has no model nope"),
        (["--questions", "there.json"], 7, "not a file of questions"),
        (["show", "there.json"], 2, "--url does not go before show"),
    ],
)
def test_errors(ollama: Replay, capsys: Captured, words: list[str], code: int, message: str) -> None:
    Path("there.json").write_text("x")
    assert ask(ollama, *words) == code
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert Path("there.json").read_text() == "x"


def test_show(capsys: Captured) -> None:
    write_result(Path("r.json"), made())
    assert run(["bench", "show", "r.json"]) == 0
    table = capsys.readouterr().out
    assert "compare-zh" in table and "10.00" in table
    assert run(["bench", "show", "r.json", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert run(["bench", "show", "r.json", "--format", "markdown"]) == 0
    assert "落叶" in capsys.readouterr().out
    assert run(["bench", "show", "r.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("r.json").read_text("utf-8"))
    assert run(["bench", "show", "none.json"]) == 2


def test_show_writes_what_the_file_is_called_like(capsys: Captured) -> None:
    write_result(Path("r.json"), made())
    for name, start in (("r.html", "<!doctype html>"), ("r.csv", "model,"), ("r.md", "# smol")):
        assert run(["bench", "show", "r.json", "-o", name]) == 0
        assert Path(name).read_text("utf-8").startswith(start)
        assert capsys.readouterr().out == f"{name}: written\n"
    assert run(["bench", "show", "r.json", "-o", "r.html"]) == 9
    assert run(["bench", "show", "r.json", "-o", "r.html", "--force", "-q"]) == 0
    assert run(["bench", "show", "r.json", "--format", "html"]) == 0
    assert "</html>" in capsys.readouterr().out


def test_compare(capsys: Captured) -> None:
    write_result(Path("a.json"), made())
    write_result(Path("b.json"), made((12.0, 12.1, 11.9)))
    assert run(["bench", "compare", "a.json", "b.json"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:5] == ["smol", "all", "10.00", "12.00", "+20.0%"]
    assert run(["bench", "compare", "a.json", "b.json", "-q"]) == 0
    assert capsys.readouterr().out == "+20.0%\n"
    assert run(["bench", "compare", "a.json", "b.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["told_apart"] is True
    write_result(Path("c.json"), made(()))
    assert run(["bench", "compare", "a.json", "c.json"]) == 2
    assert "can't be compared" in capsys.readouterr().err


def test_text_from_a_server_drives_no_terminal(capsys: Captured) -> None:
    write_result(Path("r.json"), made(name="a\x1b[2Jb"))
    assert run(["bench", "show", "r.json"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_ctrl_c_keeps_what_there_is() -> None:
    endless = Reply(((0.0, b": wait"),), hang_s=20)
    with run_replay({"/v1/chat/completions": [GOOD, GOOD, GOOD, endless]}) as server:
        words = ["--url", server.url, "--model", "smol", "--repeat", "1", "-o", "r.json"]
        argv = [sys.executable, "-m", "ggufkit", "bench", *words]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env={**os.environ})
        until = time.monotonic() + 60
        while len(server.bodies("/v1/chat/completions")) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "--resume goes on" in err
        assert read_result(Path("r.json")).models[0].summary.n_runs == 2
        server.routes["/v1/chat/completions"] = GOOD
        assert run(["bench", *words, "--resume"]) == 0
    assert read_result(Path("r.json")).models[0].summary.n_runs == 5


def test_no_sound_answer_is_a_failure_with_a_file(ollama: Replay, capsys: Captured) -> None:
    ollama.routes["/api/chat"] = Reply((), 500, "text/plain")
    assert ask(ollama, "-o", "r.json") == 5
    err = capsys.readouterr().err
    assert "error: no answer came to its end: the server answered 500" in err and "--resume asks again" in err
    assert read_result(Path("r.json")).models[0].summary.n_sound == 0
    ollama.routes["/api/chat"] = recording("ol_chat", speed=20)
    assert ask(ollama, "-o", "loop.json") == 5
    assert "broke off without a last message" in capsys.readouterr().err


@pytest.mark.parametrize("command", [module.show, module.compare_command])
def test_the_commands_behind_it_have_help_and_examples(command: click.Command) -> None:
    text = command.help or ""
    name = f"ggufkit bench {command.name}"
    assert text.splitlines()[0] == command.short_help and name in text.partition("Examples:")[2]
    options: list[Any] = [param for param in command.params if isinstance(param, click.Option)]
    assert options and all(option.help for option in options)
