"""The lifecycle of a service (ready, draining, over), the watch over its engines, and its sanity checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel, ids_of
from tests.live import scripted
from winnow.models.errors import CheckpointError, EngineDead, ShuttingDown
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import sigmoid
from winnow.server.pipeline.lifecycle import Lifecycle
from winnow.server.reward_models import inspect_reward_models, scorings


async def run_guarded(lifecycle: Lifecycle) -> None:
    """Run until the lifecycle ends."""
    async with lifecycle.guard():
        await asyncio.Event().wait()


async def test_draining_waits_for_the_last_request_and_takes_no_new_one() -> None:
    lifecycle = Lifecycle()
    with lifecycle.request():
        drained = asyncio.create_task(lifecycle.drain(30))
        await asyncio.sleep(0)
        assert lifecycle.is_draining
        with pytest.raises(ShuttingDown), lifecycle.request():
            pass
        assert not drained.done()
    await drained
    async with lifecycle.guard():
        await asyncio.sleep(0)


async def test_an_idle_service_drains_at_once() -> None:
    await asyncio.wait_for(Lifecycle().drain(30), 1)


async def test_a_block_that_finds_an_engine_dead_ends_the_rest() -> None:
    """The watch looks every half second: until then each new request was taken, and failed."""
    lifecycle = Lifecycle()
    other = asyncio.create_task(run_guarded(lifecycle))
    await asyncio.sleep(0)
    with pytest.raises(EngineDead, match="first"):
        async with lifecycle.guard():
            raise EngineDead("first")
    assert lifecycle.is_dead
    with pytest.raises(EngineDead, match="first"):
        await other
    with pytest.raises(EngineDead, match="first"), lifecycle.request():
        pass


async def test_a_request_that_outlasts_the_drain_fails() -> None:
    lifecycle = Lifecycle()

    async def work() -> None:
        with lifecycle.request():
            await run_guarded(lifecycle)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await lifecycle.drain(0)
    with pytest.raises(ShuttingDown):
        await task
    assert lifecycle.requests == 0
    assert not lifecycle.is_dead


async def test_the_first_end_counts() -> None:
    lifecycle = Lifecycle()
    lifecycle.end(EngineDead("the policy engine has died"))
    lifecycle.end(ShuttingDown("later"))
    assert lifecycle.is_dead
    for _ in range(2):
        with pytest.raises(EngineDead, match="policy"):
            await run_guarded(lifecycle)
    with pytest.raises(EngineDead), lifecycle.request():
        pass


@pytest.mark.parametrize("fault", [{"is_alive": False}, {"stuck": True}])
@pytest.mark.parametrize("name", ["policy", "safety", "helpfulness"])
async def test_the_watch_ends_the_lifecycle_if_an_engine_dies_or_hangs(
    tokenizer: Tokenizer, name: str, fault: dict[str, bool]
) -> None:
    kind = ScriptedPolicy if name == "policy" else ScriptedRewardModel
    service = scripted(tokenizer, **{name: kind(**fault)})
    watch = asyncio.create_task(service.watch())
    with pytest.raises(EngineDead, match=name):
        await run_guarded(service.lifecycle)
    assert not service.is_alive
    assert not service.is_ready
    watch.cancel()


async def test_the_watch_goes_on_if_an_engine_cannot_be_probed(tokenizer: Tokenizer) -> None:
    class Unresponsive(ScriptedRewardModel):
        async def is_stuck(self, seconds: float) -> bool:
            raise RuntimeError("no answer")

    safety = Unresponsive()
    service = scripted(tokenizer, safety=safety)
    watch = asyncio.create_task(service.watch())
    await asyncio.sleep(0)
    safety.is_alive = False
    with pytest.raises(EngineDead, match="safety"):
        await run_guarded(service.lifecycle)
    watch.cancel()


@pytest.mark.parametrize("name", ["safety", "helpfulness"])
async def test_a_service_does_not_start_on_a_reward_model_that_fails_its_sanity_check(
    tokenizer: Tokenizer, name: str
) -> None:
    better = {ids_of(check.better) for check in (SAFETY_CHECK, HELPFULNESS_CHECK)}

    def sound(ids: tuple[int, ...]) -> float:
        return 5.0 if ids in better else -5.0

    wrongs: list[Callable[[tuple[int, ...]], float]] = [
        lambda ids: -sound(ids),  # a flipped sign
        lambda ids: sigmoid(sound(ids)),  # a second sigmoid
        lambda ids: 0.0,
        lambda ids: float("nan"),
    ]
    models = {each: ScriptedRewardModel(logit=sound) for each in ("safety", "helpfulness")}
    await scripted(tokenizer, **models).warm_up()
    for wrong in wrongs:
        with pytest.raises(CheckpointError, match=name):
            await scripted(tokenizer, **{**models, name: ScriptedRewardModel(logit=wrong)}).warm_up()


async def test_a_service_does_not_start_on_a_model_that_misses_its_cards_published_score(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The probe's dialog is not one that Llama 2's template renders: the reward model has a template of its own."""
    card = tmp_path / "mine.toml"
    probe = """[[probe]]
dialog = [{role = "user", content = "a"}, {role = "user", content = "b"}]
answer = "answer 6"
logit = %s
"""
    better = {ids_of(check.better) for check in (SAFETY_CHECK, HELPFULNESS_CHECK)}
    models = {
        name: ScriptedRewardModel(logit=lambda ids: 3.0 if ids == (6,) else 5.0 if ids in better else -5.0)
        for name in ("safety", "helpfulness")
    }
    service = scripted(tokenizer, **models, safety_card=card)
    for logit in ("3", "7"):
        card.write_text(probe % logit)
        found = scorings(service.settings, inspect_reward_models(service.settings), tokenizer, service.template)
        warmed = replace(service, scorings=found)
        if logit == "3":
            await warmed.warm_up()
            continue
        with pytest.raises(CheckpointError, match=r"scores 3\.000, and was published with 7"):
            await warmed.warm_up()


async def test_random_weights_get_no_sanity_check(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    wrong = ScriptedRewardModel(logit=lambda ids: 0.0)
    with pytest.raises(CheckpointError):
        await scripted(tokenizer, safety=wrong).warm_up()
    await scripted(tokenizer, safety=wrong, load_format="dummy").warm_up()
    assert "answers mean nothing" in caplog.text
