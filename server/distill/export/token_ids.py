"""The columns of `token-ids`: prompts and answers as the ids that were scored, for trainers that take ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill.export.choosing import Pick
from winnow.server.distill.export.columns import TRAINING, Column
from winnow.server.distill.export.sources import AnsweredPrompt

NO_LOSS = -100
"""The label of a token without loss, in TRL, transformers and PyTorch."""


@dataclass(frozen=True, slots=True)
class EncodedPick:
    """An answer to train on, as ids; `completion` ends in EOS."""

    pick: Pick
    prompt: tuple[int, ...]
    completion: tuple[int, ...]


def encoded(
    picks: Callable[[AnsweredPrompt], Iterable[Pick]], template: ChatTemplate, tokenizer: Tokenizer
) -> Callable[[AnsweredPrompt], Iterator[EncodedPick]]:
    """Return the rows that `picks` chooses, as a reward model with the policy's template and tokenizer reads them."""

    def subjects(answered: AnsweredPrompt) -> Iterator[EncodedPick]:
        chosen = list(picks(answered))
        prompt = template.render(answered.messages, tokenizer) if chosen else None
        for pick in chosen:
            assert prompt
            answer = tokenizer.encode_answer(prompt, pick.answer.candidate.text)
            yield EncodedPick(pick, prompt.token_ids, (*answer, tokenizer.eos_id))

    return subjects


def _about_pick(column: Column[Pick]) -> Column[EncodedPick]:
    return Column(column.name, column.kind, column.about, lambda row: column.value(row.pick))


TOKEN_IDS: tuple[Column[EncodedPick], ...] = (
    Column(
        "input_ids",
        "ids",
        "the prompt and the answer, BOS and EOS included",
        lambda row: [*row.prompt, *row.completion],
    ),
    Column(
        "completion_mask",
        "ids",
        "1 on the tokens of the answer and its EOS, else 0",
        lambda row: [0] * len(row.prompt) + [1] * len(row.completion),
    ),
    Column(
        "labels",
        "ids",
        f"`input_ids` where `completion_mask` is 1, else {NO_LOSS}, which carries no loss; what TRL reads",
        lambda row: [NO_LOSS] * len(row.prompt) + [*row.completion],
    ),
    *map(_about_pick, TRAINING),
)
