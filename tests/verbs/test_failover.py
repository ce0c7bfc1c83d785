"""Two hubs have the set and one of them fails in the middle: the other goes on with the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ggufkit.errors import AccessError, IntegrityError, NetworkError
from ggufkit.transfer import crew, stretches
from ggufkit.transfer import http as http_module
from ggufkit.verbs.pull import PullReport, plan_pull, pull
from tests.support.faults import Fault
from tests.support.hub import REPO_ID, TestHub
from tests.verbs.hubs import Hubs
from tests.verbs.published import NAME, QUANT, model_bytes, publish, tree
from tests.verbs.test_pull import Heard

MIB = 1 << 20
MAX_TWICE_BYTES = 16 * MIB
BEGIN = MIB // 2
"""What a failing hub serves of each stream before it fails."""

FAILURES = {
    "dies": (
        Fault(plane="cdn", cut_after_bytes=BEGIN),
        Fault(plane="hub", path="resolve", status=502, skip=2),
    ),
    "is cut again and again": (Fault(plane="cdn", cut_after_bytes=100_000),),
    "stalls": (Fault(plane="cdn", path="-0000[23]-", stall_s=4, stall_after_bytes=BEGIN),),
    "slows down": (Fault(plane="cdn", path="-0000[23]-", bytes_per_s=50_000),),
    "is busy": (Fault(plane="cdn", status=503),),
    "limits us": (Fault(plane="hub", path="resolve", status=429, headers={"Retry-After": "300"}),),
    "is gated after all": (
        Fault(plane="hub", path="resolve", status=403, headers={"X-Error-Code": "GatedRepo"}),
    ),
    "has lost the files": (Fault(plane="cdn", status=404),),
    "sends log-in pages": (Fault(plane="cdn", body=b"<html>Log in", headers={"Content-Type": "text/html"}),),
    "sends nothing": (Fault(plane="cdn", body=b""),),
    "ignores ranges": (Fault(plane="cdn", ignore_range=True, bytes_per_s=4e6),),
    "sends other ranges": (Fault(plane="cdn", content_range="bytes 5-9/10"),),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the set that the hubs have."""
    folder = tmp_path_factory.mktemp("published")
    publish(folder, model_bytes(24), max_tensors=20)
    return folder


@pytest.fixture
def big(hubs: Hubs, published: Path, monkeypatch: pytest.MonkeyPatch) -> Hubs:
    """Two hubs with shards of up to 20 MiB, and little patience."""
    monkeypatch.setattr(http_module, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(crew, "SLOW_S", 1.0)
    monkeypatch.setattr(crew, "LOOK_S", 0.25)
    monkeypatch.setattr(crew, "READ_BYTES", 128 << 10)
    monkeypatch.setattr(stretches, "FIRST_BYTES", MIB)
    monkeypatch.setattr(stretches, "MIN_BYTES", MIB // 2)
    monkeypatch.setattr(stretches, "STRETCH_S", 0.1)
    monkeypatch.setattr(stretches, "STALL_S", 1.5)
    for hub in (hubs.hf, hubs.ms):
        hubs.serve(hub, published)
    return hubs


def spoil(hub: TestHub, name: str) -> None:
    hub.add(*(replace(fault) for fault in FAILURES[name]))


def get(source: str = "auto") -> PullReport:
    return pull(plan_pull(REPO_ID, quant=QUANT, source=source))


def twice(*hubs: TestHub, report: PullReport) -> int:
    return sum(hub.sent_bytes(plane="cdn") for hub in hubs) - report.total_bytes


@pytest.mark.parametrize("failure", FAILURES)
def test_the_other_hub_goes_on(big: Hubs, work: Path, naps: list[float], failure: str) -> None:
    spoil(big.hf, failure)
    heard = Heard()
    report = pull(plan_pull(REPO_ID, quant=QUANT, progress=heard), heard)
    assert tree(work / NAME) == big.files
    assert {one.source for one in report.sources} <= {"hf", "modelscope"}
    by_ms = {one.source: one.n_bytes for one in report.sources}["modelscope"]
    assert by_ms > report.total_bytes // 4
    if failure != "ignores ranges":  # what a stream of it skips is lost
        assert twice(big.hf, big.ms, report=report) <= MAX_TWICE_BYTES
        assert sum(one.n_bytes for one in report.sources) == report.fetched_bytes == report.total_bytes


@pytest.mark.parametrize("which", ["hf", "ms"])
def test_a_hub_that_lies_is_found_out_and_left(big: Hubs, work: Path, which: str) -> None:
    liar: TestHub = getattr(big, which)
    honest = big.ms if which == "hf" else big.hf
    liar.add(Fault(plane="cdn", flip_byte_at=3 * MIB), Fault(plane="cdn", flip_byte_at=100))
    report = get()
    assert tree(work / NAME) == big.files, "whoever sent them: the bytes are the published ones"
    assert twice(liar, honest, report=report) <= 2 * MAX_TWICE_BYTES, "a block to compare, and its repair"
    assert {one.source for one in report.sources} >= {"modelscope" if which == "hf" else "hf"}


def test_a_hub_that_lies_alone_is_refused(big: Hubs, work: Path) -> None:
    big.hf.add(Fault(plane="cdn", flip_byte_at=100))
    with pytest.raises(IntegrityError):
        get("hf")
    assert tree(work / NAME) == {}
    get("modelscope")
    assert tree(work / NAME) == big.files


def test_both_are_dead_and_what_came_is_kept(big: Hubs, work: Path, naps: list[float]) -> None:
    for hub in (big.hf, big.ms):
        hub.add(Fault(plane="cdn", cut_after_bytes=BEGIN, times=1), Fault(plane="cdn", status=500, skip=1))
    with pytest.raises(NetworkError) as caught:
        get()
    assert "answered 500" in caught.value.message and caught.value.hint
    for hub in (big.hf, big.ms):
        hub.forget()
    report = get()
    assert tree(work / NAME) == big.files
    kept = report.total_bytes - report.fetched_bytes
    assert kept >= BEGIN and twice(big.hf, big.ms, report=report) <= MAX_TWICE_BYTES - kept


def test_one_is_gated_and_the_other_dead(big: Hubs, work: Path, naps: list[float]) -> None:
    spoil(big.hf, "is gated after all")
    spoil(big.ms, "is busy")
    with pytest.raises((AccessError, NetworkError)) as caught:
        get()
    assert "terms" in caught.value.message or "503" in caught.value.message
    assert caught.value.hint


def test_each_hub_gives_a_part_when_both_are_well(big: Hubs, work: Path) -> None:
    report = get()
    assert tree(work / NAME) == big.files
    assert [one.source for one in report.sources] == ["hf", "modelscope"]
    assert sum(one.n_bytes for one in report.sources) == report.total_bytes
    assert twice(big.hf, big.ms, report=report) <= MAX_TWICE_BYTES


def test_the_faster_hub_gives_more(big: Hubs, work: Path) -> None:
    big.hf.add(Fault(plane="cdn", bytes_per_s=1_000_000))
    report = get()
    served = {one.source: one.n_bytes for one in report.sources}
    assert tree(work / NAME) == big.files and served["modelscope"] > 2 * served.get("hf", 0)


def test_mirrors_fail_over_too(big: Hubs, work: Path, naps: list[float]) -> None:
    spoil(big.hf, "dies")
    report = get(f"hf,{big.ms.url}")
    assert tree(work / NAME) == big.files and big.ms.url in {one.source for one in report.sources}
    assert big.hf.asked("/api/v1/") == []


def test_who_is_left_is_told(big: Hubs, work: Path, naps: list[float]) -> None:
    spoil(big.hf, "has lost the files")
    heard = Heard()
    plan = plan_pull(REPO_ID, quant=QUANT, progress=heard)
    pull(plan, heard)
    told = [line for line in heard.lines if "going on without it" in line]
    assert told and "Hugging Face at " in told[0], "and the user knows why it is slower now"
