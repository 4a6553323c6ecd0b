"""The columns of the exported tables: their names, types, descriptions and values.

Files, schemas and the dataset card are made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from winnow.models.statistics import Moments
from winnow.models.types import Message
from winnow.server.distill.export import MarginSize
from winnow.server.distill.export.choosing import Labelled, Pair, Pick
from winnow.server.distill.export.sources import Answer

T = TypeVar("T")
Kind = Literal["int64", "float64", "bool", "string", "ids", "messages", "weighted_messages"] | type[BaseModel]
FIELDS: dict[str, dict[str, str]] = {
    "messages": {"role": "string", "content": "string"},
    "weighted_messages": {"role": "string", "content": "string", "weight": "int64"},
}
"""The kinds that are lists of objects, with the fields of those objects. `ids` are lists of int64;
the other kinds are plain values, or a model."""


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of rows that are made from a `T`. `about` is one line of Markdown; it says where null is possible."""

    name: str
    kind: Kind
    about: str
    value: Callable[[T], Any]


def row(columns: Sequence[Column[T]], subject: T) -> dict[str, Any]:
    """Return the row of `subject`."""
    return {column.name: column.value(subject) for column in columns}


def dialog(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as JSON."""
    return [message.as_dict() for message in messages]


def assistant(answer: Answer) -> list[dict[str, Any]]:
    """Return an answer as JSON: a list of one assistant message."""
    return [{"role": "assistant", "content": answer.candidate.text}]


def weighted(pick: Pick) -> list[dict[str, Any]]:
    """Return the whole dialog, the answer last, with a `weight` on each assistant message.

    As in OpenAI's fine-tuning files, weight 0 means no loss, and other roles have no weight. Every dialog
    ends in an answer, so that a reader infers the same schema from any piece of the file.
    """
    messages = dialog(pick.prompt.messages)
    for message in messages:
        if message["role"] == "assistant":
            message["weight"] = 0 if pick.prompt.mask_history else 1
    return [*messages, {**assistant(pick.answer)[0], "weight": 1}]


PROMPT: tuple[Column[Pick], ...] = (
    Column("line", "int64", "the prompt's line in the input, from 1", lambda pick: pick.prompt.lead.line),
    Column("id", "string", "the prompt's own id; null if it has none", lambda pick: pick.prompt.lead.id),
    Column("category", "string", "the prompt's category; null if it has none", lambda pick: pick.prompt.lead.category),
    Column(
        "is_safety",
        "bool",
        "a safety prompt: R_s alone ranks",
        lambda pick: pick.prompt.lead.selection.prompt.is_safety,
    ),
    Column(
        "candidates",
        "int64",
        "k, the number of candidates sampled for the prompt, failed ones included; of all runs, if runs were merged",
        lambda pick: pick.prompt.candidates,
    ),
)
"""The prompt that a row is about."""

ORIGIN: tuple[Column[Pick], ...] = (
    Column(
        "run", "string", "folder name of the answer's run; null unless runs were merged", lambda pick: pick.answer.run
    ),
    Column(
        "run_line",
        "int64",
        "the prompt's line in that run; `line`, unless runs were merged",
        lambda pick: pick.answer.record.line,
    ),
    Column(
        "index",
        "int64",
        "the answer's number among that run's candidates, from 0",
        lambda pick: pick.answer.candidate.index,
    ),
    Column("rank", "int64", "its rank among all answers to the prompt; 0 is the winner", lambda pick: pick.answer.rank),
)
"""The origin of an answer."""

SAMPLING: tuple[Column[Pick], ...] = (
    Column("temperature", "float64", "what it was sampled at", lambda pick: pick.answer.arm.temperature),
    Column(
        "context_distilled",
        "bool",
        "sampled behind a preprompt that is not part of the prompt",
        lambda pick: pick.answer.arm.is_context_distilled,
    ),
    Column(
        "finish_reason",
        "string",
        "`stop`, or `length` if the token limit cut it off",
        lambda pick: pick.answer.candidate.finish_reason,
    ),
    Column("tokens", "int64", "how many were sampled, EOS included", lambda pick: pick.answer.candidate.tokens),
)
"""The sampling of an answer."""

HELPFULNESS: Column[Pick] = Column(
    "helpfulness",
    "float64",
    "R_h in (0, 1); null where it was not needed",
    lambda pick: pick.answer.reward.helpfulness,
)
TRAINING: tuple[Column[Pick], ...] = (
    *PROMPT,
    *ORIGIN,
    Column("combined", "float64", "R_c in (0, 1)", lambda pick: pick.answer.reward.combined),
    Column("safety", "float64", "R_s in (0, 1); below 0.15 counts as unsafe", lambda pick: pick.answer.reward.safety),
    HELPFULNESS,
    Column(
        "branch",
        "string",
        "the source of R_c: R_s of a `safety_prompt`, R_s of an `unsafe` answer, or R_h (`helpful`)",
        lambda pick: pick.answer.reward.branch.value,
    ),
    *SAMPLING,
)
"""Origin and rewards of an answer to train on."""

SFT: tuple[Column[Pick], ...] = (
    Column(
        "messages",
        "weighted_messages",
        "the dialog, the answer last; `weight` is 0 on assistant turns that carry no loss, and null on other roles",
        weighted,
    ),
    *TRAINING,
)

PROMPT_COMPLETION: tuple[Column[Pick], ...] = (
    Column(
        "prompt", "messages", "the dialog up to the answer; carries no loss", lambda pick: dialog(pick.prompt.messages)
    ),
    Column("completion", "messages", "the answer, one message; carries the loss", lambda pick: assistant(pick.answer)),
    *TRAINING,
)


def _labelled(column: Column[Pick]) -> Column[Labelled]:
    """Return a column about an answer for rows that have a label as well."""
    return Column(column.name, column.kind, column.about, lambda labelled: column.value(labelled.pick))


_PROMPT_COLUMN, _COMPLETION_COLUMN, *_ORIGIN_AND_REWARDS = PROMPT_COMPLETION
KTO: tuple[Column[Labelled], ...] = (
    _labelled(_PROMPT_COLUMN),
    _labelled(_COMPLETION_COLUMN),
    Column("label", "bool", "whether to train towards the answer, or away from it", lambda labelled: labelled.is_good),
    *map(_labelled, _ORIGIN_AND_REWARDS),
)


def _about_prompt(column: Column[Pick]) -> Column[Pair]:
    """Return a column about a prompt for rows that hold two answers to it."""
    return Column(column.name, column.kind, column.about, lambda pair: column.value(Pick(pair.prompt, pair.chosen)))


def _both(name: str, kind: Kind, about: str, value: Callable[[Answer], Any]) -> tuple[Column[Pair], ...]:
    return (
        Column(f"{name}_chosen", kind, f"{about}, of the chosen answer", lambda pair: value(pair.chosen)),
        Column(f"{name}_rejected", kind, f"{about}, of the rejected answer", lambda pair: value(pair.rejected)),
    )


PREFERENCES: tuple[Column[Pair], ...] = (
    Column("prompt", "messages", "the dialog up to the answer", lambda pair: dialog(pair.prompt.messages)),
    Column("chosen", "messages", "the better answer, one message", lambda pair: assistant(pair.chosen)),
    Column("rejected", "messages", "the worse answer, one message", lambda pair: assistant(pair.rejected)),
    *_both("combined", "float64", "R_c in (0, 1)", lambda answer: answer.reward.combined),
    Column(
        "difference",
        "float64",
        "`combined_chosen` − `combined_rejected`, in [0, 1]; with the combiner `safe_first`, if only the rejected "
        "answer is unsafe, the difference in R_s, which ranked them",
        lambda pair: pair.difference,
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
    *map(_about_prompt, PROMPT),
    *_both("safety", "float64", "R_s in (0, 1)", lambda answer: answer.reward.safety),
    *_both("helpfulness", "float64", "R_h in (0, 1), null where not needed", lambda answer: answer.reward.helpfulness),
    *_both("branch", "string", "the source of R_c", lambda answer: answer.reward.branch.value),
    *_both("run", "string", "the run's folder name, null unless merged", lambda answer: answer.run),
    *_both("run_line", "int64", "the prompt's line in the run", lambda answer: answer.record.line),
    *_both("index", "int64", "the number among the run's candidates", lambda answer: answer.candidate.index),
    *_both("rank", "int64", "the rank among all answers", lambda answer: answer.rank),
    *_both("temperature", "float64", "the sampling temperature", lambda answer: answer.arm.temperature),
    *_both(
        "context_distilled",
        "bool",
        "sampled with a preprompt that is not stored",
        lambda answer: answer.arm.is_context_distilled,
    ),
    *_both("finish_reason", "string", "`stop` or `length`", lambda answer: answer.candidate.finish_reason),
    *_both("tokens", "int64", "sampled tokens, EOS included", lambda answer: answer.candidate.tokens),
)


MARGINS: dict[MarginSize, Column[Pair]] = {
    "small": Column("margin", "float64", "`margin_small`, which TRL's `RewardTrainer` reads", lambda p: p.rating.small),
    "large": Column("margin", "float64", "`margin_large`, which TRL's `RewardTrainer` reads", lambda p: p.rating.large),
}
"""The column that TRL subtracts in a reward model's loss (Llama 2, equation 2), only there if it is asked for."""


def preferences(margin: MarginSize | None) -> tuple[Column[Pair], ...]:
    """Return the columns of `preferences`, with the margin that is asked for."""
    return (*PREFERENCES, MARGINS[margin]) if margin else PREFERENCES


def candidates(moments: Moments) -> tuple[Column[Pick], ...]:
    """Return the columns of `candidates`; `moments` are those of logit(R_c) over every candidate of the export."""
    return (
        *PROMPT,
        Column("prompt", "messages", "the dialog that is answered", lambda pick: dialog(pick.prompt.messages)),
        *ORIGIN,
        Column("is_winner", "bool", "the best answer to its prompt", lambda pick: pick.answer.rank == 0),
        Column("text", "string", "the answer", lambda pick: pick.answer.candidate.text),
        Column(
            "empty",
            "bool",
            "no text, or white space only; ranks below all others",
            lambda pick: pick.answer.candidate.is_empty,
        ),
        *SAMPLING,
        Column(
            "preprompt",
            "string",
            "name of the preprompt it was sampled behind; null if none",
            lambda pick: pick.answer.arm.preprompt,
        ),
        Column("safety", "float64", "R_s in (0, 1)", lambda pick: pick.answer.reward.safety),
        HELPFULNESS,
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
