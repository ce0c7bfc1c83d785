"""LM Studio's models folder in disorder, and the moves that bring it in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.runtimes.lmstudio_folder import Move, Trouble, find_troubles, unsafe_moves
from tests.support.ggufs import make_gguf


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(models: Path, *paths: str) -> None:
    for path in paths:
        make_gguf(models / path, kv={"general.name": "Smol", "general.quantized_by": "acme"})


def shards(stem: str, n: int) -> list[str]:
    return [f"{stem}-{i:05}-of-{n:05}.gguf" for i in range(1, n + 1)]


def only(models: Path) -> Trouble:
    (trouble,) = find_troubles(models)
    return trouble


def where(models: Path, trouble: Trouble) -> list[str]:
    return [str(move.target.relative_to(models)) for move in trouble.moves if move.target]


def test_order_is_left_alone(models: Path) -> None:
    put(models, "acme/smol/smol-Q4_0.gguf", "acme/smol/mmproj-smol.gguf")
    put(models, *(f"acme/big/{name}" for name in shards("big-Q2_K", 3)))
    (models / "acme/smol/README.md").write_text("hello")
    assert find_troubles(models) == ()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("smol-Q4_0.gguf", "acme/smol/smol-Q4_0.gguf"),
        ("bartowski/smol-Q4_0.gguf", "bartowski/smol/smol-Q4_0.gguf"),
        ("acme/smol/Q4_0/smol-Q4_0.gguf", "acme/smol/smol-Q4_0.gguf"),
        ("acme/smol/a/b/smol-Q4_0.gguf", "acme/smol/smol-Q4_0.gguf"),
    ],
)
def test_a_file_at_the_wrong_depth(models: Path, path: str, target: str) -> None:
    put(models, path)
    trouble = only(models)
    assert trouble.kind == "depth" and where(models, trouble) == [target]
    assert "exactly two deep" in trouble.text


def test_a_set_too_deep_moves_as_a_whole(models: Path) -> None:
    names = shards("DeepSeek-R1-UD-IQ1_S", 3)
    put(models, *(f"unsloth/DeepSeek-R1-GGUF/DeepSeek-R1-UD-IQ1_S/{name}" for name in names))
    trouble = only(models)
    assert trouble.kind == "depth" and "and 2 more shards: 3 folders deep" in trouble.text
    assert where(models, trouble) == [f"unsloth/DeepSeek-R1-GGUF/{name}" for name in names]


def test_shards_that_lms_import_has_scattered(models: Path) -> None:
    names = shards("DeepSeek-R1-UD-IQ1_S", 3)
    put(models, *(f"me/{name.removesuffix('.gguf')}/{name}" for name in names))
    trouble = only(models)
    assert trouble.kind == "scattered" and "3 folders" in trouble.text
    assert where(models, trouble) == [f"me/DeepSeek-R1-UD-IQ1_S/{name}" for name in names]


def test_two_whole_copies_of_a_set_are_not_scattered(models: Path) -> None:
    put(models, *(f"{user}/big/{name}" for user in ("a", "b") for name in shards("big", 2)))
    assert find_troubles(models) == ()


def test_missing_shards_are_named(models: Path) -> None:
    put(models, *(f"acme/big/{name}" for name in shards("big", 6)[1:2]))
    trouble = only(models)
    assert (trouble.kind, trouble.moves) == ("incomplete", ())
    assert "big: 5 of 6 shards missing: big-00001-of-00006.gguf" in trouble.text and "…" in trouble.text


def test_a_link_to_nothing_is_removed(models: Path) -> None:
    (models / "acme/smol").mkdir(parents=True)
    link = models / "acme/smol/gone.gguf"
    link.symlink_to("/nowhere/gone.gguf")
    trouble = only(models)
    assert trouble.kind == "dangling" and trouble.moves == (Move(link, None),)


def test_a_projector_in_disguise(models: Path) -> None:
    put(models, "acme/smol/smol-Q4_0.gguf", "acme/smol/smol.BF16-mmproj.gguf")
    trouble = only(models)
    assert trouble.kind == "mmproj" and where(models, trouble) == ["acme/smol/mmproj-smol.BF16-mmproj.gguf"]


def test_what_is_no_gguf_keeps_the_publisher_it_lies_under(models: Path) -> None:
    (models / "acme").mkdir()
    (models / "acme/odd.gguf").write_bytes(b"not a gguf")
    assert where(models, only(models)) == ["acme/odd/odd.gguf"]


def test_nothing_is_moved_onto_something(models: Path) -> None:
    put(models, "acme/smol/smol.gguf", "acme/smol/a/smol.gguf", "acme/smol/b/smol.gguf")
    moves = [move for trouble in find_troubles(models) for move in trouble.moves]
    assert len(moves) == 2 and unsafe_moves(moves) == moves


def test_links_to_folders_are_not_followed(models: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "x.gguf")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    (models / "round").symlink_to(models)
    assert find_troubles(models) == ()
