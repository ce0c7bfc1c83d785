"""Records: where journals go, names as one part of a path, and the command that fetches a set again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufkit.hubs.endpoints import DEFAULTS
from ggufkit.hubs.hub import HubName, parse_ref
from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
from ggufkit.verbs.record import (
    Record,
    digests,
    find_record,
    journal_path,
    keep_headers,
    kept_headers,
    last_pulled,
    pull_command,
    records_in,
    remember_last,
    safe_name,
    write_record,
)

FILES = (ManifestFile("q/m.gguf", 7, "0" * 64, None),)


def manifest(
    name: str = "m",
    quant: str | None = "Q4_K_M",
    hub: HubName = "huggingface",
    revision: str = "main",
) -> Manifest:
    source = ManifestSource(hub, DEFAULTS[hub], "o/n-GGUF", revision, None)
    return Manifest(name, quant, FILES, (source,))


def test_journals_of_different_targets_have_different_names(tmp_path: Path) -> None:
    targets = ["a/b-c.gguf", "a-b/c.gguf", "a-b-c.gguf", "A-b-c.gguf", "a/b/c.gguf"]
    paths = {journal_path(tmp_path, tmp_path / t) for t in targets}
    assert len(paths) == len(targets)
    assert {p.parent for p in paths} == {tmp_path / ".ggufkit" / "journal"}


def test_the_journal_of_a_target_is_the_same_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = journal_path(tmp_path / "root", tmp_path / "root" / "q" / "m.gguf").name
    monkeypatch.chdir(tmp_path)
    assert journal_path(Path("root"), Path("root/q/m.gguf")).name == absolute
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    assert journal_path(Path(), Path("q/m.gguf")).name == absolute


letters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
parts_of_paths = st.text(letters, min_size=1, max_size=85)


@given(st.lists(parts_of_paths, min_size=1, max_size=9))
def test_a_journals_name_is_short_whatever_the_targets(parts: list[str]) -> None:
    target = Path("root", *(f"x{p}" for p in parts))
    name = journal_path(Path("root"), target).name
    assert len(os.fsencode(f"{name}.written.12345-678")) <= 255


def test_a_target_outside_the_root_has_a_journal_too(tmp_path: Path) -> None:
    outside = [journal_path(tmp_path / "root", tmp_path / folder / "m.gguf") for folder in ("a", "b")]
    assert outside[0] != outside[1] and outside[0].parent == tmp_path / "root" / ".ggufkit" / "journal"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("m", "m"),
        ("a/b", "a-b"),
        ("..", "model"),
        ("../../etc/x", "-..-etc-x"),
        ("a\\b", "a-b"),
        (".m", "m"),
        ("", "model"),
    ],
)
def test_a_sets_name_is_one_part_of_a_path(tmp_path: Path, name: str, safe: str) -> None:
    assert safe_name(name) == safe and "/" not in safe


def test_a_record_is_found_from_its_files_and_lists_them(tmp_path: Path) -> None:
    record = write_record(tmp_path, manifest())
    assert record.paths() == (tmp_path / "q" / "m.gguf",)
    assert find_record(tmp_path / "q" / "m.gguf") == record
    assert find_record(tmp_path / "q" / "other.gguf") is None
    assert find_record(tmp_path / "m.gguf") is None
    assert list(records_in(tmp_path)) == [record]


def test_a_record_is_replaced_by_the_next_of_its_name(tmp_path: Path) -> None:
    write_record(tmp_path, manifest(revision="old"))
    write_record(tmp_path, manifest(revision="new"))
    (record,) = records_in(tmp_path)
    assert record.manifest.sources[0].revision == "new"
    assert [p.name for p in (tmp_path / ".ggufkit").iterdir()] == ["m.json"]


def test_what_killed_runs_left_is_taken_away_when_it_is_old(tmp_path: Path) -> None:
    folder = tmp_path / ".ggufkit"
    folder.mkdir()
    for name in (".ggufkit-old.tmp", ".ggufkit-new.tmp", "mine.tmp"):
        (folder / name).write_bytes(b"half a reco")
    for name in (".ggufkit-old.tmp", "mine.tmp"):
        os.utime(folder / name, (1, 1))
    write_record(tmp_path, manifest())
    assert sorted(p.name for p in folder.iterdir()) == [".ggufkit-new.tmp", "m.json", "mine.tmp"]


def test_a_local_path_may_differ_from_the_one_in_the_repo(tmp_path: Path) -> None:
    files = (ManifestFile("q/m.gguf", 7, "0" * 64, "here/n.gguf"),)
    record = write_record(tmp_path, Manifest("m", None, files, ()))
    assert record.digest_of(tmp_path / "here" / "n.gguf") == "0" * 64
    assert record.digest_of(tmp_path / "q" / "m.gguf") is None


def test_pulled_sets_come_before_merged_files(tmp_path: Path) -> None:
    merged = write_record(tmp_path, Manifest("a", None, FILES, ()), merged=True)
    pulled = write_record(tmp_path, manifest("z"))
    assert list(records_in(tmp_path)) == [pulled, merged]


def test_the_set_pulled_last_is_remembered_in_a_home_without_folders(tmp_path: Path, own_home: Path) -> None:
    assert last_pulled() is None
    for name in ("first", "second"):
        remember_last(write_record(tmp_path, manifest(name)))
    last = last_pulled()
    assert last is not None and last.manifest.name == "second"
    last.file.unlink()
    assert last_pulled() is None


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (manifest(), "ggufkit pull o/n-GGUF --quant Q4_K_M"),
        (manifest(quant=None), "ggufkit pull o/n-GGUF"),
        (manifest(revision="v2"), "ggufkit pull o/n-GGUF@v2 --quant Q4_K_M"),
        (manifest(hub="modelscope", revision="master"), "ggufkit pull ms:o/n-GGUF --quant Q4_K_M"),
    ],
)
def test_the_command_that_fetches_a_set_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Manifest, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pull_command(Record(Path("n-GGUF"), Path("x"), record)) == command
    assert pull_command(Record(tmp_path / "n-GGUF", Path("x"), record)) == command
    assert pull_command(Record(Path("other"), Path("x"), record)) == f"{command} --local-dir other"
    assert pull_command(Record(tmp_path, Path("x"), record)) == f"{command} --local-dir ."
    spaced = pull_command(Record(Path("/data/my models"), Path("x"), record))
    assert spaced == f"{command} --local-dir '/data/my models'"
    parse_ref(command.split()[2])


def test_no_command_fetches_what_no_hub_has() -> None:
    assert pull_command(Record(Path(), Path("x"), Manifest("m", "Q4_K_M", FILES, ()))) is None


def test_digests_are_remembered_in_the_users_cache(tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    digests().put(tmp_path / "f", "1" * 64)
    assert digests().get(tmp_path / "f") == "1" * 64
    assert (own_home / ".cache" / "ggufkit" / "digests.json").exists()


def test_headers_of_shards_are_kept_where_nobody_takes_them_for_models(tmp_path: Path) -> None:
    kept = {"m-00001-of-00002.gguf": b"GGUF1", "m-00002-of-00002.gguf": b"GGUF2"}
    assert kept_headers(tmp_path, "m") == {}
    keep_headers(tmp_path, "m", kept)
    strays = [tmp_path / ".ggufkit" / "headers" / "m" / f".ggufkit-{n}.tmp" for n in (0, 1)]
    for stray in strays:
        stray.write_bytes(b"of a run that was killed")
    os.utime(strays[0], (0, 0))
    keep_headers(tmp_path, "m", kept)
    assert [stray.exists() for stray in strays] == [False, True], "the new one may be another process's"
    assert kept_headers(tmp_path, "m") == kept
    assert kept_headers(tmp_path, "n") == {}
    assert not list(tmp_path.rglob("*.gguf")) and not list(tmp_path.rglob("*.json"))
