"""Files → what a reward model is trained on, as token ids, and what is held out: whole prompts, never trained on.

Nothing is cut or dropped silently: a row that cannot be used, or does not fit the context, is a bad row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from winnow.models.engines.base import AnswerReader
from winnow.models.errors import CandidateFailed, RunError, SettingsError
from winnow.models.training.examples import Example
from winnow.models.training.splits import held_out
from winnow.models.types import Prompt
from winnow.server.rm.comparisons import Comparison
from winnow.server.rm.lessons import Kind, Lesson, contrasted, lessons_of
from winnow.server.rm.margins import Margins
from winnow.server.rm.meter import Meter
from winnow.server.rm.mixing import Part, Use, mixed
from winnow.server.rm.reading import BadRow, Data, Place, read
from winnow.server.rm.rows import Answer, Labelled

LEAST_PROMPTS = 10
"""Prompts below which a reward model is not trained."""
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """Examples to train on, and the held-out lessons with the ids of their answers.

    `without_margin` counts comparisons to train on whose rows have neither rating nor margin.
    """

    name: str
    examples: Sequence[Example]
    held: Sequence[Place[Lesson]]
    ids: Mapping[Answer, Ids]
    uses: Sequence[Use]
    bad: Sequence[BadRow]
    rows: int
    prompts: int
    held_prompts: int
    without_margin: int

    @property
    def comparisons(self) -> int:
        """Comparisons to train on."""
        return sum(example.rejected is not None for example in self.examples)

    @property
    def labels(self) -> int:
        """Labels to train on."""
        return sum((one.chosen_label is not None) + (one.rejected_label is not None) for one in self.examples)

    @property
    def held_data(self) -> Data[Comparison | Labelled]:
        """The held-out comparisons and labelled answers, as an evaluation takes them."""
        items: list[Place[Comparison | Labelled]] = []
        for place in self.held:
            found: list[Comparison | Labelled] = [place.item.comparison] if place.item.comparison else []
            items += [Place(place.file, place.line, item) for item in (*found, *place.item.labels)]
        lines = {(place.file, place.line) for place in self.held}
        return Data((self.name,), items, rows=len(lines))


def material(
    parts: Sequence[Part],
    kind: Kind,
    margins: Margins,
    reader: AnswerReader,
    context: int,
    held_share: float,
    seed: int,
) -> Material:
    """Read the files, and return what to train on and what is held out.

    Raises:
        RunError: a file cannot be read, or there is too little to train on or to hold out.
    """
    data = [read(part.files, partial(lessons_of, kind=kind, margins=margins)) for part in parts]
    ids = IdsOf(reader, context)
    fitting = [ids.fitting(one.items) for one in data]
    bad = [row for one, (_, long) in zip(data, fitting, strict=True) for row in (*one.bad, *long)]
    lessons = [contrasted(places) for places, _ in fitting]
    prompts = {place.item.prompt for places in lessons for place in places}
    outside = _held_out(prompts, seed, held_share, bad)
    trained = [[place for place in places if place.item.prompt not in outside] for places in lessons]
    held = [place for places in lessons for place in places if place.item.prompt in outside]
    taught = [[(place.item, one) for place in places for one in ids.examples(place.item)] for places in trained]
    order = _order(parts, [len(one) for one in taught], seed)
    chosen = [taught[part][place] for part, place in order]
    _require_comparisons(chosen)
    uses = [
        Use(one.name, part.share, len(own), sum(number == place for number, _ in order))
        for place, (part, one, own) in enumerate(zip(parts, data, taught, strict=True))
    ]
    without = sum(lesson.comparison is not None and lesson.margin is None for lesson, _ in chosen)
    return Material(
        ", ".join(one.name for one in data), [example for _, example in chosen], held,
        ids.of(answer for place in held for answer in place.item.answers), uses, bad, sum(one.rows for one in data),
        len(prompts), len(outside), without,
    )  # fmt: skip


class IdsOf:
    """The token ids of answers behind their conversations, exactly what the trained model will be served."""

    def __init__(self, reader: AnswerReader, context: int) -> None:
        self._reader = reader
        self._context = context
        self._found: dict[Answer, Ids | str] = {}
        self._numbers: dict[int, int] = {}
        self._meter = Meter()

    def fitting(self, places: Sequence[Place[Lesson]]) -> tuple[list[Place[Lesson]], list[BadRow]]:
        """Return the lessons whose answers all fit the context and differ as tokens, and the others as bad rows."""
        found, bad = [], []
        for number, place in enumerate(places):
            self._meter.show(partial("read {:,} of {:,} rows, as tokens".format, number, len(places)))
            reason = self._unusable(place.item)
            if reason is None:
                found.append(place)
            else:
                bad.append(place.bad(reason))
        return found, bad

    def _unusable(self, lesson: Lesson) -> str | None:
        for answer in lesson.answers:
            if isinstance(found := self._of(answer), str):
                return found
        if lesson.comparison:
            better, worse = (
                {self._of(answer) for answer in side} for side in (lesson.comparison.better, lesson.comparison.worse)
            )
            if better & worse:
                return "the better answer and the worse one are the same tokens: they differ in white space at most"
        return None

    def of(self, answers: Iterable[Answer]) -> dict[Answer, Ids]:
        """Return the ids of answers that fit."""
        return {answer: ids for answer in answers if not isinstance(ids := self._of(answer), str)}

    def examples(self, lesson: Lesson) -> Iterator[Example]:
        """Yield what a lesson that fits is to the trainer: each of the better answers above each of the worse ones.

        A label counts once, however many comparisons its answer is in.
        """
        labels = {label.answer: not label.is_unsafe for label in lesson.labels}
        ids = self.of(lesson.answers)
        if lesson.comparison is None:
            for answer, is_good in labels.items():
                yield Example(ids[answer], None, chosen_label=is_good)
            return
        margin = lesson.margin or 0.0
        for better in lesson.comparison.better:
            for worse in lesson.comparison.worse:
                yield Example(ids[better], ids[worse], margin, labels.pop(better, None), labels.pop(worse, None))

    def _of(self, answer: Answer) -> Ids | str:
        if answer not in self._found:
            self._found[answer] = self._read(answer)
        return self._found[answer]

    def _read(self, answer: Answer) -> Ids | str:
        prompt = Prompt((), answer.messages)
        try:
            ids = self._reader.token_ids(prompt, answer.text)
            if len(ids) > self._context:
                shortened = self._reader.shortened(prompt, answer.text, self._context)
                if shortened is None:
                    return f"prompt and answer have {len(ids)} tokens, and the context is {self._context}"
                ids = shortened
        except CandidateFailed as reason:
            return str(reason)
        # One object for each number: a data set has hundreds of millions of them, and Python's integers are large.
        return tuple(self._numbers.setdefault(one, one) for one in ids)


def _held_out(prompts: set[str], seed: int, share: float, bad: Sequence[BadRow]) -> set[str]:
    if len(prompts) < LEAST_PROMPTS:
        first = f"; line {bad[0].line} of {bad[0].file}: {bad[0].reason}" if bad else ""
        raise RunError(f"there are {len(prompts)} prompts to train on; at least {LEAST_PROMPTS} are needed{first}")
    found = held_out(prompts, seed, share)
    if not found or len(found) == len(prompts):
        raise SettingsError(
            f"--held-out {share:g} of {len(prompts)} prompts is {len(found)}; some must be on each side"
        )
    return found


def _order(parts: Sequence[Part], sizes: Sequence[int], seed: int) -> list[tuple[int, int]]:
    """Return which example of which part is used."""
    shares = [part.share for part in parts if part.share is not None]
    if not shares:
        return [(part, place) for part, size in enumerate(sizes) for place in range(size)]
    if 0 in sizes:
        raise RunError(f"--mix: nothing of {parts[sizes.index(0)].files[0]} is left to train on")
    return mixed(sizes, shares, seed)


def _require_comparisons(chosen: Sequence[tuple[Lesson, Example]]) -> None:
    if all(example.rejected is None for _, example in chosen):
        raise RunError(
            "there are no comparisons to train on: a row needs chosen and rejected answers, or a prompt several "
            "answers with different labels"
        )
