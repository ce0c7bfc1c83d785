"""Raw parts: found by name, judged by content and sizes, joined to the byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import testbed

from ggufkit.errors import FormatError, IntegrityError, NotFoundError, UsageError
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
from ggufkit.transfer import consume as engine
from ggufkit.transfer import consume_notes
from ggufkit.transfer.consume_notes import Consumption
from ggufkit.verbs.consume import consume
from ggufkit.verbs.join import find_parts, plan_consuming_join, plan_join
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import MergePlan, merge
from ggufkit.verbs.record import remember_last, write_record
from tests.support.ggufs import gguf_bytes
from tests.verbs.published import everything, sha256

STYLES = {
    "mradermacher": [f"m.gguf.part{n}of3" for n in (1, 2, 3)],
    "TheBloke": [f"m.gguf-split-{c}" for c in "abc"],
    "split": [f"m.gguf.split-a{c}" for c in "abc"],
    "Qwen": [f"m.gguf.{c}" for c in "abc"],
    "from 0": [f"m.gguf.part0{n}" for n in (0, 1, 2)],
    "digits": [f"m.gguf.00{n}" for n in (1, 2, 3)],
}
DATA = gguf_bytes(seed=3)


def write(folder: Path, names: list[str], data: bytes = DATA) -> list[Path]:
    """Cut `data` at odd places into parts of these names; the first ends within the header."""
    cuts = [
        0,
        1000,
        *sorted(random.Random(len(names)).sample(range(2000, len(data)), len(names) - 2)),
        len(data),
    ]
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in names]
    for path, start, end in zip(paths, cuts, cuts[1:], strict=False):
        path.write_bytes(data[start:end])
    return paths


def planned(argument: Path | None = None) -> MergePlan:
    found = find_parts(None if argument is None else str(argument))
    assert found is not None
    return plan_join(found)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("argument", ["nothing", "folder", "a part"])
def test_they_make_the_file(work: Path, style: str, argument: str) -> None:
    paths = write(work / "parts", STYLES[style])
    before = {p: p.read_bytes() for p in paths}
    report = merge(planned({"nothing": None, "folder": work / "parts", "a part": paths[1]}[argument]))
    assert report.output.absolute() == work / "parts" / "m.gguf" and report.pieces == "part"
    assert report.output.read_bytes() == DATA and report.sha256 == sha256(DATA)
    assert {p: p.read_bytes() for p in paths} == before
    assert merge(planned(work / "parts")).already


def test_a_real_model_in_parts(work: Path) -> None:
    for part in testbed.gemma3_parts():
        (work / part.name).symlink_to(part)
    report = merge(planned())
    assert report.sha256 == testbed.GEMMA3_SHA256 and report.n_shards == 4


def test_ten_come_after_nine(work: Path) -> None:
    write(work, [f"m.gguf.part{n}of12" for n in range(1, 13)])
    assert merge(planned()).sha256 == sha256(DATA)


@pytest.mark.parametrize("style", STYLES)
def test_they_go_as_they_are_joined(work: Path, style: str) -> None:
    write(work / "parts", STYLES[style])
    found = find_parts()
    assert found is not None
    report = consume(plan_consuming_join(found))
    assert report.sha256 == sha256(DATA) and report.freed_bytes == len(DATA)
    assert everything(work) >= {"parts", "parts/m.gguf"} and not find_parts()
    assert not [p for p in everything(work) if ".gguf." in p or "-split-" in p or "headers" in p]


@pytest.mark.parametrize("n_left", [1, 3])
def test_killed_while_consuming_it_goes_on(work: Path, monkeypatch: pytest.MonkeyPatch, n_left: int) -> None:
    paths = write(work, STYLES["split"])
    monkeypatch.setattr(consume_notes, "MIN_STEP_BYTES", 64 << 10)
    honest = engine.remove_sources
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if n_left == 3:
            patch.setattr(engine, "note", interrupt_after_two())
        else:
            patch.setattr(engine, "remove_sources", remove_first)
        found = find_parts()
        assert found is not None
        consume(plan_consuming_join(found))
    assert engine.remove_sources is honest
    found = find_parts()
    assert found is not None and sum(p.exists() for p in paths) >= n_left
    assert consume(plan_consuming_join(found)).sha256 == sha256(DATA)
    assert not any(p.exists() for p in paths)


def remove_first(consumption: Consumption) -> None:
    consumption.sources[0].path.unlink()
    raise KeyboardInterrupt


def interrupt_after_two() -> object:
    calls: list[int] = []

    def note(slots: int, done: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            raise KeyboardInterrupt
        consume_notes.note(slots, done)

    return note


# ---- what is no whole file ----


@pytest.mark.parametrize(
    ("gone", "reason"),
    [(1, "is one of 3 parts, without part 2"), (0, "is one of 3 parts, without part 1")],
)
def test_a_gap_is_named(work: Path, gone: int, reason: str) -> None:
    write(work, STYLES["mradermacher"])[gone].unlink()
    with pytest.raises(FormatError, match=reason):
        planned()


def test_a_missing_last_part_is_known_by_the_header(work: Path) -> None:
    paths = write(work, STYLES["TheBloke"])
    n_bytes = paths.pop().stat().st_size
    (work / "m.gguf-split-c").unlink()
    with pytest.raises(
        FormatError, match=f"header speaks of {len(DATA):,}: {n_bytes:,} bytes are missing"
    ) as caught:
        planned()
    assert caught.value.hint == "pulling the parts again fetches what is missing"


def test_a_part_too_long_is_known_too(work: Path) -> None:
    paths = write(work, STYLES["TheBloke"])
    paths[1].write_bytes(paths[1].read_bytes() + b"12345")
    with pytest.raises(FormatError, match=r": 5 bytes too many"):
        planned()


def test_a_missing_last_padding_is_no_fault(work: Path) -> None:
    data = gguf_bytes(tensors=[("a", (33,), "F32")])
    unpadded = data[: len(data) - 28]  # 132 bytes of data, padded to 160
    write(work, STYLES["Qwen"][:2], unpadded)
    with pytest.raises(FormatError, match="bytes are missing"):
        (work / "n.gguf.a").write_bytes(unpadded[:-1])
        planned(work / "n.gguf.a")
    assert merge(planned(work / "m.gguf.a")).sha256 == sha256(unpadded)


def test_files_that_only_look_like_parts(work: Path) -> None:
    paths = write(work, STYLES["Qwen"])
    paths[2].write_bytes(DATA)
    with pytest.raises(FormatError, match=r"m\.gguf\.c: begins like a GGUF of its own"):
        planned()
    paths[0].write_bytes(b"<html>")
    with pytest.raises(FormatError, match=r"m\.gguf\.a: is the first part, but does not begin like a GGUF"):
        planned()


def test_two_files_for_one_part(work: Path) -> None:
    write(work, STYLES["Qwen"])
    (work / "m.gguf.part-2").write_bytes(b"?")
    with pytest.raises(FormatError, match="two files are part 2"):
        planned()


def test_the_output_is_none_of_the_parts(work: Path) -> None:
    paths = write(work, STYLES["Qwen"])
    found = find_parts()
    assert found is not None
    with pytest.raises(UsageError, match="is one of the parts"):
        plan_join(found, output=paths[2])


# ---- which parts are meant ----


def test_other_models_come_first(work: Path) -> None:
    write(work, STYLES["Qwen"])
    (work / "n.gguf").write_bytes(DATA)
    assert find_parts() is None and find_model().name == "n"
    assert find_parts(str(work / "m.gguf.b")) is not None
    assert find_parts(str(work / "n.gguf")) is None and find_parts("o/n:Q") is None


def test_two_sets_in_a_folder_are_a_question(work: Path) -> None:
    write(work, STYLES["Qwen"])
    write(work, STYLES["mradermacher"])
    with pytest.raises(NotFoundError, match="raw parts of 2 files"):
        find_parts()


def test_parts_pulled_last_are_found_and_proven(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = work / "m-GGUF"
    paths = write(root, STYLES["mradermacher"])
    files = tuple(ManifestFile(p.name, p.stat().st_size, sha256(p), None) for p in paths)
    source = ManifestSource("huggingface", "https://huggingface.co", "o/m-GGUF", "main", None)
    remember_last(write_record(root, Manifest("m", None, files, (source,))))
    (work / "elsewhere").mkdir()
    monkeypatch.chdir(work / "elsewhere")
    paths[2].write_bytes(bytes(paths[2].stat().st_size))
    plan = planned()
    assert plan.job is not None and len(plan.job.proofs) == 4
    with pytest.raises(IntegrityError, match=r"m\.gguf\.part3of3: SHA-256 is"):
        merge(plan)
    paths[2].unlink()
    with pytest.raises(FormatError, match="without part 3") as caught:
        planned(root)
    assert "ggufkit pull o/m-GGUF" in str(caught.value.hint)


@pytest.mark.parametrize("recorded", [True, False])
def test_other_commands_name_the_one_that_joins(work: Path, recorded: bool) -> None:
    paths = write(work / "m-GGUF", STYLES["mradermacher"])
    if recorded:
        files = tuple(ManifestFile(p.name, p.stat().st_size, None, None) for p in paths)
        write_record(work / "m-GGUF", Manifest("m", None, files, ()))
    with pytest.raises(NotFoundError, match="no model in this folder, only raw parts of one") as caught:
        find_model()
    assert caught.value.hint == "ggufkit merge m-GGUF/m.gguf.part1of3 joins them"
    with pytest.raises(FormatError, match="is a raw part of a model") as refused:
        find_model(str(paths[1])).headers()
    assert refused.value.hint == f"ggufkit merge {paths[1]} joins all of them"
