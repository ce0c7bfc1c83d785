"""The user's own folders: what may be lost (cache) and what should not (state)."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what can be made again (digests of files)."""
    return _folder("XDG_CACHE_HOME", ".cache", "Library/Caches", "LOCALAPPDATA")


def state_folder() -> Path:
    """Return the folder for what commands remember of each other (the model pulled last)."""
    return _folder("XDG_STATE_HOME", ".local/state", "Library/Application Support", "LOCALAPPDATA")


def _folder(variable: str, on_linux: str, on_macos: str, windows_variable: str) -> Path:
    """Return the folder by the XDG base directory specification, or the platform's custom."""
    chosen = os.environ.get(variable)
    if chosen and Path(chosen).is_absolute():
        return Path(chosen) / "ggufkit"
    if sys.platform == "win32":
        base = os.environ.get(windows_variable)
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "ggufkit"
    return Path.home() / (on_macos if sys.platform == "darwin" else on_linux) / "ggufkit"
