"""Manifests are found by name and by file; those shipped are what the facts say, and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import make_manifest
import pytest

from ggufkit.errors import AccessError, FormatError, NotFoundError
from ggufkit.hubs import manifests
from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.manifest import Manifest, to_json
from ggufkit.hubs.manifests import find_manifest, need_manifest, read_manifest, shipped_folder, shipped_names
from ggufkit.hubs.quants import find_quants
from tests.hubs.test_manifest import MANIFEST

R1 = "DeepSeek-R1-UD-IQ2_XXS"
SHIPPED = sorted(path.name for path in make_manifest.FOLDER.iterdir())


def shipped(file_name: str) -> Manifest:
    return read_manifest(shipped_folder() / file_name)


def test_the_folder_is_what_the_script_makes_of_the_facts() -> None:
    made = make_manifest.manifests()
    assert make_manifest.differences(made) == []
    assert sorted(made) == SHIPPED and len(SHIPPED) == 8


def test_the_script_notices_a_changed_a_missing_and_a_stray_file(tmp_path: Path) -> None:
    made = make_manifest.manifests()
    for name, text in made.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert make_manifest.differences(made, tmp_path) == []
    (tmp_path / SHIPPED[0]).write_text("{}")
    (tmp_path / SHIPPED[1]).unlink()
    (tmp_path / "stray.json").write_text("{}")
    assert make_manifest.differences(made, tmp_path) == sorted([SHIPPED[0], SHIPPED[1], "stray.json"])


def test_a_number_without_a_source_is_no_fact() -> None:
    facts = {"name": "m", "quant": "Q8_0", "source": [], "file": [{"path": "a.gguf", "size_bytes": 1}]}
    with pytest.raises(AssertionError, match="a size without a source"):
        make_manifest.manifest_of(facts)
    facts["file"] = [{"path": "a.gguf", "sha256": "0" * 64}]
    with pytest.raises(AssertionError, match="a digest without a source"):
        make_manifest.manifest_of(facts)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_manifest_is_one_whole_quant_with_its_sources(name: str) -> None:
    manifest = shipped(name)
    assert name == f"{manifest.name}.json"
    remote = [RemoteFile(f.path, f.size_bytes or 0, f.sha256, "main") for f in manifest.files]
    (quant,) = find_quants(manifest.sources[0].repo_id, remote)
    assert (quant.stem, quant.name, quant.missing) == (manifest.name, manifest.quant, ())
    assert [f.path for f in quant.files] == [f.path for f in manifest.files]
    for source in manifest.sources:
        assert source.seen_at and source.seen_at.startswith("https://")
    text = (make_manifest.FOLDER / name).read_text("utf-8")
    assert "null" not in text, "what is not known has no key"
    digests = [f.sha256 for f in manifest.files if f.sha256]
    assert len(set(digests)) == len(digests)
    assert len(digests) == len(manifest.files) or manifest.name == R1


def test_of_r1_is_said_what_is_known_and_nothing_else() -> None:
    manifest = need_manifest(R1)
    files = json.loads(to_json(manifest))["files"]
    assert [file.get("rounded_gb") for file in files] == [49.1, 49.8, 49.8, 47.5]
    assert ["sha256" in file for file in files] == [True, False, True, True]
    assert not any("size_bytes" in file for file in files), "no page gave exact bytes"
    assert [s.hub for s in manifest.sources] == ["huggingface", "modelscope"]
    assert re.fullmatch("[0-9a-f]{40}", manifest.sources[0].asks_for)
    assert manifest.sources[1].asks_for == "master"


@pytest.mark.parametrize("text", [R1, R1.lower(), R1.upper(), f"{R1}.json"])
def test_a_shipped_one_is_found_by_name_in_any_case(text: str) -> None:
    found = find_manifest(text)
    assert found is not None and found.name == R1 and len(found.files) == 4


def test_a_file_is_found_by_its_path_and_comes_before_a_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / f"{R1}.json"
    file.write_text(to_json(MANIFEST), "utf-8")
    assert find_manifest(str(file)) == MANIFEST
    plain = tmp_path / "no-suffix"
    plain.write_text(to_json(MANIFEST), "utf-8")
    assert find_manifest(str(plain)) == MANIFEST


@pytest.mark.parametrize(
    "text",
    ["unsloth/DeepSeek-R1-GGUF", "hf:o/n:Q4_K_M", "https://huggingface.co/o/n/blob/main/config.json", "nope",
     "", ".", "x" * 5000, "a\0b"],
)  # fmt: skip
def test_what_is_neither_is_none(text: str) -> None:
    assert find_manifest(text) is None
    with pytest.raises(NotFoundError, match="neither a file nor the name"):
        need_manifest(text)


def test_a_name_that_is_nearly_right_is_told() -> None:
    with pytest.raises(NotFoundError) as caught:
        need_manifest("deepseek-r1-iq2_xxs")
    assert caught.value.hint == f"did you mean {R1}?"
    with pytest.raises(NotFoundError, match=r"gone\.json: there is no such file") as caught:
        find_manifest("gone.json")
    assert R1 in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"", b"GGUF\3\0\0\0", b"\xff\xfe", b"{}", b"[1]", b"<html>"])
def test_a_file_that_is_no_manifest_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.json"
    file.write_bytes(content)
    with pytest.raises(FormatError, match=r"is no (sound )?manifest|is missing|no object"):
        find_manifest(str(file))


def test_a_file_that_is_too_large_or_not_readable_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "m.json"
    file.write_text(to_json(MANIFEST), "utf-8")
    monkeypatch.setattr(manifests, "_MAX_MANIFEST_BYTES", 100)
    with pytest.raises(FormatError, match="is no manifest"):
        find_manifest(str(file))
    with pytest.raises(AccessError, match="is a directory"):
        read_manifest(tmp_path)


def test_an_installed_package_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "ggufkit"
    (package / "manifests").mkdir(parents=True)
    (package / "manifests" / "mine.json").write_text(to_json(MANIFEST), "utf-8")
    (tmp_path / "site-packages" / "manifests").mkdir()  # of some other package
    monkeypatch.setattr(manifests, "_PACKAGE", package)
    assert shipped_names() == ("mine",) and find_manifest("MINE") == MANIFEST


def test_a_wheel_brings_them_and_an_installed_copy_finds_them(tmp_path: Path) -> None:
    def python(*arguments: str, cwd: Path = tmp_path) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout

    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=make_manifest.ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import ggufkit; from ggufkit.hubs.manifests import find_manifest, shipped_names\n"
        f"print(ggufkit.__file__, len(find_manifest({R1!r}).files), *shipped_names())"
    )
    where, n_files, *names = python("-I", "-c", code).split()
    assert Path(where).is_relative_to(site) and n_files == "4"
    assert [f"{name}.json" for name in names] == sorted(SHIPPED, key=str.casefold)
