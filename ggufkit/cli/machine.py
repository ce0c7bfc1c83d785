"""`ggufkit machine`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import output_options
from ggufkit.cli.render import Out, count_text, gb_text, table
from ggufkit.cli.speed_text import price_text
from ggufkit.errors import printable

if TYPE_CHECKING:
    from ggufkit.fit.channels import Channels
    from ggufkit.verbs.machine import MachineReport


@click.command("machine", short_help="Show what this machine has for models.")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Measure how fast memory is read (about a second).",
)
@click.option(
    "--disk",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Measure how fast the disk of a large FILE is read, for models that page; fit remembers it.",
)
@click.option("--list", "profiles", is_flag=True, help="List the machines that fit --machine knows instead.")
@output_options
def command(out: Out, measure: bool, disk: Path | None, profiles: bool) -> None:
    """Show what this machine has for models.

    \b
    Examples:
      ggufkit machine
      ggufkit machine --no-measure --json
      ggufkit machine --disk DeepSeek-R1-UD-IQ2_XXS.gguf
      ggufkit machine --list
      ggufkit fit DeepSeek-R1-UD-IQ2_XXS.gguf --ram $(ggufkit machine -q)

    Memory and the limits on it, memory channels filled of those the CPU has, their theoretical bandwidth
    and the measured one, cores, instruction sets, GPUs, disks. Text is generated at the speed of memory:
    when channels are empty, it says what that costs and what to buy.

    The modules are in the firmware's table, which on some systems only root may read: sudo ggufkit
    machine. fit remembers the bandwidth that was measured. -q prints the bytes of memory that a model may
    use; with --list the names, with --disk bytes a second.
    """
    if profiles:
        _list(out)
        return
    if disk is not None:
        _measure_disk(out, disk)
        return
    from ggufkit.verbs.machine import describe_machine

    report = describe_machine(measure=measure)
    text = "\n".join([table(("WHAT", "HERE"), _rows(report)), *_modules(report.channels), "", _disks(report)])
    out.result(report, text, quiet=[report.memory.ram_bytes])
    for note in report.notes:
        out.say(note)
    for warning in report.warnings:
        out.warn(warning)
    for advice in report.advice:
        out.hint(advice)


def _measure_disk(out: Out, file: Path) -> None:
    from ggufkit.fit.machine import read_cpu
    from ggufkit.verbs.disk_rate import measure_disk
    from ggufkit.verbs.rigs import remember_disk

    rate = measure_disk(file)
    remember_disk(read_cpu(), rate)
    text = f"disk: {rate.bytes_per_s / 1e9:.2f} GB/s, reading {rate.read_bytes >> 20} MiB all over the file"
    out.result(rate, printable(f"{text} ({rate.mount})"), quiet=[int(rate.bytes_per_s)])


def _list(out: Out) -> None:
    from ggufkit.fit.machine import machine_profiles

    machines = list(machine_profiles().values())
    rows = [
        (
            machine.name,
            f"{machine.ram_gib.value:g} GiB",
            f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s",
            price_text(machine.price_cny, machine.price_usd),
            "" if machine.power_w is None else f"{machine.power_w.value:g} W",
            machine.title,
        )
        for machine in machines
    ]
    text = table(("NAME", "MEMORY", "BANDWIDTH", "PRICE", "POWER", "WHAT"), rows, right=[1, 2, 3, 4])
    out.result({"machines": machines}, text, quiet=[machine.name for machine in machines])


def _rows(report: MachineReport) -> list[tuple[str, str]]:
    memory, cpu = report.memory, report.cpu
    free = "" if memory.available_bytes is None else f", of which {gb_text(memory.available_bytes)} available"
    limit = " (this control group's limit)" if memory.source == "control group" else ""
    parts = [count_text(cpu.n_sockets, "socket"), count_text(cpu.n_cores, "core")]
    parts += [count_text(cpu.n_threads, "thread")]
    if cpu.n_numa_nodes:
        parts.append(count_text(cpu.n_numa_nodes, "NUMA node"))
    rows = [
        ("memory", f"{gb_text(memory.ram_bytes)}{limit}{free}"),
        ("CPU", f"{cpu.name or 'unknown'}: {', '.join(parts)}"),
        ("instructions", " ".join(cpu.instruction_sets) or "unknown"),
        ("channels", _channels(report)),
        ("measured", _measured(report)),
    ]
    gpus = [(f"GPU {i}", f"{gpu.name}, {gb_text(gpu.vram_bytes)}") for i, gpu in enumerate(report.gpus)]
    return [*rows, *(gpus or [("GPU", _no_gpu(report))])]


def _channels(report: MachineReport) -> str:
    channels, controller = report.channels, report.controller
    if channels is None:
        if report.bandwidth_bytes_per_s:
            return f"all filled: {report.bandwidth_bytes_per_s / 1e9:.1f} GB/s in theory"
        if controller is None:
            return "unknown"
        kind = f"{controller.memory_type}-{controller.max_mts}"
        return f"unknown how many are filled; the CPU has {controller.n_channels} of up to {kind} a socket"
    most = "" if channels.exact else "at most "
    text = f"{most}{channels.n_filled} of {channels.n_channels or '?'} filled"
    if channels.speed_mts:
        text += f", at {channels.speed_mts:,} MT/s"
    if channels.bandwidth_bytes_per_s:
        text += f": {channels.bandwidth_bytes_per_s / 1e9:.1f} GB/s in theory"
    return f"{text} ({channels.source})"


def _measured(report: MachineReport) -> str:
    bandwidth = report.bandwidth
    if bandwidth is None:
        return "no"
    threads = count_text(bandwidth.n_threads, "thread")
    return f"{bandwidth.bytes_per_s / 1e9:.1f} GB/s read by {threads}, rounds within {bandwidth.spread:.0%}"


def _no_gpu(report: MachineReport) -> str:
    if report.gpu_libraries:
        return "none found"
    return "none found (nvidia-ml-py or amdsmi would find NVIDIA's or AMD's)"


def _modules(channels: Channels | None) -> list[str]:
    if channels is None:
        return []
    rows = [
        (
            module.locator,
            "empty" if not module.populated else gb_text(module.size_bytes) if module.size_bytes else "?",
            module.memory_type or "",
            module.configured_mts or module.speed_mts or "",
            module.part,
            module.bank,
        )
        for module in channels.modules
    ]
    return ["", table(("SLOT", "SIZE", "TYPE", "MT/S", "PART", "BANK"), rows, right=[1, 3])]


def _disks(report: MachineReport) -> str:
    kinds = {True: "rotating", False: "SSD", None: "?"}
    rows = [
        (
            gb_text(disk.free_bytes),
            gb_text(disk.total_bytes),
            kinds[disk.rotating],
            printable(f"{disk.mount} ({disk.device})" if disk.device else str(disk.mount)),
        )
        for disk in report.disks
    ]
    return table(("FREE", "OF", "KIND", "DISK"), rows, right=[0, 1])
