"""Thirty-odd faults of lines, hubs and disks, each to be met alone or several at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import Budget, Fault

ON_FILE = "resolve|FilePath"
"""Requests to the hub for a file, in either protocol."""
LISTING = "/api/models/|/repo/files"
"""Requests to the hub for a listing, in either protocol."""
_HTML = {"Content-Type": "text/html"}
_PAGE = b"<html><body>Please log in to the network</body></html>"
_XML = b"<?xml version='1.0'?><Error><Code>InternalError</Code></Error>"

PASSED = frozenset({0})
NETWORK = frozenset({5})


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of fault, and how a pull may end that meets it alone."""

    make: Callable[[random.Random, int], Fault]
    """Makes the fault for a shard of so many bytes."""
    codes: frozenset[int]
    """Exit codes; 0 alone: it passes without anybody having to do anything."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that happens to the files between two pulls."""

    do: Callable[[random.Random, Path], None]
    """Does it to the folder of a repo; may find nothing to do it to."""


def _cdn(**settings: object) -> Callable[[random.Random, int], Fault]:
    return lambda _chance, _size: Fault(plane="cdn", **settings)  # type: ignore[arg-type]  # as Fault's


def _hub(path: str, **settings: object) -> Callable[[random.Random, int], Fault]:
    return lambda _chance, _size: Fault(path=path, plane="hub", **settings)  # type: ignore[arg-type]


def _at(name: str, times: int | None = 1) -> Callable[[random.Random, int], Fault]:
    """Make a fault at a random byte of the file."""

    def make(chance: random.Random, size: int) -> Fault:
        budget = Budget(times) if times is not None else None
        return Fault(plane="cdn", budget=budget, **{name: chance.randrange(size)})  # type: ignore[arg-type]

    return make


def _cut_again_and_again(chance: random.Random, size: int) -> Fault:
    return Fault(plane="cdn", cut_after_bytes=chance.randrange(size // 8, size // 2))


def _stall(chance: random.Random, size: int) -> Fault:
    return Fault(plane="cdn", stall_s=0.8, stall_after_bytes=chance.randrange(size), times=1)


TROUBLES: dict[str, Trouble] = {
    # the line
    "the body is cut at some byte": Trouble(_at("cut_at"), PASSED),
    "the body is cut at some byte, three times": Trouble(_at("cut_at", 3), PASSED),
    "every body is cut": Trouble(_cut_again_and_again, PASSED),
    "the connection ends before the first byte": Trouble(_cdn(cut_after_bytes=0, times=2), PASSED),
    "the CDN is slow to answer": Trouble(_cdn(delay_s=0.05, times=3), PASSED),
    "the line stalls": Trouble(_stall, PASSED),
    "the line is slow": Trouble(_cdn(bytes_per_s=4_000_000), PASSED),
    # busy or broken servers
    "500 from the CDN": Trouble(_cdn(status=500, times=2), PASSED),
    "502 with a page from the CDN": Trouble(_cdn(status=502, body=_PAGE, headers=_HTML, times=1), PASSED),
    "503 from the CDN": Trouble(_cdn(status=503, times=2), PASSED),
    "503 from the CDN with a time to wait": Trouble(
        _cdn(status=503, headers={"Retry-After": "3"}, times=2), PASSED
    ),
    "503 from the CDN for ever": Trouble(_cdn(status=503), NETWORK),
    "429 from the CDN": Trouble(_cdn(status=429, headers={"Retry-After": "2"}, times=2), PASSED),
    "429 from the hub for the file": Trouble(_hub(ON_FILE, status=429, times=2), PASSED),
    "500 from the hub for the file": Trouble(_hub(ON_FILE, status=500, times=2), PASSED),
    "503 for the listing": Trouble(_hub(LISTING, status=503, times=1), PASSED),
    # addresses
    "an expired address": Trouble(_cdn(expire_link=True, times=2), PASSED),
    "403 from the CDN, once": Trouble(_cdn(status=403, body=_XML, times=1), PASSED),
    "401 from the hub for the file": Trouble(_hub(ON_FILE, status=401), frozenset({4})),
    "403 from the hub for the file": Trouble(_hub(ON_FILE, status=403), frozenset({4})),
    "404 from the hub for the file": Trouble(_hub(ON_FILE, status=404), frozenset({3})),
    "404 from the CDN": Trouble(_cdn(status=404), frozenset({3})),
    "a redirect in a circle": Trouble(
        _cdn(status=302, headers={"Location": "?"}, times=2), frozenset({0, 5})
    ),
    "a redirect to nobody": Trouble(
        _hub(ON_FILE, status=302, headers={"Location": "http://127.0.0.1:9/"}, times=2), PASSED
    ),
    # ranges and lengths
    "ranges are ignored": Trouble(_cdn(ignore_range=True), PASSED),
    "another range than asked for": Trouble(_cdn(content_range="bytes 5-9/10", times=1), PASSED),
    "a file of another size": Trouble(_cdn(content_range="bytes 0-99/100", times=1), PASSED),
    "a longer body is announced": Trouble(_cdn(announced_bytes=10**9, ignore_range=True, times=1), PASSED),
    "a shorter body is announced": Trouble(_cdn(announced_bytes=1000, ignore_range=True, times=1), PASSED),
    # other bytes
    "a page in place of the file": Trouble(_cdn(body=_PAGE, headers=_HTML, times=1), PASSED),
    "an empty body": Trouble(_cdn(body=b"", times=2), PASSED),
    "an error of the hub in place of the file": Trouble(_cdn(body=b'{"Code": 500}', times=1), PASSED),
    "a body that is said to be compressed": Trouble(
        _cdn(headers={"Content-Encoding": "gzip"}, times=1), PASSED
    ),
    "a page in place of the listing": Trouble(_hub(LISTING, body=_PAGE, headers=_HTML), frozenset({4, 5})),
    "one byte is flipped": Trouble(_at("flip_byte_at"), frozenset({0, 6})),
    "one byte is always flipped": Trouble(_at("flip_byte_at", None), frozenset({6})),
}


def _flip_on_disk(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder, "*.gguf"):
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)


def _truncate(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder, "*.gguf"):
        path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def _remove(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder, "*.gguf"):
        path.unlink()


def _spoil_part(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder, "*.part"):
        path.write_bytes(chance.randbytes(path.stat().st_size))


def _lose_notes(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder / ".ggufkit" / "journal", "*"):
        path.unlink()


def _spoil_notes(chance: random.Random, folder: Path) -> None:
    for path in _some(chance, folder / ".ggufkit" / "journal", "*"):
        path.write_bytes(chance.randbytes(100))


def _some(chance: random.Random, folder: Path, pattern: str) -> list[Path]:
    """Return one of the files, if there is any."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return [chance.choice(found)] if found else []


DAMAGES: dict[str, Damage] = {
    "a byte of a finished file is flipped": Damage(_flip_on_disk),
    "a finished file is cut": Damage(_truncate),
    "a finished file is gone": Damage(_remove),
    "a part file has other bytes": Damage(_spoil_part),
    "the notes of what is there are lost": Damage(_lose_notes),
    "the notes of what is there are broken": Damage(_spoil_notes),
}
