"""The door: help, usage, exit codes, colour, signals, pipes, and what is imported for it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest

from ggufkit import __version__, errors
from ggufkit.cli import main as main_module
from ggufkit.cli.main import COMMANDS, cli
from ggufkit.cli.render import size_text
from tests.cli.conftest import Run
from tests.support.faults import Fault
from tests.support.ggufs import make_gguf, make_shards
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, tree

ROOT = Path(__file__).parents[2]
GROUPS = ("manifest",)  # commands that do nothing themselves
HEAVY: tuple[str, ...] = (
    "huggingface_hub",
    "modelscope",
    "modelscope_hub",
    "numpy",
    "gguf",
    "urllib3",
    "requests",
    "httpx",
)
HEAVY += ("httpx2", "aiohttp", "tqdm", "ssl", "tomllib")


# ---- help ----


def test_bare_it_prints_help_and_ends_with_2(run: Run) -> None:
    done = run()
    assert done.code == 2 and done.out == "" and "Usage: ggufkit" in done.err
    assert all(f"  {name} " in done.err for name in COMMANDS)
    assert "130 interrupted" in done.err


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_is_had_everywhere(run: Run, name: str | None, flag: str) -> None:
    done = run(flag) if name is None else run(name, flag)
    assert done.code == 0 and done.err == "" and "Examples:" in done.out
    assert done.out.startswith(f"Usage: ggufkit {name} " if name else "Usage: ggufkit [OPTIONS] COMMAND")
    if name:
        assert COMMANDS[name] in done.out
        own = run(name, "show", flag) if name in GROUPS else done
        assert all(flag in own.out for flag in ("--json", "-q, --quiet", "-v, --verbose"))


def test_the_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"ggufkit {__version__}\n")


def test_help_imports_no_hub_client_no_http_and_no_numpy() -> None:
    code = (
        "import sys\n"
        "from ggufkit.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "[]\n"


@pytest.mark.parametrize("name", ["pull", "quants", "merge", "split", "verify"])
def test_the_help_of_a_command_imports_no_client_either(name: str) -> None:
    code = (
        "import sys\n"
        "from ggufkit.cli.main import run\n"
        f"assert run([{name!r}, '--help']) == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules and m != 'tomllib'], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "[]\n"


# ---- wrong arguments ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pul"], "There is no command pul. Did you mean pull?"),
        (["nonsense"], "There is no command nonsense."),
        (["non\x1bsense"], "There is no command non\\x1bsense."),
        (["--nonsense"], "No such option"),
        (["pull"], "Missing argument 'REF|MANIFEST'"),
        (["pull", "o/n", "more"], "unexpected extra argument"),
        (["pull", "o/n", "--quants", "Q4"], "--quant"),
        (["pull", "o/n", "--source", "github"], "no source is called github"),
        (["pull", "not a ref"], "not a ref"),
        (["split", "m.gguf", "--max-size", "lots"], "'lots' is no size; write it like 48G"),
        (["split", "m.gguf", "--max-tensors", "0"], "is not in the range x>=1"),
        (["--color", "pink", "merge"], "'pink' is not one of"),
        (["merge", "--force=yes"], "does not take a value"),
    ],
)
def test_wrong_arguments_end_with_2(run: Run, work: Path, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.code == 2 and done.out == "" and words in done.err
    assert "Traceback" not in done.err


# ---- errors and their codes ----


def all_errors() -> list[type[errors.GgufkitError]]:
    kinds: list[type[errors.GgufkitError]] = [errors.GgufkitError, *errors.GgufkitError.__subclasses__()]
    return [kind for kind in kinds if kind.__module__ == errors.__name__]  # rooms have finer ones of these


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2), (errors.NotFoundError, 3), (errors.AccessError, 4), (errors.NetworkError, 5),
        (errors.IntegrityError, 6), (errors.NoSpaceError, 8), (errors.TargetExistsError, 9),
        (errors.ToolError, 10), (errors.GgufkitError, 1),
    ],
)  # fmt: skip
def test_an_expected_failure_is_two_lines_and_its_code(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch, kind: type[errors.GgufkitError], code: int
) -> None:
    fail_with(monkeypatch, kind("it went wrong", hint="do this"))
    done = run("merge")
    assert (done.code, done.out, done.err) == (code, "", "error: it went wrong\nhint: do this\n")


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr("ggufkit.verbs.locate.find_model", fail)


def test_a_failure_without_a_hint_is_one_line(run: Run, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, errors.FormatError("m.gguf", "is odd", offset=1234))
    done = run("merge")
    assert (done.code, done.err) == (7, "error: m.gguf: is odd (at byte 1,234)\n")


def test_names_that_drive_terminals_reach_none(run: Run, work: Path) -> None:
    make_gguf(work / "a\x1b[31m.gguf")
    make_gguf(work / "b\x1b]0;x\x07.gguf")
    for done in (run("merge"), run("merge", "a\x1b[31m.ggu"), run("verify", work / "a\x1b[31m.gguf")):
        assert "\x1b" not in done.out + done.err and "\\x1b" in done.out + done.err
    assert run("merge").err.count("\n") == 4, "lines stay lines"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 8, "/x/y: no space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 8, "disk quota exceeded"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 4, "/x: permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), 1, "/x: is a directory"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), 5, "connection refused"),
        (TimeoutError("timed out"), 5, "timed out"),
    ],
)
def test_what_the_system_says_is_told_in_its_words(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int, words: str
) -> None:
    fail_with(monkeypatch, error)
    done = run("merge")
    assert done.code == code and done.err.startswith(f"error: {words}") and "Traceback" not in done.err


def test_what_nobody_expected_asks_for_a_report(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    done = run("merge")
    assert done.code == 1 and done.err.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert f"ggufkit {__version__}" in done.err and main_module.ISSUES_URL in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("GGUFKIT_DEBUG", "1")
    assert "Traceback" in run("merge").err


def test_debug_shows_where_an_expected_failure_came_from(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGUFKIT_DEBUG", "1")
    done = run("merge")
    assert done.code == 3 and "Traceback" in done.err and "error: no model in this folder" in done.err


def test_an_interruption_is_told_with_the_way_on(
    run: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    done = run("merge")
    assert done.code == 130
    assert done.err.strip() == "error: interrupted\nhint: the same command goes on from here"


def test_every_error_of_the_tree_has_its_own_code() -> None:
    codes = [kind.exit_code for kind in all_errors()]
    assert len(set(codes)) == len(codes) == 10
    said = dict(re.findall(r"(\w+Error)\s+(\d+)  ", errors.__doc__ or ""))
    assert said == {kind.__name__: str(kind.exit_code) for kind in all_errors()[1:]}


# ---- colour ----


def on_terminal(*arguments: str, cwd: Path, env: dict[str, str] | None = None, columns: int = 0) -> str:
    """Run a command with a pseudo-terminal for all its streams; return what it wrote."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **(env or {})}
    command = [sys.executable, "-m", "ggufkit", *arguments]
    with subprocess.Popen(command, cwd=cwd, env=environment, stdin=side, stdout=side, stderr=side) as child:
        os.close(side)
        text = b""
        while True:
            try:
                data = os.read(main, 65536)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not data:
                break
            text += data
        child.wait()
    os.close(main)
    return text.decode()


RED = "\x1b[31merror: \x1b[0m"


@pytest.mark.parametrize(
    ("arguments", "env", "coloured"),
    [
        ((), {}, True),
        (("--color", "never"), {}, False),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"TERM": "dumb"}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
    ],
)
def test_colour_on_a_terminal(
    work: Path, arguments: tuple[str, ...], env: dict[str, str], coloured: bool
) -> None:
    text = on_terminal(*arguments, "merge", cwd=work, env=env)
    assert "no model in this folder" in text
    assert (RED in text) == coloured and ("\x1b" in text) == coloured


@pytest.mark.parametrize(
    ("arguments", "env", "coloured"),
    [
        ((), {}, False),
        (("--color", "always"), {}, True),
        ((), {"FORCE_COLOR": "1"}, True),
        (("--color", "never"), {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_elsewhere(
    run: Run,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    env: dict[str, str],
    coloured: bool,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = run(*arguments, "merge")
    assert (RED in done.err) == coloured and ("\x1b" in done.err) == coloured


@pytest.mark.parametrize("columns", [0, 60])
def test_progress_on_a_terminal_is_one_bar_that_is_taken_away(
    hub: TestHub, files: dict[str, bytes], work: Path, columns: int
) -> None:
    """Also where the terminal does not know its own size."""
    hub.add(Fault(plane="cdn", bytes_per_s=2_500_000))
    hub.add(Fault(plane="cdn", cut_after_bytes=40_000, times=1))
    text = on_terminal("pull", REPO_ID, "--source", "hf", "--connections", "1", cwd=work, columns=columns)
    parts = text.split("\r")
    bars = [part for part in parts if part.startswith("pulli") and "%" in part]
    assert len(bars) >= 3 and all(len(bar) <= (columns or 80) and bar.endswith("B/s]") for bar in bars)
    assert all("…" in bar.split(":")[0] for bar in bars if columns == 60), "the name gives way"
    notes = [part for part in parts if "again in 0.5 s (1 of 8)" in part]
    assert len(notes) == 1 and "%" not in notes[0], "a note has a line of its own"
    last = text[text.rindex(bars[-1]) + len(bars[-1]) :]
    assert re.match(r"\r +\r4 files, ", last), "the bar is gone before the answer comes"
    assert tree(work / NAME) == files


# ---- pipes and processes ----


def test_a_reader_that_goes_away_is_no_error(work: Path) -> None:
    make_gguf(work / "m.gguf")
    child = subprocess.Popen(
        [sys.executable, "-m", "ggufkit", "verify", "m.gguf", "--json"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GGUFKIT_PROGRESS": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    text = child.stderr.read()
    child.stderr.close()
    assert child.wait() in (0, 1) and text == b""


def test_python_dash_m_and_the_script_are_the_same(run: Run, spawn: Run) -> None:
    assert spawn("--version").out == f"ggufkit {__version__}\n"
    assert spawn("merge").code == 3


def test_odd_bytes_in_names_do_not_break_the_output(work: Path) -> None:
    """Neither a name that is no UTF-8, nor a stream that can't write what a name has in it."""
    odd = os.fsdecode(bytes(work) + b"/m\xff\xe4\xb8\xad.gguf")
    make_gguf(Path(odd))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "ggufkit", "verify"]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True)
    assert done.returncode == 0 and b"unproven" in done.stdout and b"Traceback" not in done.stderr
    done = subprocess.run([*command, "--json"], cwd=work, env=env, capture_output=True)
    assert done.returncode == 0 and json.loads(done.stdout)["files"][0]["status"] == "unproven"


# ---- the four lines of the design card ----


def test_the_lines_of_the_design_card_in_a_row(
    hub: TestHub, files: dict[str, bytes], work: Path, spawn: Run
) -> None:
    """The third line, `ollama-import`, is run against real Ollamas elsewhere in the suite."""
    began = time.monotonic()
    first = spawn("pull", REPO_ID, "--quant", QUANT)
    assert first.code == 0, first.err
    size = size_text(sum(map(len, files.values())))
    assert first.out == f"4 files, {size} in {NAME} (4 downloaded), SHA-256 checked\n"
    second = spawn("merge")
    assert second.code == 0, second.err
    assert second.out.startswith(f"{NAME}/{FOLDER}.gguf: ") and "from 4 shards in " in second.out
    assert f"model: {NAME}/{FOLDER}/{FOLDER}\n" in second.err
    last = spawn("fit", "--ram", "256G")
    assert last.code == 0, last.err
    assert f"{NAME}/{FOLDER}.gguf" in last.err + last.out, "the merged file stands for the set"
    assert time.monotonic() - began < 60
    assert sorted(p.name for p in work.iterdir()) == [NAME]
    assert sorted(p.name for p in (work / NAME).iterdir()) == [".ggufkit", FOLDER, f"{FOLDER}.gguf"]


def test_the_group_lists_commands_that_exist() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
    assert cli.get_command(context, "nonsense") is None


def test_shards_of_a_repo_at_hand_are_not_taken_for_an_argument(run: Run, work: Path) -> None:
    make_shards(make_gguf(work / "w" / "m.gguf"), work / "m", max_tensors=6)
    (work / "w" / "m.gguf").unlink()
    assert run("merge", "nothing-here").code == 3
    assert run("merge").code == 0
