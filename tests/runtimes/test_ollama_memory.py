"""The context and the mapping that Ollama is told, by the memory of the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import UsageError
from ggufkit.fit.machine import Machine
from ggufkit.gguf.model import model_info
from ggufkit.runtimes.ollama_memory import MemoryChoice, choose_memory
from ggufkit.transfer.sources import open_header
from tests.support.ggufs import make_gguf, r1_shaped

GIB = 1 << 30


def choose(path: Path, ram_gib: int, *, version: str = "0.33.0", asked: int | None = None) -> MemoryChoice:
    header = open_header(path)
    machine = Machine(ram_gib * GIB, (ram_gib - 4) * GIB, "system")
    info = model_info([header])
    return choose_memory(
        info, header.tensors, header.file_size_bytes, machine, version=version, asked_tokens=asked
    )


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeepSeek-R1 UD-IQ2_XXS as of January 2025: 184 GiB, 4.8 MiB of KV cache a token."""
    return r1_shaped(tmp_path_factory.mktemp("r1") / "r1.gguf")


@pytest.fixture(scope="module")
def r1_mla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with split attention: 130 KiB a token."""
    return r1_shaped(tmp_path_factory.mktemp("r1") / "r1-mla.gguf", mla=True)


def test_the_longest_context_that_leaves_the_model_in_memory(r1: Path, r1_mla: Path) -> None:
    assert choose(r1, 512).parameters == {"num_ctx": 8192}
    assert choose(r1, 216).num_ctx in (2048, 4096)
    assert choose(r1_mla, 256).parameters == {"num_ctx": 8192}


def test_a_model_larger_than_free_memory_is_mapped(r1: Path, r1_mla: Path) -> None:
    """Ollama 0.30 and later would read all of it into memory, and be killed."""
    chosen = choose(r1_mla, 128)
    assert chosen.parameters == {"num_ctx": 8192, "use_mmap": True}
    assert "128.0 GiB" in str(chosen.why)
    assert "mapped" in str(chosen.why)
    assert choose(r1, 128).parameters == {"num_ctx": 2048, "use_mmap": True}, (
        "40 GiB would be left to weights"
    )


def test_old_versions_take_a_context_for_each_of_four_texts(r1: Path) -> None:
    new, old = choose(r1, 320), choose(r1, 320, version="0.5.4")
    assert new.num_ctx is not None
    assert old.num_ctx is not None
    assert old.num_ctx < new.num_ctx
    assert choose(r1, 320, version="0.0.0-dev") == new, "a build that does not say"


def test_what_is_asked_for_is_taken(r1: Path, tmp_path: Path) -> None:
    assert choose(r1, 512, asked=1234).num_ctx == 1234
    assert choose(r1, 512, asked=0).num_ctx == 163_840, "the model's own"
    (doubt,) = choose(r1, 512, asked=0).warnings
    assert "more memory than this machine has" in doubt
    tiny = make_gguf(tmp_path / "tiny.gguf", kv={"llama.context_length": 512})
    assert choose(tiny, 8).num_ctx == 512
    assert "has 512 tokens" in choose(tiny, 8, asked=1024).warnings[0]


def test_an_unknown_machine_is_told_nothing_of(r1: Path) -> None:
    header = open_header(r1)
    info = model_info([header])
    assert choose_memory(info, header.tensors, 1, None).parameters == {}
    assert choose_memory(info, header.tensors, 1, None, asked_tokens=4096).parameters == {"num_ctx": 4096}


def test_a_model_that_does_not_say_its_context(r1: Path) -> None:
    header = open_header(r1)
    info = replace(model_info([header]), context_length_tokens=None)
    with pytest.raises(UsageError, match="does not say") as refusal:
        choose_memory(info, header.tensors, 1, None, asked_tokens=0)
    assert "--ctx-size 8192" in str(refusal.value.hint)
