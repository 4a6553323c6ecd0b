"""Ready, draining, over; and the watch that notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import scripted
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.errors import CheckpointError, EngineDead, ShuttingDown
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK
from winnow.models.types import sigmoid
from winnow.server.pipeline.lifecycle import Lifecycle


async def forever() -> None:
    await asyncio.Event().wait()


async def test_draining_waits_for_the_last_request_and_takes_no_new_one() -> None:
    life = Lifecycle()
    with life.request():
        drained = asyncio.create_task(life.drain(30))
        await asyncio.sleep(0)
        assert life.is_draining
        with pytest.raises(ShuttingDown), life.request():
            pass
        assert not drained.done()
    await drained
    assert await life.unless_over(asyncio.sleep(0, "fine")) == "fine"


async def test_an_idle_service_drains_at_once() -> None:
    await asyncio.wait_for(Lifecycle().drain(30), 1)


async def test_what_cannot_be_waited_for_is_failed() -> None:
    life = Lifecycle()

    async def work() -> None:
        with life.request():
            await life.unless_over(forever())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await life.drain(0)
    with pytest.raises(ShuttingDown):
        await task
    assert life.requests == 0
    assert not life.is_dead


async def test_the_first_end_counts() -> None:
    life = Lifecycle()
    life.end(EngineDead("the policy engine has died"))
    life.end(ShuttingDown("later"))
    assert life.is_dead
    for attempt in (life.unless_over(forever()), life.unless_over(forever())):
        with pytest.raises(EngineDead, match="policy"):
            await attempt
    with pytest.raises(EngineDead), life.request():
        pass


@pytest.mark.parametrize("fault", [{"is_alive": False}, {"stuck": True}])
@pytest.mark.parametrize("name", ["policy", "safety", "helpfulness"])
async def test_the_watch_ends_the_life_of_a_service_with_a_sick_engine(
    template: Llama2Template, name: str, fault: dict[str, bool]
) -> None:
    kind = ScriptedPolicy if name == "policy" else ScriptedRewardModel
    service = scripted(template, **{name: kind(**fault)})
    watch = asyncio.create_task(service.watch())
    with pytest.raises(EngineDead, match=name):
        await service.lifecycle.unless_over(forever())
    assert not service.is_alive
    assert not service.is_ready
    watch.cancel()


async def test_a_watch_that_cannot_ask_goes_on_watching(template: Llama2Template) -> None:
    class Mute(ScriptedRewardModel):
        async def is_stuck(self, seconds: float) -> bool:
            raise RuntimeError("no answer")

    safety = Mute()
    service = scripted(template, safety=safety)
    watch = asyncio.create_task(service.watch())
    await asyncio.sleep(0)
    safety.is_alive = False
    with pytest.raises(EngineDead, match="safety"):
        await service.lifecycle.unless_over(forever())
    watch.cancel()


@pytest.mark.parametrize("name", ["safety", "helpfulness"])
async def test_a_service_does_not_start_on_a_reward_model_that_fails_its_canary(
    template: Llama2Template, name: str
) -> None:
    better = {canary: template.encode_answer(canary.better) for canary in (SAFETY_CHECK, HELPFULNESS_CHECK)}

    def sound(ids: tuple[int, ...]) -> float:
        return 5.0 if list(ids) in better.values() else -5.0

    wrongs: list[Callable[[tuple[int, ...]], float]] = [
        lambda ids: -sound(ids),  # a flipped sign
        lambda ids: sigmoid(sound(ids)),  # a second sigmoid
        lambda ids: 0.0,
        lambda ids: float("nan"),
    ]
    models = {each: ScriptedRewardModel(logit=sound) for each in ("safety", "helpfulness")}
    await scripted(template, **models).warm_up()
    for wrong in wrongs:
        with pytest.raises(CheckpointError, match=name):
            await scripted(template, **{**models, name: ScriptedRewardModel(logit=wrong)}).warm_up()


async def test_random_weights_have_no_canary(template: Llama2Template, caplog: pytest.LogCaptureFixture) -> None:
    wrong = ScriptedRewardModel(logit=lambda ids: 0.0)
    with pytest.raises(CheckpointError):
        await scripted(template, safety=wrong).warm_up()
    await scripted(template, safety=wrong, load_format="dummy").warm_up()
    assert "no answer means anything" in caplog.text
