"""What decides where a run's waves end, and is part of its identity: a table of gains, the server's, or a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live import ScriptedServer, scripted
from tests.server.distill.test_runner import choices
from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import GainsError, RunError
from winnow.models.gains import GainTable, Trace
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill.budget import Budget, Limits
from winnow.server.distill.identity import identity
from winnow.server.distill.opening import Input
from winnow.server.distill.options import RunOptions
from winnow.server.distill.stops import GainsInUse, allocation_of, gains_in_use
from winnow.server.model_identity import models_fingerprint
from winnow.server.pipeline.waves import Waves
from winnow.server.settings import Settings

GAIN = Waves(gain=0.01)
TEMPLATE = TEMPLATES["llama2"]
Maker = Callable[..., tuple[RunOptions, Input]]


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    def make(*rows: dict[str, Any], server: str | None = None, **changes: Any) -> tuple[RunOptions, Input]:
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows or [{"prompt": "Hello"}]))
        chosen = choices(**{"knows_gains": True, "candidates": 8, **changes})
        options = RunOptions(str(prompts), tmp_path / "out", chosen, server=server)
        return options, Input.opened(options, TEMPLATE)

    return make


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gains") / "gains.json"
    traces = [Trace([0.1 * index, 0.5, 0.7, 0.2], is_safety=False) for index in range(9)]
    GainTable.learn(models_fingerprint(Settings(), TEMPLATE), traces).write(path)
    return path


def batch(line: str, **options: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "best_of_n": options}
    return {"custom_id": line, "method": "POST", "url": "/v1/chat/completions", "body": body}


def in_use(options: RunOptions, given: Input, **settings: Any) -> GainsInUse | None:
    chosen = Settings(**settings)
    return gains_in_use(options, chosen, identity(options, chosen, TEMPLATE, ""), given)


def test_a_table_decides_only_where_something_asks_for_it(made: Maker, table: Path) -> None:
    digest = GainTable.read(table).digest
    plain = {"prompt": "Hello"}
    for changes, rows in (
        ({"waves": GAIN}, [plain]),
        ({"budget": Budget(8)}, [plain]),
        ({}, [batch("a", adaptive={"stop": {"gain": 0.1}})]),
    ):
        found = in_use(*made(*rows, **changes), gains=table)
        assert found
        assert found.digest == digest
        assert found.expected
        assert found.expected(0.5, 4, 4, is_safety=False) > 0
    assert in_use(*made(waves=Waves(reward=0.9)), gains=table) is None
    assert in_use(*made(batch("a", adaptive={"stop": {"reward": 0.1}})), gains=table) is None
    assert in_use(*made(), gains=table) is None
    assert in_use(*made(budget=Budget(8))) is None


def test_a_table_that_cannot_decide_is_refused(made: Maker, table: Path, tmp_path: Path) -> None:
    options, given = made(waves=GAIN)
    with pytest.raises(GainsError, match="cannot be read"):
        in_use(options, given, gains=tmp_path / "none.json")
    with pytest.raises(GainsError, match="other models"):
        in_use(options, given, gains=table, safety_scale=7.0)
    GainTable.learn(models_fingerprint(Settings(), TEMPLATE), ()).write(tmp_path / "empty.json")
    with pytest.raises(RunError, match="knows no expected gains yet"):
        in_use(options, given, gains=tmp_path / "empty.json")


def test_a_servers_table_is_known_by_its_digest(made: Maker, tokenizer: Tokenizer) -> None:
    with ScriptedServer.start(scripted(tokenizer)) as running:
        address = f"{running.url}/v1"
        with pytest.raises(RunError, match="the server has no table of expected gains"):
            in_use(*made(server=address, waves=GAIN))
        assert in_use(*made(batch("a", adaptive={"stop": {"gain": 0.1}}), server=address)) is None
        assert in_use(*made(server=address, waves=Waves(reward=0.9))) is None


def test_a_budget_is_spent_by_the_table_or_by_the_run_itself(made: Maker) -> None:
    assert allocation_of(*made(), None) is None
    options, given = made({"prompt": "a"}, {"prompt": "b"}, budget=Budget(10))
    begun = allocation_of(options, given, None)
    assert begun
    assert begun() is not begun()
    assert begun().spent == 8
    with pytest.raises(RunError, match="2 prompts take at most 16 candidates"):
        allocation_of(replace(options, choices=replace(options.choices, budget=Budget(17))), given, None)


def test_limits_are_those_of_the_lines_that_can_be_answered(made: Maker) -> None:
    rows = [
        {"prompt": "a"},
        {"nothing": "b"},
        batch("c", candidates=3),
        batch("d", candidates=20),
        batch("e", adaptive={"stop": {"reward": 0.5}}),
        batch("f", adaptive=False),
    ]
    _, given = made(*rows, budget=Budget(20, start=5))
    assert given.limits == {1: Limits(5, 8), 3: Limits(3, 3), 4: Limits(5, 20), 6: Limits(5, 8)}
    assert not made(*rows)[1].limits
