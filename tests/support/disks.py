"""Other file systems for tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

SHARED_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def other_file_system(here: Path) -> Iterator[Path]:
    """Yield an empty folder on another file system than `here`; skip the test where there is none."""
    if not os.access(SHARED_MEMORY, os.W_OK) or SHARED_MEMORY.stat().st_dev == here.stat().st_dev:
        pytest.skip("no second file system here: /dev/shm is missing or not apart")
    with TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)
