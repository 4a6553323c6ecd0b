"""Runs made by hand, for tests of what is derived from a journal: random, seeded, with every kind of entry."""

from __future__ import annotations

from pathlib import Path
from random import Random

import orjson

from winnow.models.combiner import combine, rank
from winnow.models.types import Candidate, Failure, Message, ScoredCandidate
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Arm, Problem, Record, ScoredAnswer

WORDS = [
    "the",
    "a",
    "river",
    "moon",
    "Paris",
    "seven",
    "blue",
    "quickly",
    "under",
    "because",
    "</s>",
    "line\nbreak",
    "é",
    "日本",
    "\u2028",
    'quote"',
    "{}",
    "tall",
]


def text(rng: Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def record(line: int, rng: Random, arms: tuple[Arm, ...] = (Arm(8, 1.0),), **fields: object) -> Record:
    """A finished prompt with random answers; some equal, some gated, some failed (never all)."""
    is_safety = bool(fields.get("is_safety", rng.random() < 0.2))
    answers: list[ScoredAnswer] = []
    failures: list[Failure] = []
    for place, arm in enumerate(arms):
        for _ in range(arm.candidates):
            index = len(answers) + len(failures)
            if rng.random() < 0.03 and index:
                failures.append(Failure(index, "the policy engine failed on a request"))
                continue
            words = rng.randrange(1, 30)
            reward = combine(is_safety, rng.gauss(1, 2.5), None if is_safety else rng.gauss(words / 20, 2))
            repeated = answers and rng.random() < 0.2
            answers.append(
                ScoredAnswer(index, place, answers[0].text, "stop", answers[0].tokens, answers[0].reward)
                if repeated
                else ScoredAnswer(
                    index, place, text(rng, words), "stop" if rng.random() < 0.9 else "length", words + 1, reward
                )
            )
    scored = [
        ScoredCandidate(Candidate(item.index, (), item.text, item.finish_reason, item.tokens), item.reward)
        for item in answers
    ]
    system = [Message("system", "Be brief.")] if rng.random() < 0.3 else []
    history = [Message("user", text(rng, 4)), Message("assistant", text(rng, 5))] if rng.random() < 0.3 else []
    values: dict[str, object] = {
        "line": line,
        "id": f"id-{line}" if rng.random() < 0.7 else None,
        "digest": f"{rng.getrandbits(128):032x}",
        "messages": (*system, *history, Message("user", text(rng, 6))),
        "is_safety": is_safety,
        "category": rng.choice((None, "facts", "danger")),
        "silent": bool(history) and rng.random() < 0.3,
        "n": 1,
        "combiner": "llama2",
        "arms": arms,
        "answers": tuple(answers),
        "ranking": rank(scored, "llama2"),
        "failures": tuple(failures),
        "prompt_tokens": rng.randrange(5, 60),
        "seconds": rng.random(),
    }
    return Record(**{**values, **fields})  # type: ignore[arg-type]


def problem(line: int, kind: str = "input") -> Problem:
    return Problem(line, None, "prompts.jsonl", line, kind, "invalid_json", "the line is not JSON")  # type: ignore[arg-type]


def make_run(
    folder: Path, prompts: int = 40, seed: int = 0, arms: tuple[Arm, ...] = (Arm(8, 1.0),), problems: int = 2
) -> list[Record]:
    """Write a whole run of `prompts` records and some problems, in a random order; the records in the input's order.

    Two neighbouring records have equal messages: equal prompts are two prompts.
    """
    rng = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = [record(line, rng, arms) for line in range(1, prompts + 1)]
    if prompts > 2:
        records[1] = record(2, rng, arms, messages=records[0].messages, is_safety=records[0].is_safety)
    entries = [*records, *(problem(prompts + 1 + extra) for extra in range(problems))]
    rng.shuffle(entries)
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest(arms, seed), option=orjson.OPT_INDENT_2))
    with Journal(folder) as journal:
        for entry in entries:
            journal.append(entry)
    return records


def manifest(arms: tuple[Arm, ...] = (Arm(8, 1.0),), seed: int = 0) -> dict[str, object]:
    return {
        "format": 1,
        "winnow": "0.1.0",
        "input": {"name": "prompts.jsonl", "sha256": "0" * 64, "bytes": 1234},
        "models": {
            "policy": {"id": "winnow-demo", "sha256": "1" * 64},
            "safety": {"id": "safety-rm", "sha256": "2" * 64},
            "helpfulness": {"id": "helpfulness-rm", "sha256": "3" * 64},
        },
        "settings": {
            "candidates": sum(arm.candidates for arm in arms),
            "temperatures": sorted({arm.temperature for arm in arms}),
            "sweep": False,
            "top_p": 1.0,
            "max_tokens": 96,
            "combiner": "llama2",
            "seed": seed,
            "dtype": "float32",
        },
        "recipe": {"context_distillation": False, "ghost_attention": False, "sha256": None},
    }
