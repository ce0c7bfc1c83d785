"""Hugging Face and ModelScope as two servers, each with files of its own."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from tests.support.hub import FOLDER, REPO_ID, TestHub, run_hub
from tests.verbs.published import publish


class Hubs:
    """Hugging Face and ModelScope, each with a folder of its own, and more places to come."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.files: dict[str, bytes] = {}
        self.hf, self.ms = self.make("hf"), self.make("ms")

    def make(self, name: str, **options: str) -> TestHub:
        """Run one more hub that has the set."""
        self.files = publish(self._folder / name, **options)  # type: ignore[arg-type]
        return self._stack.enter_context(run_hub(self._folder / name, cdn=True))

    def serve(self, hub: TestHub, root: Path) -> None:
        """Let a hub have the set that was published in `root` in place of its own."""
        folder = hub.root / REPO_ID / FOLDER
        shutil.rmtree(folder)
        shutil.copytree(root / REPO_ID / FOLDER, folder, copy_function=os.link)
        self.files = {f"{FOLDER}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        hub.refresh()
