"""Verifying what was pulled, offline: every kind of fault, what nobody published, what nobody recorded."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ggufkit.errors import FormatError, NotFoundError
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import merge, plan_merge
from ggufkit.verbs.pull import plan_pull, pull
from ggufkit.verbs.record import records_in, write_record
from ggufkit.verbs.verify import FileCheck, VerifyReport, verify
from tests.support.ggufs import make_gguf, make_shards
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, sha256


@pytest.fixture
def shards(hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A set that was pulled, and a machine that has gone offline since."""
    report = pull(plan_pull(REPO_ID, quant=QUANT))

    def offline(*_arguments: object) -> None:
        raise AssertionError("verify asks nobody")

    monkeypatch.setattr(socket.socket, "connect", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    return [f.target for f in report.files]


def statuses(report: VerifyReport) -> list[str]:
    return [check.status for check in report.files]


def only_fault(report: VerifyReport, shard: Path) -> FileCheck:
    (fault,) = report.faults
    assert fault.path.name == shard.name
    return fault


@pytest.mark.parametrize("argument", ["nothing", "root", "folder", "shard"])
def test_what_was_pulled_is_verified_by_every_name(shards: list[Path], work: Path, argument: str) -> None:
    named = {"nothing": None, "root": NAME, "folder": f"{NAME}/{FOLDER}", "shard": str(shards[2])}[argument]
    report = verify(named)
    assert statuses(report) == ["ok"] * 4 and report.faults == report.unproven == ()
    assert [c.sha256 for c in report.files] == [c.expected_sha256 for c in report.files]
    assert (report.name, report.repo_id, report.quant, report.recorded) == (FOLDER, REPO_ID, QUANT, True)
    assert report.remedy == f"ggufkit pull {REPO_ID} --quant {QUANT}"


@pytest.mark.parametrize("at", [0, 8, 50_000, -1])
def test_a_flipped_byte_is_found_though_size_and_time_are_as_before(shards: list[Path], at: int) -> None:
    verify(NAME)
    status, data = shards[1].stat(), bytearray(shards[1].read_bytes())
    data[at] ^= 1
    shards[1].write_bytes(data)
    os.utime(shards[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    fault = only_fault(verify(NAME), shards[1])
    assert fault.status == "digest" and fault.sha256 == sha256(bytes(data)) != fault.expected_sha256
    if at in (0, 8):
        assert fault.cause in ("header", "foreign") and "SHA-256" not in fault.detail
    else:
        assert fault.cause == "digest"
        assert fault.sha256 in fault.detail and str(fault.expected_sha256) in fault.detail


@pytest.mark.parametrize("n_bytes", [-1, 1, -70_000])
def test_another_length_is_found_without_reading(shards: list[Path], n_bytes: int) -> None:
    size = shards[3].stat().st_size
    os.truncate(shards[3], size + n_bytes)
    fault = only_fault(verify(NAME), shards[3])
    assert fault.status == "size" and fault.sha256 is None
    if n_bytes < 0:
        told = f"ends {-n_bytes:,} bytes early: it has {size + n_bytes:,} of {size:,} bytes"
    else:
        told = f"has {n_bytes:,} bytes more than the {size:,} that were published"
    assert fault.detail == told and fault.cause == ("truncated" if n_bytes < 0 else "too-long")


@pytest.mark.parametrize("argument", [None, NAME, f"{NAME}/{FOLDER}", "the missing shard"])
def test_a_missing_file_is_found(shards: list[Path], argument: str | None) -> None:
    shards[1].unlink()
    report = verify(str(shards[1]) if argument == "the missing shard" else argument)
    fault = only_fault(report, shards[1])
    assert fault.status == "missing" and fault.size_bytes is None and len(report.files) == 4


@pytest.mark.parametrize("argument", [None, NAME, "a shard"])
def test_all_files_missing_is_found_too(shards: list[Path], argument: str | None) -> None:
    for shard in shards:
        shard.unlink()
    report = verify(str(shards[1]) if argument == "a shard" else argument)
    assert statuses(report) == ["missing"] * 4


def test_several_faults_are_all_told(shards: list[Path]) -> None:
    shards[0].unlink()
    os.truncate(shards[1], 5)
    data = shards[2].read_bytes()
    shards[2].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert statuses(verify(NAME)) == ["missing", "size", "digest", "ok"]


def test_a_file_without_a_published_digest_is_unproven(shards: list[Path]) -> None:
    from dataclasses import replace

    (record,) = records_in(Path(NAME))
    files = record.manifest.files
    bare = (files[0], replace(files[1], sha256=None), *files[2:])
    write_record(record.root, replace(record.manifest, files=bare))
    report = verify(NAME)
    assert statuses(report) == ["ok", "unproven", "ok", "ok"] and report.faults == ()
    (unproven,) = report.unproven
    assert unproven.sha256 == files[1].sha256 and "publishes no digest" in unproven.detail


def test_a_merged_file_is_verified_against_what_the_merge_took(shards: list[Path], work: Path) -> None:
    merged = merge(plan_merge(find_model(NAME, shards=True))).output
    report = verify(str(merged))
    assert statuses(report) == ["ok"] and report.recorded and report.repo_id is None
    assert report.remedy == "ggufkit pull unsloth/DeepSeek-R1-GGUF --quant UD-IQ2_XXS --merge"
    data = merged.read_bytes()
    merged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert statuses(verify(str(merged))) == ["digest"]
    assert statuses(verify(NAME)) == ["ok"] * 4, "the folder's record is that of the pull"


def test_two_pulled_sets_must_be_told_apart(shards: list[Path]) -> None:
    from dataclasses import replace

    (record,) = records_in(Path(NAME))
    other = make_gguf(Path(NAME) / "other" / "other.gguf")
    files = (replace(record.manifest.files[0], path="other/other.gguf", sha256=sha256(other),
                     size_bytes=other.stat().st_size),)  # fmt: skip
    write_record(record.root, replace(record.manifest, name="other", files=files))
    with pytest.raises(NotFoundError, match="2 models"):
        verify(NAME)
    assert statuses(verify(str(other))) == ["ok"]
    assert statuses(verify(f"{NAME}/{FOLDER}")) == ["ok"] * 4


# ---- models that nobody recorded ----


def test_an_unrecorded_model_is_unproven_whatever_it_is(work: Path) -> None:
    path = make_gguf(work / "m.gguf")
    report = verify()
    assert statuses(report) == ["unproven"] and not report.recorded and report.name == "m"
    assert report.files[0].path.absolute() == path and report.remedy is None


def test_an_unrecorded_set(work: Path) -> None:
    shards = make_shards(make_gguf(work / "whole" / "m.gguf"), work / "m", max_tensors=6)
    assert statuses(verify("m")) == ["unproven"] * 4
    os.truncate(shards[2], 9000)
    report = verify("m")
    assert statuses(report) == ["unproven", "unproven", "format", "unproven"]
    assert "bytes" in report.faults[0].detail
    shards[2].unlink()
    report = verify("m")
    assert statuses(report) == ["unproven"] * 3 + ["missing"]
    assert report.faults[0].path == shards[2].relative_to(work)


def test_an_unrecorded_set_that_does_not_go_together_is_an_error(work: Path) -> None:
    shards = make_shards(make_gguf(work / "whole" / "m.gguf"), work / "m", max_tensors=6)
    shards[1].write_bytes(shards[2].read_bytes())
    report = verify("m")
    assert statuses(report) == ["unproven", "format", "unproven", "unproven"]
    assert report.faults[0].cause == "renamed" and report.remedy is None, "the right name is taken"
    other = make_shards(make_gguf(work / "other" / "m.gguf", seed=2), work / "o", max_tensors=8)
    other[1].rename(shards[1])
    with pytest.raises(FormatError, match="split"):
        verify("m")


def test_two_models_at_hand_are_not_guessed_among(shards: list[Path], work: Path) -> None:
    """The model pulled last is one of them, so it is meant; else nobody can know."""
    make_gguf(work / "other.gguf")
    assert verify().name == FOLDER
    (work / NAME).rename(work.parent / "elsewhere")
    make_gguf(work / "third.gguf")
    with pytest.raises(NotFoundError, match="2 models"):
        verify()


def test_there_is_nothing_to_verify(work: Path) -> None:
    for argument in (None, "nothing", "."):
        with pytest.raises(NotFoundError):
            verify(argument)


def test_progress_counts_the_bytes(shards: list[Path]) -> None:
    class Heard:
        total = done = 0

        def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
            assert task == f"verifying {FOLDER}"
            self.total = total_bytes

        def advance(self, n_bytes: int) -> None:
            self.done += n_bytes

        def note(self, message: str) -> None:
            raise AssertionError(message)

        def finish(self) -> None:
            self.finished = True

    heard = Heard()
    verify(NAME, heard)
    assert heard.total == heard.done == sum(s.stat().st_size for s in shards) and heard.finished
