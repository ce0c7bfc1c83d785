"""Commands that write, killed at random moments, run again, and held against what they should make.

`python -m tests.support.kills` is `scripts/kills`: 200 kills and 20 power cuts on real models; the suite runs
a sample of both on small ones.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufkit.gguf.layout import Span
from ggufkit.transfer.consume_notes import durable_bytes, load_notes
from ggufkit.verbs.record import consume_notes
from tests.support.faults import Fault
from tests.support.hub import TestHub
from tests.verbs.published import Zygote, everything

REPO_ID = "demo/Kill-Test-GGUF"
NAME = "Kill-Test-GGUF"
STEM = "Kill-Test-Q4_K_M"
MAX_TWICE_BYTES = 16 << 20
"""How much one kill may cost: 8 MiB between two notes, and what was on its way."""
PULL_BYTES_PER_S = 80e6
STREAM_BYTES_PER_S = PULL_BYTES_PER_S / 4
"""How fast the hub serves each of the four streams of a pull. A line faster than the machine fills the
kernel's buffers, and what a kill loses there counts as fetched twice, though nobody had got it."""
BLOCK_BYTES = 1 << 20
OLDER = b"what had the merged file's name before"
OLLAMA_STORE = "ollama-models"


@dataclass(frozen=True, slots=True)
class Published:
    """A model as it was published, and the file that its shards make."""

    root: Path
    """The hub's folder."""
    merged: Path
    """The file before it was cut."""
    shards: tuple[Path, ...]
    """The shards, in the hub's folder."""

    @property
    def total_bytes(self) -> int:
        """Size of all shards."""
        return sum(path.stat().st_size for path in self.shards)


def publish(folder: Path, model: Path, *, n_shards: int = 3) -> Published:
    """Put a model into a hub's folder as `n_shards` shards or a few more."""
    from ggufkit.verbs.locate import find_model
    from ggufkit.verbs.split import plan_split, split

    source = folder / "source" / f"{STEM}.gguf"
    source.parent.mkdir(parents=True)
    shutil.copy(model, source)
    home = folder / "hub" / REPO_ID / STEM
    found = find_model(str(source))
    n_tensors = len(found.headers()[0].tensors)
    done = split(plan_split(found, max_tensors=-(-n_tensors // n_shards), output=home))
    return Published(folder / "hub", source, tuple(shard.path for shard in done.shards))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A command, what it finds, and what must hold after a kill and in the end."""

    name: str
    """What the table calls it."""
    arguments: tuple[str, ...]
    """The command line."""
    prepare: Callable[[Path, Published], None]
    """Puts into an empty folder what the command finds."""
    kept: Callable[[Path, Published], None]
    """Asserts after a kill that nothing is lost."""
    done: Callable[[Path, Published], None]
    """Asserts in the end that everything is right."""
    fetches: bool = False
    """Whether it pulls from the hub."""

    def env(self, work: Path) -> dict[str, str]:
        """Return where the command finds Ollama's store: beside the work."""
        return {"OLLAMA_MODELS": str(work / OLLAMA_STORE)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What killing one command many times came to."""

    name: str
    """The command."""
    n_kills: int
    """Kills that met it while it ran."""
    n_rounds: int
    """How often it was begun anew; each time it was run to its end after 1 to 3 kills."""
    most_twice_bytes: int | None
    """Most bytes fetched twice, per kill; None for what fetches nothing."""
    seconds: float
    """How long an unharmed run takes."""


def kill_often(
    scenario: Scenario,
    published: Published,
    zygote: Zygote,
    hub: TestHub,
    folder: Path,
    n_kills: int,
    seed: int,
) -> Outcome:
    """Kill the command `n_kills` times at random moments; AssertionError when anything is not right."""
    chance = random.Random(f"{scenario.name} {seed}")
    longest_s = _unharmed_s(scenario, published, zygote, hub, folder / "unharmed")
    n_met = n_rounds = most = 0
    while n_met < n_kills:
        n_rounds += 1
        assert n_rounds < 10 * n_kills + 10, "the kills come too late"
        work = folder / f"{n_rounds}"
        n_now = min(chance.randint(1, 3), n_kills - n_met)
        waits = [chance.uniform(0, longest_s) for _ in range(n_now)]
        met, twice = _round(scenario, published, zygote, hub, work, waits)
        n_met += met
        most = max(most, twice // max(1, met))
        shutil.rmtree(work)
    return Outcome(scenario.name, n_met, n_rounds, most if scenario.fetches else None, longest_s)


def _unharmed_s(scenario: Scenario, published: Published, zygote: Zygote, hub: TestHub, work: Path) -> float:
    """Return how long the command runs when nobody kills it: the faster of two runs."""
    seconds = []
    for _ in range(2):
        work.mkdir(parents=True)
        hub.forget()
        hub.add(Fault(plane="cdn", bytes_per_s=STREAM_BYTES_PER_S))
        scenario.prepare(work, published)
        began = time.monotonic()
        assert zygote.run(work, *scenario.arguments, env=scenario.env(work)) == 0, (
            f"{scenario.name} fails without a kill: {zygote.said()}"
        )
        seconds.append(time.monotonic() - began)
        scenario.done(work, published)
        shutil.rmtree(work)
    return min(seconds)


def _round(
    scenario: Scenario, published: Published, zygote: Zygote, hub: TestHub, work: Path, waits: Sequence[float]
) -> tuple[int, int]:
    """Kill it after each of `waits`, then run it to its end.

    Returns the kills that met it, and the bytes that were fetched twice.
    """
    work.mkdir(parents=True)
    hub.requests.clear()
    scenario.prepare(work, published)
    n_met = 0
    for wait_s in waits:
        child = zygote.start(work, *scenario.arguments, env=scenario.env(work))
        time.sleep(wait_s)
        child.signal(signal.SIGKILL)
        code = child.wait()
        assert code in (-signal.SIGKILL, 0), zygote.said()
        n_met += code != 0
        scenario.kept(work, published)
    assert zygote.run(work, *scenario.arguments, env=scenario.env(work)) == 0, (
        f"{scenario.name} after {waits}: {zygote.said()}"
    )
    scenario.done(work, published)
    twice = hub.sent_bytes(plane="cdn") - published.total_bytes if scenario.fetches else 0
    assert twice <= max(1, n_met) * MAX_TWICE_BYTES, f"{scenario.name} fetched {twice:,} bytes twice, {waits}"
    return n_met, twice


# ---- what holds ----


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same(path: Path, other: Path) -> None:
    """Assert that two files are the same."""
    assert digest(path) == digest(other), f"{path.name} is not what it should be"


def no_leavings(work: Path) -> None:
    """Assert that nothing of the work is left.

    A temporary file of a note or a record that a kill met may be: it is removed when it is an hour old.
    """
    left = [p for p in everything(work) if "journal" in p or "consume" in p or p.endswith(".part")]
    left += [p for p in everything(work) if p.endswith(".tmp") and ".ggufkit/" not in p]
    assert not left, left


def copied_shards(work: Path, published: Published) -> None:
    """Put copies of the shards into a folder of their own."""
    (work / STEM).mkdir()
    for path in published.shards:
        shutil.copy(path, work / STEM)


def shards_and_an_older_file(work: Path, published: Published) -> None:
    """Put copies of the shards beside something that is to be replaced."""
    copied_shards(work, published)
    (work / f"{STEM}.gguf").write_bytes(OLDER)


def pulled(work: Path, published: Published) -> None:
    """Assert that the shards are there as published."""
    for path in published.shards:
        same(work / NAME / STEM / path.name, path)
    no_leavings(work)


def pulled_into_one(work: Path, published: Published) -> None:
    """Assert that the merged file is there, and no shard."""
    same(work / NAME / f"{STEM}.gguf", published.merged)
    assert not list(work.rglob("*-of-*.gguf"))
    no_leavings(work)


def in_ollama(work: Path, published: Published) -> None:
    """Assert that Ollama's store has the merged file, once, under its digest, and a manifest of it."""
    pulled_into_one(work, published)
    store, sha256 = work / OLLAMA_STORE, digest(published.merged)
    blob = store / "blobs" / f"sha256-{sha256}"
    assert blob.samefile(work / NAME / f"{STEM}.gguf"), "its bytes are on the disk once"
    manifests = [p.read_text() for p in (store / "manifests").rglob("*") if p.is_file()]
    assert len(manifests) == 1 and f"sha256:{sha256}" in manifests[0]
    named = {f"sha256-{name[7:]}" for name in re.findall(r"sha256:[0-9a-f]{64}", manifests[0])}
    assert named == {p.name for p in (store / "blobs").iterdir()}, "all blobs, and no leavings"


def shards_intact(work: Path, published: Published) -> None:
    """Assert that no shard was touched, and that the merged file's name has all of it, or what was there."""
    for path in published.shards:
        same(work / STEM / path.name, path)
    output = work / f"{STEM}.gguf"
    if output.exists() and output.read_bytes() != OLDER:
        same(output, published.merged)


def merged(work: Path, published: Published) -> None:
    """Assert that the merged file is there beside the shards."""
    shards_intact(work, published)
    same(work / f"{STEM}.gguf", published.merged)
    no_leavings(work)


def nothing_lost(work: Path, published: Published) -> None:
    """Assert that each byte is in the merged file's beginning, if noted as durable, or else in its shard."""
    notes = consume_notes(work / STEM, STEM)
    made = load_notes(notes)
    if made is None:
        if (work / f"{STEM}.gguf").exists():
            same(work / f"{STEM}.gguf", published.merged)
        else:
            shards_intact(work, published)
        return
    done = durable_bytes(notes)
    whole = made.part if made.part.exists() else made.target
    if done:
        same_range(whole, 0, published.merged, 0, done)
    for position, segment in made.layout.placed():
        if isinstance(segment, Span) and position + segment.n_bytes > done:
            skip = max(0, done - position)
            source, at = made.sources[segment.source].path, segment.offset + skip
            same_range(source, at, published.merged, position + skip, segment.n_bytes - skip)


def consumed(work: Path, published: Published) -> None:
    """Assert that only the merged file is left."""
    same(work / f"{STEM}.gguf", published.merged)
    assert not list(work.rglob("*-of-*.gguf"))
    no_leavings(work)


def same_range(a: Path, at_a: int, b: Path, at_b: int, n_bytes: int) -> None:
    """Assert that two stretches are the same."""
    with a.open("rb") as file, b.open("rb") as other:
        file.seek(at_a)
        other.seek(at_b)
        while n_bytes > 0:
            data = file.read(min(BLOCK_BYTES, n_bytes))
            assert data and data == other.read(len(data)), f"{a.name} differs after byte {file.tell():,}"
            n_bytes -= len(data)


def nothing(work: Path, published: Published) -> None:
    """Prepare nothing; or there is nothing that could be lost."""


PULL = Scenario("pull", ("pull", REPO_ID), nothing, nothing, pulled, fetches=True)
PULL_MERGE = Scenario(
    "pull --merge", ("pull", REPO_ID, "--merge"), nothing, nothing, pulled_into_one, fetches=True
)
PULL_OLLAMA = Scenario(
    "pull --to ollama", ("pull", REPO_ID, "--to", "ollama"), nothing, nothing, in_ollama, fetches=True
)
MERGE = Scenario("merge", ("merge", STEM, "--force"), shards_and_an_older_file, shards_intact, merged)
CONSUME = Scenario("merge --consume", ("merge", STEM, "--consume"), copied_shards, nothing_lost, consumed)
SCENARIOS = (PULL, PULL_MERGE, PULL_OLLAMA, MERGE, CONSUME)


# ---- the command ----


def main() -> None:
    """Kill real pulls and merges of real models, and print a table."""
    import argparse
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kills in all [200]")
    parser.add_argument("--cuts", type=int, default=20, help="power cuts in all [20]")
    parser.add_argument("--seed", type=int, default=None, help="repeat the moments of an earlier run")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)  # noqa: T201 - a command
    with tempfile.TemporaryDirectory() as name:
        for row in table(Path(name).resolve(), given.kills, given.cuts, seed):
            print(row, flush=True)  # noqa: T201


def table(folder: Path, n_kills: int, n_cuts: int, seed: int) -> Iterator[str]:
    """Yield the rows of the table while they come."""
    import testbed

    from tests.support import power
    from tests.support.hub import run_hub
    from tests.verbs.published import zygote

    os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "GGUFKIT_PROGRESS": "off"}
    yield f"{'COMMAND':<24}{'MODEL':<24}{'KILLS':>6}{'ROUNDS':>8}{'MOST FETCHED TWICE':>20}{'UNHARMED':>10}"
    for model in (testbed.smollm2(), testbed.gemma3()):
        made = publish(folder / model.stem, model)
        with run_hub(made.root, cdn=True) as hub, zygote(hub.client_env(folder / "home")) as one:
            (folder / "home").mkdir(exist_ok=True)
            for i, scenario in enumerate(SCENARIOS):
                share = _share(n_kills, 2 * len(SCENARIOS), i if model == testbed.smollm2() else -1 - i)
                work = folder / "work" / model.stem / str(i)
                out = kill_often(scenario, made, one, hub, work, share, seed)
                twice = f"{out.most_twice_bytes / 2**20:.1f} MiB" if out.most_twice_bytes is not None else "-"
                yield (
                    f"{out.name:<24}{model.stem[:22]:<24}{out.n_kills:>6}{out.n_rounds:>8}{twice:>20}"
                    f"{out.seconds:>8.1f} s"
                )
            if model == testbed.smollm2() and n_cuts:
                yield from power.rows(made, one, hub, folder / "power", n_cuts, seed)
    yield "all ended with the right digests; nothing was lost on the way"


def _share(n: int, n_shares: int, i: int) -> int:
    """Return the part of `n` that the `i`-th of `n_shares` gets."""
    i %= n_shares
    return n * (i + 1) // n_shares - n * i // n_shares


if __name__ == "__main__":
    main()
