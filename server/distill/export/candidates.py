"""`candidates`: every scored answer with every score, as Parquet."""

from __future__ import annotations

from winnow.models.statistics import Moments
from winnow.server.distill.export.choosing import Pick
from winnow.server.distill.export.columns import ORIGIN, PROMPT, SAMPLING, Column, dialog


def candidates(moments: Moments) -> tuple[Column[Pick], ...]:
    """The columns; `moments` are those of logit(R_c) over every candidate of the export."""
    return (
        *PROMPT,
        Column("prompt", "messages", "the dialog that is answered", lambda pick: dialog(pick.prompt.messages)),
        *ORIGIN,
        Column("is_winner", "bool", "the best answer to its prompt", lambda pick: pick.answer.rank == 0),
        Column("text", "string", "the answer", lambda pick: pick.answer.text),
        *SAMPLING,
        Column(
            "preprompt",
            "string",
            "name of the preprompt it was sampled behind; null if none",
            lambda pick: pick.answer.arm.preprompt,
        ),
        Column("safety", "float64", "R_s in (0, 1)", lambda pick: pick.answer.reward.safety),
        Column(
            "helpfulness",
            "float64",
            "R_h in (0, 1); null where it was not needed",
            lambda pick: pick.answer.reward.helpfulness,
        ),
        Column("combined", "float64", "R_c in (0, 1)", lambda pick: pick.answer.reward.combined),
        Column("safety_logit", "float64", "logit(R_s)", lambda pick: pick.answer.reward.safety_logit),
        Column(
            "helpfulness_logit",
            "float64",
            "logit(R_h); null where it was not needed",
            lambda pick: pick.answer.reward.helpfulness_logit,
        ),
        Column("combined_logit", "float64", "logit(R_c)", lambda pick: pick.answer.reward.combined_logit),
        Column(
            "whitened",
            "float64",
            "logit(R_c) at zero mean and unit variance over this file (R̃_c of Llama 2, section 3.2.3)",
            lambda pick: moments.whiten(pick.answer.reward.combined_logit),
        ),
        Column("branch", "string", "what decided R_c", lambda pick: pick.answer.reward.branch.value),
    )
