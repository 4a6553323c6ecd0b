"""The start of a model on a `/classify` server: what is refused, and what its numbers mean."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.model_servers import Ids, ModelServer, Reply, Seen, batch, classifier, models, options, remote, scores, until
from winnow.models.engines.classify import MOST_TOGETHER, RemoteClassifier, start_classify
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Prompt


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer.running(classifier()) as running:
        yield running


@pytest.mark.parametrize(
    ("reply", "labels", "reason"),
    [
        (Reply({}, 404), (), "is no classifier: /classify has status 404"),
        (Reply({"data": []}), (), "no classifier of vLLM's"),
        (scores(1.0, 2.0), (), "returns 2 numbers"),
        (scores(1.0, 2.0, 3.0), ("a", "b"), "returns 3 numbers"),
    ],
)
def test_a_server_that_does_not_classify_is_refused(
    server: ModelServer, reply: Reply, labels: tuple[str, ...], reason: str
) -> None:
    server.script = lambda seen: reply
    with pytest.raises(CheckpointError, match=reason):
        start_classify(options(), remote(server), Ids(), labels)


@pytest.mark.asyncio(loop_scope="function")
async def test_two_labels_are_a_difference(server: ModelServer) -> None:
    server.script = lambda seen: scores(2.5, -1.0)
    model = start_classify(options(), remote(server), Ids(), ("safe", "unsafe"))
    assert await model.score(Prompt((1, 2)), "a") == 3.5


def test_the_context_is_the_servers(server: ModelServer) -> None:
    assert start_classify(options(), remote(server), Ids(), ()).context == 2048
    assert start_classify(options(context=512), remote(server), Ids(), ()).context == 512
    with pytest.raises(CheckpointError, match=r"a context of 4096 is asked for.*max_model_len 2048"):
        start_classify(options(context=4096), remote(server), Ids(), ())


@pytest.fixture
def prompt() -> Prompt:
    return Prompt((1, 2))


def started(server: ModelServer) -> RemoteClassifier:
    model = start_classify(options(), remote(server), Ids(), ())
    server.users.append(model)
    server.seen.clear()
    return model


@pytest.mark.asyncio(loop_scope="function")
async def test_answers_to_one_prompt_go_together_in_their_order(server: ModelServer, prompt: Prompt) -> None:
    server.script = classifier(lambda ids: float(ids[-1]))
    model, other = started(server), Prompt((1, 2))
    lengths = [*range(MOST_TOGETHER, 0, -1), 77]
    tasks = [model.score(one, "x" * length) for one in (prompt, other) for length in lengths]
    assert await asyncio.gather(*tasks) == [float(length) for length in lengths] * 2
    assert sorted(len(seen.body["input"]) for seen in server.posts()) == [1, 1, MOST_TOGETHER, MOST_TOGETHER]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    "bad",
    [Reply({"error": {"message": "no"}}, 400), Reply({"data": [{"probs": [1.0]}]}), Reply({"data": [{}, {}, {}]}),
     Reply({"data": [{"index": place, "probs": [1.0]} for place in (0, 2, 1)]})],
)  # fmt: skip
async def test_a_batch_that_fails_is_scored_one_by_one(server: ModelServer, prompt: Prompt, bad: Reply) -> None:
    def script(seen: Seen) -> Reply:
        if seen.method == "GET":
            return models()
        inputs = seen.body["input"]
        if len(inputs) > 1:
            return bad
        return Reply({}, 400) if inputs[0][-1] == 2 else scores(float(inputs[0][-1]))

    server.script = script
    model = started(server)
    found = await asyncio.gather(*(model.score(prompt, "x" * n) for n in (1, 2, 3)), return_exceptions=True)
    assert (found[0], found[2]) == (1.0, 3.0)
    assert isinstance(found[1], CandidateFailed)


@pytest.mark.asyncio(loop_scope="function")
async def test_a_batch_goes_on_for_those_who_wait_and_ends_with_the_last(server: ModelServer, prompt: Prompt) -> None:
    hold, model = threading.Event(), started(server)
    server.script = lambda seen: replace(batch([[5.0]] * len(seen.body["input"])), hold=hold)
    first, second = (asyncio.create_task(model.score(prompt, "x" * n)) for n in (1, 2))
    await until(lambda: bool(server.posts()))
    first.cancel()
    await asyncio.wait([first])
    hold.set()
    assert await second == 5.0
    hold.clear()
    both = [asyncio.create_task(model.score(prompt, "x" * n)) for n in (1, 2)]
    await until(lambda: len(server.posts()) == 2)
    for task in both:
        task.cancel()
    await asyncio.wait(both)
    await until(lambda: server.left == 1)
