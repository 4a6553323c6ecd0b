"""`sft` and `prompt-completion`: the best answers as dialogs to learn."""

from __future__ import annotations

from typing import Any

from winnow.server.distill.export.choosing import Pick
from winnow.server.distill.export.columns import ORIGIN, PROMPT, SAMPLING, Column, dialog, said


def weighted(pick: Pick) -> list[dict[str, Any]]:
    """The whole dialog, the answer last. Each assistant message has a `weight` as in OpenAI's fine-tuning files: 0, no loss.

    The others have none, as there. Every dialog ends in an answer, so every piece of the file shows a reader the same schema.
    """
    messages = dialog(pick.prompt.messages)
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0 if pick.prompt.silent else 1
    return [*messages, {**said(pick.answer.text)[0], "weight": 1}]


PROVENANCE: tuple[Column[Pick], ...] = (
    *PROMPT,
    *ORIGIN,
    Column("reward", "float64", "R_c in (0, 1)", lambda pick: pick.answer.reward.combined),
    Column("safety", "float64", "R_s in (0, 1); below 0.15 counts as unsafe", lambda pick: pick.answer.reward.safety),
    Column(
        "helpfulness",
        "float64",
        "R_h in (0, 1); null where it was not needed",
        lambda pick: pick.answer.reward.helpfulness,
    ),
    Column(
        "branch",
        "string",
        "what R_c is: R_s of a `safety_prompt`, R_s because `unsafe`, or R_h (`helpful`)",
        lambda pick: pick.answer.reward.branch.value,
    ),
    *SAMPLING,
)

SFT: tuple[Column[Pick], ...] = (
    Column(
        "messages",
        "weighted_messages",
        "the dialog, the answer last; `weight` 0 marks assistant turns that carry no loss, null stands at other roles",
        weighted,
    ),
    *PROVENANCE,
)

PROMPT_COMPLETION: tuple[Column[Pick], ...] = (
    Column(
        "prompt", "messages", "the dialog up to the answer; carries no loss", lambda pick: dialog(pick.prompt.messages)
    ),
    Column("completion", "messages", "the answer, one message; carries the loss", lambda pick: said(pick.answer.text)),
    *PROVENANCE,
)
