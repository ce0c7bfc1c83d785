"""One answer as it comes: lines of a stream in, pieces of text with their times out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where thinking may be in a delta: llama-server and vLLM; newer vLLM, OpenRouter, LM Studio."""


@dataclass(slots=True)
class Piece:
    """A piece of text."""

    at_s: float
    """When it came."""
    thinking: bool
    """Whether the server says that it is thinking (inline tags are told apart later)."""
    text: str
    """The text."""


@dataclass(slots=True)
class Trace:
    """What came of one request."""

    headers_s: float | None = None
    """When the HTTP headers came."""
    pieces: list[Piece] = field(default_factory=list)
    """The text."""
    final: bool = False
    """Whether a message came that says it is over."""
    final_s: float | None = None
    """When it came first."""
    finish_reason: str | None = None
    """Why it is over."""
    end_s: float = 0.0
    """When the stream ended."""
    error: str | None = None
    """What the server, or the line, said went wrong."""
    timed_out: bool = False
    """Whether nothing came for too long."""
    usage: dict[str, Any] = field(default_factory=dict)
    """OpenAI's usage, or LM Studio's stats, or the counters in Ollama's last message."""
    timings: dict[str, Any] = field(default_factory=dict)
    """llama-server's timings, the latest."""
    n_first_chunk_tokens: int | None = None
    """Tokens generated when the first piece came, if the server says."""

    def add(self, at_s: float, text: object, *, thinking: bool) -> None:
        """Take a piece, if it is text and not empty."""
        if isinstance(text, str) and text:
            self.pieces.append(Piece(at_s, thinking, text))

    def finish(self, at_s: float, reason: object) -> None:
        """Note that it is over, and why."""
        self.final = True
        self.final_s = at_s if self.final_s is None else self.final_s
        if isinstance(reason, str) and reason:
            self.finish_reason = reason

    @property
    def n_characters(self) -> int:
        """Return how much text came so far."""
        return sum(len(piece.text) for piece in self.pieces)


def read_ollama(trace: Trace, at_s: float, line: bytes) -> None:
    """Take a line of Ollama's /api/chat or /api/generate (NDJSON)."""
    message = _object(line)
    if message is None:
        return
    if "error" in message:
        trace.error = error_text(message)
        return
    chat = message.get("message")
    chat = chat if isinstance(chat, dict) else {}
    trace.add(at_s, chat.get("thinking") or message.get("thinking"), thinking=True)
    trace.add(at_s, chat.get("content") or message.get("response"), thinking=False)
    if message.get("done") is True:
        trace.finish(at_s, message.get("done_reason"))
        trace.usage = {k: v for k, v in message.items() if k.endswith(("_count", "_duration"))}


def read_openai(trace: Trace, at_s: float, line: bytes) -> None:
    """Take a line of /v1/chat/completions (SSE; a server that does not stream sends one JSON object)."""
    data = _sse_data(line)
    if data == b"[DONE]":
        trace.finish(at_s, None)
        return
    chunk = _object(data)
    if chunk is None:
        return
    if "error" in chunk:
        trace.error = error_text(chunk)
        return
    timings, usage = chunk.get("timings"), chunk.get("usage")
    trace.timings = timings if isinstance(timings, dict) else trace.timings
    trace.usage = usage if isinstance(usage, dict) else trace.usage
    before = len(trace.pieces)
    for choice in _objects(chunk.get("choices"))[:1]:
        _read_choice(trace, at_s, choice)
    if not before and trace.pieces and isinstance(timings, dict):
        trace.n_first_chunk_tokens = whole(timings.get("predicted_n"))


def _read_choice(trace: Trace, at_s: float, choice: dict[str, Any]) -> None:
    delta = choice.get("delta") or choice.get("message")
    delta = delta if isinstance(delta, dict) else {}
    reasoning = next((delta[name] for name in REASONING_FIELDS if delta.get(name)), None)
    trace.add(at_s, reasoning, thinking=True)
    trace.add(at_s, delta.get("content"), thinking=False)
    if choice.get("finish_reason"):
        trace.finish(at_s, choice["finish_reason"])


def read_lmstudio(trace: Trace, at_s: float, line: bytes) -> None:
    """Take a line of LM Studio's /api/v1/chat (SSE with named events; from its documentation only)."""
    event = _object(_sse_data(line))
    if event is None:
        return
    kind = event.get("type")
    if kind in ("reasoning.delta", "message.delta"):
        trace.add(at_s, event.get("content"), thinking=kind == "reasoning.delta")
    elif kind == "error" or (kind is None and "error" in event):
        trace.error = error_text(event)
    elif kind == "model_load.end":
        trace.timings = {"load_time_seconds": event.get("load_time_seconds")}
    elif kind == "chat.end":
        trace.finish(at_s, None)
        result = event.get("result")
        stats = result.get("stats") if isinstance(result, dict) else None
        trace.usage = stats if isinstance(stats, dict) else {}


def error_text(message: dict[str, Any]) -> str:
    """Return the words of an error in any of the three APIs' forms."""
    error = message.get("error")
    if isinstance(error, dict):
        error = error.get("message") or error.get("type")
    return str(error or message.get("message") or message.get("detail") or message)[:500]


def whole(value: object) -> int | None:
    """Return a count, None for what is none."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
    return int(value) if sound and isinstance(value, int | float) else None


def positive(value: object) -> float | None:
    """Return a time or speed above 0, None for what is none."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15
    return float(value) if sound and isinstance(value, int | float) else None


def _sse_data(line: bytes) -> bytes:
    """Return the data of an SSE line; a line that is no field of SSE as it is."""
    name, colon, data = line.partition(b":")
    if colon and name == b"data":
        return data.strip()
    return line.strip() if line.lstrip().startswith(b"{") else b""


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line) if line.strip() else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _objects(value: object) -> list[dict[str, Any]]:
    return list(_only_objects(value)) if isinstance(value, list) else []


def _only_objects(values: list[Any]) -> Iterator[dict[str, Any]]:
    return (value for value in values if isinstance(value, dict))
