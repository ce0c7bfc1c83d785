"""Plan a model over several machines for llama.cpp's RPC engine. Plans only: nothing is written or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ggufkit.errors import UsageError
from ggufkit.fit.estimate import FitSettings
from ggufkit.fit.hosts import Host, HostsPlacement, place_on_hosts
from ggufkit.fit.profiles import Runtime
from ggufkit.gguf.header import Header
from ggufkit.gguf.model import ModelInfo
from ggufkit.runtimes.llamacpp_rpc import LINK_BITS_PER_S, Endpoint, parse_endpoint, placement_flags
from ggufkit.verbs.asked import asked_of

SERIAL = (
    "more memory, not more speed: the machines compute their layers one after the other, and each token "
    "goes over the network"
)
OPEN = "ggml-rpc-server has no password and no encryption: only in a network that nobody else reaches"


@dataclass(frozen=True, slots=True)
class HostsFit:
    """Whether a model fits several machines together, and how it is laid out."""

    name: str
    """What the model is called."""
    n_files: int
    """Files of the model."""
    file_bytes: int
    """Bytes of all files."""
    model: ModelInfo
    """The architecture in numbers."""
    context_is_default: bool
    """Whether nobody asked for a certain context."""
    placement: HostsPlacement
    """What lies where."""
    flags: tuple[str, ...]
    """Flags for llama-server on the head."""
    load_s: float
    """Seconds for sending the workers' weights over a link of 1 Gbit/s."""
    warnings: tuple[str, ...]
    """What to know before."""


def fit_hosts(
    headers: Sequence[Header],
    hosts: Sequence[Host],
    *,
    name: str | None = None,
    context_tokens: int | None = None,
    settings: FitSettings | None = None,
    runtime: Runtime | None = None,
) -> HostsFit:
    """Divide the model with these `headers` among `hosts`, of which the first reads the file.

    Names of workers are their addresses, a port after them: `box2`, `10.0.0.2:50052`. The context is that of
    `fit_model`. Raises FormatError for impossible metadata, UsageError for fewer than two hosts, names that
    are none or the same twice, what is no model, and settings that llama.cpp refuses.
    """
    workers = check_hosts(hosts)
    asked = asked_of(headers, context_tokens, settings, runtime)
    placement = place_on_hosts(asked.info, asked.tensors, asked.settings, hosts)
    flags = placement_flags(workers, placement)
    words = [word for flag, value in flags for word in (f"--{flag}", value)]
    return HostsFit(
        name=name or headers[0].name,
        n_files=len(headers),
        file_bytes=sum(header.file_size_bytes for header in headers),
        model=asked.info,
        context_is_default=context_tokens is None,
        placement=placement,
        flags=("--ctx-size", str(asked.settings.context_tokens), *words),
        load_s=8 * placement.shipped_bytes / LINK_BITS_PER_S,
        warnings=tuple(_warnings(placement)),
    )


def check_hosts(hosts: Sequence[Host]) -> tuple[Endpoint, ...]:
    """Return where the workers are, all but the first; raises UsageError for hosts that can't be meant."""
    if len(hosts) < 2:
        raise UsageError("a model is divided among two machines or more", hint="the head first, then workers")
    workers = tuple(parse_endpoint(host.name) for host in hosts[1:])
    named = [hosts[0].name, *map(str, workers)]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None or hosts[0].name in (host.name for host in hosts[1:]):
        raise UsageError(f"{twice or hosts[0].name} is named twice", hint="each machine has one name")
    return workers


def _warnings(placement: HostsPlacement) -> Iterator[str]:
    yield from placement.estimate.warnings
    if placement.head_alone:
        yield f"{placement.shares[0].name} alone has room for it, and is faster without workers"
    idle = [share.name for share in placement.shares[1:] if not share.n_layers]
    if idle:
        yield f"{', '.join(idle)} would get nothing"
    yield SERIAL
    yield OPEN
