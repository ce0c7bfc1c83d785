"""What is kept of merged shards gives them back and proves them; what is broken is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ggufkit.gguf.layout import Layout, Literal, Span, merge_layout
from ggufkit.gguf.pieces import Piece, pieces_of
from ggufkit.gguf.shards import check_set
from ggufkit.hubs.manifest import Manifest, ManifestFile
from ggufkit.transfer.engine import Job, write
from ggufkit.transfer.prover import DigestMismatch, Prover
from ggufkit.transfer.sources import LocalSource, open_header
from ggufkit.verbs.kept import KeptShards, find_kept, forget_kept, read_kept, write_kept
from tests.support.ggufs import make_gguf, make_shards
from tests.verbs.published import sha256


@pytest.fixture
def kept(tmp_path: Path) -> KeptShards:
    """A merged file, and what is kept of its 3 shards, of which the second has bytes behind its data."""
    shards = make_shards(make_gguf(tmp_path / "a" / "m.gguf"), max_tensors=8)
    shards[1].write_bytes(shards[1].read_bytes() + b"behind the data")
    headers = [open_header(path) for path in shards]
    layout = merge_layout(check_set(headers))
    sources = tuple(LocalSource(path, path.stat().st_size) for path in shards)
    target = tmp_path / "work" / "m.gguf"
    write(Job(target, layout, sources, tmp_path / "journal" / "j"))
    files = tuple(ManifestFile(f"m/{p.name}", p.stat().st_size, sha256(p), None) for p in shards)
    pieces = tuple(pieces_of(layout, i, s.size_bytes) for i, s in enumerate(sources))
    kept = KeptShards(target.parent, "m.gguf", layout.n_bytes, Manifest("m", "Q4_K_M", files, ()), pieces)
    rests = [
        b"".join(path.read_bytes()[p.start : p.end] for p in some if p.at is None)
        for path, some in zip(shards, pieces, strict=True)
    ]
    write_kept(kept, rests)
    return kept


def test_pieces_are_the_whole_source_in_order() -> None:
    layout = Layout((Literal(b"head"), Span(0, 10, 5), Span(1, 0, 3), Span(0, 20, 10)))
    assert pieces_of(layout, 0, 32) == (
        Piece(0, 10, None), Piece(10, 15, 4), Piece(15, 20, None), Piece(20, 30, 12), Piece(30, 32, None),
    )  # fmt: skip
    assert pieces_of(layout, 1, 3) == (Piece(0, 3, 9),)
    assert pieces_of(layout, 2, 7) == (Piece(0, 7, None),)


def test_the_shards_come_back_byte_for_byte(kept: KeptShards, tmp_path: Path) -> None:
    found = find_kept(kept.merged_file)
    assert found is not None and (found.manifest, found.pieces) == (kept.manifest, kept.pieces)
    source = (LocalSource(found.merged_file, found.merged_bytes),)
    for layout, file in zip(found.layouts(), found.manifest.files, strict=True):
        target = tmp_path / "again" / file.path
        write(Job(target, layout, source, tmp_path / "journal" / "k"))
        assert sha256(target) == file.sha256


def test_the_merged_file_proves_the_shards(kept: KeptShards) -> None:
    assert prove(kept) == {Path(f.path).name: f.sha256 for f in kept.manifest.files}
    data = bytearray(kept.merged_file.read_bytes())
    data[-100] ^= 1
    kept.merged_file.write_bytes(data)
    with pytest.raises(DigestMismatch) as caught:
        prove(kept)
    assert "00003-of-00003" in str(caught.value)


def prove(kept: KeptShards) -> dict[str, str]:
    with kept.merged_file.open("rb") as file:
        prover = Prover(file.fileno(), kept.proofs(), [(0, kept.merged_bytes)])
        try:
            return prover.finish()
        finally:
            prover.stop()


def break_it(document: dict[str, Any], how: str) -> None:
    first = document["pieces"][0]
    match how:
        case "schema":
            document["schema"] = 2
        case "gap":
            first[1][0] += 1
        case "beyond":
            first[1][2] = document["merged_bytes"]
        case "short":
            first.pop()
        case "text":
            first[0][0] = "0"
        case "count":
            document["pieces"].pop()
        case "path":
            document["shards"]["files"][0]["path"] = "../../x"
        case "other":
            document["merged"] = "other.gguf"


@pytest.mark.parametrize("how", ["schema", "gap", "beyond", "short", "text", "count", "path", "other"])
def test_what_is_broken_is_as_if_it_were_not_there(kept: KeptShards, how: str) -> None:
    file = kept.folder / "set.json"
    document = json.loads(file.read_text())
    break_it(document, how)
    file.write_text(json.dumps(document))
    assert read_kept(kept.root, "m.gguf") is None
    assert find_kept(kept.merged_file) is None


def test_a_cut_rest_file_is_noticed_and_all_can_be_forgotten(kept: KeptShards) -> None:
    rest = kept.rest_file(0)
    rest.write_bytes(rest.read_bytes()[:-1])
    assert read_kept(kept.root, "m.gguf") is None
    forget_kept(kept)
    assert not kept.folder.exists()
    forget_kept(kept)
