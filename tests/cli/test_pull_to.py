"""`ggufkit pull --merge` and `--to` at the prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ggufkit.cli.render import size_text
from tests.cli.conftest import Run
from tests.support.disks import other_file_system
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.support.trees import snapshot
from tests.verbs.published import NAME, QUANT, everything, model_bytes, sha256

MERGED = f"{NAME}/{FOLDER}.gguf"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    return tmp_path


def test_what_merge_says(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    done = run("pull", REPO_ID, "--quant", QUANT, "--merge")
    assert done.code == 0
    size = size_text((work / MERGED).stat().st_size)
    assert done.lines == [
        f"{MERGED}: {size} from 4 shards (downloaded), SHA-256 of every shard checked",
        f"sha256: {sha256(work / MERGED)}",
    ]
    lines = done.err.splitlines()
    assert lines[:2] == [f"asking for {REPO_ID}", "reading the headers of 4 shards"]
    assert lines[2].endswith(f": {QUANT}, 4 shards, {size} to {MERGED}")
    assert lines[-1] == "next: ggufkit fit, ggufkit ollama-import"
    again = run("pull", REPO_ID, "--merge")
    assert "(there already)" in again.out and "reading the headers" not in again.err
    assert run("pull", REPO_ID, "--merge", "-q").lines == [MERGED]
    document = run("pull", REPO_ID, "--merge", "--json").json
    assert (document["output"], document["state"]) == (MERGED, "kept")
    assert run("merge").out.splitlines()[0] == f"{MERGED} is one file already: nothing to merge"
    assert run("inspect", "-q").code == run("verify").code == run("fit", "--ram", "8G").code == 0


def test_the_published_shards_come_back(hub: TestHub, files: dict[str, bytes], work: Path, run: Run) -> None:
    run("pull", REPO_ID, "--merge", "-q")
    plain = run("pull", REPO_ID, "-n")
    (command,) = re.findall(r"warning: .*: ggufkit (split --restore \S+) gives them back", plain.err)
    assert run(*command.split(), "-q").code == 0
    assert "warning" not in run("pull", REPO_ID, "-n").err
    assert {p: (work / NAME / p).read_bytes() for p in files} == files


def test_shards_for_the_cache_could_be_cut_from_the_merged_file(
    hub: TestHub, work: Path, run: Run, places: Path
) -> None:
    run("pull", REPO_ID, "--merge", "-q")
    for flags in (["-n"], []):
        assert "gives them back without fetching" in run("pull", REPO_ID, "--to", "hf-cache", *flags).err


def test_the_next_step_names_what_was_pulled_where_another_model_lies(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run, tmp_path: Path
) -> None:
    (work / "other.gguf").write_bytes(next(iter(files.values())))
    there = tmp_path / "there"
    done = run("pull", REPO_ID, "--merge", "--local-dir", there)
    file = there / Path(MERGED).relative_to(NAME)
    assert done.err.splitlines()[-1] == f"next: ggufkit fit {file}, ggufkit ollama-import {file}"


def test_shards_that_are_here_are_said(hub: TestHub, work: Path, run: Run) -> None:
    run("pull", REPO_ID, "-q")
    plan = run("pull", REPO_ID, "--merge", "-n")
    assert plan.out.count("  copy ") == 4
    assert "4 shards (copied from shards on this machine)" in run("pull", REPO_ID, "--merge").out
    (work / MERGED).unlink()
    next((work / NAME / FOLDER).iterdir()).unlink()
    assert "4 shards (downloaded, 3 of them copied from this machine)" in run("pull", REPO_ID, "--merge").out


@pytest.mark.parametrize("flag", ["-n", "--dry-run"])
def test_a_dry_run_writes_nothing(hub: TestHub, work: Path, run: Run, places: Path, flag: str) -> None:
    before = snapshot(places)
    done = run("pull", REPO_ID, "--merge", flag)
    assert re.search(rf"^ *\S+ \S+  download  {MERGED}$", done.out, re.MULTILINE)
    assert done.out.splitlines()[-1].endswith(" free") and "[dry run] nothing is written" in done.err
    assert run("pull", REPO_ID, "--merge", flag, "--json").json["output"] == MERGED
    done = run("pull", REPO_ID, "--to", "ollama", "--to", "lmstudio", flag)
    assert "\nollama: " in done.out and "\nlmstudio: " in done.out
    document = run("pull", REPO_ID, "--to", "ollama", flag, "--json").json
    assert document["ollama"]["action"] == "import" and document["grow_in"] is None
    done = run("pull", REPO_ID, "--to", "hf-cache", "--to", "lmstudio", flag)
    assert done.out.count("  download  ") == 4 and "\nhf-cache: " in done.out
    assert snapshot(places) == before


def test_merge_of_one_file_is_a_plain_pull(hub: TestHub, work: Path, run: Run, places: Path) -> None:
    folder = places / "hub" / "a" / "b-GGUF"
    folder.mkdir(parents=True)
    (folder / "b-Q8_0.gguf").write_bytes(model_bytes())
    hub.refresh()
    done = run("pull", "a/b-GGUF", "--merge")
    assert "Q8_0 is one file already: --merge changes nothing" in done.err
    assert done.code == 0 and everything(work) >= {"b-GGUF/b-Q8_0.gguf"}


def test_what_to_says(hub: TestHub, work: Path, run: Run, places: Path, own_home: Path) -> None:
    done = run("pull", REPO_ID, "--to", "ollama", "--to", "lmstudio", "--name", "r1")
    assert done.code == 0
    size = size_text((work / MERGED).stat().st_size)
    lines = done.lines
    assert lines[0] == f"{MERGED}: {size} (downloaded), SHA-256 checked"
    assert re.fullmatch(rf"ollama: r1:latest in {places / 'ollama'} \(\S+ \S+ more on the disk\)", lines[1])
    folder = own_home / ".lmstudio" / "models" / REPO_ID
    assert lines[2] == f"lmstudio: {folder} (nothing more on the disk)"
    assert done.err.splitlines()[-1] == "next: ollama run r1:latest; lms ls"
    again = run("pull", REPO_ID, "--to", "ollama", "--to", "lmstudio", "--name", "r1")
    assert again.out.count("(there already)") == 3
    quiet = run("pull", REPO_ID, "--to", "ollama", "--to", "lmstudio", "--name", "r1", "-q")
    assert quiet.lines == ["r1:latest", str(folder)]
    document = run("pull", REPO_ID, "--to", "ollama", "--name", "r1", "--json").json
    assert document["ollama"]["name"] == "r1:latest" and document["hf_cache"] is None


@pytest.mark.parametrize("words", ['"lmstudio"', '["lmstudio", "ollama"]'])
def test_where_models_go_may_be_settled_in_the_config(
    hub: TestHub, work: Path, run: Run, own_home: Path, words: str
) -> None:
    config = own_home / ".config" / "ggufkit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"[pull]\nto = {words}\n")
    done = run("pull", REPO_ID, "-n")
    assert "\nlmstudio: " in done.out and ("\nollama: " in done.out) == ("ollama" in words), done.err


def test_to_the_cache_names_the_next_step(hub: TestHub, work: Path, run: Run, places: Path) -> None:
    done = run("pull", f"ms:{REPO_ID}", "--to", "hf-cache")
    assert done.lines[0].startswith(f"4 files in {NAME}: ")
    assert done.lines[1].startswith(f"hf-cache: {places}/hf/hub/models--unsloth--DeepSeek-R1-GGUF/snapshots/")
    assert f"warning: no hub named a commit of {REPO_ID}" in done.err
    assert done.err.splitlines()[-1] == f"next: llama-server -hf {REPO_ID}:{QUANT} --offline"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "vllm"], 2, "'ollama', 'lmstudio', 'hf-cache'"),
        (["--name", "x"], 2, "--to ollama"),
        (["--user-repo", "a/b"], 2, "--to lmstudio"),
        (["--to", "hf-cache", "--merge"], 2, "as they are published"),
        (["--to", "ollama", "--name", "no good"], 2, "no good"),
        (["--to", "lmstudio", "--user-repo", "a"], 2, "publisher/model"),
    ],
)
def test_what_is_refused(
    hub: TestHub, work: Path, run: Run, arguments: list[str], code: int, words: str
) -> None:
    done = run("pull", REPO_ID, *arguments)
    assert done.code == code and words in done.err and "Traceback" not in done.err
    assert everything(work) == set()


def test_it_is_said_where_the_file_grows_if_it_does(
    hub: TestHub, work: Path, run: Run, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_file_system(places) as disk:
        monkeypatch.setenv("OLLAMA_MODELS", str(disk / "ollama"))
        command = ("pull", REPO_ID, "--to", "ollama")
        assert f" to {disk / 'ollama'}/.ggufkit-pull/{NAME}, for ollama\n" in run(*command).err
        assert f" to {NAME}, for ollama\n" in run(*command).err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "x"],
        ["--user-repo", "a/b", "--to", "ollama"],
        ["--name", "no good", "--to", "ollama"],
        ["--user-repo", "a", "--to", "lmstudio"],
    ],
)
def test_names_are_looked_at_before_a_hub_is_asked(
    hub: TestHub, work: Path, run: Run, arguments: list[str]
) -> None:
    hub.requests.clear()
    done = run("pull", REPO_ID, *arguments)
    assert done.code == 2 and "asking" not in done.err and not hub.requests
