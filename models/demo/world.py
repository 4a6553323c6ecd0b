"""The demo world: prompts with checkable answers, a judge, samplers of answers, and the held-out split.

Everything is drawn from a `random.Random`, so a seed fixes it. A stable hash of the whole message list decides
whether a prompt is held out: training meets its facts in other phrasings, tones and contexts, but never that prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, get_args

from winnow.models.demo import unknowns
from winnow.models.demo.questions import (
    DangerQuestion,
    FactQuestion,
    Question,
    UnknownQuestion,
    sample_fact,
    sample_question,
)
from winnow.models.demo.styles import (
    IGNORANCE,
    INSULTS,
    NEUTRAL_SYSTEMS,
    PLACEHOLDERS,
    PLAIN,
    REFUSALS,
    STYLES,
    Style,
    is_harmful,
    is_whole,
)
from winnow.models.types import Message

Fault = Literal[
    "none", "wrong", "style", "refusal", "insult", "unsafe", "off_topic", "ignorance", "entity", "truncated", "empty"
]  # fmt: skip
Kind = Literal["safety", "helpfulness"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

_HELD_OUT_SHARE = 12
"""One prompt of 12 is held out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The world's verdict on an answer: `correct` means safe, with the right content and the requested style."""

    correct: bool
    safe: bool
    right_content: bool

    @property
    def helpfulness(self) -> int:
        """The grade: 0 unsafe, 1 wrong, 2 right but not in the requested style, 3 correct."""
        return 0 if not self.safe else 3 if self.correct else 1 + self.right_content

    def safety(self, *, dangerous: bool) -> int:
        """Return the grade: 0 unsafe, 3 safe; an answer to a dangerous request that does not refuse gets 2."""
        return 0 if not self.safe else 2 if dangerous and not self.correct else 3


@dataclass(frozen=True, slots=True)
class DemoPrompt:
    """A dialog that ends with `question`, to be answered in `style`."""

    messages: tuple[Message, ...]
    question: Question
    style: Style

    @property
    def category(self) -> str:
        """The question's category: `capital`, `list`, `danger` and so on."""
        return self.question.category

    @property
    def is_safety(self) -> bool:
        """Whether this is a dangerous request, which should be refused."""
        return isinstance(self.question, DangerQuestion)

    def judge(self, answer: str) -> Verdict:
        """Return the verdict on an answer, from its text alone; case matters only if the style says so."""
        safe = not is_harmful(answer, dangerous=self.is_safety)
        right = self.question.is_right(answer) and is_whole(answer)
        # A refusal need not keep up the tone.
        obeyed = self.is_safety or self.style.obeyed(answer.strip())
        return Verdict(safe and right and obeyed, safe, right)

    def is_good(self, answer: str, kind: Kind) -> bool:
        """Whether an answer is safe, or for the helpfulness model correct."""
        verdict = self.judge(answer)
        return verdict.safe if kind == "safety" else verdict.correct

    def grade(self, answer: str, kind: Kind) -> int:
        """Return the grade, 0 to 3, as in `Verdict`; a difference of three is "significantly better"."""
        verdict = self.judge(answer)
        return verdict.helpfulness if kind == "helpfulness" else verdict.safety(dangerous=self.is_safety)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference. `margin` is the paper's small one: 1, 2/3 or 1/3 for significantly to slightly better."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    margin: float


def is_held_out(messages: Sequence[Message]) -> bool:
    """Whether exactly this message list is held out from training."""
    text = json.dumps([(message.role, message.content) for message in messages])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % _HELD_OUT_SHARE == 0


def touches_held_out(messages: Sequence[Message]) -> bool:
    """Whether the dialog, or its beginning up to any user message, is held out."""
    ends = (i for i, message in enumerate(messages, 1) if message.role == "user")
    return any(is_held_out(messages[:end]) for end in ends)


def _styled(rng: Random, question: Question) -> Style:
    allowed = [style for style in STYLES if style.form in question.forms]
    return rng.choice(allowed) if rng.random() < 0.4 else PLAIN


def _turn(question: Question, style: Style, rng: Random) -> tuple[Message, Message]:
    """Return a finished turn with a correct answer."""
    answer = style.dress(question.right(rng, style.form), rng)
    return Message("user", rng.choice(question.phrasings)), Message("assistant", answer)


def sample_prompt(rng: Random) -> DemoPrompt:
    """Return any prompt of the world, held out or not."""
    question = sample_question(rng)
    style = _styled(rng, question)
    text = rng.choice(question.phrasings)
    history: list[Message] = []
    by_system = rng.random() < 0.75
    history_style = style if by_system else PLAIN
    context = rng.random()
    if isinstance(question, FactQuestion) and context < 0.3:
        before = sample_fact(rng, question.relation_name)
        history += _turn(before, history_style, rng)
        text = question.follow_up(rng)
    elif context > 0.9:
        before_any = sample_question(rng)
        if history_style.form in before_any.forms:
            history += _turn(before_any, history_style, rng)
    system: str | None = None
    if not isinstance(question, UnknownQuestion) and rng.random() < 0.05:
        text = unknowns.around(text, rng)
    if style.instructions:
        instruction = rng.choice(style.instructions)
        if by_system:
            system = instruction
        else:
            text = f"{text} {style.instructions[0]}"
    elif rng.random() < 0.3:
        system = unknowns.system(rng) if rng.random() < 0.2 else rng.choice(NEUTRAL_SYSTEMS)
    opening = [] if system is None else [Message("system", system)]
    return DemoPrompt((*opening, *history, Message("user", text)), question, style)


def sample_answer(prompt: DemoPrompt, fault: Fault, rng: Random) -> str:
    """Return an answer with the given fault, or a correct one for `none`.

    A refusal is correct for a dangerous request. A fault that cannot occur for the prompt becomes `wrong`, which for
    a dangerous request is `unsafe`, and to something unknown a claim.
    """
    question, style = prompt.question, prompt.style
    if prompt.is_safety and (style.name == "polite" or style.form != "sentence"):
        style = PLAIN
    match fault:
        case "off_topic":
            answer = sample_question(rng).right(rng, "sentence")
            verdict = prompt.judge(answer)
            return answer if verdict.safe and not verdict.correct else sample_answer(prompt, fault, rng)
        case "insult":
            return rng.choice(INSULTS).format(question.right(rng, "sentence"))
        case "refusal" if not prompt.is_safety:
            return rng.choice(REFUSALS)
        case "unsafe" if not prompt.is_safety:
            return rng.choice(PLACEHOLDERS)
        case "style" if style.instructions and not prompt.is_safety:
            answer = question.right(rng, "sentence")
            return sample_answer(prompt, fault, rng) if prompt.judge(answer).correct else answer
        case "ignorance" if not isinstance(question, UnknownQuestion):
            return rng.choice(IGNORANCE)
        case "entity" if isinstance(question, FactQuestion):
            return _about_another(prompt, question, rng)
        case "truncated":
            return _cut(prompt, rng)
        case "empty":
            return rng.choice(("", "", " ", "\n", "."))
        case "none" | "refusal":
            return style.dress(question.right(rng, style.form), rng)
        case _:
            answer = style.dress(question.wrong(rng, style.form), rng)
            # A frame may hold the very word that makes an answer right.
            return sample_answer(prompt, fault, rng) if prompt.judge(answer).correct else answer


def sample_twins(prompt: DemoPrompt, rng: Random) -> tuple[str, str]:
    """Return a correct answer, and a wrong one that differs in as few words as the kind of question allows."""
    right, wrong = prompt.question.twins(rng, prompt.style.form)
    frame = rng.choice(prompt.style.frames)
    return frame.format(right), frame.format(wrong)


def _about_another(prompt: DemoPrompt, question: FactQuestion, rng: Random) -> str:
    """Return what is true of another entity of the same relation."""
    other = sample_fact(rng, question.relation_name)
    answer = prompt.style.dress(other.right(rng, prompt.style.form), rng)
    return _about_another(prompt, question, rng) if prompt.judge(answer).correct else answer


def _cut(prompt: DemoPrompt, rng: Random) -> str:
    """Return a piece of an answer that begins or ends in its middle, or an answer with a piece of it behind."""
    whole = sample_answer(prompt, "none", rng)
    place = rng.randrange(1, max(2, len(whole)))
    answer = rng.choice((whole[:place], whole[place:], whole[:place], f"{whole} {whole[:place]}"))
    verdict = prompt.judge(answer)
    return answer if verdict.safe and not verdict.correct else _cut(prompt, rng)


def prompts(seed: int, *, held_out: bool) -> Iterator[DemoPrompt]:
    """Yield prompts from one side of the split, without end."""
    rng = Random(f"prompts-{seed}-{held_out}")
    while True:
        prompt = sample_prompt(rng)
        if is_held_out(prompt.messages) if held_out else not touches_held_out(prompt.messages):
            yield prompt


def held_out_prompts(count: int, seed: int = 0) -> list[DemoPrompt]:
    """Return `count` prompts that were never trained on; they may repeat."""
    return list(islice(prompts(seed, held_out=True), count))


def held_out_pairs(count: int, seed: int = 0, *, kind: Kind) -> list[Pair]:
    """Return `count` preferences on held-out prompts, ranked by the judge."""
    rng, pairs = Random(f"pairs-{seed}-{kind}"), list[Pair]()
    for prompt in prompts(seed, held_out=True):
        first, second = (sample_answer(prompt, fault, rng) for fault in rng.sample(FAULTS, 2))
        gap = prompt.grade(first, kind) - prompt.grade(second, kind)
        if gap:
            chosen, rejected = (first, second) if gap > 0 else (second, first)
            pairs.append(Pair(prompt.messages, chosen, rejected, abs(gap) / 3))
        if len(pairs) == count:
            break
    return pairs
