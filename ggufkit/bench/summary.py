"""Medians and spreads over runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime

from ggufkit.bench.result import Run, Spread, Summary

SOUND = ("complete", "length")
NOISY = 0.10
"""A variation above this says that the machine was busy with something else, or hot."""


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the middle and the ends of the numbers that there are; None for none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    mean = statistics.fmean(known)
    variation = statistics.stdev(known) / mean if len(known) > 1 and mean > 0 else None
    return Spread(len(known), statistics.median(known), known[0], known[-1], variation)


def summarize(runs: Sequence[Run]) -> Summary:
    """Return the summary of some runs; speeds only of runs that were not broken off."""
    sound = [run for run in runs if run.status in SOUND]
    servers = [run.server for run in sound if run.server]
    verdicts = [run.verdict.judgement for run in runs]
    return Summary(
        n_runs=len(runs),
        n_sound=len(sound),
        n_judged=sum(verdict in ("pass", "fail") for verdict in verdicts),
        n_passed=verdicts.count("pass"),
        generation=spread(run.client.generation_tokens_per_s for run in sound),
        server_generation=spread(times.generation_tokens_per_s for times in servers),
        prompt=spread(times.prompt_tokens_per_s for times in servers),
        first_any_s=spread(run.client.first_any_s for run in sound),
        first_answer_s=spread(run.client.first_answer_s for run in sound),
        n_generated_tokens=sum(run.tokens.n_generated_tokens or 0 for run in runs),
    )


def together_tokens_per_s(runs: Iterable[Run]) -> float | None:
    """Return the tokens of all answers over the time in which at least one was under way."""
    n_tokens, busy_s, until = 0, 0.0, float("-inf")
    for run in sorted((run for run in runs if run.status in SOUND), key=lambda run: run.asked_at):
        begin = datetime.fromisoformat(run.asked_at).timestamp()
        end = begin + run.client.end_s
        busy_s += max(0.0, end - max(begin, until))
        until = max(until, end)
        n_tokens += run.tokens.n_generated_tokens or 0
    return n_tokens / busy_s if n_tokens and busy_s else None


def change_over_time(runs: Iterable[Run]) -> float | None:
    """Return by how much the later half of consecutive answers was faster (-0.1: 10 % slower).

    None for fewer than four answers with a speed.
    """
    ordered = sorted((run for run in runs if run.status in SOUND), key=lambda run: run.order)
    speeds = [s for run in ordered if (s := run.client.generation_tokens_per_s) is not None]
    if len(speeds) < 4:
        return None
    half = len(speeds) // 2
    return statistics.median(speeds[-half:]) / statistics.median(speeds[:half]) - 1
