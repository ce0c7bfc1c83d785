"""`ggufkit manifest make`, `show` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufkit.cli.params import dry_run_option, force_option, output_options, source_option
from ggufkit.cli.quants import quants_table
from ggufkit.cli.render import Out, count_text, size_text, table
from ggufkit.errors import GgufkitError, IntegrityError, printable

if TYPE_CHECKING:
    from ggufkit.hubs.manifest import Manifest, ManifestFile, ManifestSource
    from ggufkit.verbs.manifest import ManifestCheck

SHORT_DIGITS = 12
"""Digits of a digest in a table; --json has all 64."""


@click.group("manifest", short_help="Make, show and check frozen sets of files.")
def command() -> None:
    """Make, show and check frozen sets of files.

    \b
    Examples:
      ggufkit manifest show
      ggufkit manifest show DeepSeek-R1-UD-IQ2_XXS
      ggufkit manifest check DeepSeek-R1-UD-IQ2_XXS
      ggufkit manifest make unsloth/DeepSeek-R1-GGUF:UD-IQ1_S -o r1.json

    A manifest says which files a set has, with sizes, SHA-256 and the repos that publish them. It does
    not change when a repo does, and a mirror can be proven against it: `pull MANIFEST`, and
    `verify FOLDER --against MANIFEST`. Some come with ggufkit; what nobody published is left out of them.
    """


@command.command("make", short_help="Freeze a quant of a repo, or local files.")
@click.argument("ref", metavar="REF|FOLDER")
@click.option("--quant", metavar="Q", help="Which quant, e.g. UD-IQ2_XXS; or a file's path.")
@source_option
@click.option("--revision", metavar="REV", help="Branch, tag or commit.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Else to stdout.")
@force_option
@dry_run_option
@output_options
def make(
    out: Out,
    ref: str,
    quant: str | None,
    source: str,
    revision: str | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Freeze a quant of a repo, or local files.

    \b
    Examples:
      ggufkit manifest make unsloth/DeepSeek-R1-GGUF:UD-IQ2_XXS -o r1.json
      ggufkit manifest make ./DeepSeek-R1-GGUF > r1.json

    Of a repo the listing is frozen, nothing is fetched. Local files are hashed; when they are what was
    pulled, the manifest names the repo too.
    """
    from ggufkit.hubs.manifest import to_json
    from ggufkit.hubs.quants import QuantError
    from ggufkit.verbs.manifest import make_manifest, write_manifest

    try:
        manifest = make_manifest(ref, quant=quant, source=source, revision=revision, progress=out.progress())
    except QuantError as error:
        out.say(quants_table(error.quants))
        raise
    _say_unknown(out, manifest)
    if output is None:
        click.echo(to_json(manifest), nl=False)
        return
    if dry_run:
        out.say("[dry run] nothing is written")
    written = not dry_run and write_manifest(manifest, output, force=force)
    known = f"{count_text(len(manifest.files), 'file')}, {size_text(manifest.total_bytes)}"
    said = "would be written" if dry_run else "written" if written else "is that already"
    document = {"file": output, "written": written, "manifest": manifest}
    out.result(document, printable(f"{output} {said}: {known}"), quiet=[output])


@command.command("show", short_help="Show a manifest, or list those that come with it.")
@click.argument("name", required=False, metavar="[NAME|FILE]")
@output_options
def show(out: Out, name: str | None) -> None:
    """Show a manifest, or list those that come with it.

    \b
    Examples:
      ggufkit manifest show
      ggufkit manifest show DeepSeek-R1-UD-IQ2_XXS -v
      ggufkit manifest show r1.json --json

    -v adds the page that each number was read on.
    """
    from ggufkit.hubs.manifests import need_manifest, shipped_names

    if name is None:
        shipped = [need_manifest(one) for one in shipped_names()]
        sets = [(m.name, len(m.files), _digests_text(m), _repos_text(m.sources)) for m in shipped]
        text = table(("NAME", "FILES", "SHA-256", "REPO"), sets, right=[1])
        out.result({"manifests": shipped}, text, quiet=[m.name for m in shipped])
        return
    manifest = need_manifest(name)
    rows = [(_size_text(f), (f.sha256 or "-")[:SHORT_DIGITS], f.path) for f in manifest.files]
    text = table(("SIZE", "SHA-256", "FILE"), rows, right=[0])
    out.result(manifest, f"{_head_text(manifest)}\n{text}", quiet=[f.path for f in manifest.files])
    _say_unknown(out, manifest)
    for line in _pages(manifest):
        out.detail(line)


@command.command("check", short_help="Ask the hubs whether they still publish it.")
@click.argument("name", metavar="NAME|FILE")
@source_option
@click.option("--strict", is_flag=True, help="Fail also where a digest is missing on one side.")
@output_options
def check(out: Out, name: str, source: str, strict: bool) -> None:
    """Ask the hubs whether they still publish it.

    \b
    Examples:
      ggufkit manifest check DeepSeek-R1-UD-IQ2_XXS
      ggufkit manifest check r1.json --source modelscope

    Each repo of the manifest is listed at its branch; nothing is fetched. "unproven" is a file of which
    nothing differs, but one side knows no digest. Files on this machine are compared by
    `verify FOLDER --against MANIFEST`.

    Exit code 6 when a hub has something else, or nothing, in a file's place.
    """
    from ggufkit.hubs.manifests import need_manifest
    from ggufkit.verbs.manifest import check_manifest

    manifest = need_manifest(name)
    out.say(f"asking for {printable(_repos_text(manifest.sources))}")
    report = check_manifest(manifest, source=source, progress=out.progress())
    differing = [f"{hub.endpoint}: {file.path}" for hub in report.hubs for file in hub.differing]
    out.result(report, _check_text(report), quiet=differing)
    failure = _failure(report, strict)
    if failure is not None:
        raise failure


def _check_text(report: ManifestCheck) -> str:
    rows: list[tuple[str, ...]] = []
    for hub in report.hubs:
        rows += [(file.status, hub.source.hub, file.path) for file in hub.files]
        rows += [("no answer", hub.source.hub, hub.source.repo_id)] if hub.error else []
    text = table(("STATUS", "HUB", "FILE"), rows)
    for hub in report.hubs:
        then = hub.source.commit
        if hub.commit and then and hub.commit != then:
            where = f"{hub.source.repo_id} on {hub.source.hub}"
            text += f"\n{where} is at {hub.commit[:SHORT_DIGITS]} now, was frozen at {then[:SHORT_DIGITS]}"
    return text


def _failure(report: ManifestCheck, strict: bool) -> GgufkitError | None:
    """Return the error for what differs, else for a hub that did not answer."""
    lines = [f"  {h.source.hub}: {file.path} {file.detail}" for h in report.hubs for file in h.differing]
    if lines:
        message = f"{report.name} is not what is published now:\n" + "\n".join(lines)
        return IntegrityError(message, hint=_hint(report))
    silent = [hub for hub in report.hubs if hub.error is not None]
    if silent:
        error = GgufkitError("; ".join(f"{hub.error}" for hub in silent))
        error.exit_code = silent[0].exit_code
        return error
    unproven = [f"  {f.path}: {f.detail}" for hub in report.hubs for f in hub.files if f.status == "unproven"]
    if strict and unproven:
        return IntegrityError(f"{len(unproven)} unproven (--strict):\n" + "\n".join(unproven))
    return None


def _hint(report: ManifestCheck) -> str:
    """Name the way to the frozen files, where there still is one."""
    for hub in report.hubs:
        source = hub.source
        if hub.differing and source.asks_for != source.revision:
            return f"the frozen ones may still be at {source.repo_id}@{source.asks_for} on {source.hub}"
    return "the repo was changed: make a manifest of it anew, if you trust the change"


def _head_text(manifest: Manifest) -> str:
    sources = [f"{printable(_source_text(source))}" for source in manifest.sources]
    head = printable(f"{manifest.name}, {count_text(len(manifest.files), 'file')}")
    return "\n".join([head, *(f"  {source}" for source in sources)])


def _source_text(source: ManifestSource) -> str:
    commit = f", commit {source.commit}" if source.commit else ""
    return f"{source.hub}: {source.repo_id}@{source.revision}{commit}"


def _repos_text(sources: Sequence[ManifestSource]) -> str:
    short = {"huggingface": "hf", "modelscope": "ms"}
    return ", ".join(f"{short[source.hub]}:{source.repo_id}" for source in sources) or "-"


def _digests_text(manifest: Manifest) -> str:
    n = sum(file.sha256 is not None for file in manifest.files)
    return "all" if n == len(manifest.files) else f"{n} of {len(manifest.files)}"


def _size_text(file: ManifestFile) -> str:
    if file.size_bytes is not None:
        return size_text(file.size_bytes)
    return "-" if file.rounded_gb is None else f"about {size_text(file.rounded_gb * 1e9)}"


def _say_unknown(out: Out, manifest: Manifest) -> None:
    n = sum(file.sha256 is None for file in manifest.files)
    if n:
        files = count_text(len(manifest.files), "file")
        out.warn(f"no SHA-256 is known of {n} of {files}: name and size are all there is to compare")


def _pages(manifest: Manifest) -> list[str]:
    """Return where each number was read."""
    lines = [f"{s.hub}: {s.repo_id}: seen at {s.seen_at}" for s in manifest.sources if s.seen_at]
    for file in manifest.files:
        lines += [f"{file.path}: size from {file.size_from}"] if file.size_from else []
        lines += [f"{file.path}: SHA-256 from {file.sha256_from}"] if file.sha256_from else []
    return lines
