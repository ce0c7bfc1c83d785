"""Names of files: the quant, the model, raw parts."""

from __future__ import annotations

import pytest

from ggufkit.hubs import labels
from ggufkit.hubs.labels import RawPart, parse_raw_part
from tests.hubs.real import NAMES, SETS


def stem_of(path: str) -> str:
    from ggufkit.gguf.shards import parse_shard_name

    name = path.rpartition("/")[2]
    shard, part = parse_shard_name(name), parse_raw_part(name)
    return shard.prefix if shard else (part.file_name if part else name).removesuffix(".gguf")


@pytest.mark.parametrize(("path", "quant"), [(path, s.quant) for s in SETS for path in s.files])
def test_every_real_name_gives_its_quant(path: str, quant: str) -> None:
    assert labels.read_label(path.rpartition("/")[0], stem_of(path)).quant == quant


@pytest.mark.parametrize(("path", "quant", "model"), NAMES)
def test_publishers_ways_to_name(path: str, quant: str, model: str) -> None:
    label = labels.read_label(path.rpartition("/")[0], stem_of(path))
    assert (label.quant, label.model) == (quant, model)


@pytest.mark.parametrize(
    ("folder", "stem", "quant", "model"),
    [
        ("", "Model-Q2_K", "Q2_K", "Model"),
        ("", "Model-Q2_K_L", "Q2_K_L", "Model"),
        ("", "Model-UD-Q2_K_XL", "UD-Q2_K_XL", "Model"),
        ("", "model_7b_Q4_K_M", "Q4_K_M", "model_7b"),
        ("", "Model-Q4_0_4_8", "Q4_0_4_8", "Model"),
        ("", "gpt-oss-20b-MXFP4_MOE", "MXFP4_MOE", "gpt-oss-20b"),
        ("", "Model-TQ1_0", "TQ1_0", "Model"),
        ("", "Model-IQ4_KSS", "IQ4_KSS", "Model"),
        ("", "Model-Q4_K_M-imatrix", "Q4_K_M", "Model"),
        ("", "Model-Q4_K_M_imatrix", "Q4_K_M", "Model"),
        ("", "Model.fp16", "FP16", "Model"),
        ("", "Qwen3-8B", "Qwen3-8B", "Qwen3-8B"),  # Q and a digit must stand alone
        ("", "QwQ-32B", "QwQ-32B", "QwQ-32B"),
        ("", "Q4_K_M", "Q4_K_M", ""),
        ("UD-Q4_K_XL", "model", "UD-Q4_K_XL", "model"),
        ("gguf/UD-Q4_K_XL/x", "model", "UD-Q4_K_XL", "model"),
        ("UD-Q2_K_XL", "Model-Q2_K_XL", "UD-Q2_K_XL", "Model"),
        ("Q4", "Model-Q4_K_M", "Q4_K_M", "Model"),  # a folder for 4-bit files
        ("Q2_K_L", "Model-Q2_K_XL", "Q2_K_XL", "Model"),  # renamed: never taken for the folder's quant
        ("Model-Q8_0", "Model-BF16-256x20B-Q8_0", "Q8_0", "Model"),
        ("BF16", "Model-BF16-256x20B-Q8_0", "BF16", "Model"),
        ("", "Model-BF16-256x20B-Q8_0", "Q8_0", "Model"),
    ],
)
def test_quant_and_model(folder: str, stem: str, quant: str, model: str) -> None:
    assert labels.read_label(folder, stem) == labels.Label(quant, model)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("grok-1.i1-IQ1_M.gguf.part1of2", RawPart("grok-1.i1-IQ1_M.gguf", 1, 2)),
        ("m.gguf.part10of11", RawPart("m.gguf", 10, 11)),
        ("falcon-180b.Q2_K.gguf-split-a", RawPart("falcon-180b.Q2_K.gguf", 1, None)),
        ("TheProfessor-155b.i1-Q2_K.gguf.split-ab", RawPart("TheProfessor-155b.i1-Q2_K.gguf", 2, None)),
        ("qwen1.5-72b-chat-q5_k_m.gguf.b", RawPart("qwen1.5-72b-chat-q5_k_m.gguf", 2, None)),
        ("gemma-3-270m-q4_k_m.gguf.part00", RawPart("gemma-3-270m-q4_k_m.gguf", 0, None)),
        ("m.gguf.partab", RawPart("m.gguf", 2, None)),
        ("m.gguf.aa", RawPart("m.gguf", 1, None)),
        ("m.gguf.ba", None),  # two letters without a word before them may be anything
        ("m.gguf.gz", None),
        ("m.gguf.001", RawPart("m.gguf", 1, None)),
        ("m.gguf", None),
        ("m-00001-of-00002.gguf", None),
        ("m.gguf.part", None),
        ("m.gguf.sha256", None),
        ("part1of2", None),
        ("m.gguf.part１of２", None),  # digits of another script
    ],
)
def test_raw_parts(name: str, part: RawPart | None) -> None:
    assert parse_raw_part(name) == part


@pytest.mark.parametrize(
    ("repo_id", "model"),
    [
        ("unsloth/DeepSeek-R1-GGUF", "DeepSeek-R1"),
        ("unsloth/DeepSeek-V3-0324-GGUF-UD", "DeepSeek-V3-0324"),
        ("mradermacher/grok-1-i1-GGUF", "grok-1"),
        ("dranger003/c4ai-command-r-plus-iMat.GGUF", "c4ai-command-r-plus"),
        ("owner/Plain", "Plain"),
    ],
)
def test_the_model_a_repo_is_named_after(repo_id: str, model: str) -> None:
    assert labels.model_of_repo(repo_id) == model


def test_names_compare_without_separators_and_case() -> None:
    assert labels.quant_key("ud-iq2.xxs") == labels.quant_key("UD_IQ2_XXS")
    assert labels.quant_key("FP16") == labels.quant_key("f16")
    assert labels.quant_key("Q2_K") != labels.quant_key("Q2_K_L")
    assert labels.bare_quant("UD-IQ2_XXS") == labels.bare_quant("iq2_xxs")
    assert labels.model_key("ggml-C4AI_command.r") == labels.model_key("c4ai-command-r")
