"""The contents of the formats: the columns of each, and what its rows are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from winnow.models.statistics import Moments
from winnow.server.distill.export import ExportOptions, Format
from winnow.server.distill.export.choosing import Labelled, Pair, Pick, Unseen, pair, picks
from winnow.server.distill.export.columns import KTO, PROMPT_COMPLETION, SFT, Column, T, candidates, preferences, row
from winnow.server.distill.export.exported_template import ExportedTemplate
from winnow.server.distill.export.openai_batch import COLUMNS, result
from winnow.server.distill.export.sources import AnsweredPrompt, ExportEntry
from winnow.server.distill.export.token_ids import TOKEN_IDS, encoded
from winnow.server.distill.export.writers import Row
from winnow.server.distill.records import Problem


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """The columns of a format, and the subjects of its rows in an entry."""

    columns: Sequence[Column[T]]
    subjects: Callable[[ExportEntry], Iterable[T]]

    def rows(self, entry: ExportEntry) -> Iterator[Row]:
        """Yield the rows of an entry."""
        return (row(self.columns, subject) for subject in self.subjects(entry))


def table(kind: Format, options: ExportOptions, moments: Moments, chat: ExportedTemplate, name: str) -> Table[Any]:
    """Return the contents of a format.

    `moments` are those of logit(R_c) over the export, and `name` is that of the served model. `token-ids` need a
    `chat` with a tokenizer.
    """
    if kind == "openai-batch":
        return Table(COLUMNS, lambda entry: [_result(entry, name)])
    if kind == "candidates":
        return Table(candidates(moments), _answered(_every))
    if kind == "preferences":
        return Table(preferences(options.margin), _answered(_pairs(options)))
    if kind == "reward":
        return Table(preferences(options.margin or "small"), _answered(_pairs(options)))
    if kind == "kto":
        return Table(KTO, _answered(_labelled(options)))
    if kind == "token-ids":
        assert chat.tokenizer
        return Table(TOKEN_IDS, _answered(encoded(_best(options), chat.template, chat.tokenizer)))
    return Table(SFT if kind == "sft" else PROMPT_COMPLETION, _answered(_best(options)))


def _answered(subjects: Callable[[AnsweredPrompt], Iterable[T]]) -> Callable[[ExportEntry], Iterable[T]]:
    return lambda entry: subjects(entry) if isinstance(entry, AnsweredPrompt) else ()


def _best(options: ExportOptions) -> Callable[[AnsweredPrompt], Iterator[Pick]]:
    is_new = Unseen()

    def subjects(prompt: AnsweredPrompt) -> Iterator[Pick]:
        for pick in picks(prompt, options):
            if not options.deduplicate or is_new(prompt, pick.answer.candidate.text):
                yield pick

    return subjects


def _pairs(options: ExportOptions) -> Callable[[AnsweredPrompt], Iterator[Pair]]:
    is_new = Unseen()

    def subjects(prompt: AnsweredPrompt) -> Iterator[Pair]:
        found = pair(prompt, options)
        if found and (
            not options.deduplicate or is_new(prompt, found.chosen.candidate.text, found.rejected.candidate.text)
        ):
            yield found

    return subjects


def _labelled(options: ExportOptions) -> Callable[[AnsweredPrompt], Iterator[Labelled]]:
    pairs = _pairs(options)

    def subjects(prompt: AnsweredPrompt) -> Iterator[Labelled]:
        for found in pairs(prompt):
            if not found.chosen.reward.is_gated:
                yield Labelled(Pick(prompt, found.chosen), True)
            yield Labelled(Pick(prompt, found.rejected), False)

    return subjects


def _every(prompt: AnsweredPrompt) -> Iterator[Pick]:
    return (Pick(prompt, answer) for answer in prompt.answers)


def _result(entry: ExportEntry, name: str) -> Row:
    return result(entry if isinstance(entry, Problem) else entry.lead, name)
