"""Reading headers from files and by ranges: what is no file, what changes meanwhile, how much is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, FormatError, GgufkitError, NotFoundError
from ggufkit.gguf.header import Header
from ggufkit.gguf.reader import MAX_HEADER_BYTES, MoreNeeded, read_header
from ggufkit.transfer.sources import header_by_range, open_header
from tests.support.ggufs import gguf_bytes, make_gguf


def test_a_file(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "model.gguf")
    header = open_header(path)
    assert header.name == str(path)
    assert header.file_size_bytes == path.stat().st_size
    assert len(header.tensors) == 21
    assert header.warnings == ()


def test_a_link_is_followed(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "model.gguf")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert open_header(link).tensors == open_header(path).tensors


def test_no_such_file(tmp_path: Path) -> None:
    make_gguf(tmp_path / "model.gguf")
    dangling = tmp_path / "dangling.gguf"
    dangling.symlink_to(tmp_path / "gone.gguf")
    for path in (tmp_path / "x.gguf", tmp_path / "model.gguf" / "x.gguf", dangling):
        with pytest.raises(NotFoundError, match=r"x\.gguf: no such file|dangling\.gguf: no such file"):
            open_header(path)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is a folder, not a file"):
        open_header(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(NotFoundError, match="is no regular file"):
        open_header(tmp_path / "pipe.gguf")


@pytest.mark.skipif(sys.platform == "win32", reason="no such devices")
def test_a_device(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is no regular file"):
        open_header(Path("/dev/zero"))


def test_what_the_system_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    for path in (loop, tmp_path / ("x" * 1000)):
        with pytest.raises(GgufkitError) as caught:
            open_header(path)
        assert caught.value.exit_code in (3, 4)


def test_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_gguf(tmp_path / "model.gguf")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AccessError, match="not readable by this user"):
        open_header(path)


def test_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_gguf(tmp_path / "model.gguf")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(AccessError, match="cannot be read: Input/output error"):
        open_header(path)


# ---- by ranges ----


def by_range(data: bytes, size: int, **how: float) -> tuple[Header, list[int]]:
    asked: list[int] = []

    def read(n_bytes: int) -> bytes:
        asked.append(n_bytes)
        return data[:n_bytes]

    return header_by_range(read, name="test", file_size_bytes=size, **how), asked  # type: ignore[arg-type]


@pytest.mark.timeout(20)
def test_a_file_that_shrinks_meanwhile_is_refused() -> None:
    data = gguf_bytes()
    with pytest.raises(FormatError, match=r"ends after 100 of .* bytes: cut while it was read"):
        by_range(data[:100], len(data), first_read_bytes=64)


def test_no_more_is_read_than_there_is() -> None:
    data = gguf_bytes(tensors=[])
    assert by_range(data, len(data))[1] == [len(data)]


def test_the_end_of_many_strings_is_guessed_from_the_first() -> None:
    strings = [f"token number {i:06}" for i in range(100_000)]  # 2.7 MB
    data = gguf_bytes(tensors=[], kv={"tokenizer.ggml.tokens": strings})
    header, asked = by_range(
        data + bytes(10 << 20), len(data) + (10 << 20), first_read_bytes=1 << 16, growth=1.25
    )
    assert header.header_end < len(data)
    assert len(asked) == 2
    assert len(data) < asked[-1] < len(data) * 1.02 + (129 << 10)


def test_one_long_string_is_asked_for_exactly() -> None:
    data = gguf_bytes(tensors=[], kv={"a.b": "x" * 300_000})
    with pytest.raises(MoreNeeded) as caught:
        read_header(data[:1000], name="test", file_size_bytes=len(data))
    assert caught.value.n_bytes == read_header(data, name="test", file_size_bytes=len(data)).header_end


def test_strings_that_grow_are_still_reached() -> None:
    """A guess from short strings is too low, one from long strings too high: neither hangs or overreads."""
    for lengths in (range(5000), range(5000, 0, -1)):
        data = gguf_bytes(tensors=[], kv={"a.b": ["x" * n for n in lengths]})
        header, asked = by_range(data, len(data), first_read_bytes=64, growth=1.0)
        assert header.header_end <= len(data)
        assert asked[-1] <= len(data)
        assert len(asked) < 40


def test_a_header_beyond_the_cap_is_never_asked_for() -> None:
    start = gguf_bytes(tensors=[], kv={"a.b": ["x" * 100] * 1000})
    at = start.index(b"a.b") + 3 + 8
    claims = start[:at] + (3 << 20).to_bytes(8, "little") + start[at + 8 : at + 8 + 500 * 108]
    size = 10 * MAX_HEADER_BYTES
    with pytest.raises(MoreNeeded) as caught:
        read_header(claims, name="test", file_size_bytes=size)
    assert len(claims) < caught.value.n_bytes <= MAX_HEADER_BYTES
    beyond = claims + b"\xff\xff\xff\x0f\0\0\0\0"
    with pytest.raises(FormatError, match=r"array a\.b would make a header of more than 128 MiB"):
        read_header(beyond, name="test", file_size_bytes=size)
