"""A link that comes to a copy is told as a task, from its first bytes on; a link is told nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.errors import TargetExistsError
from ggufkit.runtimes.copying import link_or_copy_told
from tests.support.disks import other_file_system

SIZE = 3 << 20


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.n_bytes = 0

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        self.said.append(f"{task}: {total_bytes} after {done_bytes}")

    def advance(self, n_bytes: int) -> None:
        assert self.said[-1].startswith("copying"), "a task was begun"
        self.n_bytes += n_bytes

    def note(self, message: str) -> None:
        self.said.append(message.partition(" from ")[0])

    def finish(self) -> None:
        self.said.append("finished")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(SIZE))
    return path


def test_a_link_is_told_nothing(source: Path, tmp_path: Path) -> None:
    heard = Heard()
    assert link_or_copy_told(source, tmp_path / "n.gguf", progress=heard) == "hard-link"
    assert heard.said == []


def test_a_copy_is_a_task(source: Path, tmp_path: Path) -> None:
    heard = Heard()
    assert link_or_copy_told(source, tmp_path / "n.gguf", method="copy", progress=heard) == "copy"
    assert heard.said == [f"copying m.gguf: {SIZE} after 0", "finished"] and heard.n_bytes == SIZE
    heard = Heard()
    with pytest.raises(TargetExistsError):
        link_or_copy_told(source, tmp_path / "n.gguf", method="copy", progress=heard)
    assert heard.said == []


def test_a_refused_link_is_said_before_the_copy(source: Path, tmp_path: Path) -> None:
    with other_file_system(tmp_path) as disk:
        heard = Heard()
        link_or_copy_told(source, disk / "n.gguf", progress=heard)
    assert heard.said == ["no hard link", f"copying m.gguf: {SIZE} after 0", "finished"]
    assert heard.n_bytes == SIZE
