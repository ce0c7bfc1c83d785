"""The flags of `ggufkit fit` that say what GPUs get, and what is printed of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggufkit.cli.params import MEMORY_SIZE
from ggufkit.cli.render import gb_text, size_text, table
from ggufkit.errors import UsageError, printable

if TYPE_CHECKING:
    from ggufkit.fit.estimate import MemoryEstimate, Offload
    from ggufkit.verbs.fit import FitReport
    from ggufkit.verbs.placing import GpuPlacement


class _Layers(click.ParamType[int]):
    """A number of layers, `all` or `auto`."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, -1 for `auto`, -2 for `all`."""
        text = str(value).strip().lower()
        if text in ("auto", "all"):
            return AUTO if text == "auto" else ALL
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            self.fail(f"{value!r} is no number of layers; write 40, all or auto", param, ctx)
        return int(text)


class _Override(click.ParamType[tuple[str, str]]):
    """A pattern of tensors' names and a buffer: `exps=CPU`."""

    name = "override"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the pattern and the buffer."""
        if isinstance(value, tuple):
            return value
        pattern, mark, buffer = str(value).rpartition("=")
        if not mark or not pattern or not buffer:
            self.fail(rf"{value!r} has no buffer; write it like '\.ffn_.*_exps\.=CPU'", param, ctx)
        return pattern, buffer


class _Split(click.ParamType[tuple[float, ...]]):
    """Shares of several GPUs: `3,1`."""

    name = "split"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the shares."""
        if isinstance(value, tuple):
            return value
        try:
            shares = tuple(float(part) for part in str(value).replace("/", ",").split(","))
        except ValueError:
            shares = ()
        if not shares or not all(0 <= share < 1e9 for share in shares) or not sum(shares):
            self.fail(f"{value!r} are no shares; write them like 3,1", param, ctx)
        return shares


AUTO, ALL = -1, -2

_OPTIONS = (
    click.option(
        "--vram",
        type=MEMORY_SIZE,
        multiple=True,
        metavar="SIZE",
        help="Memory of a GPU that is free for the model, e.g. 24G; once for each GPU.",
    ),
    click.option(
        "-ngl",
        "--n-gpu-layers",
        type=_Layers(),
        metavar="N",
        help="Layers on the GPUs, or all, or auto: as many as fit (the default with --vram).",
    ),
    click.option(
        "-ncmoe",
        "--n-cpu-moe",
        type=click.IntRange(0),
        metavar="N",
        help="Keep the experts of the first N layers in RAM.",
    ),
    click.option("-cmoe", "--cpu-moe", is_flag=True, help="Keep the experts of all layers in RAM."),
    click.option(
        "-ot",
        "--override-tensor",
        type=_Override(),
        multiple=True,
        metavar="PATTERN=BUFFER",
        help="Put tensors elsewhere, e.g. 'exps=CPU' or 'blk\\.1\\.=GPU1'.",
    ),
    click.option(
        "-ts",
        "--tensor-split",
        type=_Split(),
        metavar="N,N",
        help="Shares of the layers for several GPUs; left out, by their memory.",
    ),
    click.option(
        "--no-kv-offload", is_flag=True, help="Keep the cache in RAM; without a GPU it is there anyway."
    ),
)

_NAMES = (
    *("vram", "n_gpu_layers", "n_cpu_moe", "cpu_moe"),
    *("override_tensor", "tensor_split", "no_kv_offload"),
)


def gpu_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --vram and llama.cpp's flags of what goes on GPUs, and pass the command an `offload`."""

    def wrapped(**arguments: Any) -> Any:
        asked = {name: arguments.pop(name) for name in _NAMES}
        return command(offload=offload_of(**asked), **arguments)

    decorated: Callable[..., Any] = functools.update_wrapper(wrapped, command)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def offload_of(
    *,
    vram: Sequence[int],
    n_gpu_layers: int | None,
    n_cpu_moe: int | None,
    cpu_moe: bool,
    override_tensor: Sequence[tuple[str, str]],
    tensor_split: tuple[float, ...] | None,
    no_kv_offload: bool,
) -> Offload | None:
    """Return what is asked of the GPUs; None when there is none. Raises UsageError for flags without any."""
    from ggufkit.fit.estimate import Offload

    placed = n_gpu_layers not in (None, AUTO) or n_cpu_moe is not None or cpu_moe or bool(override_tensor)
    if not vram:
        if placed or tensor_split or n_gpu_layers == AUTO:
            raise UsageError("these flags are for GPUs, and none is named", hint="--vram 24G for each GPU")
        return None
    if tensor_split and len(tensor_split) != len(vram):
        raise UsageError(
            f"--tensor-split has {len(tensor_split)} shares for {len(vram)} GPUs",
            hint="a share for each --vram",
        )
    if n_gpu_layers == AUTO and placed:
        raise UsageError(
            "--n-gpu-layers auto chooses by itself what stays in RAM",
            hint="leave out --n-cpu-moe, --cpu-moe and --override-tensor, or give a number of layers",
        )
    return Offload(
        gpus_bytes=tuple(vram),
        automatic=not placed,
        n_gpu_layers=n_gpu_layers if n_gpu_layers is not None and n_gpu_layers >= 0 else None,
        tensor_split=tensor_split or (),
        n_cpu_moe=n_cpu_moe or None,
        cpu_moe=cpu_moe,
        overrides=tuple(override_tensor),
        cache_on_cpu=no_kv_offload,
    )


def device_lines(estimate: MemoryEstimate, placement: GpuPlacement | None) -> list[str]:
    """Return a table of the devices, and what to type."""
    if placement is None:
        return []
    rows = []
    for device in estimate.devices:
        memory = device.memory_bytes
        left = "" if memory is None else _left(memory - device.total_bytes)
        parts = (device.weights_bytes, device.kv_cache_bytes, device.compute_bytes)
        sizes = ("?" if n is None else size_text(n) for n in parts)
        rows.append(
            (
                device.name,
                "" if memory is None else gb_text(memory),
                *sizes,
                gb_text(device.total_bytes),
                left,
            )
        )
    headers = ("DEVICE", "MEMORY", "WEIGHTS", "KV CACHE", "COMPUTE", "TOTAL", "LEFT")
    how = "chosen so that the most is on the GPUs" if placement.automatic else "as asked"
    apart = f", experts of the first {placement.n_cpu_moe} in RAM" if placement.n_cpu_moe else ""
    return [
        "",
        table(headers, rows, right=[1, 2, 3, 4, 5, 6]),
        f"placement, {how}: {placement.n_gpu_layers} of {placement.n_layers} layers on GPUs{apart}",
        f"llama-server: {printable(_quoted(placement.llama_server))}",
        f"Ollama:       {'; '.join(placement.ollama)}",
        f"LM Studio:    {'; '.join(placement.lmstudio)}",
        f"({placement.basis})",
    ]


def overfull_text(report: FitReport) -> str:
    """Say which GPUs get more than they should."""
    devices = (d for d in report.estimate.devices if d.name in report.verdict.short_gpus)
    parts = (
        f"{d.name} would have {gb_text(d.total_bytes)} of {gb_text(d.memory_bytes or 0)}" for d in devices
    )
    return f"{', '.join(parts)}, and 1 GiB should stay free"


def _left(n_bytes: int) -> str:
    return size_text(n_bytes) if n_bytes >= 0 else f"-{size_text(-n_bytes)}"


def _quoted(words: Sequence[str]) -> str:
    import shlex

    return " ".join(shlex.quote(word) for word in words)
