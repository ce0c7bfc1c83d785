"""Merging and splitting against llama.cpp's own llama-gguf-split, digest by digest.

`tests/data/shards` is a small llama (57 tensors, random weights) cut by llama-gguf-split b11434 with
`--split-max-tensors 12`. The other digests are of what the same program made of the same model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from ggufkit.gguf.layout import Span, merge_layout, split_layouts
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.shards import ShardSet, check_set, parse_shard_name
from ggufkit.transfer.sources import open_header
from tests.support.ggufs import render

FOLDER = Path(__file__).parent.parent / "data" / "shards"
SHARDS = sorted(FOLDER.glob("*.gguf"))

ORIGINAL = "3333e6f744a7740dabbb59a1bcb1eca769f4d603dc5aab4cb918b607c33b0123"
"""The model before it was cut."""
MERGED = "498c751a4058fedd165b590cc1913a9b52a082de141280c1da4f1fd51dc1e32f"
"""What `llama-gguf-split --merge` makes of each set."""

CUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "--split-max-tensors 12": (
        {"max_tensors": 12},
        [
            "d86d06a0821985e951a061afa37eb2e0235fa3b6e1e3e43aa79e2eea0286d997",
            "1bb7206572bd608c63bcb413f6dd7ec9fb115d95dccf4475593f88b3f15ebc34",
            "1357658c3277f7a4b78ce3d666276e3f63384657150c911a8df57bcc0c49fe54",
            "a04441ba2e57781867aaf4493230536d0fabb09c74ea35b443fad38eef58d269",
            "254356594ca7ab9bd727cbce5fb9994ad926def72a8f4cf3c19bc1864a7c575a",
        ],
    ),
    "--split-max-size 1M": (
        {"max_bytes": 1_000_000},
        [
            "c7aa310643b15c7ae8faec709fe3d2f4271e280120928d3822959edca80a572a",
            "f32033a89ab73427f0a45a47efd6470138aaccd36d2653c7bce6e54a7f33acc7",
            "c9e416d86ac02b9c76e7df4f067beab20aa298119d6f934a936ed66501442de1",
        ],
    ),
    "--no-tensor-first-split --split-max-tensors 20": (
        {"max_tensors": 20, "no_tensor_first": True},
        [
            "019ee7c9cfadb89815cc2d77288ea6a22057a4ea812cea56b580a4be77c90e89",
            "55f81e09d57c175672f54dd03485f0f1aa731f35a3ed0c3ed4a08b3403f2b9ff",
            "48bdbe76cae046eea855bdb02aa281d9b214c91ed1a8d2536644bd6e17707ecd",
            "5d40ff7019499bae30552342633f6810e1069982c0808fe808d963f1b95d16cc",
        ],
    ),
}
"""Each way of cutting: our arguments, and the SHA-256 of llama-gguf-split's shards."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def set_of(files: list[bytes]) -> ShardSet:
    headers = [read_header(d, name=f"{i}", file_size_bytes=len(d)) for i, d in enumerate(files)]
    return check_set(headers)


@pytest.fixture(scope="module")
def original() -> bytes:
    """The model before it was cut, merged from the shards."""
    files = [path.read_bytes() for path in SHARDS]
    return render(merge_layout(set_of(files)), files)


def test_the_shards_are_those_of_llama_gguf_split() -> None:
    assert [sha256(path.read_bytes()) for path in SHARDS] == CUTS["--split-max-tensors 12"][1]
    names = [parse_shard_name(path.name) for path in SHARDS]
    assert [name and (name.number, name.total) for name in names] == [(i, 5) for i in range(1, 6)]


def test_merging_restores_the_original(original: bytes) -> None:
    assert sha256(original) == ORIGINAL


@pytest.mark.parametrize("cut", CUTS)
def test_splitting_equals_llama_gguf_split(cut: str, original: bytes) -> None:
    arguments, digests = CUTS[cut]
    header = read_header(original, name="original", file_size_bytes=len(original))
    shards = [render(layout, [original]) for layout in split_layouts(header, **arguments)]
    assert [sha256(shard) for shard in shards] == digests


@pytest.mark.parametrize("cut", CUTS)
def test_merging_each_cut(cut: str, original: bytes) -> None:
    """Back to the original, and in llama.cpp's way to what llama-gguf-split makes."""
    header = read_header(original, name="original", file_size_bytes=len(original))
    files = [render(layout, [original]) for layout in split_layouts(header, **CUTS[cut][0])]
    shards = set_of(files)
    assert shards.warnings == ()
    assert sha256(render(merge_layout(shards), files)) == ORIGINAL
    assert sha256(render(merge_layout(shards, keep_split_keys=True), files)) == MERGED


def test_a_file_merged_by_llama_cpp_splits_and_merges_as_the_original(original: bytes) -> None:
    """Its leftover split keys (`split.count` 0) do not pile up."""
    files = [path.read_bytes() for path in SHARDS]
    merged = render(merge_layout(set_of(files), keep_split_keys=True), files)
    header = read_header(merged, name="merged", file_size_bytes=len(merged))
    assert header.get("split.count") == 0
    shards = [render(layout, [merged]) for layout in split_layouts(header, max_tensors=12)]
    assert [sha256(shard) for shard in shards] == CUTS["--split-max-tensors 12"][1]


def test_one_span_per_shard() -> None:
    """The data of a shard are moved in one piece, whatever the number of tensors."""
    headers = [open_header(path) for path in SHARDS]
    layout = merge_layout(check_set(headers))
    spans = [segment for segment in layout.segments if isinstance(segment, Span)]
    assert [span.source for span in spans] == [0, 1, 2, 3, 4]
    assert [span.n_bytes for span in spans] == [header.data_bytes for header in headers]
