"""What a hub may name a file."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import IntegrityError
from ggufkit.hubs.hub import check_remote_path
from tests.hubs.real import SETS


@pytest.mark.parametrize(
    "path", ["a", "a/b.gguf", ".gitattributes", "模型/权重.gguf", "a b/c (1).gguf", "console/x", "a" * 255]
)
def test_safe_paths(path: str) -> None:
    assert check_remote_path(path) is path


def test_all_real_names_are_safe() -> None:
    paths = [path for s in SETS for path in s.whole()]
    assert [check_remote_path(path) for path in paths] == paths


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("..", "leaves its folder"),
        ("../x", "leaves its folder"),
        ("a/../../x", "leaves its folder"),
        ("a/..", "leaves its folder"),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("a\\..\\b", "backslash"),
        ("\\\\host\\x", "backslash"),
        ("C:/x", "colon"),
        ("C:x", "colon"),
        ("model.gguf:stream", "colon"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("\x1b[2J", "control characters"),
        ("fdp.\u202efugg", "control characters"),
        ("\ud800", "control characters"),
        ("", "empty part"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("./a", "empty part"),
        ("a/./b", "empty part"),
        ("...", "ends with a dot"),
        ("a./b", "ends with a dot"),
        (".. /x", "ends with a dot or a space"),
        ("a /b", "a space"),
        ("CON", "device"),
        ("a/nul.gguf", "device"),
        ("aux .txt", "device"),
        ("Com1.part.gguf", "device"),
        ("lpt¹", "device"),
        (".ggufkit/x.json", "folder named .ggufkit"),
        ("a/.GIT/hooks/x", "folder named .GIT"),
        ("a" * 256, "too long"),
        ("é" * 128, "too long"),
    ],
)  # fmt: skip
def test_unsafe_paths(path: str, reason: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_remote_path(path)
    assert reason in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 6


@given(st.text(alphabet=st.sampled_from("ab./\\: \x00C~*"), max_size=12) | st.text(max_size=12))
def test_what_passes_stays_in_its_folder(path: str) -> None:
    try:
        check_remote_path(path)
    except IntegrityError:
        return
    folder = Path("/folder")
    assert (folder / path).resolve().is_relative_to(folder)
    assert PurePosixPath(path).as_posix() == path
    assert PureWindowsPath(path).as_posix() == path
    assert not PureWindowsPath(path).drive
