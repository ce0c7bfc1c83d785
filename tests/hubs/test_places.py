"""What people write behind --source."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufkit.errors import UsageError
from ggufkit.hubs.places import places_to_ask
from ggufkit.hubs.refs import HubName, RepoRef

pytestmark = pytest.mark.usefixtures("clean_environment")
HF, MS = "https://huggingface.co", "https://modelscope.cn"
MIRROR, NAS = "https://hf-mirror.com", "http://nas:8090"


def ask(source: str, hub: HubName | None = None) -> list[tuple[str | None, str, bool]]:
    places = places_to_ask(RepoRef(hub, "o/n", None, None), source)
    return [(place.hub, place.endpoint, place.serves) for place in places]


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("auto", [("huggingface", HF, True), ("modelscope", MS, True)]),
        ("", [("huggingface", HF, True), ("modelscope", MS, True)]),
        ("hf", [("huggingface", HF, True)]),
        ("HuggingFace", [("huggingface", HF, True)]),
        ("modelscope", [("modelscope", MS, True)]),
        ("ms,hf", [("modelscope", MS, True), ("huggingface", HF, True)]),
        ("hf, auto,hf", [("huggingface", HF, True), ("modelscope", MS, True)]),
        (f"hf,{MIRROR}/", [("huggingface", HF, True), ("huggingface", MIRROR, True)]),
        (NAS, [(None, NAS, True), ("huggingface", HF, False), ("modelscope", MS, False)]),
        (f"{NAS},modelscope", [(None, NAS, True), ("modelscope", MS, True)]),
        ("https://www.modelscope.ai", [("modelscope", "https://www.modelscope.ai", True)]),
        (f"{NAS},{NAS}/", [(None, NAS, True), ("huggingface", HF, False), ("modelscope", MS, False)]),
    ],
)
def test_words_and_addresses(source: str, asked: list[tuple[str | None, str, bool]]) -> None:
    assert ask(source) == asked


def test_a_hub_in_the_name_leaves_out_the_other_and_tells_the_protocol() -> None:
    assert ask("auto", "modelscope") == [("modelscope", MS, True)]
    assert ask(NAS, "modelscope") == [("modelscope", NAS, True), ("modelscope", MS, False)]
    with pytest.raises(UsageError, match="asks for Hugging Face, --source for modelscope"):
        ask("modelscope", "huggingface")
    with pytest.raises(UsageError, match=r"asks for ModelScope, --source for https://hf-mirror\.com"):
        ask(MIRROR, "modelscope")


def test_a_mirror_set_by_the_environment_is_no_witness_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", MIRROR)
    assert ask(MIRROR) == [("huggingface", MIRROR, True), ("modelscope", MS, False)]
    assert ask(f"hf,{MIRROR}") == [("huggingface", MIRROR, True)]


def test_both_hubs_at_one_address_are_two_ways_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NAS)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", NAS)
    assert ask("auto") == [("huggingface", NAS, True), ("modelscope", NAS, True)]


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("github", "auto, hf, modelscope, or a mirror's address like https://hf-mirror.com"),
        ("hf-mirror.com", "write https://hf-mirror.com"),
        ("nas:8090", "write https://nas:8090"),
        ("http://user:secret@nas", "write it like"),
        ("http://", "write it like"),
        ("https://nas/?x=1", "write it like"),
    ],
)
def test_what_is_no_source(source: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(source)
    assert hint in (caught.value.hint or "") and "secret" not in caught.value.message


def test_what_places_are_called_and_how_far_they_are_believed(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://nas:8090")
    ref = RepoRef(None, "o/n", None, None)
    places = places_to_ask(ref, f"auto,{MIRROR}")
    assert [place.word for place in places] == ["hf", "modelscope", MIRROR]
    assert [place.title for place in places] == ["Hugging Face at nas:8090", "ModelScope", "hf-mirror.com"]
    assert [place.rank for place in places] == [1, 0, 2]
