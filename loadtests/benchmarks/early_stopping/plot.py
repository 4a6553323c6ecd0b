"""The plot: mean R_c against median latency for each load, and below it the share of wrong answers against tokens."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from winnow.loadtests.benchmarks.early_stopping.sentences import Measurement, clients
from winnow.loadtests.benchmarks.early_stopping.settings import EXACT
from winnow.loadtests.benchmarks.early_stopping.verdicts import Figures, Row
from winnow.models.reporting.plots import COLOURS, DPI, INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

MARKERS = ("o", "s", "^", "D", "v")
"""One for each setting of a group."""
WIDTH, HEIGHT, LEGEND_ROW = 5.0, 4.0, 0.24

Read = Callable[[Row], float]
Styles = dict[tuple[str, str], tuple[str, str]]
"""Colour and marker of each early-stopping setting, by its group and value."""


def draw(measurement: Measurement) -> bytes:
    """Return a PNG."""
    png, styles = io.BytesIO(), _styles(measurement)
    groups = list(dict.fromkeys(group for group, _ in styles))
    legend = LEGEND_ROW * (2 + max(sum(group == name for group, _ in styles) for name in groups)) if groups else 0.0
    with styled():
        columns = len(measurement.loads)
        size = (max(WIDTH * columns, 2.0 * (1 + len(groups))), 2 * HEIGHT + legend)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(2, 1, height_ratios=[2 * HEIGHT, max(legend, 0.1)])
        above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        axes = above.subplots(2, columns, squeeze=False)
        for load, upper, lower in zip(measurement.loads, *axes, strict=True):
            _column(load, styles, upper, lower)
        axes[0][0].set_ylabel("mean R_c of the winners")
        axes[1][0].set_ylabel("wrong answers (%)")
        _legends(below, groups, styles)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return png.getvalue()


def _styles(measurement: Measurement) -> Styles:
    """Return a colour for each group and a marker for each value in it."""
    styles: Styles = {}
    groups = list(dict.fromkeys(setting.group for setting in measurement.early_stopping))
    for setting in measurement.early_stopping:
        marker = MARKERS[sum(group == setting.group for group, _ in styles) % len(MARKERS)]
        styles[setting.group, setting.value] = (COLOURS[groups.index(setting.group) % len(COLOURS)], marker)
    return styles


def _column(load: Figures, styles: Styles, upper: Axes, lower: Axes) -> None:
    """Draw the two panels of a load."""
    upper.set_title(clients(load.clients), loc="left")
    _panel(upper, load, styles, lambda row: row.p50_ms.value, lambda row: row.reward.value, (5, -11))
    upper.set_xlabel("median latency (ms)")
    _panel(lower, load, styles, lambda row: row.tokens.value, lambda row: 100 * row.wrong.value, (4, 6))
    lower.set_xlabel("sampled tokens an answer")


def _panel(axes: Axes, load: Figures, styles: Styles, x: Read, y: Read, offset: tuple[int, int]) -> None:
    """Draw the exact curve with its K, and every early-stopping setting; `offset` is that of the labels, in points."""
    axes.plot([x(r) for r in load.exact], [y(r) for r in load.exact], color=INK, marker=".", zorder=2)
    for row in _apart(load.exact, x, y):
        axes.annotate(f"K={row.setting.value}", (x(row), y(row)), xytext=offset, textcoords="offset points", fontsize=8)
    groups: dict[str, list[Row]] = {}
    for row in load.early_stopping:
        groups.setdefault(row.setting.group, []).append(row)
        colour, marker = styles[row.setting.group, row.setting.value]
        axes.plot(x(row), y(row), color=colour, marker=marker, linestyle="", markeredgecolor="white",
                  markeredgewidth=0.6, markersize=7, zorder=3)  # fmt: skip
    for name, rows in groups.items():
        if not name.startswith("early"):  # settings of early rejection have no order
            colour = styles[name, rows[0].setting.value][0]
            axes.plot([x(r) for r in rows], [y(r) for r in rows], color=colour, linewidth=1, alpha=0.6, zorder=1)
    axes.margins(x=0.12, y=0.08)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _apart(rows: Sequence[Row], x: Read, y: Read) -> list[Row]:
    """Return the rows whose labels do not overlap: the ends first, then powers of two."""
    width, height = (max(map(read, rows)) - min(map(read, rows)) or 1.0 for read in (x, y)) if rows else (1.0, 1.0)
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r not in (rows[0], rows[-1]), r.setting.candidates[0].bit_count() > 1)):
        if all(abs(x(row) - x(k)) > 0.14 * width or abs(y(row) - y(k)) > 0.07 * height for k in kept):
            kept.append(row)
    return kept


def _legends(figure: SubFigure, groups: Sequence[str], styles: Styles) -> None:
    """Draw a legend for the curve and for each group, side by side."""
    curve = Line2D([], [], color=INK, marker=".", label="K")
    for number, name in enumerate((EXACT, *groups)):
        handles = [curve] if name == EXACT else [
            Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7, markeredgecolor="white",
                   label=value or name)
            for (group, value), (colour, marker) in styles.items()
            if group == name
        ]  # fmt: skip
        figure.legend(
            handles=handles, title=name, loc="upper left", bbox_to_anchor=((number + 0.15) / (1 + len(groups)), 1.0),
            alignment="left", handletextpad=0.2, title_fontsize=9,
        )  # fmt: skip
