"""Names of real repos: tests/data/real_repos.json as values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufkit.hubs.hub import RemoteFile

_DATA: dict[str, Any] = json.loads(Path(__file__).parent.parent.joinpath("data/real_repos.json").read_text())


@dataclass(frozen=True)
class RealSet:
    """One quant of one repo, as far as its files are known."""

    repo: str
    quant: str
    files: tuple[str, ...]

    def whole(self) -> tuple[str, ...]:
        """The names of the whole set: numbers that are not known are filled in."""
        match = re.fullmatch(r"(.*-)\d{5}(-of-(\d{5})\.gguf)", self.files[0])
        if match is None:
            return self.files
        return tuple(f"{match[1]}{n:05d}{match[2]}" for n in range(1, int(match[3]) + 1))


SETS = tuple(RealSet(s["repo"], s["quant"], tuple(s["files"])) for s in _DATA["sets"])
NAMES = tuple((n["path"], n["quant"], n["model"]) for n in _DATA["names"])
R1 = "unsloth/DeepSeek-R1-GGUF"


def repo_files(repo: str) -> tuple[str, ...]:
    """The names of all whole sets that are known of a repo."""
    return tuple(dict.fromkeys(path for s in SETS if s.repo == repo for path in s.whole()))


def remote(*paths: str, size_bytes: int = 7) -> list[RemoteFile]:
    """Make listed files of names."""
    return [RemoteFile(path, size_bytes, None, "main") for path in paths]
