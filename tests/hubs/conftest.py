"""A fake hub, and clients that find no token, proxy or endpoint of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.hubs import calls
from tests.hubs.fake import FakeHub, run_fake

FILES = {
    "README.md": 12,
    "UD-Q2_K/n-UD-Q2_K-00001-of-00002.gguf": 49_800_000_000,
    "UD-Q2_K/n-UD-Q2_K-00002-of-00002.gguf": 7,
    "empty.gguf": 0,
}
_VARIABLES = (
    "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN",
    "MODELSCOPE_API_TOKEN", "GGUFKIT_TOKEN_HOSTS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Set up an empty home without tokens, and return it."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf-token"))
    return tmp_path


@pytest.fixture
def fake(clean_environment: Path) -> Iterator[FakeHub]:
    """A fake hub with one repo, `o/n`."""
    with run_fake(dict(FILES)) as hub:
        yield hub


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let retries sleep not, but say how long they would have; the clients' own as well."""
    seconds: list[float] = []
    monkeypatch.setattr(calls, "sleep", seconds.append)
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds
