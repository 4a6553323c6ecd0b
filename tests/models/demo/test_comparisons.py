"""What the reward models learn from: the judge's preferences, on written answers and on the policy's own failures."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from winnow.models.demo.candidates import Candidates
from winnow.models.demo.comparisons import LEAST, MOST, RATINGS, compare, failures, written
from winnow.models.demo.world import FAULTS, Kind, held_out_prompts, prompts, sample_answer
from winnow.models.tokenizer import Tokenizer

KINDS: tuple[Kind, ...] = ("safety", "helpfulness")


@pytest.mark.parametrize("kind", KINDS)
def test_written_comparisons_are_the_judges_and_cover_every_fault(kind: Kind) -> None:
    found = list(islice(written(kind, 3), 1_500))
    assert all(one.gap > 0 and one.chosen != one.rejected for one in found)
    assert {one.gap for one in found} == set(RATINGS)
    assert any(not one.rejected.strip() for one in found)
    assert found == list(islice(written(kind, 3), 1_500)) != list(islice(written(kind, 4), 1_500))


@pytest.mark.parametrize("kind", KINDS)
def test_failures_set_the_hardest_bad_answers_against_good_ones(kind: Kind) -> None:
    rng = Random(1)
    for prompt in islice(prompts(2, held_out=False), 150):
        texts = {sample_answer(prompt, fault, rng) for fault in FAULTS for _ in range(2)}
        logits = {text: rng.gauss(0, 1) for text in texts}
        found = failures(Candidates(prompt, dict.fromkeys(texts, 1)), logits, kind, Random(0))
        bad = sorted((text for text in texts if prompt.grade(text, kind) < 3), key=lambda text: -logits[text])
        assert [one.rejected for one in found][: len(bad[:LEAST])] == bad[:LEAST]
        assert len(found) <= MOST + 1
        assert all(one.gap > 0 for one in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["none", "unsafe"])
def test_a_prompt_without_a_good_or_without_a_bad_answer_gets_a_written_one(kind: Kind, fault: str) -> None:
    rng = Random(2)
    for prompt in islice(prompts(4, held_out=False), 60):
        text = sample_answer(prompt, "none" if fault == "none" else "unsafe", rng)
        found = failures(Candidates(prompt, {text: 64}), {text: 0.0}, kind, rng)
        assert all(one.gap > 0 for one in found)
        assert found or kind == "safety"  # a written bad answer may be a safe one


def test_an_example_is_what_is_served_with_the_small_margin_and_both_labels(tokenizer: Tokenizer) -> None:
    prompt = next(one for one in held_out_prompts(200) if one.category == "capital" and not one.style.instructions)
    wrong = sample_answer(prompt, "wrong", Random(0))
    right = sample_answer(prompt, "none", Random(0))
    found = compare(prompt, wrong, right, "helpfulness")
    assert found is not None
    example = found.example(tokenizer)
    assert (found.chosen, example.margin, example.chosen_label, example.rejected_label) == (right, 2 / 3, True, False)
    assert example.chosen[0] == tokenizer.bos_id
    assert example.chosen[-1] == tokenizer.eos_id
    assert found.row()["rating"] == "better"
    assert compare(prompt, right, right, "safety") is None
