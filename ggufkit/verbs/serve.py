"""Serve a folder of models to the LAN as a hub that both hubs' clients can use."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from ggufkit.errors import AccessError, NotFoundError, ToolError, UsageError, printable
from ggufkit.progress import SILENT, Progress
from ggufkit.server.catalog import Repo, find_repos
from ggufkit.verbs.record import digests

if TYPE_CHECKING:
    from ggufkit.server.app import Application

DEFAULT_PORT = 8090


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What would be served, and where."""

    root: Path
    """The folder."""
    host: str
    """Address or name to listen at."""
    port: int
    """Port to listen at; 0 for any free one."""
    repos: tuple[Repo, ...]
    """The repos, sorted by name."""
    n_files: int
    """Files in all repos."""
    total_bytes: int
    """Their lengths together."""
    unhashed_bytes: int
    """How much of that must be read once before the first answer, because no digest of it is known."""
    warnings: tuple[str, ...]
    """What the user should know before, a sentence each."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that answers."""

    url: str
    """What another machine sets as HF_ENDPOINT or MODELSCOPE_ENDPOINT (this one, if it listens to itself)."""
    host: str
    """Address or name it listens at."""
    port: int
    """Port it listens at."""
    plan: ServePlan
    """What it serves."""


def plan_serve(root: Path, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> ServePlan:
    """See what a folder would serve; reads names, manifests and remembered digests.

    NotFoundError if there is no folder, or no repo in it.
    """
    notes: list[str] = []
    repos = _some_repos(root, notes)
    files = [file for repo in repos for file in repo.files]
    known = digests()
    unknown = [file for file in files if file.sha256 is None and known.get(file.local) is None]
    return ServePlan(
        root=root.resolve(),
        host=host,
        port=port,
        repos=repos,
        n_files=len(files),
        total_bytes=sum(file.stamp.size_bytes for file in files),
        unhashed_bytes=sum(file.stamp.size_bytes for file in unknown),
        warnings=(*notes, *_exposure(host)),
    )


def serve(
    plan: ServePlan,
    progress: Progress = SILENT,
    on_ready: Callable[[Serving], None] = lambda serving: None,
) -> None:
    """Hash what has no digest, then serve until Ctrl-C or SIGTERM; returns after either.

    Blocks. `on_ready` is called once the port answers. Ctrl-C while hashing raises KeyboardInterrupt; digests
    finished by then are kept.
    """
    app = open_app(plan, progress)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(app, plan, on_ready))


@contextlib.contextmanager
def serving(plan: ServePlan, progress: Progress = SILENT) -> Iterator[Serving]:
    """Serve from a thread inside the block."""
    from ggufkit.server.app import in_thread

    app = open_app(plan, progress)
    with contextlib.ExitStack() as stack:
        with _address_errors(plan):
            port = stack.enter_context(in_thread(app, plan.host, plan.port))
        yield _ready(plan, port)


def open_app(plan: ServePlan, progress: Progress = SILENT) -> Application:
    """Make the web application of a plan, all digests known. ToolError if aiohttp is missing."""
    try:
        from ggufkit.server.app import build_app
        from ggufkit.server.shelf import Shelf
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise ToolError(
            "serve needs aiohttp, which is not installed", hint="pip install 'ggufkit[serve]'"
        ) from None
    shelf = Shelf(plan.root, digests(), progress)
    shelf.look()
    return build_app(shelf)


async def _serve(app: Application, plan: ServePlan, on_ready: Callable[[Serving], None]) -> None:
    from ggufkit.server.app import listening

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no signal handlers in the loop: there Ctrl-C ends asyncio.run as KeyboardInterrupt
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        with _address_errors(plan):
            port = await stack.enter_async_context(listening(app, plan.host, plan.port))
        on_ready(_ready(plan, port))
        await stop.wait()


def _some_repos(root: Path, notes: list[str]) -> tuple[Repo, ...]:
    if not root.is_dir():
        hint = "ggufkit serve takes the folder that holds the models"
        raise NotFoundError(f"{printable(str(root))} is not a folder", hint=hint)
    if repos := find_repos(root, notes.append):
        return repos
    hint = "put files at OWNER/NAME/... below it, or serve a folder that ggufkit pull wrote into"
    raise NotFoundError(f"no repos below {printable(str(root))}", hint=hint)


def _ready(plan: ServePlan, port: int) -> Serving:
    host = _reachable(plan.host)
    shown = f"[{host}]" if ":" in host else host
    return Serving(url=f"http://{shown}:{port}", host=plan.host, port=port, plan=plan)


def _reachable(host: str) -> str:
    """Give the name under which others reach a host that means every address."""
    try:
        everywhere = ip_address(host).is_unspecified
    except ValueError:
        return host
    return _own_address() if everywhere else host


def _own_address() -> str:
    """Ask the system which address it would send from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737: an address that nobody has
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


def _exposure(host: str) -> list[str]:
    """Warn of an address that others can reach."""
    try:
        if host == "localhost" or ip_address(host).is_loopback:
            return []
    except ValueError:
        pass
    return [f"listening at {host}: everyone on the network can read these files without a login (not write)"]


@contextlib.contextmanager
def _address_errors(plan: ServePlan) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise AccessError(
            f"may not listen at port {plan.port}", hint="take a --port of 1024 or more"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "take another --port, or 0 for any free one"
            raise UsageError(f"port {plan.port} is taken", hint=hint) from error
        raise UsageError(f"cannot listen at {plan.host}: {error.strerror or error}") from error
