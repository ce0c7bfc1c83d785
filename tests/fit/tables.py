"""Tables as the firmware of real machines has them, byte for byte by DSP0134; and their /proc/cpuinfo."""

from __future__ import annotations

import struct
from dataclasses import dataclass

DDR4, DDR5, LPDDR5 = 0x1A, 0x22, 0x23
DIMM_FORM, ROW_OF_CHIPS = 0x09, 0x0B


@dataclass(frozen=True, slots=True)
class Slot:
    """One memory device of a table."""

    locator: str
    bank: str = ""
    gib: float = 0
    kind: int = DDR4
    speed: int = 2400
    configured: int | None = None
    part: str = ""
    data_bits: int = 64
    form: int = DIMM_FORM
    array: int = 0x1000


def structure(kind: int, handle: int, body: bytes, *strings: str) -> bytes:
    """Return a structure: header, formatted area, strings."""
    texts = b"".join(text.encode("latin-1") + b"\0" for text in strings) or b"\0"
    return struct.pack("<BBH", kind, 4 + len(body), handle) + body + texts + b"\0"


def memory_array(handle: int = 0x1000, use: int = 3, n_slots: int = 8) -> bytes:
    """Return a type 16 structure: on the mainboard, multi-bit error correction, 512 GiB at most."""
    body = struct.pack("<BBBIHHQ", 3, use, 6, 0x80000000, 0xFFFE, n_slots, 512 << 30)
    return structure(16, handle, body)


def memory_device(slot: Slot, handle: int) -> bytes:
    """Return a type 17 structure of version 3.3 (length 5Ch)."""
    mib = int(slot.gib * 1024)
    size, extended = (0x7FFF, mib) if mib >= 0x7FFF else (mib, 0)
    speed = slot.speed if mib else 0
    configured = (slot.configured or slot.speed) if mib else 0
    body = struct.pack(
        "<HHHHHBBBBBHHBBBBBIHHHHBHBHHHHQQQQII",
        *(slot.array, 0xFFFE, slot.data_bits + 8, slot.data_bits, size, slot.form, 0, 1, 2, slot.kind, 0x80),
        *(min(speed, 0xFFFF), 3, 4, 5, 6, 2, extended, min(configured, 0xFFFF), 1200, 1200, 1200),
        *(3, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    )
    assert len(body) + 4 == 0x5C
    bank = slot.bank or "Not Specified"
    return structure(
        17, handle, body, slot.locator, bank, "Maker", "12345678", "Asset", slot.part or "NO DIMM"
    )


def table(*slots: Slot, arrays: tuple[bytes, ...] | None = None) -> bytes:
    """Return a whole table: BIOS and system in front, arrays, slots, end mark."""
    head = structure(0, 0, bytes(20), "American Megatrends", "2.61") + structure(1, 1, bytes(23), "HP")
    body = b"".join(memory_device(slot, 0x1100 + i) for i, slot in enumerate(slots))
    middle = b"".join(arrays if arrays is not None else (memory_array(n_slots=len(slots)),))
    return head + middle + body + structure(127, 0xFEFF, b"")


HYNIX_64G = "HMAA8GR7A2R4N-VN"
SAMSUNG_64G = "M386A8K40BM1-CRC"


def z440(n_modules: int, gib: float = 64, speed: int = 2400) -> bytes:
    """HP Z440: eight slots, four channels, and locators that don't tell the channel."""
    order = (1, 8, 3, 6, 2, 7, 4, 5)[:n_modules]
    return table(
        *(
            Slot(f"DIMM{i}", gib=gib, speed=speed, part=SAMSUNG_64G) if i in order else Slot(f"DIMM{i}")
            for i in range(1, 9)
        )
    )


def epyc_two_sockets(n_each: int = 12, speed: int = 4800) -> bytes:
    """Two EPYC 9004 on a Supermicro board: twelve channels each, one slot a channel."""
    return table(
        *(
            Slot(
                f"P{socket + 1}-DIMM{letter}1",
                f"P{socket}_Node{socket}_Channel{i}_Dimm0",
                gib=32 if i < n_each else 0,
                kind=DDR5,
                speed=speed,
            )
            for socket in (0, 1)
            for i, letter in enumerate("ABCDEFGHIJKL")
        )
    )


def lpddr_laptop() -> bytes:
    """Ryzen AI Max+ 395: eight soldered packages of 32 bits, LPDDR5X-8000, 128 GiB."""
    return table(
        *(
            Slot(
                "DIMM 0",
                f"P0 CHANNEL {letter}",
                gib=16,
                kind=LPDDR5,
                speed=8000,
                data_bits=32,
                form=ROW_OF_CHIPS,
            )
            for letter in "ABCDEFGH"
        )
    )


def poweredge(n_each: int) -> bytes:
    """Dell R730: A1 to A12 beside CPU 1, B1 to B12 beside CPU 2; four channels each."""
    return table(
        *(
            Slot(f"{socket}{i}", gib=32 if i <= n_each else 0, speed=2400)
            for socket in "AB"
            for i in range(1, 13)
        )
    )


def desktop(*filled: str) -> bytes:
    """Return an AM4 board with the slots DIMM_A1, A2, B1, B2, running slower than the modules can."""
    return table(
        *(
            Slot(f"DIMM_{name}", gib=16 if name in filled else 0, speed=3200, configured=2133)
            for name in ("A1", "A2", "B1", "B2")
        )
    )


def cpuinfo(name: str, *, n_sockets: int = 1, n_cores: int = 4, smt: int = 2, flags: str = "avx2") -> str:
    """Return the /proc/cpuinfo of an x86 machine."""
    blocks = []
    for thread in range(n_sockets * n_cores * smt):
        core = thread % (n_sockets * n_cores)
        blocks.append(
            f"processor\t: {thread}\nvendor_id\t: x\nmodel name\t: {name}\n"
            f"physical id\t: {core // n_cores}\ncore id\t\t: {core % n_cores}\n"
            f"flags\t\t: fpu sse4_2 {flags}\n"
        )
    return "\n".join(blocks) + "\n"
