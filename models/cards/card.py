"""A reward model's card: its fields, the shipped cards, and cards that people write."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

from winnow.models.cards.evidence import CalibrationRecord, Probe, parse_calibration, parse_probes
from winnow.models.errors import CheckpointError

Adapter = Literal["linear", "labels", "gated", "encoder", "judge"]
"""The place of the score: in a linear head's one row, in the logits of label tokens, in a sum that a gate weighs, in an
encoder's labels, or in a judge's grade."""
System = Literal["keep", "merge", "drop"]
"""A system message: given to the template, put before the first user message, or left out."""
ReadAt = Literal["last", "before_pad"]
"""The token that the score is read at: the last one, or the last that is not the pad token."""
Overflow = Literal["refuse", "drop_oldest_turns"]
"""A conversation beyond the context: the answer is not scored, or is scored without the oldest turns."""
Reads = Literal["pair", "answer"]
"""An encoder's text: the conversation and the answer as a pair of sentences, or the answer alone."""
Reduce = Literal["raw", "difference", "minus_max"]
"""The score of an encoder's labels: one's logit, the first's minus the second's, or minus the largest."""
FILE = "winnow-card.toml"
"""The card that a checkpoint's folder may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One reward model; None takes what the checkpoint's own files say.

    `match` are patterns of checkpoint names (`*`, `?`) and `architectures` those of config.json that the card is for.
    `head` is the head's name in the checkpoint, without `.weight`; `labels` are tokens, by id or by the vocabulary's
    name: the score is the first one's logit, minus the second's. `gate` are the tokens that open an answer, at the
    first of which a gated head's gate is read; Llama 3's are the default. `template` is "tokenizer", "llama2" or a
    Jinja template. `bos` is whether one BOS comes first. `end` are tokens behind the conversation, unless the template
    writes them. `scale` and `bias` make a logit of which more is better; `calibrated` says that its sigmoid is a
    probability, `calibration` how that was found. `probes` are published scores, which a served model has to give.
    `note` is for people.

    An encoder has `reads` and `reduce`; its `labels` are those of its config, by name or index, and its `template` is
    that of the conversation without the answer.

    A judge's `template` makes the text that it is sent, of `messages`, `answer` and `grades`; `grades` are the lowest
    and the highest. `expected` takes the mean of the grades that it weighed, if its server tells their probabilities.
    """

    name: str
    match: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    adapter: Adapter = "linear"
    head: str | None = None
    labels: tuple[int | str, ...] = ()
    gate: tuple[int | str, ...] = ()
    template: str | None = None
    system: System | None = None
    bos: bool | None = None
    end: tuple[int | str, ...] | None = None
    read_at: ReadAt | None = None
    reads: Reads | None = None
    reduce: Reduce | None = None
    context: int | None = None
    overflow: Overflow = "refuse"
    scale: float | None = None
    bias: float = 0.0
    calibrated: bool = False
    calibration: CalibrationRecord | None = None
    probes: tuple[Probe, ...] = ()
    grades: tuple[int, int] | None = None
    expected: bool = False
    note: str = ""

    def is_for(self, name: str, architecture: str) -> bool:
        """Whether the checkpoint called `name`, of `architecture`, is meant."""
        if self.architectures and architecture not in self.architectures:
            return False
        return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in self.match)

    @property
    def sha256(self) -> str:
        """A digest of all that decides a score; a field at its default does not count, so that new ones change none."""
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        decisive = [(name, value) for name, value, usual in given if name not in _FOR_PEOPLE and value != usual]
        return hashlib.sha256(repr(decisive).encode()).hexdigest()


_FOR_PEOPLE = ("name", "match", "architectures", "calibration", "probes", "note")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "adapter": get_args(Adapter),
    "system": get_args(System),
    "read_at": get_args(ReadAt),
    "reads": get_args(Reads),
    "reduce": get_args(Reduce),
    "overflow": get_args(Overflow),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "adapter", "head", "template", "system", "read_at", "overflow", "note"), (str,)),
    **dict.fromkeys(("reads", "reduce"), (str,)),
    **dict.fromkeys(("match", "architectures", "labels", "gate", "end", "grades"), (list,)),
    **dict.fromkeys(("scale", "bias"), (int, float)),
    **dict.fromkeys(("bos", "calibrated", "expected"), (bool,)),
    "context": (int,),
}


_TABLES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "calibration": ("calibration", parse_calibration),
    "probe": ("probes", parse_probes),
}
"""Tables of a card: each one's field, and its parser."""


def read_card(path: Path) -> Card:
    """Return the card in the TOML file `path`.

    Raises:
        CheckpointError: it cannot be read, or a field is unknown or has a value that cannot be used.
    """
    return parse_card(read_card_text(path), path.name)


def read_card_text(path: Path) -> str:
    """Return the text of a card's file.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CheckpointError(f"card {path.name} cannot be read: {reason}") from None


def parse_card(text: str, source: str) -> Card:
    """Return the card that a TOML text is; `source` names it in errors.

    Raises:
        CheckpointError: a field is unknown, missing or has a value that cannot be used.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"card {source} is not TOML: {error}") from None
    tables = {name: values.pop(name) for name in _TABLES if name in values}
    for name, value in values.items():
        if problem := _problem(name, value):
            raise CheckpointError(f"card {source}: {problem}")
    try:
        evidence = {field: parse(tables[name]) for name, (field, parse) in _TABLES.items() if name in tables}
    except ValueError as error:
        raise CheckpointError(f"card {source}: {error}") from None
    if "calibration" in tables:
        values.setdefault("calibrated", True)
    fields_of = {name: _frozen(value) for name, value in values.items()} | evidence
    card = Card(**{"name": Path(source).stem} | fields_of)
    if problem := _contradiction(card):
        raise CheckpointError(f"card {source}: {problem}")
    return card


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _problem(name: str, value: Any) -> str | None:
    """Return what is wrong with one field, or None."""
    if name not in _TYPES:
        return f"unknown field {name!r}; fields are {', '.join((*_TYPES, *_TABLES))}"
    # Python counts True as an integer.
    if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and bool not in _TYPES[name]):
        return f"{name} must be {' or '.join(_WORDS[kind] for kind in _TYPES[name])}"
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"{name} is {value!r}; it may be {', '.join(_CHOICES[name])}"
    if isinstance(value, list):
        kinds = {**dict.fromkeys(("labels", "gate", "end"), (int, str)), "grades": (int,)}.get(name, (str,))
        if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in value):
            return f"{name} must hold {' or '.join(_WORDS[kind] for kind in kinds)} only"
    if name == "context" and isinstance(value, int) and value < 1:
        return "context must be positive"
    return None


_WORDS = {str: "a text", list: "a list", int: "a number", float: "a number", bool: "true or false"}


def _contradiction(card: Card) -> str | None:
    if card.scale == 0:
        return "scale must not be 0"
    if card.calibration and not card.calibrated:
        return "calibrated is false, but there is a [calibration]"
    if card.adapter == "judge" or card.grades or card.expected:
        return _judge_contradiction(card)
    if card.adapter == "encoder":
        return _encoder_contradiction(card)
    if card.reads or card.reduce:
        return 'reads and reduce belong to adapter = "encoder"'
    if (card.adapter == "labels") != bool(card.labels):
        return 'labels belong to adapter = "labels", which needs one or two of them'
    if len(card.labels) > 2 or len(set(card.labels)) < len(card.labels):
        return "labels must be one token, or two different ones: the better, then the worse"
    if card.adapter == "labels" and card.head:
        return "label tokens are read from the output matrix; there is no head to name"
    if card.gate and card.adapter != "gated":
        return 'gate belongs to adapter = "gated"'
    if card.template == "llama2" and card.adapter == "gated":
        return 'template = "llama2" has no place for a gate'
    if card.template == "llama2" and (card.labels or card.system or card.end is not None or card.bos is not None):
        return 'template = "llama2" has a BOS, a system block and an EOS of its own, and no label tokens'
    if card.template is not None and card.template not in ("tokenizer", "llama2") and "{" not in card.template:
        return 'template must be "tokenizer", "llama2" or a Jinja template'
    return None


_NOT_OF_JUDGES = ("head", "labels", "gate", "system", "bos", "end", "read_at", "context", "reads", "reduce")


def _judge_contradiction(card: Card) -> str | None:
    if card.adapter != "judge":
        return 'grades and expected belong to adapter = "judge"'
    if no := [name for name in _NOT_OF_JUDGES if getattr(card, name) not in (None, ())]:
        return f"{no[0]} is not a judge's, which is sent what its template makes"
    if card.overflow != "refuse":
        return "overflow is not a judge's; its server refuses what is too long"
    if not card.grades or len(card.grades) != 2 or not -1000 < card.grades[0] < card.grades[1] < 1000:
        return "a judge needs grades, the lowest and the highest, such as [1, 10]"
    if card.expected and not 0 <= card.grades[0] < card.grades[1] <= 9:
        return "expected needs grades of one digit, such as [1, 9]: a token may be the beginning of a longer one"
    if not card.template or "messages" not in card.template or "answer" not in card.template:
        return "a judge needs a Jinja template of messages and answer"
    return None


def _encoder_contradiction(card: Card) -> str | None:
    if card.head or card.read_at or card.end is not None or card.bos is not None:
        return "an encoder has no head, read_at, end or bos: its tokenizer and its labels say where the score is"
    if card.reads == "answer" and (card.template or card.system or card.overflow != "refuse"):
        return 'reads = "answer" reads no conversation: leave out template, system and overflow'
    if card.template is not None and "{" not in card.template:
        return "an encoder's template is a Jinja template of the conversation without the answer"
    if len(set(card.labels)) < len(card.labels):
        return "labels must be different ones"
    if card.reduce == "raw" and len(card.labels) > 1:
        return 'reduce = "raw" is the logit of one label'
    if card.reduce == "difference" and len(card.labels) != 2:
        return 'reduce = "difference" needs two labels: the better, then the worse'
    if len(card.labels) > 2 and not card.reduce:
        return 'more than two labels need a reduce, such as "minus_max" where each is one of unsafe answers'
    return None


@lru_cache(1)
def shipped() -> tuple[Card, ...]:
    """Return the cards that come with Winnow, by name."""
    return tuple(parse_card(card_text(entry), entry.name) for entry in shipped_files())


def shipped_files() -> list[Traversable]:
    """Return the files of the shipped cards."""
    entries = files(__package__).iterdir()
    return sorted((entry for entry in entries if entry.name.endswith(".toml")), key=lambda entry: entry.name)


def card_text(entry: Traversable) -> str:
    """Return the text of a shipped card."""
    return entry.read_text(encoding="utf-8")


def shipped_text(name: str) -> tuple[str, str]:
    """Return the text of the shipped card called `name`, and its file's name."""
    entry = next(entry for entry in shipped_files() if parse_card(card_text(entry), entry.name).name == name)
    return card_text(entry), entry.name
