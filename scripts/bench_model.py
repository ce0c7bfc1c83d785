"""The split model that benchmarks merge and pull: random tensors, in shards whose digests are known."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from bench_rounds import ROOT

from ggufkit.gguf.header import encode_header, encode_kv, pad
from ggufkit.gguf.types import ValueType
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.transfer.digest import sha256_file
from ggufkit.verbs.locate import find_model
from ggufkit.verbs.record import write_record
from ggufkit.verbs.split import plan_split, split

SHARDS = 5
STEM = "bench"
REPO = "bench/bench-GGUF"
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Shards:
    """A folder with the shards, whose digests are recorded as a pull would."""

    folder: Path
    paths: tuple[Path, ...]
    sha256s: tuple[str, ...]

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


@dataclass(frozen=True)
class Served:
    """The shards as a repo, in a folder to be served."""

    root: Path
    """The folder served."""
    paths: tuple[str, ...]
    """The shards' paths in the repo."""
    sha256s: tuple[str, ...]
    """Their digests."""
    n_bytes: int
    """Their sizes together."""


def make_shards(folder: Path, n_bytes: int) -> Shards:
    """Make shards of about `n_bytes` together, in `folder`."""
    source = folder / "source" / f"{STEM}.gguf"
    source.parent.mkdir(parents=True)
    _write_model(source, n_bytes)
    limit = n_bytes // SHARDS + n_bytes // 10
    plan = plan_split(find_model(str(source)), max_bytes=limit, output=folder / STEM)
    paths = tuple(shard.path for shard in split(plan).shards)
    source.unlink()
    sha256s = tuple(sha256_file(path) for path in paths)
    files = tuple(
        ManifestFile(f"{STEM}/{path.name}", path.stat().st_size, sha256, None)
        for path, sha256 in zip(paths, sha256s, strict=True)
    )
    write_record(folder, Manifest(STEM, None, files, ()))
    return Shards(folder, paths, sha256s)


def make_served(folder: Path, n_bytes: int) -> Served:
    """Make the shards in `folder`, in a repo of their own."""
    made = make_shards(folder / "made", n_bytes)
    total = made.n_bytes
    repo = folder / "root" / REPO / STEM
    repo.mkdir(parents=True)
    for path in made.paths:
        path.rename(repo / path.name)
    return Served(folder / "root", tuple(f"{STEM}/{path.name}" for path in made.paths), made.sha256s, total)


def _write_model(path: Path, n_bytes: int) -> None:
    """Write a GGUF of about `n_bytes`: tensors of random bytes, one of them a sixth of all."""
    sys.path.insert(0, str(ROOT))
    from tests.support.ggufs import tensor_infos

    small = max(1, n_bytes // 60 // 4096)
    specs = [("blk.0.ffn_gate_exps.weight", (1024, max(1, n_bytes // 6 // 4096)), "F32")]
    specs += [(f"blk.{i}.ffn_up.weight", (1024, small), "F32") for i in range(50)]
    infos = tensor_infos(specs)
    chance = random.Random(1)
    with path.open("wb") as file:
        file.write(encode_header([encode_kv("general.architecture", ValueType.STRING, "llama")], infos))
        for info in infos:
            left = pad(info.n_bytes, 32)
            while left:
                left -= file.write(chance.randbytes(min(BLOCK_BYTES, left)))
