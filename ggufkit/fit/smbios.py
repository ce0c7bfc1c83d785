"""What the firmware says of the memory modules: the SMBIOS table, and systemd's copy of it as text.

Source: DMTF DSP0134 3.x: 6.1.2 (header), 6.1.3 (strings), 7.17 (type 16), 7.18 (type 17). Linux has the table
in /sys/firmware/dmi/tables/DMI, for root only; udev's `dmi_memory_id` puts the same facts where all may read
them. Pure: bytes or text in, modules out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ggufkit.errors import FormatError

MEMORY_ARRAY, MEMORY_DEVICE, END_OF_TABLE = 16, 17, 127
SYSTEM_MEMORY = 3  # 7.17.2: the array's use
NOT_KNOWN, SEE_EXTENDED_SPEED = 0, 0xFFFF  # 7.18.4, speeds
SIZE_NOT_KNOWN, SEE_EXTENDED_SIZE, SIZE_IN_KIB = 0xFFFF, 0x7FFF, 0x8000  # 7.18, offset 0Ch
MEMORY_TYPES = {  # 7.18.2
    0x18: "DDR3",
    0x1A: "DDR4",
    0x1B: "LPDDR",
    0x1C: "LPDDR2",
    0x1D: "LPDDR3",
    0x1E: "LPDDR4",
    0x20: "HBM",
    0x21: "HBM2",
    0x22: "DDR5",
    0x23: "LPDDR5",
    0x24: "HBM3",
}


@dataclass(frozen=True, slots=True)
class Module:
    """A slot for memory, or memory that is soldered."""

    size_bytes: int | None
    """Bytes of the module; 0 for an empty slot, None when the firmware does not know."""
    locator: str
    """What is printed beside the slot, e.g. `DIMM1`, `P1-DIMMA1`."""
    bank: str
    """A second name of the place, e.g. `P0_Node0_Channel0_Dimm0`; often empty."""
    memory_type: str | None
    """`DDR4`, `LPDDR5`."""
    speed_mts: int | None
    """What the module can do, millions of transfers per second."""
    configured_mts: int | None
    """What it runs at, millions of transfers per second."""
    data_bits: int | None
    """Width without the bits for error correction."""
    part: str
    """Maker's part number."""

    @property
    def populated(self) -> bool:
        """Return whether there is memory."""
        return self.size_bytes != 0


def parse_smbios(table: bytes, name: str = "SMBIOS table") -> tuple[Module, ...]:
    """Return the slots of the system's memory; raises FormatError for a table that is cut or no table."""
    structures = list(_structures(table, name))
    if not structures:
        raise FormatError(name, "has no structures", offset=0)
    system = {_word(data, 2) for kind, data, _ in structures if kind == MEMORY_ARRAY and _is_system(data)}
    return tuple(
        _module(data, strings)
        for kind, data, strings in structures
        if kind == MEMORY_DEVICE and len(data) >= 0x15 and (not system or _word(data, 4) in system)
    )


def _is_system(data: bytes) -> bool:
    return len(data) > 5 and data[5] == SYSTEM_MEMORY


def _structures(table: bytes, name: str) -> Iterator[tuple[int, bytes, list[str]]]:
    """Yield type, formatted area and strings of each structure up to the end mark."""
    position = 0
    while position + 4 <= len(table):
        kind, length = table[position], table[position + 1]
        end = table.find(b"\0\0", position + length)
        if length < 4 or end < 0:
            raise FormatError(name, "is cut or damaged", offset=position)
        texts = table[position + length : end].decode("latin-1").split("\0")
        yield kind, table[position : position + length], [text.strip() for text in texts]
        if kind == END_OF_TABLE:
            return
        position = end + 2


def _module(data: bytes, strings: list[str]) -> Module:
    return Module(
        size_bytes=_size(data),
        locator=_string(data, 0x10, strings),
        bank=_string(data, 0x11, strings),
        memory_type=MEMORY_TYPES.get(data[0x12]),
        speed_mts=_speed(data, 0x15, 0x54),
        configured_mts=_speed(data, 0x20, 0x58),
        data_bits=_width(_word(data, 0x0A)),
        part=_string(data, 0x1A, strings),
    )


def _size(data: bytes) -> int | None:
    size = _word(data, 0x0C)
    if size == SIZE_NOT_KNOWN:
        return None
    if size == SEE_EXTENDED_SIZE:
        return (_double(data, 0x1C) & 0x7FFFFFFF) << 20
    return (size & 0x7FFF) << (10 if size & SIZE_IN_KIB else 20)


def _speed(data: bytes, offset: int, extended: int) -> int | None:
    speed = _word(data, offset)
    if speed == SEE_EXTENDED_SPEED:
        speed = _double(data, extended) & 0x7FFFFFFF
    return speed or None


def _width(bits: int | None) -> int | None:
    return bits if bits and bits != 0xFFFF else None


def _word(data: bytes, offset: int) -> int:
    """Return two bytes, little-endian; 0 (not known) where an older, shorter structure ends before."""
    return int.from_bytes(data[offset : offset + 2], "little") if len(data) >= offset + 2 else 0


def _double(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little") if len(data) >= offset + 4 else 0


def _string(data: bytes, offset: int, strings: list[str]) -> str:
    """Return the string that a byte counts to, from 1; fillers are no names."""
    number = data[offset] if len(data) > offset else 0
    text = strings[number - 1] if 0 < number <= len(strings) else ""
    return "" if text.lower() in ("not specified", "unknown", "none", "no dimm") else text


_UDEV = re.compile(r"^E:MEMORY_DEVICE_(\d+)_(\w+)=(.*)$", re.MULTILINE)


def parse_udev(text: str) -> tuple[Module, ...]:
    """Return the slots that udev's database names (systemd, src/udev/dmi_memory_id/dmi_memory_id.c)."""
    slots: dict[int, dict[str, str]] = {}
    for number, key, value in _UDEV.findall(text):
        slots.setdefault(int(number), {})[key] = value.strip()
    return tuple(_udev_module(fields) for _, fields in sorted(slots.items()))


def _udev_module(fields: dict[str, str]) -> Module:
    def number(key: str) -> int | None:
        value = fields.get(key, "")
        return int(value) if value.isdigit() and value != "0" else None

    return Module(
        size_bytes=0 if fields.get("PRESENT") == "0" else number("SIZE"),
        locator=fields.get("LOCATOR", ""),
        bank=fields.get("BANK_LOCATOR", ""),
        memory_type=fields.get("TYPE"),
        speed_mts=number("SPEED_MTS"),
        configured_mts=number("CONFIGURED_SPEED_MTS"),
        data_bits=number("DATA_WIDTH"),
        part=fields.get("PART_NUMBER", ""),
    )
