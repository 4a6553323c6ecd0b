from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtests.test_scenario import scenario
from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.types import Request
from winnow.loadtests.workload import WARM_UP, arrival_offsets, generate_requests, read_dialogs


def requests(count: int, first: int = 0, **changes: Any) -> list[Request]:
    made = scenario(**changes)
    return list(itertools.islice(generate_requests(made, made.points[0], read_dialogs(made), first), count))


@given(st.integers(1, 5), st.integers(0, 2**31 - 1), st.integers(1, 40))
def test_equal_numbers_give_equal_requests(prompts: int, seed: int, count: int) -> None:
    changes = {"prompts": [f"prompt {number}" for number in range(prompts)], "seed": seed}
    made = requests(count, **changes)
    assert made == requests(count, **changes)
    assert [item.number for item in made] == list(range(count))
    assert [item.messages[0]["content"] for item in made] == [f"prompt {number % prompts}" for number in range(count)]
    assert len({item.seed for item in made}) == count
    assert all(item.seed is not None and 0 <= item.seed < 2**31 for item in made)


def test_seeds_can_be_turned_off_and_the_system_message_comes_first() -> None:
    made = requests(1, seeded=False, system="Be brief.", prompts=[[{"role": "user", "content": "a"}]])[0]
    assert made.seed is None
    assert [message["role"] for message in made.messages] == ["system", "user"]


@given(st.floats(0.01, 1.0), st.integers(1, 500))
def test_the_share_of_leavers_is_kept_and_spread(share: float, count: int) -> None:
    leavers = sum(item.leave_after == 0.5 for item in requests(count, leave_after=0.5, leave_share=share))
    assert abs(leavers - share * count) <= 1


def test_no_client_leaves_a_warm_up() -> None:
    assert requests(1, first=WARM_UP, leave_after=0.5)[0].leave_after is None


@pytest.mark.parametrize(
    "line", ["Hello!", "{}", '{"prompt": 3}', '{"messages": []}', '{"messages": [{"role": "user"}]}']
)
def test_an_invalid_prompt_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"messages": [{{"role": "user", "content": "a"}}]}}\n\n{line}\n')
    with pytest.raises(ScenarioError, match="line 3"):
        read_dialogs(scenario(prompts=None, prompts_file=str(path)))


@pytest.mark.parametrize(
    "arrivals",
    [
        {"kind": "poisson", "rate": 2.0},
        {"kind": "constant", "rate": 2.0},
        {"kind": "bursts", "size": 4, "period": 2.0},
        {"kind": "ramp", "rates": [1.0, 4.0]},
    ],
)
def test_every_kind_of_arrivals_ends_with_the_seconds(arrivals: dict[str, Any]) -> None:
    made = scenario(concurrency=None, requests=None, seconds=10.0, arrivals=arrivals)
    found = arrival_offsets(made, made.points[0])
    assert found == sorted(found)
    assert found[-1] <= 10


def test_a_scenario_without_arrivals_is_an_error() -> None:
    made = scenario(concurrency=None, requests=None, seconds=0.001, arrivals={"kind": "poisson", "rate": 0.1})
    with pytest.raises(ScenarioError, match="no request"):
        arrival_offsets(made, made.points[0])
