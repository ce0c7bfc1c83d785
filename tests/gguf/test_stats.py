"""What tensors add up to, held against the gguf package and against R1's published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader
from gguf.constants import MODEL_TENSOR, TENSOR_NAMES

from ggufkit.gguf.header import Header
from ggufkit.gguf.model import model_info
from ggufkit.gguf.reader import read_header
from ggufkit.gguf.stats import Statistics, block_of, role_of, statistics
from ggufkit.transfer.sources import open_header
from tests.support.ggufs import TensorSpec, gguf_bytes, r1_shaped, r1_shards
from tests.support.r1 import r1_tensors

SHARDS = sorted((Path(__file__).parents[1] / "data" / "shards").glob("*.gguf"))
R1_PARAMETERS = 671_026_419_200
"""Without the MTP block; DeepSeek-V3's report (arXiv 2412.19437) says 671B in all, 37B active."""


def header_of(tensors: list[TensorSpec], **keys: object) -> Header:
    kv = {f"toy.{name}": value for name, value in keys.items()}
    data = gguf_bytes(arch="toy", tensors=tensors, kv=kv)
    return read_header(data, name="toy.gguf", file_size_bytes=len(data))


def statistics_of(*headers: Header) -> Statistics:
    return statistics(headers, model_info(headers))


def test_sums_are_those_of_the_gguf_package() -> None:
    found = statistics_of(*[open_header(path) for path in SHARDS])
    tensors = [tensor for path in SHARDS for tensor in GGUFReader(path).tensors]
    n_parameters, n_bytes = sum(int(t.n_elements) for t in tensors), sum(int(t.n_bytes) for t in tensors)
    assert found.n_bytes == n_bytes
    assert found.bits_per_weight == pytest.approx(n_bytes * 8 / n_parameters)
    assert {share.name: share.n_tensors for share in found.by_type} == {
        name: sum(t.tensor_type.name == name for t in tensors) for name in ("Q4_K", "Q6_K", "F32")
    }
    for shares in (found.by_type, found.by_role):
        assert sum(share.n_bytes for share in shares) == n_bytes
        assert sum(share.n_parameters for share in shares) == n_parameters
        assert sum(share.n_tensors for share in shares) == len(tensors)


def test_a_type_has_its_own_bits_per_weight() -> None:
    found = statistics_of(*[open_header(path) for path in SHARDS])
    assert [share.name for share in found.by_type] == ["Q4_K", "Q6_K", "F32"], "most bytes first"
    assert [share.bits_per_weight for share in found.by_type] == [4.5, 6.5625, 32.0]
    assert [share.types for share in found.by_type] == [("Q4_K",), ("Q6_K",), ("F32",)]


def test_r1_has_its_published_sizes(tmp_path: Path) -> None:
    found = statistics_of(open_header(r1_shaped(tmp_path / "r1.gguf")))
    roles = {share.name: share for share in found.by_role}
    assert list(roles) == [
        "embedding", "attention", "dense_ffn", "experts", "shared_experts", "router", "norms", "output",
    ]  # fmt: skip
    assert sum(share.n_parameters for share in found.by_role) == R1_PARAMETERS
    assert roles["experts"].n_parameters == 58 * 256 * 3 * 7168 * 2048
    assert roles["shared_experts"].n_parameters == 58 * 3 * 7168 * 2048
    assert roles["dense_ffn"].n_parameters == 3 * 3 * 7168 * 18_432
    assert roles["router"].n_parameters == 58 * (256 * 7168 + 256)
    assert roles["experts"].types == ("IQ2_XXS", "Q2_K")
    assert found.n_active_parameters == R1_PARAMETERS - 58 * (256 - 8) * 3 * 7168 * 2048
    assert round(found.n_active_parameters / 1e9) in (37, 38)
    assert found.bits_per_weight == pytest.approx(2.34, abs=0.01)


def test_shards_add_up_to_the_whole(tmp_path: Path) -> None:
    whole = statistics_of(open_header(r1_shaped(tmp_path / "r1.gguf")))
    shards = [open_header(path) for path in r1_shards(tmp_path / "shards")]
    assert len(shards) == 4
    assert statistics_of(*shards) == whole


def test_blocks_are_in_order_and_tensors_outside_are_in_none(tmp_path: Path) -> None:
    found = statistics_of(open_header(r1_shaped(tmp_path / "r1.gguf")))
    assert [share.name for share in found.by_block] == [f"blk.{i}" for i in range(61)]
    outside = ("token_embd.weight", "output_norm.weight", "output.weight")
    sizes = {name: shape for name, shape, _ in r1_tensors() if name in outside}
    left = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes.values())
    assert sum(share.n_parameters for share in found.by_block) == R1_PARAMETERS - left
    assert {share.n_tensors for share in found.by_block[:3]} == {12}
    assert {share.n_tensors for share in found.by_block[3:]} == {17}


def test_encoder_and_decoder_blocks_are_apart() -> None:
    names = ["enc.blk.1.attn_q", "dec.blk.10.attn_q", "dec.blk.2.attn_q", "v.blk.0.ffn_up", "enc.output_norm"]
    found = statistics_of(header_of([(f"{name}.weight", (32,), "F32") for name in names]))
    assert [share.name for share in found.by_block] == ["dec.blk.2", "dec.blk.10", "enc.blk.1", "v.blk.0"]


def test_a_dense_model_has_no_active_parameters() -> None:
    assert statistics_of(*[open_header(path) for path in SHARDS]).n_active_parameters is None


def test_experts_of_unknown_use_have_no_active_parameters() -> None:
    header = header_of([("blk.0.ffn_up_exps.weight", (32, 32, 4), "F32")], block_count=1, expert_count=4)
    assert statistics_of(header).n_active_parameters is None


def test_experts_in_tensors_of_their_own_count_by_their_share() -> None:
    """Mixtral's first GGUFs had one tensor for each expert (llama.cpp before PR #6387)."""
    tensors: list[TensorSpec] = [(f"blk.0.ffn_up.{i}.weight", (32, 8), "F32") for i in range(8)]
    tensors.append(("blk.0.attn_q.weight", (32, 32), "F32"))
    header = header_of(tensors, block_count=1, expert_count=8, expert_used_count=2)
    found = statistics_of(header)
    assert found.n_active_parameters == 2 * 32 * 8 + 32 * 32
    assert [share.name for share in found.by_role] == ["attention", "experts"]


def test_never_more_experts_are_used_than_a_tensor_holds() -> None:
    """GroveMoE has half as many chunk experts as experts."""
    tensors: list[TensorSpec] = [
        ("blk.0.ffn_up_exps.weight", (32, 4, 8), "F32"),
        ("blk.0.ffn_up_chexps.weight", (32, 4, 2), "F32"),
    ]
    header = header_of(tensors, block_count=1, expert_count=8, expert_used_count=4)
    assert statistics_of(header).n_active_parameters == 32 * 4 * 4 + 32 * 4 * 2


def test_blocks_for_further_tokens_are_not_active() -> None:
    tensors: list[TensorSpec] = [
        (f"blk.{i}.{name}", shape, "F32")
        for i in range(2)
        for name, shape in (("attn_q.weight", (32, 32)), ("ffn_up_exps.weight", (32, 4, 8)))
    ]
    keys = {"block_count": 2, "expert_count": 8, "expert_used_count": 2}
    both = statistics_of(header_of(tensors, **keys)).n_active_parameters
    one = statistics_of(header_of(tensors, **keys, nextn_predict_layers=1)).n_active_parameters
    assert (both, one) == (2 * (1024 + 256), 1024 + 256)


def test_no_tensors_have_no_bits_per_weight() -> None:
    found = statistics_of(header_of([]))
    assert found == Statistics(0, None, None, (), (), ())


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("token_embd.weight", "embedding"),
        ("token_embd_norm.weight", "norms"),
        ("per_layer_token_embd.weight", "embedding"),
        ("blk.0.attn_norm.weight", "norms"),
        ("blk.0.attn_q.bias", "attention"),
        ("blk.0.attn_kv_a_mqa.weight", "attention"),
        ("blk.0.indexer.proj.weight", "attention"),
        ("blk.0.ffn_gate.weight", "dense_ffn"),
        ("blk.0.ffn_gate_inp.weight", "router"),
        ("blk.0.ffn_gate_inp_shexp.weight", "router"),
        ("blk.0.exp_probs_b.bias", "router"),
        ("blk.0.ffn_gate_up_exps.weight", "experts"),
        ("blk.0.ffn_down_shexp.weight", "shared_experts"),
        ("blk.0.ffn_norm_exps.weight", "norms"),
        ("blk.0.ssm_conv1d.weight", "recurrent"),
        ("blk.0.ssm_norm.weight", "norms"),
        ("blk.0.time_mix_key.weight", "recurrent"),
        ("blk.0.channel_mix_key.weight", "dense_ffn"),
        ("blk.0.shortconv.in_proj.weight", "recurrent"),
        ("blk.0.nextn.shared_head_head.weight", "output"),
        ("v.blk.0.ln1.weight", "norms"),
        ("v.patch_embd.weight", "embedding"),
        ("mm.0.weight", "other"),
        ("output.weight", "output"),
        ("output_norm.weight", "norms"),
        ("rope_freqs.weight", "other"),
        ("whatever", "other"),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name) == role


def _of_package(*parts: str) -> list[str]:
    members = [m for m in MODEL_TENSOR if any(part in m.name for part in parts)]
    assert members
    return [TENSOR_NAMES[m].format(bid=7) + ".weight" for m in members]


@pytest.mark.parametrize(
    ("parts", "roles"),
    [
        (("FFN_GATE_EXP", "FFN_UP_EXP", "FFN_DOWN_EXP", "FFN_GATE_UP_EXP", "CHEXP"), {"experts"}),
        (("GATE_SHEXP", "UP_SHEXP", "DOWN_SHEXP"), {"shared_experts"}),
        (("FFN_GATE_INP", "EXP_PROBS"), {"router"}),
        (("NORM",), {"norms"}),
        (("ATTN",), {"attention", "norms"}),
        (("SSM", "TIME_MIX", "SHORTCONV"), {"recurrent", "norms"}),
        (("TOKEN_EMBD",), {"embedding", "norms"}),
    ],
)
def test_every_name_of_the_gguf_package_has_its_role(parts: tuple[str, ...], roles: set[str]) -> None:
    """The package's own identifiers say what a tensor is; a new name must not fall through."""
    odd = {name: role_of(name) for name in _of_package(*parts) if role_of(name) not in roles}
    assert not odd


def test_every_block_of_the_gguf_package_is_seen() -> None:
    names = [name.format(bid=7) for name in TENSOR_NAMES.values() if ".blk.{bid}." in f".{name}"]
    assert len(names) > 150
    assert {block_of(name) for name in names} <= {
        "blk.7", "enc.blk.7", "dec.blk.7", "v.blk.7", "a.blk.7", "v.sam.blk.7",
    }  # fmt: skip
    assert [block_of(name) for name in ("output.weight", "blk.x.ffn_up", "blk.7", "rope_freqs.weight")] == [
        None
    ] * 4
