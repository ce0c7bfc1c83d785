"""Which files a quant's name means: every real repo, and every trap met in their history."""

from __future__ import annotations

import time

import pytest

from ggufkit.errors import NotFoundError
from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.quants import Quant, QuantError, find_quants, pick_quant
from tests.hubs.real import R1, SETS, RealSet, remote, repo_files

V3 = "unsloth/DeepSeek-V3-0324-GGUF"


def shards(prefix: str, total: int, *numbers: int) -> list[str]:
    return [f"{prefix}-{n:05d}-of-{total:05d}.gguf" for n in numbers or range(1, total + 1)]


def pick(repo_id: str, paths: list[str], asked: str | None) -> Quant:
    return pick_quant(find_quants(repo_id, remote(*paths)), asked, repo_id)


def refusal(repo_id: str, paths: list[str], asked: str | None) -> QuantError:
    with pytest.raises(QuantError) as caught:
        pick(repo_id, paths, asked)
    return caught.value


# --- real repos ---


@pytest.mark.parametrize("real", SETS, ids=lambda s: f"{s.repo}:{s.quant}")
def test_every_real_quant_is_picked_among_all_of_its_repo(real: RealSet) -> None:
    quant = pick(real.repo, list(repo_files(real.repo)), real.quant)
    assert tuple(file.path for file in quant.files) == real.whole()
    assert quant.name == real.quant
    assert quant.missing == ()
    assert quant.n_shards == len(quant.files)


@pytest.mark.parametrize("real", [s for s in SETS if s.whole()[1:]], ids=lambda s: f"{s.repo}:{s.quant}")
def test_a_real_quant_without_one_of_its_shards_is_refused(real: RealSet) -> None:
    paths = [path for path in repo_files(real.repo) if path != real.whole()[0]]
    error = refusal(real.repo, paths, real.quant)
    assert "is not whole" in error.message
    assert f" 1 of {len(real.whole())} of " in error.message


def test_the_table_of_a_real_repo() -> None:
    names = [quant.name for quant in find_quants(R1, remote(*repo_files(R1)))]
    assert sorted(names) == sorted(dict.fromkeys(s.quant for s in SETS if s.repo == R1))


# --- whole words ---


def test_a_name_is_never_found_in_a_longer_one() -> None:
    everything = [f"M-{q}.gguf" for q in ("Q2_K_L", "Q2_K_XS", "UD-Q2_K_XL", "UD-IQ1_S", "Q2_K", "IQ1_S")]
    assert pick("o/M-GGUF", everything, "Q2_K").files[0].path == "M-Q2_K.gguf"
    assert pick("o/M-GGUF", everything, "IQ1_S").files[0].path == "M-IQ1_S.gguf"
    assert pick("o/M-GGUF", everything, "UD-IQ1_S").files[0].path == "M-UD-IQ1_S.gguf"
    error = refusal("o/M-GGUF", everything[:4], "Q2_K")
    assert error.message == "o/M-GGUF has no quant Q2_K"


def test_a_ud_quant_is_suggested_but_never_taken_for_the_plain_one() -> None:
    error = refusal(R1, shards("DeepSeek-R1-UD-IQ2_XXS/DeepSeek-R1-UD-IQ2_XXS", 4), "iq2_xxs")
    assert error.hint == "did you mean UD-IQ2_XXS? it has UD-IQ2_XXS"
    assert error.exit_code == 3
    assert isinstance(error, NotFoundError)
    assert [quant.name for quant in error.quants] == ["UD-IQ2_XXS"]


@pytest.mark.parametrize("asked", ["ud-iq2_xxs", "UD_IQ2_XXS", "UD-IQ2.XXS", "Ud-Iq2-Xxs"])
def test_case_and_separators_do_not_count(asked: str) -> None:
    assert pick(R1, list(repo_files(R1)), asked).name == "UD-IQ2_XXS"


def test_a_typing_error_gets_the_nearest_names() -> None:
    hint = refusal(R1, list(repo_files(R1)), "Q4_K_N").hint or ""
    assert hint.startswith("did you mean Q4_K_M")


def test_many_names_are_cut_short() -> None:
    paths = [f"M-Q{n}_K.gguf" for n in range(1, 30)]
    assert (refusal("o/M", paths, "zzz").hint or "").endswith("and 17 more")


@pytest.mark.parametrize("asked", ["", "/", "/UD", "README.md", "..", "gguf", ".gguf"])
def test_what_names_nothing(asked: str) -> None:
    assert "has no quant" in refusal(R1, [*repo_files(R1), "README.md"], asked).message


def test_control_characters_in_what_is_asked_are_escaped() -> None:
    assert "\x1b" not in refusal("o/M", ["M-Q4_K_M.gguf"], "\x1b[31m").message


def test_an_importance_matrix_prefix_may_be_left_out() -> None:
    assert pick("m/grok-1-i1-GGUF", ["grok-1.i1-IQ1_M.gguf"], "IQ1_M").name == "i1-IQ1_M"


# --- folders ---


def test_both_layouts_and_flat_files_beside_folders() -> None:
    paths = [
        *shards("DeepSeek-V3-0324-Q8_0/DeepSeek-V3-0324-Q8_0", 2),
        *shards("UD-IQ2_XXS/DeepSeek-V3-0324-UD-IQ2_XXS", 5),
        "DeepSeek-V3-0324-IQ1_S.gguf",
    ]
    assert pick(V3, paths, "Q8_0").folder == "DeepSeek-V3-0324-Q8_0"
    assert pick(V3, paths, "UD-IQ2_XXS").folder == "UD-IQ2_XXS"
    flat = pick(V3, paths, "IQ1_S")
    assert (flat.folder, flat.n_shards, flat.stem) == ("", 1, "DeepSeek-V3-0324-IQ1_S")


def test_the_folder_decides_between_two_quant_words_in_a_name() -> None:
    paths = shards("DeepSeek-V3-Q8_0/DeepSeek-V3-BF16-256x20B-Q8_0", 16)
    assert pick("unsloth/DeepSeek-V3-GGUF", paths, "Q8_0").n_shards == 16
    assert "no quant BF16" in refusal("unsloth/DeepSeek-V3-GGUF", paths, "BF16").message


def test_a_dot_before_the_quant() -> None:
    assert pick(R1, shards("DeepSeek-R1-Q8_0/DeepSeek-R1.Q8_0", 15), "Q8_0").model == "DeepSeek-R1"


def test_a_folder_without_a_quant_in_the_file_names() -> None:
    assert pick("o/M", shards("UD-Q4_K_XL/model", 3), "UD-Q4_K_XL").n_shards == 3


def test_a_folder_of_several_quants() -> None:
    paths = ["Q4/M-Q4_K_M.gguf", "Q4/M-Q4_K_S.gguf"]
    assert pick("o/M-GGUF", paths, "Q4_K_S").files[0].path == paths[1]
    assert "may be any of 2 sets" in refusal("o/M-GGUF", paths, "Q4/").message


# --- generations and mixed sets ---


def test_two_generations_in_one_folder_of_which_one_is_whole() -> None:
    prefix = "UD-IQ2_XXS/DeepSeek-V3-0324-UD-IQ2_XXS"
    paths = [*shards(prefix, 4, 2, 3), *shards(prefix, 5)]
    quant = pick(V3, paths, "UD-IQ2_XXS")
    assert [file.path for file in quant.files] == shards(prefix, 5)


def test_two_whole_generations_are_ambiguous_until_named_by_path() -> None:
    prefix = "UD-IQ2_XXS/DeepSeek-V3-0324-UD-IQ2_XXS"
    paths = [*shards(prefix, 4), *shards(prefix, 5)]
    error = refusal(V3, paths, "UD-IQ2_XXS")
    assert error.message == f"UD-IQ2_XXS in {V3} may be any of 2 sets of files"
    assert f"{V3}:{prefix}-00001-of-00005.gguf" in (error.hint or "")
    assert pick(V3, paths, f"{prefix}-00003-of-00005.gguf").n_shards == 5


def test_two_generations_of_which_none_is_whole_are_both_explained() -> None:
    prefix = "UD-IQ2_XXS/V-UD-IQ2_XXS"
    message = refusal("o/V", [*shards(prefix, 4, 1, 2), *shards(prefix, 5, 1, 2, 3, 4)], "UD-IQ2_XXS").message
    assert "shards 3, 4 of 4 of V-UD-IQ2_XXS are not there" in message
    assert "shard 5 of 5 of V-UD-IQ2_XXS is not there" in message


def test_the_older_generation_of_another_stem() -> None:
    new = shards("DeepSeek-R1-Q8_0/DeepSeek-R1.Q8_0", 15)
    old = shards("DeepSeek-R1-Q8_0/DeepSeek-R1-BF16-256x20B-Q8_0", 16, 10)
    assert [file.path for file in pick(R1, old + new, "Q8_0").files] == new


def test_a_shard_under_the_name_of_another_quant() -> None:
    """Of one day: Q2_K_L's first shard was named Q2_K_XL."""
    folder = "DeepSeek-R1-Q2_K_L"
    paths = shards(f"{folder}/DeepSeek-R1-Q2_K_L", 5, 2, 3, 4, 5) + shards(
        f"{folder}/DeepSeek-R1-Q2_K_XL", 5, 1
    )
    message = refusal(R1, paths, "Q2_K_L").message
    assert (
        "Q2_K_L in unsloth/DeepSeek-R1-GGUF is not whole: shard 1 of 5 of DeepSeek-R1-Q2_K_L is not"
        in message
    )
    assert "but DeepSeek-R1-Q2_K_XL-00001-of-00005.gguf in the same folder" in message
    assert "shards 2, 3, 4, 5 of 5" in refusal(R1, paths, "Q2_K_XL").message
    assert "not whole" in refusal(R1, paths, folder).message


def test_a_whole_stranger_in_a_folder_is_never_taken_for_its_quant() -> None:
    paths = [*shards("Q2_K_L/M-Q2_K_L", 5, 2, 3, 4, 5), "Q2_K_L/M-Q2_K_XL.gguf"]
    assert "not whole" in refusal("o/M-GGUF", paths, "Q2_K_L").message
    assert "may be any" in refusal("o/M-GGUF", paths, "Q2_K_L/").message


# --- other models in the repo ---

ZERO = shards("DeepSeek-R1-Q4_K_M/DeepSeek-R1-Zero-Q4_K_M", 9)
OWN = shards("DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M", 9)


@pytest.mark.parametrize("asked", ["Q4_K_M", "DeepSeek-R1-Q4_K_M", "DeepSeek-R1-Q4_K_M/", OWN[3], None])
def test_files_of_another_model_in_the_same_folder_are_left_alone(asked: str | None) -> None:
    assert [file.path for file in pick(R1, ZERO + OWN, asked).files] == OWN


@pytest.mark.parametrize("asked", [ZERO[0], ZERO[8], "DeepSeek-R1-Zero-Q4_K_M"])
def test_another_model_is_had_by_path(asked: str) -> None:
    assert [file.path for file in pick(R1, ZERO + OWN, asked).files] == ZERO


def test_another_model_is_had_by_its_folder_but_not_by_the_quant() -> None:
    paths = shards("DeepSeek-R1-Zero-Q3_K_L/DeepSeek-R1-Zero-Q3_K_L", 2)
    error = refusal(R1, OWN + paths, "Q3_K_L")
    assert error.message == f"{R1} has Q3_K_L of DeepSeek-R1-Zero, not of DeepSeek-R1"
    assert error.hint == f"by path it is {R1}:{paths[0]}"
    assert pick(R1, OWN + paths, "DeepSeek-R1-Zero-Q3_K_L").model == "DeepSeek-R1-Zero"


def test_a_folder_named_like_a_quant_gives_another_model_only_with_a_slash() -> None:
    paths = shards("Q3_K_L/DeepSeek-R1-Zero-Q3_K_L", 2)
    assert "of DeepSeek-R1-Zero" in refusal(R1, OWN + paths, "Q3_K_L").message
    assert pick(R1, OWN + paths, "Q3_K_L/").model == "DeepSeek-R1-Zero"


def test_the_repos_own_model_comes_first_in_the_table() -> None:
    small = remote(*ZERO, size_bytes=1)
    models = [quant.model for quant in find_quants(R1, [*small, *remote(*OWN)])]
    assert models == ["DeepSeek-R1", "DeepSeek-R1-Zero"]


def test_no_model_is_another_when_none_is_named_like_the_repo() -> None:
    path = "ggml-c4ai-command-r-plus-104b-iq4_xs"
    repo_id = "dranger003/c4ai-command-r-plus-iMat.GGUF"
    assert pick(repo_id, shards(path, 2), "IQ4_XS").n_shards == 2


# --- what is no model ---


def test_extras_are_never_taken_for_the_model() -> None:
    extras = [
        "mmproj-BF16.gguf",
        "M-mmproj-f16.gguf",
        "imatrix_unsloth.gguf",
        "UD-Q4_K_XL/imatrix.gguf",
        "MTP/M-MTP-Q8_0.gguf",
        "M-draft-Q4_0.gguf",
        "imatrix.dat",
        "README.md",
        "config.json",
    ]
    assert [q.name for q in find_quants("o/M-GGUF", remote("M-Q4_K_M-imatrix.gguf", *extras))] == ["Q4_K_M"]
    assert refusal("o/M-GGUF", extras, "Q8_0").message == "o/M-GGUF has no GGUF model files"


def test_a_repo_that_is_named_after_an_extra_is_about_it() -> None:
    assert pick("o/Qwen-0.5B-DRAFT-GGUF", ["Qwen-0.5B-DRAFT-Q4_0.gguf"], "Q4_0").n_shards == 1


# --- raw parts ---


def test_raw_parts_in_their_order() -> None:
    paths = [f"grok-1.i1-IQ1_M.gguf.part{n}of11" for n in range(11, 0, -1)]
    quant = pick("m/grok-1-i1-GGUF", paths, None)
    assert (quant.kind, quant.name, quant.n_shards, quant.missing) == ("raw", "i1-IQ1_M", 11, ())
    assert [file.path for file in quant.files] == paths[::-1]


@pytest.mark.parametrize(
    ("tails", "missing"),
    [
        (["-split-a", "-split-b"], ()),
        (["-split-a", "-split-c"], (2,)),
        ([".split-ab", ".split-ac"], (1,)),
        ([".part00", ".part01", ".part02", ".part03"], ()),
        ([".part00", ".part02"], (2,)),
        ([".part1of3", ".part3of3"], (2,)),
        ([".a", ".b"], ()),
    ],
)
def test_gaps_between_raw_parts(tails: list[str], missing: tuple[int, ...]) -> None:
    quants = find_quants("o/m", remote(*(f"m.Q8_0.gguf{tail}" for tail in tails)))
    assert [quant.missing for quant in quants] == [missing]
    assert quants[0].kind == "raw"


def test_a_gguf_goes_before_raw_parts_of_the_same_quant() -> None:
    paths = ["m.Q8_0.gguf-split-a", "m.Q8_0.gguf-split-b", "m.Q8_0.gguf"]
    assert pick("o/m", paths, "Q8_0").kind == "gguf"


# --- what is taken without a name ---


def test_the_only_quant_is_taken() -> None:
    assert pick("o/M", shards("M-Q4_K_M", 2), None).name == "Q4_K_M"
    assert pick("o/M", ["M.gguf"], None).name == "M"


def test_without_a_name_several_quants_are_a_question() -> None:
    error = refusal("o/M", ["M-Q4_K_M.gguf", "M-Q8_0.gguf"], None)
    assert (error.message, error.hint) == ("o/M has 2 quants", "choose one, as in o/M:Q4_K_M")
    assert len(error.quants) == 2


def test_the_only_quant_must_be_whole() -> None:
    assert "shard 2 of 2" in refusal("o/M", shards("M-Q4_K_M", 2, 1), None).message


def test_a_repo_without_models() -> None:
    assert refusal("o/M", ["README.md"], None).exit_code == 3


# --- numbers ---


def test_sizes_are_summed_and_order_the_table() -> None:
    files = [RemoteFile("M-Q8_0.gguf", 9, None, "main"), *remote(*shards("M-Q2_K", 2), size_bytes=3)]
    assert [(q.name, q.total_bytes) for q in find_quants("o/M", files)] == [("Q2_K", 6), ("Q8_0", 9)]


def test_impossible_shard_numbers_are_files_by_themselves() -> None:
    quants = find_quants("o/M", remote("M-Q2_K-00003-of-00002.gguf", "M-Q2_K-00000-of-00002.gguf"))
    assert [quant.n_shards for quant in quants] == [1, 1]


def test_a_hostile_listing_costs_little() -> None:
    paths = [f"a{n}-Q4_K_M-00001-of-99999.gguf" for n in range(3000)]
    paths += ["-".join(["Q4_K"] * 400) + ".gguf", "UD-" * 2000 + ".gguf", "Q4" + "_K" * 5000 + ".gguf"]
    start = time.perf_counter()
    quants = find_quants("o/a", remote(*paths))
    assert max(len(quant.missing) for quant in quants) == 100
    with pytest.raises(QuantError):
        pick_quant(quants, "Q4_K_M", "o/a")
    assert time.perf_counter() - start < 5
