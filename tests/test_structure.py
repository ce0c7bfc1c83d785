"""The house's rules, held by reading the code's imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ggufkit"
ROOMS = [
    "errors",
    "progress",
    "folders",
    "gguf",
    "hubs",
    "transfer",
    "server",
    "fit",
    "runtimes",
    "bench",
    "verbs",
    "cli",
]
"""Each room imports only rooms before it (and itself)."""
ONLY_IN = {
    "click": {"cli"},
    "tqdm": {"cli"},
    "huggingface_hub": {"hubs"},
    "modelscope": {"hubs"},
    "modelscope_hub": {"hubs"},
    "aiohttp": {"server"},
    "urllib3": {"transfer"},
    "gguf": {"gguf"},
    "matplotlib": {"verbs"},
}
PURE = ("gguf", "fit")
IMPURE = {"socket", "urllib", "http", "subprocess", "requests"}
MAX_LINES = 400


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports anywhere in it, type checking included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_rooms_before_its_own(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in ROOMS
    for name in imports(path):
        if name.startswith("ggufkit."):
            assert ROOMS.index(name.split(".")[1]) <= ROOMS.index(room), f"{room} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_of_others_stay_in_their_rooms(path: Path) -> None:
    for name in imports(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or room_of(path) in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [p for p in modules() if room_of(p) in PURE], ids=lambda p: p.name)
def test_pure_rooms_touch_neither_files_nor_sockets(path: Path) -> None:
    if path.name == "machine.py":
        return
    assert not IMPURE & {name.split(".")[0] for name in imports(path)}
    calls = [n.func for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    names = {c.id if isinstance(c, ast.Name) else getattr(c, "attr", "") for c in calls}
    assert not names & {"open", "read_bytes", "read_text", "write_bytes", "write_text"}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_small_and_public_things_documented(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= MAX_LINES
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
