"""What `verify` says of each kind of fault, in its very words, and that the command it names mends it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from ggufkit.transfer.sources import open_header
from ggufkit.verbs.adopt import SAMPLE_BYTES
from ggufkit.verbs.pull import plan_pull, pull
from tests.cli.conftest import Ran, Run
from tests.support.ggufs import gguf_bytes, make_gguf, make_shards, small_llama, small_llama_kv
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub
from tests.verbs.published import NAME, QUANT, model_bytes, publish, tree

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A set with room for a hole in it."""
    return publish(tmp_path / "hub", model_bytes(4), max_tensors=7)


@pytest.fixture
def shards(hub: TestHub, files: dict[str, bytes], work: Path) -> list[Path]:
    return [f.target for f in pull(plan_pull(REPO_ID, quant=QUANT)).files]


def fault_of(done: Ran, code: int = 6) -> tuple[str, str]:
    """Return the only fault's cause in the table, and what is said of it."""
    assert done.code == code, done.err
    good = ("ok", "unproven", "STATUS")
    (row,) = [line.split()[0] for line in done.lines if not line.startswith(good) and ".gguf" in line]
    told = done.err[done.err.index("error: ") :].splitlines()
    sentence = told[1] if code == 6 else told[0].removeprefix("error:")
    return row, sentence.strip().split(": ", 1)[1]


def mend(done: Ran, run: Run, files: dict[str, bytes]) -> None:
    """Do what the hint says, to the letter; then everything is what was published."""
    hint = next(line for line in done.err.splitlines() if line.startswith("hint: "))
    command, found, _ = hint.removeprefix("hint: ").partition(" fetches what is wrong")
    assert found and run(*shlex.split(command)[1:]).code == 0
    assert tree(Path(NAME)) == files
    assert run("verify", NAME, "-q").code == 0


def test_an_empty_file(shards: list[Path], files: dict[str, bytes], run: Run) -> None:
    size = shards[1].stat().st_size
    shards[1].write_bytes(b"")
    done = run("verify", NAME)
    assert fault_of(done) == ("empty", f"is empty; {size:,} bytes were published")
    mend(done, run, files)


def test_a_pointer_that_git_left(shards: list[Path], files: dict[str, bytes], run: Run) -> None:
    shards[1].write_bytes(POINTER)
    done = run("verify", NAME)
    assert fault_of(done) == ("lfs-pointer", "is a Git LFS pointer, not the file: cloned without git-lfs")
    mend(done, run, files)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><html><head><title>\n Sign in\x1b[31m </title>",
            "is a web page ('Sign in\\x1b[31m'), not the file: a login or an error was saved",
        ),
        (b"<html>no", "is a web page, not the file: a login or an error was saved"),
        (b'{"Code": 404, "Data": null}', "is a server's answer in JSON, not the file"),
    ],
)
def test_a_page_saved_for_the_file(
    shards: list[Path], files: dict[str, bytes], run: Run, content: bytes, sentence: str
) -> None:
    shards[2].write_bytes(content)
    done = run("verify", NAME)
    assert fault_of(done) == ("web-page", sentence)
    mend(done, run, files)


@pytest.mark.parametrize("n_bytes", [-1, -70_000, 1, 1000])
def test_another_length(shards: list[Path], files: dict[str, bytes], run: Run, n_bytes: int) -> None:
    size = shards[3].stat().st_size
    os.truncate(shards[3], size + n_bytes)
    done = run("verify", NAME)
    if n_bytes < 0:
        told = f"ends {-n_bytes:,} bytes early: it has {size + n_bytes:,} of {size:,} bytes"
        assert fault_of(done) == ("truncated", told)
    else:
        told = f"has {n_bytes:,} bytes more than the {size:,} that were published"
        assert fault_of(done) == ("too-long", told)
    mend(done, run, files)


def test_two_shards_with_each_others_names(shards: list[Path], files: dict[str, bytes], run: Run) -> None:
    held = shards[1].with_name("held")
    shards[1].rename(held)
    shards[2].rename(shards[1])
    held.rename(shards[2])
    done = run("verify", NAME)
    assert done.code == 6 and [line.split()[0] for line in done.lines[1:5]] == [
        "ok",
        "renamed",
        "renamed",
        "ok",
    ]
    assert f"{shards[1]}: is shard 3 by its split.no, not shard 2: renamed?" in done.err
    mend(done, run, files)


def test_the_same_shard_twice(shards: list[Path], files: dict[str, bytes], run: Run) -> None:
    shards[2].write_bytes(shards[1].read_bytes().ljust(shards[2].stat().st_size, b"\1"))
    done = run("verify", NAME)
    assert fault_of(done) == ("renamed", "is shard 2 by its split.no, not shard 3: renamed?")
    mend(done, run, files)


def foreign(tmp_path: Path, **changed: object) -> tuple[Path, ...]:
    """Cut another model into a set of the same name."""
    kv = {**small_llama_kv("llama"), **changed}
    folder = tmp_path / "foreign"
    data = gguf_bytes(tensors=small_llama(), kv=kv, seed=5)
    folder.mkdir()
    (folder / f"{FOLDER}.gguf").write_bytes(data)
    return make_shards(folder / f"{FOLDER}.gguf", max_tensors=6)


def test_a_shard_of_another_model(
    shards: list[Path], files: dict[str, bytes], run: Run, tmp_path: Path
) -> None:
    n_tensors = sum(len(open_header(s).tensors) for s in shards)
    shards[1].write_bytes(foreign(tmp_path)[1].read_bytes())
    done = run("verify", NAME)
    told = f"is of another model or quant: its set has 21 tensors, this one {n_tensors}"
    assert fault_of(done) == ("foreign", told)
    mend(done, run, files)


def test_the_first_shard_of_another_quant(
    shards: list[Path], files: dict[str, bytes], run: Run, tmp_path: Path
) -> None:
    """Nothing but the digest tells that the set goes on differently; the file is whole by itself."""
    extra = [(f"blk.{i % 2}.extra_{i}.weight", (256, 1024), "Q8_0") for i in range(4)]
    kv = {**small_llama_kv("llama"), "general.file_type": 7}
    folder = tmp_path / "quant"
    folder.mkdir()
    (folder / f"{FOLDER}.gguf").write_bytes(gguf_bytes(tensors=[*small_llama(), *extra], kv=kv, seed=5))
    other = make_shards(folder / f"{FOLDER}.gguf", max_tensors=7)
    published = shards[3].stat().st_size
    shards[3].write_bytes(other[3].read_bytes())
    done = run("verify", NAME)
    size = other[3].stat().st_size
    told = f"is another GGUF, whole by itself: {size:,} bytes, {published:,} were published"
    assert fault_of(done) == ("foreign", told)
    mend(done, run, files)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_hole_in_the_middle(
    shards: list[Path], files: dict[str, bytes], run: Run, hub: TestHub, sparse: bool
) -> None:
    start, end, data = 1 << 20, (1 << 20) + (256 << 10), shards[3].read_bytes()
    with shards[3].open("wb") as file:
        file.write(data[:start])
        file.write(b"" if sparse else bytes(end - start))
        file.seek(end)
        file.write(data[end:])
    done = run("verify", NAME)
    row, sentence = fault_of(done)
    assert row == "hole"
    told = r"was never written from byte 1,048,576 to 1,310,720 \(blk\.[01]\.extra_\d\.weight(, [\w.]+)*\)"
    assert re.fullmatch(told + ": only zeros are there", sentence)
    mend(done, run, files)


def test_a_damaged_header(shards: list[Path], files: dict[str, bytes], run: Run) -> None:
    data = shards[1].read_bytes()
    shards[1].write_bytes(b"GGXF" + data[4:])
    done = run("verify", NAME)
    assert fault_of(done) == ("header", "has a damaged header: no GGUF: starts with b'GGXF'")
    mend(done, run, files)


def test_one_bad_block(tmp_path: Path, work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is is told by what was noted when the file was right; only that is fetched again."""
    files = publish(tmp_path / "large", model_bytes(36), max_tensors=99)
    (path,) = files
    with run_hub(tmp_path / "large", cdn=True) as hub:
        for name, value in (hub.hf_env | hub.ms_env).items():
            monkeypatch.setenv(name, value)
        pull(plan_pull(REPO_ID, quant=QUANT))
        shard = Path(NAME) / path
        with shard.open("rb+") as file:
            file.seek(20 << 20)
            byte = file.read(1)[0]
            file.seek(20 << 20)
            file.write(bytes([byte ^ 1]))
        done = run("verify", NAME)
        row, sentence = fault_of(done)
        assert row == "blocks"
        told = r"has a bad block from byte 16,777,216 to 33,554,432 \(blk\.[01]\.extra_\d+\.weight, .*\); "
        assert re.fullmatch(told + "what is before it is right", sentence)
        inode = shard.stat().st_ino
        hub.requests.clear()
        mend(done, run, files)
        asked = [re.fullmatch(r"bytes=(\d+)-(\d+)", one.range or "") for one in hub.asked(plane="cdn")]
        ranges = [(int(one[1]), int(one[2]) + 1) for one in asked if one is not None]
        fetched = [(a, b) for a, b in ranges if b - a > SAMPLE_BYTES]
        assert len(ranges) == len(asked) and fetched
        assert all(16 << 20 <= a < b <= 32 << 20 for a, b in fetched), "all else was right"
        assert shard.stat().st_ino == inode, "the rest was not even copied"


# ---- files that nobody recorded ----


@pytest.fixture
def alone(work: Path) -> tuple[Path, ...]:
    return make_shards(make_gguf(work / "whole" / "m.gguf"), work / "m", max_tensors=6)


def test_a_pointer_in_a_clone(alone: tuple[Path, ...], run: Run) -> None:
    alone[2].write_bytes(POINTER)
    done = run("verify", "m")
    assert fault_of(done, 7) == ("lfs-pointer", "is a Git LFS pointer, not the file: cloned without git-lfs")
    assert "hint: git lfs pull, in its folder, fetches it; " in done.err


def test_a_renamed_shard_gets_its_name_back(alone: tuple[Path, ...], run: Run, work: Path) -> None:
    alone[3].unlink()
    alone[2].rename(alone[3])
    done = run("verify", "m")
    assert done.code == 7 and [line.split()[0] for line in done.lines[1:5]] == [
        "unproven",
        "unproven",
        "renamed",
        "missing",
    ]
    assert "is shard 3 by its split.no, not shard 4: renamed?" in done.err
    hint = next(line for line in done.err.splitlines() if line.startswith("hint: "))
    command, found, _ = hint.removeprefix("hint: ").partition(" gives it back its name")
    assert found and os.waitstatus_to_exitcode(os.system(command)) == 0
    assert alone[2].exists() and "is not there" in run("verify", "m").err


def test_a_hole_that_a_broken_download_left(work: Path, run: Run) -> None:
    path = work / "m.gguf"
    data = model_bytes(3)
    with path.open("wb") as file:
        file.write(data[: 1 << 20])
        file.seek(2 << 20)
        file.write(data[2 << 20 :])
    done = run("verify", "m.gguf")
    row, sentence = fault_of(done, 7)
    assert row == "hole" and sentence.startswith("was never written from byte 1,048,576 to 2,097,152 (")
    assert sentence.endswith("): only a hole is there")
    assert "hint: ggufkit verify . --against REF says more, and what mends it" in done.err


# ---- against a repo or a manifest ----


def test_files_of_a_browser_are_verified_against_the_hub(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    down = work / "downloads"
    down.mkdir()
    for path, data in files.items():
        if path.endswith(".gguf"):
            (down / path.rpartition("/")[2]).write_bytes(data)
    done = run("verify", down, "--against", REPO_ID)
    n = len(files)
    assert done.code == 0 and done.lines[-1] == f"{n} of {n} files verified, SHA-256 checked"
    first, second, *_ = sorted(down.iterdir())
    os.truncate(first, 5000)
    second.unlink()
    done = run("verify", down, "--against", f"{REPO_ID}:{QUANT}")
    assert done.code == 6 and [line.split()[0] for line in done.lines[1:4]] == ["truncated", "missing", "ok"]
    hint = next(line for line in done.err.splitlines() if line.startswith("hint: "))
    assert hint == f"hint: ggufkit pull {REPO_ID} --quant {QUANT} --local-dir downloads fetches what is wrong"
    assert run(*shlex.split(hint)[2:8]).code == 0
    assert run("verify", down).code == 0
    one = run("verify", first, "--against", REPO_ID, "--json")
    assert len(one.json["files"]) == n


def test_what_was_pulled_and_then_changed_on_the_hub(
    shards: list[Path], files: dict[str, bytes], run: Run, hub: TestHub
) -> None:
    path = sorted(p for p in files if p.endswith(".gguf"))[1]
    new = bytearray(files[path])
    new[-40_000] ^= 1
    (hub.root / REPO_ID / path).write_bytes(new)
    hub.refresh()
    assert run("verify", NAME).code == 0, "offline it is what was pulled"
    done = run("verify", NAME, "--against", REPO_ID)
    row, sentence = fault_of(done)
    assert row == "changed"
    assert sentence.startswith("is what was pulled, but another file is published now: SHA-256 ")
    mend(done, run, {**files, path: bytes(new)})


def test_against_a_manifest_file(shards: list[Path], run: Run, work: Path) -> None:
    (record,) = Path(NAME, ".ggufkit").glob("*.json")
    manifest = record.rename(work / "set.json")
    assert run("verify", NAME, "--strict").code == 6, "nothing is recorded now"
    done = run("verify", NAME, "--against", manifest)
    assert done.code == 0 and done.lines[-1].endswith("files verified, SHA-256 checked")
    done = run("verify", work / "set.json", "--against", "nothing/of-the-kind")
    assert done.code == 3


def test_nothing_named_so(shards: list[Path], run: Run, work: Path) -> None:
    (work / "empty").mkdir()
    done = run("verify", "empty", "--against", REPO_ID)
    assert done.code == 3
    assert f"error: empty: nothing there is named like a file of {REPO_ID}" in done.err
    assert f"hint: ggufkit quants {REPO_ID} shows what it has" in done.err
    assert run("verify", "nowhere", "--against", REPO_ID).code == 3
