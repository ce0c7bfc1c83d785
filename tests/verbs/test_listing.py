"""Asking the hubs: which first, what their answers mean, and what is said when nobody has it."""

from __future__ import annotations

import pytest

from ggufkit.errors import AccessError, NetworkError, NotFoundError, UsageError
from ggufkit.verbs.listing import open_repo, quants
from tests.support.faults import Fault
from tests.support.hub import REPO_ID, TestHub
from tests.verbs.published import QUANT

HF, MS = "/api/models/", "/api/v1/models/"


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, task: str, total_bytes: int, done_bytes: int = 0) -> None:
        raise AssertionError(task)

    def advance(self, n_bytes: int) -> None:
        raise AssertionError(n_bytes)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def finish(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("text", "source", "first", "asked"),
    [
        (REPO_ID, "auto", "huggingface", {HF, MS}),
        (REPO_ID, "hf", "huggingface", {HF}),
        (REPO_ID, "modelscope", "modelscope", {MS}),
        (REPO_ID, "modelscope,hf", "modelscope", {HF, MS}),
        (f"hf:{REPO_ID}", "auto", "huggingface", {HF}),
        (f"ms:{REPO_ID}", "auto", "modelscope", {MS}),
        (f"ms:{REPO_ID}", "modelscope", "modelscope", {MS}),
    ],
)
def test_which_hub_is_asked(hub: TestHub, text: str, source: str, first: str, asked: set[str]) -> None:
    repo = open_repo(text, source=source)
    assert repo.listing.hub == repo.hub.name == first
    assert {place for place in (HF, MS) if hub.asked(place)} == asked


def test_quants_of_a_repo(hub: TestHub, files: dict[str, bytes]) -> None:
    report = quants(REPO_ID)
    (quant,) = report.quants
    assert (report.repo_id, report.hub, report.endpoint) == (REPO_ID, "huggingface", hub.url)
    assert report.commit is not None and len(report.commit) == 40
    assert quant.name == QUANT and quant.n_shards == 4 and quant.missing == ()
    assert quant.total_bytes == sum(map(len, files.values()))
    assert quants(f"ms:{REPO_ID}").commit is None
    assert hub.asked(plane="cdn") == []


def test_auto_asks_the_other_hub_and_says_why(hub: TestHub, naps: list[float]) -> None:
    heard = Heard()
    hub.add(Fault(path=HF, status=404, headers={"X-Error-Code": "RepoNotFound"}))
    assert open_repo(REPO_ID, progress=heard).listing.hub == "modelscope"
    (note,) = heard.notes
    assert "Hugging Face" in note and "has no repo" in note and "going on with ModelScope" in note


def test_when_no_hub_has_it_one_error_names_both(hub: TestHub) -> None:
    heard = Heard()
    with pytest.raises(NotFoundError) as caught:
        open_repo("no/repo", progress=heard)
    first, second = caught.value.message.split("; ")
    assert first.startswith("Hugging Face at ") and first.endswith("has no repo no/repo, or it is private")
    assert second.startswith("ModelScope at ") and "has no repo no/repo" in second
    assert "HF_TOKEN or MODELSCOPE_API_TOKEN" in (caught.value.hint or "")
    assert heard.notes == [], "the error is not said twice"


def test_a_gated_repo_is_told_even_when_the_other_hub_has_none(hub: TestHub) -> None:
    hub.add(Fault(path=HF, status=403, headers={"X-Error-Code": "GatedRepo"}))
    hub.add(Fault(path=MS, status=404))
    with pytest.raises(AccessError, match="accepted the terms"):
        open_repo(REPO_ID)


def test_hubs_that_fail_are_a_network_fault(
    hub: TestHub, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufkit.hubs.calls.sleep", naps.append)
    hub.add(Fault(path="/api/", status=503))
    with pytest.raises(NetworkError) as caught:
        open_repo(REPO_ID)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (REPO_ID, {"source": "github"}, "no source is called github"),
        (f"hf:{REPO_ID}", {"source": "modelscope"}, "asks for Hugging Face"),
        (f"{REPO_ID}@a", {"revision": "b"}, "two revisions: a in the name, b as a flag"),
        ("not a ref", {}, "not a ref"),
    ],
)
def test_what_can_not_be_meant(hub: TestHub, text: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        open_repo(text, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2 and hub.requests == []


def test_the_same_revision_twice_is_one(hub: TestHub) -> None:
    assert open_repo(f"{REPO_ID}@main", revision="main").listing.revision == "main"
