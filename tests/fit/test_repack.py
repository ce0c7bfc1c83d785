"""What the CPU rearranges: against llama.cpp's buffer CPU_REPACK on AVX-512, and the rules of other CPUs."""

from __future__ import annotations

import json

import pytest

from ggufkit.fit.estimate import FitSettings, Offload
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.repack import Isa, is_rearranged, isa_of, rearranged_bytes
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import model_info
from tests.fit.facts import DATA, truth_header
from tests.support.ggufs import tensor_infos

GIB = 1 << 30
MEASURED: dict[str, int] = json.loads((DATA / "fit_devices.json").read_text())["rearranged_bytes"]


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_what_is_rearranged_is_exact(name: str) -> None:
    header = truth_header(name)
    found = estimate_memory(model_info([header]), header.tensors, FitSettings(512))
    assert found.rearranged_bytes == MEASURED[name]


def tensor(type_name: str, n_rows: int = 512, name: str = "blk.0.attn_q.weight", *more: int) -> TensorInfo:
    (info,) = tensor_infos([(name, (256, n_rows, *more), type_name)])
    return info


@pytest.mark.parametrize(
    ("isa", "types"),
    [
        ("avx512", "Q4_0 Q4_K Q2_K IQ4_NL MXFP4"),
        ("avx2", "Q4_0 Q4_K IQ4_NL MXFP4"),
        ("neon", "Q4_0 Q4_K Q5_K Q6_K IQ4_NL MXFP4 Q8_0"),
        ("amx", "Q4_0 Q4_1 Q8_0 Q4_K Q5_K Q6_K IQ4_XS F16 Q2_K IQ4_NL MXFP4"),
        ("none", ""),
    ],
)
def test_each_cpu_has_its_types(isa: Isa, types: str) -> None:
    every = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ2_XXS IQ4_NL IQ4_XS MXFP4"
    assert {t for t in every.split() if is_rearranged(tensor(t), isa)} == set(types.split())


def test_rows_have_to_be_a_multiple() -> None:
    assert not is_rearranged(tensor("Q4_K", 4), "avx2")
    assert is_rearranged(tensor("Q8_0", 4), "neon")
    assert not is_rearranged(tensor("Q6_K", 16), "amx")


def test_amx_leaves_experts_to_the_other_rules() -> None:
    experts = tensor("Q6_K", 512, "blk.0.ffn_up_exps.weight", 8)
    assert not is_rearranged(experts, "amx")
    assert is_rearranged(tensor("Q4_K", 512, "blk.0.ffn_up_exps.weight", 8), "amx")


def test_what_is_looked_up_in_stays_unless_it_is_the_output() -> None:
    embedding = tensor("Q4_K", 512, "token_embd.weight")
    assert not is_rearranged(embedding, "avx2")
    assert is_rearranged(embedding, "avx2", as_output=True)
    assert rearranged_bytes([embedding], "avx2") == 0


def test_a_tied_embedding_is_exact_where_it_was_measured() -> None:
    header = truth_header("gemma3-27b-q4km")
    info = model_info([header])
    terms = {
        isa: [t for t in estimate_memory(info, header.tensors, settings).terms if t.name == "embedding copy"]
        for isa, settings in ((isa, FitSettings(512, isa=isa)) for isa in ("avx512", "avx2", "none"))
    }
    assert [term.certainty for term in terms["avx512"] + terms["avx2"]] == ["exact", "approximate"]
    assert not terms["none"]


def test_what_is_on_a_gpu_is_not_rearranged() -> None:
    header = truth_header("llama3.1-8b-q4km")
    info = model_info([header])
    found = estimate_memory(info, header.tensors, FitSettings(512, offload=Offload((GIB,))))
    assert found.rearranged_bytes == 0


@pytest.mark.parametrize(
    ("sets", "machine", "isa"),
    [
        (("AVX", "AVX2"), "x86_64", "avx2"),
        (("AVX2", "AVX-512", "AMX-INT8"), "x86_64", "amx"),
        (("AVX2", "AVX-512"), "x86_64", "avx512"),
        ((), "aarch64", "neon"),
        ((), "arm64", "neon"),
        (("AVX",), "x86_64", "none"),
        ((), "AMD64", "avx2"),
    ],
)
def test_the_cpu_is_known_by_its_instruction_sets(sets: tuple[str, ...], machine: str, isa: Isa) -> None:
    assert isa_of(sets, machine) == isa
