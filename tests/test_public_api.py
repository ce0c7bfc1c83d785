"""The names that others import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ggufkit

HEAVY = ("numpy", "gguf", "huggingface_hub", "modelscope", "modelscope_hub", "urllib3", "aiohttp", "tqdm")


@pytest.mark.parametrize("name", ggufkit.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(ggufkit, name) is not None
    assert name in dir(ggufkit)


def test_no_public_name_is_that_of_a_room() -> None:
    """Importing a room would put the module where the name should be."""
    rooms = {p.name for p in Path(ggufkit.__file__).parent.iterdir() if p.is_dir()}
    assert not rooms & set(ggufkit.__all__)


def test_every_name_has_a_home() -> None:
    assert sorted([*ggufkit._HOMES, "__version__"]) == sorted(ggufkit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ggufkit.nonsense


@pytest.mark.parametrize("arguments", [["-c", "import ggufkit"], ["-m", "ggufkit", "--help"]])
def test_importing_and_help_load_nothing_heavy(arguments: list[str]) -> None:
    code = "import sys; print(*(m for m in sys.argv[1:] if m in sys.modules), file=sys.stderr)"
    if arguments[0] == "-c":
        script = f"{arguments[1]}\n{code}"
    else:
        script = (
            "import sys, contextlib, io\nfrom ggufkit.cli.main import run\n"
            f"with contextlib.redirect_stdout(io.StringIO()): assert run(['--help']) == 0\n{code}"
        )
    done = subprocess.run([sys.executable, "-c", script, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
