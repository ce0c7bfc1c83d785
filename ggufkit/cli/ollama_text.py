"""What ollama-import prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufkit.cli.render import Out, count_text, size_text
from ggufkit.errors import printable
from ggufkit.runtimes.ways import quote

if TYPE_CHECKING:
    from ggufkit.runtimes.ollama import StorePlace
    from ggufkit.verbs.ollama_import import ImportPlan, ImportReport
    from ggufkit.verbs.ollama_undo import UndoPlan


def store_text(place: StorePlace) -> str:
    """Say which store it is, and how it was found."""
    by = f"the Ollama at {place.found_by} uses it" if place.by_server else place.found_by
    return f"{place.store.root} ({by})"


def show_plan(out: Out, plan: ImportPlan) -> None:
    """Print what an import would do."""
    for warning in plan.warnings:
        out.warn(warning)
    out.say("[dry run] nothing is written")
    out.result(plan, "\n".join(_plan_lines(plan)), quiet=[plan.name])


def _plan_lines(plan: ImportPlan) -> list[str]:
    if plan.action == "nothing":
        return [f"{plan.name} is there already, from {plan.source}"]
    lines = []
    if plan.merge_bytes:
        lines.append(f"merge    {size_text(plan.merge_bytes)} to {plan.source}")
    if plan.action == "compare":
        lines.append(f"compare  {plan.source} with the {plan.name} that is there")
    room = f"{size_text(plan.free_bytes)} free"
    verb = "move" if plan.method == "move" else "copy" if plan.copy_bytes else "link"
    how = f"{verb}     {size_text(plan.copy_bytes)} ({room}) of" if plan.copy_bytes else f"{verb}    "
    lines.append(f"{how} {plan.source}")
    lines.append(f"         {plan.why}")
    told = ", ".join(layer.kind for layer in plan.recipe.layers) or "nothing but the weights"
    lines.append(f"write    {told} ({plan.recipe.family or 'family not known'})")
    if plan.memory.num_ctx:
        mapped = ", use_mmap" if plan.memory.use_mmap else ""
        lines.append(f"         num_ctx {plan.memory.num_ctx}{mapped} ({plan.memory.why})")
    lines.append(f"{'replace' if plan.action == 'replace' else 'name   '}  {plan.name}")
    return lines


def show_report(out: Out, report: ImportReport, answer: str | None = None) -> None:
    """Print what an import came to, and what the model said."""
    for warning in report.warnings:
        out.warn(warning)
    if report.action == "nothing":
        text = f"{report.name} is there already, {'moved ' * report.moved}from {report.source}"
    else:
        how = "moved" if report.moved else _HOW[report.method]
        text = f"{report.name}: {size_text(report.n_bytes)} {how}"
        text += f", {size_text(report.extra_bytes)} more on the disk"
    listed = {True: "listed by the running Ollama", False: "not listed by the running Ollama", None: None}
    details = [f"sha256: {report.sha256}", f"id: {report.id[:12]}", listed[report.listed]]
    if answer is not None:
        details.append(f"it answers: {printable(answer)}")
    out.result(report, "\n".join([text, *filter(None, details)]), quiet=[report.name])
    out.hint(f"next: {_next(report)}")


def _next(report: ImportReport) -> str:
    if report.for_another:
        return (
            f"on the other machine: cp -a {quote(report.store)}/. ~/.ollama/models/ (or where its models are)"
        )
    return f"ollama run {report.name}"


def show_undo(out: Out, plan: UndoPlan, *, done: bool) -> None:
    """Print what is taken back, or would be."""
    lines = [f"remove  {plan.name} from {plan.store}"]
    lines.append(f"remove  {count_text(len(plan.blobs), 'blob')}, {plan.kept} are used by others")
    if plan.give_back is not None:
        lines.insert(0, f"return  {plan.give_back[1]}")
    if not done:
        out.say("[dry run] nothing is written")
    out.result(plan, "\n".join(lines), quiet=[plan.name])


_HOW = {
    "hard-link": "linked",
    "symbolic-link": "linked by name",
    "reflink": "copied without its bytes (reflink)",
    "copy": "copied",
    "present": "in the store before",
}
