"""The config file: where it is, what it may hold, and what is said of what it can't mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from ggufkit.cli.config import by_parameter, config_file
from ggufkit.cli.main import COMMANDS, cli
from tests.cli.conftest import Run
from tests.support.ggufs import make_gguf, make_shards


@pytest.fixture
def config(own_home: Path) -> Path:
    path = own_home / ".config" / "ggufkit" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def shards(work: Path) -> tuple[Path, ...]:
    found = make_shards(make_gguf(work / "w" / "m.gguf"), work / "m", max_tensors=6)
    (work / "w" / "m.gguf").unlink()
    return found


def test_where_it_is(config: Path) -> None:
    assert config_file() == config


def test_without_one_all_is_as_it_is(run: Run, shards: tuple[Path, ...]) -> None:
    assert run("merge", "-q").out == "m.gguf\n"


def test_its_keys_are_the_long_flags(run: Run, shards: tuple[Path, ...], work: Path, config: Path) -> None:
    config.write_text('[merge]\nkeep-split-keys = true\nverify = false\njson = true\noutput = "c.gguf"\n')
    document = run("merge").json
    assert document["output"] == "c.gguf" and document["sha256"] is None
    document = run("merge", "m", "--verify", "-o", "d.gguf").json
    assert document["output"] == "d.gguf" and document["sha256"], "a flag goes before the file"
    config.write_text("[merge]\nno-verify = true\n")
    assert run("merge", "m", "--json", "-o", "f.gguf").json["sha256"] is None
    config.write_text("[merge]\nquiet = true\n")
    assert run("merge", "m", "-o", "e.gguf").out == "e.gguf\n"


def test_flags_of_other_commands_are_theirs(run: Run, shards: tuple[Path, ...], config: Path) -> None:
    config.write_text('[pull]\nsource = "modelscope"\n[split]\nmax-size = "1G"\n')
    assert run("merge", "-q").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[merge]\nkeep-splitkeys = 1\n", ["no flag keep-splitkeys", "did you mean keep-split-keys?"]),
        ("[merge]\nmodel = 'x'\n", ["merge has no flag model"]),
        ("[merge]\nnonsense = 1\n", ["merge has no flag nonsense"]),
        ("[merg]\nquiet = true\n", ["no command is called merg", "did you mean [merge]?"]),
        ("color = 'never'\n", ["no command is called color", "one table per command, e.g. [pull]"]),
        ("merge = 7\n", ["merge is no table", "write [merge]"]),
        ("[merge\n", ["Expected ']'"]),
        ("[merge]\nverify = 'maybe'\n", ["not a valid boolean", "maybe"]),
        ("[split]\nmax-size = 'lots'\n", []),
    ],
)  # fmt: skip
def test_what_it_can_not_mean_is_told(
    run: Run, shards: tuple[Path, ...], work: Path, config: Path, text: str, words: list[str]
) -> None:
    config.write_text(text)
    done = run("merge")
    if not words:
        assert done.code == 0, "another command's table is looked at when that runs"
        assert run("split", work / "m.gguf").code == 2
        return
    assert done.code == 2 and all(word in done.err for word in words) and "Traceback" not in done.err
    assert "config.toml" in done.err or "maybe" in done.err
    assert not (work / "m.gguf").exists()


def test_bytes_that_are_no_text_are_told(run: Run, work: Path, config: Path) -> None:
    config.write_bytes(b"[merge]\nquiet = \xff\n")
    done = run("merge")
    assert done.code == 2 and str(config) in done.err


def test_help_is_had_whatever_is_in_it(run: Run, config: Path) -> None:
    config.write_text("[nonsense\n")
    assert run("--help").code == 0 and run("--version").code == 0


@pytest.mark.parametrize(("value", "code"), [("1", 0), ("true", 0), ("maybe", 2)])
def test_the_environment_names_every_flag(
    run: Run, shards: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, config: Path, value: str, code: int
) -> None:
    config.write_text("[merge]\njson = false\n")
    monkeypatch.setenv("GGUFKIT_MERGE_JSON", value)
    done = run("merge")
    assert done.code == code
    if code == 0:
        assert done.json["output"] == "m.gguf", "the environment goes before the file"


def words() -> list[tuple[str, str, click.Option]]:
    """Return every command's long flags with their options."""
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                found += [(name, flag[2:], option) for flag in option.opts if flag.startswith("--")]
    return found


def value_of(option: click.Option) -> Any:
    """Return a value that the option takes, other than its default."""
    if option.is_flag:
        return option.default is not True
    if isinstance(option.type, click.Choice):
        return next(c for c in option.type.choices if c != option.default)
    if isinstance(option.type, click.types.IntRange | click.types.FloatRange):
        return 4 if option.default != 4 else 5
    value = {"host": "box=7G", "override": "exps=CPU"}.get(option.type.name, "7")
    if isinstance(option.type, click.Path) and not option.type.file_okay:
        value = "folder"
    return [value] if option.multiple else value


@pytest.mark.parametrize(("name", "flag", "option"), words(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_flag_is_a_key_and_a_variable(
    monkeypatch: pytest.MonkeyPatch, work: Path, name: str, flag: str, option: click.Option
) -> None:
    """Whatever its parameter is called in the code."""
    (work / "7").write_text("some options name a file that is there")
    (work / "folder").mkdir()
    command = cli.get_command(click.Context(cli), name)
    assert command is not None and option.name is not None

    def params(**table: Any) -> dict[str, Any]:
        required = ["7"] * sum(p.required for p in command.params if isinstance(p, click.Argument))
        parent = click.Context(cli, info_name="ggufkit", auto_envvar_prefix="GGUFKIT")
        parent.default_map = {name: by_parameter(command, table)}
        return command.make_context(name, required, parent=parent).params

    value, plain = value_of(option), params()[option.name]
    assert params(**{flag: value})[option.name] != plain
    if not isinstance(option.flag_value, str):
        text = str(value[0] if isinstance(value, list) else value)
        monkeypatch.setenv(f"GGUFKIT_{name}_{flag}".replace("-", "_").upper(), text)
        assert params()[option.name] != plain
