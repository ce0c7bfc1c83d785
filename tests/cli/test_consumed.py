"""`ggufkit merge --consume` typed again when it was cut off at its end or is done, wherever the file went."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.gguf.test_llama_split import ORIGINAL, SHARDS
from tests.verbs.published import everything, model_bytes, sha256
from tests.verbs.test_merge import record_of

STEM = "Tiny-Test-Q4_K_M"
SHARD = f"{STEM}/{SHARDS[1].name}"


def lay(work: Path, *, recorded: bool = False, folder: str = STEM) -> None:
    """Put copies of the published shards into a folder of `work`, which is emptied."""
    shutil.rmtree(work, ignore_errors=True)
    (work / folder).mkdir(parents=True)
    os.chdir(work)
    shards = [Path(shutil.copy(path, work / folder)) for path in SHARDS]
    if recorded:
        record_of(work, shards)


@contextmanager
def cut_at(n: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt before the `n`-th file or folder that is removed."""
    left = n

    def counted(honest: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise KeyboardInterrupt
            honest(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


@pytest.mark.parametrize("recorded", [True, False], ids=["pulled", "found"])
@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ((STEM,), f"{STEM}.gguf"),
        ((), f"{STEM}.gguf"),
        ((SHARD,), f"{STEM}.gguf"),
        ((STEM, "-o", "out/x.gguf"), "out/x.gguf"),
        (("-o", "../out/x.gguf"), "../out/x.gguf"),
        ((SHARD, "-o", "../out"), f"../out/{STEM}.gguf"),
    ],
)
def test_cut_off_while_it_removes(
    work: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    output: str,
    recorded: bool,
) -> None:
    home = work / "home"
    n_cuts, code = 0, 130
    while code == 130:
        n_cuts += 1
        shutil.rmtree(work / "out", ignore_errors=True)
        lay(home, recorded=recorded)
        (work / "out").mkdir()
        with cut_at(n_cuts, monkeypatch):
            code = run("merge", "--consume", *arguments).code
        again = run("merge", "--consume", *arguments)
        assert again.code == 0, f"{n_cuts}: {again.err}"
        assert sha256(home / output) == ORIGINAL
        assert not [p for p in everything(home) if is_leaving(p)], n_cuts
        last = run("merge", "--consume", *arguments)
        assert last.code == 0 and "is one file already: nothing to merge" in last.lines[0]
    assert n_cuts > 8, "the shards, the notes and the folders"
    assert run("split", home / output, "--restore").code == 0


def is_leaving(path: str) -> bool:
    """Say whether it should be gone: a shard, its folder, a note."""
    return path == STEM or "consume" in path or ("-of-" in path and not path.endswith(".header"))


def test_a_merged_file_that_was_there_and_its_shards_going(
    work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off while shards are removed that the file stands for; what another merge began is never taken."""
    n_cuts, code = 0, 130
    while code == 130:
        n_cuts += 1
        lay(work / "home")
        assert run("merge", STEM).code == 0
        Path(f"{STEM}.gguf.part").write_bytes(bytes(Path(f"{STEM}.gguf").stat().st_size))
        with cut_at(n_cuts, monkeypatch):
            code = run("merge", "--consume", STEM).code
        again = run("merge", "--consume", STEM)
        assert again.code == 0, f"{n_cuts}: {again.err}"
        assert sha256(Path(f"{STEM}.gguf")) == ORIGINAL
        assert not [p for p in everything(Path()) if is_leaving(p) or p.endswith(".part")], n_cuts
    assert n_cuts > 8


@pytest.mark.parametrize("arguments", [("p",), (), ("p/m.gguf.part2of3",)])
def test_raw_parts(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    data = model_bytes()
    n_cuts, code = 0, 130
    while code == 130:
        n_cuts += 1
        shutil.rmtree(work / "p", ignore_errors=True)
        (work / "p").mkdir()
        for i in range(3):
            end = 2000 * (i + 1) if i < 2 else None
            (work / "p" / f"m.gguf.part{i + 1}of3").write_bytes(data[2000 * i : end])
        with cut_at(n_cuts, monkeypatch):
            code = run("merge", "--consume", *arguments).code
        again = run("merge", "--consume", *arguments)
        assert again.code == 0, f"{n_cuts}: {again.err}"
        assert (work / "p" / "m.gguf").read_bytes() == data
        assert not [p for p in everything(work) if "consume" in p or "part" in p], n_cuts
    assert n_cuts > 5


def test_another_file_at_the_output_is_not_taken_for_the_set(work: Path, run: Run) -> None:
    lay(work / "home")
    assert run("merge", "--consume", STEM, "-o", "out/x.gguf").code == 0
    assert run("merge", "--consume", STEM, "-o", "out/x.gguf").code == 0
    wrong = run("merge", "--consume", "Other-Model", "-o", "out/x.gguf")
    assert wrong.code == 3 and "Other-Model: no such file" in wrong.err
    shutil.copy("out/x.gguf", "y.gguf")
    plain = run("merge", "--consume", STEM, "-o", "y.gguf")
    assert plain.code == 3, "nobody recorded what it was made of"


def test_a_name_or_a_folder_that_can_not_be(work: Path, run: Run) -> None:
    lay(work / "home")
    before = everything(Path())
    wrong = run("merge", "--consume", STEM, "-o", "a b.bin")
    assert wrong.code == 2 and "hint: --output 'a b.bin.gguf'" in wrong.err
    assert "no GGUF's name, and it will be all there is of the model" in wrong.err
    Path("taken").touch()
    wrong = run("merge", "--consume", STEM, "-o", "taken/x/y.gguf")
    assert wrong.code == 2 and "error: taken is a file, not a folder" in wrong.err
    assert everything(Path()) == before | {"taken"}


def test_the_next_step_means_the_merged_file(work: Path, run: Run) -> None:
    lay(work / "home")
    assert "next: ggufkit ollama-import\n" in run("merge").err
    elsewhere = run("merge", STEM, "-o", work / "out" / "a b.gguf")
    assert f"next: ggufkit ollama-import '{work}/out/a b.gguf'\n" in elsewhere.err
    os.chdir(work / "out")
    assert "next: ggufkit ollama-import\n" in run("merge", "../home", "-o", "a b.gguf").err
