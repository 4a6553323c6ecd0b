from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.loadtests.targets import Scripted
from tests.loadtests.test_scenario import scenario
from tests.loadtests.virtual import now
from tests.loadtests.virtual import run as virtually
from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.runner import Observer, Repeat, run
from winnow.loadtests.types import Reply
from winnow.loadtests.workload import WARM_UP


def ran(*targets: Scripted, observer: Observer | None = None, **changes: Any) -> list[Repeat]:
    return virtually(collected(run(scenario(**changes), targets, now=now, observer=observer or Observer())))


async def collected(repeats: AsyncIterator[Repeat]) -> list[Repeat]:
    return [repeat async for repeat in repeats]


def test_targets_alternate_and_the_order_reverses() -> None:
    found = ran(Scripted("a"), Scripted("b"), candidates=[1, 2], repeats=3)
    assert "".join(repeat.target for repeat in found) == "abbaab" * 2
    assert [repeat.point.candidates for repeat in found] == [1] * 6 + [2] * 6


def test_every_repeat_and_every_target_gets_the_same_requests() -> None:
    a, b = Scripted("a"), Scripted("b")
    found = ran(a, b, repeats=2, requests=5, concurrency=2)
    requests = [[item for item in target.requests if item.number < WARM_UP] for target in (a, b)]
    assert requests[0] == requests[1] == requests[0][:5] * 2
    assert len({tuple(sample.reply.text for sample in repeat.samples) for repeat in found}) == 1


def test_a_warm_up_is_sent_but_not_counted() -> None:
    target = Scripted()
    found = ran(target, warm_up=7, requests=3, repeats=2)
    assert [item.number for item in target.requests[:7]] == list(range(WARM_UP, WARM_UP + 7))
    assert [repeat.measures.requests for repeat in found] == [3, 3]


def test_texts_are_not_kept() -> None:
    (repeat,) = ran(Scripted(), prompts=["a secret"], repeats=1)
    assert all(len(sample.reply.text) == 16 and "secret" not in sample.reply.text for sample in repeat.samples)


def test_a_target_that_fails_its_warm_up_is_not_measured() -> None:
    target = Scripted(reply=lambda _: Reply("failed", now(), error="no such model"))
    with pytest.raises(LoadTestError, match="scripted failed every request of the warm-up: no such model"):
        ran(target)


def test_a_target_that_refuses_is_measured() -> None:
    found = ran(Scripted(reply=lambda _: Reply("refused", now(), error="full")), repeats=1)
    assert found[0].measures.refused == 3


def test_a_stopped_run_keeps_its_samples() -> None:
    async def stopped() -> list[Repeat]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(4.5, stop.set)
        return await collected(run(scenario(warm_up=0, repeats=9), [Scripted()], stop=stop, now=now))

    found = virtually(stopped())
    assert [(len(repeat.samples), repeat.is_whole) for repeat in found] == [(3, True), (1, False)]


def test_an_observer_is_called_for_everything() -> None:
    class Notes(Observer):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def on_start(self, title: str, requests: int | None) -> None:
            self.notes.append(f"{title}: {requests}")

        def on_sample(self, sample: Any) -> None:
            self.notes.append(".")

        def on_repeat(self, repeat: Repeat) -> None:
            self.notes.append("end")

    observer = Notes()
    ran(Scripted(), observer=observer, warm_up=1, repeats=1, requests=2)
    title = "K = 4 · 1 client"
    assert observer.notes == [
        f"{title} · warming up scripted: 1",
        ".",
        f"{title} · 1 of 1 · scripted: 2",
        ".",
        ".",
        "end",
    ]
