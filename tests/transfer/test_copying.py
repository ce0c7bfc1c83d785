"""Copying ranges: in the kernel, through the process when the kernel won't, and where there is no pread."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.errors import IntegrityError
from ggufkit.transfer import copying
from ggufkit.transfer.copying import copy_range, read_at, write_all

SIZE = 3 * copying.BUFFER_BYTES + 12345
CONTENT = random.Random(1).randbytes(SIZE)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    (tmp_path / "source").write_bytes(CONTENT)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        yield source.fileno(), target.fileno()


def written(fd: int) -> bytes:
    return os.pread(fd, 2 * SIZE, 0)


def check_copy(files: tuple[int, int]) -> list[tuple[int, int]]:
    """Copy all but 100 bytes at both ends to offset 7, and return what was told."""
    source, target = files
    told: list[tuple[int, int]] = []
    copy_range(source, 100, target, 7, SIZE - 200, lambda a, b: told.append((a, b)))
    assert written(target) == bytes(7) + CONTENT[100:-100]
    assert told[0][0] == 7 and told[-1][1] == 7 + SIZE - 200
    assert all(b == c for (_, b), (c, _) in itertools.pairwise(told))
    return told


def test_in_the_kernel(files: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "copy_file_range"):
        pytest.skip("no copy_file_range here")
    monkeypatch.setattr(copying, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(copying, "_through_process", None)  # would be an error to call
    assert len(check_copy(files)) == 4


REFUSALS = [
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
]


@pytest.mark.parametrize("code", REFUSALS, ids=lambda c: errno.errorcode[c])
def test_through_the_process_when_the_kernel_refuses(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls = []

    def refuse(*_arguments: int) -> int:
        calls.append(1)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert len(check_copy(files)) == 4
    assert len(calls) == 1, "asked once, not for every block"


def test_through_the_process_after_the_kernel_gave_up_half_way(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = os.copy_file_range
    calls = []

    def half(source: int, target: int, n_bytes: int, offset: int, at: int) -> int:
        calls.append(n_bytes)
        if len(calls) > 1:
            return 0  # what some file systems answer for what they can't do
        return honest(source, target, 4321, offset, at)

    monkeypatch.setattr(os, "copy_file_range", half)
    assert check_copy(files)[0] == (7, 7 + 4321)
    assert len(calls) == 2


@pytest.mark.parametrize("missing", [(), ("preadv",), ("preadv", "pread", "pwrite")])
def test_lent_bytes_are_those_written_and_stay_as_they_were(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    for name in missing:
        monkeypatch.delattr(os, name, raising=False)
    source, target = files
    told: list[tuple[int, int, memoryview]] = []
    copying.copy_lending(source, 100, target, 7, SIZE - 200, lambda a, b, data: told.append((a, b, data)))
    assert told[0][0] == 7 and told[-1][1] == 7 + SIZE - 200
    assert all(b == c for (_, b, _), (c, _, _) in itertools.pairwise(told))
    assert b"".join(data for *_, data in told) == CONTENT[100:-100], "all of them, when the last one was told"
    os.lseek(target, 0, os.SEEK_SET)
    assert os.read(target, SIZE) == bytes(7) + CONTENT[100:-100]


def test_what_ends_early_is_not_lent_as_whole(files: tuple[int, int]) -> None:
    with pytest.raises(copying.SourceEnded, match="1 bytes early"):
        copying.copy_lending(files[0], 0, files[1], 0, SIZE + 1, lambda _a, _b, _data: None)


def test_buffers_are_used_again_when_nobody_looks_at_them() -> None:
    buffers = copying.Buffers(100)
    first, second = buffers.take(), buffers.take()
    first[:], second[:] = b"1" * 100, b"2" * 100
    kept = first[10:]
    del first
    third = buffers.take()
    third[:] = b"3" * 100
    assert bytes(kept) == b"1" * 90 and bytes(second) == b"2" * 100
    del kept, second, third
    for _ in range(9):
        buffers.take()
    assert len(buffers._all) == 3


def test_without_copy_file_range_pread_and_pwrite(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("copy_file_range", "pread", "pwrite"):
            patch.delattr(os, name, raising=False)
        source, target = files
        copy_range(source, 100, target, 7, SIZE - 200, lambda _a, _b: None)
        assert read_at(source, 50, 1000) == CONTENT[1000:1050]
        assert read_at(source, 50, SIZE) == b""
    assert written(target) == bytes(7) + CONTENT[100:-100]


def test_without_pread_two_threads_keep_out_of_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "both"
    path.write_bytes(CONTENT)
    wrong: list[int] = []
    with monkeypatch.context() as patch, path.open("r+b", buffering=0) as file:
        patch.delattr(os, "pread")
        patch.delattr(os, "pwrite")

        def read() -> None:
            for at in range(0, 1 << 20, 4096):
                if read_at(file.fileno(), 4096, at) != CONTENT[at : at + 4096]:
                    wrong.append(at)

        thread = threading.Thread(target=read)
        thread.start()
        for at in range(1 << 20, 2 << 20, 4096):
            write_all(file.fileno(), b"\0" * 4096, at)
        thread.join()
    assert wrong == []
    assert path.read_bytes() == CONTENT[: 1 << 20] + bytes(1 << 20) + CONTENT[2 << 20 :]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = os.pwrite
    with (tmp_path / "t").open("w+b") as file:
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: honest(fd, data[:7], at))
        write_all(file.fileno(), b"a" * 100, 3)
        assert os.pread(file.fileno(), 200, 0) == bytes(3) + b"a" * 100


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_source_that_ends_early_is_an_error(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    told: list[tuple[int, int]] = []
    with pytest.raises(IntegrityError, match=r"ended 55 bytes early"):
        copy_range(files[0], 0, files[1], 0, SIZE + 55, lambda a, b: told.append((a, b)))
    assert told[-1][1] == SIZE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG], ids=lambda c: errno.errorcode[c])
@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_real_failure_is_not_swallowed(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch, in_kernel: bool, code: int
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    if in_kernel:
        monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    else:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
        monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError) as caught:
        copy_range(files[0], 0, files[1], 0, SIZE, lambda _a, _b: None)
    assert caught.value.errno == code


def test_nothing_is_nothing(files: tuple[int, int]) -> None:
    copy_range(files[0], 5, files[1], 0, 0, lambda _a, _b: pytest.fail("nothing was written"))
    assert written(files[1]) == b""
