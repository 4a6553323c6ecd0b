"""Ready, draining, over; and the watch that notices."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes import ScriptedPolicy, ScriptedRewardModel
from tests.live import scripted
from winnow.models.errors import EngineDead, ShuttingDown
from winnow.models.template import Llama2Template
from winnow.server.life import Life


async def forever() -> None:
    await asyncio.Event().wait()


async def test_draining_waits_for_the_last_request_and_takes_no_new_one() -> None:
    life = Life()
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
    await asyncio.wait_for(Life().drain(30), 1)


async def test_what_cannot_be_waited_for_is_failed() -> None:
    life = Life()

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
    life = Life()
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
        await service.life.unless_over(forever())
    assert not service.is_alive
    assert not service.is_ready
    watch.cancel()
