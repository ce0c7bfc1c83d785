"""`merge --consume` and `split --restore`: one copy's space, nothing given up unproven, and back again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import testbed

from ggufkit.errors import (
    AccessError,
    FormatError,
    GgufkitError,
    IntegrityError,
    NoSpaceError,
    NotFoundError,
    TargetExistsError,
    UsageError,
)
from ggufkit.transfer import consume as engine
from ggufkit.transfer.consume_notes import note as honest_note
from ggufkit.transfer.holes import punch_hole
from ggufkit.verbs.consume import ConsumePlan, consume, plan_consume
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import MergePlan, MergeReport, merge, plan_merge
from ggufkit.verbs.restore import plan_restore
from ggufkit.verbs.split import SplitReport, split
from tests.gguf.test_llama_split import MERGED, ORIGINAL, SHARDS
from tests.support.ggufs import gguf_bytes, make_shards
from tests.support.runtimes import run_llama_server
from tests.verbs.published import everything, model_bytes, sha256
from tests.verbs.test_merge import STEM, record_of


@pytest.fixture
def shards(work: Path) -> list[Path]:
    """Copies of the published shards, in a folder of their own name."""
    folder = work / STEM
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in SHARDS]


def planned(argument: Path | None = None, **options: object) -> ConsumePlan:
    model = find_model(None if argument is None else str(argument), shards=True)
    plan = plan_consume(model, **options)  # type: ignore[arg-type]
    assert isinstance(plan, ConsumePlan)
    return plan


def consumed(argument: Path | None = None, **options: object) -> MergeReport:
    return consume(planned(argument, **options))


def restored(argument: Path | None = None, **options: object) -> SplitReport:
    model = find_model(None if argument is None else str(argument))
    return split(plan_restore(model, **options))  # type: ignore[arg-type]


def stop_at(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """Interrupt a consumption once that much is durable."""

    def note(slots: int, done: int) -> None:
        honest_note(slots, done)
        if done >= n_bytes:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "note", note)


def interrupted(monkeypatch: pytest.MonkeyPatch, argument: Path | None = None, n_bytes: int = 1) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, n_bytes)
        consumed(argument)


# ---- what comes out, and what stays ----


@pytest.mark.parametrize("recorded", [True, False], ids=["pulled", "found"])
@pytest.mark.parametrize("keep_split_keys", [True, False], ids=["with keys", "plain"])
def test_one_file_is_left_and_gives_the_shards_back(
    shards: list[Path], work: Path, recorded: bool, keep_split_keys: bool
) -> None:
    published = {p: sha256(p) for p in shards}
    if recorded:
        record_of(work, shards)
    report = consumed(keep_split_keys=keep_split_keys)
    assert report.sha256 == sha256(report.output) == (MERGED if keep_split_keys else ORIGINAL)
    assert report.freed_bytes == sum(p.stat().st_size for p in SHARDS) and not report.already
    assert not [p for p in everything(work) if "-of-" in p and not p.endswith(".header")]
    assert not [p for p in everything(work) if "consume" in p or p.endswith(".part")]
    back = restored()
    assert {shard.path.absolute(): shard.sha256 for shard in back.shards} == published
    assert {p: sha256(p) for p in shards} == published
    assert restored().already


def test_a_plain_merge_of_a_pulled_set_gives_the_shards_back_too(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    published = {p: sha256(p) for p in shards}
    merge(plan_merge(find_model(shards=True)))
    shutil.rmtree(shards[0].parent)
    restored()
    assert {p: sha256(p) for p in shards} == published


def test_they_go_where_they_are_asked_to(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    consumed()
    report = restored(output=work / "there")
    assert [s.path.parent for s in report.shards] == [work / "there"] * 5
    assert [sha256(s.path) for s in report.shards] == [sha256(p) for p in SHARDS]
    with pytest.raises(UsageError, match="is a file, not a folder"):
        restored(work / f"{STEM}.gguf", output=work / f"{STEM}.gguf")


def test_shards_of_another_alignment_come_back(work: Path) -> None:
    """Their padding differs from the merged file's, and is kept with the headers."""
    whole = work / "m" / "m.gguf"
    whole.parent.mkdir()
    whole.write_bytes(gguf_bytes(kv={"general.alignment": 128}))
    original = sha256(whole)
    shards = make_shards(whole, max_tensors=5)
    whole.unlink()
    shards[1].write_bytes(shards[1].read_bytes() + b"what somebody appended")
    before = {p: p.read_bytes() for p in shards}
    assert consumed(work / "m").sha256 == original
    restored(work / "m.gguf")
    assert {p: p.read_bytes() for p in shards} == before


def test_nothing_recorded_nothing_restored(shards: list[Path], work: Path) -> None:
    merge(plan_merge(find_model(shards=True)))
    with pytest.raises(NotFoundError, match="is not recorded") as caught:
        restored(work / f"{STEM}.gguf")
    assert "split --max-size" in str(caught.value.hint)
    with pytest.raises(UsageError, match="is a shard already"):
        restored(shards[0])


def test_a_changed_merged_file_gives_no_shards(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    output = consumed().output
    with output.open("rb+") as file:
        file.seek(-100, 2)
        file.write(b"?")
    with pytest.raises(IntegrityError, match=f"{STEM}-00005-of-00005.gguf: SHA-256 is"):
        restored()
    assert not shards[4].exists() and not list(work.rglob("*.part"))


@pytest.mark.parametrize("harm", ["torn", "empty", "other", "no set"])
def test_broken_keepsakes_are_as_none(shards: list[Path], work: Path, harm: str) -> None:
    consumed()
    kept = sorted((work / ".ggufkit" / "headers" / STEM).glob("*.header"))
    if harm == "no set":
        (kept[0].parent / "set.json").write_text("{")
    else:
        data = {"torn": kept[0].read_bytes()[:500], "empty": b"", "other": kept[1].read_bytes()}[harm]
        kept[0].write_bytes(data)
    with pytest.raises(NotFoundError, match="is not recorded"):
        restored()


# ---- nothing is given up that is not proven, or that others need ----


def refused(kind: type[GgufkitError], shards: list[Path], reason: str) -> GgufkitError:
    before = [p.read_bytes() for p in shards]
    with pytest.raises(kind, match=reason) as caught:
        consumed(shards[0])
    assert [p.read_bytes() for p in shards] == before
    return caught.value


def test_a_shard_that_is_not_what_was_published(shards: list[Path], work: Path) -> None:
    record_of(work, shards, n3="0" * 64)
    error = refused(IntegrityError, shards, f"{STEM}-00003-of-00005.gguf: SHA-256 is .*, expected 0000")
    assert "nothing was given up; ggufkit pull" in str(error.hint)
    report = consumed(shards[0], verify=False)
    assert report.sha256 is None and sha256(report.output) == ORIGINAL


def test_unproven_shards_are_named(shards: list[Path], work: Path) -> None:
    assert planned().unproven == tuple(p.name for p in shards)
    record_of(work, shards)
    assert planned().unproven == ()


def test_a_hard_link_elsewhere(shards: list[Path], work: Path) -> None:
    os.link(shards[2], work / "blob")
    refused(AccessError, shards, "00003-of-00005.gguf has another name")


def test_a_symbolic_link(shards: list[Path], work: Path) -> None:
    shutil.move(shards[1], work / "blob")
    shards[1].symlink_to(work / "blob")
    refused(AccessError, shards, "00002-of-00005.gguf is a link to")


def test_a_program_that_has_a_shard_open(shards: list[Path]) -> None:
    code = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(shards[3])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        refused(AccessError, shards, rf"00004-of-00005.gguf is in use by python\S* \(process {child.pid}\)")
        child.stdin.close()
    assert consumed(shards[0]).sha256 == ORIGINAL


def test_no_room_for_the_little_that_it_needs(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggufkit.verbs.merge.free_bytes", lambda _: 1000)
    refused(NoSpaceError, shards, r"2\.\d MiB needed besides the shards, 1000 B free: 2\.\d MiB short$")
    monkeypatch.setattr("ggufkit.transfer.holes._fallocate", lambda: None)
    monkeypatch.setattr("ggufkit.verbs.merge.free_bytes", lambda _: 2_400_000)
    refused(NoSpaceError, shards, "gives back whole files only")


def test_another_file_system_needs_room_for_all(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggufkit.verbs.consume.same_file_system", lambda _a, _b: False)
    plan = planned()
    assert plan.extra_bytes == plan.merge.n_bytes
    monkeypatch.setattr("ggufkit.verbs.merge.free_bytes", lambda _: plan.merge.n_bytes - 1)
    refused(NoSpaceError, shards, "needed besides the shards, .* free: 1 B short")


# ---- what is there already ----


def test_a_merged_file_that_is_there_stands_for_the_shards(shards: list[Path], work: Path) -> None:
    merge(plan_merge(find_model(shards=True)))
    report = consumed(shards[0])
    assert report.already and report.freed_bytes
    assert sha256(work / f"{STEM}.gguf") == ORIGINAL and not shards[0].parent.exists()
    restored(work / f"{STEM}.gguf")
    assert [sha256(p) for p in shards] == [sha256(p) for p in SHARDS]


def test_something_else_in_its_place_is_not_touched(shards: list[Path], work: Path) -> None:
    other = work / f"{STEM}.gguf"
    other.write_bytes(b"something else")
    refused(TargetExistsError, shards, "is not what merging these shards gives")
    assert other.read_bytes() == b"something else"
    assert consumed(shards[0], force=True).sha256 == sha256(other) == ORIGINAL


def test_one_file_already_is_nothing_to_do(shards: list[Path], work: Path) -> None:
    consumed()
    plan = plan_consume(find_model(shards=True))
    assert isinstance(plan, MergePlan) and plan.job is None
    assert merge(plan).already


# ---- interrupted ----


def test_other_commands_say_what_is_going_on(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch)
    with pytest.raises(FormatError, match="partly given up already") as caught:
        plan_merge(find_model(shards=True))
    assert caught.value.hint == f"ggufkit merge --consume {STEM}/{STEM}-00001-of-00005.gguf goes on"
    with pytest.raises(UsageError, match=f"is being merged into .*{STEM}.gguf already"):
        planned(output=Path("other.gguf"))
    plan = planned(output=Path(f"{STEM}.gguf"))
    assert plan.begun and 0 < plan.resumed_bytes < plan.merge.n_bytes
    assert consume(plan).sha256 == ORIGINAL


def test_the_folder_may_have_moved_meanwhile(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch)
    (work / "moved").mkdir()
    for path in list(work.iterdir()):
        if path.name != "moved":
            path.rename(work / "moved" / path.name)
    monkeypatch.chdir(work / "moved")
    assert consumed().sha256 == ORIGINAL
    assert sha256(work / "moved" / f"{STEM}.gguf") == ORIGINAL


@pytest.mark.parametrize("n_left", [0, 1, 4])
def test_killed_while_it_removes_the_shards(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch, n_left: int
) -> None:
    record_of(work, shards)
    honest, n_gone = Path.unlink, [0]

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if "-of-" in path.name or n_gone[0] == 5:
            if n_gone[0] == 5 - n_left:
                raise KeyboardInterrupt
            n_gone[0] += 1
        honest(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", unlink)
        consumed()
    assert sum(p.exists() for p in shards) == n_left
    report = consumed()
    assert report.sha256 == sha256(work / f"{STEM}.gguf") == ORIGINAL
    assert not (work / STEM).exists()
    restored()
    assert [sha256(p) for p in shards] == [sha256(p) for p in SHARDS]


# ---- on a disk that has no room for two ----


@pytest.fixture
def small_disk(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of 27 MiB, and the current one; 24 MiB of shards fit, and little else."""
    folder = work / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=27m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        monkeypatch.chdir(folder)
        yield folder
    finally:
        monkeypatch.chdir(work)
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_with_room_for_one_copy_is_enough(small_disk: Path, work: Path) -> None:
    whole = work / "m.gguf"
    whole.write_bytes(model_bytes(24))
    make_shards(whole, small_disk / "m", max_tensors=20)
    with pytest.raises(NoSpaceError, match=r"2\d\.\d MiB to write, .* MiB free: .* short"):
        merge(plan_merge(find_model(shards=True)))
    report = consumed()
    assert report.sha256 == sha256(small_disk / "m.gguf") == sha256(whole)
    with pytest.raises(NoSpaceError):
        restored()
    assert {p.name for p in small_disk.iterdir()} == {".ggufkit", "m.gguf"}


def test_a_disk_that_fills_up_meanwhile_keeps_everything(
    small_disk: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = work / "m.gguf"
    whole.write_bytes(model_bytes(24))
    make_shards(whole, small_disk / "m", max_tensors=20)
    filler = small_disk / "filler"

    def note(slots: int, done: int) -> None:
        honest_note(slots, done)
        if done >= 8 << 20 and not filler.exists():
            fill(filler)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "punch_hole", lambda *_: not filler.exists() and punch_hole(*_))
        patch.setattr(engine, "note", note)
        with pytest.raises(NoSpaceError, match="the disk is full"):
            consumed()
    filler.unlink()
    assert consumed().sha256 == sha256(small_disk / "m.gguf") == sha256(whole)


def fill(path: Path) -> None:
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(64 << 10))


def test_a_real_runtime_that_has_the_shards_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama-server closes the files of a model that it has loaded, and keeps them mapped."""
    monkeypatch.chdir(tmp_path)
    shards = make_shards(testbed.smollm2(), tmp_path / "m", prefix="m", max_tensors=100)
    with run_llama_server(shards[0]) as server:
        with pytest.raises(AccessError, match=r"00001-of-00003\.gguf is in use by llama-server") as caught:
            consumed(shards[0])
        assert server.complete("The capital of France is", 4)
    assert caught.value.hint == "end it, then run the same command again"
    assert consumed(shards[0]).sha256 == testbed.SMOLLM2_SHA256
