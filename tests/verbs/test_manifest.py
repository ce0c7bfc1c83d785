"""Manifests made of repos and of files, and asked about on the hubs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import FormatError, NotFoundError, TargetExistsError, UsageError
from ggufkit.hubs.agreement import compare, held_to
from ggufkit.hubs.hub import RemoteFile
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, to_json
from ggufkit.hubs.manifests import read_manifest
from ggufkit.hubs.pins import places_of
from ggufkit.hubs.quants import QuantError
from ggufkit.verbs.manifest import check_manifest, make_manifest, write_manifest
from ggufkit.verbs.pull import plan_pull, pull
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, everything, publish, sha256, tree

SHA = "089bad3cbe27056cbcd39c5f6f32f0fee40ce8a24462ef3e5363bd7d85b0779a"

ROUNDED = ManifestFile("a", None, None, rounded_gb=49.8)


def contents(manifest: Manifest) -> dict[str, tuple[int | None, str | None]]:
    return {file.path: (file.size_bytes, file.sha256) for file in manifest.files}


def published(files: dict[str, bytes]) -> dict[str, tuple[int | None, str | None]]:
    return {path: (len(data), sha256(data)) for path, data in files.items()}


def both(manifest: Manifest, hub: TestHub) -> Manifest:
    """Return the manifest with both of the test hub's protocols for sources."""
    sources = (
        ManifestSource("huggingface", hub.url, REPO_ID, "main", None),
        ManifestSource("modelscope", hub.url, REPO_ID, "master", None),
    )
    return replace(manifest, sources=sources)


# ---- made ----


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_of_a_repo_the_listing_is_frozen_and_nothing_fetched(
    hub: TestHub, files: dict[str, bytes], work: Path, source: str
) -> None:
    manifest = make_manifest(f"{REPO_ID}:{QUANT}", source=source)
    assert contents(manifest) == published(files) and manifest.name == FOLDER and manifest.quant == QUANT
    assert manifest.sources[0].hub == {"hf": "huggingface"}.get(source, source)
    assert manifest.sources[0].endpoint == hub.url
    assert hub.asked(plane="cdn") == [] and everything(work) == set()


def test_of_what_was_pulled_it_names_the_repo_and_its_paths(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    pull(plan_pull(REPO_ID))
    whole = make_manifest(f"./{NAME}")
    assert contents(whole) == published(files)
    assert {s.repo_id for s in whole.sources} == {REPO_ID} and whole.sources[0].commit
    first = sorted(files)[0]
    assert make_manifest(f"./{NAME}/{FOLDER}") == whole, "paths are those in the repo"
    assert make_manifest(f"./{NAME}/{first}") == whole, "a shard stands for its set"
    assert list((work / NAME / FOLDER).glob("*.json")) == []


def test_of_what_was_changed_since_it_names_no_repo(
    hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    pull(plan_pull(REPO_ID))
    target = work / NAME / sorted(files)[2]
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    manifest = make_manifest(f"./{NAME}")
    assert manifest.sources == () and contents(manifest)[sorted(files)[2]][1] == sha256(bytes(data))


def test_of_files_that_nobody_pulled(tmp_path: Path, work: Path) -> None:
    files = publish(work, repo_id="some/where", stem="m-Q8_0")
    folder = work / "some" / "where"
    (folder / ".cache" / "x").mkdir(parents=True)
    (folder / ".cache" / "x" / "other-Q2_K.gguf").write_bytes(b"GGUF")
    manifest = make_manifest("./some/where")
    assert contents(manifest) == published(files) and manifest.sources == ()
    assert (manifest.name, manifest.quant) == ("m-Q8_0", "Q8_0")


def test_of_raw_parts(work: Path) -> None:
    (work / "m.Q8_0.gguf-split-a").write_bytes(b"GGUF\3")
    (work / "m.Q8_0.gguf-split-b").write_bytes(b"tail")
    manifest = make_manifest(".")
    assert [(f.path, f.size_bytes) for f in manifest.files] == [
        ("m.Q8_0.gguf-split-a", 5),
        ("m.Q8_0.gguf-split-b", 4),
    ]
    assert manifest.name == "m.Q8_0"


def test_which_set_is_meant_must_be_clear(work: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        make_manifest("./nothing")
    with pytest.raises(QuantError, match="has no GGUF model files"):
        make_manifest(".")
    for quant in ("Q4_K_M", "Q8_0"):
        (work / f"m-{quant}.gguf").write_bytes(b"GGUF")
    with pytest.raises(QuantError, match="has 2 quants") as caught:
        make_manifest(".")
    assert "--quant" in (caught.value.hint or "")
    assert make_manifest(".", quant="Q8_0").name == "m-Q8_0"
    with pytest.raises(UsageError, match="--revision is for repos"):
        make_manifest(".", revision="main")


def test_a_set_that_is_not_whole_is_not_frozen(work: Path) -> None:
    files = publish(work, repo_id="a/b", stem="m-Q8_0")
    (work / "a" / "b" / sorted(files)[1]).unlink()
    with pytest.raises(QuantError, match="shard 2 of 4"):
        make_manifest("./a/b")


def test_a_name_that_would_be_unsafe_elsewhere_is_refused(work: Path) -> None:
    (work / "m:Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(FormatError, match="colon"):
        make_manifest("./m:Q8_0.gguf")


def test_writing_is_done_once_and_over_nothing_else(tmp_path: Path) -> None:
    manifest = Manifest("m", None, (ManifestFile("m.gguf", 4, SHA),), ())
    file = tmp_path / "new" / "m.json"
    assert write_manifest(manifest, file)
    assert read_manifest(file) == manifest
    assert not write_manifest(manifest, file)
    other = replace(manifest, name="other")
    with pytest.raises(TargetExistsError, match="something else"):
        write_manifest(other, file)
    assert write_manifest(other, file, force=True) and read_manifest(file) == other


# ---- asked about ----


def test_both_hubs_still_publish_it(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    report = check_manifest(both(make_manifest(REPO_ID), hub))
    assert [one.source.hub for one in report.hubs] == ["huggingface", "modelscope"]
    for one in report.hubs:
        assert [f.status for f in one.files] == ["same"] * len(files) and one.error is None
        assert one.differing == ()
    assert hub.asked(plane="cdn") == []
    only = check_manifest(both(make_manifest(REPO_ID), hub), source="modelscope")
    assert [one.source.hub for one in only.hubs] == ["modelscope"]


def test_what_a_hub_changed_and_removed_is_named(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path
) -> None:
    manifest = both(make_manifest(REPO_ID), hub)
    one, two, three, _ = sorted(files)
    root = tmp_path / "hub" / REPO_ID
    data = bytearray(files[one])
    data[-1] ^= 1
    (root / one).write_bytes(data)
    (root / two).write_bytes(files[two] + b"tail")
    (root / three).unlink()
    hub.refresh()
    for answer in check_manifest(manifest).hubs:
        assert [f.status for f in answer.files] == ["changed", "changed", "gone", "same"]
        details = [f.detail for f in answer.differing]
        assert details[0] == f"SHA-256 is {sha256(bytes(data))}, expected {sha256(files[one])}"
        assert details[1] == f"has {len(files[two]) + 4:,} bytes, expected {len(files[two]):,}"
        assert details[2] == "is not there any more"


def test_a_hub_that_does_not_answer_is_in_the_report(hub: TestHub, files: dict[str, bytes]) -> None:
    manifest = both(make_manifest(REPO_ID), hub)
    hub.add(Fault(path="/api/models/", status=404, headers={"X-Error-Code": "RepoNotFound"}))
    first, second = check_manifest(manifest).hubs
    assert first.error and first.exit_code == 3 and first.files == ()
    assert second.error is None and second.exit_code == 0 and len(second.files) == len(files)


def test_a_manifest_without_a_hub_has_nobody_to_ask() -> None:
    manifest = Manifest("m", None, (ManifestFile("m.gguf", 4, SHA),), ())
    with pytest.raises(UsageError, match="names no repo") as caught:
        check_manifest(manifest)
    assert "verify FOLDER --against m" in (caught.value.hint or "")
    only = ManifestSource("modelscope", "https://modelscope.cn", REPO_ID, "master", None)
    with pytest.raises(UsageError, match="names repos on modelscope only, --source hf"):
        check_manifest(replace(manifest, sources=(only,)), source="hf")
    with pytest.raises(UsageError, match="no source is called nowhere"):
        check_manifest(replace(manifest, sources=(only,)), source="nowhere")


def test_where_a_manifest_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    hf = ManifestSource("huggingface", "https://huggingface.co", REPO_ID, "main", "0" * 40)
    ms = ManifestSource("modelscope", "https://modelscope.cn", REPO_ID, "master", None)
    lan = ManifestSource("huggingface", "http://10.0.0.1:8090", REPO_ID, "main", None)
    manifest = Manifest("m", None, (ManifestFile("m.gguf", 4, SHA),), (hf, ms, lan))

    def endpoints(source: str = "auto") -> list[tuple[str, bool]]:
        return [(place.endpoint, place.serves) for _, place in places_of(manifest, source)]

    assert endpoints() == [("https://huggingface.co", True), ("https://modelscope.cn", True),
                           ("http://10.0.0.1:8090", True)]  # fmt: skip
    assert endpoints("hf") == [("https://huggingface.co", True)]
    mirror, *witnesses = endpoints("https://hf-mirror.com")
    assert mirror == ("https://hf-mirror.com", True)
    assert witnesses and not any(serves for _, serves in witnesses), "asked for digests it does not know"
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com")
    assert endpoints()[0] == ("https://hf-mirror.com", True), "the environment's mirror, held to the manifest"


@pytest.mark.parametrize(
    ("known", "listed", "status"),
    [
        (ManifestFile("a", 4, SHA), RemoteFile("a", 4, SHA, "main"), "same"),
        (ManifestFile("a", None, SHA), RemoteFile("a", 4, SHA, "main"), "same"),
        (ManifestFile("a", 4, None), RemoteFile("a", 4, SHA, "main"), "unproven"),
        (ManifestFile("a", 4, SHA), RemoteFile("a", 4, None, "main"), "unproven"),
        (ManifestFile("a", 4, SHA), RemoteFile("a", 5, SHA, "main"), "changed"),
        (ManifestFile("a", 4, SHA), RemoteFile("a", 4, "0" * 64, "main"), "changed"),
        (ROUNDED, RemoteFile("a", 10**9, SHA, "main"), "changed"),
        (ROUNDED, RemoteFile("a", 49_812_345_678, SHA, "main"), "unproven"),
        (ManifestFile("a", 4, SHA), RemoteFile("A", 4, SHA, "main"), "gone"),
    ],
)  # fmt: skip
def test_each_way_to_agree(known: ManifestFile, listed: RemoteFile, status: str) -> None:
    (agreement,) = compare(Manifest("m", None, (known,), ()), [listed])
    assert agreement.status == status and agreement.differs == (status in ("changed", "gone"))
    assert (agreement.detail == "") == (status == "same")


def test_the_manifests_digest_goes_before_the_hubs() -> None:
    manifest = Manifest("m", None, (ManifestFile("a", None, SHA), ManifestFile("b", 1, None)), ())
    listed = [
        RemoteFile("a", 4, None, "main"),
        RemoteFile("b", 1, "1" * 64, "main"),
        RemoteFile("c", 1, None, "m"),
    ]
    assert held_to(manifest, listed) == (
        RemoteFile("a", 4, SHA, "main"),
        RemoteFile("b", 1, "1" * 64, "main"),
    )


def test_making_is_reproducible(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    text = to_json(make_manifest(REPO_ID))
    assert text == to_json(make_manifest(REPO_ID))
    assert "local" not in text and json.loads(text)["schema"] == 1
    assert tree(work) == {}
