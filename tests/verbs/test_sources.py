"""Several places that have a repo: which counts, which serves, what is said where they differ."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.errors import IntegrityError, NetworkError, NotFoundError
from ggufkit.hubs import together
from ggufkit.hubs.quants import QuantError
from ggufkit.transfer.http import Http
from ggufkit.verbs.listing import open_repo, quants
from ggufkit.verbs.pull import plan_pull, pull
from ggufkit.verbs.record import pull_command, records_in
from tests.support.faults import Fault
from tests.support.hub import FOLDER, REPO_ID, TestHub
from tests.verbs.hubs import Hubs
from tests.verbs.published import NAME, QUANT, publish, sha256, tree
from tests.verbs.test_listing import Heard

HF, MS = "/api/models/", "/api/v1/models/"


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port that refuses connections."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def path_of(hub: TestHub, number: int) -> Path:
    return sorted((hub.root / REPO_ID / FOLDER).iterdir())[number - 1]


def change(hub: TestHub, number: int, data: bytes | None) -> None:
    """Let the hub have other bytes in a shard, or none."""
    path = path_of(hub, number)
    path.unlink() if data is None else path.write_bytes(data)
    hub.refresh()


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def served(hub: TestHub) -> int:
    return hub.sent_bytes(plane="cdn")


# ---- both hubs ----


def test_two_hubs_that_agree_are_one_repo(hubs: Hubs, work: Path) -> None:
    plan = plan_pull(REPO_ID, quant=QUANT)
    assert plan.remarks == () and plan.quant.sources == ("hf", "modelscope")
    pull(plan)
    assert tree(work / NAME) == hubs.files
    where = [(s.hub, s.endpoint, s.revision) for s in next(records_in(work / NAME)).manifest.sources]
    assert where == [("huggingface", hubs.hf.url, "main"), ("modelscope", hubs.ms.url, "master")]


@pytest.mark.parametrize("fault", ["lacks", "size", "bytes", "all"])
def test_where_the_hubs_differ_is_said_in_one_line(hubs: Hubs, work: Path, fault: str) -> None:
    name, data = sorted(hubs.files.items())[1]
    title = f"ModelScope at {hubs.ms.url.removeprefix('http://')}"
    if fault == "all":
        for _ in hubs.files:
            change(hubs.ms, 1, None)
    else:
        change(hubs.ms, 2, {"lacks": None, "size": data + b"more", "bytes": flipped(data)}[fault])
    words = {
        "lacks": f"lacks {name}",
        "size": f"has another size of {name}",
        "bytes": f"has other bytes in {name}",
        "all": "has none of these files",
    }[fault]
    plan = plan_pull(REPO_ID, quant=QUANT)
    assert plan.remarks == (f"the hubs differ: {title} {words}",)
    report = pull(plan)
    assert tree(work / NAME) == hubs.files and report.hub == "huggingface"
    (source,) = next(records_in(work / NAME)).manifest.sources
    assert source.hub == "huggingface", "the other hub does not have all of them"
    assert hubs.ms.asked(FOLDER + "-00002", method="GET") == [], "not one byte of the file that differs"


def test_a_hub_that_can_not_be_reached_costs_a_moment(
    hubs: Hubs, work: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "GRACE_S", 0.2)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", nobody)
    heard = Heard()
    repo = open_repo(REPO_ID, progress=heard)
    assert [one.place.word for one in repo.holdings] == ["hf"]
    title = f"ModelScope at {nobody.removeprefix('http://')}"
    assert heard.notes[-1].startswith(f"{title} does not answer; going on with Hugging Face at ")


def test_hubs_that_both_refuse_are_both_named(
    nobody: str, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr("ggufkit.hubs.calls.sleep", naps.append)
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", nobody)
    with pytest.raises(NetworkError) as caught:
        open_repo(REPO_ID)
    message = caught.value.message
    assert message.count("can't be reached: Connection refused") == 2
    assert "Hugging Face at " in message and "ModelScope at " in message
    assert "HTTPS_PROXY" in (caught.value.hint or "")
    assert sorted(naps) == [1, 1, 2, 2], "three seconds of waiting, of both at once"


def test_a_hub_that_is_down_and_one_without_the_repo_may_work_again(
    hubs: Hubs, nobody: str, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr("ggufkit.hubs.calls.sleep", naps.append)
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    with pytest.raises(NetworkError, match="has no repo no/repo") as caught:
        open_repo("no/repo")
    assert "can't be reached" in caught.value.message and caught.value.exit_code == 5


def test_a_quant_that_only_the_other_hub_has_whole_comes_from_there(hubs: Hubs, work: Path) -> None:
    change(hubs.hf, 3, None)
    plan = plan_pull(REPO_ID, quant=QUANT)
    assert plan.quant.missing == () and plan.quant.sources == ("modelscope",)
    assert "the hubs differ: Hugging Face at " in plan.remarks[0] and " lacks " in plan.remarks[0]
    assert pull(plan).hub == "modelscope"
    assert tree(work / NAME) == hubs.files
    assert hubs.hf.asked(FOLDER + "-00003") == [] and hubs.ms.sent_bytes(FOLDER + "-00003", plane="cdn")


def test_the_table_has_what_either_hub_has(hubs: Hubs) -> None:
    publish(hubs.ms.root, stem="DeepSeek-R1-UD-IQ1_S")
    hubs.ms.refresh()
    rows = {quant.name: quant.sources for quant in quants(REPO_ID).quants}
    assert rows == {QUANT: ("hf", "modelscope"), "UD-IQ1_S": ("modelscope",)}
    assert plan_pull(REPO_ID, quant="UD-IQ1_S").quant.sources == ("modelscope",)
    assert [s.endpoint for s in quants(REPO_ID).sources] == [hubs.hf.url, hubs.ms.url]


def test_an_unknown_quant_is_unknown_on_both(hubs: Hubs, work: Path) -> None:
    with pytest.raises(QuantError, match="has no quant Q8_0"):
        plan_pull(REPO_ID, quant="Q8_0")


# ---- mirrors ----


def test_a_mirror_serves_and_the_hubs_vouch(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror")
    plan = plan_pull(REPO_ID, source=mirror.url)
    assert plan.remarks == () and plan.quant.sources == (mirror.url,)
    report = pull(plan)
    assert tree(work / NAME) == hubs.files and served(mirror) == report.total_bytes
    assert served(hubs.hf) == served(hubs.ms) == 0
    assert [s.endpoint for s in next(records_in(work / NAME)).manifest.sources] == [mirror.url]


def test_the_command_that_fetches_it_again_names_the_mirror(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror")
    pull(plan_pull(REPO_ID, source=mirror.url))
    command = pull_command(next(records_in(Path(NAME))))
    assert command == f"ggufkit pull {REPO_ID} --source {mirror.url} --quant {QUANT}"
    pull(plan_pull(f"ms:{REPO_ID}", local_dir=Path("ms")))
    command = pull_command(next(records_in(Path("ms"))))
    assert command == f"ggufkit pull ms:{REPO_ID} --quant {QUANT} --local-dir ms"
    pull(plan_pull(REPO_ID, source="modelscope,hf", local_dir=Path("both")))
    command = pull_command(next(records_in(Path("both"))))
    assert command == f"ggufkit pull {REPO_ID} --quant {QUANT} --local-dir both"


def test_a_mirror_beside_a_hub_is_a_second_source(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror")
    plan = plan_pull(REPO_ID, source=f"hf,{mirror.url}")
    assert plan.quant.sources == ("hf", mirror.url)
    assert hubs.ms.requests == []


@pytest.mark.parametrize("how", ["bytes", "size"])
def test_a_mirror_that_has_other_bytes_is_refused_before_the_first(hubs: Hubs, work: Path, how: str) -> None:
    mirror = hubs.make("mirror")
    name, data = sorted(hubs.files.items())[1]
    change(mirror, 2, flipped(data) if how == "bytes" else data + b"more")
    with pytest.raises(IntegrityError, match=f"has other bytes in {name} than Hugging Face at") as caught:
        plan_pull(REPO_ID, source=mirror.url)
    assert "earlier state" in (caught.value.hint or "") and served(mirror) == 0
    assert list(work.iterdir()) == []


def test_a_mirror_that_nobody_can_vouch_for_says_so(
    hubs: Hubs, work: Path, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "GRACE_S", 0.2)
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", nobody)
    mirror = hubs.make("mirror")
    plan = plan_pull(REPO_ID, source=mirror.url)
    host = mirror.url.removeprefix("http://")
    assert plan.remarks == (f"the digests are {host}'s own: no hub vouches for them",)
    pull(plan)
    assert tree(work / NAME) == hubs.files


def listing_without_digests(files: dict[str, bytes]) -> bytes:
    siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
    return json.dumps({"id": REPO_ID, "sha": "1" * 40, "siblings": siblings}).encode()


def test_a_mirror_that_lists_no_digests_is_held_to_the_hubs(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror")
    mirror.add(Fault(path=HF, body=listing_without_digests(hubs.files)))
    plan = plan_pull(REPO_ID, source=mirror.url)
    assert [f.sha256 for f in plan.files] == [sha256(data) for _, data in sorted(hubs.files.items())]


def test_a_mirror_without_a_commit_is_taken(hubs: Hubs) -> None:
    mirror = hubs.make("mirror")
    document = json.loads(listing_without_digests(hubs.files))
    del document["sha"]
    mirror.add(Fault(path=HF, body=json.dumps(document).encode()))
    repo = open_repo(REPO_ID, source=mirror.url)
    assert repo.listing.commit is None and {f.revision for f in repo.listing.files} == {"main"}


def test_a_mirror_of_modelscope_is_found_out(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror")
    mirror.add(Fault(path=HF, status=404, body=b"404 page not found"))
    repo = open_repo(REPO_ID, source=mirror.url)
    assert repo.listing.hub == "modelscope" and repo.listing.endpoint == mirror.url
    mirror.add(Fault(path=MS, status=404))
    with pytest.raises(NotFoundError) as caught:
        open_repo(REPO_ID, source=mirror.url)
    hint = caught.value.hint or ""
    assert mirror.url.removeprefix("http://") in caught.value.message
    assert "leave --source out" in hint, "the hubs have it"


def test_a_mirror_lacks_what_the_hubs_have(hubs: Hubs, work: Path) -> None:
    mirror = hubs.make("mirror", stem="DeepSeek-R1-UD-IQ1_S")
    with pytest.raises(QuantError, match=f"has no quant {QUANT}"):
        plan_pull(REPO_ID, quant=QUANT, source=mirror.url)
    assert [q.name for q in quants(REPO_ID, source=mirror.url).quants] == ["UD-IQ1_S"]


def test_no_token_goes_to_a_mirror(hubs: Hubs, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = hubs.make("mirror")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    for prefix in ("hf:", "ms:"):
        pull(plan_pull(prefix + REPO_ID, source=mirror.url, local_dir=Path(prefix[:2])))
    assert served(mirror) == 2 * sum(map(len, hubs.files.values()))
    for request in mirror.requests:
        assert "secret" not in json.dumps(request.headers) and "authorization" not in request.headers


def test_a_file_whose_digest_nobody_knows_comes_from_one_place(hubs: Hubs) -> None:
    mirror = hubs.make("mirror")
    for hub in (hubs.hf, mirror):
        hub.add(Fault(path=HF, body=listing_without_digests(hubs.files)))
    repo = open_repo(REPO_ID, source=f"hf,{mirror.url}")
    with Http() as http:
        for file in repo.pick(None).files:
            (source,) = repo.source(file, http).sources
            assert file.sha256 is None and source.hub.endpoint == hubs.hf.url
