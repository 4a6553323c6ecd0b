"""Runs made by hand, for tests of what is derived from a journal: random, seeded, with every kind of entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson

from winnow.models.combiner import combine, rank
from winnow.models.types import (
    Candidate,
    CombinerName,
    Failure,
    FinishReason,
    Message,
    Prompt,
    Reward,
    ScoredCandidate,
    Selection,
    Timings,
)
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import FORMAT, Arm, Problem, ProblemKind, Record

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
    "a\u2028b",
    'quote"',
    "{}",
    "tall",
]


def text(rng: Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def scored(
    index: int, text: str, reward: Reward, tokens: int = 4, finish_reason: FinishReason = "stop"
) -> ScoredCandidate:
    return ScoredCandidate(Candidate(index, text, finish_reason, tokens), reward)


def record(
    line: int,
    rng: Random,
    arms: tuple[Arm, ...] = (Arm(8, 1.0),),
    *,
    answers: Sequence[ScoredCandidate] | None = None,
    failures: Sequence[Failure] | None = None,
    messages: tuple[Message, ...] | None = None,
    is_safety: bool | None = None,
    combiner: CombinerName = "llama2",
    **fields: Any,
) -> Record:
    """A finished prompt with random answers; some equal, some unsafe, some failed (never all)."""
    drawn = rng.random() < 0.2
    is_safety = drawn if is_safety is None else is_safety
    random_answers, random_failures = _answers(rng, arms, is_safety)
    system = [Message("system", "Be brief.")] if rng.random() < 0.3 else []
    history = [Message("user", text(rng, 4)), Message("assistant", text(rng, 5))] if rng.random() < 0.3 else []
    values: dict[str, Any] = {
        "line": line,
        "id": f"id-{line}" if rng.random() < 0.7 else None,
        "digest": f"{rng.getrandbits(128):032x}",
    }
    dialog = (*system, *history, Message("user", text(rng, 6)))
    values |= {
        "category": rng.choice((None, "facts", "danger")),
        "mask_history": bool(history) and rng.random() < 0.3,
        "n": 1,
        "arms": arms,
        "prompt_tokens": rng.randrange(5, 60),
    }
    answers = tuple(random_answers if answers is None else answers)
    selection = Selection(
        prompt=Prompt((), dialog if messages is None else messages, is_safety),
        combiner=combiner,
        scored=answers,
        ranking=rank(answers, combiner),
        failures=tuple(random_failures if failures is None else failures),
        timings=Timings(0.0, 0.0, 0.0, 0.0, rng.random()),
    )
    return Record(**{**values, **fields}, selection=selection)


def _answers(rng: Random, arms: tuple[Arm, ...], is_safety: bool) -> tuple[list[ScoredCandidate], list[Failure]]:
    answers: list[ScoredCandidate] = []
    failures: list[Failure] = []
    for index in range(sum(arm.candidates for arm in arms)):
        if rng.random() < 0.03 and index:
            failures.append(Failure(index, "the policy engine failed on a request"))
            continue
        words = rng.randrange(1, 30)
        reward = combine(is_safety, rng.gauss(1, 2.5), None if is_safety else rng.gauss(words / 20, 2))
        if answers and rng.random() < 0.2:
            first = answers[0].candidate
            answers.append(scored(index, first.text, answers[0].reward, first.tokens))
        else:
            content = text(rng, words)
            answers.append(scored(index, content, reward, words + 1, "stop" if rng.random() < 0.9 else "length"))
    return answers, failures


def timeless(record: Record) -> Record:
    """Return `record` without its times, the part of it that differs between equal runs."""
    return replace(record, selection=replace(record.selection, timings=Timings(0.0, 0.0, 0.0, 0.0, 0.0)))


def problem(line: int, kind: ProblemKind = "input") -> Problem:
    return Problem(line, None, "prompts.jsonl", line, kind, "invalid_json", "the line is not JSON")


def make_run(
    folder: Path, prompts: int = 40, seed: int = 0, arms: tuple[Arm, ...] = (Arm(8, 1.0),), problems: int = 2
) -> list[Record]:
    """Write a run of `prompts` records and some problems in random order; return the records in input order.

    Two neighbouring records have equal messages: equal prompts are two prompts.
    """
    rng = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = [record(line, rng, arms) for line in range(1, prompts + 1)]
    if prompts > 2:
        records[1] = record(2, rng, arms, messages=records[0].messages, is_safety=records[0].selection.prompt.is_safety)
    entries = [*records, *(problem(prompts + 1 + extra) for extra in range(problems))]
    rng.shuffle(entries)
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest(arms, seed), option=orjson.OPT_INDENT_2))
    with Journal(folder) as journal:
        for entry in entries:
            journal.append(entry)
    return records


def manifest(arms: tuple[Arm, ...] = (Arm(8, 1.0),), seed: int = 0) -> dict[str, object]:
    return {
        "format": FORMAT,
        "winnow": "0.1.0",
        "input": {"name": "prompts.jsonl", "sha256": "0" * 64, "bytes": 1234},
        "models": {
            "policy": {"id": "winnow-demo", "sha256": "1" * 64, "kind": "vllm", "template": "llama2"},
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
            "empty_last": True,
            "seed": seed,
            "dtype": "float32",
        },
        "recipe": {"context_distillation": False, "ghost_attention": False, "sha256": None},
    }
