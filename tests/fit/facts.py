"""llama.cpp's own numbers, and headers that have what they were measured with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ggufkit.fit.estimate import FitSettings
from ggufkit.gguf.header import Header, encode_header, pad
from ggufkit.gguf.reader import read_header
from tests.support.ggufs import TensorSpec, encode_entries, tensor_infos

DATA = Path(__file__).parents[1] / "data"


@cache
def truth() -> dict[str, Any]:
    """Return the buffers of 18 models, 17 of them with the headers of real ones and no data."""
    return dict(json.loads((DATA / "fit_truth.json").read_text()))


@cache
def architectures() -> dict[str, Any]:
    """Return the context buffers of tiny models, one of each architecture."""
    return dict(json.loads((DATA / "fit_architectures.json").read_text()))


@cache
def compute_facts() -> dict[str, Any]:
    """Return the context and compute buffers of small models, one of each architecture."""
    return dict(json.loads((DATA / "fit_compute.json").read_text()))


@cache
def more_compute_facts() -> dict[str, Any]:
    """Return the same of further architectures, with fewer configurations."""
    return dict(json.loads((DATA / "fit_compute_more.json").read_text()))


def settings_of(facts: dict[str, Any]) -> list[FitSettings]:
    """Return the configurations that the facts were measured with."""
    fields, rows = facts["configurations"]["fields"], facts["configurations"]["rows"]
    return [FitSettings(**dict(zip(fields, row, strict=True))) for row in rows]


@cache
def truth_header(name: str) -> Header:
    """Return a header with the keys and the tensors of a measured model."""
    return _header(truth()["models"][name])


@cache
def compute_header(architecture: str) -> Header:
    """Return the header of the small model of an architecture, with its tensors."""
    return _header(compute_facts()["models"][architecture])


def _header(model: dict[str, Any]) -> Header:
    return header_of(model["kv"], [spec for row in model["tensors"] for spec in _expanded(*row)])


@cache
def more_compute_header(architecture: str) -> Header:
    """Return the header of the small model of one of the further architectures."""
    return _header(more_compute_facts()["models"][architecture])


@cache
def architecture_header(name: str) -> Header:
    """Return the header of the tiny model of an architecture; it has no tensors."""
    facts = architectures()
    keys = facts["common"] | facts["architectures"][name]["kv"]
    kv = {f"{name}.{key}": value for key, value in keys.items() if value is not None}
    return header_of({"general.architecture": name} | kv, [])


def header_of(kv: dict[str, Any], tensors: list[TensorSpec] | None = None) -> Header:
    """Return the header of a file with these keys and tensors, of full size but without data."""
    infos = tensor_infos(tensors or [])
    data = encode_header(encode_entries(kv), infos)
    size = len(data) + sum(pad(info.n_bytes, 32) for info in infos)
    return read_header(data, name="model.gguf", file_size_bytes=size)


def _expanded(name: str, shape: list[int], type_name: str, *blocks: Any) -> list[TensorSpec]:
    """Return the tensors of a row: of no block, of listed blocks, or of a range of blocks."""
    if not blocks:
        return [(name, tuple(shape), type_name)]
    numbers = blocks[0] if isinstance(blocks[0], list) else range(*blocks)
    return [(name.replace("*", str(i)), tuple(shape), type_name) for i in numbers]
