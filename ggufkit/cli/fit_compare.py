"""What `ggufkit fit --compare` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.render import Out, table
from ggufkit.errors import UsageError

if TYPE_CHECKING:
    from ggufkit.verbs.fit import FitReport
    from ggufkit.verbs.fit_params import LlamaComparison


def show_llama(out: Out, model: str | None, report: FitReport) -> None:
    """Run llama-fit-params on a local model and say, on stderr, whether it agrees.

    Raises UsageError for a model on a hub, ToolError when llama-fit-params can't be asked.
    """
    from ggufkit.hubs.refs import is_ref
    from ggufkit.transfer.sources import open_header
    from ggufkit.verbs.fit_params import compare_with_llama
    from ggufkit.verbs.locate import find_model

    if model is not None and is_ref(model):
        raise UsageError("--compare needs the model here, as llama.cpp reads it", hint="ggufkit pull first")
    files = find_model(model).files
    headers = [open_header(path) for path in files]
    found = compare_with_llama(files[0], headers, report.estimate, report.placement)
    out.say(_text(found))
    if not all(device.is_equal for device in found.devices):
        out.warn("llama.cpp says otherwise: please tell us the model, and what llama-fit-params prints")


def _text(found: LlamaComparison) -> str:
    rows = [
        (device.name, *(_pair(a, b) for a, b in zip(device.ours_mib, device.theirs_mib, strict=True)))
        for device in found.devices
    ]
    lines = [f"{found.program}, MiB (ours, its):", table(("DEVICE", "WEIGHTS", "CACHE", "COMPUTE"), rows)]
    if any(device.name == "Host" for device in found.devices):
        lines.append(
            "(without weights that the CPU rearranges, which it leaves out; scores of a whole batch)"
        )
    return "\n".join(lines)


def _pair(ours: int, theirs: int) -> str:
    return f"{ours:,}" if ours == theirs else f"{ours:,}, {theirs:,}"
