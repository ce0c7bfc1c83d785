"""What other programs left is taken over: proven, linked or used as far as it is right, and left as it is."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.hubs.hub import RemoteFile
from ggufkit.transfer.journal import Journal
from ggufkit.verbs import adopt as adopt_module
from ggufkit.verbs.aria2 import aria2_ranges
from ggufkit.verbs.leftovers import Places
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.merge import merge, plan_merge
from ggufkit.verbs.pull import PullPlan, PullReport, plan_pull, pull
from ggufkit.verbs.pull_merged import plan_pull_merged, pull_merged
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub
from tests.support.trees import snapshot
from tests.verbs.published import NAME, QUANT, everything, model_bytes, publish, sha256, tree

BIN = Path(sys.executable).parent
OWNER, _, REPO = REPO_ID.partition("/")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A set of two shards with 3 MB each, and where the hub has it."""
    root = tmp_path_factory.mktemp("hub")
    return root, publish(root, model_bytes(6), max_tensors=15)


@pytest.fixture
def files(published: tuple[Path, dict[str, bytes]]) -> dict[str, bytes]:
    return published[1]


@pytest.fixture
def hub(published: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    with run_hub(published[0], cdn=True) as running:
        for name, value in (running.hf_env | running.ms_env).items():
            monkeypatch.setenv(name, value)
        yield running


def plan(**options: object) -> PullPlan:
    return plan_pull(REPO_ID, quant=QUANT, **options)  # type: ignore[arg-type]


def get(**options: object) -> PullReport:
    return pull(plan(**options))


def last(files: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Return path, name and content of the largest shard."""
    path = max(files, key=lambda p: len(files[p]))
    return path, path.rpartition("/")[2], files[path]


def of(report: PullReport, path: str) -> str:
    return next(f.state for f in report.files if f.path == path)


class Heard:
    """A listener that adds up."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.notes: list[str] = []

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        self.total, self.done = total_bytes, done_bytes

    def advance(self, n_bytes: int) -> None:
        self.done += n_bytes

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        """Nothing is to be closed."""


# ---- whole files ----


@pytest.mark.parametrize(
    "name", ["{}", "{} (1)", "HF cache", "ModelScope cache", "old ModelScope cache", "--adopt"]
)
def test_a_whole_file_is_linked_and_left_where_it_is(
    hub: TestHub, files: dict[str, bytes], work: Path, own_home: Path, name: str
) -> None:
    path, file_name, data = last(files)
    more: tuple[Path, ...] = ()
    if name == "HF cache":
        found = own_home / ".cache/huggingface/hub" / f"models--{OWNER}--{REPO}" / "blobs" / sha256(data)
    elif name == "ModelScope cache":
        found = own_home / f".cache/modelscope/models/{OWNER}--{REPO}/snapshots/master" / path
    elif name == "old ModelScope cache":
        found = own_home / f".cache/modelscope/hub/models/{OWNER}/{REPO.replace('.', '___')}" / path
    elif name == "--adopt":
        found, more = work.parent / "downloads" / "sub" / file_name, (work.parent / "downloads",)
    else:
        found = work / NAME / (name.format(file_name.removesuffix(".gguf")) + ".gguf")
    found.parent.mkdir(parents=True)
    found.write_bytes(data)
    before = found.stat()
    planned = plan(adopt_dirs=more)
    one = next(f for f in planned.files if f.path == path)
    assert one.state == "adopt" and one.adopted is not None and one.adopted.whole is not None
    assert one.adopted.whole.samefile(found)
    assert planned.needed_bytes == planned.total_bytes - len(data) and planned.copied_bytes == 0
    report = pull(planned)
    assert of(report, path) == "adopt" and report.fetched_bytes == planned.needed_bytes
    assert hub.sent_bytes(file_name, plane="cdn") == 0
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files
    assert (work / NAME / path).samefile(found), "one copy under two names"
    after = found.stat()
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    assert not any("adopting" in p for p in everything(work / NAME))
    assert of(get(), path) == "kept"


def test_a_file_that_can_not_be_linked_is_copied(
    hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name, data = last(files)
    (work / NAME).mkdir()
    (work / NAME / name).write_bytes(data)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    heard = Heard()
    pull(plan(), heard)
    assert f"the disk of {NAME} has no hard links: what was found is copied" in heard.notes
    assert heard.done <= heard.total == sum(map(len, files.values()))
    assert not (work / NAME / path).samefile(work / NAME / name)
    assert tree(work / NAME) == {**files, name: data}


def test_a_whole_file_may_lie_where_another_one_goes(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    """Each is linked aside before any name is given: what is in the way is not lost."""
    for path, data in files.items():
        other = work / NAME / path.rpartition("/")[2]
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(data)
        target = work / NAME / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"GGUF, but of something else")
    assert {f.state for f in get().files} == {"adopt"}
    assert hub.sent_bytes(plane="cdn") == 0
    assert {n: d for n, d in tree(work / NAME).items() if "/" in n} == files


def test_nothing_is_adopted_when_that_is_asked_for(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    path, name, data = last(files)
    (work / NAME).mkdir()
    (work / NAME / name).write_bytes(data)
    assert of(get(adopt=False), path) == "download"


def test_a_whole_file_goes_straight_into_the_merged_one(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    _, name, data = last(files)
    (work / NAME).mkdir()
    (work / NAME / name).write_bytes(data)
    merged = pull_merged(plan_pull_merged(plan()))
    assert hub.sent_bytes(name, plane="cdn") == 0
    (work / "plain").mkdir()
    get(local_dir=work / "plain")
    plain = merge(plan_merge(find_model("plain", shards=True)))
    assert merged.sha256 == plain.sha256


# ---- parts of files ----

PARTS = {
    "Chrome": "{stem}.gguf.crdownload",
    "Chrome, second": "{stem} (2).gguf.crdownload",
    "Firefox": "{stem}.Ab12Cd34.gguf.part",
    "Firefox, old": "{path}.part",
    "modelscope": "{path}.incomplete",
    "wget": "{stem}.gguf.1",
    "curl, at its own place": "{path}",
    "aria2, preallocated": "{stem}.gguf",
}


@pytest.mark.parametrize("what", PARTS)
def test_what_a_broken_download_left_is_not_fetched_again(
    hub: TestHub, files: dict[str, bytes], work: Path, what: str
) -> None:
    path, name, data = last(files)
    left = work / NAME / PARTS[what].format(stem=name.removesuffix(".gguf"), path=path)
    left.parent.mkdir(parents=True)
    n_bytes = 1_700_000
    left.write_bytes(data[:n_bytes])
    if "aria2" in what:
        write_control(left, len(data), [i for i in range(-(-len(data) // 65536)) if i < n_bytes // 65536])
        with left.open("rb+") as file:
            file.seek(n_bytes)
            file.write(bytes(len(data) - n_bytes))
        n_bytes = n_bytes // 65536 * 65536
    before = snapshot(work)
    planned = plan()
    assert snapshot(work) == before, "planning writes nothing"
    one = next(f for f in planned.files if f.path == path)
    assert one.state == "resume" and one.missing_bytes == len(data) - n_bytes
    heard = Heard()
    report = pull(planned, heard)
    assert heard.done == heard.total == sum(map(len, files.values()))
    assert of(report, path) == "resume"
    samples = 2 * adopt_module.SAMPLE_BYTES
    assert hub.sent_bytes(name, plane="cdn") <= len(data) - n_bytes + samples + (64 << 10)
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files
    ours = what in ("Firefox, old", "curl, at its own place")
    assert left.exists() is not (ours and left.name.endswith(".part"))
    if not ours:
        assert snapshot(work)[left.relative_to(work).as_posix()] == before[left.relative_to(work).as_posix()]


def write_control(path: Path, size: int, pieces: list[int], piece: int = 65536, version: int = 1) -> None:
    """Write what aria2 would: the manual's "Control File (*.aria2) Format"."""
    field = bytearray((-(-size // piece) + 7) // 8)
    for i in pieces:
        field[i // 8] |= 0x80 >> i % 8
    order = ">" if version else "="
    head = struct.pack(">H4s", version, bytes(4)) + struct.pack(order + "I", 0)
    body = struct.pack(order + "IQQI", piece, size, 0, len(field)) + bytes(field)
    path.with_name(path.name + ".aria2").write_bytes(head + body + struct.pack(order + "I", 0))


def test_parts_of_a_parallel_download_are_put_together(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    path, name, data = last(files)
    folder = work / NAME / FOLDER
    folder.mkdir(parents=True)
    for start, end, there in ((0, 999_999, 1_000_000), (1_000_000, 1_999_999, 400_000)):
        (folder / f"{name}_{start}_{end}").write_bytes(data[start : start + there])
    planned = plan()
    one = next(f for f in planned.files if f.path == path)
    assert one.missing_bytes == len(data) - 1_400_000
    pull(planned)
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files


@pytest.mark.parametrize("where", ["at the end", "in the middle"])
def test_a_part_that_is_wrong_costs_bytes_and_nothing_else(
    hub: TestHub, files: dict[str, bytes], work: Path, where: str
) -> None:
    _, name, data = last(files)
    (work / NAME).mkdir()
    wrong = bytearray(data[:1_500_000])
    wrong[-1 if where == "at the end" else 700_000] ^= 1
    left = work / NAME / f"{name}.crdownload"
    left.write_bytes(wrong)
    get()
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files
    assert left.read_bytes() == bytes(wrong)


def test_zeros_at_the_end_are_room_and_no_data(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    path, name, data = last(files)
    (work / NAME).mkdir()
    (work / NAME / f"{name}.crdownload").write_bytes(data[:1_000_000] + bytes(500_000))
    one = next(f for f in plan().files if f.path == path)
    assert one.missing_bytes == len(data) - len(data[:1_000_000].rstrip(b"\0"))


def test_a_kill_while_it_is_copied_goes_on(
    hub: TestHub, files: dict[str, bytes], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, name, data = last(files)
    (work / NAME).mkdir()
    (work / NAME / f"{name}.crdownload").write_bytes(data[:1_500_000])
    honest = Journal.add

    def add(self: Journal, start: int, end: int, fd: int) -> None:
        honest(self, start, end, fd)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "add", add)
        pull(plan())
    report = get()
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files
    assert report.fetched_bytes <= sum(map(len, files.values()))


def test_what_was_cut_between_plan_and_pull_is_fetched(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    path, name, data = last(files)
    (work / NAME).mkdir()
    left = work / NAME / f"{name}.crdownload"
    left.write_bytes(data[:1_500_000])
    planned = plan()
    os.truncate(left, 1000)
    pull(planned)
    whole = work / NAME / name
    whole.write_bytes(data)
    (work / NAME / path).unlink()
    planned = plan()
    whole.unlink()
    whole.write_bytes(b"GGUF")
    pull(planned)
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files


def test_another_quants_part_is_left_alone(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    path, name, _ = last(files)
    (work / NAME).mkdir()
    (work / NAME / f"{name}.crdownload").write_bytes(os.urandom(1_500_000))
    (work / NAME / name.replace("00001", "00007")).write_bytes(b"GGUF" + bytes(100))
    get()
    assert hub.sent_bytes(name, plane="cdn") <= len(files[path]) + 2 * adopt_module.SAMPLE_BYTES + (64 << 10)
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files


def test_a_file_with_a_second_name_is_never_written_to(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    path, _, data = last(files)
    target = work / NAME / path
    target.parent.mkdir(parents=True)
    target.write_bytes(data[:1_500_000])
    other = work / "other"
    os.link(target, other)
    get()
    assert other.read_bytes() == data[:1_500_000] and target.read_bytes() == data


# ---- aria2's notes ----


@pytest.mark.parametrize("version", [0, 1])
def test_the_control_file_says_what_is_there(tmp_path: Path, version: int) -> None:
    file = tmp_path / "m.gguf"
    write_control(file, 200_000, [0, 1, 3], version=version)
    assert aria2_ranges(file, 200_000) == ((0, 131_072), (196_608, 200_000))
    assert aria2_ranges(file, 200_001) == (), "of another file"
    assert aria2_ranges(tmp_path / "other.gguf", 200_000) is None


@pytest.mark.parametrize(
    "content", [b"", b"\0\1", b"\0\2" + bytes(60), b"\0\1" + b"\xff" * 60, b"\0\1" + bytes(60)]
)
def test_a_broken_control_file_says_that_nothing_is_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf.aria2").write_bytes(content)
    assert aria2_ranges(tmp_path / "m.gguf", 200_000) == ()


# ---- names ----


@pytest.mark.parametrize(
    "name",
    [
        "m-00001-of-00004.ggufx",
        "xm-00001-of-00004.gguf",
        "m-00001-of-00004 (1000).gguf",
        "m-00002-of-00004.gguf",
    ],
)
def test_other_names_are_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF" + b"\1" * 99)
    file = RemoteFile("q/m-00001-of-00004.gguf", 1000, "0" * 64, "main")
    assert Places("a/b", tmp_path).find(file, tmp_path / "q" / "m-00001-of-00004.gguf") == []


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "m.gguf").write_bytes(b"GGUF" + b"\1" * 99)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "here" / "loop").symlink_to(tmp_path / "here")
    file = RemoteFile("m.gguf", 1000, "0" * 64, "main")
    assert Places("a/b", tmp_path / "here").find(file, tmp_path / "here" / "q" / "m.gguf") == []
    assert len(Places("a/b", tmp_path / "here", [tmp_path / "far"]).find(file, tmp_path / "q")) == 0
    assert len(Places("a/b", tmp_path / "here", [tmp_path / "far"]).find(file, tmp_path / "m.gguf")) == 1


# ---- the real clients, killed in the middle ----

CHUNK_BYTES = 10 << 20  # huggingface_hub constants.py DOWNLOAD_CHUNK_SIZE: it writes no less at once
CLIENTS = {
    "hf, local dir": ["hf", "download", REPO_ID, "{path}", "--local-dir", NAME],
    "hf, cache": ["hf", "download", REPO_ID, "{path}"],
    "modelscope, local dir": ["modelscope", "download", "--model", REPO_ID, "{path}", "--local_dir", NAME],
    "modelscope, cache": ["modelscope", "download", "--model", REPO_ID, "{path}"],
}


def run_and_kill(hub: TestHub, home: Path, cwd: Path, arguments: list[str]) -> None:
    """Run a real client until it has written some of the file, and kill it."""
    env = hub.client_env(home) | {"HF_HOME": str(home / ".cache/huggingface")}
    command = [str(BIN / arguments[0]), *arguments[1:]]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, cwd=cwd, stdout=quiet, stderr=quiet)
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline and process.poll() is None:
        found = [*home.rglob("*.incomplete"), *cwd.rglob("*.incomplete")]
        if sum(f.stat().st_size for f in found) >= CHUNK_BYTES:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("what", CLIENTS)
def test_what_a_killed_client_left_goes_on(
    tmp_path: Path, work: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    files = publish(tmp_path / "hub", model_bytes(13), max_tensors=99)
    path, name, data = last(files)
    (work / NAME).mkdir()
    with run_hub(tmp_path / "hub", cdn=True) as hub:
        for variable, value in (hub.hf_env | hub.ms_env).items():
            monkeypatch.setenv(variable, value)
        stall = hub.add(Fault(plane="cdn", stall_after_bytes=CHUNK_BYTES + 500_000, stall_s=20))
        run_and_kill(hub, own_home, work, [word.format(path=path) for word in CLIENTS[what]])
        hub.faults.remove(stall)
        hub.requests.clear()
        report = get()
        assert of(report, path) == "resume"
        assert 0 < hub.sent_bytes(name, plane="cdn") < len(data) - CHUNK_BYTES + (64 << 10)
    assert {n: d for n, d in tree(work / NAME).items() if n in files} == files
