"""The whole way on a real server: list with the real clients, pick, locate, GET; on both hubs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from ggufkit.errors import NotFoundError
from ggufkit.hubs.hub import HubName, Listing, open_hub
from ggufkit.hubs.quants import QuantError, find_quants, pick_quant
from tests.support.hub import TestHub, run_hub

REPO = "unsloth/DeepSeek-R1-GGUF"
FOLDER = "DeepSeek-R1-UD-IQ2_XXS"
CONTENTS = {
    **{f"{FOLDER}/{FOLDER}-0000{n}-of-00004.gguf": b"GGUF" + bytes([n]) * (1000 + n) for n in range(1, 5)},
    "DeepSeek-R1 Q8_0 (1)/DeepSeek-R1.Q8_0.gguf": b"GGUF" + b"8" * 500,
    "README.md": b"# R1\n",
}


@pytest.fixture
def served(tmp_path: Path, clean_environment: Path) -> Iterator[TestHub]:
    root = tmp_path / "served"
    for path, content in CONTENTS.items():
        target = root / REPO / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    with run_hub(root, cdn=True) as hub:
        yield hub


def listed(name: HubName, served: TestHub, revision: str | None = None) -> Listing:
    return open_hub(name, endpoint=served.url).list_files(REPO, revision)


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_list_pick_locate_and_get(name: HubName, served: TestHub) -> None:
    listing = listed(name, served)
    assert {file.path: file.size_bytes for file in listing.files} == {p: len(c) for p, c in CONTENTS.items()}
    quants = find_quants(REPO, listing.files)
    assert [(quant.name, quant.n_shards) for quant in quants] == [("Q8_0", 1), ("UD-IQ2_XXS", 4)]
    hub = open_hub(name, endpoint=served.url)
    with urllib3.PoolManager() as pool:
        for quant in quants:
            for file in quant.files:
                address = hub.locate(REPO, file)
                ranged = {**address.headers, "Range": "bytes=2-"}
                answer = pool.request("GET", address.url, headers=ranged, retries=urllib3.Retry(redirect=2))
                assert (answer.status, answer.data) == (206, CONTENTS[file.path][2:])
                assert file.sha256 == hashlib.sha256(CONTENTS[file.path]).hexdigest()
    assert len(served.asked(plane="cdn")) == 5  # the LFS files came by redirects


def test_both_hubs_list_the_same_files(served: TestHub) -> None:
    hf, ms = listed("huggingface", served), listed("modelscope", served)
    common = [file.path for file in hf.files if file.sha256 is not None]
    assert {file.path: (file.size_bytes, file.sha256) for file in hf.files if file.path in common} == {
        file.path: (file.size_bytes, file.sha256) for file in ms.files if file.path in common
    }
    assert len(common) == 5


def test_a_commit_can_be_listed_again(served: TestHub) -> None:
    listing = listed("huggingface", served)
    assert listing.commit is not None
    assert listed("huggingface", served, listing.commit).files == listing.files


@pytest.mark.parametrize("name", ["huggingface", "modelscope"])
def test_what_is_not_there(name: HubName, served: TestHub) -> None:
    hub = open_hub(name, endpoint=served.url)
    with pytest.raises(NotFoundError, match="has no repo o/n"):
        hub.list_files("o/n")
    with pytest.raises(NotFoundError, match="nope"):
        hub.list_files(REPO, "nope")
    with pytest.raises(QuantError, match="no quant Q4_K_M"):
        pick_quant(find_quants(REPO, hub.list_files(REPO).files), "Q4_K_M", REPO)
