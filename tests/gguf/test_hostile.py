"""Broken and hostile files: refused with file, place and reason, at once and in little memory."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from ggufkit.errors import FormatError
from ggufkit.gguf.reader import MAX_STRINGS, MAX_WARNINGS
from ggufkit.transfer.sources import open_header
from tests.gguf.hostile import (
    ARCHITECTURE,
    BOOL,
    CORPUS,
    DATA,
    OUR_CASES,
    STRING,
    U8,
    Case,
    array,
    entry,
    gguf,
    tensor,
    text,
    with_kv,
)
from tests.gguf.measured import run_measured

CASES = [*CORPUS, *OUR_CASES]
MAX_CASE_S = 1.0
MAX_RSS_BYTES = 100 << 20


def test_the_corpus_is_whole() -> None:
    numbers = {int(case.name[:2]) for case in CORPUS if case.name[:2].isdigit()}
    assert numbers == set(range(1, 64))
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_case(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    if not case.refused:
        (warning,) = open_header(path).warnings
        assert re.search(case.message, warning)
        return
    with pytest.raises(FormatError, match=case.message) as caught:
        open_header(path)
    message = caught.value.message
    assert caught.value.exit_code == 7
    assert message.startswith(f"{path}: ")
    assert message.isprintable(), "one line, nothing that drives a terminal"
    assert len(message) < len(str(path)) + 250


_READ_ALL = """
import sys, time
from pathlib import Path
from ggufkit.errors import FormatError
from ggufkit.transfer.sources import open_header
result = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    began = time.process_time()
    try:
        open_header(path)
    except FormatError:
        pass
    result[path.name] = time.process_time() - began
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_no_case_takes_long_or_much(tmp_path: Path) -> None:
    """One process for all: its peak is the peak of the worst case."""
    for case in CASES:
        case.write(tmp_path)
    measured = run_measured(_READ_ALL, str(tmp_path))
    seconds = measured["result"]
    assert len(seconds) == len(CASES)
    assert {name: s for name, s in seconds.items() if s > MAX_CASE_S} == {}
    assert measured["peak_bytes"] < MAX_RSS_BYTES


def test_the_hint_for_a_short_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf(tensors=[tensor()], data=DATA[:-1]))
    with pytest.raises(FormatError) as caught:
        open_header(path)
    assert caught.value.hint == "fetch or copy the file again"


def test_a_file_without_the_last_padding_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "unpadded.gguf"
    path.write_bytes(gguf(tensors=[tensor(dims=(31,))], data=DATA[:124]))
    header = open_header(path)
    assert header.warnings == ()
    assert header.data_offset + header.data_bytes == path.stat().st_size + 4


def test_bytes_behind_a_file_without_tensors_are_told(tmp_path: Path) -> None:
    path = tmp_path / "vocab.gguf"
    path.write_bytes(gguf() + b"junk")
    assert open_header(path).warnings == ("4 bytes behind the data",)
    path.write_bytes(gguf().rstrip(b"\0"))
    assert open_header(path).warnings == ()


def test_a_raw_part_may_end_before_its_data(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf.part1of2"
    path.write_bytes(gguf(tensors=[tensor()], data=DATA[:50]))
    header = open_header(path, whole_file=False)
    assert header.data_offset + header.data_bytes == path.stat().st_size + 78
    with pytest.raises(FormatError, match="cut short"):
        open_header(path)


def test_many_oddities_are_counted_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(with_kv(*(entry(f"k{i}".encode(), BOOL, b"\7") for i in range(MAX_WARNINGS + 5))))
    warnings = open_header(path).warnings
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "and 5 more warnings"


def test_warnings_are_printable(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(with_kv(entry("k\u200b\x85".encode(), BOOL, b"\7")))
    with pytest.raises(FormatError, match="control characters"):
        open_header(path)
    path.write_bytes(with_kv(entry(b"k" * 500, STRING, text(b""))))
    (warning,) = open_header(path).warnings
    assert len(warning) < 120


def test_a_tensor_without_dimensions_is_one_number(tmp_path: Path) -> None:
    """gguf.cpp takes n_dims 0 (all four are 1 then), and gguf-py writes it for numpy scalars."""
    path = tmp_path / "scalar.gguf"
    path.write_bytes(gguf(tensors=[tensor(dims=())], data=DATA[:32]))
    (info,) = open_header(path).tensors
    assert (info.shape, info.n_elements, info.n_bytes) == ((1,), 1, 4)


def test_the_most_strings_allowed_are_read(tmp_path: Path) -> None:
    path = tmp_path / "many.gguf"
    strings = array(b"a.b", STRING, MAX_STRINGS)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + ARCHITECTURE + strings)
    size = path.stat().st_size + 8 * MAX_STRINGS
    with path.open("r+b") as file:
        file.truncate(size)
    header = open_header(path)
    assert header.header_end == size
    assert header.array("a.b", limit=3) == ["", "", ""]


def test_an_array_of_control_bytes_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "bytes.gguf"
    strings = array(b"a.c", STRING, 1, text(b"\xff\x1b"))
    path.write_bytes(with_kv(array(b"a.b", U8, 3, b"\0\x1b\xff"), strings))
    header = open_header(path)
    assert header.array("a.b") == [0, 27, 255]
    assert header.array("a.c") == ["\udcff\x1b"]
