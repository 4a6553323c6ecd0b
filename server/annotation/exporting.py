"""People's choices as training data: a row for each annotator's newest choice, which `winnow rm train` and TRL read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from winnow.models.errors import RunError
from winnow.server.annotation.work import text_of
from winnow.server.distill.export import FILES, ExportOptions, MarginSize, table_of
from winnow.server.distill.export.card import Part, card_of_choices
from winnow.server.distill.export.columns import Column, dialog, row
from winnow.server.distill.export.formats import CARD
from winnow.server.distill.export.writers import Row, json_lines, parquet
from winnow.server.distill.files import write as write_file
from winnow.server.store.annotation_rows import BatchRow, Judged, Side
from winnow.server.store.rows import Stored
from winnow.server.store.store import Store

HELD = 64
"""Answers that are held at once: pairs in a row are often of the same selections."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice with its two answers."""

    judged: Judged
    batch: BatchRow
    a: Stored
    b: Stored

    @property
    def people(self) -> frozenset[str]:
        """The digests of the people whose words it holds."""
        return self.a.people | self.b.people

    def side(self, *, chosen: bool) -> tuple[Stored, Side, bool]:
        """Return the chosen or the rejected answer, and whether it was called safe."""
        judged = self.judged
        if judged.chose_a == chosen:
            return self.a, judged.a, judged.a_safe
        return self.b, judged.b, judged.b_safe

    def message(self, *, chosen: bool) -> list[dict[str, str]]:
        """Return an answer as one message of the assistant's."""
        stored, side, _ = self.side(chosen=chosen)
        return [{"role": "assistant", "content": text_of(stored, side.index)}]


def columns(margin: MarginSize | None = None) -> tuple[Column[Choice], ...]:
    """Return the columns; `margin` is the size of the one that TRL subtracts, the small one by default."""
    large = margin == "large"
    return (
        Column("prompt", "messages", "the dialog up to the answer", lambda one: dialog(one.a.record.messages)),
        Column("chosen", "messages", "the better answer, one message", lambda one: one.message(chosen=True)),
        Column("rejected", "messages", "the worse answer, one message", lambda one: one.message(chosen=False)),
        Column(
            "rating",
            "int64",
            "how clearly: 3 significantly better, 2 better, 1 slightly better, 0 negligibly better or unsure",
            lambda one: one.judged.rating,
        ),
        Column(
            "margin",
            "float64",
            f"the paper's m(r), the {'large' if large else 'small'} one; TRL's `RewardTrainer` subtracts it",
            lambda one: one.judged.rating / (1 if large else 3),
        ),
        Column("margin_small", "float64", "m(r) of the rating: 1, 2/3, 1/3 or 0", lambda one: one.judged.rating / 3),
        Column("margin_large", "float64", "m(r) of the rating: 3, 2, 1 or 0", lambda one: float(one.judged.rating)),
        Column("chosen_safe", "bool", "whether the annotator called it safe", lambda one: one.side(chosen=True)[2]),
        Column("rejected_safe", "bool", "whether the annotator called it safe", lambda one: one.side(chosen=False)[2]),
        *ORIGIN,
    )


ORIGIN: tuple[Column[Choice], ...] = (
    Column(
        "annotator",
        "string",
        "a pseudonym, the same in every export of the store",
        lambda one: f"annotator-{one.judged.annotator}",
    ),
    Column("batch", "string", "the id of the batch", lambda one: one.batch.id),
    Column("policy", "string", "how the batch chose its pairs", lambda one: one.batch.policy),
    Column("propensity", "float64", "the probability with which it chose this one", lambda one: one.judged.propensity),
    Column("pair", "string", "the pair; several annotators are several rows", lambda one: f"pair-{one.judged.pair}"),
    Column("revision", "int64", "1, and more if the annotator changed their mind", lambda one: one.judged.revision),
    Column("guidelines", "int64", "the version of the guidelines", lambda one: one.judged.guidelines),
    # One text: a list that is empty in all of a file's first megabytes has another type there to `datasets` than later.
    Column(
        "flags",
        "string",
        "what the annotator noted, with commas between; often empty",
        lambda one: ",".join(one.judged.flags),
    ),
    Column("comment", "string", "the annotator's comment; often empty", lambda one: one.judged.comment),
    Column(
        "questioned",
        "bool",
        "the chosen answer was called unsafe and the other one safe",
        lambda one: one.judged.is_questioned,
    ),
    Column("shown_left", "bool", "the chosen answer stood on the left", lambda one: one.judged.shown <= 4),
    Column("active_ms", "int64", "the time that the choice took; 0 if not known", lambda one: one.judged.active_ms),
    Column("created", "int64", "when the choice was made, in seconds since 1970", lambda one: one.judged.created),
    Column("chosen_id", "string", "the chosen answer's completion", lambda one: one.side(chosen=True)[0].id),
    Column("chosen_index", "int64", "its candidate", lambda one: one.side(chosen=True)[1].index),
    Column("rejected_id", "string", "the rejected answer's completion", lambda one: one.side(chosen=False)[0].id),
    Column("rejected_index", "int64", "its candidate", lambda one: one.side(chosen=False)[1].index),
)
"""Columns that say who chose, from which pair, and which answers they were."""


class Choices:
    """The choices of a store up to now, by pair and annotator; can be iterated repeatedly.

    What is chosen or revised later is not in them, so that their people are those of every row.
    Questioned ones are left out unless `with_questioned`. With `origin`, both answers must be of it.
    """

    def __init__(self, store: Store, now: int, *, with_questioned: bool = False, origin: int | None = None) -> None:
        self._store = store
        self._now = now
        self._with_questioned = with_questioned
        self._origin = origin
        # The batches after the end: those of every choice up to it are there by then.
        self._until = store.annotations.last_number()
        self._batches = {batch.number: batch for batch in store.batches.all()}
        self.left_out = 0

    def __iter__(self) -> Iterator[Choice]:
        held: dict[int, Stored | None] = {}
        self.left_out = 0
        for judged in self._store.annotations.judged(until=self._until):
            if judged.is_questioned and not self._with_questioned:
                self.left_out += 1
                continue
            if self._origin is not None and {judged.a.origin, judged.b.origin} != {self._origin}:
                continue
            a, b = (self._held(held, side.selection) for side in (judged.a, judged.b))
            if a and b:  # neither has expired
                yield Choice(judged, self._batches[judged.batch], a, b)

    def _held(self, held: dict[int, Stored | None], number: int) -> Stored | None:
        if number not in held:
            if len(held) >= HELD:
                held.clear()
            held[number] = self._store.numbered(number, self._now)
        return held[number]

    @property
    def people(self) -> set[str]:
        """The digests of everyone whose words they hold."""
        return {digest for choice in self for digest in choice.people}

    def require_some(self) -> None:
        """Check that there are choices.

        Raises:
            RunError: there are none.
        """
        if next(iter(self), None) is None:
            about = f"; {self.left_out} questioned ones are left out without --with-questioned" if self.left_out else ""
            raise RunError(f"the store has no annotations to export{about}")


def rows(choices: Choices, margin: MarginSize | None = None) -> Iterator[Row]:
    """Yield the rows of choices."""
    table = columns(margin)
    return (row(table, choice) for choice in choices)


def write(choices: Choices, target: Path, margin: MarginSize | None = None) -> Part:
    """Write the choices into the folder `target`, as JSON Lines and as Parquet.

    Raises:
        RunError: a file cannot be written.
    """
    table = columns(margin)
    try:
        (target / table_of("annotations")).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(json_lines(target / FILES["annotations"].name)),
            stack.enter_context(parquet(target / table_of("annotations"), table)),
        ]
        for one in rows(choices, margin):
            for writer in writers:
                writer.add([one])
    return Part("annotations", writers[0].rows, table)


def write_card(part: Part, store: Store, options: ExportOptions, target: Path) -> None:
    """Write the dataset card of an export of choices alone into the folder `target`."""
    write_file(target / CARD, card_of_choices(part, store.manifests(), options).encode())
