"""The user's config file: one TOML table per command, keys are the long flags."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click

from ggufkit.errors import UsageError


def config_file() -> Path:
    """Return where the config file is (whether or not it exists)."""
    return Path(click.get_app_dir("ggufkit")) / "config.toml"


def read_config(commands: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the tables of the config file, one per command; raises UsageError for what it can't mean."""
    import tomllib

    path = config_file()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    for name, table in tables.items():
        if name in commands and not isinstance(table, dict):
            raise UsageError(f"{path}: {name} is no table", hint=f"write [{name}], and its flags below")
        if name not in commands:
            near = difflib.get_close_matches(name, commands, n=1)
            hint = f"did you mean [{near[0]}]?" if near else "one table per command, e.g. [pull]"
            raise UsageError(f"{path}: no command is called {name}", hint=hint)
    return tables


def by_parameter(command: click.Command, table: dict[str, Any]) -> dict[str, Any]:
    """Return a command's table by its parameters' names; raises UsageError for a key that is no flag."""
    flags = dict(_long_flags(command))
    out = {}
    for key, value in table.items():
        option = flags.get(key)
        if option is None or option.name is None:
            near = difflib.get_close_matches(key, flags, n=1)
            hint = f"did you mean {near[0]}?" if near else None
            raise UsageError(f"{config_file()}: {command.name} has no flag {key}", hint=hint)
        if f"--{key}" in option.secondary_opts:  # --no-verify
            value = not value
        if isinstance(option.flag_value, str):  # --copy of "how": its word, or nothing
            value = option.flag_value if value else None
        if value is not None:
            out[option.name] = value
    return out


def name_variables(command: click.Command) -> None:
    """Let GGUFKIT_<COMMAND>_<FLAG> name an option's default also where its parameter has another name."""
    names: dict[click.Option, list[str]] = {}
    for flag, option in _long_flags(command, with_negated=False):
        own_name = flag.replace("-", "_")
        chooses_a_word = isinstance(option.flag_value, str)  # --copy of "how": the word has the variable
        if option.envvar is None and option.name != own_name and not chooses_a_word:
            variable = f"GGUFKIT_{command.name}_{own_name}".replace("-", "_").upper()
            names.setdefault(option, []).append(variable)
    for option, variables in names.items():
        option.envvar = variables


def _long_flags(command: click.Command, *, with_negated: bool = True) -> Iterator[tuple[str, click.Option]]:
    for option in command.params:
        if isinstance(option, click.Option):
            for flag in (*option.opts, *(option.secondary_opts if with_negated else ())):
                if flag.startswith("--"):
                    yield flag[2:], option
