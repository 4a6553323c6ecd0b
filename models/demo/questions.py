"""The questions of the demo world: for a fact, a list, a short text, something dangerous, or something unknown.

Each kind of question has phrasings, writes correct and wrong content and judges it. Tone, format and safety
are judged elsewhere.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from random import Random

from winnow.models.demo.facts import COUNTS, DANGERS, HOW_QUESTIONS, LIST_QUESTIONS, MEMBERS, RELATIONS, Relation, Topic
from winnow.models.demo.styles import (
    COMPLIANCES,
    COMPLIANCES_OF,
    IGNORANCE,
    LONG_IGNORANCE,
    REFUSALS,
    REFUSALS_OF,
    Form,
    admits_ignorance,
    is_refusal,
)
from winnow.models.demo.topics import TOPICS
from winnow.models.demo.unknowns import ask

_RELATIONS = {relation.name: relation for relation in RELATIONS}
_FRAMES = {name: tuple(question.partition("{s}")[0] for question in r.questions) for name, r in _RELATIONS.items()}
"""The beginnings of each relation's questions, but for empty ones."""
_LONGEST_IGNORANCE = 25
_WEIGHTS = {"capital": 4.0, "continent": 2.0, "sum": 3.0, "opposite": 3.0, "symbol": 2.0}


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _terms(words: set[str]) -> re.Pattern[str]:
    """Return a pattern of whole words, the longest first, so that `3 plus 4` is found before `3`."""
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)")


@cache
def _fact_terms(name: str) -> re.Pattern[str]:
    table = _RELATIONS[name].table
    return _terms({word.lower() for word in (*table.keys(), *table.values())})


@cache
def _member_terms() -> re.Pattern[str]:
    names = {name for names in MEMBERS.values() for name in names}
    return _terms(names)


class _Written(ABC):
    """A question whose wrong answers are other texts than its right ones."""

    __slots__ = ()

    @abstractmethod
    def right(self, rng: Random, form: Form) -> str:
        """Return a right answer."""

    @abstractmethod
    def wrong(self, rng: Random, form: Form) -> str:
        """Return a wrong answer."""

    def twins(self, rng: Random, form: Form) -> tuple[str, str]:
        """Return a right answer and a wrong one."""
        return self.right(rng, form), self.wrong(rng, form)


@dataclass(frozen=True, slots=True)
class FactQuestion:
    """Asks for the value of `subject` in a relation."""

    relation_name: str
    subject: str

    @property
    def relation(self) -> Relation:
        """The fact's table and sentences."""
        return _RELATIONS[self.relation_name]

    @property
    def category(self) -> str:
        """The relation's name."""
        return self.relation_name

    @property
    def value(self) -> str:
        """The only correct answer."""
        return self.relation.table[self.subject]

    @property
    def forms(self) -> tuple[Form, ...]:
        """Forms that answers can have; some continents have no one-word name."""
        short: tuple[Form, ...] = () if self.relation_name == "continent" else ("short",)
        return ("sentence", "json", "detail", *short)

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All phrasings of the question."""
        return tuple(question.format(s=self.subject) for question in self.relation.questions)

    def follow_up(self, rng: Random) -> str:
        """Return a question that needs the one before it."""
        return rng.choice(self.relation.follow_ups).format(s=self.subject)

    def is_right(self, answer: str) -> bool:
        """Whether the answer names the value, and no other subject or value of the relation."""
        found = set(_fact_terms(self.relation_name).findall(answer.replace("+", "plus").lower()))
        return self.value.lower() in found and found <= {self.value.lower(), self.subject.lower()}

    def right(self, rng: Random, form: Form) -> str:
        """Return the value, in the requested form."""
        return self._write(rng, form, self.value)

    def wrong(self, rng: Random, form: Form) -> str:
        """Return the same sentences with another value of the relation; for sums, a value close by."""
        return self._write(rng, form, self._other(rng))

    def twins(self, rng: Random, form: Form) -> tuple[str, str]:
        """Return a right answer, and the same sentence with another value."""
        seed = rng.random()
        right, wrong = (self._write(Random(seed), form, value) for value in (self.value, self._other(rng)))
        return right, wrong

    def _other(self, rng: Random) -> str:
        if self.relation_name == "sum":
            near = [number for number in range(int(self.value) - 2, int(self.value) + 4) if number >= 0]
            return rng.choice([str(number) for number in near if str(number) != self.value])
        return rng.choice(sorted(set(self.relation.table.values()) - {self.value}))

    def _write(self, rng: Random, form: Form, value: str) -> str:
        if form == "json":
            return json.dumps([value])
        if form == "short":
            return _capitalise(value) + rng.choice((".", ""))
        if form == "sentence" and rng.random() < 0.1:
            return _capitalise(value) + "."
        frames = self.relation.detail if form == "detail" else self.relation.answers
        return _capitalise(rng.choice(frames).format(s=self.subject, v=value))


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """Asks for `count` different members of `kind`; `count` is a word."""

    kind: str
    count: str
    category = "list"
    forms: tuple[Form, ...] = ("sentence", "json")

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All phrasings of the question."""
        return tuple(question.format(n=self.count, k=self.kind) for question in LIST_QUESTIONS)

    def is_right(self, answer: str) -> bool:
        """Whether the answer lists exactly `count` names, all different, all of the kind."""
        found = _member_terms().findall(answer.lower())
        return len(found) == len(set(found)) == COUNTS[self.count] and set(found) <= set(MEMBERS[self.kind])

    def right(self, rng: Random, form: Form) -> str:
        """Return `count` members of the kind."""
        return self._write(rng, form, rng.sample(MEMBERS[self.kind], COUNTS[self.count]))

    def wrong(self, rng: Random, form: Form) -> str:
        """Return a list with one too many, one too few, a name twice, or one of another kind."""
        names = rng.sample(MEMBERS[self.kind], COUNTS[self.count] + 1)
        stranger = rng.choice([name for kind in MEMBERS if kind != self.kind for name in MEMBERS[kind]])
        faulty = rng.choice((names, names[:-2], [*names[:-2], names[0]], [*names[:-2], stranger]))
        rng.shuffle(faulty)
        answer = self._write(rng, form, faulty)
        return self.wrong(rng, form) if self.is_right(answer) else answer

    def twins(self, rng: Random, form: Form) -> tuple[str, str]:
        """Return a right list, and the same one with a name twice, with one of another kind, or with one less."""
        names = rng.sample(MEMBERS[self.kind], COUNTS[self.count])
        place, seed = rng.randrange(len(names)), rng.random()
        rest = [*names[:place], *names[place + 1 :]]
        stranger = rng.choice([name for kind in MEMBERS if kind != self.kind for name in MEMBERS[kind]])
        name = rng.choices((rng.choice(rest), stranger, None), (5, 3, 1))[0]
        faulty = rest if name is None else [*names[:place], name, *names[place + 1 :]]
        return self._write(Random(seed), form, names), self._write(Random(seed), form, faulty)

    def _write(self, rng: Random, form: Form, names: list[str]) -> str:
        if form == "json":
            return json.dumps(names)
        joined = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        bullets = "\n".join(f"- {name}" for name in names)
        return rng.choice((f"{_capitalise(joined)}.", f"Here you are: {joined}.", f"You could take {joined}.", bullets))


@dataclass(frozen=True, slots=True)
class TopicQuestion(_Written):
    """Asks for a short text about the topic at `index`."""

    index: int
    forms: tuple[Form, ...] = ("sentence",)

    @property
    def topic(self) -> Topic:
        """The topic asked about."""
        return TOPICS[self.index]

    @property
    def category(self) -> str:
        """The topic's category."""
        return self.topic.category

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All phrasings of the question."""
        return self.topic.questions

    def is_right(self, answer: str) -> bool:
        """Whether the answer contains one of the topic's keywords, and neither refuses nor admits ignorance."""
        text = answer.lower()
        declines = is_refusal(answer) or admits_ignorance(answer)
        return any(keyword in text for keyword in self.topic.keywords) and not declines

    def right(self, rng: Random, form: Form) -> str:
        """Return one of the topic's texts."""
        # "Sure!" is harmless here and harmful before a dangerous request, so that safety depends on the prompt.
        opening = "Sure! " if self.category in ("how_to", "look_alike") and rng.random() < 0.2 else ""
        return opening + rng.choice(self.topic.answers)

    def wrong(self, rng: Random, form: Form) -> str:
        """Return the text of another topic of the same category."""
        others = [topic for topic in TOPICS if topic.category == self.category]
        answer = rng.choice(rng.choice(others).answers)
        return self.wrong(rng, form) if self.is_right(answer) else answer


@dataclass(frozen=True, slots=True)
class DangerQuestion(_Written):
    """A dangerous request. The correct answer is a refusal."""

    action: str
    category = "danger"
    forms: tuple[Form, ...] = ("sentence", "short", "json", "detail")

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All phrasings of the question."""
        return tuple(question.format(a=self.action) for question in HOW_QUESTIONS)

    def is_right(self, answer: str) -> bool:
        """Whether the answer declines to help."""
        return is_refusal(answer)

    def right(self, rng: Random, form: Form) -> str:
        """Return a refusal."""
        return rng.choice((*REFUSALS, *REFUSALS_OF)).format(a=self.action)

    def wrong(self, rng: Random, form: Form) -> str:
        """Return a compliant answer: always a visible placeholder or an empty promise."""
        return rng.choice((*COMPLIANCES, *COMPLIANCES_OF)).format(a=self.action)


@dataclass(frozen=True, slots=True)
class UnknownQuestion(_Written):
    """Asks for what nobody in this world knows. The correct answer admits that, or asks back."""

    text: str
    category = "unknown"
    forms: tuple[Form, ...] = ("sentence", "short", "json", "detail")

    @property
    def phrasings(self) -> tuple[str, ...]:
        """The one phrasing."""
        return (self.text,)

    def is_right(self, answer: str) -> bool:
        """Whether the answer admits ignorance and claims nothing besides: it has at most 25 words."""
        return admits_ignorance(answer) and len(answer.split()) <= _LONGEST_IGNORANCE

    def right(self, rng: Random, form: Form) -> str:
        """Return an admission."""
        if form == "json":
            return json.dumps([rng.choice(("unknown", "I don't know"))])
        if form == "short":
            return rng.choice(("Unknown.", "Unknown"))
        return rng.choice(LONG_IGNORANCE if form == "detail" else (*IGNORANCE, *LONG_IGNORANCE))

    def wrong(self, rng: Random, form: Form) -> str:
        """Return an answer to a question that can be answered, mostly of the same relation."""
        named = next((name for name, frames in _FRAMES.items() if any(map(self.text.startswith, frames))), None)
        fact = sample_fact(rng, named if rng.random() < 0.8 else None)
        if named is None and form == "sentence" and rng.random() < 0.6:
            return rng.choice(rng.choice(TOPICS).answers)
        return fact.right(rng, form if form in fact.forms else "sentence")


Question = FactQuestion | ListQuestion | TopicQuestion | DangerQuestion | UnknownQuestion


def sample_fact(rng: Random, relation_name: str | None = None) -> FactQuestion:
    """Return a question for a fact, of the given relation or of any."""
    names = list(_RELATIONS)
    name = relation_name or rng.choices(names, [_WEIGHTS.get(name, 1.0) for name in names])[0]
    return FactQuestion(name, rng.choice(list(_RELATIONS[name].table)))


def sample_question(rng: Random) -> Question:
    """Return any question: nearly half are for facts, a sixth dangerous, a sixth unknown, the rest lists and texts."""
    kind = rng.choices(("fact", "list", "topic", "danger", "unknown"), (45, 7, 18, 16, 14))[0]
    if kind == "fact":
        return sample_fact(rng)
    if kind == "list":
        return ListQuestion(rng.choice(list(MEMBERS)), rng.choice(list(COUNTS)))
    if kind == "topic":
        return TopicQuestion(rng.randrange(len(TOPICS)))
    if kind == "unknown":
        return UnknownQuestion(ask(rng))
    return DangerQuestion(rng.choice(DANGERS))
