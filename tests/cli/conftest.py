"""Commands run at the prompt, in the process or in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli.main import run as run_main
from tests.verbs.conftest import files, hub, naps, work

__all__ = ["files", "hub", "naps", "work"]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    """Its exit code."""
    out: str
    """What it printed on stdout."""
    err: str
    """What it printed on stderr."""

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        document = json.loads(self.out)
        assert document["schema"] == 1 and next(iter(document)) == "schema"
        return document

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run_main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def spawn(work: Path) -> Run:
    """Run a command line in a process of its own, in the folder to work in."""

    def spawn(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> Ran:
        command = [sys.executable, "-m", "ggufkit", *map(str, arguments)]
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, **(env or {})}
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, **options)
        return Ran(done.returncode, done.stdout, done.stderr)

    return spawn
