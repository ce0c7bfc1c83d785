"""The firmware's memory table: what is in it, and what broken ones do."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import FormatError
from ggufkit.fit.smbios import Module, parse_smbios, parse_udev
from tests.fit import tables
from tests.fit.tables import SAMSUNG_64G, Slot, memory_array, structure, table


def test_one_stick_in_a_z440() -> None:
    modules = parse_smbios(tables.z440(1))
    assert len(modules) == 8
    assert modules[0] == Module(64 << 30, "DIMM1", "", "DDR4", 2400, 2400, 64, SAMSUNG_64G)
    assert [module.populated for module in modules] == [True] + [False] * 7
    assert modules[1] == Module(0, "DIMM2", "", "DDR4", None, None, 64, "")


def test_two_sockets() -> None:
    modules = parse_smbios(tables.epyc_two_sockets())
    assert len(modules) == 24
    assert {(m.size_bytes, m.memory_type, m.configured_mts) for m in modules} == {(32 << 30, "DDR5", 4800)}
    assert (modules[23].locator, modules[23].bank) == ("P2-DIMML1", "P1_Node1_Channel11_Dimm0")


def test_a_laptop_with_soldered_memory() -> None:
    modules = parse_smbios(tables.lpddr_laptop())
    assert {(m.memory_type, m.data_bits, m.speed_mts) for m in modules} == {("LPDDR5", 32, 8000)}


@pytest.mark.parametrize(
    ("gib", "size"), [(0.5, 512 << 20), (16, 16 << 30), (32, 32 << 30), (256, 256 << 30)]
)
def test_sizes_short_and_extended(gib: float, size: int) -> None:
    assert parse_smbios(table(Slot("A1", gib=gib)))[0].size_bytes == size


def test_sizes_in_kib_and_unknown_ones() -> None:
    def sized(word: int) -> Module:
        body = struct.pack("<HHHHHBBBBBH", 0x1000, 0xFFFE, 64, 64, word, 9, 0, 1, 0, 0x1A, 0)
        return parse_smbios(structure(17, 1, body, "X") + structure(127, 2, b""))[0]

    assert sized(0x8000 | 512).size_bytes == 512 << 10
    assert sized(0xFFFF).size_bytes is None
    assert sized(0xFFFF).populated
    assert sized(1024) == Module(1 << 30, "X", "", "DDR4", None, None, 64, "")  # an old, short structure


def test_a_speed_over_65_gigatransfers_is_in_the_extended_field() -> None:
    body = bytearray(struct.pack("<HHHHHBBBBBH", 0x1000, 0xFFFE, 64, 64, 1024, 9, 0, 0, 0, 0x22, 0))
    body += bytes(0x58)
    struct.pack_into("<H", body, 0x15 - 4, 0xFFFF)
    struct.pack_into("<I", body, 0x54 - 4, 70_000)
    assert parse_smbios(structure(17, 1, bytes(body)))[0].speed_mts == 70_000


def test_memory_of_other_arrays_is_no_main_memory() -> None:
    flash = memory_array(0x2000, use=5, n_slots=1)
    data = table(Slot("DIMM1", gib=8), Slot("ROM", gib=16, array=0x2000), arrays=(memory_array(), flash))
    assert [module.locator for module in parse_smbios(data)] == ["DIMM1"]


def test_a_table_without_memory_devices() -> None:
    assert parse_smbios(table(arrays=())) == ()


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\x11\x03\0\0\0\0", tables.z440(4)[:200], b"\x11\x5c\0\0"])
def test_damaged_tables_are_told(data: bytes) -> None:
    with pytest.raises(FormatError, match="SMBIOS table"):
        parse_smbios(data)


@given(st.integers(0, 2000), st.binary(max_size=8))
def test_no_damage_hangs_or_breaks(position: int, noise: bytes) -> None:
    data = bytearray(tables.z440(1))
    data[position : position + len(noise)] = noise
    try:
        modules = parse_smbios(bytes(data))
    except FormatError:
        return
    assert all(isinstance(module, Module) for module in modules)


UDEV = """\
I:2044061
E:ID_VENDOR=HP
E:MEMORY_ARRAY_LOCATION=System Board Or Motherboard
E:MEMORY_ARRAY_NUM_DEVICES=8
E:MEMORY_DEVICE_0_TOTAL_WIDTH=72
E:MEMORY_DEVICE_0_DATA_WIDTH=64
E:MEMORY_DEVICE_0_SIZE=68719476736
E:MEMORY_DEVICE_0_FORM_FACTOR=DIMM
E:MEMORY_DEVICE_0_LOCATOR=DIMM1
E:MEMORY_DEVICE_0_TYPE=DDR4
E:MEMORY_DEVICE_0_SPEED_MTS=2400
E:MEMORY_DEVICE_0_PART_NUMBER=M386A8K40BM1-CRC
E:MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS=2133
E:MEMORY_DEVICE_1_PRESENT=0
E:MEMORY_DEVICE_1_LOCATOR=DIMM2
E:MEMORY_DEVICE_10_LOCATOR=DIMM3
"""


def test_what_udev_keeps_for_all_to_read() -> None:
    assert parse_udev(UDEV) == (
        Module(64 << 30, "DIMM1", "", "DDR4", 2400, 2133, 64, SAMSUNG_64G),
        Module(0, "DIMM2", "", None, None, None, None, ""),
        Module(None, "DIMM3", "", None, None, None, None, ""),
    )
    assert parse_udev("E:ID_VENDOR=QEMU\n") == ()
