"""`ggufkit pull` at the prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ggufkit.cli import line
from ggufkit.cli.render import size_text
from ggufkit.transfer.several import CONNECTIONS, Several
from tests.cli.conftest import Run
from tests.support.faults import Fault
from tests.support.ggufs import make_gguf
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.published import NAME, QUANT, everything, model_bytes, publish, sha256, tree


def total(files: dict[str, bytes]) -> int:
    return sum(map(len, files.values()))


def test_what_it_says(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    done = run("pull", REPO_ID, "--quant", QUANT)
    size = size_text(total(files))
    assert done.code == 0
    assert done.out == f"4 files, {size} in {NAME} (4 downloaded), SHA-256 checked\n"
    asking, *lines = done.err.splitlines()
    assert asking == f"asking for {REPO_ID}", "something is said before the first request"
    where = hub.url.removeprefix("http://")
    assert lines[0] == (
        f"Hugging Face at {where} and ModelScope at {where}: {QUANT}, 4 files, {size} to {NAME}"
    )
    assert lines[1] == f"pulling {FOLDER}: {size}"
    assert re.fullmatch(rf"pulling {FOLDER}: {size} of {size} in \d+\.\d s", lines[-3])
    assert lines[-2] == f"from Hugging Face at {where}: {size}", "small files take one stream"
    assert lines[-1] == "next: ggufkit fit, ggufkit merge"
    again = run("pull", f"ms:{REPO_ID}:{QUANT}")
    assert again.out == f"4 files, {size} in {NAME} (4 kept), SHA-256 checked\n"
    assert again.err.splitlines()[1] == f"ModelScope at {where}: {QUANT}, 4 files, {size} to {NAME}"
    assert not [line for line in again.err.splitlines() if line.startswith("from ")]
    assert tree(work / NAME) == files


def test_the_next_step_names_the_model_where_another_is_at_hand(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    elsewhere = work.parent / "else where"
    pull = ("pull", REPO_ID, "--quant", QUANT, "--local-dir", elsewhere)
    assert run(*pull).err.splitlines()[-1] == "next: ggufkit fit, ggufkit merge", "the one pulled last"
    make_gguf(work / "mine.gguf")
    first = f"'{elsewhere / min(files)}'"
    assert run(*pull).err.splitlines()[-1] == f"next: ggufkit fit {first}, ggufkit merge {first}"
    assert run("pull", REPO_ID).err.splitlines()[-1] == "next: ggufkit fit, ggufkit merge"


def test_how_many_streams_and_how_fast(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int | None]] = []

    class Spied(Several):
        def __init__(self, sources: Any, connections: int, *more: Any) -> None:
            asked.append((connections, sources[0].http.pace and sources[0].http.pace.limit_bytes_per_s))
            super().__init__(sources, connections, *more)

    monkeypatch.setattr("ggufkit.verbs.listing.Several", Spied)
    done = run("pull", REPO_ID, "--connections", "7", "--limit-rate", "20M", "--json")
    assert tree(work / NAME) == files and (7, 20 << 20) in asked
    (served,) = done.json["sources"]
    assert served["source"] == "hf" and served["n_bytes"] == done.json["fetched_bytes"] == total(files)
    for wrong in (["--connections", "0"], ["--connections", "99"], ["--limit-rate", "fast"]):
        assert run("pull", REPO_ID, *wrong).code == 2


def test_help_knows_the_librarys_own_number_of_streams() -> None:
    assert line.CONNECTIONS == CONNECTIONS


def test_it_says_what_was_resumed(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run, naps: list[float]
) -> None:
    hub.add(Fault(plane="cdn", cut_after_bytes=70_000, times=1))
    hub.add(Fault(plane="cdn", status=500, skip=1))
    failed = run("pull", REPO_ID)
    assert failed.code == 5 and "error: " in failed.err and failed.out == ""
    assert failed.err.splitlines()[-1] == "hint: run the same command again: it goes on from here"
    hub.forget()
    done = run("pull", REPO_ID)
    percent = 70_000 * 100 // total(files)
    assert f"resumed at {percent} %" in done.err and "(1 resumed, 3 downloaded)" in done.out


def test_json(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    document = run("pull", REPO_ID, "--json").json
    assert document["repo_id"] == REPO_ID and document["quant"] == QUANT and document["hub"] == "huggingface"
    assert document["total_bytes"] == document["fetched_bytes"] == total(files)
    assert document["n_unproven"] == 0 and isinstance(document["seconds"], float)
    assert [f["sha256"] for f in document["files"]] == [sha256(files[p]) for p in sorted(files)]
    assert [f["target"] for f in document["files"]] == [f"{NAME}/{p}" for p in sorted(files)]
    assert {f["state"] for f in document["files"]} == {"download"}


def test_quiet_prints_the_paths(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    done = run("pull", REPO_ID, "-q")
    assert done.lines == [f"{NAME}/{p}" for p in sorted(files)] and done.err == ""
    assert run("pull", REPO_ID, "--json", "-q").json["total_bytes"] == total(files)


@pytest.mark.parametrize("flag", ["-n", "--dry-run"])
def test_a_dry_run_writes_nothing(
    hub: TestHub, files: dict[str, bytes], work: Path, own_home: Path, run: Run, flag: str
) -> None:
    done = run("pull", REPO_ID, flag)
    assert done.code == 0 and "[dry run] nothing is written\n" in done.err
    rows = [line.split() for line in done.lines]
    assert rows[0] == ["SIZE", "ACTION", "FILE"]
    assert [row[-1] for row in rows[1:5]] == [f"{NAME}/{p}" for p in sorted(files)]
    assert {row[-2] for row in rows[1:5]} == {"download"}
    assert done.lines[-1].startswith(f"{size_text(total(files))} to fetch, ")
    document = run("pull", REPO_ID, flag, "--json").json
    assert document["needed_bytes"] == document["total_bytes"] == total(files) and document["free_bytes"] > 0
    assert run("pull", REPO_ID, flag, "-q").lines == [f"{NAME}/{p}" for p in sorted(files)]
    assert everything(work) == set() and everything(own_home) == set()
    assert hub.asked(plane="cdn") == []


@pytest.mark.parametrize("quant", ["Q8_0", "IQ2_XXS_L"])
def test_an_unknown_quant_is_answered_with_the_table(hub: TestHub, work: Path, run: Run, quant: str) -> None:
    done = run("pull", REPO_ID, "--quant", quant)
    assert done.code == 3 and done.out == ""
    _, *lines = done.err.splitlines()
    assert lines[0].split() == ["QUANT", "SIZE", "FILES", "NOTE", "FOLDER"]
    assert lines[1].split()[0] == QUANT and lines[1].split()[-1] == FOLDER
    assert lines[-2] == f"error: {REPO_ID} has no quant {quant}" and QUANT in lines[-1]


def test_several_quants_and_none_named(tmp_path: Path, hub: TestHub, work: Path, run: Run) -> None:
    publish(tmp_path / "hub", stem="DeepSeek-R1-UD-IQ1_S")
    hub.refresh()
    done = run("pull", REPO_ID)
    assert done.code == 3 and f"error: {REPO_ID} has 2 quants\n" in done.err
    assert "UD-IQ1_S" in done.err and QUANT in done.err and f"{REPO_ID}:UD-IQ1_S" in done.err
    assert run("pull", REPO_ID, "--quant", "UD-IQ1_S", "-q").code == 0
    assert {p.name for p in (work / NAME).iterdir()} == {".ggufkit", "DeepSeek-R1-UD-IQ1_S"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(path="/api/models", status=404, headers={"X-Error-Code": "RepoNotFound"}), 3),
        (Fault(path="/api/models", status=403, headers={"X-Error-Code": "GatedRepo"}), 4),
        (Fault(path="resolve", plane="hub", status=403), 4),
        (Fault(path="resolve", plane="hub", status=416), 5),
        (Fault(plane="cdn", flip_byte_at=9), 6),
    ],
)
def test_failures_end_with_their_code_and_a_way_on(
    hub: TestHub, work: Path, run: Run, fault: Fault, code: int
) -> None:
    hub.add(fault)
    done = run("pull", f"hf:{REPO_ID}")
    assert done.code == code and done.out == ""
    assert re.search(r"^error: ", done.err, re.MULTILINE) and "None" not in done.err
    assert code == 5 or re.search(r"^hint: ", done.err, re.MULTILINE)
    assert "Signature" not in done.err and "Traceback" not in done.err


def test_a_folder_of_ones_own_and_a_revision(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    done = run("pull", REPO_ID, "--local-dir", "here", "--revision", "main")
    assert done.code == 0 and tree(work / "here") == files
    assert run("pull", REPO_ID, "--revision", "nope").code == 3


def test_the_environment_and_the_config_choose_the_hub(
    hub: TestHub, work: Path, own_home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "huggingface" in run("pull", REPO_ID, "-n").err + str(run("pull", REPO_ID, "-n", "--json").json)
    config = own_home / ".config" / "ggufkit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[pull]\nsource = "modelscope"\nlocal-dir = "below"\n')
    document = run("pull", REPO_ID, "-n", "--json").json
    assert document["hub"] == "modelscope" and document["root"] == "below"
    monkeypatch.setenv("GGUFKIT_PULL_SOURCE", "hf")
    assert run("pull", REPO_ID, "-n", "--json").json["hub"] == "huggingface"
    assert run("pull", REPO_ID, "-n", "--json", "--source", "modelscope").json["hub"] == "modelscope"
    monkeypatch.setenv("GGUFKIT_PULL_JSON", "1")
    assert run("pull", REPO_ID, "-n").json["root"] == "below"


def test_raw_parts_are_offered_for_joining(tmp_path: Path, hub: TestHub, work: Path, run: Run) -> None:
    whole = model_bytes()
    folder = tmp_path / "hub" / "m" / "grok-1-GGUF"
    folder.mkdir(parents=True)
    middle = len(whole) // 2
    for number, part in enumerate((whole[:middle], whole[middle:]), 1):
        (folder / f"grok-1.Q2_K.gguf.part{number}of2").write_bytes(part)
    hub.refresh()
    done = run("pull", "m/grok-1-GGUF")
    assert done.code == 0 and "raw parts" in run("quants", "m/grok-1-GGUF").lines[1]
    assert done.err.splitlines()[-1].startswith("next: ggufkit merge (these are pieces of one file")
    assert run("merge", "grok-1-GGUF").code == 0
    assert (work / "grok-1-GGUF" / "grok-1.Q2_K.gguf").read_bytes() == whole


@pytest.mark.parametrize("source", ["hf", "modelscope"])
def test_a_file_that_is_gated_though_its_repo_is_listed(
    hub: TestHub, work: Path, run: Run, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(Fault(path="resolve|FilePath", plane="hub", status=401, headers={"X-Error-Code": "GatedRepo"}))
    done = run("pull", REPO_ID, "--source", source)
    host = hub.url.removeprefix("http://")
    title, variable = {
        "hf": ("Hugging Face", "HF_TOKEN"),
        "modelscope": ("ModelScope", "MODELSCOPE_API_TOKEN"),
    }[source]
    assert done.code == 4 and f"{title} at {host} lets only people in who accepted the terms of" in done.err
    assert f"{variable} is not shown to {host}" in done.err, "it is no host of the hub's own"
    monkeypatch.setenv("GGUFKIT_TOKEN_HOSTS", host)
    page = {"hf": f"{hub.url}/{REPO_ID}", "modelscope": f"{hub.url}/models/{REPO_ID}"}[source]
    err = run("pull", REPO_ID, "--source", source).err
    assert f"hint: accept them at {page}, then set {variable}" in err


def test_an_announced_xet_changes_nothing(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run
) -> None:
    link = f'<{hub.url}/api/models/{REPO_ID}/xet-read-token/main>; rel="xet-auth"'
    hub.add(Fault(path="resolve", headers={"X-Xet-Hash": "1" * 64, "Link": link}))
    hub.add(Fault(path="xet", status=500))
    assert run("pull", REPO_ID, "--source", "hf").code == 0 and tree(work / NAME) == files
    assert hub.asked("(?i)xet") == [] and hub.sent_bytes(plane="cdn") == total(files)
