"""What kind of CPU this is: its cores, sockets and instruction sets, and the memory that it could have. Pure.

The table holds a socket's memory channels (64 bits each) and their highest speed with one module a channel;
the speeds are the family's best models'. Where a line names a page, an excerpt of it was read in November
2026; the other lines are as generally known, not checked against a page. The makers' own were out of reach.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryController:
    """The memory that one socket can have."""

    n_channels: int
    """Channels of 64 bits."""
    max_mts: int
    """Highest speed that the maker supports, millions of transfers per second."""
    memory_type: str
    """`DDR4`."""


_TABLE: tuple[tuple[str, int, int, str], ...] = (
    # Intel. First match wins.
    (r"E5-24\d\d", 3, 1600, "DDR3"),  # Sandy Bridge-EN, Ivy Bridge-EN
    (r"E5-[1246]\d\d\d\w* v4", 4, 2400, "DDR4"),  # Broadwell-EP: hothardware.com, Xeon E5 v4 debut
    (r"E5-[1246]\d\d\d\w* v3", 4, 2133, "DDR4"),  # Haswell-EP: the same page
    (r"E5-[1246]\d\d\d\w* v2", 4, 1866, "DDR3"),  # Ivy Bridge-EP
    (r"E5-[1246]\d\d\d\w*(?: 0)?$", 4, 1600, "DDR3"),  # Sandy Bridge-EP
    (r"E3-1\d\d\d\w? v[56]", 2, 2400, "DDR4"),
    (r"E3-1\d\d\d", 2, 1600, "DDR3"),
    (r"(?:Platinum|Gold|Silver|Bronze) \d1\d\d", 6, 2666, "DDR4"),  # Skylake-SP: jtti.cc/supports/2997
    (r"Platinum 8[12]\d\d|Platinum 92\d\d", 6, 2933, "DDR4"),
    (r"(?:Platinum|Gold|Silver|Bronze) \d2\d\d", 6, 2933, "DDR4"),  # Cascade Lake-SP
    (r"(?:Platinum|Gold) \d3\d\dH", 6, 3200, "DDR4"),  # Cooper Lake
    (r"(?:Platinum|Gold|Silver) \d3\d\d", 8, 3200, "DDR4"),  # Ice Lake-SP
    (r"(?:Platinum|Gold|Silver|Bronze) \d4\d\d", 8, 4800, "DDR5"),  # Sapphire Rapids
    (r"(?:Platinum|Gold|Silver|Bronze) \d5\d\d", 8, 5600, "DDR5"),  # Emerald Rapids
    (r"Xeon\S* 69\d\d", 12, 6400, "DDR5"),  # Granite Rapids-AP: heise.de, Xeon 6700E (12 channels)
    (r"Xeon\S* 6[57]\d\d", 8, 6400, "DDR5"),  # Granite Rapids-SP, Sierra Forest: the same page
    (r"W-2[12]\d\d", 4, 2933, "DDR4"),
    (r"W-32\d\d|W-31\d\d", 6, 2933, "DDR4"),
    (r"W-33\d\d", 8, 3200, "DDR4"),
    (r"w[3579]-24\d\d|w[3579]-25\d\d", 4, 4800, "DDR5"),  # heise.de, Xeon W-3400 und W-2400
    (r"w[579]-3[45]\d\d", 8, 4800, "DDR5"),  # the same page
    (r"i[79]-(?:58|59|68|69)\d\d", 4, 2400, "DDR4"),  # Haswell-E, Broadwell-E
    (r"i[79]-(?:78|79|98|99|109)\d\dXE?", 4, 2933, "DDR4"),  # Skylake-X, Cascade Lake-X
    (r"i[3579]-4\d\d\d", 2, 1600, "DDR3"),
    (r"i[3579]-6\d\d\d", 2, 2133, "DDR4"),
    (r"i[3579]-7\d\d\d|i3-8\d\d\d", 2, 2400, "DDR4"),  # i3-8100: m.nctoro.com/tag_i38100
    (r"i[3579]-[89]\d\d\d", 2, 2666, "DDR4"),
    (r"i[3579]-10\d\d\d", 2, 2933, "DDR4"),
    (r"i[3579]-11\d\d\d", 2, 3200, "DDR4"),
    (r"i[3579]-12\d\d\d", 2, 4800, "DDR5"),
    (r"i[3579]-1[34]\d\d\d", 2, 5600, "DDR5"),
    (r"Ultra [3579] 2\d\d", 2, 6400, "DDR5"),
    (r"\bN(?:50|95|97|100|150|200|300|305|350|355)\b", 1, 4800, "DDR5"),  # Alder Lake-N, Twin Lake
    # AMD. Naples to Genoa: tomshardware.fr and .com on EPYC Genoa's channels. The EPYC 7232P, 7252, 7272 and
    # 7282 reach half of it, however many channels are filled (servethehome.com, half memory bandwidth).
    (r"EPYC 7\w\w1", 8, 2666, "DDR4"),  # Naples
    (r"EPYC 7\w\w[23]", 8, 3200, "DDR4"),  # Rome, Milan
    (r"EPYC 8\w\w4", 6, 4800, "DDR5"),  # Siena
    (r"EPYC 9\w\w4", 12, 4800, "DDR5"),  # Genoa, Bergamo
    (r"EPYC 9\w\w5", 12, 6000, "DDR5"),  # Turin
    (r"EPYC 4\w\w[45]", 2, 5200, "DDR5"),
    (r"Threadripper PRO [35]\d\d\dWX", 8, 3200, "DDR4"),
    (r"Threadripper PRO 7\d\d\dWX", 8, 5200, "DDR5"),
    (r"Threadripper PRO 9\d\d\dWX", 8, 6400, "DDR5"),
    (r"Threadripper 7\d\d\dX", 4, 5200, "DDR5"),
    (r"Threadripper 9\d\d\dX", 4, 6400, "DDR5"),
    (r"Threadripper [123]\d\d\d", 4, 3200, "DDR4"),
    (r"Ryzen AI Max", 4, 8000, "LPDDR5"),  # Strix Halo: 256 bits
    (r"Ryzen [3579] (?:PRO )?[1-5]\d\d\d", 2, 3200, "DDR4"),  # AM4 and its laptops
    (r"Ryzen (?:AI )?[3579] (?:PRO |HX )*[2-9]\d\d", 2, 5600, "DDR5"),  # notebookcheck.it, 8845HS
)


def memory_controller(cpu_name: str) -> MemoryController | None:
    """Return the memory that a socket with this CPU can have; None for a CPU that the table has not."""
    name = re.sub(r"\((?:R|TM)\)", "", cpu_name)
    name = re.sub(r"\s+(?:CPU )?@.*|\s+CPU\b|\s+\d+-Core Processor.*|\s+Processor$", "", name).strip()
    name = re.sub(r"\s+", " ", name)
    for pattern, n_channels, max_mts, memory_type in _TABLE:
        if re.search(pattern, name, re.IGNORECASE):
            return MemoryController(n_channels, max_mts, memory_type)
    return None


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors of a machine."""

    name: str
    """The model's name, as the CPU gives it; empty when nobody says."""
    n_sockets: int
    """Processors."""
    n_cores: int
    """Physical cores of all sockets: as many threads as generating text should have."""
    n_threads: int
    """Hardware threads of all sockets."""
    instruction_sets: tuple[str, ...]
    """Those of its instruction sets that matter to llama.cpp."""
    l3_bytes: int | None
    """Bytes of all L3 caches; None when nobody says."""
    n_numa_nodes: int | None
    """Nodes of memory, each nearer to some cores; None when nobody says."""
    virtual: bool
    """Whether this is a virtual machine, whose firmware makes its memory modules up."""


# Apple, technical specifications of the Macs with each chip: "memory bandwidth", of two the lower. One of
# these pages was read, that of the Mac mini of 2024 (M4, M4 Pro: support.apple.com/en-sg/121555); the others'
# numbers are as generally known.
_APPLE_GB_PER_S = {
    "M1": 68.25,
    "M1 Pro": 200,
    "M1 Max": 400,
    "M1 Ultra": 800,
    "M2": 100,
    "M2 Pro": 200,
    "M2 Max": 400,
    "M2 Ultra": 800,
    "M3": 100,
    "M3 Pro": 150,
    "M3 Max": 300,
    "M3 Ultra": 819,
    "M4": 120,
    "M4 Pro": 273,
    "M4 Max": 410,
    "M5": 153.6,
}


def soldered_bandwidth(cpu_name: str) -> float | None:
    """Return the bandwidth in bytes per second of a chip that has its memory beside it; None for others."""
    known = _APPLE_GB_PER_S.get(cpu_name.removeprefix("Apple ")) if cpu_name.startswith("Apple ") else None
    return None if known is None else known * 1e9


def speed_family(cpu: Cpu) -> str:
    """Return the family of `ggufkit.fit.speed` that generating on these CPUs belongs to."""
    controller = memory_controller(cpu.name)
    if cpu.name.startswith("Apple"):
        return "apple"
    if cpu.n_sockets > 1:
        return "cpu_2s_numa"
    if controller is None:
        return "cpu"
    if re.search("EPYC|Threadripper", cpu.name, re.IGNORECASE) and controller.n_channels > DESKTOP_CHANNELS:
        return "cpu_epyc_1s"
    if controller.n_channels > DESKTOP_CHANNELS and "Xeon" in cpu.name:
        return "cpu_xeon_ddr5" if controller.memory_type == "DDR5" else "cpu_xeon"
    if controller.n_channels == 1:
        return "cpu_sbc"
    return "cpu_desktop_ddr5" if controller.memory_type.endswith("DDR5") else "cpu_desktop_ddr4"


DESKTOP_CHANNELS = 2  # more are a server's or a workstation's

# ggml/src/ggml-cpu/CMakeLists.txt: the variants that llama.cpp chooses among, as /proc/cpuinfo spells them.
_FLAGS = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "f16c": "F16C",
    "fma": "FMA",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512-VNNI",
    "avx512_bf16": "AVX-512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}


def parse_cpuinfo(text: str, *, l3_bytes: int | None = None, n_numa_nodes: int | None = None) -> Cpu:
    """Read /proc/cpuinfo of x86 or ARM; where sockets or cores are not told, threads count."""
    blocks = [dict(_field(line) for line in b.splitlines() if ":" in line) for b in text.split("\n\n")]
    threads = [block for block in blocks if "processor" in block]
    n_threads = max(1, len(threads))
    sockets = {block["physical id"] for block in threads if "physical id" in block}
    cores = {(b["physical id"], b["core id"]) for b in threads if "physical id" in b and "core id" in b}
    first = threads[0] if threads else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    return Cpu(
        name=first.get("model name", ""),
        n_sockets=max(1, len(sockets)),
        n_cores=len(cores) or n_threads,
        n_threads=n_threads,
        instruction_sets=tuple(name for flag, name in _FLAGS.items() if flag in flags),
        l3_bytes=l3_bytes,
        n_numa_nodes=n_numa_nodes,
        virtual="hypervisor" in flags,
    )


def _field(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()
