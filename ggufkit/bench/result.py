"""The result file: what was asked, of what, by whom, and everything that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ggufkit.bench.questions import Check

Api = Literal["ollama", "openai", "lmstudio"]
Status = Literal["complete", "length", "no_final", "error", "timeout"]
Judgement = Literal["pass", "fail", "manual", "void"]
Schema = Literal["ggufkit.bench/1"]
SCHEMA: Schema = "ggufkit.bench/1"


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some measurements, and how far they lie apart."""

    n: int
    """Measurements."""
    median: float
    """The middle one."""
    low: float
    """The least."""
    high: float
    """The most."""
    variation: float | None
    """Standard deviation over mean (0.1 is 10 %); None for a single one."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts by the server's word; never the number of chunks, which is another (Chinese, emoji)."""

    n_prompt_tokens: int | None
    """Tokens of the prompt, the chat template's among them."""
    n_cached_tokens: int | None
    """Tokens of the prompt that a cache spared the server; None when it does not say."""
    n_generated_tokens: int | None
    """Tokens generated: thinking, answer and end token."""
    source: Literal["usage", "timings", "ollama", "lmstudio", "none"]
    """Which of the server's words: none when it gave none, then there are no speeds."""


@dataclass(frozen=True, slots=True)
class ClientTimes:
    """What this side's clock saw, in seconds from just before the request was sent."""

    headers_s: float | None
    """The answer's HTTP headers."""
    first_any_s: float | None
    """The first text of any kind: thinking or answer."""
    first_answer_s: float | None
    """The first text of the answer itself, thinking over."""
    last_s: float | None
    """The last token: the last text, or the message that ends the answer if the model ended it."""
    end_s: float
    """The end of the stream."""
    generation_tokens_per_s: float | None
    """Tokens after the first chunk over the time from the first to the last token."""
    end_to_end_tokens_per_s: float | None
    """All tokens over all the time, prompt processing and waiting included."""
    thinking_share: float | None
    """Part of the time from first to last token that went by before the answer began, 0 to 1."""
    n_chunks: int
    """Pieces of text that came: not tokens."""
    n_first_chunk_tokens: int
    """Tokens in the first of them, if the server says; else 1."""
    gap_median_s: float | None
    """The middle time between two pieces."""
    gap_p95_s: float | None
    """95 of 100 times between two pieces are at most this."""
    gap_high_s: float | None
    """The longest time between two pieces."""


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """What the server's clock saw, by its own word."""

    n_prompt_tokens: int | None
    """Tokens that `prompt_s` was spent on, as far as the server says."""
    prompt_s: float | None
    """Prompt processing."""
    prompt_tokens_per_s: float | None
    """Speed of prompt processing; None when a cache, or a prompt too short, makes it meaningless."""
    prompt_note: str | None
    """Why there is no such speed, or what to mind about it."""
    generation_s: float | None
    """Generation."""
    generation_tokens_per_s: float | None
    """Speed of generation as the server states it: its own definition, not quite the client's."""
    first_s: float | None
    """Time to the first token by the server's word."""
    load_s: float | None
    """Loading, within this request."""
    raw: Mapping[str, Any]
    """The numbers as they came."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the answer was judged."""

    judgement: Judgement
    """void: cut short or failed, so not judged. manual: for a person."""
    found: str | None
    """What the answer was taken to say."""


@dataclass(frozen=True, slots=True)
class Run:
    """One question asked once."""

    repeat: int
    """Which time the question was asked, from 1."""
    order: int
    """Which answer of the model's it was, from 1: speeds may fall."""
    asked_at: str
    """When it was sent: UTC, ISO 8601."""
    nonce: str
    """What stood before the question, so that no cache knew the prompt; empty for none."""
    status: Status
    """length: cut by max_tokens. no_final: the stream ended without a last message."""
    error: str | None
    """What went wrong."""
    finish_reason: str | None
    """Why the server says it ended."""
    thinking: str
    """What the model thought, in whatever form it came."""
    answer: str
    """What it answered, without the thinking."""
    tokens: Tokens
    """How many."""
    client: ClientTimes
    """How fast, seen from here."""
    server: ServerTimes | None
    """How fast, by the server's word; None when it says nothing."""
    verdict: Verdict
    """How good."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the spread over several runs; only of runs that have the number."""

    n_runs: int
    """Runs."""
    n_sound: int
    """Of them complete, or cut by max_tokens only."""
    n_judged: int
    """Judged without a person."""
    n_passed: int
    """Judged right."""
    generation: Spread | None
    """Tokens per second by the client's clock."""
    server_generation: Spread | None
    """Tokens per second by the server's."""
    prompt: Spread | None
    """Tokens per second of prompt processing by the server's clock."""
    first_any_s: Spread | None
    """Seconds to the first token of any kind."""
    first_answer_s: Spread | None
    """Seconds to the first token of the answer."""
    n_generated_tokens: int
    """Tokens generated in all."""


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """A question and its runs."""

    id: str
    """Its name."""
    lang: str | None
    """Its language."""
    kind: str
    """What kind it is."""
    text: str
    """What was asked."""
    sha256: str
    """Digest of the text, bare hex."""
    check: Check | None
    """How it is judged."""
    runs: tuple[Run, ...]
    """In the order of asking."""
    summary: Summary
    """Over the runs."""


@dataclass(frozen=True, slots=True)
class Load:
    """How the model came into memory, apart from all the runs."""

    cold: bool | None
    """Whether it was not loaded before; None when the server does not tell."""
    load_s: float
    """How long loading, or the first request, took."""
    source: Literal["ollama", "lmstudio", "warm-up request"]
    """What took so long."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the server says of a model."""

    digest: str | None = None
    """Ollama's digest of it, bare hex."""
    quant: str | None = None
    """Its quant."""
    parameters: str | None = None
    """Its parameters, as the server writes them."""
    architecture: str | None = None
    """Its architecture or family."""
    size_bytes: int | None = None
    """Size of its files."""
    loaded_bytes: int | None = None
    """Size in memory."""
    vram_bytes: int | None = None
    """Size on the GPU."""
    context_tokens: int | None = None
    """Context that it is loaded with."""
    active_bytes_per_token: int | None = None
    """Bytes of weights that a token reads, by the file's header; None when it could not be read."""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """A model and all it was asked."""

    name: str
    """As it was asked for."""
    facts: ModelFacts
    """What the server says of it."""
    load: Load | None
    """None when it was never asked."""
    questions: tuple[QuestionResult, ...]
    """In the order of asking."""
    summary: Summary
    """Over all runs but those of kind `prompt`."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that asked."""

    os: str
    """Operating system."""
    kernel: str
    """Its release."""
    cpu: str | None
    """The processor's name."""
    n_cpus: int | None
    """Logical processors."""
    ram_bytes: int | None
    """Memory."""
    available_bytes: int | None
    """Memory that was free, or could be made so, at the start."""
    load_average: float | None
    """Processes that ran or waited over the last minute, at the start."""
    n_sockets: int | None = None
    """Processors."""
    n_cores: int | None = None
    """Physical cores of all of them."""
    n_numa_nodes: int | None = None
    """Nodes of memory."""
    virtual: bool | None = None
    """Whether it is a virtual machine."""
    memory: str | None = None
    """What of its memory channels is filled, and with what."""
    gpus: tuple[str, ...] = ()
    """Its graphics cards."""
    bandwidth_bytes_per_s: float | None = None
    """Theoretical bandwidth of its memory, or what stands for it; None when nobody knows."""
    bandwidth_source: str | None = None
    """Who says so: `measured here`, `channels` (of the modules that are there) or `maker`."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server that was asked."""

    api: Api
    """The API that was used."""
    kind: str
    """ollama, lmstudio, llama-server, or openai for any other."""
    base_url: str
    """Where, without user, password and query."""
    version: str | None
    """What it says its version is."""
    same_machine: bool
    """Whether it runs on the machine that asked, so that `host` is about it."""
    rejected_fields: tuple[str, ...]
    """Fields of a request that it did not take."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was asked."""

    max_tokens: int
    """Tokens at most for each answer."""
    temperature: float | None
    """None: the server's own."""
    seed: int | None
    """None: the server's own."""
    context_tokens: int | None
    """Context asked for; None: the server's own."""
    n_repeats: int
    """Times each question is asked."""
    n_concurrent: int
    """Questions under way at the same time."""
    cache: Literal["nonce", "as-is"]
    """nonce: something new stands before each question, so that no cache of prompts helps."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The file."""

    schema: Schema
    """Version of this format; names may be added to it, not changed."""
    tool_version: str
    """ggufkit's."""
    started_at: str
    """UTC, ISO 8601."""
    finished_at: str | None
    """None while there are answers to come."""
    host: Host
    """The machine that asked."""
    server: ServerInfo
    """The server that was asked."""
    settings: Settings
    """How it was asked."""
    models: tuple[ModelResult, ...]
    """In the order of asking."""
