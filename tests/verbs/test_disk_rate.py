"""How fast a disk is: measured on a real file, refused where nothing can be learnt, remembered by mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ggufkit.errors import NotFoundError, ToolError
from ggufkit.fit.machine import read_cpu
from ggufkit.verbs import disk_rate
from ggufkit.verbs.disk_rate import LEAST_BYTES, PIECE_BYTES, DiskRate, measure_disk, mount_of
from ggufkit.verbs.rigs import find_rigs, remember_bandwidth, remember_disk, remembered

CPU = read_cpu()


def written(path: Path, n_bytes: int = LEAST_BYTES) -> Path:
    with path.open("wb") as file:
        for _ in range(n_bytes >> 20):
            file.write(os.urandom(1 << 10) * 1024)
    return path


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system can't be told to forget a file")
def test_a_real_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_rate, "MEMORY_BYTES_PER_S", 1e15)  # where the folder for tests is in memory
    rate = measure_disk(written(tmp_path / "big"))
    assert 1e6 < rate.bytes_per_s < 1e12
    assert rate.read_bytes == LEAST_BYTES // PIECE_BYTES * PIECE_BYTES
    assert tmp_path.is_relative_to(rate.mount)
    monkeypatch.setattr(disk_rate, "MEMORY_BYTES_PER_S", 1.0)
    with pytest.raises(ToolError, match="came from memory"):
        measure_disk(tmp_path / "big")


def test_every_piece_is_read_once_all_over_the_file() -> None:
    offsets = disk_rate._offsets(1 << 40)
    assert len(set(offsets)) == disk_rate.N_PIECES
    assert min(offsets) < 1 << 37 and max(offsets) > 7 << 37
    assert all(offset % PIECE_BYTES == 0 and offset + PIECE_BYTES <= 1 << 40 for offset in offsets)


def test_what_tells_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError):
        measure_disk(tmp_path / "gone")
    with pytest.raises(ToolError, match="too small"):
        measure_disk(written(tmp_path / "small", 1 << 20))
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ToolError, match="has holes"):
        measure_disk(tmp_path / "holes")
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with pytest.raises(ToolError, match="fit --disk-speed"):
        measure_disk(written(tmp_path / "big"))


def test_it_counts_for_models_on_that_disk(tmp_path: Path) -> None:
    assert find_rigs(model=tmp_path)[0].disk_bytes_per_s is None
    remember_bandwidth(CPU, 20e9)
    remember_disk(CPU, DiskRate(3e9, 1, "/elsewhere"))
    remember_disk(CPU, DiskRate(2e9, 1, str(mount_of(tmp_path))))
    assert remembered(CPU).disks_bytes_per_s == {"/elsewhere": 3e9, str(mount_of(tmp_path)): 2e9}
    assert remembered(CPU).read_bytes_per_s == 20e9
    assert find_rigs(model=tmp_path)[0].disk_bytes_per_s == 2e9
    assert find_rigs(model=tmp_path, disk_bytes_per_s=5e9)[0].disk_bytes_per_s == 5e9
    assert find_rigs(model=tmp_path / "gone")[0].disk_bytes_per_s is None
    assert find_rigs(("xuanwu",), model=tmp_path)[0].disk_bytes_per_s is None
