"""Which folder an Ollama of this machine was started with: its process's environment, or its systemd unit.

A server that has no model yet can't be asked, and one that is down not at all. The service of Ollama's
install script runs as the user `ollama` (scripts/install.sh); its home is in the password file.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ggufkit.runtimes.ollama_server import server_url

UNIT = "ollama.service"
SYSTEMCTL_S = 5.0


@dataclass(frozen=True, slots=True)
class Serving:
    """A folder that an Ollama keeps its models in."""

    folder: Path
    """The folder; it need not exist yet."""
    found_by: str
    """What named it."""


def folder_of_process(url: str, root: Path = Path("/")) -> Serving | None:
    """Return the folder of the process that serves `url`, by its environment in `root`/proc.

    Where this user may not read any, the home of the process's user tells, if it is the only one.
    """
    closed: list[Serving] = []
    for process in _serving(root):
        try:
            environ = _environ((process / "environ").read_bytes())
        except OSError:
            home = _home_of(process)
            closed += [Serving(_models({}, home), f"the user of process {process.name}")] if home else []
            continue
        if server_url(environ.get("OLLAMA_HOST")) == url:
            folder = _models(environ, Path(environ.get("HOME") or Path.home()))
            return Serving(folder, f"the environment of process {process.name}")
    return closed[0] if len(closed) == 1 else None


def folder_of_unit() -> Serving | None:
    """Return the folder of the systemd unit, if there is one."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    asked = [program, "show", UNIT, "--property=LoadState,Environment,User"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if fields.get("LoadState") != "loaded":
        return None
    with contextlib.suppress(ValueError):  # quotes that don't end
        pairs = (
            word.partition("=")[::2] for word in shlex.split(fields.get("Environment", "")) if "=" in word
        )
        environ = dict(pairs)
        home = environ.get("HOME") or _home_named(fields.get("User") or "root")
        if home is not None:
            return Serving(_models(environ, Path(home)), UNIT)
    return None


def _serving(root: Path) -> Iterator[Path]:
    """Yield the processes that run `ollama serve`."""
    for process in (root / "proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].rpartition(b"/")[2].startswith(b"ollama") and b"serve" in words[1:2]:
                yield process


def _environ(data: bytes) -> dict[str, str]:
    pairs = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in pairs}


def _models(environ: Mapping[str, str], home: Path) -> Path:
    named = environ.get("OLLAMA_MODELS", "").strip().strip("\"'")  # as envconfig.Var does
    return Path(named) if named else home / ".ollama" / "models"


def _home_of(process: Path) -> Path | None:
    try:
        import pwd

        return Path(pwd.getpwuid(process.stat().st_uid).pw_dir)
    except (ImportError, KeyError, OSError):
        return None


def _home_named(user: str) -> str | None:
    try:
        import pwd

        return pwd.getpwnam(user).pw_dir
    except (ImportError, KeyError):
        return None
