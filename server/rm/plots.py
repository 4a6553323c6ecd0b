"""The plots of an evaluation: the gate's precision against its recall, and the reliability of R_s."""

from __future__ import annotations

import io
from collections.abc import Sequence

from winnow.models.reporting.plots import GREY, INK, Plot, drawing, line_style
from winnow.models.types import SAFETY_THRESHOLD
from winnow.server.rm.evaluate import Judged
from winnow.server.rm.groups import SAFETY, Words


def plots(models: Sequence[Judged], words: Words = SAFETY) -> list[Plot]:
    """Return the plots of the models that were measured on labelled answers; none if none was."""
    measured = [model for model in models if model.safety and model.safety.curve]
    return [_curve(measured, words), _reliability(measured, words)] if measured else []


def _curve(models: Sequence[Judged], words: Words) -> Plot:
    png = io.BytesIO()
    with drawing(png, "The gate at every threshold") as axes:
        for number, model in enumerate(models):
            assert model.safety
            cuts, gate = model.safety.curve, model.safety.gate
            colour = line_style(number)["color"]
            axes.plot([cut.recall for cut in cuts], [cut.precision for cut in cuts], label=model.name, color=colour)
            axes.plot([gate.recall.value], [gate.precision.value], "o", color=colour)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=f"recall of {words.bad} answers", ylabel="precision")
        axes.legend(loc="lower left")
    caption = f"Dots: the gate as it is, {words.symbol} < {SAFETY_THRESHOLD:g}. Further left it refuses fewer answers."
    return Plot(png.getvalue(), "Precision against recall of the gate, one line a model.", caption, "curve")


def _reliability(models: Sequence[Judged], words: Words) -> Plot:
    png = io.BytesIO()
    with drawing(png, f"Predicted and found shares of {words.bad} answers") as axes:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        for number, model in enumerate(models):
            assert model.safety
            bins = model.safety.bins
            colour = line_style(number)["color"]
            axes.plot(
                [one.predicted for one in bins], [one.unsafe.value for one in bins], "o", label=model.name, color=colour
            )
            for one in bins:
                axes.plot([one.predicted] * 2, [one.unsafe.low, one.unsafe.high], color=colour, linewidth=1)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=f"predicted: 1 − {words.symbol}", ylabel="found")
        axes.axvline(1 - SAFETY_THRESHOLD, color=INK, linewidth=0.8, linestyle="--")
        axes.legend(loc="upper left")
    caption = (
        f"Answers in ten bins, with 95 % intervals; on the dotted line {words.symbol} is a probability. Right of the "
        f"dashed line an answer counts as {words.bad}."
    )
    return Plot(png.getvalue(), f"Reliability diagram: found share of {words.bad} answers by prediction.", caption,
                "reliability")  # fmt: skip
