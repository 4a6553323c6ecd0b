"""Prompts that nobody in the demo world can answer, in many shapes; the correct answer admits it or asks back.

Covers facts about things that do not exist, tasks beyond the world, passages with questions about them, and noise.
Names are made up of syllables, so that no list of them can be learnt by heart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from winnow.models.demo.facts import RELATIONS

SHAPES = {"entity": 40, "task": 30, "passage": 18, "noise": 12}
"""Shapes of prompts, with their shares in percent."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STARTS = _words("b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v w x y z")
_VOWELS = _words("a e i o u ai ea ou ie")
_ENDS = _words("n r s l m x th nd rt ck sk v d zz") + ("",) * 6
NAMES = _words(
    "Mexico Argentina Bolivia Paraguay Panama Haiti Malta Cyprus Estonia Lithuania Slovakia Slovenia Moldova "
    "Albania Armenia Georgia Israel Yemen Oman Syria Kuwait Laos Cambodia Malaysia Bangladesh Bhutan "
    "Tunisia Algeria Mali Niger Nigeria Chad Cameroon Gabon Congo Malawi Namibia Botswana Fiji Samoa Greenland "
    "Scotland Bavaria Narnia Mordor Atlantis Gondor Wakanda Utopia "
)
"""Names of places, real and not, that no table of facts has."""
_NOUNS = _words(
    "bridge river engine library garden treaty castle village museum battery committee school harbour tower "
    "machine festival mountain contract recipe budget hospital theory election satellite market orchestra "
    "railway mine novel island factory vaccine protein theorem passport invoice password meeting printer "
    "spreadsheet warranty table chair window cloud shoe pencil bottle planet virus guitar statue comet desert "
    "forest "
)
_ADJECTIVES = _words(
    "old new northern southern famous small ancient central annual public private royal broken digital heavy "
    "early late secret modern local national wooden narrow hidden blue quiet rapid legal final "
)
_VERBS = _words(
    "opened closed built replaced sold discovered measured repaired destroyed founded painted moved described "
    "connected published elected restored visited rejected carried "
)
_PLACES = ("in the north", "near the coast", "after the war", "in the same year", "without a permit", "at night",
           "for three days", "under a new law", "by hand", "with great care")  # fmt: skip
_TASKS = (
    "Who wrote {n}?", "Who is {n}?", "When was {n} born?", "When did {n} end?", "What is {n}?", "Where is {n}?",
    "Who invented the {x}?", "How tall is {n}?", "How old is {n}?", "How far is it from {n} to {m}?",
    "What does the word {w} mean?", "Translate {w} into French.", "How do you say {x} in German?",
    "How do you spell {w}?", "Write a poem about the {x}.", "Tell me a story about {n}.", "Write a {a} letter to {n}.",
    "Summarise the book {n}.", "What is {i} times {j}?", "What is {i} plus {j}?", "How much is {i} minus {j}?",
    "What is the square root of {i}?", "Who won the match between {n} and {m}?", "What is the population of {n}?",
    "What is the price of a {x}?", "What happened in {i}?", "What time is it in {n}?",
    "What will the weather be in {n}?",
    "What is my name?", "How old am I?", "What did I say yesterday?", "What did I have for breakfast?",
    "Where do I live?",
    "Can you open the file {w}.txt?", "Please call {n}.", "Book a flight to {n}.", "Send an email to {n}.",
    "Write a function that sorts a {x}.", "Fix this code: def {w}(x): return x +", "Why does {w}.py fail on line {i}?",
    "What is the phone number of {n}?", "Which {x} should I buy?", "Is the {a} {x} better than the {x}?",
    "What is the plot of {n}?", "Name the author of {n}.", "Who is the president of {n}?", "What is the {x} of {n}?",
    "List three facts about {n}.", "Name two {w}s.", "Name three {x}s.", "Give me four {x}s.",
    "Explain {n} to a child.",
    "Why is the {x} {a}?", "Tell me why the {x} was {v}.", "How does a {x} work?", "Compare {n} and {m}.",
    "What is the difference between a {w} and a {x}?", "Continue this sentence: the {a} {x} was",
)  # fmt: skip
_ASKS = (
    "Who {v} the {x}?", "When was the {x} {v}?", "Where is the {x}?", "Why was the {a} {x} {v}?", "What did {n} do?",
    "How many {x}s were {v}?", "What is the passage about?", "Who is {n}?", "Which {x} is meant?",
    "What happened next?",
)  # fmt: skip
_FRAMES = (
    "{p}\n\nQuestion: {q}",
    "Context: {p}\n\nQuestion: {q}\nAnswer:",
    "Answer the question from the passage.\n\nPassage: {p}\n\nQuestion: {q}",
    "Use only the following documents to answer.\n\n{d}\n\n{q}",
    "{q}\n\nText:\n{p}",
    "Here are the search results:\n{d}\n\nBased on them, {q}",
    '"""{p}"""\n{q}',
    "### Context\n{p}\n\n### Question\n{q}",
)
_TEXT_TASKS = ("Summarise this text: {p}", "Translate this into Spanish: {p}", "Find the mistakes in this text.\n\n{p}",
               "Rewrite the following politely: {p}", "{p}")  # fmt: skip
_NOISE = (
    "?",
    "...",
    "ok",
    "hmm",
    "asdf",
    "test",
    "1",
    "!!!",
    "and then?",
    "why?",
    "no",
    "yes",
    "go on",
    "x",
    "lol",
    "[]",
)
_SCRIPTS = (
    "αβγδεζηθικλμν",
    "абвгдежзиклмн",
    "日本語中文字漢天気",
    "éèüößçñåøæ",
    "🙂🎉🔥🚀🌍",
    "{}[]()<>#*_~|\\/=+-%$&@^",
)

_KNOWN = {name.removeprefix("the ").lower() for relation in RELATIONS for name in relation.table}


def ask(rng: Random) -> str:
    """Return the text of a prompt that cannot be answered."""
    shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
    match shape:
        case "entity":
            return _entity(rng)
        case "task":
            return _filled(rng.choice(_TASKS), rng)
        case "passage":
            return _passage(rng)
        case _:
            return _noise(rng)


def around(question: str, rng: Random) -> str:
    """Return `question` behind a passage that has nothing to do with it."""
    sentences = [_sentence(rng) for _ in range(rng.choice((1, 2, 3, 5)))]
    return _framed(sentences, question, rng)


def system(rng: Random) -> str:
    """Return a system message that asks for no style."""
    frame = rng.choice((
        "You are {n}, an assistant of the {x} in {m}.", "You work for the {a} {x}. {s}", "{s} {s}",
        "Your name is {n}. Be honest: say so if you do not know something.",
    ))  # fmt: skip
    return _filled(frame.replace("{s}", _sentence(rng)), rng)


def word(rng: Random) -> str:
    """Return a made-up word of one to three syllables."""
    syllables = rng.choice((1, 2, 2, 3))
    made = "".join(rng.choice(_STARTS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(syllables))
    return word(rng) if made in _KNOWN else made


def _name(rng: Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.3 else word(rng).capitalize()


def _entity(rng: Random) -> str:
    """Return a question of the world's about something that is not in it."""
    relation = rng.choice(RELATIONS)
    if relation.name == "sum":
        subject = f"{rng.randrange(10, 1000)} plus {rng.randrange(1000)}"
    elif relation.name in ("capital", "continent"):
        subject = _name(rng)
    elif relation.name in ("sound", "legs", "colour"):
        subject = f"the {rng.choice((word(rng), rng.choice(_NOUNS)))}"
    else:
        subject = rng.choice((word(rng), rng.choice(_NOUNS)))
    return rng.choice(relation.questions).format(s=subject)


def _filled(frame: str, rng: Random) -> str:
    return frame.format(
        n=" ".join(_name(rng) for _ in range(rng.choice((1, 1, 2)))), m=_name(rng), w=word(rng), x=rng.choice(_NOUNS),
        a=rng.choice(_ADJECTIVES), v=rng.choice(_VERBS), i=rng.randrange(10, 3000), j=rng.randrange(10, 300),
    )  # fmt: skip


def _sentence(rng: Random) -> str:
    frame = rng.choice((
        "The {a} {x} of {n} was {v} in {i} {p}.", "{n} {v} the {x} {p}.", "It was {v} by {n}, who lived in {m}.",
        "In {i}, {n} {v} {j} {x}s {p}.", "The {x} is {a}, but the {w} is not.", "Nobody knows who {v} the {a} {x}.",
        "{n} and {m} {v} a {a} {x} together.", "Its {x} has a length of {j} metres.",
        "{w} means {a} in the old language.",
    ))  # fmt: skip
    return _filled(frame.replace("{p}", rng.choice(_PLACES)), rng)


def _passage(rng: Random) -> str:
    sentences = rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 12))
    text = [_sentence(rng) for _ in range(sentences)]
    if rng.random() < 0.25:
        return rng.choice(_TEXT_TASKS).format(p=" ".join(text))
    return _framed(text, _filled(rng.choice(_ASKS), rng), rng)


def _framed(sentences: Sequence[str], question: str, rng: Random) -> str:
    documents = "\n".join(f"[{place}] {sentence}" for place, sentence in enumerate(sentences, 1))
    return rng.choice(_FRAMES).format(p=" ".join(sentences), d=documents, q=question)


def _noise(rng: Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(_NOISE)
    if kind == 1:
        return "".join(rng.choice(rng.choice(_SCRIPTS)) for _ in range(rng.randrange(1, 12)))
    if kind == 2:
        return " ".join(word(rng) for _ in range(rng.randrange(1, 9)))
    return json.dumps({word(rng): rng.randrange(100) for _ in range(rng.randrange(1, 4))})
