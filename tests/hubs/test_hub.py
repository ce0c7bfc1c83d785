"""What is common to both hubs; and that clients are loaded only when a hub is opened, in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ggufkit.errors import IntegrityError
from ggufkit.hubs.hub import RemoteFile, open_hub, remote_file

SHA = "089bad3cbe27056cbcd39c5f6f32f0fee40ce8a24462ef3e5363bd7d85b0779a"


def test_a_remote_file_is_checked() -> None:
    assert remote_file("a/b", 7, SHA.upper(), "main") == RemoteFile("a/b", 7, SHA, "main")
    assert remote_file("a/b", 0, "", "main").sha256 is None
    assert remote_file("a/b", 0, None, "main").sha256 is None
    for path, size, sha256 in [(7, 7, None), ("a", -1, None), ("a", "7", None), ("a", 7, SHA[1:])]:
        with pytest.raises(ValueError, match="no "):
            remote_file(path, size, sha256, "main")
    with pytest.raises(IntegrityError):
        remote_file("../x", 7, None, "main")


@pytest.mark.parametrize("module", ["hub", "quants", "manifest", "calls"])
def test_no_client_is_loaded_before_a_hub_is_opened(module: str) -> None:
    clients = "{'huggingface_hub', 'modelscope', 'modelscope_hub', 'requests', 'urllib3', 'httpx', 'httpx2'}"
    code = f"import ggufkit.hubs.{module}, sys; print([*{clients}.intersection(sys.modules)])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize(
    ("name", "client"), [("huggingface", "huggingface_hub"), ("modelscope", "modelscope_hub")]
)
def test_a_hub_loads_its_own_client_only_and_prints_nothing(name: str, client: str, tmp_path: Path) -> None:
    code = (
        f"from ggufkit.hubs.hub import open_hub; import sys; open_hub({name!r}); "
        "print([m for m in sys.modules if m in ('huggingface_hub', 'modelscope', 'modelscope_hub', 'tqdm')])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, check=True, text=True,
        env={"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)},
    )  # fmt: skip
    assert done.stderr == ""
    assert client in done.stdout
    assert (client == "huggingface_hub") == ("huggingface_hub" in done.stdout)
    assert list(tmp_path.rglob("*")) == []


def test_each_hub_knows_its_name(clean_environment: Path) -> None:
    assert open_hub("huggingface").name == "huggingface"
    assert open_hub("modelscope").name == "modelscope"
    assert open_hub("huggingface").endpoint == "https://huggingface.co"
    assert open_hub("modelscope", endpoint="www.modelscope.ai").endpoint == "https://www.modelscope.ai"
