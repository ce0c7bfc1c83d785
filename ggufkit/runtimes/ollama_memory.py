"""What Ollama is to be told of memory: a context that fits, and whether the weights stay on the disk.

Left to itself it takes 2,048 tokens (to 0.6), 4,096 (to 0.29) or as many as its GPUs look good for (0.30 and
later: envconfig, server/routes.go `Serve`), and 0.30 and later read the whole file into memory on machines
without a GPU (server/sched.go `disableMmapDefaultReason`), which a model that is larger can't survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggufkit.errors import FormatError, UsageError
from ggufkit.fit.machine import Machine
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.profiles import Runtime, Wishes, find_runtime, settings_for
from ggufkit.fit.verdict import Verdict, judge, reserve_of
from ggufkit.gguf.header import TensorInfo
from ggufkit.gguf.model import ModelInfo

CONTEXTS_TOKENS = (8192, 4096, 2048)
"""What is tried, the best first: a model that thinks needs more than Ollama's 4,096."""
CACHE_SHARE = 8
"""A model that is read from the disk again and again leaves its context at most this part of the memory."""


@dataclass(frozen=True, slots=True)
class MemoryChoice:
    """What is said of memory, and why."""

    num_ctx: int | None = None
    """Tokens of context; None leaves it to Ollama."""
    use_mmap: bool = False
    """Whether it is told to map the file, whatever it would do."""
    why: str | None = None
    """Where the numbers come from, in one line."""
    warnings: tuple[str, ...] = ()
    """What may not work."""

    @property
    def parameters(self) -> dict[str, object]:
        """Ollama's parameters."""
        context: dict[str, object] = {} if self.num_ctx is None else {"num_ctx": self.num_ctx}
        return context | ({"use_mmap": True} if self.use_mmap else {})


def choose_memory(
    info: ModelInfo,
    tensors: Sequence[TensorInfo],
    n_bytes: int,
    machine: Machine | None,
    *,
    version: str = "",
    asked_tokens: int | None = None,
) -> MemoryChoice:
    """Choose for a model of `n_bytes` and the `machine` that runs it (None: not known which).

    `version` is Ollama's; `asked_tokens` is the context asked for, 0 the model's own. Raises UsageError when
    that is asked for and the model does not say it.
    """
    asked = _asked(info, asked_tokens)
    if machine is None:
        return MemoryChoice(asked, why=None if asked is None else "as asked for")
    free = machine.ram_bytes if machine.available_bytes is None else machine.available_bytes
    pages = n_bytes > free
    verdicts = _verdicts(info, tensors, machine, version, [asked] if asked else _contexts(info))
    tokens = asked or _best(verdicts, machine)
    why = f"{_gib(machine.ram_bytes)} of memory, {_gib(free)} free"
    why += "; the file is larger, so it is mapped" if pages else ""
    return MemoryChoice(tokens, pages, why, _doubts(info, tokens, asked_tokens, verdicts))


def _asked(info: ModelInfo, asked_tokens: int | None) -> int | None:
    if asked_tokens != 0:
        return asked_tokens
    if not info.context_length_tokens:
        raise UsageError("the model does not say how long its context is", hint="--ctx-size 8192")
    return info.context_length_tokens


def _contexts(info: ModelInfo) -> list[int]:
    most = info.context_length_tokens or max(CONTEXTS_TOKENS)
    return sorted({min(n, most) for n in CONTEXTS_TOKENS}, reverse=True)


def _verdicts(
    info: ModelInfo, tensors: Sequence[TensorInfo], machine: Machine, version: str, contexts: Sequence[int]
) -> dict[int, tuple[Verdict, int | None]]:
    """Judge each context; with the bytes that can't be dropped. Empty when nobody can tell."""
    runtime = _runtime(version)
    n_each = runtime.n_sequences if runtime.context_each else 1
    found = {}
    for tokens in contexts:
        settings = settings_for(Wishes(), runtime, tokens * n_each)
        try:
            estimate = estimate_memory(info, tensors, settings)
        except (FormatError, UsageError):  # metadata that no formula fits: Ollama may know better
            continue
        verdict = judge(estimate, machine, reserve_of(machine, settings, estimate))
        found[tokens] = (verdict, estimate.kept_bytes)
    return found


def _runtime(version: str) -> Runtime:
    if version.startswith("0.0."):  # a build that does not say its version
        return find_runtime("ollama")
    try:
        return find_runtime(f"ollama@{version.partition('-')[0]}")
    except UsageError:  # nor does this one
        return find_runtime("ollama")


def _best(verdicts: dict[int, tuple[Verdict, int | None]], machine: Machine) -> int | None:
    """Return the longest context that leaves the model in memory, else one that is small beside it."""
    for tokens, (verdict, _) in verdicts.items():
        if verdict.in_memory:
            return tokens
    for tokens, (verdict, kept) in verdicts.items():
        if verdict.level == "pages" and (kept or 0) * CACHE_SHARE <= machine.ram_bytes:
            return tokens
    return min(verdicts) if verdicts else None


def _doubts(
    info: ModelInfo,
    tokens: int | None,
    asked_tokens: int | None,
    verdicts: dict[int, tuple[Verdict, int | None]],
) -> tuple[str, ...]:
    if tokens is None:
        return ("no context could be chosen: --ctx-size sets it",)
    said = []
    most = info.context_length_tokens
    if asked_tokens and most and tokens > most:
        said.append(f"the model's own context has {most} tokens, less than the {tokens} asked for")
    verdict = verdicts[tokens][0] if tokens in verdicts else None
    if verdict is not None and verdict.level == "no":
        said.append(f"with {tokens} tokens of context the model needs more memory than this machine has")
    return tuple(said)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
