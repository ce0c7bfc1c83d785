"""DeepSeek-R1 at its full size on paper: a listing, headers and arithmetic, and no tensor data read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.ggufs import r1_shards
from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub

HEADERS_BYTES = 10_000_000
"""What may be read at most: the headers have 5 MB in all, the shards 197 GB."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return r1_shards(tmp_path_factory.mktemp("r1") / REPO_ID / FOLDER)


@pytest.fixture
def full_hub(shards: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    root = shards[0].parents[3]
    sha256s = {p.relative_to(root).as_posix(): f"{i:064x}" for i, p in enumerate(shards)}
    with run_hub(root, cdn=True, sha256s=sha256s, cache_folder=tmp_path / "cache") as hub:
        for name, value in {**hub.hf_env, **hub.ms_env}.items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_on_a_hub(full_hub: TestHub, run: Run, source: str) -> None:
    done = run("quants", REPO_ID, "--source", source)
    assert done.code == 0
    assert "183.1 GiB (196.7 GB)" in done.out
    assert full_hub.sent_bytes(plane="cdn") == 0
    ref = f"{REPO_ID}:UD-IQ2_XXS"
    looked = run("inspect", ref, "--source", source)
    assert looked.code == 0 and "183.1 GiB (196.7 GB), 4 shards" in looked.out
    fits = run("fit", ref, "--ram", "256G", "--source", source, "-q")
    assert (fits.code, fits.out) == (0, "fits\n")
    assert 0 < full_hub.sent_bytes(plane="cdn") < 2 * HEADERS_BYTES


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what is read")
def test_on_this_disk(shards: tuple[Path, ...], run: Run) -> None:
    for arguments in (["inspect", shards[0].parent], ["fit", shards[1], "--ram", "256G"]):
        before = read_bytes()
        done = run(*arguments)
        assert done.code == 0 and "183.1 GiB" in done.out
        assert read_bytes() - before < 2 * HEADERS_BYTES


def read_bytes() -> int:
    """Return how many bytes this process has asked files for so far (proc(5), `rchar`)."""
    return int(Path("/proc/self/io").read_text().split()[1])
