"""What inspect says of files, sets and merged files, and what it finds in them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import FormatError, NotFoundError
from ggufkit.gguf.layout import merge_layout
from ggufkit.gguf.shards import check_set
from ggufkit.gguf.types import ValueType
from ggufkit.transfer.sources import open_header
from ggufkit.verbs.inspect import Imatrix, Rope, Split, inspect, load_one, warnings_of
from ggufkit.verbs.locate import find_model, load_headers
from ggufkit.verbs.lookup import (
    FEW_ELEMENTS,
    chat_template,
    entries,
    find_entry,
    matches,
    tensor_rows,
)
from tests.support.ggufs import Typed, make_gguf, make_shards, r1_shards, render

SHARDS = sorted((Path(__file__).parents[1] / "data" / "shards").glob("*.gguf"))


def merged(path: Path, *, keep_split_keys: bool) -> Path:
    """Merge the set of tests/data, as we or as llama-gguf-split would."""
    shards = check_set([open_header(shard) for shard in SHARDS])
    layout = merge_layout(shards, keep_split_keys=keep_split_keys)
    path.write_bytes(render(layout, [shard.read_bytes() for shard in SHARDS]))
    return path


def inspected(path: Path, **arguments: Any) -> Any:
    return inspect(load_headers(str(path)), **arguments)


# ---- what stands in an Inspection ----


def test_any_shard_and_the_folder_mean_the_whole_set() -> None:
    whole = inspected(SHARDS[0])
    assert whole.name == "Tiny-Test-Q4_K_M"
    assert whole.where == str(SHARDS[0].parent)
    assert [file.name for file in whole.files] == [str(path) for path in SHARDS]
    assert whole.n_bytes == sum(path.stat().st_size for path in SHARDS)
    assert sum(file.n_tensors for file in whole.files) == whole.model.n_tensors == 57
    assert whole.split == Split(5, None, ())
    assert inspected(SHARDS[3]) == whole
    assert inspected(SHARDS[0].parent) == whole


def test_a_merged_file_tells_who_merged_it(tmp_path: Path) -> None:
    ours = inspected(merged(tmp_path / "ours.gguf", keep_split_keys=False))
    theirs = inspected(merged(tmp_path / "theirs.gguf", keep_split_keys=True))
    assert ours.split == Split(1, None, ())
    assert theirs.split == Split(1, None, ("split.no", "split.tensors.count", "split.count"))
    assert ours.statistics == theirs.statistics == inspected(SHARDS[0]).statistics
    assert ours.model == theirs.model == inspected(SHARDS[0]).model


def test_one_shard_alone(tmp_path: Path) -> None:
    """A shard can be looked at when its set is broken or not there yet."""
    alone = tmp_path / SHARDS[2].name
    shutil.copy(SHARDS[2], alone)
    with pytest.raises(FormatError, match="4 of 5 shards missing"):
        load_headers(str(alone))
    found = inspect(load_one(alone))
    assert found.split == Split(5, 3, ())
    assert found.model.architecture is None
    assert found.model.n_tensors == len(open_header(alone).tensors) > 0
    assert found.name == SHARDS[2].stem


def test_the_only_shard_of_a_set_is_a_whole_set(tmp_path: Path) -> None:
    (path,) = make_shards(make_gguf(tmp_path / "m.gguf"), tmp_path / "set", max_tensors=100)
    assert inspected(path).split == Split(1, None, ())


def test_alignment_and_data_offset_of_each_file(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", kv={"general.alignment": 128})
    (file,) = inspected(path).files
    assert (file.version, file.alignment, file.data_offset % 128) == (3, 128, 0)
    assert file.n_bytes == path.stat().st_size == inspected(path).n_bytes
    assert open_header(path).data_offset == file.data_offset


def test_provenance(tmp_path: Path) -> None:
    kv = {
        "general.quantized_by": "Unsloth",
        "general.base_model.count": 1,
        "general.base_model.0.name": "DeepSeek R1",
        "general.base_model.0.repo_url": "https://example.org/deepseek-ai/DeepSeek-R1",
        "quantize.imatrix.file": "r1.dat",
        "quantize.imatrix.dataset": "calibration_datav3.txt",
        "quantize.imatrix.entries_count": Typed(ValueType.INT32, 720),
        "quantize.imatrix.chunks_count": Typed(ValueType.INT32, 124),
    }
    found = inspected(make_gguf(tmp_path / "m.gguf", kv=kv))
    assert found.model.quantized_by == "Unsloth"
    assert found.model.base_models == ("https://example.org/deepseek-ai/DeepSeek-R1",)
    assert found.imatrix == Imatrix("r1.dat", "calibration_datav3.txt", 720, 124)
    assert inspected(make_gguf(tmp_path / "n.gguf")).imatrix is None


def test_rope_and_its_scaling(tmp_path: Path) -> None:
    kv = {
        "llama.rope.freq_base": 10_000.0,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 40.0,
        "llama.rope.scaling.original_context_length": 4096,
    }
    assert inspected(make_gguf(tmp_path / "m.gguf", kv=kv)).rope == Rope(10_000.0, "yarn", 40.0, 4096)
    odd = {"llama.rope.freq_base": math.nan, "llama.rope.scaling.factor": "forty"}
    assert inspected(make_gguf(tmp_path / "n.gguf", kv=odd)).rope == Rope(None, None, None, None)


def test_chat_templates_are_named_the_usual_one_first(tmp_path: Path) -> None:
    kv = {
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ tools }}",
        "tokenizer.chat_template": "{{ messages }}",
    }
    tokenizer = inspected(make_gguf(tmp_path / "m.gguf", kv=kv)).tokenizer
    assert tokenizer.chat_templates == ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
    assert (tokenizer.model, tokenizer.pre, tokenizer.n_tokens) == ("gpt2", None, 64)


def test_an_impossible_value_is_named(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", kv={"llama.block_count": 4_000_000_000})
    with pytest.raises(FormatError, match=r"llama\.block_count"):
        inspected(path)


def test_tensors_only_when_asked_for() -> None:
    assert inspected(SHARDS[0]).tensors is None
    assert len(inspected(SHARDS[0], tensors="").tensors) == 57
    names = {row.name for row in inspected(SHARDS[0], tensors="output*").tensors}
    assert names == {"output.weight", "output_norm.weight"}


def test_warnings_of_a_set_name_the_shard(tmp_path: Path) -> None:
    paths = make_shards(make_gguf(tmp_path / "m.gguf"), tmp_path / "set", max_tensors=8)
    with paths[-1].open("ab") as file:
        file.write(b"junk")
    found = inspected(paths[0])
    (warning,) = found.warnings
    assert paths[-1].name in warning and "behind the data" in warning
    assert found.warnings == warnings_of(load_headers(str(paths[0])).headers)


def test_the_merged_file_beside_its_folder_stands_for_the_set(tmp_path: Path) -> None:
    """Naming the folder must not end in "no model", as it once did."""
    folder = tmp_path / "Tiny-Test-Q4_K_M"
    folder.mkdir()
    for path in SHARDS:
        shutil.copy(path, folder)
    beside = merged(tmp_path / "Tiny-Test-Q4_K_M.gguf", keep_split_keys=False)
    assert find_model(str(folder)).files == (beside,)
    assert find_model(None, cwd=tmp_path).files == (beside,)
    assert len(find_model(str(folder), shards=True).files) == 5
    beside.unlink()
    assert len(find_model(str(folder)).files) == 5


# ---- keys ----


def test_long_arrays_are_left_out_until_asked_for(tmp_path: Path) -> None:
    kv = {"general.tags": ["a"] * FEW_ELEMENTS, "general.more": ["b"] * (FEW_ELEMENTS + 1)}
    path = make_gguf(tmp_path / "m.gguf", kv=kv)
    few = {entry.key: entry for entry in inspected(path).metadata}
    assert few["general.tags"].value == ["a"] * FEW_ELEMENTS
    assert few["general.more"].value is None
    assert few["general.more"].n_elements == FEW_ELEMENTS + 1
    assert few["general.more"].element_type is ValueType.STRING
    assert few["general.architecture"].n_elements is None
    everything = {entry.key: entry.value for entry in inspected(path, all_elements=True).metadata}
    assert everything["general.more"] == ["b"] * (FEW_ELEMENTS + 1)
    assert everything["tokenizer.ggml.tokens"] == [f"tok{i}" for i in range(64)]
    assert list(few) == list(everything) == list(open_header(path).kv)


def test_numbers_that_json_does_not_know_are_strings(tmp_path: Path) -> None:
    kv = {"x.nan": math.nan, "x.up": math.inf, "x.down": [-math.inf, 0.5]}
    header = open_header(make_gguf(tmp_path / "m.gguf", kv=kv))
    assert [find_entry(header, key).value for key in kv] == ["NaN", "Infinity", ["-Infinity", 0.5]]


def test_one_key_is_whole() -> None:
    header = open_header(SHARDS[0])
    tokens = find_entry(header, "tokenizer.ggml.tokens")
    assert (tokens.type, tokens.element_type, tokens.n_elements) == (ValueType.ARRAY, ValueType.STRING, 512)
    assert len(tokens.value) == 512
    assert find_entry(header, "general.architecture").value == "llama"


def test_an_unknown_key_has_a_near_one() -> None:
    with pytest.raises(NotFoundError, match=r"no key 'general\.nam'") as caught:
        find_entry(open_header(SHARDS[0]), "general.nam")
    assert caught.value.hint == "did you mean general.name?"
    assert caught.value.exit_code == 3


def test_keys_by_pattern() -> None:
    header = open_header(SHARDS[0])
    found = [entry.key for entry in entries(header, "tokenizer.*", limit=0)]
    assert found == [key for key in header.kv if key.startswith("tokenizer.")] != []
    assert [entry.key for entry in entries(header, "block_count")] == ["llama.block_count"]
    with pytest.raises(NotFoundError, match="no key fits"):
        entries(header, "zzz")


def test_a_hostile_pattern_stays_on_one_line() -> None:
    with pytest.raises(NotFoundError) as caught:
        entries(open_header(SHARDS[0]), "\x1b[31m" + "x" * 1000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 150


def test_the_template_is_given_as_it_is_and_never_rendered(tmp_path: Path) -> None:
    template = "{{ raise_exception('no') }}\n\t{% for m in messages %}\u3000{% endfor %}"
    header = open_header(make_gguf(tmp_path / "m.gguf", kv={"tokenizer.chat_template": template}))
    assert chat_template(header).value == template


@pytest.mark.parametrize(
    ("kv", "hint"),
    [
        ({}, None),
        (
            {"tokenizer.chat_template.rag": "x"},
            "there is a named one: --key tokenizer.chat_template.rag",
        ),
        ({"tokenizer.chat_template": 7}, None),
    ],
)
def test_no_template(tmp_path: Path, kv: dict[str, object], hint: str | None) -> None:
    header = open_header(make_gguf(tmp_path / "m.gguf", kv=kv))
    with pytest.raises(NotFoundError, match="no chat template") as caught:
        chat_template(header)
    assert caught.value.hint == hint


# ---- tensors ----


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("", True),
        ("attn_q", True),
        ("ATTN_Q", False),
        ("blk.3", True),
        ("blk.3.*", True),
        ("blk.?.attn_q.weight", True),
        ("blk.[12].*", False),
        ("attn_*", False),
    ],
)
def test_patterns(pattern: str, fits: bool) -> None:
    assert matches("blk.3.attn_q.weight", pattern) is fits


def test_tensors_say_where_their_data_are() -> None:
    rows = tensor_rows([open_header(path) for path in SHARDS], "blk.2.ffn_down")
    (row,) = rows
    assert (row.type, row.role, row.n_bytes) == (
        "Q6_K",
        "dense_ffn",
        row.shape[0] * row.shape[1] // 256 * 210,
    )
    header = open_header(SHARDS[row.shard - 1])
    tensor = next(t for t in header.tensors if t.name == row.name)
    assert row.file_offset == header.data_offset + tensor.offset
    assert row.file_offset + row.n_bytes <= header.file_size_bytes


def test_an_unknown_tensor_has_a_near_one() -> None:
    with pytest.raises(NotFoundError, match="no tensor fits 'atn_q'") as caught:
        tensor_rows([open_header(path) for path in SHARDS], "atn_q")
    assert caught.value.hint == "did you mean attn_q?"


def test_r1_as_a_set(tmp_path: Path) -> None:
    """The whole of R1 as one model: four shards of a 197 GB set, whose headers take 5 MB."""
    paths = r1_shards(tmp_path)
    found = inspected(paths[2])
    assert found.split.n_shards == len(paths) == 4
    assert (found.model.architecture, found.model.file_type) == ("deepseek2", "IQ2_XXS")
    assert (found.model.n_layers, found.model.context_length_tokens) == (61, 163_840)
    assert found.model.experts is not None
    assert (found.model.experts.n_experts, found.model.experts.n_used) == (256, 8)
    assert found.imatrix == Imatrix("DeepSeek-R1.imatrix", None, 720, 124)
    assert found.tokenizer.n_tokens == 129_280
    assert {row.shard for row in tensor_rows(load_headers(str(paths[0])).headers, "exps")} == {1, 2, 3, 4}
