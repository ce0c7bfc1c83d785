"""Range headers, and files that change under the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.server.blob import Span, is_unchanged, open_unchanged, parse_range
from ggufkit.server.snapshot import SharedFile
from ggufkit.transfer.digest import FileStamp


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-", Span(0, 100)),
        ("bytes=99-", Span(99, 1)),
        ("bytes=10-19", Span(10, 10)),
        ("bytes=10-1000", Span(10, 90)),
        ("bytes=-1", Span(99, 1)),
        ("bytes=-1000", Span(0, 100)),
        ("Bytes=0-0 ", Span(0, 1)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-", None),
        ("bytes=+1-2", None),
        ("bytes=1 - 2", None),
        (f"bytes={'9' * 5000}-", None),
        (f"bytes=0-{'9' * 5000}", None),
    ],
)
def test_ranges(header: str, span: Span | None) -> None:
    assert parse_range(header, 100) == span


@given(st.integers(0, 300), st.none() | st.integers(0, 300), st.integers(0, 200))
def test_a_range_is_a_slice(first: int, last: int | None, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    expected = data[first:] if last is None else data[first : last + 1]
    span = parse_range(f"bytes={first}-{'' if last is None else last}", size_bytes)
    assert (data[span.start : span.start + span.n_bytes] if span else b"") == expected


def shared(path: Path) -> SharedFile:
    return SharedFile("a", path, FileStamp.of(path.stat()), "ab" * 32, "cd" * 20, 0)


def test_only_the_listed_state_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    file = shared(path)
    with open_unchanged(file) as opened:
        assert opened.read() == b"data"
    assert is_unchanged(file)
    path.write_bytes(b"more data")
    assert not is_unchanged(file)
    with pytest.raises(FileNotFoundError):
        open_unchanged(file)
    path.unlink()
    assert not is_unchanged(file)
    with pytest.raises(FileNotFoundError):
        open_unchanged(file)


def test_a_link_put_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"data")
    file = shared(path)
    other.write_bytes(b"DATA")
    os.utime(other, ns=(0, file.stamp.mtime_ns))
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(FileNotFoundError):
        open_unchanged(file)
