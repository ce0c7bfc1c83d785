"""A deployment in the form that a shell, systemd, llama-server's router or llama-swap reads.

Sources: systemd.service(5) "Command lines"; llama.cpp docs/preset.md and common/preset.cpp; llama-swap's
config.example.yaml and config-schema.json.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from ggufkit.errors import UsageError
from ggufkit.runtimes.llamacpp import Deployment, Dialect, Setting, settings

INDENT = "  "
STOP_S = 60
"""How long a server with a big model may take to end."""
LOAD_S = 3600
"""How long a model may take to load: 183 GiB from a hard disk are more than half an hour."""


def command_words(server: str, deployment: Deployment, dialect: Dialect) -> list[list[str]]:
    """Return the command as groups of words that belong on one line: the program, then flag by flag."""
    where = (Setting("host", deployment.host), Setting("port", str(deployment.port)))
    return [[server], *_flags((*settings(deployment, dialect), *_alias(deployment), *where))]


def shell_command(server: str, deployment: Deployment, dialect: Dialect) -> str:
    """Return the command for a POSIX shell, a flag a line."""
    return _continued(shlex.join(words) for words in command_words(server, deployment, dialect))


def systemd_unit(server: str, deployment: Deployment, dialect: Dialect, user: str | None = None) -> str:
    """Return a unit for `/etc/systemd/system`, or for a user's own services when `user` is None."""
    lines = (" ".join(map(_systemd_word, words)) for words in command_words(server, deployment, dialect))
    return "\n".join(
        [
            "[Unit]",
            f"Description=llama-server with {_one_line(deployment.alias).replace('%', '%%')}",
            "After=network-online.target",
            "Wants=network-online.target",
            "",
            "[Service]",
            *([f"User={user}"] if user else []),
            f"ExecStart={_continued(lines)}",
            "Restart=on-failure",
            "RestartSec=10",
            f"TimeoutStopSec={STOP_S}",
            *(["LimitMEMLOCK=infinity"] if deployment.load == "mlock" else []),
            "NoNewPrivileges=yes",
            "PrivateTmp=yes",
            "ProtectSystem=full",
            "",
            "[Install]",
            f"WantedBy={'multi-user' if user else 'default'}.target",
            "",
        ]
    )


def router_ini(deployment: Deployment, dialect: Dialect) -> str:
    """Return a preset for `llama-server --models-preset FILE`: the section's name is the model's."""
    name = _one_line(deployment.alias)
    if "]" in name or name in ("*", ""):
        raise UsageError(f"{name or 'nothing'} can't be a section of an INI file", hint="--alias names it")
    pairs = (_ini_pair(setting) for setting in settings(deployment, dialect))
    return "\n".join(["version = 1", "", f"[{name}]", *pairs, ""])


def llama_swap_yaml(server: str, deployment: Deployment, dialect: Dialect) -> str:
    """Return a configuration for llama-swap, which gives the server a port of its own."""
    flags = _flags(settings(deployment, dialect))
    words = [[server], ["--host", "127.0.0.1"], *flags]
    lines = [*(shlex.join(group) for group in words), "--port ${PORT}"]
    if any("${" in line for line in lines[:-1]):
        raise UsageError("llama-swap would take ${ in a path for one of its macros", hint="rename the folder")
    name = json.dumps(deployment.alias, ensure_ascii=False)
    return "\n".join(
        [
            f"healthCheckTimeout: {LOAD_S}",
            "models:",
            f"{INDENT}{name}:",
            f"{INDENT * 2}cmd: |",
            *(f"{INDENT * 3}{_one_line(line)}" for line in lines),
            f"{INDENT * 2}ttl: 0",
            f"{INDENT * 2}unloadTimeout: {STOP_S}",
            f"{INDENT * 2}concurrencyLimit: {max(deployment.n_slots * 4, 10)}",
            f"{INDENT * 2}capabilities:",
            f"{INDENT * 3}context: {deployment.context_tokens // deployment.n_slots}",
            "",
        ]
    )


def _alias(deployment: Deployment) -> tuple[Setting, ...]:
    return (Setting("alias", deployment.alias),)


def _flags(found: Iterable[Setting]) -> list[list[str]]:
    return [[f"--{s.name}"] if s.value is None else [f"--{s.name}", s.value] for s in found]


def _continued(lines: Iterable[str]) -> str:
    return " \\\n  ".join(_one_line(line) for line in lines)


def _ini_pair(setting: Setting) -> str:
    """Write a switch as llama-server's own presets have it: `repack = false`."""
    name, value = setting.name, setting.value
    if value is None:
        name, value = (name[3:], "false") if name.startswith("no-") else (name, "true")
    if value != value.strip() or value.startswith((";", "#")):
        raise UsageError(f"an INI file can't hold the value {value!r}", hint="rename the file")
    return f"{name} = {_one_line(value)}"


def _systemd_word(word: str) -> str:
    """Quote a word for ExecStart: backslashes and quotes escaped, `%` and `$` doubled."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped == word and word and not any(c in word for c in " \t';#")
    return escaped if plain else f'"{escaped}"'


def _one_line(text: str) -> str:
    if not text.isprintable():
        message = f"control characters in {text!r} can't be written here"
        raise UsageError(message, hint="another name, without them")
    return text
