"""One model in both roles: one engine, counted once, and each role's own calibration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import LiveServer, question
from winnow.models import demo
from winnow.models.cards.card import FILE, read_card
from winnow.models.engines.memory import GIB, Memory
from winnow.models.types import logit
from winnow.server.memory_plan import plan
from winnow.server.settings import Settings

MODEL = str(demo.weights("safety-rm"))
ROOM = Memory("the card", 80 * GIB, 80 * GIB)


@pytest.mark.parametrize(
    ("difference", "engines"),
    [({}, 2), ({"helpfulness_scale": -2.0, "safety_bias": 1.0}, 2), ({"helpfulness": {"dtype": "float32"}}, 3)],
)
def test_a_model_in_both_roles_is_planned_once_if_it_is_read_alike(difference: dict[str, object], engines: int) -> None:
    settings = Settings(safety_rm=MODEL, helpfulness_rm=MODEL, **difference)  # type: ignore[arg-type]
    assert len(plan(settings, ROOM).engines) == engines
    assert settings.has_one_reward_model == (engines == 2)


@pytest.mark.engine
def test_one_engine_serves_both_roles_with_their_own_calibrations() -> None:
    # The model knows nothing of helpfulness, so it would fail that sanity check.
    flags = ("--helpfulness-rm", MODEL, "--helpfulness-scale", "2", "--helpfulness-bias", "-1", "--no-canary")
    with LiveServer.start(*flags) as server:
        assert len(server.engine_pids) == 2
        with server.http as http:
            body = question("Name three fruits.", best_of_n={"candidates": 6})
            answer = http.post("/v1/chat/completions", json=body).json()
    scored = answer["best_of_n"]["scored"]
    assert len(scored) == 6
    both = [(logit(item["safety"]), logit(item["helpfulness"])) for item in scored if item["helpfulness"] is not None]
    assert both
    card = read_card(Path(MODEL) / FILE)
    raw = [(safety - card.bias) / (card.scale or 1) for safety, _ in both]
    assert [helpfulness for _, helpfulness in both] == pytest.approx([2 * score - 1 for score in raw], abs=1e-3)
