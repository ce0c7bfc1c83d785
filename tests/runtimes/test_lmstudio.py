"""LM Studio's folders: found as it finds them, never written; names safe on every system."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import NotFoundError, UsageError
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.gguf.reader import read_header
from ggufkit.runtimes.lmstudio import find_home, find_models, infer_user_repo, parse_user_repo
from ggufkit.transfer.sources import open_header
from tests.support.ggufs import gguf_bytes, make_gguf
from tests.support.trees import snapshot


def settings(file: Path, document: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return file


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home in which LM Studio has run."""
    (tmp_path / ".lmstudio").mkdir()
    return tmp_path


def test_home_is_the_new_folder(tmp_path: Path) -> None:
    assert find_home(tmp_path) == tmp_path / ".lmstudio"
    assert list(tmp_path.iterdir()) == [], "the pointer file is LM Studio's to write"


def test_home_is_the_old_folder_where_that_is(home: Path) -> None:
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    assert find_home(home) == home / ".cache" / "lm-studio"


@pytest.mark.parametrize("text", ["/data/lm studio", "/data/lm studio\n", "  /data/lm studio\r\n"])
def test_the_pointer_comes_first(home: Path, text: str) -> None:
    (home / ".cache" / "lm-studio").mkdir(parents=True)
    (home / ".lmstudio-home-pointer").write_text(text)
    assert find_home(home) == Path("/data/lm studio")


@pytest.mark.parametrize("data", [b"", b" \n", b"\xff\xfe"])
def test_a_pointer_that_points_nowhere_is_passed_over(home: Path, data: bytes) -> None:
    (home / ".lmstudio-home-pointer").write_bytes(data)
    assert find_home(home) == home / ".lmstudio"


def test_default_folder(home: Path) -> None:
    place = find_models(environ={}, home=home)
    assert (place.folder, place.found_by, place.warnings) == (home / ".lmstudio" / "models", "default", ())
    assert not place.folder.exists()


def test_it_is_said_when_lm_studio_never_ran(tmp_path: Path) -> None:
    place = find_models(environ={}, home=tmp_path)
    assert place.folder == tmp_path / ".lmstudio" / "models"
    assert "not run here" in place.warnings[0]


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_the_settings_name_the_folder(home: Path, bom: str) -> None:
    (home / "disk").mkdir()
    text = bom + json.dumps({"downloadsFolder": str(home / "disk"), "other": 1})
    file = settings(home / ".lmstudio" / "settings.json", text)
    place = find_models(environ={}, home=home)
    assert (place.folder, place.found_by) == (home / "disk", str(file))


@pytest.mark.parametrize(
    "document", ["", "{", "[]", {"downloadsFolder": None}, {"downloadsFolder": 7}, {"downloadsFolder": ""}]
)
def test_settings_that_name_nothing(home: Path, document: object) -> None:
    settings(home / ".lmstudio" / "settings.json", document)
    before = snapshot(home)
    assert find_models(environ={}, home=home).folder == home / ".lmstudio" / "models"
    assert snapshot(home) == before


def test_a_disk_that_is_not_mounted_is_an_error_not_a_new_folder(home: Path) -> None:
    settings(home / ".lmstudio" / "settings.json", {"downloadsFolder": "/mnt/not/there"})
    with pytest.raises(NotFoundError, match="/mnt/not/there") as refusal:
        find_models(environ={}, home=home)
    assert "mount" in str(refusal.value.hint)


@pytest.mark.parametrize(
    ("place", "environ"),
    [
        (".config/LM Studio", {}),
        ("xdg/LM Studio", {"XDG_CONFIG_HOME": "{home}/xdg"}),
        ("Library/Application Support/LM Studio", {}),
        ("roaming/LM Studio", {"APPDATA": "{home}/roaming"}),
    ],
)
def test_settings_where_they_were_earlier(home: Path, place: str, environ: dict[str, str]) -> None:
    (home / "disk").mkdir()
    file = settings(home / place / "settings.json", {"downloadsFolder": str(home / "disk")})
    environ = {key: value.format(home=home) for key, value in environ.items()}
    assert find_models(environ=environ, home=home).found_by == str(file)
    newer = settings(home / ".lmstudio" / "settings.json", {"downloadsFolder": str(home)})
    assert find_models(environ=environ, home=home).found_by == str(newer)


def test_the_flag_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(home / ".lmstudio" / "settings.json", {"downloadsFolder": "/mnt/not/there"})
    monkeypatch.chdir(home)
    place = find_models(models_dir=Path("mine"), environ={}, home=home)
    assert (place.folder, place.found_by) == (home / "mine", "--models-dir")


@pytest.mark.parametrize(
    "text", ["unsloth/DeepSeek-R1-GGUF", "a/b", "模型/名字", "a.b/c.d", "x" * 100 + "/y"]
)
def test_good_names(text: str) -> None:
    assert str(parse_user_repo(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "../evil",
        "evil/..",
        "./x",
        "x/.hidden",
        "a./b",
        " a/b",
        "a/b ",
        "a\\b/c",
        "c:/x",
        "a/b*",
        "a/b?",
        'a/"b"',
        "a/<b>",
        "a|b/c",
        "a/b\n",
        "a\x00/b",
        "a/b\x7f",
        "NUL/x",
        "x/con.gguf",
        "lpt1/x",
        "x" * 101 + "/y",
    ],
)
def test_names_that_leave_the_folder_or_break_a_system(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_user_repo(text)
    assert refusal.value.message.isprintable()


def info_of(tmp_path: Path, **kv: str) -> ModelInfo:
    general = {f"general.{key}": value for key, value in kv.items()}
    return model_info([open_header(make_gguf(tmp_path / "m.gguf", kv=general))])


def test_the_repo_it_was_pulled_from_names_it(tmp_path: Path) -> None:
    info = info_of(tmp_path, repo_url="https://huggingface.co/other/repo")
    named = infer_user_repo("DeepSeek-R1-UD-IQ1_S", info, "unsloth/DeepSeek-R1-GGUF")
    assert (str(named), named.found_by) == ("unsloth/DeepSeek-R1-GGUF", "pull")


@pytest.mark.parametrize(
    ("kv", "named", "found_by"),
    [
        ({"repo_url": "https://huggingface.co/unsloth/DeepSeek-R1-GGUF"}, "unsloth/DeepSeek-R1-GGUF", "file"),
        ({"repo_url": "https://hf.co/a/b/"}, "a/b", "file"),
        ({"repo_url": "https://modelscope.cn/models/a/b"}, "a/b", "file"),
        ({"repo_url": "https://huggingface.co/unsloth"}, "imported-models/DeepSeek-R1", "name"),
        ({"repo_url": "https://evil.example/a/b"}, "imported-models/DeepSeek-R1", "name"),
        ({"quantized_by": "Unsloth"}, "Unsloth/DeepSeek-R1", "file"),
        ({"organization": "DeepSeek AI"}, "DeepSeek-AI/DeepSeek-R1", "file"),
        ({"quantized_by": "../../evil"}, "evil/DeepSeek-R1", "file"),
        ({"quantized_by": "\u202e\x1b[31m"}, "31m/DeepSeek-R1", "file"),
        ({"quantized_by": "..."}, "imported-models/DeepSeek-R1", "file"),
        ({}, "imported-models/DeepSeek-R1", "name"),
    ],
)
def test_else_the_files_own_words(tmp_path: Path, kv: dict[str, str], named: str, found_by: str) -> None:
    inferred = infer_user_repo("DeepSeek-R1-UD-IQ1_S", info_of(tmp_path, **kv), None)
    assert (str(inferred), inferred.found_by) == (named, found_by)


_HEADER = gguf_bytes()
_INFO = model_info([read_header(_HEADER, name="m", file_size_bytes=len(_HEADER))])


@given(st.text(max_size=300), st.text(max_size=300), st.none() | st.text(max_size=100).map("{0}/{0}".format))
def test_whatever_a_file_says_the_names_are_sound(set_name: str, by: str, pulled: str | None) -> None:
    info = replace(_INFO, quantized_by=by, repo_url=f"https://huggingface.co/{by}/{by}")
    named = infer_user_repo(set_name, info, pulled)
    assert str(parse_user_repo(str(named))) == str(named)
