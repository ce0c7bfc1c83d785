"""Shards of a split model: their names, and the checks that make files a set.

Names: llama.cpp `llama_split_path` (`%s-%05d-of-%05d.gguf`, counted from 1, while `split.no` counts
from 0). Rules of a set: llama-model-loader.cpp, and what it lets pass (tests/gguf/test_shards.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufkit.errors import FormatError, printable
from ggufkit.gguf.header import SPLIT_KEYS, Header, shown
from ggufkit.gguf.reader import MAX_DATA_BYTES

_SHARD_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<total>[0-9]{5})\.gguf", re.DOTALL)


_BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")  # llama-arch.cpp LLM_TENSOR_NAMES


@dataclass(frozen=True, slots=True, order=True)
class ShardName:
    """The parts of a shard's file name."""

    prefix: str
    """All before the numbers, without a folder."""
    number: int
    """This shard's number, from 1."""
    total: int
    """How many shards the set has."""

    def file_name(self) -> str:
        """Return the name that the parts make."""
        return f"{self.prefix}-{self.number:05d}-of-{self.total:05d}.gguf"

    def siblings(self) -> tuple[ShardName, ...]:
        """Return the names of the whole set, this one included, in order."""
        return tuple(ShardName(self.prefix, n, self.total) for n in range(1, self.total + 1))


def parse_shard_name(file_name: str) -> ShardName | None:
    """Return the parts of `file_name` (no folder), or None when it is no shard's name."""
    match = _SHARD_NAME.fullmatch(file_name)
    if match is None:
        return None
    name = ShardName(match["prefix"], int(match["number"]), int(match["total"]))
    return name if 1 <= name.number <= name.total else None


def is_shard(header: Header) -> bool:
    """Say whether the header is that of one shard of several."""
    return (header.integer("split.count") or 0) > 1


@dataclass(frozen=True, slots=True)
class ShardSet:
    """The headers of a complete and consistent set of shards, in order."""

    headers: tuple[Header, ...]
    """One header per shard; the first holds the model's metadata."""
    warnings: tuple[str, ...]
    """Oddities that do not make the set unusable."""

    @property
    def first(self) -> Header:
        """The header of shard 1."""
        return self.headers[0]

    @property
    def n_tensors(self) -> int:
        """Tensors in all shards."""
        return sum(len(h.tensors) for h in self.headers)


def check_set(headers: Sequence[Header]) -> ShardSet:
    """Check that `headers`, in the order of their shard numbers, are one whole set.

    Raises FormatError naming the shard and what is wrong with it.
    """
    if not headers:
        raise FormatError("the set", "has no shards")
    _check_complete(headers)
    for i, header in enumerate(headers):
        _check_numbers(header, i, len(headers))
    warnings = [f"{printable(h.name)}: {w}" for h in headers for w in h.warnings]
    warnings += _check_metadata(headers)
    _check_tensors(headers)
    warnings += [*_missing_blocks(headers), *_unlike_types(headers)]
    return ShardSet(tuple(headers), tuple(warnings))


def _check_complete(headers: Sequence[Header]) -> None:
    """Name the shards that are missing, when those that are there agree on how many there are."""
    counts = {h.integer("split.count") for h in headers}
    total = counts.pop()
    if counts or total is None or total <= len(headers):
        return  # _check_numbers says what is wrong, if anything is
    there = {h.integer("split.no") for h in headers}
    missing = _listed(i + 1 for i in range(total) if i not in there)
    raise FormatError(headers[0].name, f"belongs to a set of {total:,} shards, without shard {missing}")


def _check_numbers(header: Header, i: int, total: int) -> None:
    missing = [key for key in SPLIT_KEYS if key not in header.kv]
    if missing:
        raise FormatError(header.name, f"is no shard: it has no {missing[0]}")
    count, number = header.integer("split.count"), header.integer("split.no")
    if count != total:
        raise FormatError(header.name, f"belongs to a set of {count} shards (split.count), not of {total}")
    if number != i:
        raise FormatError(
            header.name, f"is shard {(number or 0) + 1} by its split.no, not shard {i + 1}: renamed?"
        )


def _check_metadata(headers: Sequence[Header]) -> list[str]:
    """Check that no later shard contradicts shard 1, whose metadata count for the set."""
    first, warnings = headers[0], []
    for header in headers[1:]:
        for key in header.kv:
            if key in SPLIT_KEYS or key == "general.alignment":
                continue
            if key not in first.kv:
                warnings.append(
                    f"{printable(header.name)}: key {shown(key)} is not in shard 1 and is dropped"
                )
            elif header.raw_kv(key) != first.raw_kv(key):
                raise FormatError(header.name, f"key {shown(key)} differs from shard 1's: of another model?")
    return warnings


def _check_tensors(headers: Sequence[Header]) -> None:
    n_tensors = sum(len(h.tensors) for h in headers)
    for header in headers:
        claimed = header.integer("split.tensors.count")
        if claimed != n_tensors:
            reason = f"split.tensors.count is {claimed}, the set has {n_tensors} tensors: of another set?"
            raise FormatError(header.name, reason)
    if sum(h.data_bytes for h in headers) >= MAX_DATA_BYTES:
        raise FormatError(headers[0].name, "the set has more bytes than a file can")
    counts = Counter(t.name for h in headers for t in h.tensors)
    for header in headers:
        for tensor in header.tensors:
            if counts[tensor.name] > 1:
                raise FormatError(header.name, f"tensor {tensor.name} is in more than one shard")


def _missing_blocks(headers: Sequence[Header]) -> list[str]:
    """Warn of blocks without any tensor: a foreign shard may stand in the place of theirs.

    No error, since a few models have blocks that do nothing (llama-model.cpp, `LLM_ARCH_DECI`).
    """
    first = headers[0]
    n_blocks = first.integer(f"{first.string('general.architecture')}.block_count") or 0
    matches = (_BLOCK.match(t.name) for h in headers for t in h.tensors)
    there = {int(match[1]) for match in matches if match}
    missing = [i for i in range(min(n_blocks, 10_000)) if i not in there]
    if not there or not missing:
        return []
    return [f"no shard has tensors of block {_listed(missing)}: is one of another model?"]


def _unlike_types(headers: Sequence[Header]) -> list[str]:
    """Warn of a shard that shares no tensor type with its like in other shards: of another quant?

    Cut in the same places, a shard of another quant has the very same names and shapes; of near quants
    (Q4_K_M and Q5_K_M) not even this tells them apart, only digests do.
    """
    uses = [
        {(_BLOCK.sub("", t.name), t.type_id) for t in h.tensors if len(t.shape) > 1 and _BLOCK.match(t.name)}
        for h in headers
    ]
    n_shards_with = Counter(use for shard in uses for use in shard)
    n_shards_of = Counter(role for shard in uses for role in {role for role, _ in shard})
    warnings = []
    for header, shard in zip(headers, uses, strict=True):
        shared = [use for use in shard if n_shards_of[use[0]] > 1]
        if len(shared) > 1 and all(n_shards_with[use] == 1 for use in shared):
            warnings.append(
                f"{printable(header.name)}: its tensor types are in no other shard: another quant?"
            )
    return warnings


def _listed(numbers: Iterable[int], most: int = 10) -> str:
    words = [str(n) for n in numbers]
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")
