from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from tests.loadtests.benchmarks.early_stopping.runs import Formula
from winnow.loadtests.benchmarks.early_stopping.measuring import Run, measured
from winnow.loadtests.benchmarks.early_stopping.settings import Menu, adaptive, menus
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.types import Reply, ReplyKind, Request
from winnow.models.demo.world import held_out_prompts

PROMPTS = held_out_prompts(10)
MENU = Menu(3, (1, 16), [adaptive("reward", 0.9, 4, 2), adaptive("gain", 0.002, 4, 2)], (0.5,), [((2, 4), 0.25)])
NAMES = [
    "K = 1", "K = 16", "adaptive, 4 + 2 up to 16: reward 0.9", "adaptive, 4 + 2 up to 16: gain 0.002",
    "accept_reward: 0.5",
    "early_rejection, keep 0.25: at [2, 4]", "candidates 2–16",
]  # fmt: skip


async def test_every_setting_is_asked_the_same_prompts_with_the_same_seeds() -> None:
    system, seen = Formula(), list[Run]()
    load = await measured(system, PROMPTS, MENU, 7, seen.append)
    assert [run.setting.name for run in load.runs] == NAMES
    assert sorted(run.setting.name for run in seen) == sorted([*NAMES, "K = 16"])
    counted: dict[str, set[tuple[int, int | None, str]]] = {}
    for request in system.requests:
        if request.number < len(PROMPTS):
            body = str(request.options["best_of_n"])
            counted.setdefault(body, set()).add((request.number, request.seed, request.messages[-1]["content"]))
    assert len(counted) == len(NAMES)
    everything = {(n, 7 + n, prompt.messages[-1].content) for n, prompt in enumerate(PROMPTS)}
    assert all(found == everything for found in counted.values())


async def test_requests_carry_their_bounds_of_k_and_their_setting() -> None:
    system = Formula()
    await measured(system, PROMPTS, MENU)
    bodies = [request.options["best_of_n"] for request in system.requests]
    exact, free = {"min": 16, "max": 16}, {"min": 2, "max": 16}
    adapted = {"start": 4, "step": 2}
    for body in (
        {"candidates": {"min": 1, "max": 1}}, {"candidates": exact}, {"candidates": free},
        {"candidates": exact, "accept_reward": 0.5},
        {"candidates": 16, "adaptive": {**adapted, "stop": {"reward": 0.9}}},
        {"candidates": 16, "adaptive": {**adapted, "stop": {"gain": 0.002}}},
        {"candidates": exact, "early_rejection": {"at_tokens": [2, 4], "keep": 0.25}},
    ):  # fmt: skip
        assert body in bodies


async def test_an_outcome_has_the_report_and_the_verdict() -> None:
    load = await measured(Formula(), PROMPTS, MENU)
    accepting = load.runs[NAMES.index("accept_reward: 0.5")].outcomes[0]
    assert accepting is not None
    assert (accepting.reward, accepting.tokens, accepting.started, accepting.finished) == (0.75, 33, 16, 3)
    assert (accepting.wrong, accepting.unsafe) == (True, False)
    assert (accepting.is_truncated, accepting.is_approximate) == (True, False)
    rejecting = load.runs[NAMES.index("early_rejection, keep 0.25: at [2, 4]")].outcomes[0]
    assert rejecting is not None
    assert (rejecting.is_truncated, rejecting.is_approximate) == (False, True)


async def test_a_refusal_is_no_outcome() -> None:
    def full(request: Request, reply: Reply) -> Reply:
        is_late = request.number == 4 and "adaptive" in request.options["best_of_n"]
        return Reply("refused", reply.done, error="full") if is_late else reply

    load = await measured(Formula(full), PROMPTS, MENU)
    assert [run.refused for run in load.runs] == [0, 0, 0.1, 0.1, 0, 0, 0]
    assert load.runs[2].outcomes[4] is None


@pytest.mark.parametrize("kind", ["failed", "refused", "unscored"])
async def test_a_measurement_of_failures_is_none(kind: ReplyKind | Literal["unscored"]) -> None:
    def fail(request: Request, reply: Reply) -> Reply:
        return replace(reply, details={}) if kind == "unscored" else Reply(kind, reply.done, error="broken")

    with pytest.raises(LoadTestError, match=r"broken|refused|reward"):
        await measured(Formula(fail), PROMPTS, MENU)


async def test_a_load_may_take_the_first_of_the_prompts() -> None:
    load = await measured(Formula(), PROMPTS, replace(MENU, share=0.5))
    assert {len(run.outcomes) for run in (load.repeat, *load.runs)} == {5}


@pytest.mark.parametrize("menu", [*menus(gains=True), *menus(gains=False, is_quick=True)])
async def test_names_tell_settings_apart(menu: Menu) -> None:
    load = await measured(Formula(), PROMPTS[:4], menu)
    names = [run.setting.name for run in load.runs]
    assert len(set(names)) == len(names)
    assert len({run.setting.group for run in load.early_stopping}) <= 5
