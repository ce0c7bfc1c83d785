"""Sizes as people write them, and the options that every command has."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.cli.main import COMMANDS, cli
from ggufkit.cli.params import MEMORY_SIZE, SHARD_SIZE, output_options
from ggufkit.cli.render import Out


@pytest.mark.parametrize(
    ("text", "memory", "shard"),
    [
        ("24", 24, 24),
        ("24B", 24, 24),
        ("1k", 1 << 10, 1000),
        ("24G", 24 << 30, 24 * 10**9),
        ("24g", 24 << 30, 24 * 10**9),
        ("24 G", 24 << 30, 24 * 10**9),
        ("24GB", 24 * 10**9, 24 * 10**9),
        ("24GiB", 24 << 30, 24 << 30),
        ("24Gi", 24 << 30, 24 << 30),
        ("24gib", 24 << 30, 24 << 30),
        ("1.5T", 3 << 39, 1_500_000_000_000),
        ("0.5M", 1 << 19, 500_000),
        (" 512M ", 512 << 20, 512 * 10**6),
        ("25769803776", 25769803776, 25769803776),
    ],
)
def test_sizes(text: str, memory: int, shard: int) -> None:
    assert MEMORY_SIZE.convert(text, None, None) == memory
    assert SHARD_SIZE.convert(text, None, None) == shard


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "24X", "1,5G", "24 G B", "1e9", "0", "0.0G", "٣G", "24GGB", "1.G", "nan"]
)
def test_what_is_no_size_is_answered_with_an_example(text: str) -> None:
    for kind in (MEMORY_SIZE, SHARD_SIZE):
        with pytest.raises(click.BadParameter, match="write it like") as caught:
            kind.convert(text, None, None)
        assert kind.example in caught.value.message


@given(st.integers(1, 10**15))
def test_bytes_are_bytes(n_bytes: int) -> None:
    assert SHARD_SIZE.convert(str(n_bytes), None, None) == n_bytes == SHARD_SIZE.convert(n_bytes, None, None)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_output_options(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if name == "manifest":  # does nothing itself
        command = command.get_command(click.Context(command), "show")  # type: ignore[attr-defined]
    options = {opt: p for p in command.params if isinstance(p, click.Option) for opt in p.opts}
    for flags in (("--json",), ("-q", "--quiet"), ("-v", "--verbose")):
        assert all(options[flag].is_flag for flag in flags)
    assert all(option.help for option in options.values())


def test_the_output_options_come_as_one_thing() -> None:
    @click.command()
    @click.argument("word")
    @output_options
    def command(out: Out, word: str) -> None:
        click.echo(f"{word} {out.as_json} {out.quiet} {out.verbose}")

    done = CliRunner().invoke(command, ["x", "--json", "-v"])
    assert done.output == "x True False True\n"
