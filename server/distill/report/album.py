"""Which plots a report has, under which names, and what each shows in words."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from winnow.models.types import Branch
from winnow.server.distill.report import plots
from winnow.server.distill.report.findings import Findings
from winnow.server.distill.report.text import number, share, signed

DISTRIBUTIONS = {"R_s": "safety", "R_h": "helpfulness", "R_c": "combined"}
NAMES = frozenset(
    {"reward-by-n", "reward-by-temperature", "reward-by-length", "reward-by-kl", "branches", "lengths"}
    | set(DISTRIBUTIONS.values())
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A PNG, the name of its file without `.png`, and what it shows in words, for who cannot see it."""

    name: str
    png: bytes
    alt: str

    @property
    def data(self) -> Markup:
        """The picture as a URI; nothing in it needs to be escaped."""
        return Markup("data:image/png;base64,") + base64.b64encode(self.png).decode()


def draw(findings: Findings) -> Iterator[Plot]:
    """Every plot that the findings have something for; none where no prompt has answers."""
    curve, tally = findings.curve, findings.tally
    if not curve:
        return
    first, last = curve[0], curve[-1]
    grows = f"from {number(first.best.mean)} at N = {first.size} to {number(last.best.mean)} at N = {last.size}"
    level = (
        f"; the median ends at {number(last.median.mean)}, the mean at {number(last.mean.mean)}"
        if last.median and last.mean
        else ""
    )
    yield Plot("reward-by-n", plots.reward_by_n(curve), f"R_c of the best of N goes {grows}{level}.")
    if any(findings.kinds.values()):
        ends = (
            f"{plots.kind_label(kind)}: {number(points[-1].best.mean)} at N = {points[-1].size}"
            for kind, points in findings.kinds.items()
            if points
        )
        alt = f"R_c of the best of N, a line for each temperature. {'; '.join(ends)}."
        yield Plot("reward-by-temperature", plots.reward_by_kind(findings.kinds), alt)
    yield from _distributions(findings)
    helpful, answers = Branch.HELPFUL, (tally.candidates, tally.winners)
    shares = [share(side.branches[helpful], side.answers) for side in answers]
    alt = f"R_h decided for {shares[0]} of the candidates and {shares[1]} of the winners."
    yield Plot("branches", plots.branches(*answers), alt)
    if findings.length is not None:
        if findings.length.fifths:
            ends = (signed(findings.length.fifths[place].mean) for place in (0, -1))
            alt = "R_c above the prompt's mean: {} for the shortest fifth of answers, {} for the longest.".format(*ends)
            yield Plot("reward-by-length", plots.reward_by_length(findings.length.fifths), alt)
        means = (number(item.mean, 1) for item in (findings.length.mean, findings.length.winner))
        alt = "Histograms of tokens: candidates have {} in the mean, winners {}.".format(*means)
        yield Plot("lengths", plots.lengths(*answers), alt)
    yield Plot(
        "reward-by-kl", plots.reward_by_kl(curve), f"R_c of the best of N against the root of the KL bound: {grows}."
    )


def _distributions(findings: Findings) -> Iterator[Plot]:
    for score, name in DISTRIBUTIONS.items():
        png = plots.distribution(score, findings.tally.candidates, findings.tally.winners)
        if png is not None:
            yield Plot(name, png, f"Histograms of {score} between 0 and 1, of all candidates and of the winners.")
