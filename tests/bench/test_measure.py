"""Recorded streams and real faults through the real clients: what is counted, timed, and said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufkit.bench.result import Run
from tests.bench.asking import SETTINGS, as_is, ask, asked, slow
from tests.support.replay import Reply, Route, delta, finish, json_reply, recording, sse, usage


def close(value: float | None, wanted: float, part: float = 0.1) -> bool:
    return value is not None and abs(value - wanted) <= part * wanted


def test_llama_server_as_recorded() -> None:
    run = ask(recording("ll_v1_first"), llama=True)
    assert run.status == "complete" and run.answer == "The answer is 9.9."
    assert (run.tokens.n_prompt_tokens, run.tokens.n_cached_tokens) == (48, 0)
    assert (run.tokens.n_generated_tokens, run.tokens.source) == (9, "usage")
    assert run.server is not None
    assert run.server.generation_tokens_per_s == pytest.approx(38.37317)
    assert run.server.prompt_s == pytest.approx(1.096273)
    assert run.server.prompt_tokens_per_s is None, "48 tokens are too few"
    assert close(run.client.first_any_s, 1.117) and run.client.n_chunks == 8
    assert close(run.client.generation_tokens_per_s, 8 / (1.3244 - 1.1173))
    assert run.verdict.judgement == "pass"


def test_the_same_prompt_with_the_cache_off() -> None:
    run = ask(recording("ll_v1_nocache"), llama=True)
    assert (run.tokens.n_cached_tokens, run.tokens.n_generated_tokens) == (0, 9)
    assert run.server is not None and run.server.n_prompt_tokens == 48


def test_ollama_through_v1_counts_but_tells_no_times() -> None:
    run = ask(recording("ol2_v1"))
    assert (run.tokens.n_prompt_tokens, run.tokens.n_generated_tokens) == (15, 12)
    assert run.tokens.n_cached_tokens is None and run.server is None
    assert close(run.client.generation_tokens_per_s, 11 / (0.2309 - 0.0708), 0.15)


def test_a_cached_prompt_has_no_prompt_speed() -> None:
    run = ask(recording("ll_v1_same"), llama=True)
    assert run.tokens.n_cached_tokens == 47 and run.tokens.n_prompt_tokens == 48
    assert run.server is not None and run.server.n_prompt_tokens == 1
    assert run.server.prompt_tokens_per_s is None and run.server.prompt_note == "1 tokens are too few to tell"


def test_counts_come_from_the_timings_when_there_is_no_usage() -> None:
    run = ask(recording("ll_v1_nousage"), llama=True)
    assert (run.status, run.tokens.source) == ("length", "timings")
    assert (run.tokens.n_prompt_tokens, run.tokens.n_generated_tokens) == (48, 8)
    assert close(run.client.generation_tokens_per_s, 7 / (0.5868 - 0.0256))


def test_no_counts_no_speeds_whatever_the_chunks() -> None:
    run = ask(recording("ol_v1_chat_nousage"))
    assert run.tokens.source == "none" and run.client.n_chunks > 5
    assert run.client.generation_tokens_per_s is None and run.client.end_to_end_tokens_per_s is None
    assert run.server is None


def test_ollama_as_recorded() -> None:
    run = ask(recording("ol2_chat"), "ollama")
    assert (run.status, run.verdict.judgement) == ("length", "void")
    assert (run.tokens.n_prompt_tokens, run.tokens.n_generated_tokens) == (15, 24)
    assert run.server is not None and run.server.generation_tokens_per_s == pytest.approx(24 / 0.309)
    assert run.server.load_s == pytest.approx(0.007795186)
    assert close(run.client.generation_tokens_per_s, 23 / (0.3331 - 0.0251))


@pytest.mark.parametrize("name", ["ol2_chat_long", "ol2_chat_long_again"])
def test_ollama_counts_cached_tokens_so_its_prompt_speed_needs_a_nonce_and_length(name: str) -> None:
    """The recordings give 354 and 12,500 tokens/s for the same prompt."""
    for settings in (as_is(), SETTINGS):
        run = ask(recording(name), "ollama", settings=settings)
        assert run.server is not None and run.tokens.n_prompt_tokens == 250
        assert run.server.prompt_tokens_per_s is None and run.server.prompt_note


def test_ollama_that_says_what_is_cached_has_a_prompt_speed() -> None:
    last = {"done": True, "done_reason": "stop", "eval_count": 2, "eval_duration": 1_000_000_000}
    last |= {"prompt_eval_count": 250, "prompt_eval_cached_count": 150, "prompt_eval_duration": 500_000_000}
    lines = [{"message": {"content": "9.9"}, "done": False}, last]
    run = ask(replace(sse(*lines, done=False, content_type="application/x-ndjson")), "ollama")
    assert run.tokens.source == "none", "SSE lines are no NDJSON"
    run = ask(ndjson(*lines), "ollama")
    assert run.server is not None and run.server.prompt_tokens_per_s == pytest.approx(200)
    assert run.tokens.n_cached_tokens == 150


def ndjson(*messages: object, drop: bool = False) -> Reply:
    import json

    lines = tuple((0.01 * (i + 1), json.dumps(m).encode()) for i, m in enumerate(messages))
    return Reply(lines, 200, "application/x-ndjson", drop)


def test_a_stream_that_never_says_done_is_kept_as_such() -> None:
    """Ollama ends so after 30 equal tokens; the quants that loop are the ones of one and two bits."""
    run = ask(recording("ol_chat", speed=4), "ollama")
    assert (run.status, run.tokens.source) == ("no_final", "none")
    assert run.client.n_chunks == 35 and run.answer.startswith("-'s the_")
    assert run.client.generation_tokens_per_s is None and run.server is None
    assert run.verdict.judgement == "void"


def test_a_broken_off_stream_of_llama_server_still_has_counts() -> None:
    chunks = [timed(delta(content="9."), 3), timed(delta(content="9"), 5)]
    run = ask(sse(*chunks, done=False), llama=True)
    assert (run.status, run.tokens.n_generated_tokens, run.tokens.source) == ("no_final", 5, "timings")


def timed(chunk: dict[str, object], n: int) -> dict[str, object]:
    return chunk | {"timings": {"predicted_n": n, "predicted_ms": n * 10.0}}


def test_text_withheld_until_a_character_is_whole_is_not_counted_as_chunks() -> None:
    """16 emoji of three tokens each, one each 30 ms: 100 tokens/s, where chunks would say 33."""
    chunks = [timed(delta(content="😀"), 3 * (i + 1)) for i in range(16)]
    run = ask(sse(*chunks, finish("length"), usage(5, 48), gap_s=0.03), llama=True)
    assert run.client.n_chunks == 16 and run.client.n_first_chunk_tokens == 3
    assert close(run.client.generation_tokens_per_s, 100, 0.15)


def test_the_running_timings_give_the_first_chunk_its_tokens() -> None:
    run, client, server = asked(recording("ll_v1_tpt"), llama=True)
    assert run.client.n_first_chunk_tokens == 1
    body = server.bodies("/v1/chat/completions")[0]
    assert body["timings_per_token"] is True and body["cache_prompt"] is False
    assert client.kind == "llama-server" and client.version == "b1-abc"


THINKING: dict[str, list[dict[str, object]]] = {
    "reasoning_content": [delta(reasoning_content="9.11?"), delta(reasoning_content=" no")],
    "reasoning": [delta(reasoning="9.11?"), delta(reasoning=" no")],
    "inline": [delta(content="<think>9.11?"), delta(content=" no</think>\n\n")],
    "template": [delta(content="9.11?"), delta(content=" no"), delta(content="</think>\n\n")],
    "split tag": [delta(content="<thi"), delta(content="nk>9.11? no</th"), delta(content="ink>")],
}


@pytest.mark.parametrize("form", THINKING)
def test_thinking_in_every_form_is_told_from_the_answer(form: str) -> None:
    chunks = [*THINKING[form], delta(content="9"), delta(content=".9"), finish(), usage(9, 12)]
    run = ask(sse(*chunks, gap_s=0.02))
    assert (run.thinking, run.answer) == ("9.11? no", "9.9")
    n = len(THINKING[form])
    assert run.client.first_any_s is not None and run.client.first_answer_s is not None
    assert close(run.client.first_answer_s - run.client.first_any_s, 0.02 * n, 0.4)
    assert run.client.thinking_share is not None and 0.3 < run.client.thinking_share < 0.9
    assert close(run.client.generation_tokens_per_s, 11 / (0.02 * (n + 2)), 0.3), "over all tokens"
    assert (run.verdict.judgement, run.verdict.found) == ("pass", "9.9")


def test_ollamas_thinking_field() -> None:
    last = {"done": True, "done_reason": "stop", "eval_count": 3, "eval_duration": 30_000_000}
    run = ask(ndjson({"message": {"thinking": "hm"}}, {"message": {"content": "9.9"}}, last), "ollama")
    assert (run.thinking, run.answer, run.status) == ("hm", "9.9", "complete")


def test_only_thinking_is_no_answer() -> None:
    run = ask(sse(delta(content="<think>and so on"), delta(content=" 9.9"), finish("length"), usage(9, 4)))
    assert (run.answer, run.client.first_answer_s, run.client.thinking_share) == ("", None, 1.0)
    assert run.status == "length" and run.verdict.judgement == "void"


def test_a_cut_answer_is_void_though_it_is_right() -> None:
    run = ask(sse(delta(content="9.9"), finish("length"), usage(9, 1)))
    assert (run.status, run.verdict.judgement) == ("length", "void")
    assert run.client.generation_tokens_per_s is None, "one token takes no time"


@pytest.mark.parametrize(
    ("reply", "status", "word"),
    [
        (recording("ll2_err"), "error", "exceeds the available context size"),
        (sse(delta(content="9"), {"error": {"message": "no memory"}}, done=False), "error", "no memory"),
        (sse(delta(content="9"), done=False, drop=True), "no_final", ""),
        (sse(delta(content="9"), finish("content_filter")), "error", "content_filter"),
        (sse(delta(content="9"), done=False, hang_s=1.5), "timeout", "nothing came for 1 s"),
        (Reply((), 500, "text/plain"), "error", "the server answered 500"),
    ],
    ids=["context", "line", "drop", "filter", "hang", "500"],
)
def test_what_goes_wrong_is_in_the_run(reply: Reply, status: str, word: str) -> None:
    run = ask(reply, timeout_s=1.0)
    assert run.status == status and word in (run.error or "")
    assert run.verdict.judgement == "void" and run.tokens.n_generated_tokens is None


def test_ollama_errors() -> None:
    assert "not found, try pulling" in (ask(recording("ol2_err"), "ollama").error or "")
    run = ask(ndjson({"message": {"content": "9"}}, {"error": "runner died"}), "ollama")
    assert (run.status, run.error, run.answer) == ("error", "runner died", "9")


def strict(rejects: str, word: str) -> Route:
    """A server that knows fewer fields."""

    def answer(body: dict[str, object]) -> Reply:
        if rejects in body:
            return json_reply({"error": {"message": f"Unrecognized request argument: {word}"}}, 400)
        return sse(delta(content="9.9"), finish(), usage(9, 2))

    return answer


@pytest.mark.parametrize(
    ("rejects", "word", "left_out"),
    [
        ("stream_options", "stream_options", {"stream_options"}),
        ("stream_options", "something", {"stream_options"}),
        ("max_tokens", "use max_completion_tokens instead", {"max_tokens"}),
    ],
)
def test_servers_that_refuse_a_field_are_asked_without_it(
    rejects: str, word: str, left_out: set[str]
) -> None:
    run, client, server = asked(strict(rejects, word))
    assert run.status == "complete" and client.rejected == left_out
    first, second = server.bodies("/v1/chat/completions")
    assert rejects in first and rejects not in second
    assert ("max_completion_tokens" in second) == (rejects == "max_tokens")


def test_a_refusal_that_stays_marks_no_field_as_unknown() -> None:
    run, client, _ = asked(recording("ll2_err"), llama=True)
    assert run.status == "error" and client.rejected == set()


def test_deepseeks_word_for_cached_tokens() -> None:
    run = ask(sse(delta(content="9.9"), finish(), usage(30, 2, prompt_cache_hit_tokens=16)))
    assert run.tokens.n_cached_tokens == 16


def test_a_server_that_does_not_stream_is_timed_to_its_end_only() -> None:
    whole = {"choices": [{"message": {"content": "9.9"}, "finish_reason": "stop"}]}
    run = ask(json_reply(whole | {"usage": {"prompt_tokens": 9, "completion_tokens": 3}}))
    assert (run.answer, run.status, run.tokens.n_generated_tokens) == ("9.9", "complete", 3)
    assert run.client.generation_tokens_per_s is None and run.client.end_to_end_tokens_per_s


def test_headers_are_not_the_first_token() -> None:
    run = ask(slow(sse(delta(role="assistant", content=None), delta(content="9.9"), finish()), 0.3))
    assert run.client.headers_s is not None and run.client.headers_s < 0.2
    assert run.client.first_any_s is not None and run.client.first_any_s > 0.3


LMSTUDIO = [
    {"type": "chat.start", "model_instance_id": "smol"},
    {"type": "model_load.end", "load_time_seconds": 12.5},
    {"type": "reasoning.delta", "content": "hm"},
    {"type": "message.delta", "content": "9.9"},
]
STATS = {"input_tokens": 30, "total_output_tokens": 7, "tokens_per_second": 43.7}


def lmstudio(max_tokens: int = 4096) -> Run:
    end = {"type": "chat.end", "result": {"stats": STATS | {"time_to_first_token_seconds": 0.5}}}
    reply = sse(*LMSTUDIO, end, done=False)
    return ask(reply, "lmstudio", settings=replace(SETTINGS, max_tokens=max_tokens))


def test_lmstudio_as_documented() -> None:
    run = lmstudio()
    assert (run.status, run.thinking, run.answer) == ("complete", "hm", "9.9")
    assert (run.tokens.n_prompt_tokens, run.tokens.n_generated_tokens) == (30, 7)
    assert run.server is not None and run.server.generation_tokens_per_s == 43.7
    assert (run.server.first_s, run.server.load_s) == (0.5, 12.5)
    assert lmstudio(max_tokens=7).status == "length"
    failed = ask(sse({"type": "error", "error": {"message": "no such model"}}, done=False), "lmstudio")
    assert (failed.status, failed.error) == ("error", "no such model")


@pytest.mark.parametrize("api", ["ollama", "openai", "lmstudio"])
@pytest.mark.parametrize(
    "line",
    [b"", b"data:", b"data: {", b"[1]", b"data: [1]", b"null", b": ping", b"\xff\xfe", b'{"message": 7}',
     b'data: {"choices": 7, "usage": [], "timings": 3}', b'data: {"choices": [{"delta": {"content": 7}}]}',
     b'{"done": "yes"}', b"data: " + b"[" * 100_000, b'data: {"type": "chat.end", "result": 3}'],
)  # fmt: skip
def test_nonsense_in_a_stream_is_no_answer_and_no_crash(api: str, line: bytes) -> None:
    assert api in ("ollama", "openai", "lmstudio")
    run = ask(Reply(((0.0, line),)), api)  # type: ignore[arg-type]
    assert run.answer == "" and run.client.n_chunks == 0
    assert run.status in ("no_final", "complete") and run.tokens.n_generated_tokens is None


def test_hostile_numbers_stay_out() -> None:
    bad: dict[str, object] = {"predicted_n": float("nan"), "predicted_ms": float("inf"), "x": "y" * 999}
    bad["prompt_n"] = -3
    chunk = delta(content="9.9") | {"timings": bad, "usage": {"completion_tokens": -1, "prompt_tokens": True}}
    run = ask(sse(chunk, finish()), llama=True)
    assert run.tokens == replace(run.tokens, n_prompt_tokens=None, n_generated_tokens=None)
    assert run.server is not None and run.server.raw == {"prompt_n": -3}
    assert run.server.generation_tokens_per_s is None
