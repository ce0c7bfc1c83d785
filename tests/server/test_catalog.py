"""Which repos a folder holds: by layout, by manifests, and what is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource, to_json
from ggufkit.server.catalog import Repo, find_repos

SHA = "ab" * 32
COMMIT = "cd" * 20


def put(path: Path, content: bytes = b"data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def record(
    folder: Path,
    *files: ManifestFile,
    repo_id: str | None = "unsloth/R1",
    quant: str | None = "Q4_K_M",
    name: str = "set",
    inside: str = ".ggufkit",
) -> Path:
    """Write a manifest as a pull leaves it (or a merge: without a repo)."""
    source = ManifestSource("huggingface", "https://huggingface.co", repo_id or "", "main", COMMIT)
    manifest = Manifest(name, quant, files, (source,) if repo_id else ())
    return put(folder / inside / f"{name}.json", to_json(manifest).encode())


def shown(repos: tuple[Repo, ...]) -> dict[str, list[str]]:
    return {repo.repo_id: [file.path for file in repo.files] for repo in repos}


def test_folders_two_down_are_repos(tmp_path: Path) -> None:
    put(tmp_path / "unsloth/R1/Q4/a-00001-of-00002.gguf")
    put(tmp_path / "unsloth/R1/README.md")
    put(tmp_path / "bartowski/x/deep/er/b.gguf")
    put(tmp_path / "loose.gguf")
    put(tmp_path / "owner/loose.gguf")
    assert shown(find_repos(tmp_path)) == {
        "bartowski/x": ["deep/er/b.gguf"],
        "unsloth/R1": ["Q4/a-00001-of-00002.gguf", "README.md"],
    }


def test_files_carry_where_they_are_and_their_state(tmp_path: Path) -> None:
    path = put(tmp_path / "o/n/a.gguf", b"12345")
    (repo,) = find_repos(tmp_path)
    (file,) = repo.files
    assert file.local == path.resolve()
    assert (file.stamp.size_bytes, file.stamp.mtime_ns) == (5, path.stat().st_mtime_ns)
    assert file.sha256 is None
    assert repo.revisions == frozenset()


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.gguf",
        ".git/config",
        ".ggufkit/journal/x",
        "a.gguf.part",
        "a.gguf.incomplete",
        "a.gguf.parallel_tmp",
        "a.gguf.aria2",
        "bad\nname.gguf",
        "bad\\name.gguf",
    ],
)
def test_hidden_unfinished_and_unspeakable_names_are_left_out(tmp_path: Path, name: str) -> None:
    put(tmp_path / "o/n" / name)
    put(tmp_path / "o/n/a.gguf.part1of2")
    assert shown(find_repos(tmp_path)) == {"o/n": ["a.gguf.part1of2"]}


def test_odd_folder_names_are_no_repos(tmp_path: Path) -> None:
    put(tmp_path / "my models/n/a.gguf")
    put(tmp_path / "o/.n/a.gguf")
    put(tmp_path / "o/über/a.gguf")
    (tmp_path / "o/empty").mkdir()
    assert find_repos(tmp_path) == ()


def test_links_are_served_inside_and_never_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    secret = put(tmp_path / "secret/passwords")
    put(root / "o/n/a.gguf")
    put(root / "o/n/.store/hidden")
    put(root / "blobs/c")
    (root / "o/n/inside").symlink_to("../../blobs/c")
    (root / "o/n/folder").symlink_to("../../blobs")
    (root / "o/n/out").symlink_to(secret)
    (root / "o/n/out_folder").symlink_to(secret.parent)
    (root / "o/n/to_hidden").symlink_to(".store/hidden")
    (root / "o/n/dangling").symlink_to("nowhere")
    (root / "o/n/loop").symlink_to("loop")
    (root / "o/n/up").symlink_to("..")
    (root / "o/out").symlink_to(secret.parent)
    assert shown(find_repos(root)) == {"o/n": ["a.gguf", "folder/c", "inside"]}


def test_links_in_a_ring_end(tmp_path: Path) -> None:
    put(tmp_path / "o/n/a/one")
    put(tmp_path / "o/n/b/two")
    (tmp_path / "o/n/a/to_b").symlink_to("../b")
    (tmp_path / "o/n/b/to_a").symlink_to("../a")
    assert shown(find_repos(tmp_path)) == {"o/n": ["a/one", "a/to_b/two", "b/to_a/one", "b/two"]}


def test_special_files_are_left_out(tmp_path: Path) -> None:
    import os

    put(tmp_path / "o/n/a.gguf")
    os.mkfifo(tmp_path / "o/n/pipe")
    assert shown(find_repos(tmp_path)) == {"o/n": ["a.gguf"]}


def test_a_manifest_names_the_repo_and_its_digests(tmp_path: Path) -> None:
    folder = tmp_path / "R1"
    put(folder / "Q4/a.gguf", b"12345")
    put(folder / "Q4/extra.gguf")
    record(folder, ManifestFile("Q4/a.gguf", 5, SHA, None))
    (repo,) = find_repos(tmp_path)
    assert shown((repo,)) == {"unsloth/R1": ["Q4/a.gguf"]}, "and R1/Q4 is no repo of its own"
    assert repo.files[0].sha256 == SHA
    assert repo.revisions == {"main", COMMIT}


def test_the_served_folder_may_be_the_pulled_one(tmp_path: Path) -> None:
    put(tmp_path / "Q4/deep/a.gguf", b"12345")
    record(tmp_path, ManifestFile("Q4/deep/a.gguf", 5, SHA, None))
    assert shown(find_repos(tmp_path)) == {"unsloth/R1": ["Q4/deep/a.gguf"]}


def test_local_places_are_respected(tmp_path: Path) -> None:
    put(tmp_path / "R1/flat.gguf", b"12345")
    record(tmp_path / "R1", ManifestFile("Q4/a.gguf", 5, SHA, "flat.gguf"))
    (repo,) = find_repos(tmp_path)
    assert [(file.path, file.local.name) for file in repo.files] == [("Q4/a.gguf", "flat.gguf")]


def test_a_digest_of_another_size_is_not_believed(tmp_path: Path) -> None:
    put(tmp_path / "R1/a.gguf", b"123456")
    record(tmp_path / "R1", ManifestFile("a.gguf", 5, SHA, None))
    (repo,) = find_repos(tmp_path)
    assert repo.files[0].sha256 is None


def test_manifests_that_lead_out_are_left_out(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", b"12345")
    (tmp_path / "root/R1").mkdir(parents=True)
    (tmp_path / "root/R1/a.gguf").symlink_to(secret)
    record(tmp_path / "root/R1", ManifestFile("a.gguf", 5, SHA, None))
    assert find_repos(tmp_path / "root") == ()


def test_several_quants_make_one_repo(tmp_path: Path) -> None:
    put(tmp_path / "one/Q4/a.gguf", b"12345")
    put(tmp_path / "two/Q8/b.gguf", b"12345")
    put(tmp_path / "two/Q2/c.gguf", b"12345")
    record(tmp_path / "one", ManifestFile("Q4/a.gguf", 5, SHA, None))
    record(tmp_path / "two", ManifestFile("Q8/b.gguf", 5, SHA, None), name="q8")
    record(tmp_path / "two", ManifestFile("Q2/c.gguf", 5, SHA, None), name="q2")
    assert shown(find_repos(tmp_path)) == {"unsloth/R1": ["Q2/c.gguf", "Q4/a.gguf", "Q8/b.gguf"]}


def test_a_pulled_folder_in_the_layout_of_a_hub_shows_its_other_files_too(tmp_path: Path) -> None:
    put(tmp_path / "unsloth/R1/Q4/a.gguf", b"12345")
    put(tmp_path / "unsloth/R1/README.md")
    record(tmp_path / "unsloth/R1", ManifestFile("Q4/a.gguf", 5, SHA, None))
    (repo,) = find_repos(tmp_path)
    assert [(file.path, file.sha256) for file in repo.files] == [("Q4/a.gguf", SHA), ("README.md", None)]


def test_a_pulled_folder_of_another_name_keeps_the_name_of_its_repo(tmp_path: Path) -> None:
    put(tmp_path / "models/mine/Q4/a.gguf", b"12345")
    put(tmp_path / "models/mine/README.md")
    record(tmp_path / "models/mine", ManifestFile("Q4/a.gguf", 5, SHA, None))
    assert shown(find_repos(tmp_path)) == {"unsloth/R1": ["Q4/a.gguf"]}


def test_a_pulled_folder_deeper_down_is_no_part_of_the_repo_around_it(tmp_path: Path) -> None:
    put(tmp_path / "o/n/pulled/Q4/a.gguf", b"12345")
    put(tmp_path / "o/n/b.gguf")
    record(tmp_path / "o/n/pulled", ManifestFile("Q4/a.gguf", 5, SHA, None))
    assert shown(find_repos(tmp_path)) == {"o/n": ["b.gguf"], "unsloth/R1": ["Q4/a.gguf"]}


def test_a_merged_file_stands_in_for_shards_that_are_gone(tmp_path: Path) -> None:
    shard = put(tmp_path / "R1/Q4/a-00001-of-00001.gguf", b"12345")
    put(tmp_path / "R1/a.gguf", b"1234")
    record(tmp_path / "R1", ManifestFile("Q4/a-00001-of-00001.gguf", 5, SHA, None))
    merged = ManifestFile("a.gguf", 4, "ef" * 32, None)
    record(tmp_path / "R1", merged, repo_id=None, inside=".ggufkit/merged")
    assert shown(find_repos(tmp_path)) == {"unsloth/R1": ["Q4/a-00001-of-00001.gguf"]}
    shard.unlink()
    (repo,) = find_repos(tmp_path)
    assert [(file.path, file.sha256) for file in repo.files] == [("a.gguf", "ef" * 32)]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", json.dumps({"schema": 1}).encode()])
def test_a_broken_manifest_is_named_and_passed_over(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "R1/.ggufkit/broken.json", content)
    put(tmp_path / "R1/a.gguf", b"12345")
    record(tmp_path / "R1", ManifestFile("a.gguf", 5, SHA, None))
    notes: list[str] = []
    assert shown(find_repos(tmp_path, notes.append)) == {"unsloth/R1": ["a.gguf"]}
    assert len(notes) == 1 and "broken.json" in notes[0]
