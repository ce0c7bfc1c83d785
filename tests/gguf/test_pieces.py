"""Every byte of a source is found again in what was made of it, or known not to be there."""

from __future__ import annotations

from pathlib import Path

from ggufkit.gguf.layout import Layout, Literal, Span, merge_layout
from ggufkit.gguf.pieces import Piece, pieces_of
from ggufkit.gguf.shards import check_set
from ggufkit.transfer.engine import Job, write
from ggufkit.transfer.sources import LocalSource, open_header
from tests.support.ggufs import make_gguf, make_shards


def test_pieces_are_the_whole_source_in_order() -> None:
    layout = Layout((Literal(b"head"), Span(0, 10, 5), Span(1, 0, 3), Span(0, 20, 10)))
    assert pieces_of(layout, 0, 32) == (
        Piece(0, 10, None), Piece(10, 15, 4), Piece(15, 20, None), Piece(20, 30, 12), Piece(30, 32, None),
    )  # fmt: skip
    assert pieces_of(layout, 1, 3) == (Piece(0, 3, 9),)
    assert pieces_of(layout, 2, 7) == (Piece(0, 7, None),)


def test_shards_are_put_together_again_from_the_merged_file_and_the_rest(tmp_path: Path) -> None:
    shards = make_shards(make_gguf(tmp_path / "a" / "m.gguf"), max_tensors=8)
    shards[1].write_bytes(shards[1].read_bytes() + b"behind the data")
    layout = merge_layout(check_set([open_header(path) for path in shards]))
    sources = tuple(LocalSource(path, path.stat().st_size) for path in shards)
    target = tmp_path / "m.gguf"
    write(Job(target, layout, sources, tmp_path / "journal" / "j"))
    merged = target.read_bytes()
    for i, path in enumerate(shards):
        data, again = path.read_bytes(), b""
        pieces = pieces_of(layout, i, len(data))
        for piece in pieces:
            assert piece.start == len(again)
            if piece.at is None:
                again += data[piece.start : piece.end]
            else:
                again += merged[piece.at : piece.at + piece.n_bytes]
        assert again == data
        rest_bytes = sum(piece.n_bytes for piece in pieces if piece.at is None)
        assert rest_bytes == open_header(path).data_offset + (len(b"behind the data") if i == 1 else 0)
