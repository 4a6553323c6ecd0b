"""`preferences`: the best answer of a prompt against a worse one, for DPO or for a reward model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from winnow.server.distill.export.answered import Answer
from winnow.server.distill.export.choosing import Pair, Pick
from winnow.server.distill.export.columns import PROMPT, Column, Kind, dialog, said


def _prompt(column: Column[Pick]) -> Column[Pair]:
    """A column about a prompt, for rows that hold two answers to it."""
    return Column(column.name, column.kind, column.about, lambda pair: column.value(Pick(pair.prompt, pair.chosen)))


def _both(name: str, kind: Kind, about: str, value: Callable[[Answer], Any]) -> tuple[Column[Pair], ...]:
    return (
        Column(f"{name}_chosen", kind, f"{about}, of the chosen answer", lambda pair: value(pair.chosen)),
        Column(f"{name}_rejected", kind, f"{about}, of the rejected answer", lambda pair: value(pair.rejected)),
    )


PREFERENCES: tuple[Column[Pair], ...] = (
    Column("prompt", "messages", "the dialog up to the answer", lambda pair: dialog(pair.prompt.messages)),
    Column("chosen", "messages", "the better answer, one message", lambda pair: said(pair.chosen.text)),
    Column("rejected", "messages", "the worse answer, one message", lambda pair: said(pair.rejected.text)),
    *_both("score", "float64", "R_c in (0, 1)", lambda answer: answer.reward.combined),
    Column(
        "margin",
        "float64",
        "`score_chosen` − `score_rejected`, in [0, 1]; with the combiner `safe_first`, where only the rejected answer is unsafe, "
        "the difference in R_s, which is what ranked them",
        lambda pair: pair.margin,
    ),
    Column("probability", "float64", "σ of that difference in logits, in [0.5, 1]", lambda pair: pair.probability),
    Column(
        "rating",
        "string",
        "`probability` on Llama 2's four-point scale: `significantly_better` from 0.9, `better` from 0.7, "
        "`slightly_better` from 0.6, else `negligibly_better` (or unsure)",
        lambda pair: pair.rating.name,
    ),
    Column(
        "margin_small", "float64", "m(r) of the rating in the paper: 1, 2/3, 1/3, 0", lambda pair: pair.rating.small
    ),
    Column("margin_large", "float64", "the paper's other m(r): 3, 2, 1, 0", lambda pair: pair.rating.large),
    *map(_prompt, PROMPT),
    *_both("safety", "float64", "R_s in (0, 1)", lambda answer: answer.reward.safety),
    *_both("helpfulness", "float64", "R_h in (0, 1), null where not needed", lambda answer: answer.reward.helpfulness),
    *_both("branch", "string", "what decided R_c", lambda answer: answer.reward.branch.value),
    *_both("run", "string", "the run's folder name, null unless merged", lambda answer: answer.run),
    *_both("run_line", "int64", "the prompt's line in the run", lambda answer: answer.record.line),
    *_both("index", "int64", "the number among the run's candidates", lambda answer: answer.scored.index),
    *_both("rank", "int64", "the rank among all answers", lambda answer: answer.rank),
    *_both("temperature", "float64", "what it was sampled at", lambda answer: answer.arm.temperature),
    *_both(
        "context_distilled",
        "bool",
        "sampled behind a preprompt that is not stored",
        lambda answer: answer.arm.preprompt is not None,
    ),
    *_both("finish_reason", "string", "`stop` or `length`", lambda answer: answer.scored.finish_reason),
    *_both("tokens", "int64", "sampled tokens, EOS included", lambda answer: answer.scored.tokens),
)
