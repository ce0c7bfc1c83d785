"""Commands that write, killed at random moments, run again, and held against what they should make.

`python -m tests.support.kills` is `scripts/kills`: 200 kills and 20 power cuts on real models; the suite runs
a sample of both on small ones.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults import Fault
from tests.support.hub import TestHub
from tests.support.kill_scenarios import REPO_ID, SCENARIOS, STEM, Published, Scenario
from tests.verbs.published import Zygote

MAX_TWICE_BYTES = 16 << 20
"""How much one kill may cost: 8 MiB between two notes, and what was on its way."""
PULL_BYTES_PER_S = 80e6
STREAM_BYTES_PER_S = PULL_BYTES_PER_S / 4
"""How fast the hub serves each of the four streams of a pull. A line faster than the machine fills the
kernel's buffers, and what a kill loses there counts as fetched twice, though nobody had got it."""


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


# ---- the command ----


def main() -> None:
    """Kill pulls, merges and imports of real models, and print a table."""
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
