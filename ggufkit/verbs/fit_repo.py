"""Say which quants of a repo, or which models of a folder, fit which machine, and which is the best choice.

The rule of the choice: of the quants that fit, with what should be set aside, and generate at a usable speed,
the one with the most bits a weight; but more than Q8_0 has gain nothing that shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ggufkit.errors import FormatError, UsageError
from ggufkit.fit.estimate import FitSettings, MemoryEstimate
from ggufkit.fit.memory import estimate_memory
from ggufkit.fit.offload import settled
from ggufkit.fit.outlook import ModelSpeed, speed_on, token_reads
from ggufkit.fit.profiles import Runtime, Wishes, settings_for
from ggufkit.fit.rig import Rig
from ggufkit.fit.verdict import Level, Verdict, judge, reserve_of
from ggufkit.gguf.header import Header, TensorInfo
from ggufkit.gguf.model import ModelInfo, model_info
from ggufkit.progress import SILENT, Progress
from ggufkit.verbs.asked import NO_MODEL, context_asked
from ggufkit.verbs.several import Candidate, Several, read_several

USUAL_CONTEXTS_TOKENS = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
"""The contexts that a table names, beside the model's own."""
USABLE_TOKENS_PER_S = 1.0
"""Slower than this is no choice while something faster fits: what posts on R1 at home were content with."""
ENOUGH_BITS = 8.6
"""Bits a weight beyond which nothing shows: Q8_0 has 8.5, and llama.cpp's own table of perplexities
(tools/quantize/quantize.cpp) has it a few thousandths above F16."""
SAME_MODEL = 0.05  # relative difference of the parameters, within which two files are quants of one model


@dataclass(frozen=True, slots=True)
class QuantFit:
    """Whether one quant fits, and how fast it is."""

    name: str
    """The quant's label; the file's name where two have the same label."""
    stem: str
    """The file's name without shard numbers and `.gguf`."""
    n_files: int
    """Its files."""
    file_bytes: int
    """Their size."""
    n_parameters: int | None
    """Weights, by number; None when it was not judged."""
    bits_per_weight: float | None
    """Bits that a weight takes on average; None when it was not judged."""
    level: Level | None
    """The verdict with the context asked for; None when it was not judged."""
    context_tokens: int | None
    """The context that the verdict is for."""
    needed_bytes: int | None
    """What it takes of the computer's memory with that context."""
    largest_context_tokens: int | None
    """The largest of the usual contexts with which it fits; None when it fits with none."""
    speed: ModelSpeed | None
    """How fast it generates; None when it does not run, or nobody knows how fast memory is read."""
    problem: str | None
    """Why it was not judged."""


@dataclass(frozen=True, slots=True)
class MachineFit:
    """The quants on one machine."""

    rig: Rig
    """The machine."""
    quants: tuple[QuantFit, ...]
    """All of them, in the order of the repo."""
    best: str | None
    """The name of the best choice; None when none fits."""
    reason: str
    """Why, in a sentence."""

    @property
    def best_quant(self) -> QuantFit | None:
        """Return the best choice."""
        return next((quant for quant in self.quants if quant.name == self.best), None)


@dataclass(frozen=True, slots=True)
class RepoFit:
    """The quants of a repo, or the models of a folder, on one machine or several."""

    name: str
    """The repo, or the folder."""
    where: str
    """The hub's address; empty for a folder."""
    context_is_default: bool
    """Whether nobody asked for a certain context."""
    machines: tuple[MachineFit, ...]
    """One for each machine, in the order asked."""


def fit_repo(
    several: Several,
    rigs: Sequence[Rig],
    *,
    context_tokens: int | None = None,
    wishes: Wishes | None = None,
    runtime: Runtime | None = None,
    usable_tokens_per_s: float = USABLE_TOKENS_PER_S,
    progress: Progress = SILENT,
) -> RepoFit:
    """Judge all models that `find_several` found for each of the `rigs`; only headers are read.

    `context_tokens` 0 means each model's own; left out, the runtime's, else 4,096. A model that can't be
    judged says why; what goes wrong with the network is raised.
    """
    settings = settings_for(wishes or Wishes(), runtime)
    n = len(several.candidates)
    progress.note(f"reading the headers of {n} models of {several.title}")
    rows: list[list[QuantFit]] = [[] for _ in rigs]
    try:
        for candidate, headers in read_several(several.candidates):
            for row, fitted in zip(
                rows, _judged(candidate, headers, rigs, context_tokens, settings, runtime), strict=True
            ):
                row.append(fitted)
    finally:
        if several.http is not None:
            several.http.close()
    machines = tuple(_machine_fit(rig, row, usable_tokens_per_s) for rig, row in zip(rigs, rows, strict=True))
    return RepoFit(several.title, several.where, context_tokens is None, machines)


def _machine_fit(rig: Rig, quants: Sequence[QuantFit], usable: float) -> MachineFit:
    best, reason = choose(quants, usable)
    return MachineFit(rig, tuple(quants), best.name if best else None, reason)


def _judged(
    candidate: Candidate,
    headers: tuple[Header, ...],
    rigs: Sequence[Rig],
    context_tokens: int | None,
    settings: FitSettings,
    runtime: Runtime | None,
) -> list[QuantFit]:
    """Judge one model for each machine; a refusal is its problem, not the table's."""
    problem = candidate.problem
    if problem is None:
        try:
            info = model_info(headers)
            if info.kind not in NO_MODEL:
                tokens = context_asked(info, context_tokens, runtime, settings)
                tensors = tuple(tensor for header in headers for tensor in header.tensors)
                asked = replace(settings, context_tokens=tokens)
                each = runtime is not None and runtime.context_each
                return [_Judge(candidate, info, tensors, asked, rig, each).row() for rig in rigs]
            problem = NO_MODEL[info.kind]
        except (FormatError, UsageError) as error:
            problem = error.message
    return [_unjudged(candidate, problem)] * len(rigs)


def _unjudged(candidate: Candidate, problem: str) -> QuantFit:
    name, stem, n_files, n_bytes = candidate.name, candidate.stem, candidate.n_files, candidate.total_bytes
    return QuantFit(name, stem, n_files, n_bytes, None, None, None, None, None, None, None, problem)


@dataclass(frozen=True, slots=True)
class _Judge:
    """A model and a machine."""

    candidate: Candidate
    info: ModelInfo
    tensors: tuple[TensorInfo, ...]
    settings: FitSettings
    rig: Rig
    context_each: bool

    def row(self) -> QuantFit:
        estimate, verdict = self.at(self.settings)
        n_bytes = sum(tensor.n_bytes for tensor in self.tensors)
        reads = token_reads(self.info, self.tensors, estimate, context_each=self.context_each)
        return QuantFit(
            name=self.candidate.name,
            stem=self.candidate.stem,
            n_files=self.candidate.n_files,
            file_bytes=self.candidate.total_bytes,
            n_parameters=self.info.n_parameters,
            bits_per_weight=n_bytes * 8 / self.info.n_parameters if self.info.n_parameters else None,
            level=verdict.level,
            context_tokens=estimate.context_tokens,
            needed_bytes=verdict.needed_bytes,
            largest_context_tokens=self.largest_context(estimate, verdict),
            speed=speed_on(self.rig, reads, verdict),
            problem=None,
        )

    def largest_context(self, estimate: MemoryEstimate, verdict: Verdict) -> int | None:
        """Find the largest usual context that fits: more context never takes less memory.

        What the asked context leaves tells where to look, so that few are tried.
        """
        own = self.info.context_length_tokens
        usual = [n for n in USUAL_CONTEXTS_TOKENS if not own or n < own] + ([own] if own else [])
        cache_bytes = estimate.total_bytes - estimate.weights_bytes
        if not usual or verdict.left_bytes + cache_bytes < 0:
            return None  # the weights alone are too large
        per_token = estimate.kv_bytes_per_token or 1
        likely = estimate.context_tokens + verdict.left_bytes // per_token
        i = max(0, sum(n <= likely for n in usual) - 1)
        if self.fits(usual[i]):
            return next(
                (usual[j - 1] for j in range(i + 1, len(usual)) if not self.fits(usual[j])), usual[-1]
            )
        return next((usual[j] for j in range(i - 1, -1, -1) if self.fits(usual[j])), None)

    def fits(self, context_tokens: int) -> bool:
        return self.at(replace(self.settings, context_tokens=context_tokens))[1].level == "fits"

    def at(self, settings: FitSettings) -> tuple[MemoryEstimate, Verdict]:
        placed = settled(self.info, self.tensors, settings)
        estimate = estimate_memory(self.info, self.tensors, placed)
        machine = self.rig.memory
        return estimate, judge(estimate, machine, reserve_of(machine, placed, estimate))


def choose(
    quants: Sequence[QuantFit], usable_tokens_per_s: float = USABLE_TOKENS_PER_S
) -> tuple[QuantFit | None, str]:
    """Return the best quant, or None, and the reason in a sentence.

    Only quants of one model are compared: that of the first that could be judged.
    """
    judged = [quant for quant in quants if quant.n_parameters and quant.bits_per_weight]
    size = judged[0].n_parameters or 0 if judged else 0
    ours = [q for q in judged if abs((q.n_parameters or 0) - size) <= SAME_MODEL * size]
    fitting = [quant for quant in ours if quant.level == "fits"]
    if not fitting:
        return None, _none_fits(ours)
    quick = [q for q in fitting if q.speed is None or q.speed.tokens_per_s >= usable_tokens_per_s]
    if not quick:
        best = max(fitting, key=_speed)
        return best, f"the fastest of {_fit(len(fitting))}; all are below {usable_tokens_per_s:g} tokens/s"
    useful = [quant for quant in quick if _bits(quant) <= ENOUGH_BITS]
    best = max(useful, key=_bits) if useful else min(quick, key=_bits)
    return best, _why(best, fitting, quick, usable_tokens_per_s)


def _why(best: QuantFit, fitting: Sequence[QuantFit], quick: Sequence[QuantFit], usable: float) -> str:
    reason = f"the most bits a weight ({_bits(best):.1f}) of {_fit(len(fitting))}"
    if any(_bits(quant) > _bits(best) for quant in quick):
        reason = (
            f"{_bits(best):.1f} bits a weight, of {_fit(len(fitting))}; more bits gain nothing that shows"
        )
    elif len(quick) < len(fitting):
        reason = f"the most bits a weight ({_bits(best):.1f}) of {_fit(len(quick))}"
        reason += f" with {usable:g} tokens/s or more"
    return reason


def _fit(n: int) -> str:
    return f"{n} that fit" if n > 1 else "the one that fits"


def _none_fits(quants: Sequence[QuantFit]) -> str:
    known = [quant for quant in quants if quant.needed_bytes is not None]
    if not known:
        return "none could be judged"
    least = min(known, key=lambda quant: quant.needed_bytes or 0)
    gib = (least.needed_bytes or 0) / (1 << 30)
    return f"none fits: the smallest, {least.name}, takes {gib:.1f} GiB with {least.context_tokens:,} tokens"


def _bits(quant: QuantFit) -> float:
    return quant.bits_per_weight or 0.0


def _speed(quant: QuantFit) -> float:
    return quant.speed.tokens_per_s if quant.speed else 0.0
