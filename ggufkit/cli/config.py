"""The user's config file: one TOML table per command, keys are the long flags."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from ggufkit.errors import UsageError


def config_file() -> Path:
    """Return where the config file is (whether or not it exists)."""
    return Path(click.get_app_dir("ggufkit")) / "config.toml"


def default_map(commands: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the defaults of the config file for Click; raises UsageError for what it can't mean."""
    path = config_file()
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    for name, table in tables.items():
        if name not in commands or not isinstance(table, dict):
            near = difflib.get_close_matches(name, commands, n=1)
            hint = f"did you mean [{near[0]}]?" if near else "one table per command, e.g. [pull]"
            raise UsageError(f"{path}: no command is called {name}", hint=hint)
    return {name: {key.replace("-", "_"): v for key, v in table.items()} for name, table in tables.items()}


def check_keys(ctx: click.Context) -> None:
    """Refuse a key of the config file that names no flag of the running command."""
    known = {p.name for p in ctx.command.params if isinstance(p, click.Option) and p.name}
    for key in ctx.default_map or {}:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean {near[0].replace('_', '-')}?" if near else None
            raise UsageError(
                f"{config_file()}: {ctx.command.name} has no flag {key.replace('_', '-')}", hint=hint
            )
