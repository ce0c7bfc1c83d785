"""The web application: both protocols over one shelf, read-only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial

from aiohttp import web

from ggufkit import __version__
from ggufkit.errors import NotFoundError
from ggufkit.server import huggingface, modelscope
from ggufkit.server.context import LIMITS, SHELF, Limits
from ggufkit.server.index import index
from ggufkit.server.shelf import Shelf

_READING = ("GET", "HEAD")
_MODELSCOPE = ("/api/v1/", "/openapi/v1/", "/models/")
_ASKING = "/paths-info/"  # the one question that is asked by POST
_STOP_S = 0.5
_LOG = logging.getLogger("ggufkit.server")

Application = web.Application
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(shelf: Shelf, limits: Limits | None = None) -> Application:
    """Make the application; `shelf.look()` must have been called."""
    app = web.Application(middlewares=[_refuse])
    app[SHELF] = shelf
    app[LIMITS] = limits or Limits()
    app.router.add_get("/", index)
    app.add_routes([*huggingface.routes(), *modelscope.routes()])
    app.on_response_prepare.append(_sign)
    return app


@contextlib.asynccontextmanager
async def listening(app: Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` inside the block, on the port that is given (0 takes a free one). OSError if taken."""
    runner = web.AppRunner(app, access_log=_LOG, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def in_thread(app: Application, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Serve `app` from a thread of its own inside the block, on the port that is given. OSError if taken."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with listening(app, host, port) as bound:
                started.set_result((bound, partial(loop.call_soon_threadsafe, stop.set)))
                await stop.wait()
        except OSError as error:
            started.set_exception(error)

    thread = threading.Thread(target=asyncio.run, args=[serve()], name="ggufkit-hub", daemon=True)
    thread.start()
    bound, stop = started.result()
    try:
        yield bound
    finally:
        stop()
        thread.join()


@web.middleware
async def _refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what is not reading, and word every refusal as the hub whose protocol was spoken."""
    refusal = modelscope.refusal if request.path.startswith(_MODELSCOPE) else huggingface.refusal
    if request.method not in _READING and _ASKING not in request.path:
        answer = refusal(405, "this hub is read-only")
        answer.headers["Allow"] = ", ".join(_READING)
        return answer
    if not _has_sound_host(request):
        return refusal(400, "the Host header is not a host")
    try:
        return await handler(request)
    except NotFoundError as error:
        return refusal(404, error.message, error)
    except web.HTTPClientError as error:
        return refusal(error.status, error.reason)


def _has_sound_host(request: web.Request) -> bool:
    """Tell whether the request's own address, which answers link to, can be made of its Host header."""
    try:
        return bool(request.url.host)
    except ValueError:
        return False


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = f"ggufkit/{__version__}"
    response.headers["X-Content-Type-Options"] = "nosniff"
