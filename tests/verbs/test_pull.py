"""Pulling from both hubs: the right bytes, once, whatever the network, the hub and the disk do."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import (
    AccessError,
    FormatError,
    GgufkitError,
    IntegrityError,
    NetworkError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)
from ggufkit.hubs.quants import QuantError
from ggufkit.transfer import http as http_module
from ggufkit.transfer import journal as journal_module
from ggufkit.transfer.journal import Journal
from ggufkit.verbs import pull as pull_module
from ggufkit.verbs.pull import PullReport, plan_pull, pull
from ggufkit.verbs.record import journal_path, last_pulled, records_in
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub
from tests.verbs.published import NAME, QUANT, everything, publish, sha256, tree

SOURCES = ["hf", "modelscope"]
FIRST = f"{FOLDER}-00001"


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def get(source: str = "auto", local_dir: Path | None = None) -> PullReport:
    return pull(plan_pull(REPO_ID, quant=QUANT, source=source, local_dir=local_dir))


def failure(kind: type[GgufkitError], source: str) -> GgufkitError:
    with pytest.raises(kind) as caught:
        get(source)
    return caught.value


def pulled(root: Path) -> dict[str, bytes]:
    return tree(root)


# ---- the plain way ----


def test_both_hubs_give_the_published_bytes(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str
) -> None:
    report = get(source)
    assert pulled(work / NAME) == files
    assert [f.path for f in report.files] == sorted(files)
    assert [f.sha256 for f in report.files] == [sha256(files[p]) for p in sorted(files)]
    assert {f.state for f in report.files} == {"download"} and report.n_unproven == 0
    assert report.total_bytes == report.fetched_bytes == sum(map(len, files.values()))
    assert report.hub == {"hf": "huggingface", "modelscope": "modelscope"}[source]
    assert hub.sent_bytes(plane="cdn") == report.total_bytes
    assert len(hub.asked(plane="cdn")) == len(files)


def test_what_was_pulled_is_recorded_beside_it_and_nothing_else_is_left(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str
) -> None:
    get(source)
    record = next(records_in(Path(NAME)))
    assert everything(work) == {
        NAME, f"{NAME}/{FOLDER}", *(f"{NAME}/{p}" for p in files),
        f"{NAME}/.ggufkit", f"{NAME}/.ggufkit/{FOLDER}.json",
    }  # fmt: skip
    assert record.manifest.quant == QUANT and record.manifest.name == FOLDER
    assert {f.path: (f.size_bytes, f.sha256) for f in record.manifest.files} == {
        path: (len(data), sha256(data)) for path, data in files.items()
    }
    (where,) = record.manifest.sources
    assert where.repo_id == REPO_ID and where.endpoint == hub.url
    assert where.revision == {"hf": "main", "modelscope": "master"}[source]
    assert (where.commit is None) == (source == "modelscope")
    last = last_pulled()
    assert last is not None and last.manifest == record.manifest
    assert last.root == record.root and last.file == record.file.absolute()


def test_a_folder_of_ones_own(hub: TestHub, files: dict[str, bytes], work: Path, tmp_path: Path) -> None:
    get(local_dir=tmp_path / "elsewhere" / "r1")
    assert pulled(tmp_path / "elsewhere" / "r1") == files
    assert list(work.iterdir()) == []


def test_planning_writes_nothing(hub: TestHub, work: Path, own_home: Path) -> None:
    plan = plan_pull(REPO_ID, quant=QUANT)
    assert plan.needed_bytes == plan.total_bytes and plan.free_bytes > 0
    assert everything(work) == set() and list(own_home.rglob("*.json")) == []
    assert hub.asked(plane="cdn") == []


def test_running_again_does_no_work(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(source)
    before = {p: p.stat().st_mtime_ns for p in (work / NAME / FOLDER).iterdir()}
    hub.requests.clear()

    def hashing(*_arguments: object) -> str:
        raise AssertionError("what is proven is not read again")

    monkeypatch.setattr("ggufkit.transfer.digest.sha256_file", hashing)
    monkeypatch.setattr("ggufkit.transfer.engine.Prover", hashing)
    report = get(source)
    assert {f.state for f in report.files} == {"kept"} and report.fetched_bytes == 0
    assert hub.asked(plane="cdn") == [] and hub.asked("resolve|FilePath") == []
    assert {p: p.stat().st_mtime_ns for p in (work / NAME / FOLDER).iterdir()} == before


def test_files_that_somebody_else_fetched_are_checked_once_and_kept(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    for path, data in files.items():
        (work / NAME / path).parent.mkdir(parents=True, exist_ok=True)
        (work / NAME / path).write_bytes(data)
    assert {f.state for f in get().files} == {"kept"}
    assert hub.asked(plane="cdn") == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "gone", "folder's gone"])
def test_what_was_damaged_since_is_fetched_again_and_only_that(
    hub: TestHub, files: dict[str, bytes], work: Path, damage: str
) -> None:
    get()
    hub.requests.clear()
    path = sorted(files)[1]
    target = work / NAME / path
    if damage == "flipped":
        data = bytearray(files[path])
        data[-5] ^= 1
        target.write_bytes(data)
    elif damage == "cut":
        os.truncate(target, 1000)
    elif damage == "longer":
        target.write_bytes(files[path] + b"tail")
    elif damage == "gone":
        target.unlink()
    else:
        for file in target.parent.iterdir():
            file.unlink()
        target.parent.rmdir()
    report = get()
    assert pulled(work / NAME) == files
    n_again = len(files) if damage == "folder's gone" else 1
    if damage in ("cut", "longer"):  # what is there goes on, after a look at its ends
        assert [f.state for f in report.files].count("resume") == 1
        n_looked = 2 * 1000 if damage == "cut" else 2 * 4096
        left = len(files[path]) - 1000 if damage == "cut" else 0
        assert hub.sent_bytes(plane="cdn") <= left + n_looked
        return
    assert [f.state for f in report.files].count("download") == n_again == len(hub.asked(plane="cdn"))


def test_both_hubs_are_asked_and_the_second_may_go_on_with_what_the_first_began(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float]
) -> None:
    hub.add(Fault(plane="cdn", cut_after_bytes=50_000))
    hub.add(Fault(path="FilePath|resolve", plane="hub", status=500, skip=1))
    failure(NetworkError, "hf")
    before = hub.sent_bytes(plane="cdn")
    hub.faults.clear()
    report = get("modelscope")
    assert pulled(work / NAME) == files
    assert [f.state for f in report.files].count("resume") == 1
    assert hub.sent_bytes(plane="cdn") == report.total_bytes
    assert before == 50_000 == max(f.resumed_bytes for f in report.files)


def test_auto_takes_the_hub_that_has_it(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float]
) -> None:
    hub.add(Fault(path="/api/models/", status=404, headers={"X-Error-Code": "RepoNotFound"}))
    report = get("auto")
    assert report.hub == "modelscope" and pulled(work / NAME) == files


# ---- what to pull ----


def test_an_unknown_quant_says_what_there_is(hub: TestHub, work: Path) -> None:
    with pytest.raises(QuantError) as caught:
        plan_pull(REPO_ID, quant="Q8_0")
    assert caught.value.exit_code == 3 and [q.name for q in caught.value.quants] == [QUANT]


def test_the_only_quant_need_not_be_named_and_revisions_must_agree(hub: TestHub, work: Path) -> None:
    assert plan_pull(REPO_ID).quant.name == QUANT
    with pytest.raises(UsageError, match="two revisions"):
        plan_pull(f"{REPO_ID}@main", revision="other")
    with pytest.raises(UsageError, match=r"asks for Hugging Face, --source for modelscope"):
        plan_pull(f"hf:{REPO_ID}", source="modelscope")


def test_an_unknown_revision_and_an_unknown_repo(hub: TestHub, work: Path, source: str) -> None:
    with pytest.raises(NotFoundError):
        plan_pull(REPO_ID, source=source, revision="no-such-branch")
    with pytest.raises(NotFoundError, match="no/repo"):
        plan_pull("no/repo", source=source)
    assert everything(work) == set()


def test_a_set_that_is_published_unsound_is_told_after_the_pull_and_kept(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    path = sorted(files)[1]
    (tmp_path / "hub" / REPO_ID / path).write_bytes(files[sorted(files)[2]])
    hub.refresh()
    error = failure(FormatError, "hf")
    assert error.exit_code == 7 and "renamed?" in error.message and "published" in error.message
    assert set(pulled(work / NAME)) == set(files)


# ---- resuming ----


@pytest.mark.parametrize("seed", range(6))
def test_cuts_at_random_bytes_are_gone_on_with(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float], seed: int
) -> None:
    chance = random.Random(seed)
    source = SOURCES[seed % 2]
    for path, data in files.items():
        name = path.rpartition("/")[2]
        for skip in range(chance.randrange(4)):
            n_bytes = chance.randrange(len(data) // 4)
            hub.add(Fault(path=name, plane="cdn", cut_after_bytes=n_bytes, times=1, skip=skip))
    get(source)
    assert pulled(work / NAME) == files
    assert hub.sent_bytes(plane="cdn") == sum(map(len, files.values())), "no byte came twice"


@pytest.mark.parametrize("seed", range(4))
def test_a_pull_that_failed_at_a_random_byte_is_gone_on_with_by_the_next(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float], seed: int
) -> None:
    source = SOURCES[seed % 2]
    at = random.Random(seed).randrange(1, min(map(len, files.values())))
    path = sorted(files)[seed % len(files)]
    hub.add(Fault(path=path.rpartition("/")[2], plane="cdn", cut_after_bytes=at, times=1))
    hub.add(Fault(path=path.rpartition("/")[2], plane="cdn", skip=1, status=500))
    error = failure(NetworkError, source)
    assert error.exit_code == 5 and path in error.message and "8 times in a row" in error.message
    assert (work / NAME / f"{path}.part").exists() and not (work / NAME / path).exists()
    hub.faults.clear()
    plan = plan_pull(REPO_ID, quant=QUANT, source=source)
    states = {f.path: (f.state, f.resumed_bytes) for f in plan.files}
    assert states[path] == ("resume", at)
    pull(plan)
    assert pulled(work / NAME) == files
    assert hub.sent_bytes(plane="cdn") == sum(map(len, files.values()))


# ---- faults, one at a time ----

PASSING = {
    "the body is cut": Fault(plane="cdn", cut_after_bytes=1000, times=1),
    "the body is cut before its first byte": Fault(plane="cdn", cut_after_bytes=0, times=1),
    "503 from the CDN": Fault(plane="cdn", status=503, times=2),
    "503 from the CDN, with a time": Fault(plane="cdn", status=503, headers={"Retry-After": "7"}, times=2),
    "429 from the CDN": Fault(plane="cdn", status=429, headers={"Retry-After": "7"}, times=2),
    "429 from the hub": Fault(path="resolve|FilePath", status=429, headers={"Retry-After": "7"}, times=2),
    "500 from the hub": Fault(path="resolve|FilePath", plane="hub", status=500, times=2),
    "Range is ignored": Fault(plane="cdn", ignore_range=True),
    "a wrong Content-Range": Fault(plane="cdn", content_range="bytes 5-9/10", times=1),
    "a wrong size in Content-Range": Fault(plane="cdn", content_range="bytes 0-99/100", times=1),
    "a wrong length announced": Fault(plane="cdn", announced_bytes=10**9, ignore_range=True, times=1),
    "a shorter length announced": Fault(plane="cdn", announced_bytes=1000, ignore_range=True, times=1),
    "an HTML page": Fault(
        plane="cdn", body=b"<html>Log in</html>", headers={"Content-Type": "text/html"}, times=1
    ),
    "an empty body": Fault(plane="cdn", body=b"", times=2),
    "another body": Fault(plane="cdn", body=b'{"Code": 500}', times=2),
    "an expired link": Fault(plane="cdn", expire_link=True, times=2),
    "a refused link": Fault(plane="cdn", status=403, times=1),
    "the line is slow to answer": Fault(plane="cdn", delay_s=0.2, times=1),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_passed(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float], source: str, fault: str
) -> None:
    one = hub.add(replace(PASSING[fault]))
    report = get(source)
    assert one.hits, "the fault was met"
    assert pulled(work / NAME) == files and report.n_unproven == 0
    if "Retry-After" in one.headers:
        assert naps == [7.0] * 2
    if "link" in fault:
        assert len(hub.asked("resolve|FilePath", plane="hub", method="GET")) > len(files)


def test_ranges_that_are_ignored_on_resume_give_the_same_file(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float], source: str
) -> None:
    hub.add(Fault(plane="cdn", cut_after_bytes=30_000, times=2))
    hub.add(Fault(plane="cdn", ignore_range=True))
    get(source)
    assert pulled(work / NAME) == files


def test_a_stall_is_left_after_the_read_timeout(
    hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 0.2)
    fault = hub.add(Fault(plane="cdn", stall_s=2, stall_after_bytes=20_000, times=1))
    get(source)
    assert fault.hits == 1 and pulled(work / NAME) == files


def test_a_flipped_byte_is_found_and_mended(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str
) -> None:
    path = sorted(files)[1]
    name = path.rpartition("/")[2]
    fault = hub.add(Fault(path=name, plane="cdn", flip_byte_at=7777, times=1))
    get(source)
    assert fault.hits == 1 and pulled(work / NAME) == files
    assert hub.sent_bytes(name, plane="cdn") <= 3 * len(files[path])
    assert not list((work / NAME).rglob("*.part"))


def test_a_byte_that_is_always_flipped_is_never_believed(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    hub.add(Fault(path=FIRST, plane="cdn", flip_byte_at=0))
    for _ in range(2):
        failure(IntegrityError, "hf")
        assert pulled(work / NAME) == {}


def test_a_byte_flipped_before_a_cut_is_found_after_the_resume(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float]
) -> None:
    fault = hub.add(Fault(path=FIRST, plane="cdn", flip_byte_at=100, cut_after_bytes=5000, times=1))
    get("hf")
    assert fault.hits == 1 and pulled(work / NAME) == files


LASTING = {
    404: NotFoundError,
    410: NotFoundError,
    401: AccessError,
    403: AccessError,
    400: NetworkError,
    416: NetworkError,
}


@pytest.mark.parametrize(
    ("where", "status"),
    [*(("resolve|FilePath", status) for status in LASTING), ("/lfs/", 404), ("/lfs/", 400), ("/lfs/", 416)],
)
def test_what_will_not_pass_is_told_at_once(
    hub: TestHub, work: Path, naps: list[float], source: str, status: int, where: str
) -> None:
    kind = LASTING[status]
    fault = hub.add(Fault(path=where, status=status))
    error = failure(kind, source)
    assert type(error) is kind and fault.hits == 1 and naps == []
    if kind is AccessError:
        token = {"hf": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}[source]
        assert token in (error.hint or "") and REPO_ID in (error.hint or "")
    if kind is NotFoundError:
        assert FIRST in error.message and "--source" in (error.hint or "")


def test_a_gated_repo_names_the_page_and_the_variable(hub: TestHub, work: Path, source: str) -> None:
    hub.add(Fault(path="/api/", status=403, headers={"X-Error-Code": "GatedRepo"}))
    error = failure(AccessError, source)
    assert error.exit_code == 4 and REPO_ID in (error.hint or "")


@pytest.mark.parametrize("variable", ["", "GGUFKIT_TOKEN_HOSTS"])
def test_the_token_is_never_sent_to_the_cdn(
    hub: TestHub,
    files: dict[str, bytes],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variable: str,
) -> None:
    """The hub itself, which is not the real one, sees it only when the user says so."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    if variable:
        monkeypatch.setenv(variable, "127.0.0.1")
    get(source)
    assert pulled(work / NAME) == files
    seen = [r for r in hub.requests if "secret" in json.dumps(r.headers)]
    assert {r.plane for r in seen} == ({"hub"} if variable else set())
    assert all("secret" not in json.dumps(r.headers) for r in hub.asked(plane="cdn"))
    downloads = [r for r in seen if "resolve" in r.path or "FilePath" in r.path]
    assert len(downloads) == (len(files) if variable else 0)


# ---- the disk ----


def test_room_is_looked_for_before_the_first_byte(
    hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(map(len, files.values()))
    need = total + pull_module.RESERVE_BYTES
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: need - 1)
    error = failure(NoSpaceError, "hf")
    assert error.exit_code == 8 and "--local-dir" in (error.hint or "")
    assert everything(work) == set() and hub.asked(plane="cdn") == []
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: need)
    get()
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: 0)
    assert get().fetched_bytes == 0, "what is there needs no room"


def test_what_is_there_already_counts_as_room(
    hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    hub.add(Fault(plane="cdn", cut_after_bytes=40_000, times=1))
    hub.add(Fault(plane="cdn", status=500, skip=1))
    failure(NetworkError, "hf")
    hub.faults.clear()
    need = sum(map(len, files.values())) - 40_000 + pull_module.RESERVE_BYTES
    monkeypatch.setattr(pull_module, "free_bytes", lambda _path: need)
    get()
    assert pulled(work / NAME) == files


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount (a container?)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_in_the_middle_keeps_all_and_goes_on(
    hub: TestHub, files: dict[str, bytes], work: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SAVE_EVERY_BYTES", 64 << 10)
    monkeypatch.setattr(pull_module, "RESERVE_BYTES", 0)
    monkeypatch.setattr("ggufkit.transfer.sources.READ_BYTES", 16 << 10)
    total = sum(map(len, files.values()))
    plan = plan_pull(REPO_ID, quant=QUANT, local_dir=small_disk / NAME)
    other = small_disk / "other"
    other.write_bytes(bytes((3 << 20) - total * 2 // 3))  # it comes after the plan
    with pytest.raises(NoSpaceError, match="the disk is full") as caught:
        pull(plan)
    assert caught.value.exit_code == 8 and "goes on" in (caught.value.hint or "")
    there = sum(len(d) for d in pulled(small_disk / NAME).values())
    assert there > total // 3
    other.unlink()
    plan = plan_pull(REPO_ID, quant=QUANT, local_dir=small_disk / NAME)
    assert plan.needed_bytes < total * 2 // 3
    pull(plan)
    assert pulled(small_disk / NAME) == files
    assert hub.sent_bytes(plane="cdn") < total + (256 << 10)


def test_a_folder_that_may_not_be_written_to_is_told(hub: TestHub, work: Path) -> None:
    (work / NAME).write_text("a file in the way")
    with pytest.raises(UsageError, match=f"{NAME} is a file"):
        get()


# ---- two at once ----


def test_two_pulls_of_one_set_at_once_end_right_and_fetch_once(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    hub.add(Fault(plane="cdn", bytes_per_s=1_000_000))
    reports: list[PullReport] = []
    threads = [threading.Thread(target=lambda s=s: reports.append(get(s))) for s in SOURCES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reports) == 2
    assert pulled(work / NAME) == files
    assert hub.sent_bytes(plane="cdn") == sum(map(len, files.values()))


# ---- files without a digest ----


def test_a_file_without_a_published_digest_is_pulled_and_counted_as_unproven(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_pull(REPO_ID, quant=QUANT)
    bare = tuple(replace(f, sha256=None) for f in plan.quant.files)
    plan = replace(
        plan,
        quant=replace(plan.quant, files=bare),
        files=tuple(replace(f, sha256=None) for f in plan.files),
    )
    report = pull(plan)
    assert report.n_unproven == len(files) and pulled(work / NAME) == files


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total = self.done = 0

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        self.lines.append(task)
        self.total, self.done = total_bytes, done_bytes

    def advance(self, n_bytes: int) -> None:
        assert n_bytes >= 0
        self.done += n_bytes

    def note(self, message: str) -> None:
        self.lines.append(message)

    def finish(self) -> None:
        self.lines.append("finished")


def test_progress_adds_up_and_retries_are_told(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float]
) -> None:
    heard = Heard()
    hub.add(Fault(plane="cdn", cut_after_bytes=40_000, times=1))
    plan = plan_pull(REPO_ID, quant=QUANT, progress=heard)
    pull(plan, heard)
    assert heard.total == heard.done == sum(map(len, files.values()))
    assert heard.lines[0] == f"pulling {FOLDER}" and heard.lines[-1] == "finished"
    assert len(heard.lines) == 3 and "again in 0.5 s (1 of 3)" in heard.lines[1]
    assert hub.url not in heard.lines[1] and "Signature" not in heard.lines[1]
    again = Heard()
    pull(plan_pull(REPO_ID, quant=QUANT, progress=again), again)
    assert again.lines == []


def test_no_socket_and_no_thread_is_left(
    hub: TestHub, files: dict[str, bytes], work: Path, naps: list[float]
) -> None:
    get()  # the hubs' clients keep what is theirs

    def state() -> tuple[set[threading.Thread], int]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.exists() or link.is_symlink()]
        return set(threading.enumerate()), len(links)

    for path in files:
        (work / NAME / path).unlink()
    before = state()
    hub.add(Fault(plane="cdn", cut_after_bytes=20_000, times=3))
    get()
    assert state()[0] <= before[0] and state()[1] <= before[1] + 2


def test_two_repos_in_one_folder(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "two"
    first = publish(root, repo_id="a/m-GGUF", stem="m-Q4_K_M")
    second = publish(root, repo_id="b/n-GGUF", stem="n-Q8_0")
    with run_hub(root, cdn=True) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for repo in ("a/m-GGUF", "b/n-GGUF"):
            pull(plan_pull(f"hf:{repo}", local_dir=work / "both"))
    assert pulled(work / "both") == first | second
    assert {r.manifest.name for r in records_in(work / "both")} == {"m-Q4_K_M", "n-Q8_0"}


def test_notes_of_a_run_killed_after_its_last_rename_are_taken_away(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    get()
    before = everything(work)
    for path in files:
        Journal(journal_path(Path(NAME), Path(NAME, path)), "anything").save()
    assert everything(work) != before
    get()
    assert everything(work) == before
