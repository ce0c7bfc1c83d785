"""Which quant of several: verdicts as fit has them for one, the choice by its rule, and few bytes read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import FormatError, NotFoundError
from ggufkit.fit.outlook import ModelSpeed, TokenReads
from ggufkit.fit.rig import Bandwidths
from ggufkit.fit.speed import FAMILIES
from ggufkit.verbs.fit import fit_model
from ggufkit.verbs.fit_machines import compare_machines
from ggufkit.verbs.fit_repo import QuantFit, RepoFit, choose, fit_repo
from ggufkit.verbs.locate import load_headers
from ggufkit.verbs.rigs import find_rigs
from ggufkit.verbs.several import find_several, read_several
from tests.support.ggufs import make_gguf
from tests.support.hub import REPO_ID, TestHub, run_hub
from tests.support.quants import QUANTS, r1_repo

GIB = 1 << 30
SOME = ("UD-IQ2_XXS", "UD-Q2_K_XL", "Q4_K_M", "Q8_0")
HEADERS_BYTES = 10_000_000


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("hub") / REPO_ID
    return folder, r1_repo(folder, SOME)


@pytest.fixture
def hub(
    repo: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestHub]:
    folder, digests = repo
    root = folder.parents[1]
    with run_hub(root, cdn=True, sha256s=digests, cache_folder=tmp_path / "cache") as hub:
        for name, value in {**hub.hf_env, **hub.ms_env}.items():
            monkeypatch.setenv(name, value)
        yield hub


def judged(where: str, *machines: str, **options: float) -> RepoFit:
    several = find_several(where)
    assert several is not None
    ram = options.pop("ram_bytes", None)
    rigs = find_rigs(machines, ram_bytes=None if ram is None else int(ram))
    return fit_repo(several, rigs, **options)  # type: ignore[arg-type]


def test_a_folder_of_quants_is_judged_as_each_by_itself(repo: tuple[Path, dict[str, str]]) -> None:
    (machine,) = judged(str(repo[0]), "z440-4ch").machines
    assert [quant.name for quant in machine.quants] == list(SOME)
    for quant in machine.quants:
        loaded = load_headers(str(repo[0] / f"DeepSeek-R1-{quant.name}"))
        alone = fit_model(loaded.headers, rig=machine.rig)
        assert (quant.file_bytes, quant.n_files) == (loaded.n_bytes, len(loaded.headers))
        assert (quant.level, quant.needed_bytes) == (alone.verdict.level, alone.verdict.needed_bytes)
        assert quant.speed == alone.speed
        fitting = [row.context_tokens for row in alone.contexts if row.level == "fits"]
        assert quant.largest_context_tokens == max(fitting, default=None)
    assert [quant.level for quant in machine.quants] == ["fits", "fits", "pages", "pages"]
    assert machine.best == "UD-Q2_K_XL"
    assert machine.reason == "the most bits a weight (2.7) of 2 that fit"


@pytest.mark.parametrize("source", ["hf:", "ms:"])
def test_a_repo_s_headers_are_read_by_range(hub: TestHub, source: str) -> None:
    fit = judged(source + REPO_ID, "z440-1ch", "xuanwu")
    small, large = fit.machines
    assert (fit.name, fit.where, fit.context_is_default) == (REPO_ID, hub.url, True)
    assert (small.best, large.best) == (None, "Q8_0")
    assert small.reason.startswith("none fits: the smallest, UD-IQ2_XXS, takes 169.")
    assert [quant.name for quant in small.quants] == [quant.name for quant in large.quants]
    sent = hub.sent_bytes(plane="cdn")
    assert 5_000_000 < sent < HEADERS_BYTES  # one vocabulary of 4.8 MB, of four


def test_one_quant_or_a_file_or_a_gone_one_is_none_of_this_module_s(
    hub: TestHub, repo: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    assert find_several(None) is None
    assert find_several(f"{REPO_ID}:Q8_0") is None
    assert find_several(str(repo[0] / "DeepSeek-R1-Q8_0")) is None
    assert find_several(str(tmp_path / "gone.gguf")) is None
    with pytest.raises(NotFoundError):
        find_several("nobody/nothing")


def test_what_can_t_be_judged_says_why_and_the_rest_is_judged(
    repo: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    make_gguf(tmp_path / "Tiny-Q4_0.gguf")
    make_gguf(tmp_path / "Tiny-Q8_0.gguf", kv={"general.type": "adapter"})
    make_gguf(tmp_path / "Tiny-F16.gguf", kv={"llama.block_count": 4_000_000_000})
    (tmp_path / "Tiny-BF16.gguf").write_bytes(b"GGUF but no more")
    (tmp_path / "part").mkdir()
    shutil.copy(make_gguf(tmp_path / "x" / "x.gguf"), tmp_path / "part" / "Tiny-Q5_0-00001-of-00002.gguf")
    shutil.rmtree(tmp_path / "x")
    (machine,) = judged(str(tmp_path), ram_bytes=8 * GIB).machines
    problems = {quant.name: quant.problem for quant in machine.quants}
    assert problems.pop("Q4_0") is None
    assert "adapter" in (problems.pop("Q8_0") or "")
    assert "llama.block_count" in (problems.pop("F16") or "")
    assert problems.pop("BF16")
    assert problems.pop("Q5_0") == "1 of 2 files are missing"
    assert not problems
    assert machine.best == "Q4_0"


def test_two_of_one_label_are_called_by_their_files(tmp_path: Path) -> None:
    for name in ("One-Q4_0", "Two-Q4_0", "Two-Q8_0"):
        make_gguf(tmp_path / f"{name}.gguf")
    several = find_several(str(tmp_path))
    assert several is not None
    assert sorted(c.name for c in several.candidates) == ["One-Q4_0", "Q8_0", "Two-Q4_0"]


def test_a_header_that_is_refused_stops_nobody_else(tmp_path: Path) -> None:
    for name in ("A-Q4_0", "A-Q8_0"):
        make_gguf(tmp_path / f"{name}.gguf")
    several = find_several(str(tmp_path))
    assert several is not None

    def broken() -> None:
        raise FormatError("it", "is broken")

    first, second = several.candidates
    found = list(read_several([replace(first, readers=(broken,)), second]))  # type: ignore[arg-type]
    assert [candidate.problem for candidate, _ in found] == ["it: is broken", None]
    assert [len(headers) for _, headers in found] == [0, 1]


# The choice


def quant(name: str, bits: float, tokens_per_s: float | None = 5.0, level: str = "fits") -> QuantFit:
    reads = TokenReads(1, 0, moe=False, slow_share=0.0)
    speed = None
    if tokens_per_s is not None:
        low, high = tokens_per_s / 2, tokens_per_s * 2
        given = Bandwidths(1e9, "given")
        speed = ModelSpeed(low, tokens_per_s, high, "formula", "", reads, given, next(iter(FAMILIES)), ())
    needed = int(bits * GIB)
    return QuantFit(name, name, 1, needed, 8 * GIB, bits, level, 4096, needed, 4096, speed, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quants", "best", "reason"),
    [
        ([quant("a", 2), quant("b", 4), quant("c", 6, level="tight")], "b", "most bits a weight (4.0) of 2"),
        ([quant("a", 2), quant("b", 4, 0.5)], "a", "(2.0) of the one that fits with 1 tokens/s or more"),
        ([quant("a", 2, 0.6), quant("b", 4, 0.5)], "a", "the fastest of 2 that fit; all are below 1 tok"),
        ([quant("a", 6.6), quant("b", 8.5), quant("c", 16)], "b", "more bits gain nothing that shows"),
        ([quant("c", 16)], "c", "the most bits a weight (16.0) of the one that fits"),
        ([quant("a", 2, None), quant("b", 4, None)], "b", "the most bits"),
        ([quant("a", 2, level="no"), quant("b", 4, level="pages")], None, "none fits: the smallest, a,"),
        ([], None, "none could be judged"),
    ],
)
def test_the_choice(quants: list[QuantFit], best: str | None, reason: str) -> None:
    found, why = choose(quants)
    assert (found.name if found else None) == best
    assert reason in why


def test_another_model_in_the_repo_is_not_chosen() -> None:
    other = replace(quant("other", 8), n_parameters=GIB)
    found, _ = choose([quant("a", 2), other])
    assert found is not None and found.name == "a"


def test_what_is_usable_is_the_user_s_to_say() -> None:
    quants = [quant("a", 2, 8.0), quant("b", 4, 4.0)]
    assert [choose(quants, least)[0].name for least in (1, 5, 100)] == ["b", "a", "a"]  # type: ignore[union-attr]


# Machines side by side


def test_one_model_on_several_machines(repo: tuple[Path, dict[str, str]]) -> None:
    loaded = load_headers(str(repo[0] / "DeepSeek-R1-UD-IQ2_XXS"))
    rigs = find_rigs(("z440-1ch", "z440-4ch", "xuanwu"))
    comparison = compare_machines(loaded.headers, rigs, name=loaded.name, context_tokens=8192)
    assert [one.rig for one in comparison.machines] == list(rigs)
    assert [one.level for one in comparison.machines] == ["pages", "fits", "fits"]
    assert (comparison.name, comparison.context_tokens) == (loaded.name, 8192)
    speeds = [one.speed.tokens_per_s for one in comparison.machines if one.speed]
    assert len(speeds) == 3 and speeds == sorted(speeds)
    assert all(name in QUANTS for name in SOME)
