"""Manifests are read as strictly as they were written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.errors import FormatError
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, from_json, to_json

SHA = "089bad3cbe27056cbcd39c5f6f32f0fee40ce8a24462ef3e5363bd7d85b0779a"
COMMIT = "02656f62d2aa9da4d3f0cdb34c341d30dd87c3b6"
R1 = "unsloth/DeepSeek-R1-GGUF"
SOURCE = ManifestSource("huggingface", "https://huggingface.co", R1, "main", COMMIT)
OTHER = ManifestSource("modelscope", "https://modelscope.cn", R1, "master", None)
FILES = (
    ManifestFile("UD/模型-00001-of-00002.gguf", 49_100_000_000, SHA, None),
    ManifestFile("b.gguf", 0, None, "c/b.gguf"),
)
MANIFEST = Manifest("DeepSeek-R1-UD-IQ2_XXS", "UD-IQ2_XXS", FILES, (SOURCE, OTHER))


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(to_json(MANIFEST)), **changes})


def broken_file(**changes: Any) -> str:
    return broken(files=[{**json.loads(to_json(MANIFEST))["files"][0], **changes}])


def broken_source(**changes: Any) -> str:
    return broken(sources=[{**json.loads(to_json(MANIFEST))["sources"][0], **changes}])


def test_what_is_written_is_read() -> None:
    text = to_json(MANIFEST)
    assert from_json(text, "m.json") == MANIFEST
    assert to_json(from_json(text, "m.json")) == text
    assert '"schema": 1' in text
    assert text.endswith("}\n")
    assert MANIFEST.total_bytes == 49_100_000_000


def test_unknown_keys_are_passed_over() -> None:
    assert from_json(broken(later=[1, {"x": None}]), "m.json") == MANIFEST


def test_a_manifest_may_have_no_source_and_no_quant() -> None:
    plain = replace(MANIFEST, quant=None, sources=())
    assert from_json(to_json(plain), "m.json") == plain


def test_what_is_not_known_has_no_key() -> None:
    little = ManifestFile("a.gguf", None, None)
    text = to_json(Manifest("a", None, (little,), ()))
    assert json.loads(text) == {"schema": 1, "name": "a", "files": [{"path": "a.gguf"}], "sources": []}
    assert from_json(text, "m.json").files == (little,)
    assert from_json(text, "m.json").total_bytes == 0


def test_every_number_can_name_its_source() -> None:
    page = "https://huggingface.co/o/n/blob/main/a.gguf"
    known = ManifestFile("a.gguf", None, SHA, rounded_gb=49.1, size_from=page, sha256_from=page)
    full = replace(MANIFEST, files=(known,), sources=(replace(SOURCE, seen_at=page),))
    assert from_json(to_json(full), "m.json") == full
    whole = json.dumps({**json.loads(to_json(full)), "files": [{"path": "a.gguf", "rounded_gb": 50}]})
    assert from_json(whole, "m.json").files[0].rounded_gb == 50.0


def test_a_size_fits_as_far_as_it_is_known() -> None:
    exact = ManifestFile("a", 49_100_000_000, None)
    rounded = ManifestFile("a", None, None, rounded_gb=49.1)
    unknown = ManifestFile("a", None, None)
    assert exact.size_fits(49_100_000_000) and not exact.size_fits(49_100_000_001)
    assert rounded.size_fits(49_149_999_999) and rounded.size_fits(49_050_000_000)
    assert not rounded.size_fits(48_900_000_000) and not rounded.size_fits(49_300_000_000)
    assert unknown.size_fits(0)


def test_hugging_face_is_asked_for_the_commit_and_modelscope_for_the_branch() -> None:
    assert SOURCE.asks_for == COMMIT and replace(SOURCE, commit=None).asks_for == "main"
    assert replace(OTHER, commit=COMMIT).asks_for == "master"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no sound manifest"),
        ("{", "no sound manifest"),
        ("[]", "the manifest is no object"),
        ("null", "the manifest is no object"),
        ("[" * 100_000, "nested too deeply"),
        (broken(schema=2), "schema is 2"),
        (broken(schema=True), "schema is missing"),
        (broken(schema="1"), "schema is missing"),
        (broken(name=""), "name is empty"),
        (broken(name="a\x1b[2J"), "name is empty or has control"),
        (broken(name=None), "name is missing"),
        (broken(quant=3), "quant is missing or of the wrong type"),
        (broken(files=[]), "it has no files"),
        (broken(files={}), "files is missing"),
        (broken(files=["x"]), "a file is no object"),
        (broken(files=[{"path": "a", "size_bytes": 1}, {"path": "A", "size_bytes": 1}]), "same path"),
        (broken(files=[{"path": "a", "size_bytes": 1}, {"path": "b", "size_bytes": 1, "local": "A"}]), "two"),
        (broken_file(path="../x"), "leaves its folder"),
        (broken_file(path="/x"), "is absolute"),
        (broken_file(path="C:x"), "colon"),
        (broken_file(path=".ggufkit/x"), "folder named .ggufkit"),
        (broken_file(local="../../x"), "leaves its folder"),
        (broken_file(local=7), "local is missing or of the wrong type"),
        (broken_file(size_bytes=-1), "is -1"),
        (broken_file(size_bytes=2**63), "size_bytes of"),
        (broken_file(size_bytes=1.0), "size_bytes is missing"),
        (broken_file(rounded_gb="49.1"), "rounded_gb is missing"),
        (broken_file(rounded_gb=-0.1), "rounded_gb of"),
        (broken_file(rounded_gb=float("nan")), "rounded_gb of"),
        (broken_file(rounded_gb=10**400), "no sound manifest"),
        (broken_file(size_from="a\x1b"), "size_from is empty or has control"),
        (broken_file(sha256_from=1), "sha256_from is missing or of the wrong type"),
        (broken_source(seen_at=""), "seen_at is empty"),
        (broken_file(size_bytes=True), "size_bytes is missing"),
        (broken_file(size_bytes=float("inf")), "size_bytes is missing"),
        (broken_file(sha256=SHA.upper()), "64 lower-case hex"),
        (broken_file(sha256="sha256:" + SHA), "64 lower-case hex"),
        (broken_file(sha256=""), "sha256 is empty"),
        (broken_source(hub="github"), "hub is github"),
        (broken_source(endpoint="ftp://x"), "not the address of a hub"),
        (broken_source(endpoint="https://u:p@x"), "not the address of a hub"),
        (broken_source(repo_id="../x"), "not the name of a repo"),
        (broken_source(revision="../x"), "not the name of a revision"),
        (broken_source(commit="HEAD"), "40 lower-case hex"),
        ('{"schema": 1, "files": [{"path": "a", "size_bytes": ' + "9" * 5000 + "}]}", "no sound manifest"),
    ],
)  # fmt: skip
def test_what_is_off_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        from_json(text, "m.json")
    assert reason in caught.value.reason
    assert caught.value.message.startswith("m.json: ")
    assert caught.value.message.isprintable()


KEYS = st.sampled_from(["path", "size_bytes", "sha256", "local", "hub", "endpoint", "repo_id", "revision"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
)


@given(JSON, st.sampled_from(["schema", "name", "quant", "files", "sources"]))
def test_anything_else_is_a_format_error(value: Any, key: str) -> None:
    try:
        manifest = from_json(broken(**{key: value}), "m.json")
    except FormatError:
        return
    assert from_json(to_json(manifest), "m.json") == manifest
