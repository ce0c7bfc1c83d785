"""Merging: the published digests, every unsound set refused, nothing overwritten, killed and gone on with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import (
    FormatError,
    GgufkitError,
    IntegrityError,
    NoSpaceError,
    NotFoundError,
    TargetExistsError,
    UsageError,
)
from ggufkit.gguf.types import ValueType
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
from ggufkit.transfer import copying
from ggufkit.transfer.journal import Journal
from ggufkit.transfer.prover import DigestMismatch
from ggufkit.verbs import merge as merge_module
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import MergePlan, MergeReport, merge, plan_merge
from ggufkit.verbs.record import Record, find_record, write_record
from tests.gguf.test_llama_split import MERGED, ORIGINAL, SHARDS
from tests.support.ggufs import Typed, gguf_bytes, make_gguf, make_shards
from tests.verbs.published import Zygote, everything, model_bytes, moments, sha256
from tests.verbs.published import zygote as run_zygote

STEM = "Tiny-Test-Q4_K_M"


@pytest.fixture
def shards(work: Path) -> list[Path]:
    """Copies of the published shards, in a folder of their own name."""
    folder = work / STEM
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in SHARDS]


def planned(argument: Path | str | None = None, **options: Any) -> MergePlan:
    model = find_model(None if argument is None else str(argument), shards=True)
    return plan_merge(model, **options)


def merged(argument: Path | str | None = None, **options: Any) -> MergeReport:
    return merge(planned(argument, **options))


def failure(kind: type[GgufkitError], argument: Path | str | None = None, **options: Any) -> GgufkitError:
    with pytest.raises(kind) as caught:
        merged(argument, **options)
    return caught.value


def record_of(folder: Path, shards: list[Path], **digests: str) -> Record:
    """Record the shards as pulled, with their own digests but for those given by number."""
    files = tuple(
        ManifestFile(
            p.relative_to(folder).as_posix(), p.stat().st_size, digests.get(f"n{i}") or sha256(p), None
        )
        for i, p in enumerate(shards, 1)
    )
    source = ManifestSource("huggingface", "https://huggingface.co", f"tiny/{folder.name}", "main", None)
    return write_record(folder, Manifest(STEM, "Q4_K_M", files, (source,)))


# ---- what comes out ----


@pytest.mark.parametrize("argument", ["nothing", "folder", "folder above", "first", "last", "middle"])
def test_the_original_comes_back_from_whatever_names_the_set(
    shards: list[Path], work: Path, argument: str
) -> None:
    named = {
        "nothing": None,
        "folder": work / STEM,
        "folder above": work,
        "first": shards[0],
        "last": shards[-1],
        "middle": shards[2],
    }[argument]
    before = {p: p.read_bytes() for p in shards}
    report = merged(named)
    output = work / f"{STEM}.gguf"
    assert report.output.absolute() == output and not report.already
    assert sha256(output) == report.sha256 == ORIGINAL
    assert report.n_bytes == output.stat().st_size and report.n_shards == 5
    assert {p: p.read_bytes() for p in shards} == before, "shards are only read"
    assert everything(work) == {STEM, f"{STEM}.gguf", *(f"{STEM}/{p.name}" for p in shards)}


def test_with_the_split_keys_it_is_what_llama_gguf_split_writes(shards: list[Path], work: Path) -> None:
    report = merged(keep_split_keys=True)
    assert report.sha256 == MERGED and report.n_bytes == 2_453_248


@pytest.mark.parametrize("fallback", ["no copy_file_range", "no pread either"])
def test_where_the_kernel_copies_nothing_the_same_comes_out(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    plan = planned()
    with monkeypatch.context() as patch:
        patch.delattr(os, "copy_file_range", raising=False)
        if fallback == "no pread either":
            patch.delattr(os, "pread")
            patch.delattr(os, "pwrite")
        report = merge(plan)
    assert sha256(report.output) == ORIGINAL


def test_shards_beside_other_things_are_merged_beside_them(work: Path) -> None:
    for path in SHARDS:
        shutil.copy(path, work)
    assert merged(work / SHARDS[3].name).output.absolute() == work / f"{STEM}.gguf"


@pytest.mark.parametrize("output", ["other.gguf", "new/folder/other.gguf", "there", "there/other.gguf"])
def test_the_output_may_be_named_or_a_folder(shards: list[Path], work: Path, output: str) -> None:
    (work / "there").mkdir()
    report = merged(output=work / output)
    wanted = work / output / f"{STEM}.gguf" if output == "there" else work / output
    assert report.output == wanted and sha256(wanted) == ORIGINAL


@pytest.mark.parametrize("options", [{"max_tensors": 1}, {"max_tensors": 7}, {"no_tensor_first": True}])
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_any_alignment_and_any_cut(work: Path, options: dict[str, Any], alignment: int | None) -> None:
    whole = make_gguf(work / "whole" / "m.gguf", kv={"general.alignment": alignment})
    data = whole.read_bytes()
    make_shards(whole, work / "m", **options)
    report = merged(work / "m", output=work / "again.gguf")
    assert (work / "again.gguf").read_bytes() == data and report.sha256 == sha256(data)


def test_a_set_of_one_shard_is_merged_too(work: Path) -> None:
    whole = make_gguf(work / "whole" / "m.gguf")
    (shard,) = make_shards(whole, work / "m", max_tensors=1000)
    assert shard.name == "m-00001-of-00001.gguf"
    assert merged(shard).output.read_bytes() == whole.read_bytes()


def test_without_proofs_no_digest_is_taken(shards: list[Path], work: Path) -> None:
    report = merged(verify=False)
    assert report.sha256 is None and sha256(report.output) == ORIGINAL


def test_a_model_that_is_one_file_needs_no_merging(work: Path) -> None:
    path = make_gguf(work / "m.gguf")
    report = merged(path)
    assert report.already and report.n_shards == 1 and report.output == path
    assert merged(path, output=path).already
    error = failure(UsageError, path, output=work / "other.gguf")
    assert "one file already" in error.message and not (work / "other.gguf").exists()


# ---- sets that are refused before the first byte ----


def cut(n_bytes: int) -> Callable[[list[Path]], None]:
    return lambda shards: os.truncate(shards[2], shards[2].stat().st_size - n_bytes)


def to_its_header(shards: list[Path]) -> None:
    from ggufkit.transfer.sources import open_header

    os.truncate(shards[4], open_header(shards[4]).data_offset)


def swap(shards: list[Path]) -> None:
    second, third = shards[1].read_bytes(), shards[2].read_bytes()
    shards[1].write_bytes(third)
    shards[2].write_bytes(second)


def replace_third(**header: Any) -> Callable[[list[Path]], Any]:
    """Put another shard in the third's place, with the right split keys but for those given."""
    keys: dict[str, Any] = {
        "split.no": Typed(ValueType.UINT16, 2),
        "split.count": Typed(ValueType.UINT16, 5),
        "split.tensors.count": Typed(ValueType.INT32, 57),
    }
    tensors = header.pop("tensors", [(f"foreign.{i}", (256,), "F32") for i in range(12)])
    keys |= {name.replace("_", ".") if "split" in name else name: value for name, value in header.items()}
    return lambda shards: shards[2].write_bytes(gguf_bytes(arch=None, tensors=tensors, kv=keys))


UNSOUND: dict[str, tuple[Callable[[list[Path]], Any], str, str]] = {
    "truncated": (cut(5000), "00003", "ends"),
    "truncated by a byte": (cut(33), "00003", "ends"),
    "cut to its header": (to_its_header, "00005", "ends"),
    "empty": (lambda s: os.truncate(s[2], 0), "00003", ""),
    "swapped": (swap, "00002", "renamed?"),
    "a copy of another": (lambda s: s[2].write_bytes(s[1].read_bytes()), "00003", "shard 2"),
    "the first twice": (lambda s: s[1].write_bytes(s[0].read_bytes()), "00002", "shard 1"),
    "missing": (lambda s: s[2].unlink(), STEM, "00003-of-00005.gguf"),
    "the first missing": (lambda s: s[0].unlink(), STEM, "00001-of-00005.gguf"),
    "foreign, of another model": (
        replace_third(tensors=[("foreign", (256,), "F32")]), "", "46 tensors",
    ),
    "foreign, of another cut": (replace_third(split_count=Typed(ValueType.UINT16, 4)), "00003", "4"),
    "foreign, with other metadata": (
        replace_third(**{"general.architecture": "gpt2"}), "00003", "general.architecture",
    ),
    "a tensor twice": (
        replace_third(tensors=[(f"blk.{i}.attn_norm.weight", (256,), "F32") for i in range(12)]),
        "", "more than one shard",
    ),
    "split.count of another type": (replace_third(split_count="5"), "00003", "split.count is no integer"),
    "split.no beyond its count": (replace_third(split_no=Typed(ValueType.UINT16, 9)), "00003", "no is 9"),
    "no split keys": (lambda s: s[2].write_bytes(gguf_bytes()), "00003", "no shard"),
    "no GGUF": (lambda s: s[2].write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "00003", ""),
    "HTML": (lambda s: s[2].write_bytes(b"<html>" * 1000), "00003", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSOUND)
@pytest.mark.parametrize("force", [False, True])
def test_an_unsound_set_is_refused_before_the_first_byte(
    shards: list[Path], work: Path, case: str, force: bool
) -> None:
    spoil, name, reason = UNSOUND[case]
    spoil(shards)
    old = work / f"{STEM}.gguf"
    if force:
        old.write_bytes(b"the file from last year")
    before = everything(work)
    error = failure(FormatError, work / STEM, force=force)
    assert error.exit_code == 7 and name in error.message and reason in error.message
    assert everything(work) == before, "nothing was written"
    assert not force or old.read_bytes() == b"the file from last year"


def test_a_single_shard_under_another_name_is_no_model(shards: list[Path], work: Path) -> None:
    shards[0].rename(work / "model.gguf")
    assert "one shard of several" in failure(FormatError, work / "model.gguf").message


def test_a_foreign_shard_that_only_its_tensors_give_away_is_warned_of(work: Path) -> None:
    """Without published digests nothing else can tell; `inspect` and `merge` show the warning."""
    shards = make_shards(make_gguf(work / "whole" / "m.gguf"), work / "m", max_tensors=12)
    keys: dict[str, Any] = {
        "split.no": Typed(ValueType.UINT16, 1),
        "split.count": Typed(ValueType.UINT16, 2),
        "split.tensors.count": Typed(ValueType.INT32, 21),
    }
    foreign = [(f"foreign.{i}", (256,), "F32") for i in range(9)]
    shards[1].write_bytes(gguf_bytes(arch=None, tensors=foreign, kv=keys))
    (warning,) = planned(work / "m").warnings
    assert "no shard has tensors of block 1: is one of another model?" in warning


def test_no_model_is_not_found(work: Path) -> None:
    assert failure(NotFoundError).exit_code == 3
    assert failure(NotFoundError, work / "nothing.gguf").exit_code == 3


# ---- outputs ----


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "another way"])
@pytest.mark.parametrize("force", [False, True])
def test_a_shard_is_never_the_output(shards: list[Path], work: Path, how: str, force: bool) -> None:
    output = work / "out.gguf"
    if how == "itself":
        output = shards[1]
    elif how == "symbolic link":
        output.symlink_to(shards[1])
    elif how == "hard link":
        output.hardlink_to(shards[1])
    else:
        output = work / STEM / ".." / STEM / shards[1].name
    before = {p: p.read_bytes() for p in shards}
    error = failure(UsageError, work / STEM, output=output, force=force)
    assert error.exit_code == 2 and "one of the shards" in error.message
    assert {p: p.read_bytes() for p in shards} == before


def test_what_is_no_file_is_never_the_output(shards: list[Path], work: Path) -> None:
    os.mkfifo(work / "pipe")
    assert "is no file" in failure(UsageError, output=work / "pipe", force=True).message


def test_another_file_is_not_overwritten(shards: list[Path], work: Path) -> None:
    output = work / f"{STEM}.gguf"
    output.write_bytes(b"precious")
    error = failure(TargetExistsError)
    assert error.exit_code == 9 and "--force" in (error.hint or "")
    assert output.read_bytes() == b"precious"


def test_a_file_that_differs_in_one_byte_is_another_file(shards: list[Path], work: Path) -> None:
    output = merged().output
    data = bytearray(output.read_bytes())
    data[-100] ^= 1
    output.write_bytes(data)
    failure(TargetExistsError, work / STEM)
    assert output.read_bytes() == data


def test_force_replaces_by_a_new_file(shards: list[Path], work: Path) -> None:
    output, second = work / f"{STEM}.gguf", work / "second name"
    output.write_bytes(b"last year's")
    second.hardlink_to(output)
    assert not merged(work / STEM, force=True).already
    assert sha256(output) == ORIGINAL and second.read_bytes() == b"last year's"


def test_force_replaces_a_link_and_not_what_it_leads_to(shards: list[Path], work: Path) -> None:
    output, precious = work / f"{STEM}.gguf", work / "precious"
    precious.write_bytes(b"precious")
    output.symlink_to(precious)
    merged(work / STEM, force=True)
    assert not output.is_symlink() and sha256(output) == ORIGINAL
    assert precious.read_bytes() == b"precious"


def test_a_sound_file_that_is_there_is_success_without_a_write(shards: list[Path], work: Path) -> None:
    first = merged()
    before = first.output.stat()
    again = merged(work / STEM)
    assert again.already and again.output.stat().st_mtime_ns == before.st_mtime_ns
    assert again.output.stat().st_ino == before.st_ino


def test_a_recorded_file_that_is_there_is_not_read_again(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_of(work, shards)
    merged(work / STEM)

    def reading(*_arguments: object) -> bool:
        raise AssertionError("its digest is remembered")

    monkeypatch.setattr(merge_module, "is_same_content", reading)
    again = merged(work / STEM)
    assert again.already and again.sha256 == ORIGINAL


def test_a_dry_run_writes_nothing(shards: list[Path], work: Path, own_home: Path) -> None:
    before = everything(work)
    plan = planned(output=work / "a" / "b.gguf")
    assert plan.n_bytes == 2_453_152 and plan.n_shards == 5 and not plan.exists and plan.free_bytes > 0
    assert everything(work) == before and everything(own_home) == set()


def test_a_disk_without_room_is_told_before_the_first_byte(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_module, "free_bytes", lambda _path: 2_453_151)
    before = everything(work)
    error = failure(NoSpaceError)
    assert error.exit_code == 8 and "--output" in (error.hint or "") and everything(work) == before
    monkeypatch.setattr(merge_module, "free_bytes", lambda _path: 2_453_152)
    merged()


@pytest.mark.parametrize("output", ["out.gguf", "deeper/out.gguf"])
def test_a_file_where_the_folder_should_be(shards: list[Path], work: Path, output: str) -> None:
    (work / "file").write_text("no folder")
    error = failure(UsageError, output=work / "file" / output)
    assert error.message == f"{work / 'file'} is a file, not a folder" and "--output" in (error.hint or "")


# ---- published digests ----


def test_published_digests_are_checked_while_merging(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    data = bytearray(shards[3].read_bytes())
    data[-1000] ^= 1
    shards[3].write_bytes(data)
    before = everything(work)
    error = failure(IntegrityError, work / STEM)
    assert error.exit_code == 6 and shards[3].name in error.message
    assert error.hint == "ggufkit pull tiny/work --quant Q4_K_M --local-dir . fetches that shard anew"
    assert everything(work) == before, "no output and no part of one"


def test_a_header_that_is_not_the_published_one_is_found_too(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    data = shards[0].read_bytes()
    shards[0].write_bytes(data.replace(b"llama.block_count", b"llama.block_caunt"))
    assert isinstance(failure(IntegrityError, work / STEM), IntegrityError)


def test_bytes_behind_the_data_belong_to_the_digest(shards: list[Path], work: Path) -> None:
    shards[1].write_bytes(shards[1].read_bytes() + b"behind" * 1000)
    record_of(work, shards)
    assert merged(work / STEM).sha256 == ORIGINAL
    (work / f"{STEM}.gguf").unlink()
    data = bytearray(shards[1].read_bytes())
    data[-3] ^= 1
    shards[1].write_bytes(data)
    failure(IntegrityError, work / STEM)


def test_without_verify_a_damaged_shard_is_merged_as_it_is(shards: list[Path], work: Path) -> None:
    record_of(work, shards, n2="0" * 64)
    failure(IntegrityError, work / STEM)
    assert sha256(merged(work / STEM, verify=False).output) == ORIGINAL


def test_the_merged_file_is_recorded_beside_what_was_pulled(shards: list[Path], work: Path) -> None:
    record_of(work, shards)
    report = merged(work / STEM)
    record = find_record(report.output)
    assert record is not None and record.manifest.files[0].sha256 == ORIGINAL
    assert record.file.parent.name == "merged" and record.manifest.sources == ()


def test_digests_that_are_known_are_not_taken_again(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_of(work, shards)
    assert [p.name for p in planned(work / STEM).job.proofs] == [  # type: ignore[union-attr]
        "the merged file",
        *(p.name for p in shards),
    ]
    merged(work / STEM, force=True)
    job = planned(work / STEM, force=True).job
    assert job is not None and [p.name for p in job.proofs] == ["the merged file"]
    os.utime(shards[1], ns=(1, 1))
    job = planned(work / STEM, force=True).job
    assert job is not None and [p.name for p in job.proofs] == ["the merged file", shards[1].name]


def test_a_shard_that_changes_meanwhile_spoils_the_merge(
    shards: list[Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = copying.copy_lending

    def touch_and_copy(*arguments: Any) -> None:
        shards[4].write_bytes(shards[4].read_bytes()[:-64] + bytes(64))
        honest(*arguments)

    monkeypatch.setattr("ggufkit.transfer.sources.copy_lending", touch_and_copy)
    error = failure(IntegrityError, work / STEM)
    assert "changed" in error.message and not isinstance(error, DigestMismatch)
    assert not (work / f"{STEM}.gguf").exists() and not list(work.glob("*.part"))


# ---- killed ----

SLOW_COPY = """
import os, time
import ggufkit.transfer.copying as copying, ggufkit.transfer.journal as journal
copying.LENT_BYTES, journal.SAVE_EVERY_BYTES = 1 << 18, 1 << 20
honest = copying._read_into
def slow(*arguments):
    time.sleep(0.01)
    return honest(*arguments)
copying._read_into = slow
"""


@pytest.fixture
def zygote(own_home: Path) -> Iterator[Zygote]:
    with run_zygote({"HOME": str(own_home), "PATH": os.environ["PATH"]}) as one:
        yield one


def test_killed_at_random_moments_it_goes_on(work: Path, zygote: Zygote) -> None:
    whole = work / "whole" / "m.gguf"
    whole.parent.mkdir()
    data = model_bytes(12, seed=8)
    whole.write_bytes(data)
    shards = make_shards(whole, work / "m", max_tensors=9)
    whole.unlink()
    record_of(work, list(shards))
    n_resumed = 0
    for wait_s in moments(seed=5, n=8, longest_s=0.5):
        child = zygote.start(work, "merge", "m", patch=SLOW_COPY)
        time.sleep(wait_s)
        child.signal(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL)
        assert not (work / "m.gguf").exists() or (work / "m.gguf").read_bytes() == data
        parts = list(work.glob("*.part"))
        n_resumed += bool(parts) and bool(list((work / ".ggufkit" / "journal").glob("*.written")))
        if random.Random(wait_s).random() < 0.5:
            assert zygote.run(work, "merge", "m") == 0
            assert (work / "m.gguf").read_bytes() == data
            (work / "m.gguf").unlink()
    assert zygote.run(work, "merge", "m") == 0
    assert (work / "m.gguf").read_bytes() == data
    assert n_resumed >= 3
    assert not [p for p in everything(work) if "journal" in p or p.endswith(".part")]


def test_an_interrupted_merge_goes_on_and_says_so(work: Path, zygote: Zygote, own_home: Path) -> None:
    whole = work / "whole" / "m.gguf"
    whole.parent.mkdir()
    whole.write_bytes(model_bytes(12, seed=9))
    make_shards(whole, work / "m", max_tensors=9)
    child = zygote.start(work, "merge", "m", patch=SLOW_COPY)
    deadline = time.monotonic() + 10
    while not list(work.glob("m.gguf.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    child.signal(signal.SIGINT)
    assert child.wait() == 130
    assert (own_home / "err").read_text().endswith("hint: the same command goes on from here\n")
    (own_home / "err").unlink()
    assert zygote.run(work, "merge", "m") == 0
    assert "resumed at" in (own_home / "err").read_text()
    assert (work / "m.gguf").read_bytes() == whole.read_bytes()


def test_two_merges_at_once_end_right(work: Path, zygote: Zygote) -> None:
    whole = work / "whole" / "m.gguf"
    whole.parent.mkdir()
    whole.write_bytes(model_bytes(8, seed=10))
    make_shards(whole, work / "m", max_tensors=9)
    children = [zygote.start(work, "merge", "m", patch=SLOW_COPY) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert (work / "m.gguf").read_bytes() == whole.read_bytes()
    assert everything(work) == {"m", "m.gguf", "whole", "whole/m.gguf", *(
        f"m/{p.name}" for p in (work / "m").iterdir()
    )}  # fmt: skip


def test_notes_of_a_run_killed_after_its_rename_are_taken_away(shards: list[Path], work: Path) -> None:
    merged(work / STEM)
    before = everything(work)
    job = planned(work / STEM).job
    assert job is not None
    Journal(job.journal, job.identity).save()
    assert merged(work / STEM).already and everything(work) == before
