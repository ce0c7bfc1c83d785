"""`pull --merge` as a user meets it: one file, every byte fetched once, every shard proven."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from ggufkit.errors import (
    AccessError,
    FormatError,
    IntegrityError,
    NetworkError,
    NoSpaceError,
    TargetExistsError,
)
from ggufkit.gguf.layout import merge_layout
from ggufkit.gguf.shards import check_set
from ggufkit.transfer.engine import Job, write
from ggufkit.transfer.sources import LocalSource, open_header
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import merge, plan_merge
from ggufkit.verbs.pull import plan_pull, pull
from ggufkit.verbs.pull_merged import MergedReport, plan_pull_merged, pull_merged
from ggufkit.verbs.record import kept_headers, last_pulled, pull_command, records_in
from ggufkit.verbs.verify import verify
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, everything, model_bytes, publish, sha256
from tests.verbs.test_pull import Heard

MERGED = f"{NAME}/{FOLDER}.gguf"


def get(source: str = "auto", **how: Any) -> MergedReport:
    plan = plan_pull(REPO_ID, quant=QUANT, source=source, **how)
    return pull_merged(plan_pull_merged(plan))


@pytest.fixture
def merged(files: dict[str, bytes], tmp_path: Path) -> bytes:
    """What llama-gguf-split's own merging, held by other tests, makes of the published shards."""
    folder = tmp_path / "shards"
    folder.mkdir()
    paths = []
    for name, data in sorted(files.items()):
        paths.append(folder / Path(name).name)
        paths[-1].write_bytes(data)
    layout = merge_layout(check_set([open_header(path) for path in paths]))
    sources = tuple(LocalSource(path, path.stat().st_size) for path in paths)
    write(Job(tmp_path / "expected.gguf", layout, sources, tmp_path / "journal" / "j"))
    return (tmp_path / "expected.gguf").read_bytes()


# ---- the plain way ----


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_the_merged_file_comes_straight_from_either_hub(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path, source: str
) -> None:
    report = get(source)
    assert (work / MERGED).read_bytes() == merged
    assert (report.sha256, report.n_bytes, report.state) == (sha256(merged), len(merged), "download")
    assert report.output == Path(MERGED) and len(report.shards) == len(files) and report.n_unproven == 0
    assert not list(work.rglob("*-of-*.gguf")) and not list(work.rglob("*.part"))
    assert hub.sent_bytes(plane="cdn") < sum(map(len, files.values())) + len(files) * (64 << 10)


def test_data_are_fetched_once_and_headers_on_top(
    hub: TestHub, tmp_path: Path, work: Path, files: dict[str, bytes]
) -> None:
    big = publish(tmp_path / "hub", model_bytes(6), repo_id="a/b-GGUF", stem="b-Q4_0", max_tensors=10)
    hub.refresh()
    report = pull_merged(plan_pull_merged(plan_pull("a/b-GGUF", connections=1)))
    total = sum(map(len, big.values()))
    assert hub.sent_bytes("", plane="cdn") <= total + len(big) * (64 << 10)
    assert report.fetched_bytes == sum(len(d) - open_header_of(d, tmp_path) for d in big.values())


def open_header_of(data: bytes, tmp_path: Path) -> int:
    path = tmp_path / "one.gguf"
    path.write_bytes(data)
    return open_header(path).data_offset


def test_what_is_recorded_names_the_shards_and_the_merged_file(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path
) -> None:
    get()
    assert everything(work) == {
        NAME,
        MERGED,
        *(f"{NAME}/.ggufkit{x}" for x in ("", "/merged", "/headers", f"/headers/{FOLDER}")),
        f"{NAME}/.ggufkit/{FOLDER}.json",
        f"{NAME}/.ggufkit/merged/{FOLDER}.json",
        *(f"{NAME}/.ggufkit/headers/{FOLDER}/{Path(p).name}.header" for p in files),
    }
    pulled, made = records_in(Path(NAME))
    assert {f.path: f.sha256 for f in pulled.manifest.files} == {p: sha256(d) for p, d in files.items()}
    assert [(f.path, f.size_bytes, f.sha256) for f in made.manifest.files] == [
        (f"{FOLDER}.gguf", len(merged), sha256(merged))
    ]
    kept = kept_headers(Path(NAME), FOLDER)
    for path, data in files.items():
        assert data.startswith(kept[Path(path).name]) and kept[Path(path).name].startswith(b"GGUF")
    last = last_pulled()
    assert last is not None and last.manifest == made.manifest, "it stands for its shards"
    assert pull_command(last) == f"ggufkit pull {REPO_ID} --quant {QUANT} --merge"


def test_running_again_does_no_work_and_later_commands_find_the_file(
    hub: TestHub, merged: bytes, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get()
    hub.requests.clear()
    monkeypatch.setattr("ggufkit.transfer.digest.sha256_file", None)  # what is proven is not read again
    again = get()
    assert (again.state, again.fetched_bytes, again.sha256) == ("kept", 0, sha256(merged))
    assert hub.asked(plane="cdn") == []
    model = find_model(None)
    assert model.files == (Path(MERGED),) and len(model.headers()[0].tensors) > 0
    assert merge(plan_merge(find_model(None, shards=True))).already
    monkeypatch.undo()


def test_planning_writes_nothing(hub: TestHub, merged: bytes, work: Path, own_home: Path) -> None:
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    assert (plan.n_bytes, plan.needed_bytes, plan.state) == (len(merged), len(merged), "download")
    assert everything(work) == set() and list(own_home.rglob("*.json")) == []


def test_verify_knows_the_file(hub: TestHub, merged: bytes, work: Path) -> None:
    get()
    for argument in (MERGED, NAME, None):
        report = verify(argument)
        assert [c.path for c in report.files] == [Path(MERGED)]
        assert [c.status for c in report.files] == ["ok"] and report.recorded


def test_from_another_folder_it_is_the_model_pulled_last(
    hub: TestHub, merged: bytes, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_model(None).files == (work.absolute() / MERGED,)


def test_a_folder_of_ones_own(hub: TestHub, merged: bytes, work: Path, tmp_path: Path) -> None:
    get(local_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / f"{FOLDER}.gguf").read_bytes() == merged
    assert everything(work) == set()


def test_shards_in_the_repos_own_folder(hub: TestHub, tmp_path: Path, work: Path) -> None:
    shards = publish(tmp_path / "hub", repo_id="a/b-GGUF", stem="b-Q4_0")
    for path in shards:
        file = tmp_path / "hub" / "a" / "b-GGUF" / path
        file.rename(file.parents[1] / file.name)
    hub.refresh()
    report = pull_merged(plan_pull_merged(plan_pull("a/b-GGUF")))
    assert report.output == Path("b-GGUF/b-Q4_0.gguf") and verify(str(report.output)).faults == ()


# ---- what is there already ----


def test_shards_that_are_here_are_not_fetched(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path
) -> None:
    pull(plan_pull(REPO_ID, quant=QUANT))
    first, *others = sorted(files)
    (work / NAME / first).unlink()
    hub.requests.clear()
    report = get()
    assert (work / MERGED).read_bytes() == merged
    assert {s.path: s.state for s in report.shards} == {first: "download"} | dict.fromkeys(others, "kept")
    assert 0 < report.fetched_bytes <= len(files[first])
    assert {r.path.partition("?")[0].rpartition("/")[2] for r in hub.asked(plane="cdn")} == {Path(first).name}


@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_stopped_plain_pull_left_is_not_fetched_again(
    hub: TestHub, tmp_path: Path, work: Path, naps: list[float], damaged: bool
) -> None:
    whole = model_bytes(8)
    big = publish(tmp_path / "hub", whole, repo_id="a/b-GGUF", stem="b-Q4_0", max_tensors=20)
    hub.refresh()
    first, *_ = sorted(big)
    hub.add(Fault(plane="cdn", path="00001-of", cut_after_bytes=len(big[first]) * 2 // 3))
    hub.add(Fault(plane="cdn", path="00001-of", status=503, skip=1))
    with pytest.raises(NetworkError):
        pull(plan_pull("a/b-GGUF", connections=1))
    hub.forget()
    (part,) = work.rglob("*.part")
    if damaged:
        data = bytearray(part.read_bytes())
        data[200_000] ^= 1
        part.write_bytes(data)
    plan = plan_pull("a/b-GGUF", connections=1)
    left = plan.files[0].resumed_bytes
    assert left > len(big[first]) // 3
    report = pull_merged(plan_pull_merged(plan))
    assert report.output.read_bytes() == whole
    fetched = sum(map(len, big.values())) - left
    assert report.fetched_bytes <= fetched
    assert damaged or hub.sent_bytes(plane="cdn") <= fetched + len(big) * (64 << 10)
    assert not list(work.rglob("*.part")) and not [p for p in everything(work) if "journal" in p]


def test_a_merged_file_whose_record_was_lost_is_proven_not_fetched(
    hub: TestHub, merged: bytes, work: Path
) -> None:
    get()
    (work / NAME / ".ggufkit" / "merged" / f"{FOLDER}.json").unlink()
    hub.requests.clear()
    report = get()
    assert (report.state, report.sha256) == ("kept", sha256(merged))
    assert hub.asked(plane="cdn") == []
    assert verify(MERGED).faults == ()


def test_a_file_of_the_name_that_is_not_ours_is_left_alone(hub: TestHub, merged: bytes, work: Path) -> None:
    for content in (b"mine", bytes(len(merged)), merged[:-1] + b"\0"):
        (work / NAME).mkdir(exist_ok=True)
        (work / MERGED).write_bytes(content)
        with pytest.raises(TargetExistsError) as caught:
            get()
        assert caught.value.exit_code == 9 and "was not made by" in caught.value.message
        assert (work / MERGED).read_bytes() == content
        assert everything(work / NAME) == {f"{FOLDER}.gguf"}


def test_our_own_file_that_was_damaged_is_fetched_again(hub: TestHub, merged: bytes, work: Path) -> None:
    get()
    data = bytearray(merged)
    data[-50] ^= 1
    (work / MERGED).write_bytes(data)
    report = get()
    assert report.state == "download" and (work / MERGED).read_bytes() == merged


def test_a_new_version_on_the_hub_replaces_the_file(
    hub: TestHub, merged: bytes, tmp_path: Path, work: Path, files: dict[str, bytes]
) -> None:
    get()
    for path in files:
        (tmp_path / "hub" / REPO_ID / path).unlink()
    (tmp_path / "hub" / REPO_ID / FOLDER).rmdir()
    new = publish_again(tmp_path)
    hub.refresh()
    heard = Heard()
    report = pull_merged(plan_pull_merged(plan_pull(REPO_ID, quant=QUANT)), heard)
    (said,) = (note for note in heard.lines if "another version" in note)
    assert said.startswith(f"the hub has another version of {FOLDER}-00001-of-0000")
    assert said.endswith(f"{Path(MERGED).name} begins anew")
    assert report.state == "download" and report.sha256 != sha256(merged)
    assert {s.sha256 for s in report.shards} == {sha256(d) for d in new.values()}
    assert verify(MERGED).faults == ()


def publish_again(tmp_path: Path) -> dict[str, bytes]:
    new = publish(tmp_path / "new", model_bytes(seed=2))
    for path, data in new.items():
        file = tmp_path / "hub" / REPO_ID / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    return new


# ---- what goes wrong ----


def test_it_goes_on_after_the_hub_died(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path, naps: list[float]
) -> None:
    hub.add(Fault(plane="cdn", path="00002-of", status=503, method="GET"))
    with pytest.raises(NetworkError):
        plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    assert everything(work) == set()
    hub.forget()
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    hub.add(Fault(plane="cdn", path="00003-of", status=503, method="GET"))
    with pytest.raises(NetworkError):
        pull_merged(plan)
    assert (work / f"{MERGED}.part").exists() and not (work / MERGED).exists()
    hub.forget()
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    assert plan.state == "resume" and plan.resumed_bytes > 0
    assert hub.asked(plane="cdn") == [], "the headers were kept"
    report = pull_merged(plan)
    assert (work / MERGED).read_bytes() == merged and report.state == "resume"
    assert report.fetched_bytes < len(merged) - plan.resumed_bytes + 1


def test_a_folder_that_is_removed_meanwhile(hub: TestHub, merged: bytes, work: Path) -> None:
    class Removes(Heard):
        def advance(self, n_bytes: int) -> None:
            shutil.rmtree(work / NAME, ignore_errors=True)

    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    with pytest.raises(AccessError, match=r"was removed.* while .* written") as caught:
        pull_merged(plan, Removes())
    assert caught.value.hint is not None and caught.value.hint.endswith("run the same command again")
    assert get().state == "download" and (work / MERGED).read_bytes() == merged


@pytest.mark.parametrize("place", ["header", "data"])
def test_a_flipped_byte_is_found_and_the_same_command_mends_it(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path, place: str
) -> None:
    shard = sorted(files)[1]
    at = 200 if place == "header" else len(files[shard]) - 1000
    hub.add(Fault(plane="cdn", path="00002-of", flip_byte_at=at))
    with pytest.raises((IntegrityError, FormatError)):
        get()
    assert not (work / MERGED).exists()
    hub.forget()
    get()
    assert (work / MERGED).read_bytes() == merged


def test_shards_that_are_no_set_are_refused_before_any_data(
    hub: TestHub, files: dict[str, bytes], tmp_path: Path, work: Path
) -> None:
    other = publish(tmp_path / "other", model_bytes(seed=3), max_tensors=7)
    shard = sorted(files)[1]
    path = next(p for p in sorted(other) if "00002" in p)
    (tmp_path / "hub" / REPO_ID / shard).write_bytes(other[path])
    hub.refresh()
    with pytest.raises(FormatError) as caught:
        get()
    assert "(this is what " in caught.value.message and "00002-of" in caught.value.message
    assert everything(work) == set()


def test_a_full_disk_is_said_before_the_first_byte(
    hub: TestHub, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    with pytest.raises(NoSpaceError):
        pull_merged(dataclasses.replace(plan, free_bytes=1000))
    assert everything(work) == set()


def test_raw_parts_are_joined_in_the_same_way(hub: TestHub, tmp_path: Path, work: Path) -> None:
    whole = model_bytes()
    folder = tmp_path / "hub" / "a" / "b-GGUF"
    folder.mkdir(parents=True)
    cut = len(whole) // 2 + 7
    (folder / "b.Q4_0.gguf.part1of2").write_bytes(whole[:cut])
    (folder / "b.Q4_0.gguf.part2of2").write_bytes(whole[cut:])
    hub.refresh()
    report = pull_merged(plan_pull_merged(plan_pull("a/b-GGUF")))
    assert report.output == Path("b-GGUF/b.Q4_0.gguf")
    assert report.output.read_bytes() == whole and report.n_unproven == 0
    again = pull_merged(plan_pull_merged(plan_pull("a/b-GGUF")))
    assert again.state == "kept"


def test_a_cut_at_any_byte_ends_in_the_same_file(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path, naps: list[float]
) -> None:
    chance, n_failed = random.Random(5), 0
    for _ in range(6):
        plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
        hub.add(Fault(plane="cdn", cut_after_bytes=chance.randrange(1, 60_000)))
        hub.add(Fault(plane="cdn", status=503, skip=1))
        try:
            pull_merged(plan)
        except NetworkError:
            n_failed += 1
        hub.forget()
    report = get()
    assert n_failed == 6 and report.sha256 == sha256(merged)
    document = json.dumps(dataclasses.asdict(report), default=str)
    assert json.loads(document)["state"] in ("resume", "download")


def test_a_byte_flipped_on_the_way_is_mended_and_the_other_shards_are_not_fetched_again(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path
) -> None:
    shard = sorted(files)[1]
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    hub.requests.clear()
    hub.add(Fault(plane="cdn", path="00002-of", flip_byte_at=len(files[shard]) - 1000, times=1))
    report = pull_merged(plan)
    assert (work / MERGED).read_bytes() == merged and report.sha256 == sha256(merged)
    assert hub.sent_bytes("00001-of|00003-of|00004-of", plane="cdn") <= sum(
        len(data) for path, data in files.items() if path != shard
    )


def test_what_was_proven_before_a_wrong_shard_is_kept(
    hub: TestHub, files: dict[str, bytes], merged: bytes, work: Path
) -> None:
    """A hub that has one shard wrong for good costs that shard, from wherever it is fetched at last."""
    paths = sorted(files)
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    hub.add(Fault(plane="cdn", path="00003-of", flip_byte_at=len(files[paths[2]]) - 1000))
    with pytest.raises(IntegrityError) as caught:
        pull_merged(plan)
    assert Path(paths[2]).name in caught.value.message
    hub.forget()
    again = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    assert again.state == "resume"
    hub.requests.clear()
    report = pull_merged(again)
    assert (work / MERGED).read_bytes() == merged and report.sha256 == sha256(merged)
    assert hub.asked("00001-of|00002-of", plane="cdn") == [], "they were proven"


def test_a_disk_that_fills_up_keeps_what_is_there_and_goes_on(
    hub: TestHub, merged: bytes, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    taken = [0]

    def pwrite(fd: int, data: bytes, at: int, write: Any = os.pwrite) -> int:
        taken[0] += len(data)
        if taken[0] > 400 << 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(write(fd, data, at))

    with monkeypatch.context() as patch:
        patch.setattr("ggufkit.transfer.journal.SAVE_EVERY_BYTES", 64 << 10)
        patch.setattr("os.pwrite", pwrite)
        with pytest.raises(NoSpaceError) as caught:
            pull_merged(plan)
    assert caught.value.exit_code == 8 and "goes on" in f"{caught.value.hint}"
    again = plan_pull_merged(plan_pull(REPO_ID, quant=QUANT))
    assert again.state == "resume" and again.resumed_bytes >= 128 << 10
    assert pull_merged(again).sha256 == sha256(merged)
    assert not [p for p in everything(work) if p.endswith((".part", ".tmp"))]
