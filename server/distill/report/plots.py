"""The plots of a report, each as the bytes of a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from winnow.models.statistics import FloatArray, IntArray, Interval, kl_bound
from winnow.models.types import SAFETY_THRESHOLD, Branch
from winnow.server.distill.report.answers import Kind
from winnow.server.distill.report.canvas import (
    BLUE,
    COOL_TO_WARM,
    GREEN,
    GREY,
    INK,
    ORANGE,
    drawing,
    label_ends,
    line,
    room,
    ticks_of_n,
)
from winnow.server.distill.report.counts import BINS, Side
from winnow.server.distill.report.findings import Point

MEANING = {"R_s": "how safe", "R_h": "how helpful", "R_c": "the two combined"}
BRANCHES = {
    Branch.HELPFUL: ("helpful: R_h", GREEN),
    Branch.SAFETY_PROMPT: ("safety prompt: R_s", BLUE),
    Branch.UNSAFE: ("unsafe: R_s", ORANGE),
}
NARROW = 8
"""Percent below which a bar is too narrow for its figure."""
LONGEST = 0.995
"""Lengths beyond this share of the candidates share the last bin."""


def kind_label(kind: Kind) -> str:
    """A kind of arm, as legends and tables call it."""
    return f"T = {kind.temperature:g}{', preprompt' if kind.has_preprompt else ''}"


def reward_by_n(curve: Sequence[Point]) -> bytes:
    """Best, median and mean of N against N, as in Llama 2, figure 7. `curve` is not empty."""
    png, sizes = io.BytesIO(), [point.size for point in curve]
    lines = {
        "maximum": (GREEN, [point.best for point in curve]),
        "median": (BLUE, [point.median for point in curve if point.median]),
        "mean": (GREY, [point.mean for point in curve if point.mean]),
    }
    with drawing(png, "Reward of the best, the median and the mean of N") as axes:
        for colour, intervals in reversed(lines.values()):
            line(axes, sizes, intervals, colour)
        ticks_of_n(axes, sizes)
        axes.set_ylabel("R_c")
        room(axes, [item for _, intervals in lines.values() for item in intervals])
        label_ends(axes, sizes[-1], [(name, items[-1].mean, colour) for name, (colour, items) in lines.items()])
    return png.getvalue()


def reward_by_kind(kinds: Mapping[Kind, Sequence[Point]]) -> bytes:
    """Best of N against N for every kind of arm, as in Llama 2, figure 8; cool colours are low temperatures."""
    png = io.BytesIO()
    curves = {kind: curve for kind, curve in kinds.items() if curve}
    temperatures = sorted({kind.temperature for kind in curves})
    shades = COOL_TO_WARM(np.linspace(0, 1, len(temperatures)))
    colours = dict(zip(temperatures, map(to_hex, shades), strict=True))
    sizes = sorted({point.size for curve in curves.values() for point in curve})
    by = "by temperature" if len(temperatures) > 1 else "with and without a preprompt"
    with drawing(png, f"Reward of the best of N, {by}") as axes:
        for kind, curve in curves.items():
            places = [point.size for point in curve]
            line(axes, places, [point.best for point in curve], colours[kind.temperature], kind.has_preprompt)
        ticks_of_n(axes, sizes)
        axes.set_ylabel("R_c")
        room(axes, [point.best for curve in curves.values() for point in curve])
        ends = [(kind_label(kind), curve[-1].best.mean, colours[kind.temperature]) for kind, curve in curves.items()]
        label_ends(axes, sizes[-1], ends)
    return png.getvalue()


def distribution(name: str, candidates: Side, winners: Side) -> bytes | None:
    """How R_s, R_h or R_c of candidates and winners are distributed, in percent of each; None where there are no such scores."""
    counts = [side.histograms[name] for side in (candidates, winners)]
    if not all(count.any() for count in counts):
        return None
    png, edges = io.BytesIO(), np.linspace(0, 1, BINS + 1)
    with drawing(png, f"{name}, {MEANING[name]}") as axes:
        _compared(axes, edges, *counts)
        axes.set_xlim(0, 1)
        axes.set_xlabel(name)
        axes.margins(y=0.12)
        if name == "R_s":
            axes.axvline(SAFETY_THRESHOLD, color=ORANGE, linestyle=(0, (4, 3)), linewidth=1.4)
            axes.annotate(
                f"gate {SAFETY_THRESHOLD:g}", (SAFETY_THRESHOLD, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
                textcoords="offset points", color=ORANGE, va="top",
            )  # fmt: skip
    return png.getvalue()


def lengths(candidates: Side, winners: Side) -> bytes:
    """How long candidates and winners are, in percent of each."""
    total = np.cumsum(candidates.lengths)
    top = max(int(np.searchsorted(total, LONGEST * total[-1])), 8)
    width = max(1, -(-top // 20))
    bins = -(-(top + 1) // width)
    edges = np.arange(bins + 1) * width
    png = io.BytesIO()
    with drawing(png, "Length of candidates and winners") as axes:
        _compared(axes, edges, *(_binned(side.lengths, width, bins) for side in (candidates, winners)))
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("tokens of an answer")
        axes.margins(y=0.12)
    return png.getvalue()


def _binned(lengths: IntArray, width: int, bins: int) -> IntArray:
    places = np.minimum(np.arange(len(lengths)) // width, bins - 1)
    return np.bincount(places, weights=lengths, minlength=bins).astype(np.int64)


def _compared(axes: Axes, edges: FloatArray | IntArray, candidates: IntArray, winners: IntArray) -> None:
    """Two histograms, in percent: candidates filled, winners outlined."""
    shares = [100 * counts / counts.sum() for counts in (candidates, winners)]
    axes.stairs(shares[0], edges, fill=True, color=GREY, alpha=0.45, linewidth=0, label="candidates")
    axes.stairs(shares[1], edges, color=GREEN, linewidth=1.8, clip_on=False, label="winners")
    axes.set_ylabel("share of answers (%)")
    axes.legend(loc="best", handlelength=1.2)


def branches(candidates: Side, winners: Side) -> bytes:
    """Which branch decided R_c, in percent of candidates and of winners."""
    png, sides = io.BytesIO(), (winners, candidates)
    with drawing(png, "Which reward decided", height=2.3) as axes:
        starts = np.zeros(len(sides))
        for branch, (label, colour) in BRANCHES.items():
            shares = np.array([100 * side.branches[branch] / side.answers for side in sides])
            axes.barh(range(len(sides)), shares, left=starts, color=colour, label=label, height=0.62)
            for place, (start, share) in enumerate(zip(starts, shares, strict=True)):
                if share >= NARROW:
                    axes.text(start + share / 2, place, f"{share:.0f} %", color="white", ha="center", va="center")
            starts += shares
        axes.set_yticks(range(len(sides)), ["winners", "candidates"])
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of answers (%)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=0.9, columnspacing=1.2, borderpad=0)
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=30)
    return png.getvalue()


def reward_by_length(fifths: Sequence[Interval]) -> bytes:
    """R_c above the prompt's mean, from the shortest fifth of its answers to the longest. `fifths` has five."""
    png, places = io.BytesIO(), range(len(fifths))
    with drawing(png, "Reward of a prompt's shorter and longer answers") as axes:
        axes.axhline(0, color=GREY, linewidth=1)
        line(axes, places, fifths, BLUE)
        axes.set_xticks(places, ["shortest\nfifth", "second", "middle", "fourth", "longest\nfifth"])
        axes.set_ylabel("R_c above the prompt's mean")
        reach = max(0.05, 1.15 * max(abs(end) for item in fifths for end in (item.low, item.high)))
        axes.set_ylim(-reach, reach)
    return png.getvalue()


def reward_by_kl(curve: Sequence[Point]) -> bytes:
    """Best of N against the root of the KL bound. `curve` is not empty."""
    png, places = io.BytesIO(), [kl_bound(point.size) ** 0.5 for point in curve]
    best = [point.best for point in curve]
    with drawing(png, "Reward against distance from the policy") as axes:
        line(axes, places, best, GREEN)
        for place, point in zip(places, curve, strict=True):
            axes.annotate(
                f"N = {point.size}" if point.size == 1 else f"{point.size}", (place, point.best.mean), xytext=(6, -12),
                textcoords="offset points", color=INK,
            )  # fmt: skip
        axes.set_xlabel("√KL to the policy at most, √nats")
        axes.set_ylabel("R_c of the best of N")
        axes.set_xlim(-0.06 * max(places[-1], 0.5), 1.1 * max(places[-1], 0.5))
        room(axes, best)
    return png.getvalue()
