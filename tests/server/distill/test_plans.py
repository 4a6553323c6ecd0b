"""Plans and the recipe: the requests for a line, the dialogs they are sampled from, and their seeds."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.errors import RequestError, RunError, SamplingError
from winnow.models.types import Message
from winnow.server.distill import recipe
from winnow.server.distill.parser import Task
from winnow.server.distill.plans import Choices, Plan, Planner
from winnow.server.pipeline.request import RequestOptions

RULES, _ = recipe.read(None)
SAFETY = RequestOptions(is_safety=True)
QUESTION = (Message("user", "What is the capital of France?"),)
DIALOG = (
    Message("system", "Be brief."),
    Message("user", "Name a fruit."),
    Message("assistant", "Plum."),
    Message("user", "Another? "),
)


def choices(**changes: object) -> Choices:
    values = {
        "candidates": 16, "temperatures": (1.0,), "sweep": False, "top_p": 1.0, "max_tokens": 64, "combiner": "llama2",
        "seed": 0, **changes,
    }  # fmt: skip
    return Choices(**values)  # type: ignore[arg-type]


def task(line: int = 1, messages: tuple[Message, ...] = QUESTION, **fields: object) -> Task:
    return Task(line, "f", line, None, messages, **fields)  # type: ignore[arg-type]


def planned(job: Task, is_safety: bool = False, **changes: object) -> Plan:
    async def classify(_: Task) -> bool:
        return is_safety

    return asyncio.run(Planner(choices(**changes), RULES, classify).plan(job))


def stored(made: Plan) -> tuple[Message, ...]:
    """Return the dialog that is answered, the same for all arms."""
    dialogs = [request.prompt for request in made.requests if isinstance(request.prompt, tuple)]
    assert len(dialogs) == len(made.requests)
    assert len(set(dialogs)) == 1
    return dialogs[0]


@given(k=st.integers(1, 64), count=st.integers(1, 8), sweep=st.booleans())
def test_exactly_k_candidates_whatever_the_temperatures(k: int, count: int, sweep: bool) -> None:
    temperatures = tuple(0.5 + step / 10 for step in range(count))
    if not sweep and count > k:
        with pytest.raises(RunError, match="cannot be spread"):
            choices(candidates=k, temperatures=temperatures)
        return
    made = planned(task(), candidates=k, temperatures=temperatures, sweep=sweep)
    assert made.candidates == (k * count if sweep else k)
    sizes = [arm.candidates for arm in made.arms]
    assert max(sizes) - min(sizes) <= 1
    assert [arm.temperature for arm in made.arms] == list(temperatures)
    assert [request.sampling.temperature for request in made.requests] == list(temperatures)


def test_seeds_follow_from_the_run_the_line_and_the_arm_alone() -> None:
    def seeds(line: int, **changes: object) -> list[int | None]:
        made = planned(task(line), temperatures=(0.7, 1.0), **changes)
        return [request.sampling.seed for request in made.requests]

    assert seeds(1) == seeds(1)
    every = [*seeds(1), *seeds(2), *seeds(1, seed=1), *seeds(12), *seeds(2, seed=11)]
    assert len(set(every)) == len(every)
    assert all(seed is not None and 0 <= seed < 2**63 for seed in every)


def test_seeds_do_not_change_between_versions() -> None:
    """The seeds that Winnow 0.1 gave these arms: the same command gives the same answers."""
    temperatures = (0.5, 1.0, 1.5)
    first, second, _ = planned(task(1), temperatures=temperatures).requests
    assert (first.sampling.seed, second.sampling.seed) == (8905565557003407953, 8161333652933849457)
    *_, fourth = planned(task(12, options=SAFETY), temperatures=(0.5, 1.0), seed=7, context_distillation=True).requests
    assert fourth.sampling.seed == 4980899689827345798
    *_, third = planned(task(9, options=RequestOptions(seed=5)), temperatures=temperatures).requests
    assert third.sampling.seed == 5586317475808259443


def test_a_lines_own_options_come_first() -> None:
    own = RequestOptions(
        candidates=4, n=2, temperature=0.3, top_p=0.5, max_tokens=7, stop=("x",), combiner="safe_first"
    )
    made = planned(task(options=own), temperatures=(0.7, 1.0))
    (request,) = made.requests
    assert (made.candidates, request.candidates, request.n, request.combiner) == (4, 4, 2, "safe_first")
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.max_tokens) == (0.3, 0.5, 7)
    assert request.sampling.stop == ("x",)
    assert request.options.max_tokens == 7


def test_a_lines_own_seed_does_not_depend_on_its_place() -> None:
    own = RequestOptions(seed=5)
    first, second = (planned(task(line, options=own)).requests[0].sampling.seed for line in (1, 2))
    assert first == second != planned(task(1)).requests[0].sampling.seed


def test_impossible_options() -> None:
    with pytest.raises(RequestError, match="n \\(5\\) answers cannot be returned from 4"):
        planned(task(options=RequestOptions(n=5, candidates=4)))
    for own in (RequestOptions(temperature=0.0, candidates=4), RequestOptions(temperature=0.0, n=2)):
        with pytest.raises(SamplingError, match="at temperature 0"):
            planned(task(options=own))
    with pytest.raises(SamplingError, match="at temperature 0"):
        planned(task(options=RequestOptions(candidates=4)), candidates=1, temperatures=(0.0,))
    assert planned(task(options=RequestOptions(temperature=0.0))).candidates == 1
    with pytest.raises(RunError, match="at temperature 0"):
        choices(temperatures=(0.0,))
    with pytest.raises(RequestError, match="the limit here is 1024"):
        planned(task(options=RequestOptions(candidates=10**9)))
    with pytest.raises(RunError, match="the limit here is 1024"):
        choices(candidates=10**9)
    with pytest.raises(RunError, match="at least one temperature"):
        choices(temperatures=())


def test_the_line_or_else_the_classifier_tags_safety_prompts() -> None:
    harmless = RequestOptions(is_safety=False)
    for job, tag, is_safety in (
        (task(), True, True),
        (task(), False, False),
        (task(options=harmless), True, False),
        (task(options=SAFETY), False, True),
    ):
        assert [request.is_safety for request in planned(job, tag).requests] == [is_safety]


def test_context_distillation_samples_with_a_preprompt_and_scores_without() -> None:
    made = planned(task(category="danger", options=SAFETY), context_distillation=True)
    plain, distilled = made.requests
    assert plain.sampling_dialog == plain.prompt == distilled.prompt == QUESTION
    assert distilled.sampling_dialog
    system, *rest = distilled.sampling_dialog
    assert tuple(rest) == QUESTION
    assert system.role == "system"
    assert RULES.context_distillation.preprompt in system.content
    assert RULES.context_distillation.templates["danger"] in system.content
    assert [arm.preprompt for arm in made.arms] == [None, "preprompt+danger"]
    assert plain.sampling.seed != distilled.sampling.seed


def test_context_distillation_keeps_a_system_message_and_leaves_harmless_prompts_alone() -> None:
    made = planned(task(messages=DIALOG, options=SAFETY), context_distillation=True)
    dialog = made.requests[1].sampling_dialog
    assert dialog
    assert dialog[0].content.endswith("\n\nBe brief.")
    assert dialog[1:] == DIALOG[1:]
    assert [arm.preprompt for arm in made.arms] == [None, "preprompt"]
    assert len(planned(task(messages=DIALOG), context_distillation=True).requests) == 1


def test_ghost_attention_instructs_every_turn_and_stores_the_first() -> None:
    made = planned(task(messages=DIALOG, instruction="Rhyme."), ghost_attention=True)
    (request,) = made.requests
    assert [message.content for message in request.sampling_dialog or ()] == [
        "Be brief.",
        "Name a fruit. Rhyme.",
        "Plum.",
        "Another? Rhyme.",
    ]
    assert [message.content for message in stored(made)] == ["Be brief.", "Name a fruit. Rhyme.", "Plum.", "Another? "]
    assert made.mask_history


def test_ghost_attention_draws_an_instruction_by_the_line() -> None:
    def drawn(line: int) -> str:
        return stored(planned(task(line, DIALOG), ghost_attention=True))[1].content

    assert [drawn(line) for line in range(20)] == [drawn(line) for line in range(20)]
    assert len({drawn(line) for line in range(40)}) == len(RULES.ghost_attention.instructions)
    single = planned(task(), ghost_attention=True)
    assert stored(single) == QUESTION
    assert not single.mask_history
    own = planned(task(instruction="Rhyme."), ghost_attention=True)
    assert stored(own)[0].content.endswith("France? Rhyme.")
    assert not own.mask_history


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(recipe.DEFAULT.read_bytes())
    assert recipe.read(path) == recipe.read(None)
    path.write_text('[context_distillation]\npreprompt = "Be safe."\n[ghost_attention]\ninstructions = ["Rhyme."]\n')
    mine, digest = recipe.read(path)
    assert mine.context_distillation.preprompt == "Be safe."
    assert digest != recipe.read(None)[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = [", "not TOML"),
        ("[context_distillation]\npreprompt = 'a'", "ghost_attention: Field required"),
        (
            "[context_distillation]\npreprompt = 'be [INST] safe'\n[ghost_attention]\ninstructions = ['a']",
            "context_distillation.preprompt: Value error, holds the template's own tag",
        ),
        (
            "[context_distillation]\npreprompt = ''\n[ghost_attention]\ninstructions = ['a']",
            "context_distillation.preprompt",
        ),
        (
            "[context_distillation]\npreprompt = 'a'\n[ghost_attention]\ninstructions = []",
            "ghost_attention.instructions",
        ),
        (
            "[context_distillation]\npreprompt = 'a'\npreprmpt = 'b'\n[ghost_attention]\ninstructions = ['a']",
            "context_distillation.preprmpt",
        ),
    ],
)
def test_a_recipe_that_is_none(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(content)
    with pytest.raises(RunError, match=said):
        recipe.read(path)
    with pytest.raises(RunError, match="cannot be read"):
        recipe.read(tmp_path / "none.toml")


def test_the_default_recipe_has_different_instructions() -> None:
    instructions = sorted(RULES.ghost_attention.instructions)
    assert all(first != second for first, second in pairwise(instructions))


def test_temperature_0_in_a_line_reduces_k_and_is_noted() -> None:
    (request,) = planned(task(options=RequestOptions(temperature=0))).requests
    assert (request.requested, request.candidates, request.is_reduced) == (16, 1, True)
    for options in (RequestOptions(), RequestOptions(temperature=0, candidates=1), RequestOptions(n=20)):
        made = planned(task(options=options), temperatures=(0.7, 1.0))
        assert sum(request.requested for request in made.requests) == made.candidates
        assert not any(request.is_reduced for request in made.requests)
    assert planned(task(options=RequestOptions(n=20))).candidates == 20
