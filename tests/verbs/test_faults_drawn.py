"""Every fault of the list alone, and two hundred draws of several at once, over a whole pull.

Whatever happens: a file under its published name has the published bytes, an error says what to do, what
was fetched is kept, and the same command ends right once the faults have passed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufkit.hubs import calls, together
from ggufkit.transfer import crew, http
from ggufkit.transfer.stream import StreamError
from ggufkit.transfer.tally import Standing
from tests.cli.conftest import Ran, Run, run
from tests.support.fault_list import DAMAGES, TROUBLES
from tests.support.faults import Budget, Fault
from tests.support.hub import REPO_ID, TestHub, run_hub
from tests.verbs.published import NAME, everything, publish, sha256, tree
from tests.verbs.test_faults import DOCUMENT

__all__ = ["run"]

SOURCES = ["hf", "modelscope"]
N_DRAWS = 200
N_GROUPS = 20
"""The draws in tests of ten: a failing one names its seed."""
EXPECTED = frozenset({0, 3, 4, 5, 6})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def files(root: Path) -> dict[str, bytes]:
    return publish(root)


@pytest.fixture(scope="module")
def running(root: Path, files: dict[str, bytes]) -> Iterator[TestHub]:
    with run_hub(root, cdn=True) as one:
        yield one


@pytest.fixture
def hub(running: TestHub, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> TestHub:
    """The hub without faults, and a client that waits for nothing and is soon tired of a stall."""
    running.settle()
    running.forget()
    for name, value in (running.hf_env | running.ms_env).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(together, "GRACE_S", 0.2)
    monkeypatch.setattr(calls, "sleep", lambda _seconds: None)
    monkeypatch.setattr(crew, "_POLL_S", 0.005)
    honest = Standing.failed

    def failed(self: Standing, error: StreamError, began_s: float) -> float:
        free_s = self.free_s
        wait_s = honest(self, error, began_s)
        self.free_s = free_s
        return wait_s

    monkeypatch.setattr(Standing, "failed", failed)
    return running


def check(done: Ran, work: Path, files: dict[str, bytes], codes: frozenset[int]) -> None:
    """Assert what always holds at the end of a pull."""
    assert done.code in codes, done.err
    there = {path: sha256(data) for path, data in tree(work / NAME).items() if not path.endswith(".part")}
    published = {path: sha256(data) for path, data in files.items()}
    assert there.items() <= published.items(), "under its name a file has its bytes"
    if done.code == 0:
        assert there == published
        assert not [p for p in everything(work) if "journal/" in p or p.endswith((".part", ".tmp"))]
    else:
        error = done.err[done.err.index("error: ") :]
        assert "Traceback" not in done.err and "unexpected" not in error
        assert re.search(r"^hint: \S", error, re.MULTILINE), error


def digests(work: Path) -> dict[str, str]:
    """Return short things to compare: pytest takes minutes to tell two large ones apart."""
    return {str(path): sha256(path) for path in work.rglob("*") if path.is_file()}


def finished(work: Path) -> set[str]:
    return {path for path in tree(work / NAME) if not path.endswith(".part")}


@pytest.mark.parametrize("name", TROUBLES)
def test_each_fault_alone(hub: TestHub, files: dict[str, bytes], work: Path, run: Run, name: str) -> None:
    trouble, chance = TROUBLES[name], random.Random(name)
    source = SOURCES[len(name) % 2]
    fault = hub.add(trouble.make(chance, min(map(len, files.values()))))
    done = run("pull", REPO_ID, "--source", source)
    check(done, work, files, trouble.codes)
    assert fault.hits, "the fault was met"
    before = finished(work)
    hub.settle()
    hub.forget()
    check(run("pull", REPO_ID, "--source", source), work, files, frozenset({0}))
    again = {path for path in before if hub.asked(path.rpartition("/")[2], plane="cdn")}
    assert not again, "what was right is not fetched again"


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_alone(hub: TestHub, files: dict[str, bytes], work: Path, run: Run, name: str) -> None:
    chance = random.Random(name)
    if "part" in name or "notes" in name:
        name_of_one = sorted(files)[2].rpartition("/")[2]
        hub.add(Fault(path=name_of_one, plane="cdn", cut_at=20_000, budget=Budget(1)))
        hub.add(Fault(path=name_of_one, plane="cdn", status=503, skip=1))
    run("pull", REPO_ID, "--source", "hf")
    before = digests(work)
    DAMAGES[name].do(chance, work / NAME)
    if not name.startswith("the notes"):
        assert digests(work) != before
    hub.settle()
    hub.forget()
    done = run("pull", REPO_ID, "--source", "hf")
    if done.code == 6:  # what was there was believed, as its notes said, until its digest was taken
        done = run("pull", REPO_ID, "--source", "hf")
    check(done, work, files, frozenset({0}))


@pytest.mark.parametrize("group", range(N_GROUPS))
def test_draws_of_several_faults_over_a_whole_pull(
    hub: TestHub, files: dict[str, bytes], work: Path, run: Run, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    for seed in range(group, N_DRAWS, N_GROUPS):
        chance = random.Random(seed)
        folder = work / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        names = draw(hub, files, chance)
        command = ("pull", REPO_ID, "--source", chance.choice(["auto", *SOURCES]))
        try:
            done = run(*command)
            check(done, folder, files, EXPECTED)
            if chance.random() < 0.3:
                names.append(chance.choice(sorted(DAMAGES)))
                DAMAGES[names[-1]].do(chance, folder / NAME)
            hub.settle()
            hub.forget()
            done = run(*command)
            if done.code == 6 and names[-1] in DAMAGES:
                done = run(*command)
            check(done, folder, files, frozenset({0}))
        except AssertionError as error:
            error.add_note(f"seed {seed}, {' '.join(command)}: {'; '.join(names)}")
            raise


def draw(hub: TestHub, files: dict[str, bytes], chance: random.Random) -> list[str]:
    """Put one to four faults in force, each for one file or for all, at once or some requests later."""
    names = chance.sample(sorted(TROUBLES), chance.randint(1, 4))
    for name in names:
        path = chance.choice(sorted(files))
        fault = TROUBLES[name].make(chance, len(files[path]))
        if fault.plane == "cdn" and chance.random() < 0.5:
            fault.path = path.rpartition("/")[2]
        fault.skip = chance.choice([0, 0, 1, 2, 3])
        hub.add(fault)
    return names


def test_the_document_lists_them_all() -> None:
    text = DOCUMENT.read_text("utf-8")
    listed = re.findall(r"^\| ([^|`]+) \| ([^|]+) \|$", text, re.MULTILINE)
    told = {name: {int(code) for code in re.findall(r"\b\d\b", ends)} for name, ends in listed}
    assert {name: set(trouble.codes) for name, trouble in TROUBLES.items()}.items() <= told.items()
    assert set(DAMAGES) <= told.keys() and len(TROUBLES) >= 30
    assert N_DRAWS == 200 and f"{N_DRAWS} draws" in text
