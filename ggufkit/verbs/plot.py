"""Draw what `fit` found as one picture that a forum post can use: PNG or SVG."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufkit.errors import TargetExistsError, ToolError, UsageError
from ggufkit.fit.verdict import Level
from ggufkit.transfer.disk import write_atomic
from ggufkit.verbs.chart import Chart, Row, chart_of, range_text
from ggufkit.verbs.fit import FitReport
from ggufkit.verbs.fit_machines import Comparison
from ggufkit.verbs.fit_repo import RepoFit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {".png": "png", ".svg": "svg"}
DPI = 160
MAX_OVER = 2.0  # bars that are longer than the memory times this are cut off
WIDTH_IN, ROW_IN, MARGIN_IN = 10.5, 0.36, 1.75
LETTER_IN = 0.068  # of the notes' size, on average
WIDE_RANGE = 20.0  # speeds that differ by more are drawn on a logarithmic axis

# Paul Tol's "bright" scheme: told apart also by the colour-blind.
COLOURS: dict[Level | None, str] = {
    "fits": "#228833",
    "tight": "#ccbb44",
    "pages": "#ee6677",
    "no": "#bbbbbb",
    "unknown": "#bbbbbb",
    None: "#bbbbbb",
}
INK, FAINT, LIMIT = "#222222", "#777777", "#4477aa"


def check_target(path: Path, *, force: bool = False) -> None:
    """Raise UsageError for a picture that can't be made, TargetExistsError for one that is there."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {path}: a picture is .png or .svg", hint=f"--plot {path.stem or 'fit'}.png")
    if path.exists() and not force:
        raise TargetExistsError(f"{path} is there already", hint="--force overwrites it")


def plot(found: RepoFit | Comparison | FitReport, path: Path, *, force: bool = False) -> Path:
    """Draw the quants, the machines or the contexts that `fit` judged into `path` and return it.

    Raises ToolError without matplotlib, and what `check_target` raises.
    """
    check_target(path, force=force)
    write_atomic(path, draw(chart_of(found), FORMATS[path.suffix.lower()]))
    return path


def draw(chart: Chart, format_: str) -> bytes:
    """Return the picture in the format `png` or `svg`; raises ToolError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise ToolError("drawing needs matplotlib", hint="pip install 'ggufkit[plot]'") from None
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "svg.hashsalt": "ggufkit",
        "text.parse_math": False,
    }
    metadata = {"Date": None} if format_ == "svg" else {"Software": None}
    data = io.BytesIO()
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font has not are drawn as boxes
        figure = Figure(figsize=(WIDTH_IN, MARGIN_IN + ROW_IN * max(len(chart.rows), 3)), facecolor="white")
        _fill(figure, chart)
        figure.savefig(data, format=format_, dpi=DPI, metadata=metadata)
    return data.getvalue()


def _fill(figure: Figure, chart: Chart) -> None:
    height = figure.get_figheight()
    speeds = any(row.speed for row in chart.rows)
    top, bottom = 1 - 0.85 / height, 0.85 / height
    figure.text(0.02, 1 - 0.3 / height, chart.title, size=14, weight="bold", color=INK, va="center")
    figure.text(0.02, 1 - 0.58 / height, chart.subtitle, size=9, color=FAINT, va="center")
    figure.text(0.02, 0.2 / height, chart.footer, size=7.5, color=FAINT, va="center")
    widths = (0.50, 0.24) if speeds else (0.74, 0.0)
    longest = max((len(row.label) + 3 * row.marked for row in chart.rows), default=0)
    left = 0.03 + 0.0078 * longest
    memory = figure.add_axes((left, bottom, 0.96 - left - widths[1] - 0.03 * speeds, top - bottom))
    _memory(memory, chart)
    if speeds:
        _speeds(figure.add_axes((0.96 - widths[1], bottom, widths[1], top - bottom)), chart)


def _memory(axes: Axes, chart: Chart) -> None:
    """Draw a bar for each row, its note behind it, and where memory ends."""
    _frame(axes, chart, "GiB of memory; blue: what there is")
    limits = [row.limit_gib for row in chart.rows if row.limit_gib] + [chart.limit_gib or 0.0]
    least = min((row.bar_gib or 0.0 for row in chart.rows), default=0.0)
    cut = max(max(limits) * MAX_OVER, least) or 1.0
    reaches = [min(max(row.bar_gib or 0.0, row.limit_gib or 0.0), cut) for row in chart.rows]
    reach = max([*reaches, max(limits), 0.001])
    width_in = axes.get_position().width * WIDTH_IN
    ends = [
        reach * width_in / (width_in - _text_in(_note(row, cut), width_in))
        for row, reach in zip(chart.rows, reaches, strict=True)
    ]
    axes.set_xlim(0, max([*ends, reach * 1.05]))
    for y, (row, end) in enumerate(zip(chart.rows, reaches, strict=True)):
        if row.bar_gib is not None:
            axes.barh(y, min(row.bar_gib, cut), height=0.62, color=COLOURS[row.level], zorder=2)
        if row.limit_gib is not None:
            axes.plot([row.limit_gib] * 2, [y - 0.42, y + 0.42], color=LIMIT, lw=2.2, zorder=3)
        text = axes.text(end + reach * 0.015, y, _note(row, cut), size=8, color=INK, va="center", zorder=5)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.2})
    if chart.limit_gib is not None:
        axes.axvline(chart.limit_gib, color=LIMIT, lw=1.6, zorder=4)
        label = f"{chart.limit_gib:,.0f} GiB"
        axes.text(chart.limit_gib, -0.62, label, size=8, color=LIMIT, ha="center", va="bottom")
    axes.set_yticks(range(len(chart.rows)), [_label(row) for row in chart.rows], size=9, color=INK)
    for text, row in zip(axes.get_yticklabels(), chart.rows, strict=True):
        text.set_fontweight("bold" if row.marked else "normal")


def _label(row: Row) -> str:
    return f"★ {row.label}" if row.marked else row.label


def _text_in(text: str, width_in: float) -> float:
    """Return about how wide a note is, inches; no more than leaves a place for the bars."""
    return min(LETTER_IN * (len(text) + 2), width_in * 0.6)


def _note(row: Row, cut_gib: float) -> str:
    """Return what stands behind the bar: its length, which a bar that is cut off does not show."""
    if row.bar_gib is None:
        return row.note
    size = f"{row.bar_gib:,.1f} GiB" if row.bar_gib >= 0.1 else f"{row.bar_gib * 1024:,.1f} MiB"
    return f"{'» ' if row.bar_gib > cut_gib else ''}{size}, {row.note}"


def _speeds(axes: Axes, chart: Chart) -> None:
    """Draw a line from the lowest to the highest speed, with a dot at the likely one."""
    _frame(axes, chart, "tokens/s")
    speeds = [row.speed for row in chart.rows if row.speed]
    least = min(speed.low_tokens_per_s for speed in speeds)
    most = max(speed.high_tokens_per_s for speed in speeds)
    if most / least > WIDE_RANGE:
        axes.set_xscale("log")
        axes.set_xlim(least / 1.3, most * (most / least) ** 0.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="x", which="minor", length=0)
    else:
        axes.set_xlim(0, most * 1.5)
    for y, row in enumerate(chart.rows):
        if row.speed is None:
            continue
        low, high = row.speed.low_tokens_per_s, row.speed.high_tokens_per_s
        colour = COLOURS[row.level]
        axes.plot([low, high], [y, y], color=colour, lw=5, solid_capstyle="round", alpha=0.45, zorder=2)
        axes.plot([row.speed.tokens_per_s], [y], "o", color=colour, ms=6, zorder=3)
        text = range_text(row.speed)
        axes.annotate(text, (high, y), (6, 0), textcoords="offset points", size=8, color=INK, va="center")
    axes.set_yticks([])


def _frame(axes: Axes, chart: Chart, unit: str) -> None:
    axes.set_ylim(len(chart.rows) - 0.4, -0.6)
    axes.set_xlabel(unit, size=8.5, color=FAINT)
    axes.tick_params(axis="x", labelsize=8, colors=FAINT, length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cccccc")
