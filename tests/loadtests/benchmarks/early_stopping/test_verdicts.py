from __future__ import annotations

import pytest

from tests.loadtests.benchmarks.early_stopping.runs import EARLY_STOPPING, PROMPTS, load, run
from winnow.loadtests.benchmarks.early_stopping.settings import accept
from winnow.loadtests.benchmarks.early_stopping.verdicts import Row, Saving, figures

ROWS = {row.setting.name: row for row in figures(load()).rows}


def row(name: str) -> Row:
    return ROWS[name]


def test_exact_rows_come_first_with_k_ascending_and_have_no_saving() -> None:
    assert list(ROWS)[:5] == ["K = 1", "K = 2", "K = 4", "K = 8", "K = 16"]
    assert all(ROWS[name].saving is None for name in list(ROWS)[:5])
    assert len(ROWS) == 5 + len(EARLY_STOPPING)


@pytest.mark.parametrize(
    ("name", "tokens", "latency"),
    [
        ("accept_reward: 0.8", True, True),
        ("early_rejection, keep 0.5: at [4]", False, False),
        ("candidates 2–16", True, False),
    ],
)
def test_a_setting_pays_where_it_spends_less_for_the_same_reward(name: str, tokens: bool, latency: bool) -> None:
    saved = row(name).saving
    assert saved is not None
    assert (saved.pays_in_tokens, saved.pays_in_latency) == (tokens, latency)


def test_the_saving_is_against_the_cost_of_exact_best_of_k() -> None:
    saved = row("accept_reward: 0.8").saving
    assert saved is not None
    assert saved.tokens is not None
    assert saved.latency is not None
    assert saved.tokens.value == pytest.approx(0.5, abs=0.01)
    assert saved.latency.value == pytest.approx(0.5, abs=0.01)
    assert saved.tail is not None
    assert saved.throughput is not None
    assert saved.tail.value == pytest.approx(0.5, abs=0.01)
    assert saved.throughput.value == pytest.approx(2.0, abs=0.05)
    assert saved.throughput.low <= saved.throughput.value <= saved.throughput.high


def test_requests_a_second_are_the_clients_over_the_mean_latency() -> None:
    eight = figures(load(8)).rows[3]
    assert eight.requests_per_second.value == pytest.approx(8 / 0.4, rel=0.05)


@pytest.mark.parametrize("name", ["early_rejection, keep 0.25: at [2, 8]", "adaptive, 4 + 4 up to 16: reward 0.9"])
def test_a_setting_below_the_curve_or_refused_too_often_is_not_compared(name: str) -> None:
    saved = row(name).saving
    assert saved is not None
    assert saved == Saving(None, None, None, None, pays_in_tokens=False, pays_in_latency=False)


def test_a_saving_of_latency_must_exceed_the_noise() -> None:
    noisy = figures(load(repeat_ms=1500.0))
    assert noisy.noise == pytest.approx(1500 / 800 - 1)
    saved = next(each for each in noisy.early_stopping if each.setting == accept(0.8)).saving
    assert saved is not None
    assert saved.pays_in_tokens
    assert not saved.pays_in_latency


def test_shares_are_of_answers_and_refusals_of_requests() -> None:
    refused = row("adaptive, 4 + 4 up to 16: reward 0.9")
    assert refused.refused == 6 / PROMPTS
    assert refused.truncated == 27 / 54
    assert row("K = 1").wrong.value == 0.2


def test_a_setting_that_was_never_answered_is_left_out() -> None:
    found = figures(load(early_stopping=[run(accept(0.8), 0.9, 1, 1, refused=PROMPTS)]))
    assert not found.early_stopping
