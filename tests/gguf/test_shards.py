"""Names of shards, and what makes files a set: each way in which a set can be wrong is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import FormatError
from ggufkit.gguf.header import Header
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.shards import ShardName, check_set, is_shard, parse_shard_name
from ggufkit.gguf.types import ValueType
from ggufkit.transfer.sources import open_header
from tests.gguf.hostile import big_endian
from tests.support.ggufs import TensorSpec, Typed, gguf_bytes, make_gguf, make_shards

ROWS: list[TensorSpec] = [(f"blk.{i}.ffn_up.weight", (32, 2), "Q8_0") for i in range(8)]


def shards_of(folder: Path, tensors: Sequence[TensorSpec] = ROWS, *, seed: int = 0) -> list[Path]:
    """Cut a model (of 8 blocks) into shards of 2 tensors."""
    kv = {"llama.block_count": 8}
    whole = make_gguf(folder / "model.gguf", tensors=tensors, kv=kv, seed=seed)
    return list(make_shards(whole, folder / "shards", max_tensors=2))


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return shards_of(tmp_path / "one")


def headers_of(paths: Sequence[Path]) -> list[Header]:
    return [open_header(path) for path in paths]


def shard_like(path: Path, *, tensors: Sequence[TensorSpec], **kv: object) -> Header:
    """Write a shard without an architecture of its own at `path` and read its header."""
    split = {key.replace("_", "."): Typed(ValueType.UINT16, value) for key, value in kv.items()}
    return open_header(make_gguf(path, arch=None, tensors=tensors, kv=split))


# ---- names ----


@pytest.mark.parametrize(
    ("file_name", "parts"),
    [
        ("m-00001-of-00004.gguf", ShardName("m", 1, 4)),
        ("DeepSeek-R1-UD-IQ2_XXS-00004-of-00004.gguf", ShardName("DeepSeek-R1-UD-IQ2_XXS", 4, 4)),
        ("a-00001-of-00002-00002-of-00003.gguf", ShardName("a-00001-of-00002", 2, 3)),
        ("m-00001-of-00001.gguf", ShardName("m", 1, 1)),
        ("深度求索-00065-of-65535.gguf", ShardName("深度求索", 65, 65535)),
    ],
)
def test_names_of_shards(file_name: str, parts: ShardName) -> None:
    assert parse_shard_name(file_name) == parts
    assert parts.file_name() == file_name


@pytest.mark.parametrize(
    "file_name",
    [
        "model.gguf",
        "m-1-of-4.gguf",
        "m-00000-of-00004.gguf",
        "m-00005-of-00004.gguf",
        "m-00001-of-00004.GGUF",
        "m-00001-of-00004.gguf.part",
        "m-00001-of-00004",
        "-00001-of-00004.gguf",
        "m-٠٠٠٠١-of-٠٠٠٠٤.gguf",
        "m-000001-of-000004.gguf",
    ],
)
def test_names_that_are_no_shards(file_name: str) -> None:
    assert parse_shard_name(file_name) is None


def test_siblings_are_the_whole_set() -> None:
    names = [name.file_name() for name in ShardName("m", 2, 3).siblings()]
    assert names == ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]


# ---- sound sets ----


def test_a_sound_set(shards: list[Path]) -> None:
    headers = headers_of(shards)
    found = check_set(headers)
    assert found.headers == tuple(headers)
    assert found.first is headers[0]
    assert found.n_tensors == 8
    assert found.warnings == ()
    assert all(is_shard(header) for header in headers)


def test_the_first_shard_may_have_no_tensors(tmp_path: Path) -> None:
    whole = make_gguf(tmp_path / "model.gguf", tensors=ROWS)
    paths = make_shards(whole, max_tensors=4, no_tensor_first=True)
    found = check_set(headers_of(paths))
    assert [len(header.tensors) for header in found.headers] == [0, 4, 4]


def test_a_set_of_one(tmp_path: Path) -> None:
    (path,) = make_shards(make_gguf(tmp_path / "model.gguf", tensors=ROWS))
    assert path.name == "model-00001-of-00001.gguf"
    header = open_header(path)
    assert not is_shard(header)
    assert check_set([header]).n_tensors == 8


def test_other_integer_types_and_any_order_of_the_split_keys(tmp_path: Path) -> None:
    headers = []
    for i in range(2):
        split = {
            "split.count": Typed(ValueType.UINT32, 2),
            "general.architecture": "llama" if i == 0 else None,
            "split.tensors.count": Typed(ValueType.UINT64, 2),
            "split.no": Typed(ValueType.INT64, i),
        }
        path = make_gguf(tmp_path / f"{i}.gguf", arch=None, tensors=[(f"t{i}", (4,), "F32")], kv=split)
        headers.append(open_header(path))
    assert check_set(headers).n_tensors == 2


# ---- sets that are none ----


def refused(headers: Sequence[Header], message: str) -> FormatError:
    with pytest.raises(FormatError, match=message) as caught:
        check_set(headers)
    assert caught.value.exit_code == 7
    assert caught.value.message.isprintable()
    return caught.value


def test_no_shards_at_all() -> None:
    refused([], "has no shards")


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    header = open_header(make_gguf(tmp_path / "model.gguf"))
    error = refused([header, header], "is no shard: it has no split.no")
    assert error.file == header.name


@pytest.mark.parametrize(
    ("kept", "missing"), [([0, 2, 3], "2"), ([1, 2, 3], "1"), ([0], "2, 3, 4"), ([0, 1, 2], "4")]
)
def test_missing_shards_are_named(shards: list[Path], kept: list[int], missing: str) -> None:
    headers = headers_of(shards)
    refused([headers[i] for i in kept], rf"set of 4 shards, without shard {missing}$")


def test_many_missing_shards_are_not_all_named(tmp_path: Path) -> None:
    header = shard_like(
        tmp_path / "a.gguf", tensors=ROWS, split_no=0, split_count=65535, split_tensors_count=9
    )
    error = refused([header], r"set of 65,535 shards, without shard 2, 3, .*, …$")
    assert len(error.reason) < 120


def test_too_many_shards(shards: list[Path]) -> None:
    headers = headers_of(shards)
    refused([*headers, headers[0]], "belongs to a set of 4 shards .split.count., not of 5")


def test_swapped_shards(shards: list[Path]) -> None:
    headers = headers_of([shards[0], shards[2], shards[1], shards[3]])
    error = refused(headers, "is shard 3 by its split.no, not shard 2: renamed")
    assert error.file == str(shards[2])


def test_the_same_shard_twice(shards: list[Path]) -> None:
    """A copy, a hard link or a symbolic link under another shard's name."""
    shards[2].unlink()
    shards[2].hardlink_to(shards[1])
    error = refused(headers_of(shards), "is shard 2 by its split.no, not shard 3")
    assert error.file == str(shards[2])


def test_the_same_tensors_under_another_number(shards: list[Path]) -> None:
    raw = bytearray(shards[1].read_bytes())
    at = raw.index(b"split.no") + len(b"split.no") + 4
    raw[at] = 2
    shards[2].write_bytes(raw)
    error = refused(headers_of(shards), r"tensor blk\.2\.ffn_up\.weight is in more than one shard")
    assert error.file == str(shards[1])


def test_counts_that_differ(shards: list[Path], tmp_path: Path) -> None:
    headers = headers_of(shards)
    headers[2] = shard_like(
        tmp_path / "x.gguf", tensors=ROWS[4:6], split_no=2, split_count=5, split_tensors_count=8
    )
    error = refused(headers, "belongs to a set of 5 shards .split.count., not of 4")
    assert error.file == headers[2].name


def test_a_shard_of_another_cut(tmp_path: Path) -> None:
    """The same model cut elsewhere: fewer or other tensors than the set claims."""
    headers = headers_of(shards_of(tmp_path / "one"))
    headers[3] = shard_like(
        tmp_path / "x.gguf", tensors=ROWS[7:], split_no=3, split_count=4, split_tensors_count=8
    )
    refused(headers, "split.tensors.count is 8, the set has 7 tensors: of another set")


def test_a_shard_that_claims_other_tensors(shards: list[Path], tmp_path: Path) -> None:
    headers = headers_of(shards)
    headers[1] = shard_like(
        tmp_path / "x.gguf", tensors=ROWS[2:4], split_no=1, split_count=4, split_tensors_count=80
    )
    error = refused(headers, "split.tensors.count is 80, the set has 8 tensors: of another set")
    assert error.file == headers[1].name


def test_a_shard_of_another_quant_cut_elsewhere(tmp_path: Path) -> None:
    """By size, another quant is cut elsewhere: names occur twice, or the count is wrong."""
    one = headers_of(_cut(tmp_path / "one", 96 * 2, "Q8_0"))
    other = headers_of(_cut(tmp_path / "other", 256 * 4, "F32"))
    assert [len(h.tensors) for h in (*one, *other)] == [2, 2, 2, 2, 4, 4]
    whole = [one[0], replace(other[1], kv=one[1].kv), *one[2:]]
    refused(whole, "split.tensors.count is 8, the set has 10 tensors: of another set")


def _cut(folder: Path, max_bytes: int, type_name: str) -> tuple[Path, ...]:
    rows = [(name, shape, type_name) for name, shape, _ in ROWS]
    return make_shards(make_gguf(folder / "model.gguf", tensors=rows), max_bytes=max_bytes)


def test_a_shard_of_another_quant_cut_in_the_same_places_is_told(tmp_path: Path) -> None:
    names = [f"blk.{i}.{part}.weight" for i in range(6) for part in ("ffn_up", "ffn_down")]
    four, eight = (
        headers_of(shards_of(tmp_path / type_name, [(name, (32, 2), type_name) for name in names]))
        for type_name in ("Q4_0", "Q8_0")
    )
    assert check_set(four).warnings == check_set(eight).warnings
    mixed = [*four[:4], eight[4], four[5]]
    assert (
        f"{eight[4].name}: its tensor types are in no other shard: another quant?"
        in check_set(mixed).warnings
    )


def test_a_foreign_shard_with_other_names_is_told(shards: list[Path], tmp_path: Path) -> None:
    headers = headers_of(shards)
    rows: list[TensorSpec] = [("foreign.a", (4,), "F32"), ("foreign.b", (4,), "F32")]
    headers[2] = shard_like(
        tmp_path / "x.gguf", tensors=rows, split_no=2, split_count=4, split_tensors_count=8
    )
    assert check_set(headers).warnings == ("no shard has tensors of block 4, 5: is one of another model?",)


def test_a_later_shard_that_contradicts_the_first(shards: list[Path], tmp_path: Path) -> None:
    raw = gguf_bytes(tensors=ROWS[4:6], arch="qwen2", kv=_split_kv(2))
    headers = headers_of(shards)
    headers[2] = read_header(raw, name="third", file_size_bytes=len(raw))
    error = refused(headers, "key general.architecture differs from shard 1's: of another model")
    assert error.file == "third"


def _split_kv(number: int) -> dict[str, object]:
    return {
        "split.no": Typed(ValueType.UINT16, number),
        "split.tensors.count": Typed(ValueType.INT32, 8),
        "split.count": Typed(ValueType.UINT16, 4),
    }


def test_a_later_shard_may_repeat_the_first_and_extras_are_told(shards: list[Path]) -> None:
    raw = gguf_bytes(tensors=ROWS[4:6], arch="llama", kv={**_split_kv(2), "x.\u200b": None, "x.y": 1})
    headers = headers_of(shards)
    headers[2] = read_header(raw, name="third\n", file_size_bytes=len(raw))
    assert check_set(headers).warnings == (r"third\n: key x.y is not in shard 1 and is dropped",)


def test_a_later_shard_has_an_alignment_of_its_own(shards: list[Path]) -> None:
    raw = gguf_bytes(tensors=ROWS[4:6], arch=None, kv={**_split_kv(2), "general.alignment": 64})
    headers = headers_of(shards)
    headers[2] = read_header(raw, name="third", file_size_bytes=len(raw))
    assert check_set(headers).warnings == ()


def test_a_big_endian_shard(shards: list[Path]) -> None:
    shards[1].write_bytes(big_endian())
    with pytest.raises(FormatError, match="big-endian") as caught:
        headers_of(shards)
    assert caught.value.file == str(shards[1])


@pytest.mark.parametrize("n_bytes", [29, 60, 200])  # 28 bytes are padding
def test_a_shard_cut_short(shards: list[Path], n_bytes: int) -> None:
    shards[3].write_bytes(shards[3].read_bytes()[:-n_bytes])
    with pytest.raises(FormatError, match=r"cut short|needs") as caught:
        headers_of(shards)
    assert caught.value.file == str(shards[3])


def test_a_set_larger_than_a_file_can_be(shards: list[Path]) -> None:
    headers = [replace(header, data_bytes=1 << 61) for header in headers_of(shards)]
    refused(headers, "more bytes than a file can")


def test_warnings_name_their_shard(shards: list[Path]) -> None:
    with shards[1].open("ab") as file:
        file.write(b"junk")
    assert check_set(headers_of(shards)).warnings == (f"{shards[1]}: 4 bytes behind the data",)


def test_a_million_blocks_are_no_trouble(tmp_path: Path) -> None:
    kv = {"llama.block_count": (1 << 32) - 1}
    (path,) = make_shards(make_gguf(tmp_path / "model.gguf", tensors=ROWS, kv=kv))
    (warning,) = check_set([open_header(path)]).warnings
    assert warning.startswith("no shard has tensors of block 8, 9, 10, ")
    assert len(warning) < 120
