"""llama.cpp over several machines: its workers, where they are, and what they and the head are started with.

Source: llama.cpp tools/rpc/README.md and rpc-server.cpp; ggml-rpc.cpp, whose workers listen at an IPv4
address in figures, while the head finds them by name as well.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ggufkit.errors import UsageError
from ggufkit.fit.hosts import HostShare, HostsPlacement

PROGRAM = "ggml-rpc-server"
PORT = 50052
"""The port of ggml-rpc-server when none is named (rpc-server.cpp `rpc_server_params`)."""
LINK_BITS_PER_S = 1e9
"""The network that loading is reckoned for: gigabit Ethernet, which hobbyists' machines have."""
ALL_ADDRESSES = "0.0.0.0"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a worker listens."""

    address: str
    """An IPv4 address, or a name."""
    port: int = PORT
    """The TCP port."""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def in_figures(self) -> bool:
        """Whether it is an address that a worker can listen at."""
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError:
            return False
        return True


def parse_endpoint(text: str) -> Endpoint:
    """Read `ADDRESS` or `ADDRESS:PORT`; raises UsageError for what llama.cpp can't connect to."""
    address, mark, port = text.partition(":")
    example = "write it like 192.168.1.12 or box2:50052"
    if not _NAME.fullmatch(address):
        raise UsageError(f"{text!r} is no address of a machine (IPv6 is unknown to ggml-rpc)", hint=example)
    if mark and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"{text!r} has no port from 1 to 65535", hint=example)
    return Endpoint(address, int(port) if mark else PORT)


def placement_flags(workers: Sequence[Endpoint], placement: HostsPlacement) -> tuple[tuple[str, str], ...]:
    """Return the long flags of the head, without their dashes, and their values.

    `device` leaves GPUs of the head out, as shares are counted over all devices.
    """
    return (
        ("rpc", ",".join(map(str, workers))),
        ("device", ",".join(f"RPC{i}" for i in range(len(workers)))),
        ("n-gpu-layers", str(placement.n_gpu_layers)),
        ("tensor-split", ",".join(f"{share:g}" for share in placement.tensor_split)),
    )


def worker_words(worker: Endpoint, n_threads: int | None = None) -> list[str]:
    """Return a worker's command: it offers its CPU and keeps what it was sent for the next start."""
    where = worker.address if worker.in_figures else ALL_ADDRESSES
    words = [PROGRAM, "--host", where, "--port", str(worker.port), "--device", "CPU", "--cache"]
    return [*words, "--threads", str(n_threads)] if n_threads else words


def worker_command(worker: Endpoint, n_threads: int | None = None) -> str:
    """Return a worker's command for a POSIX shell."""
    return shlex.join(worker_words(worker, n_threads))


def rpc_commands(
    head: str, workers: Sequence[Endpoint], placement: HostsPlacement, n_threads: int | None = None
) -> str:
    """Return the workers' commands and the `head`'s, each for its own shell, what to know as comments."""
    own, *shares = placement.shares
    sent = placement.shipped_bytes
    minutes = max(round(8 * sent / LINK_BITS_PER_S / 60), 1)
    lines = [*_ABOUT, ""]
    for worker, share in zip(workers, shares, strict=True):
        lines.append(f"# worker {worker.address}: {_layers(share)}")
        if not worker.in_figures:
            lines.append(f"# ({ALL_ADDRESSES} is all of its addresses: put the one in your network there)")
        lines += [worker_command(worker, n_threads), ""]
    lines.append(f"# head, when the workers run: {_layers(own)}")
    lines.append(f"# (sends {sent / 2**30:.1f} GiB at first: {minutes} min at 1 Gbit/s)")
    return "\n".join([*lines, head, ""])


_ABOUT = (
    "# One model over several machines: more memory, not more speed, as they compute one after the other.",
    f"# {PROGRAM} has no password and no encryption: only in a network that nobody else reaches.",
    "# All machines need the same build of llama.cpp. --cache keeps what was sent in ~/.cache/llama.cpp/rpc.",
)


def _layers(share: HostShare) -> str:
    taken, ram = share.total_bytes / 2**30, share.ram_bytes / 2**30
    return f"{share.n_layers} layers, {taken:.1f} of {ram:.1f} GiB"
