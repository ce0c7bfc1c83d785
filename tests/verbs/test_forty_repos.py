"""A hub with forty repos named like the real ones, and those whose files are known: each table is right."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest

from ggufkit.verbs.listing import QuantsReport, open_repo, quants
from tests.hubs.real import SETS, repo_files
from tests.support.hub import TestHub, run_hub

_DATA: dict[str, Any] = json.loads(Path(__file__).parent.parent.joinpath("data/forty_repos.json").read_text())
MADE: dict[str, dict[str, Any]] = _DATA["repos"]
KNOWN = sorted({one.repo for one in SETS} - set(MADE))
SLOW_S: dict[str, float] = {}
"""How long each table took; the slowest are told at the end."""


def file_names(pattern: str, n: int) -> list[str]:
    """Return the names of a quant's files."""
    if not pattern.startswith("raw:"):
        numbers = [f"-{i:05d}-of-{n:05d}" for i in range(1, n + 1)] if n > 1 else [""]
        return [f"{pattern}{number}.gguf" for number in numbers]
    pattern = pattern.removeprefix("raw:")
    if "{ab}" in pattern:
        return [pattern.replace("{ab}", ascii_lowercase[i]) for i in range(n)]
    return [pattern.format(i) for i in range(1, n + 1)]


def size_of(repo: str, path: str) -> int:
    """Return a size like a real shard's, another one for each file."""
    return 1_000_000_000 + sum(map(ord, f"{repo}/{path}")) * 1_000_003


def paths_of(repo: str) -> list[str]:
    names = [name for pattern, n in MADE[repo]["quants"].values() for name in file_names(pattern, n)]
    return [*names, *MADE[repo].get("others", [])]


def everything() -> dict[str, list[str]]:
    return {repo: paths_of(repo) for repo in MADE} | {repo: list(repo_files(repo)) for repo in KNOWN}


@pytest.fixture(scope="module")
def big_hub(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[TestHub]:
    """Serve all repos, as sparse files whose digests need not be taken."""
    root = tmp_path_factory.mktemp("forty")
    digests: dict[str, str] = {}
    for repo, paths in everything().items():
        for path in paths:
            file = root / repo / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            os.truncate(file, size_of(repo, path))
            digests[f"{repo}/{path}"] = f"{len(digests):064x}"
        (root / repo / "README.md").write_text(f"# {repo}\n")
    with run_hub(root, sha256s=digests) as hub:
        yield hub
    slowest = sorted(SLOW_S.items(), key=lambda item: item[1])[-3:]
    told = ", ".join(f"{repo} {seconds:.2f} s" for repo, seconds in slowest)
    pytestconfig.get_terminal_writer().line(f"\nslowest of {len(SLOW_S)} tables: {told}")


@pytest.fixture
def asked(big_hub: TestHub, monkeypatch: pytest.MonkeyPatch) -> TestHub:
    for name, value in (big_hub.hf_env | big_hub.ms_env).items():
        monkeypatch.setenv(name, value)
    return big_hub


def table(text: str) -> QuantsReport:
    began = time.perf_counter()
    report = quants(text)
    SLOW_S[text] = time.perf_counter() - began
    return report


def test_there_are_forty() -> None:
    assert len(MADE) == 40


@pytest.mark.parametrize("hub", ["", "ms:"])
@pytest.mark.parametrize("repo", MADE)
def test_the_table_of_a_repo_is_right(asked: TestHub, repo: str, hub: str) -> None:
    rows = {quant.name: quant for quant in table(hub + repo).quants}
    wanted = {name: file_names(pattern, n) for name, (pattern, n) in MADE[repo]["quants"].items()}
    assert {name: [f.path for f in quant.files] for name, quant in rows.items()} == wanted
    for name, quant in rows.items():
        assert quant.missing == () and quant.n_shards == len(wanted[name])
        assert quant.total_bytes == sum(size_of(repo, path) for path in wanted[name])
        assert (quant.kind == "raw") == MADE[repo]["quants"][name][0].startswith("raw:")
        assert set(quant.sources) == {"": {"hf", "modelscope"}, "ms:": {"modelscope"}}[hub]


@pytest.mark.parametrize("hub", ["hf:", "ms:"])
@pytest.mark.parametrize("repo", KNOWN)
def test_the_table_of_a_known_repo_is_right(asked: TestHub, repo: str, hub: str) -> None:
    rows = {quant.name: quant for quant in table(hub + repo).quants}
    wanted = {one.quant: one.whole() for one in SETS if one.repo == repo}
    assert {name: tuple(f.path for f in quant.files) for name, quant in rows.items()} == wanted


@pytest.mark.parametrize("repo", MADE)
def test_each_quant_is_picked_by_its_name(asked: TestHub, repo: str) -> None:
    listed = open_repo(repo, source="hf")
    for name, (pattern, n) in MADE[repo]["quants"].items():
        assert [f.path for f in listed.pick(name).files] == file_names(pattern, n)
