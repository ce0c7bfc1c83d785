"""What a hub may name a file: paths that stay in their folder on every system."""

from __future__ import annotations

import re

from ggufkit.errors import IntegrityError, printable

# Names that Windows keeps for devices, whatever follows the first dot (learn.microsoft.com,
# "Naming Files, Paths, and Namespaces"; superscript digits count as digits there).
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])", re.IGNORECASE)
_OURS = frozenset({".ggufkit", ".git"})
"""Folders whose contents other programs believe in."""
_LONGEST_PART_BYTES = 255  # NAME_MAX of Linux, macOS and (in characters) Windows


def check_remote_path(path: str) -> str:
    """Return `path` as it is when it is safe to write below a folder of ours.

    Raises IntegrityError for '..', absolute paths, backslashes, colons, control characters, empty and
    over-long parts, device names and the folders `.git` and `.ggufkit`.
    """
    reason = _fault(path)
    if reason is not None:
        raise IntegrityError(
            f"the hub names a path that {reason}: '{printable(path[:200])}'",
            hint="nothing was written; report the repo to the hub",
        )
    return path


def _fault(path: str) -> str | None:
    if path.startswith("/"):
        return "is absolute"
    if "\\" in path:
        return "has a backslash in it"
    if ":" in path:  # a drive on Windows, or a second stream of a file
        return "has a colon in it"
    if not path.isprintable():
        return "has control characters in it"
    for part in path.split("/"):
        fault = _fault_of_part(part)
        if fault is not None:
            return fault
    return None


def _fault_of_part(part: str) -> str | None:
    if part in ("", "."):
        return "has an empty part"
    if part == "..":
        return "leaves its folder"
    if part.endswith((".", " ")):  # Windows drops these, and the name is another's
        return "has a part that ends with a dot or a space"
    if _DEVICE.fullmatch(part.split(".")[0].rstrip(" ")):
        return "is a device on Windows"
    if part.casefold() in _OURS:
        return f"lies in a folder named {part}"
    if len(part.encode("utf-8", "surrogatepass")) > _LONGEST_PART_BYTES:
        return "is too long"
    return None
