"""What a trace amounts to: tokens, times, speeds; both clocks, each in its own numbers.

Definitions. The client's speed of generation is (n - k) / (last - first): n tokens by the server's count,
k of them in the first piece of text (1 unless the server says), first and last as they came here. The
server's is what it says: llama-server's predicted_per_second, LM Studio's tokens_per_second, and Ollama's
eval_count / eval_duration (its own --verbose does that).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from ggufkit.bench.checks import answer_start
from ggufkit.bench.result import Api, ClientTimes, ServerTimes, Status, Tokens
from ggufkit.bench.trace import Trace, positive, whole

MIN_PROMPT_TOKENS = 64
"""Shorter prompts are read in one go with overheads that drown their speed."""
MIN_PROMPT_TOKENS_UNSAID = 256
"""The same where the server counts cached tokens without saying how many: a template's start may be."""
LENGTH = ("length", "max_tokens", "max_output_tokens")
ENDED = ("stop", "eos", "end_turn", "tool_calls")


def status_of(trace: Trace, api: Api, n_generated: int | None, max_tokens: int) -> Status:
    """Say how the answer ended."""
    if trace.timed_out:
        return "timeout"
    if trace.error:
        return "error"
    if not trace.final:
        return "no_final"
    if api == "lmstudio" and n_generated is not None and n_generated >= max_tokens:
        return "length"  # its last event gives no reason
    if trace.finish_reason in LENGTH:
        return "length"
    return "complete" if trace.finish_reason in (None, *ENDED) else "error"


def texts_of(trace: Trace) -> tuple[str, str]:
    """Return the thinking and the answer, whichever way the thinking came."""
    thinking = "".join(piece.text for piece in trace.pieces if piece.thinking)
    content = "".join(piece.text for piece in trace.pieces if not piece.thinking)
    start = answer_start(content)
    inline = content if start is None else content[:start]
    for tag in ("<think>", "</think>", "<thinking>", "</thinking>"):
        inline = inline.replace(tag, "")
    return (thinking + inline).strip(), "" if start is None else content[start:].strip()


def first_answer_s(trace: Trace) -> float | None:
    """Return when the first visible character of the answer itself came."""
    content = "".join(piece.text for piece in trace.pieces if not piece.thinking)
    start = answer_start(content)
    if start is None or not content[start:].strip():
        return None
    start += len(content[start:]) - len(content[start:].lstrip())
    end = 0
    for piece in (piece for piece in trace.pieces if not piece.thinking):
        end += len(piece.text)
        if end > start:
            return piece.at_s
    return None


def tokens_of(trace: Trace, api: Api) -> Tokens:
    """Return the server's counts."""
    usage, timings = trace.usage, trace.timings
    if api == "ollama" and usage:
        cached = whole(usage.get("prompt_eval_cached_count"))
        counts = whole(usage.get("prompt_eval_count")), cached, whole(usage.get("eval_count"))
        return Tokens(*counts, source="ollama")
    if api == "lmstudio" and usage:
        counts = whole(usage.get("input_tokens")), None, whole(usage.get("total_output_tokens"))
        return Tokens(*counts, source="lmstudio")
    n_cached, n_read = whole(timings.get("cache_n")), whole(timings.get("prompt_n"))
    if whole(usage.get("completion_tokens")) is not None:
        cached = _cached(usage) if n_cached is None else n_cached
        counts = whole(usage.get("prompt_tokens")), cached, whole(usage.get("completion_tokens"))
        return Tokens(*counts, source="usage")
    if whole(timings.get("predicted_n")) is not None:
        n_prompt = None if n_read is None else n_read + (n_cached or 0)
        return Tokens(n_prompt, n_cached, whole(timings.get("predicted_n")), "timings")
    return Tokens(None, None, None, "none")


def _cached(usage: Mapping[str, Any]) -> int | None:
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict) and "cached_tokens" in details:
        return whole(details["cached_tokens"])
    return whole(usage.get("prompt_cache_hit_tokens"))  # DeepSeek's online API


def client_times(trace: Trace, tokens: Tokens, *, ended_itself: bool) -> ClientTimes:
    """Return what this side's clock saw; `ended_itself`: an end token is counted that carries no text."""
    at = [piece.at_s for piece in trace.pieces]
    first, last = (at[0], at[-1]) if at else (None, None)
    if last is not None and ended_itself and trace.final_s is not None:
        last = max(last, trace.final_s)
    answer = first_answer_s(trace)
    span = (last - first) if first is not None and last is not None else 0.0
    share = None
    if span > 0 and first is not None:
        share = 1.0 if answer is None else (answer - first) / span
    k = trace.n_first_chunk_tokens or 1
    n = tokens.n_generated_tokens
    gaps = sorted(b - a for a, b in pairwise(at))
    return ClientTimes(
        headers_s=trace.headers_s,
        first_any_s=first,
        first_answer_s=answer,
        last_s=last,
        end_s=trace.end_s,
        generation_tokens_per_s=(n - k) / span if n is not None and n > k and span > 0 else None,
        end_to_end_tokens_per_s=n / trace.end_s if n and trace.end_s > 0 else None,
        thinking_share=share,
        n_chunks=len(at),
        n_first_chunk_tokens=k,
        gap_median_s=statistics.median(gaps) if gaps else None,
        gap_p95_s=gaps[min(len(gaps) - 1, int(0.95 * len(gaps)))] if gaps else None,
        gap_high_s=gaps[-1] if gaps else None,
    )


def server_times(trace: Trace, api: Api, tokens: Tokens, *, nonce: bool) -> ServerTimes | None:
    """Return what the server's clock saw, if it says; `nonce`: no cache can know the prompt."""
    if api == "ollama" and "eval_duration" in trace.usage:
        return _ollama_times(trace.usage, tokens, nonce)
    if api == "lmstudio" and trace.usage:
        return _lmstudio_times(trace)
    if api == "openai" and trace.timings:
        return _llama_times(trace.timings)
    return None


def _llama_times(timings: Mapping[str, Any]) -> ServerTimes:
    """Return llama-server's numbers; prompt_n and prompt_ms are of what no cache knew."""
    n_read, prompt_ms = whole(timings.get("prompt_n")), positive(timings.get("prompt_ms"))
    note = _prompt_note(n_read, MIN_PROMPT_TOKENS)
    generated_ms = positive(timings.get("predicted_ms"))
    return ServerTimes(
        n_prompt_tokens=n_read,
        prompt_s=None if prompt_ms is None else prompt_ms / 1e3,
        prompt_tokens_per_s=None if note else positive(timings.get("prompt_per_second")),
        prompt_note=note,
        generation_s=None if generated_ms is None else generated_ms / 1e3,
        generation_tokens_per_s=positive(timings.get("predicted_per_second")),
        first_s=None,
        load_s=None,
        raw=_plain(timings),
    )


def _ollama_times(usage: Mapping[str, Any], tokens: Tokens, nonce: bool) -> ServerTimes:
    """Return Ollama's numbers, of nanoseconds; its prompt count has cached tokens in it, its time has not."""
    prompt_s, generation_s = _seconds(usage, "prompt_eval_duration"), _seconds(usage, "eval_duration")
    n_read, n_cached = tokens.n_prompt_tokens, tokens.n_cached_tokens
    if n_read is not None and n_cached is not None:
        n_read, note = n_read - n_cached, _prompt_note(n_read - n_cached, MIN_PROMPT_TOKENS)
    elif nonce:
        note = _prompt_note(n_read, MIN_PROMPT_TOKENS_UNSAID)
    else:
        note = "a cache may know the prompt, and the server does not say"
    n = tokens.n_generated_tokens
    return ServerTimes(
        n_prompt_tokens=n_read,
        prompt_s=prompt_s,
        prompt_tokens_per_s=n_read / prompt_s if n_read and prompt_s and not note else None,
        prompt_note=note,
        generation_s=generation_s,
        generation_tokens_per_s=n / generation_s if n and generation_s else None,
        first_s=None,
        load_s=_seconds(usage, "load_duration"),
        raw=_plain(usage),
    )


def _lmstudio_times(trace: Trace) -> ServerTimes:
    stats = trace.usage
    load_s = stats.get("model_load_time_seconds") or trace.timings.get("load_time_seconds")
    return ServerTimes(
        n_prompt_tokens=None,
        prompt_s=None,
        prompt_tokens_per_s=None,
        prompt_note="LM Studio does not say",
        generation_s=None,
        generation_tokens_per_s=positive(stats.get("tokens_per_second")),
        first_s=positive(stats.get("time_to_first_token_seconds")),
        load_s=positive(load_s),
        raw=_plain(stats),
    )


def _prompt_note(n_tokens: int | None, least: int) -> str | None:
    if n_tokens is None:
        return "the server does not say how many tokens it read"
    return f"{n_tokens} tokens are too few to tell" if n_tokens < least else None


def _seconds(usage: Mapping[str, Any], name: str) -> float | None:
    nanoseconds = positive(usage.get(name))
    return None if nanoseconds is None else nanoseconds / 1e9


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is a sound number or a short text: no NaN, and nothing nested."""
    return {
        name: value
        for name, value in numbers.items()
        if (isinstance(value, int | float) and math.isfinite(value))
        or (isinstance(value, str) and len(value) <= 200)
    }
