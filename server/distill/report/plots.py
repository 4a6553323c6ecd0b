"""The plots of a report: `draw` yields those that the findings have data for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.ticker import MaxNLocator

from winnow.models.reporting.numbers import number, share, signed
from winnow.models.reporting.plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    Plot,
    draw_intervals,
    drawing,
    label_ends,
)
from winnow.models.statistics import Interval, kl_bound
from winnow.models.types import SAFETY_THRESHOLD, Branch
from winnow.server.distill.report.answers import ArmKind
from winnow.server.distill.report.counts import BINS, Counts, Side
from winnow.server.distill.report.findings import Findings, Length, Point
from winnow.server.distill.report.waves import DrawnCounts, WaveFindings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from winnow.models.statistics import FloatArray, IntArray

DISTRIBUTIONS = {
    "R_s": ("safety", "how safe", "R_s. Answers left of the threshold count as unsafe."),
    "R_h": ("helpfulness", "how helpful", "R_h, where it was needed: not for safety prompts."),
    "R_c": ("combined", "the two combined", "R_c, which ranks the answers."),
}
"""For each score: the name of its plot, the meaning in its title, and its caption."""
NAMES = frozenset(
    {
        "reward-by-n",
        "reward-by-tokens",
        "candidates",
        "reward-by-temperature",
        "reward-by-length",
        "reward-by-kl",
        "branches",
        "lengths",
    }
    | {name for name, *_ in DISTRIBUTIONS.values()}
)
"""The names of all plots that a report may have."""
BRANCHES = {
    Branch.HELPFUL: ("helpful: R_h", GREEN),
    Branch.SAFETY_PROMPT: ("safety prompt: R_s", BLUE),
    Branch.UNSAFE: ("unsafe: R_s", ORANGE),
}
COOL_TO_WARM = LinearSegmentedColormap.from_list("temperature", ["#1f5fa8", "#8b3f9e", "#cf5a1a"])
"""The colours of temperatures; their equal lightness keeps every line visible when a dark page inverts the plot."""
NARROW = 8
"""Percent below which a bar is too narrow for its figure."""
LONGEST = 0.995
"""The share of candidates with bins of their own in the plot of lengths; all longer ones share the last bin."""


def kind_label(kind: ArmKind) -> str:
    """Return the label of a kind of arm in legends and tables."""
    return f"T = {kind.temperature:g}{', preprompt' if kind.has_preprompt else ''}"


def draw(findings: Findings) -> Iterator[Plot]:
    """Yield the plots that there is data for; none if no prompt has answers."""
    curve, counts = findings.curve, findings.counts
    if not curve:
        return
    yield reward_by_n(curve)
    if findings.waves:
        if plot := reward_by_tokens(findings.waves, findings.winner):
            yield plot
        if findings.waves.drawn.prompts:
            yield candidates_drawn(findings.waves.drawn)
    if any(findings.kinds.values()):
        yield reward_by_kind({kind: points for kind, points in findings.kinds.items() if points})
    for score in DISTRIBUTIONS:
        if plot := distribution(score, counts.candidates, counts.winners):
            yield plot
    yield branches(counts.candidates, counts.winners)
    if findings.length is not None:
        if findings.length.fifths:
            yield reward_by_length(findings.length.fifths)
        yield lengths(counts, findings.length)
    yield reward_by_kl(curve)


def reward_by_n(curve: Sequence[Point]) -> Plot:
    """Draw best, median and mean of N against N, as in Llama 2, figure 7. `curve` is not empty."""
    png, sizes, last = io.BytesIO(), [point.size for point in curve], curve[-1]
    lines = {
        "maximum": (GREEN, [point.best for point in curve]),
        "median": (BLUE, [point.median for point in curve if point.median]),
        "mean": (GREY, [point.mean for point in curve if point.mean]),
    }
    with drawing(png, "Reward of the best, the median and the mean of N") as axes:
        for colour, intervals in reversed(lines.values()):
            draw_intervals(axes, sizes, intervals, colour)
        _n_axis(axes, sizes)
        _reward_limits(axes, [item for _, intervals in lines.values() for item in intervals])
        label_ends(axes, sizes[-1], [(name, items[-1].value, colour) for name, (colour, items) in lines.items()])
    ends = ""
    if last.median and last.mean:
        ends = f"; the median ends at {number(last.median.value)}, the mean at {number(last.mean.value)}"
    return Plot(
        png.getvalue(),
        f"R_c of the best of N goes {_growth(curve)}{ends}.",
        "Maximum, median and mean of N, with 95 % intervals (Llama 2, figure 7).",
        "reward-by-n",
    )


def reward_by_tokens(found: WaveFindings, winner: Interval | None) -> Plot | None:
    """Draw R_c against tokens a prompt: every fixed K, and waves, simulated or drawn; None if there is one K only."""
    measured = [item for item in found.fixed if not item.is_estimated]
    estimated = [*measured[-1:], *(item for item in found.fixed if item.is_estimated)]
    if len(found.fixed) < 2:
        return None
    png, shown = io.BytesIO(), [item.reward for item in found.fixed]
    with drawing(png, "Reward against tokens: waves and a fixed K") as axes:
        draw_intervals(axes, [item.tokens for item in measured], [item.reward for item in measured], BLUE)
        if len(estimated) > 1:
            draw_intervals(axes, [item.tokens for item in estimated], [item.reward for item in estimated], BLUE, True)
        for item in (found.fixed[0], found.fixed[len(found.fixed) // 2], found.fixed[-1]):
            axes.annotate(
                f"K = {item.size}", (item.tokens, item.reward.value), xytext=(5, -13), textcoords="offset points",
                color=BLUE,
            )  # fmt: skip
        if stops := [stop for stop in found.stops if stop.stopped > 0]:
            draw_intervals(axes, [stop.tokens for stop in stops], [stop.reward for stop in stops], GREEN)
            shown += [stop.reward for stop in stops]
            place = (stops[0].tokens, stops[0].reward.value)
            axes.annotate("waves", place, xytext=(-8, 6), textcoords="offset points", color=GREEN, ha="right")
        elif found.spent and winner:
            axes.plot([found.spent.value], [winner.value], marker="*", markersize=14, color=GREEN, linestyle="none")
            axes.annotate(
                "this run", (found.spent.value, winner.value), xytext=(9, 4), textcoords="offset points", color=GREEN
            )
            shown.append(winner)
        axes.set_xlabel("tokens of all candidates, a prompt")
        axes.set_xlim(left=0)
        _reward_limits(axes, shown)
    first, last = (f"{number(item.reward.value)} at K = {item.size}" for item in (found.fixed[0], found.fixed[-1]))
    return Plot(
        png.getvalue(),
        f"R_c of the best against tokens a prompt. A fixed K goes from {first} to {last}.",
        "Blue: a fixed K, measured (line) or estimated (dashed). Green: waves that stop at a reward. 95 % intervals.",
        "reward-by-tokens",
    )


def candidates_drawn(drawn: DrawnCounts) -> Plot:
    """Draw the distribution of k over the prompts that were sampled in waves, in percent; there is one at least."""
    png, sizes = io.BytesIO(), sorted(drawn.candidates)
    shares = [100 * drawn.candidates[size] / drawn.prompts for size in sizes]
    with drawing(png, "Candidates of a prompt") as axes:
        axes.bar(sizes, shares, width=0.8 * min((b - a for a, b in pairwise(sizes)), default=1), color=GREEN)
        axes.set_xlabel("k, candidates")
        axes.set_ylabel("prompts, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Plot(
        png.getvalue(),
        "Histogram of k. " + "; ".join(f"{size}: {share:.0f} %" for size, share in zip(sizes, shares, strict=True)),
        "How many candidates the prompts got.",
        "candidates",
    )


def _growth(curve: Sequence[Point]) -> str:
    first, last = curve[0], curve[-1]
    return f"from {number(first.best.value)} at N = {first.size} to {number(last.best.value)} at N = {last.size}"


def reward_by_kind(kinds: Mapping[ArmKind, Sequence[Point]]) -> Plot:
    """Draw the best of N against N for every kind of arm, as in Llama 2, figure 8; cool colours are low temperatures.

    No curve of `kinds` is empty.
    """
    png = io.BytesIO()
    temperatures = sorted({kind.temperature for kind in kinds})
    shades = COOL_TO_WARM(np.linspace(0, 1, len(temperatures)))
    colours = dict(zip(temperatures, map(to_hex, shades), strict=True))
    sizes = sorted({point.size for curve in kinds.values() for point in curve})
    by = "by temperature" if len(temperatures) > 1 else "with and without a preprompt"
    with drawing(png, f"Reward of the best of N, {by}") as axes:
        for kind, curve in kinds.items():
            places = [point.size for point in curve]
            best = [point.best for point in curve]
            draw_intervals(axes, places, best, colours[kind.temperature], kind.has_preprompt)
        _n_axis(axes, sizes)
        _reward_limits(axes, [point.best for curve in kinds.values() for point in curve])
        ends = [(kind_label(kind), curve[-1].best.value, colours[kind.temperature]) for kind, curve in kinds.items()]
        label_ends(axes, sizes[-1], ends)
    summary = "; ".join(
        f"{kind_label(kind)}: {number(curve[-1].best.value)} at N = {curve[-1].size}" for kind, curve in kinds.items()
    )
    return Plot(
        png.getvalue(),
        f"R_c of the best of N, one line per temperature. {summary}.",
        "Maximum of N by temperature, with 95 % intervals (Llama 2, figure 8). Dashed: sampled with a preprompt.",
        "reward-by-temperature",
    )


def distribution(score: str, candidates: Side, winners: Side) -> Plot | None:
    """Draw the distribution of R_s, R_h or R_c over candidates and winners, in percent; None without such scores."""
    histograms = [side.histograms[score] for side in (candidates, winners)]
    if not all(counts.any() for counts in histograms):
        return None
    name, meaning, caption = DISTRIBUTIONS[score]
    png, edges = io.BytesIO(), np.linspace(0, 1, BINS + 1)
    with drawing(png, f"{score}, {meaning}") as axes:
        _compare(axes, edges, *histograms)
        axes.set_xlim(0, 1)
        axes.set_xlabel(score)
        axes.margins(y=0.12)
        if score == "R_s":
            axes.axvline(SAFETY_THRESHOLD, color=ORANGE, linestyle=(0, (4, 3)), linewidth=1.4)
            axes.annotate(
                f"threshold {SAFETY_THRESHOLD:g}", (SAFETY_THRESHOLD, 1), xycoords=("data", "axes fraction"),
                xytext=(4, -2), textcoords="offset points", color=ORANGE, va="top",
            )  # fmt: skip
    alt = f"Histograms of {score} between 0 and 1, of all candidates and of the winners."
    return Plot(png.getvalue(), alt, caption, name)


def lengths(counts: Counts, length: Length) -> Plot:
    """Draw the lengths of candidates and winners, in percent of each."""
    total = np.cumsum(counts.candidates.lengths)
    top = max(int(np.searchsorted(total, LONGEST * total[-1])), 8)
    width = max(1, -(-top // 20))
    bins = -(-(top + 1) // width)
    edges = np.arange(bins + 1) * width
    png = io.BytesIO()
    with drawing(png, "Length of candidates and winners") as axes:
        sides = (counts.candidates, counts.winners)
        _compare(axes, edges, *(_binned(side.lengths, width, bins) for side in sides))
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("tokens of an answer")
        axes.margins(y=0.12)
    return Plot(
        png.getvalue(),
        f"Histograms of tokens. Mean of candidates: {number(length.mean.value, 1)}, of winners: "
        f"{number(length.winner.value, 1)}.",
        "Tokens, the end of the text included. The last bar holds all longer answers.",
        "lengths",
    )


def _binned(lengths: IntArray, width: int, bins: int) -> IntArray:
    places = np.minimum(np.arange(len(lengths)) // width, bins - 1)
    return np.bincount(places, weights=lengths, minlength=bins).astype(np.int64)


def _compare(axes: Axes, edges: FloatArray | IntArray, candidates: IntArray, winners: IntArray) -> None:
    """Draw two histograms, in percent: candidates filled, winners outlined."""
    shares = [100 * counts / counts.sum() for counts in (candidates, winners)]
    axes.stairs(shares[0], edges, fill=True, color=GREY, alpha=0.45, linewidth=0, label="candidates")
    axes.stairs(shares[1], edges, color=GREEN, linewidth=1.8, clip_on=False, label="winners")
    axes.set_ylabel("share of answers (%)")
    axes.legend(loc="best", handlelength=1.2)


def branches(candidates: Side, winners: Side) -> Plot:
    """Draw the shares of candidates and of winners by the branch that decided R_c."""
    png, sides = io.BytesIO(), (winners, candidates)
    with drawing(png, "Which reward decided", height=2.3) as axes:
        starts = np.zeros(len(sides))
        for branch, (label, colour) in BRANCHES.items():
            shares = np.array([100 * side.branches[branch] / side.answers for side in sides])
            axes.barh(range(len(sides)), shares, left=starts, color=colour, label=label, height=0.62)
            for place, (start, part) in enumerate(zip(starts, shares, strict=True)):
                if part >= NARROW:
                    axes.text(start + part / 2, place, f"{part:.0f} %", color="white", ha="center", va="center")
            starts += shares
        axes.set_yticks(range(len(sides)), ["winners", "candidates"])
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of answers (%)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=0.9, columnspacing=1.2, borderpad=0)
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=30)
    helpful = [share(side.branches[Branch.HELPFUL], side.answers) for side in (candidates, winners)]
    alt = f"R_h decided for {helpful[0]} of the candidates and {helpful[1]} of the winners."
    return Plot(png.getvalue(), alt, "The reward that R_c was taken from.", "branches")


def reward_by_length(fifths: Sequence[Interval]) -> Plot:
    """Draw R_c above the prompt's mean, from the shortest fifth of its answers to the longest. `fifths` has five."""
    png, places = io.BytesIO(), range(len(fifths))
    with drawing(png, "Reward of a prompt's shorter and longer answers") as axes:
        axes.axhline(0, color=GREY, linewidth=1)
        draw_intervals(axes, places, fifths, BLUE)
        axes.set_xticks(places, ["shortest\nfifth", "second", "middle", "fourth", "longest\nfifth"])
        axes.set_ylabel("R_c above the prompt's mean")
        reach = max(0.05, 1.15 * max(abs(end) for item in fifths for end in (item.low, item.high)))
        axes.set_ylim(-reach, reach)
    shortest, longest = (signed(fifths[place].value) for place in (0, -1))
    return Plot(
        png.getvalue(),
        f"R_c above the prompt's mean: {shortest} for the shortest fifth of answers, {longest} for the longest.",
        "Each prompt's answers in five parts by length; R_c above the prompt's mean, with 95 % intervals. "
        "Flat: length does not matter.",
        "reward-by-length",
    )


def reward_by_kl(curve: Sequence[Point]) -> Plot:
    """Draw the best of N against the root of the KL bound. `curve` is not empty."""
    png, places = io.BytesIO(), [kl_bound(point.size) ** 0.5 for point in curve]
    best = [point.best for point in curve]
    with drawing(png, "Reward against distance from the policy") as axes:
        draw_intervals(axes, places, best, GREEN)
        for place, point in zip(places, curve, strict=True):
            axes.annotate(
                f"N = {point.size}" if point.size == 1 else f"{point.size}", (place, point.best.value), xytext=(6, -12),
                textcoords="offset points", color=INK,
            )  # fmt: skip
        axes.set_xlabel("√KL to the policy at most, √nats")
        axes.set_xlim(-0.06 * max(places[-1], 0.5), 1.1 * max(places[-1], 0.5))
        _reward_limits(axes, best)
        axes.set_ylabel("R_c of the best of N")
    return Plot(
        png.getvalue(),
        f"R_c of the best of N against the root of the KL bound: {_growth(curve)}.",
        "Reward against the root of the KL bound; the numbers are N.",
        "reward-by-kl",
    )


def _n_axis(axes: Axes, sizes: Sequence[int]) -> None:
    """Draw a logarithmic x axis of N with a tick for each size; K replaces a power of two that it would touch."""
    shown = [size for size in sizes if size & (size - 1) == 0 or size == sizes[-1]]
    if len(shown) > 1 and shown[-1] < 1.4 * shown[-2]:
        del shown[-2]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.minorticks_off()
    axes.set_xlabel("N, candidates to choose from (logarithmic)")
    if len(sizes) == 1:
        axes.set_xlim(0.5, 2)


def _reward_limits(axes: Axes, intervals: Sequence[Interval]) -> None:
    """Label the y axis R_c, and limit it to a part of (0, 1) with some space around the intervals."""
    low, high = min(item.low for item in intervals), max(item.high for item in intervals)
    space = max(0.02, 0.08 * (high - low))
    axes.set_ylim(max(0.0, low - space), min(1.0, high + space) + 0.001)
    axes.set_ylabel("R_c")
