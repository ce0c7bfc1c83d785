"""Splitting: llama-gguf-split's very shards, there and back, resumed, nothing overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufkit.errors import FormatError, GgufkitError, NoSpaceError, TargetExistsError, UsageError
from ggufkit.transfer.journal import Journal
from ggufkit.verbs import split as split_module
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import merge, plan_merge
from ggufkit.verbs.split import SplitPlan, SplitReport, plan_split, split
from tests.gguf.test_llama_split import CUTS, MERGED, ORIGINAL, SHARDS
from tests.support.ggufs import make_gguf
from tests.verbs.published import everything, sha256

STEM = "Tiny-Test-Q4_K_M"


@pytest.fixture
def whole(work: Path) -> Path:
    """The published model as one file."""
    folder = work / "shards"
    folder.mkdir()
    for path in SHARDS:
        shutil.copy(path, folder)
    output = merge(plan_merge(find_model(str(folder), shards=True), output=work / f"{STEM}.gguf")).output
    shutil.rmtree(folder)
    assert sha256(output) == ORIGINAL
    return output


def planned(path: Path, **options: Any) -> SplitPlan:
    return plan_split(find_model(str(path)), **options)


def done(path: Path, **options: Any) -> SplitReport:
    return split(planned(path, **options))


def failure(kind: type[GgufkitError], path: Path, **options: Any) -> GgufkitError:
    with pytest.raises(kind) as caught:
        done(path, **options)
    return caught.value


@pytest.mark.parametrize("cut", CUTS)
def test_the_shards_are_those_of_llama_gguf_split(whole: Path, work: Path, cut: str) -> None:
    options, digests = CUTS[cut]
    report = done(whole, **options)
    assert [s.sha256 for s in report.shards] == digests == [sha256(s.path) for s in report.shards]
    assert [s.path.name for s in report.shards] == [
        f"{STEM}-{n:05d}-of-{len(digests):05d}.gguf" for n in range(1, len(digests) + 1)
    ]
    assert {s.path.parent for s in report.shards} == {work / STEM}
    assert report.n_bytes == sum(s.path.stat().st_size for s in report.shards) and not report.already
    assert sha256(whole) == ORIGINAL, "the file itself is only read"
    names = {s.path.relative_to(work).as_posix() for s in report.shards}
    assert everything(work) == {whole.name, STEM, *names}


@pytest.mark.parametrize("cut", CUTS)
def test_there_and_back(whole: Path, work: Path, cut: str) -> None:
    done(whole, **CUTS[cut][0], output=work / "cut")
    model = find_model(str(work / "cut"), shards=True)
    assert merge(plan_merge(model, output=work / "a.gguf")).sha256 == ORIGINAL
    assert merge(plan_merge(model, output=work / "b.gguf", keep_split_keys=True)).sha256 == MERGED


def test_what_llama_gguf_split_merged_is_cut_into_the_same_shards(whole: Path, work: Path) -> None:
    options, digests = CUTS["--split-max-tensors 12"]
    done(whole, **options, output=work / "cut")
    model = find_model(str(work / "cut"), shards=True)
    theirs = merge(plan_merge(model, output=work / "theirs.gguf", keep_split_keys=True)).output
    assert [s.sha256 for s in done(theirs, **options).shards] == digests


@settings(max_examples=8, deadline=None)
@given(
    n_tensors=st.integers(4, 25),
    alignment=st.sampled_from([None, 8, 64, 4096]),
    no_tensor_first=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_cut_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    n_tensors: int,
    alignment: int | None,
    no_tensor_first: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = make_gguf(folder / "m.gguf", kv={"general.alignment": alignment}, seed=seed)
    report = done(path, max_tensors=n_tensors, no_tensor_first=no_tensor_first, output=folder / "cut")
    model = find_model(str(report.shards[-1].path), shards=True)
    again = merge(plan_merge(model, output=folder / "again.gguf")).output
    assert again.read_bytes() == path.read_bytes()


def test_again_it_does_nothing_and_what_is_missing_is_made(whole: Path, work: Path) -> None:
    first = done(whole, max_tensors=12)
    before = {s.path: s.path.stat().st_mtime_ns for s in first.shards}
    assert done(whole, max_tensors=12).already
    assert {p: p.stat().st_mtime_ns for p in before} == before
    first.shards[2].path.unlink()
    report = done(whole, max_tensors=12)
    assert not report.already and [s.sha256 for s in report.shards] == [s.sha256 for s in first.shards]
    same = {p for p, when in before.items() if p.stat().st_mtime_ns == when}
    assert same == set(before) - {first.shards[2].path}


def test_another_file_is_overwritten_only_by_force_and_then_by_a_new_one(whole: Path, work: Path) -> None:
    first = done(whole, max_tensors=12)
    precious = first.shards[1].path
    precious.write_bytes(b"precious")
    (work / "second").hardlink_to(precious)
    error = failure(TargetExistsError, whole, max_tensors=12)
    assert error.exit_code == 9 and precious.name in error.message and "--force" in (error.hint or "")
    assert precious.read_bytes() == b"precious"
    done(whole, max_tensors=12, force=True)
    assert sha256(precious) == first.shards[1].sha256
    assert (work / "second").read_bytes() == b"precious"


def test_nothing_is_written_before_all_names_are_looked_at(whole: Path, work: Path) -> None:
    folder = work / "cut"
    folder.mkdir()
    (folder / f"{STEM}-00005-of-00005.gguf").write_bytes(b"precious")
    failure(TargetExistsError, whole, max_tensors=12, output=folder)
    assert [p.name for p in folder.iterdir()] == [f"{STEM}-00005-of-00005.gguf"]


def test_a_plan_writes_nothing(whole: Path, work: Path, own_home: Path) -> None:
    before = everything(work), everything(own_home)
    plan = planned(whole, max_tensors=12, output=work / "a" / "b")
    assert len(plan.paths) == 5 and plan.n_bytes > 0 and plan.free_bytes > 0 and plan.existing == ()
    assert (everything(work), everything(own_home)) == before


def test_room_is_looked_for_first(whole: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = planned(whole, max_tensors=12).n_bytes
    monkeypatch.setattr(split_module, "free_bytes", lambda _path: need - 1)
    before = everything(work)
    error = failure(NoSpaceError, whole, max_tensors=12)
    assert error.exit_code == 8 and "--output" in (error.hint or "") and everything(work) == before
    monkeypatch.setattr(split_module, "free_bytes", lambda _path: need)
    done(whole, max_tensors=12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tensors": 5, "max_bytes": 10**6}, "can't both decide"),
        ({"max_bytes": 1000}, "alone has"),
        ({"max_tensors": 0}, "at least 1"),
    ],
)
def test_cuts_that_can_not_be_made(whole: Path, work: Path, options: dict[str, int], words: str) -> None:
    before = everything(work)
    assert words in failure(UsageError, whole, **options).message
    assert everything(work) == before


def test_what_can_not_be_split(whole: Path, work: Path) -> None:
    report = done(whole, max_tensors=12)
    assert "is a shard already" in failure(UsageError, report.shards[0].path).message
    (work / "notes.txt").write_text("no model")
    failure(FormatError, work / "notes.txt")
    assert "is a file, not a folder" in failure(UsageError, whole, output=work / "notes.txt").message


def test_a_model_without_an_ending_needs_a_folder_to_go_to(whole: Path, work: Path) -> None:
    bare = whole.rename(work / "model")
    assert "--output" in (failure(UsageError, bare).hint or "")
    assert len(done(bare, max_tensors=12, output=work / "cut").shards) == 5


def test_an_interrupted_split_goes_on(whole: Path, work: Path) -> None:
    class Stop:
        n_bytes = 0

        def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
            pass

        def advance(self, n_bytes: int) -> None:
            self.n_bytes += n_bytes
            if self.n_bytes > 1_200_000:
                raise KeyboardInterrupt

        def note(self, message: str) -> None:
            pass

        def finish(self) -> None:
            pass

    plan = planned(whole, max_tensors=12)
    with pytest.raises(KeyboardInterrupt):
        split(plan, Stop())
    assert len(list((work / STEM).glob("*.part"))) == 1
    report = done(whole, max_tensors=12)
    assert [sha256(s.path) for s in report.shards] == CUTS["--split-max-tensors 12"][1]
    assert not [p for p in everything(work) if p.endswith(".part") or "journal" in p]


def test_notes_of_a_run_killed_after_its_last_rename_are_taken_away(whole: Path, work: Path) -> None:
    done(whole, max_tensors=12)
    for job in planned(whole, max_tensors=12).jobs:
        Journal(job.journal, job.identity).save()
    assert done(whole, max_tensors=12).already
    assert not (work / STEM / ".ggufkit").exists()
