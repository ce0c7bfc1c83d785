"""What is said when there is no room: what is missing is seen, however close it is."""

from __future__ import annotations

import pytest

from ggufkit.verbs.room import room_text

GIB = 1 << 30


@pytest.mark.parametrize(
    ("need", "free", "kept", "text"),
    [
        (183 * GIB, 120 * GIB, 0, "183.0 GiB to write, 120.0 GiB free: 63.0 GiB short"),
        (GIB, GIB - 1, 0, "1.0 GiB to write, 1024.0 MiB free: 1 B short"),
        (100 << 20, 130 << 20, 64 << 20, "100.0 MiB to write, 130.0 MiB free (64.0 MiB of it are kept free)"),
        (100 << 20, 130 << 20, 64 << 20, ": 34.0 MiB short"),
        (3 * GIB, 0, 0, "3.0 GiB to write, 0 B free: 3.0 GiB short"),
        (10 * GIB + 1, 8 * GIB, 0, ": 2.1 GiB short"),
    ],
)
def test_what_is_missing(need: int, free: int, kept: int, text: str) -> None:
    assert text in room_text(need, free, kept_bytes=kept)
