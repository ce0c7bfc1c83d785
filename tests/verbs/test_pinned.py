"""Pulling by a manifest: its files and digests, or a refusal that names the difference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import IntegrityError, NotFoundError, UsageError
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, from_json, to_json
from ggufkit.verbs.manifest import make_manifest
from ggufkit.verbs.pull import PullReport, plan_pull, pull
from ggufkit.verbs.record import records_in
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, everything, publish, sha256, tree


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        """Hear nothing."""

    def advance(self, n_bytes: int) -> None:
        """Hear nothing."""

    def note(self, message: str) -> None:
        """Keep it."""
        self.notes.append(message)

    def finish(self) -> None:
        """Hear nothing."""


@pytest.fixture
def file(hub: TestHub, files: dict[str, bytes], work: Path, tmp_path: Path) -> Path:
    """A manifest of the published set, as a file, that names the hubs' own addresses."""
    made = make_manifest(REPO_ID)
    sources = (
        ManifestSource("huggingface", "https://huggingface.co", REPO_ID, "main", made.sources[0].commit),
        ManifestSource("modelscope", "https://modelscope.cn", REPO_ID, "master", None),
    )
    path = tmp_path / "r1.json"
    path.write_text(to_json(replace(made, sources=sources)), "utf-8")
    return path


def change(file: Path, index: int, **known: object) -> None:
    document = json.loads(file.read_text("utf-8"))
    document["files"][index] |= known
    document["files"][index] = {k: v for k, v in document["files"][index].items() if v is not None}
    file.write_text(json.dumps(document), "utf-8")


def get(file: Path, source: str = "auto") -> PullReport:
    return pull(plan_pull(str(file), source=source))


@pytest.mark.parametrize("source", ["auto", "hf", "modelscope"])
def test_the_manifests_files_are_pulled(
    hub: TestHub, files: dict[str, bytes], work: Path, file: Path, source: str
) -> None:
    report = get(file, source)
    assert tree(work / NAME) == files and report.quant == QUANT and report.n_unproven == 0
    (record,) = records_in(work / NAME)
    assert record.manifest.name == FOLDER
    assert [f.sha256 for f in record.manifest.files] == [sha256(files[p]) for p in sorted(files)]


def test_hugging_face_is_asked_for_the_frozen_commit(
    hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    commit = from_json(file.read_text("utf-8"), "m").sources[0].commit
    assert commit is not None
    hub.forget()
    get(file, "hf")
    assert hub.asked(f"/tree/{commit}|/revision/{commit}") and not hub.asked("/(tree|revision)/main")


def test_other_quants_in_the_repo_do_not_matter(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    publish(tmp_path / "hub", stem="DeepSeek-R1-Q2_K")
    hub.refresh()
    get(file, "modelscope")
    assert tree(work / NAME) == files


def test_a_changed_digest_is_refused_before_the_first_byte(
    hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    change(file, 2, sha256="f" * 64)
    with pytest.raises(IntegrityError) as caught:
        plan_pull(str(file))
    path = sorted(files)[2]
    assert f"{path} SHA-256 is {sha256(files[path])}, expected {'f' * 64}" in caught.value.message
    assert caught.value.exit_code == 6 and FOLDER in caught.value.message
    assert hub.asked(plane="cdn") == [] and everything(work) == set()


def test_a_changed_size_and_a_file_that_is_gone_are_refused(
    hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    change(file, 0, size_bytes=5)
    change(file, 1, path="elsewhere.gguf")
    with pytest.raises(IntegrityError) as caught:
        plan_pull(str(file))
    assert "bytes, expected 5" in caught.value.message
    assert "elsewhere.gguf is not there any more" in caught.value.message


def test_a_hub_that_differs_is_left_out_and_the_other_serves(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    path = sorted(files)[0]
    page = hub.asked("repo/files", plane="hub")  # what ModelScope's protocol lists
    assert page
    body = json.dumps(
        {"Code": 200, "Success": True, "Message": "success", "RequestId": "1", "Data": {"Files": [
            {"Path": p, "Name": p, "Type": "blob", "Size": len(data), "IsLFS": True,
             "Sha256": "0" * 64 if p == path else sha256(data), "Revision": "0" * 40}
            for p, data in files.items()
        ]}}
    )  # fmt: skip
    hub.add(Fault(path="repo/files", body=body.encode(), headers={"Content-Type": "application/json"}))
    notes = Notes()
    plan = plan_pull(str(file), progress=notes)
    (note,) = notes.notes
    assert "ModelScope" in note and f"{path} SHA-256 is {'0' * 64}" in note and "left out" in note
    pull(plan)
    assert tree(work / NAME) == files
    with pytest.raises(IntegrityError, match="ModelScope"):
        plan_pull(str(file), source="modelscope")


def test_a_mirror_is_proven_against_it(hub: TestHub, files: dict[str, bytes], work: Path, file: Path) -> None:
    hub.add(Fault(path=sorted(files)[0].rpartition("/")[2], plane="cdn", flip_byte_at=9))
    with pytest.raises(IntegrityError, match=sha256(files[sorted(files)[0]])):
        get(file, hub.url)
    hub.forget()
    get(file, hub.url)
    assert tree(work / NAME) == files
    assert plan_pull(str(file), source=hub.url).remarks == (), "the manifest vouches for every digest"


def test_what_the_manifest_leaves_open_is_the_hubs(
    hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    for i in range(len(files)):
        change(file, i, size_bytes=None)
    change(file, 1, sha256=None)
    report = get(file)
    assert [f.sha256 for f in report.files] == [sha256(files[p]) for p in sorted(files)]
    assert report.total_bytes == sum(map(len, files.values()))


def test_a_shipped_one_is_held_to_its_digests(hub: TestHub, files: dict[str, bytes], work: Path) -> None:
    """The hub of the suite has R1's names, and other bytes."""
    with pytest.raises(IntegrityError) as caught:
        plan_pull("deepseek-r1-ud-iq2_xxs", source="modelscope")
    assert "expected about 49.1 GB" in caught.value.message and "(and 1 more files)" in caught.value.message


def test_flags_that_a_manifest_settles_are_refused(hub: TestHub, work: Path, file: Path) -> None:
    with pytest.raises(UsageError, match="--quant Q8_0: the manifest"):
        plan_pull(str(file), quant="Q8_0")
    with pytest.raises(UsageError, match="--revision main: the manifest"):
        plan_pull(str(file), revision="main")


def test_a_manifest_without_a_repo_or_without_a_model_can_not_be_pulled(
    tmp_path: Path, hub: TestHub, files: dict[str, bytes], work: Path, file: Path
) -> None:
    manifest = from_json(file.read_text("utf-8"), "m")
    file.write_text(to_json(replace(manifest, sources=())), "utf-8")
    with pytest.raises(UsageError, match="names no repo"):
        plan_pull(str(file))
    half = replace(manifest, files=manifest.files[:2])
    file.write_text(to_json(half), "utf-8")
    with pytest.raises(NotFoundError, match="not one whole model"):
        plan_pull(str(file))
    readme = Manifest("x", None, (ManifestFile("README.md", None, None),), manifest.sources)
    file.write_text(to_json(readme), "utf-8")
    with pytest.raises(NotFoundError, match="not one whole model"):
        plan_pull(str(file))


def test_what_is_there_already_is_kept(hub: TestHub, files: dict[str, bytes], work: Path, file: Path) -> None:
    pull(plan_pull(REPO_ID))
    hub.forget()
    assert {f.state for f in get(file).files} == {"kept"} and hub.asked(plane="cdn") == []
