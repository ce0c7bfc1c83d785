"""What other programs left of a file that is to be pulled: whole, or parts of it, and where.

Nothing here is proven but what has the published digest; what is only named like it is a guess that
the digest of the finished file confirms or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ggufkit.hubs.hub import RemoteFile
from ggufkit.transfer.journal import Range
from ggufkit.verbs.aria2 import aria2_ranges
from ggufkit.verbs.scan import data_ranges

MAX_DEPTH = 4
"""How deep folders are searched: `<name>/<folders of the repo>/<file>`."""
MAX_ENTRIES = 20_000
"""So many entries of one folder to search are looked at, and no more: it may be somebody's home."""
TAIL_STEP_BYTES = 64 << 10
_IN_PROGRESS = (
    r"\.(?:crdownload|opdownload|part|partial|download|downloading|downloadInProgress|incomplete|tmp)"
)
# `name (1).gguf` (Chrome, Firefox), `name.gguf.1` (wget), `name.Ab12Cd34.gguf.part` (Firefox)
_COPY = r"(?: ?\(\d{1,3}\))?"
_HF_ETAG = re.compile(r"(?:[\w=-]+\.)?([0-9a-f]{64})(?:\.[0-9a-f]{8})?\.incomplete")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file that may have bytes of the file to be pulled."""

    path: Path
    """Where it is."""
    ranges: tuple[Range, ...]
    """Which bytes of the file to be pulled it may have."""
    offset: int = 0
    """Which byte of that file its first byte is."""

    @property
    def n_bytes(self) -> int:
        """How many bytes it may have."""
        return sum(end - start for start, end in self.ranges)


class Places:
    """The folders where other programs put files of a repo, searched once."""

    def __init__(self, repo_id: str, root: Path, more: Iterable[Path] = ()) -> None:
        self.root = root
        folders = [root, *_modelscope_folders(repo_id), *more]
        self._by_name: dict[str, list[Path]] = {}
        self._etags: dict[str, list[Path]] = {}
        for folder in folders:
            for path in _files_in(folder):
                self._by_name.setdefault(_key(path.name), []).append(path)
        for path in _hf_files(root, more):
            match = _HF_ETAG.fullmatch(path.name)
            digest = match[1] if match else path.name
            self._etags.setdefault(digest, []).append(path)

    def find(self, file: RemoteFile, target: Path) -> list[Leftover]:
        """Return what may have bytes of `file`, which is to become `target`; the likeliest first."""
        own = target.with_name(target.name + ".part").absolute()
        found = list(self._etags.get(file.sha256 or "", []))
        found += [p for p in self._by_name.get(_key(target.name), []) if _is_named_like(p.name, target.name)]
        leftovers = [self.look_at(path, file, target.name) for path in found if path.absolute() != own]
        usable = {left.path.absolute(): left for left in leftovers if left is not None}
        return sorted(usable.values(), key=lambda left: -left.n_bytes)

    @staticmethod
    def look_at(path: Path, file: RemoteFile, name: str) -> Leftover | None:
        """Return what a file may have of the wanted one, or None when it has nothing."""
        try:
            size = path.stat().st_size
            part = re.fullmatch(re.escape(name) + r"_(\d{1,18})_\d{1,18}", path.name)
            offset = int(part[1]) if part else 0  # modelscope_hub _download.py: `<file>_<start>_<end>`
            ranges = aria2_ranges(path, file.size_bytes)
            if ranges is None:
                ranges = tuple(_without_zeros(path, data_ranges(path)))
        except OSError:
            return None
        moved = ((a + offset, min(b, size) + offset) for a, b in ranges)
        inside = tuple((a, min(b, file.size_bytes)) for a, b in moved if a < min(b, file.size_bytes))
        return Leftover(path, inside, offset) if inside else None


def _without_zeros(path: Path, ranges: Iterable[Range]) -> Iterator[Range]:
    """Leave out zeros at the end of each range: room that was made and never filled."""
    with path.open("rb", buffering=0) as file:
        for start, end in ranges:
            while end > start:
                step = max(start, (end - 1) // TAIL_STEP_BYTES * TAIL_STEP_BYTES)
                file.seek(step)
                data = file.read(end - step)
                if any(data):
                    yield start, step + len(data.rstrip(b"\0"))
                    break
                end = step


def _is_named_like(name: str, wanted: str) -> bool:
    stem, dot, extension = wanted.rpartition(".")
    ending = re.escape(dot + extension)
    after = rf"{_COPY}(?:\.\d{{1,2}})?(?:{_IN_PROGRESS})?"
    pattern = rf"{re.escape(stem)}{_COPY}(?:\.[\w-]{{8}})?{ending}{after}"
    return bool(re.fullmatch(pattern, name) or re.fullmatch(re.escape(wanted) + r"_\d{1,18}_\d{1,18}", name))


def _key(name: str) -> str:
    """Return what a file's name and all that it may be called on the way have in common."""
    return re.split(r"(?: ?\(\d{1,3}\))?(?:\.[\w-]{8})?\.gguf", name, maxsplit=1)[0]


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and some levels below; linked and hidden folders are passed over."""
    level, left = [folder], MAX_ENTRIES
    for _ in range(MAX_DEPTH):
        deeper: list[Path] = []
        for one in level:
            for entry in _entries(one):
                left -= 1
                if left < 0:
                    return
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") or entry.name.startswith("._____temp"):
                        deeper.append(Path(entry.path))
                elif ".gguf" in entry.name and entry.is_file():
                    yield Path(entry.path)
        level = deeper


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # not there, not ours to read
        return []


def _hf_files(root: Path, more: Iterable[Path]) -> Iterator[Path]:
    """Yield what huggingface_hub keeps by digest: blobs of its cache, and what it was fetching."""
    for folder in (root, *more):
        yield from (folder / ".cache" / "huggingface" / "download").rglob("*.incomplete")
    for cache in (hf_cache(), *more):
        for repo in _entries(cache):
            if repo.name.startswith("models--"):
                yield from (Path(e.path) for e in _entries(Path(repo.path) / "blobs") if e.is_file())


def hf_cache() -> Path:
    """Return the folder of huggingface_hub's cache (its constants.py: HF_HUB_CACHE, HF_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(base, "huggingface")  # noqa: PTH118
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(cache or os.path.join(home, "hub"))).expanduser()  # noqa: PTH118


def _modelscope_folders(repo_id: str) -> Iterator[Path]:
    """Yield where modelscope puts a repo, now and in older versions (modelscope_hub _download.py)."""
    owner, _, name = repo_id.partition("/")
    chosen = os.environ.get("MODELSCOPE_CACHE")
    bases = [Path(chosen).expanduser()] if chosen else []
    bases.append(Path("~/.cache/modelscope").expanduser())
    for base in bases:
        yield base / "models" / f"{owner}--{name}"
        for old in (base, base / "hub"):
            for encoded in dict.fromkeys((name.replace(".", "___"), name)):
                yield old / "models" / owner / encoded
                yield old / owner / encoded
            yield old / "models" / "._____temp" / owner / name
            yield old / "._____temp" / owner / name
