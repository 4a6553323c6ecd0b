"""The start of a model on a `/classify` server: what is refused, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model_servers import Ids, ModelServer, Reply, classifier, options, remote, scores
from winnow.models.engines.classify import start_classify
from winnow.models.errors import CheckpointError
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
