"""The documentation is true: commands, flags, sessions, and both languages side by side."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ggufkit.cli.main import COMMANDS, cli
from tests.support.readme import READMES, ROOT, run_all, sessions

ENGLISH, CHINESE = READMES


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(cli)
    found = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    return [(name, command) for name, command in found if command is not None]


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_command_has_help_an_example_and_its_place_in_the_readme(name: str, command: click.Command) -> None:
    text = command.help or ""
    assert text.splitlines()[0] == COMMANDS[name] == command.short_help
    assert len(COMMANDS[name]) < 60
    assert f"ggufkit {name}" in text.partition("Examples:")[2]
    for readme in READMES:
        assert re.search(rf"^### {name}\b", readme.read_text("utf-8"), re.MULTILINE), (
            f"{name} in {readme.name}"
        )


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_flag_has_help_and_the_examples_parse(name: str, command: click.Command) -> None:
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts}"
    for line in re.findall(rf"^\s*ggufkit {name}(.*)$", command.help or "", re.MULTILINE):
        arguments = [word for word in line.split("#")[0].split() if word != "&"]
        command.make_context(name, arguments, resilient_parsing=False)


def test_the_group_names_every_exit_code_of_the_readme() -> None:
    codes = re.findall(r"^\| (\d+) \|", ENGLISH.read_text("utf-8"), re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "130"]
    epilog = cli.epilog or ""
    assert all(re.search(rf"\b{code} \w", epilog) for code in codes)


def test_both_readmes_have_the_same_shape() -> None:
    """Headings level by level, code blocks and tables' first columns: neither language may fall behind."""
    shapes = []
    for readme in READMES:
        text = readme.read_text("utf-8")
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        levels = re.findall(r"^(#+) ", prose, re.MULTILINE)
        blocks = re.findall(r"^```(?:sh|console|python)\n.*?^```$", text, re.MULTILINE | re.DOTALL)
        code = [re.sub(r"\s+#.*", "", block) for block in blocks]
        firsts = re.findall(r"^\| (`[^|]+`|\d+) \|", text, re.MULTILINE)
        shapes.append((levels, code, firsts))
    assert shapes[0] == shapes[1]


def test_the_readmes_link_to_each_other_and_to_files_that_exist() -> None:
    for readme in READMES:
        text = readme.read_text("utf-8")
        assert all(other.name in text.splitlines()[0] for other in READMES if other != readme)
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{readme.name}: {target}"


@pytest.mark.runtimes
@pytest.mark.models
def test_the_sessions_of_the_readme_print_what_it_says(tmp_path: Path) -> None:
    """`scripts/readme` writes them anew."""
    written = sessions(ENGLISH)
    assert len(written) >= 9
    done = run_all([session.command for session in written], tmp_path)
    for wanted, got in zip(written, done, strict=True):
        assert got.output == wanted.output, wanted.command
