"""What llama-server is to be started with, in the words of the build that is there.

Sources: llama.cpp common/arg.cpp and tools/server/README.md; the flags of loading changed in July 2026
(pull request 20834): `--load-mode` came, `--mmap` and `--mlock` went some builds later.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ggufkit.errors import NotFoundError, ToolError

PROGRAM = "llama-server"
PROBE_S = 30.0
"""How long `llama-server --help` may take; a build with GPU libraries loads them first."""

LoadMode = Literal["mmap", "mlock", "none"]
"""`mmap`: pages may be dropped and read again; `mlock`: mapped, and kept in memory; `none`: read at start."""
NEW_LOAD_MODES: dict[LoadMode, str] = {"mmap": "mmap", "mlock": "mmap+mlock", "none": "none"}
OLD_LOAD_FLAGS: dict[LoadMode, str | None] = {"mmap": None, "mlock": "mlock", "none": "no-mmap"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which flags a build of llama-server understands."""

    load_mode: bool
    """`--load-mode MODE` in place of `--no-mmap` and `--mlock`."""
    flash_attn_value: bool
    """`--flash-attn on|off|auto`; before September 2025 it was a switch."""
    cpu_moe: bool
    """`--n-cpu-moe N`, since August 2025."""
    router: bool
    """`--models-preset FILE`: one server for several models."""


NEW = Dialect(load_mode=True, flash_attn_value=True, cpu_moe=True, router=True)
OLD = Dialect(load_mode=False, flash_attn_value=True, cpu_moe=True, router=False)
DIALECTS = {"new": NEW, "old": OLD}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model as it is to be served."""

    alias: str
    """What the API calls it."""
    model: Path
    """The file, or shard 1 of the set: llama.cpp finds the others. Absolute."""
    context_tokens: int
    """Tokens of context of all slots together."""
    n_slots: int = 1
    """How many texts are worked on at the same time."""
    n_threads: int | None = None
    """Threads that compute; None leaves it to llama.cpp."""
    numa: bool = False
    """Spread the threads over the nodes of a machine with several sockets."""
    load: LoadMode = "mmap"
    """How the weights come into memory."""
    repack: bool = True
    """Whether weights may be rearranged, into a second copy of them that can't be dropped."""
    cache_type_k: str = "f16"
    """Type of the cached keys."""
    cache_type_v: str = "f16"
    """Type of the cached values."""
    flash_attn: str = "auto"
    """`on`, `off` or `auto`."""
    placement: tuple[tuple[str, str | None], ...] = ()
    """What goes to GPUs and to other machines: pairs of a long flag without its dashes and its value,
    None for a switch."""
    host: str = "127.0.0.1"
    """The address that the server listens at."""
    port: int = 8080
    """The port that the server listens at."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A long flag of llama-server, without its dashes, and its value; None for a switch."""

    name: str
    """As in `--name`."""
    value: str | None = field(default=None)
    """As it is typed, without quotes."""


def find_server(program: str | Path | None) -> Path | None:
    """Return the llama-server that is meant, else the one on the PATH; None when there is none.

    Raises NotFoundError when the one that was named isn't there.
    """
    found = shutil.which(str(program or PROGRAM))
    if program and not found:
        raise NotFoundError(f"{program}: no such program", hint="the path of llama-server itself")
    return Path(found).absolute() if found else None


def probe(server: Path) -> Dialect:
    """Ask a llama-server which flags it knows; raises ToolError when it does not say."""
    try:
        asked = subprocess.run(
            [server, "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{server} --help failed: {error}", hint="--dialect new or old says it") from error
    text = (asked.stdout + asked.stderr).decode("utf-8", "replace")
    if asked.returncode or "--ctx-size" not in text:
        end = text.strip().rpartition("\n")[2]
        message = f"{server} --help ended with {asked.returncode}: {end or 'it says nothing'}"
        raise ToolError(message, hint="is it llama-server? --dialect new or old goes on without asking it")
    return read_dialect(text)


def read_dialect(help_text: str) -> Dialect:
    """Read from llama-server's help which flags it knows."""
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", help_text))
    return Dialect(
        load_mode="--load-mode" in flags,
        flash_attn_value=re.search(r"--flash-attn\s+[\[<{]?(?:on|FA\b)", help_text) is not None,
        cpu_moe="--n-cpu-moe" in flags,
        router="--models-preset" in flags,
    )


def settings(deployment: Deployment, dialect: Dialect) -> tuple[Setting, ...]:
    """Return how llama-server is told of the deployment: its model first, the address not at all.

    Raises ToolError for what this build can't be told.
    """
    d = deployment
    found = [Setting("model", str(d.model)), Setting("ctx-size", str(d.context_tokens))]
    found.append(Setting("parallel", str(d.n_slots)))
    if d.n_threads:
        found += [Setting("threads", str(d.n_threads)), Setting("threads-batch", str(d.n_threads))]
    if d.numa:
        found.append(Setting("numa", "distribute"))
    found += _loading(d, dialect)
    found += _caches(d, dialect)
    if not dialect.cpu_moe and any(name == "n-cpu-moe" for name, _ in d.placement):
        raise ToolError("this llama-server is too old for --n-cpu-moe", hint="a build since August 2025")
    return (*found, *(Setting(name, value) for name, value in d.placement))


def _loading(deployment: Deployment, dialect: Dialect) -> list[Setting]:
    found = []
    old = OLD_LOAD_FLAGS[deployment.load]
    if dialect.load_mode:
        found.append(Setting("load-mode", NEW_LOAD_MODES[deployment.load]))
    elif old:
        found.append(Setting(old))
    if not deployment.repack:
        found.append(Setting("no-repack"))
    return found


def _caches(deployment: Deployment, dialect: Dialect) -> list[Setting]:
    found = []
    if deployment.flash_attn == "on" and not dialect.flash_attn_value:
        found.append(Setting("flash-attn"))
    elif deployment.flash_attn != "auto" and dialect.flash_attn_value:
        found.append(Setting("flash-attn", deployment.flash_attn))
    for name, value in (("cache-type-k", deployment.cache_type_k), ("cache-type-v", deployment.cache_type_v)):
        if value != "f16":
            found.append(Setting(name, value))
    return found
