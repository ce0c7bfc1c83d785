"""DeepSeek-R1's shape, full size and sparse: 257 thousand strings, 1,025 tensors, 4 shards near 50 GB."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.gguf.header import Header
from ggufkit.gguf.layout import Span, merge_layout
from ggufkit.gguf.shards import check_set, parse_shard_name
from ggufkit.transfer.sources import header_by_range, open_header
from tests.gguf.measured import run_measured
from tests.support.ggufs import r1_shaped, r1_shards, write_sparse

MAX_RSS_BYTES = 40 << 20
HUB_LIMIT_BYTES = 50_000_000_000


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return r1_shaped(tmp_path_factory.mktemp("r1") / "DeepSeek-R1-UD-IQ2_XXS.gguf")


def test_the_shape(r1: Path) -> None:
    header = open_header(r1)
    assert header.warnings == ()
    assert len(header.tensors) == 1025
    assert header.string("general.architecture") == "deepseek2"
    assert header.integer("deepseek2.block_count") == 61
    tokens, merges = header.array("tokenizer.ggml.tokens"), header.array("tokenizer.ggml.merges")
    assert (len(tokens), len(set(tokens)), len(merges)) == (129_280, 129_280, 127_741)
    assert all(left + right for left, right in (merge.split(" ") for merge in merges))
    assert {merge.replace(" ", "") for merge in merges} <= set(tokens)
    assert 4_800_000 < header.header_end < 5_000_000
    assert sum(t.n_elements for t in header.tensors) == 671_026_419_200
    assert header.file_size_bytes == 196_651_101_120


def test_it_takes_no_disk(r1: Path) -> None:
    assert r1.stat().st_size > 190_000_000_000
    assert getattr(r1.stat(), "st_blocks", 0) * 512 < 20_000_000


def test_split_attention(tmp_path: Path) -> None:
    header = open_header(r1_shaped(tmp_path / "mla.gguf", mla=True, chat_template="{{ messages }}"))
    assert len(header.tensors) == 1086
    assert header.integer("deepseek2.attention.key_length_mla") == 192
    assert header.string("tokenizer.chat_template") == "{{ messages }}"


def test_shards_and_back(r1: Path, tmp_path: Path) -> None:
    paths = r1_shards(tmp_path)
    headers = [open_header(path) for path in paths]
    found = check_set(headers)
    assert found.warnings == ()
    assert [parse_shard_name(path.name) is not None for path in paths] == [True] * 4
    assert all(path.stat().st_size < HUB_LIMIT_BYTES for path in paths)
    assert [header.header_end < 30_000 for header in headers] == [False, True, True, True]
    layout = merge_layout(found)
    assert sum(isinstance(segment, Span) for segment in layout.segments) == 4
    merged = write_sparse(layout, tmp_path / "merged.gguf")
    assert merged.stat().st_size == r1.stat().st_size
    assert _start(merged) == _start(r1)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(5 << 20)


_OPEN = """
import sys, time
from pathlib import Path
from ggufkit.transfer.sources import open_header
began = time.perf_counter()
header = open_header(Path(sys.argv[1]))
result = [len(header.tensors), time.perf_counter() - began]
"""


def test_it_is_read_in_little_memory(r1: Path) -> None:
    measured = run_measured(_OPEN, str(r1))
    assert measured["result"][0] == 1025
    assert measured["peak_bytes"] < MAX_RSS_BYTES
    assert "numpy" not in measured["modules"]


def test_by_ranges_little_more_than_the_header_is_fetched(r1: Path) -> None:
    asked: list[int] = []

    def read(n_bytes: int) -> bytes:
        asked.append(n_bytes)
        with r1.open("rb") as file:
            return file.read(n_bytes)

    header: Header = header_by_range(
        read, name="R1", file_size_bytes=r1.stat().st_size, first_read_bytes=64 << 10, growth=1.25
    )
    assert len(header.tensors) == 1025
    assert len(asked) <= 5
    assert asked[-1] < header.header_end * 1.1
