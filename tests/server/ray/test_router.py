"""How a proxy estimates the candidates of a replica, and what autoscaling makes of them."""

from __future__ import annotations

import pytest

from winnow.server.ray.ledger import KEPT_SECONDS, UNUSED_SECONDS, Ledger
from winnow.server.ray.scaling import wanted


def test_a_replica_without_counts_is_as_loaded_as_what_was_sent_there() -> None:
    ledger = Ledger()
    assert ledger.load({}, 100.0) == 0
    ledger.send(100.0)
    assert ledger.load({"default": 16}, 100.1) == 16
    ledger.end(100.2)
    assert ledger.load({"default": 16}, 100.3) == 0


def test_requests_weigh_as_the_replicas_others_until_it_has_counted_them() -> None:
    ledger = Ledger()
    stats = {"candidates": 128, "requests": 2, "default": 16, "time": 100.0}
    ledger.send(99.0)  # is in the count
    ledger.send(101.0)
    assert ledger.load(stats, 101.0) == 192
    assert ledger.load({**stats, "candidates": 130, "requests": 3, "time": 102.0}, 102.0) == 130


def test_a_burst_is_spread_before_anything_is_sent() -> None:
    ledgers = [Ledger(), Ledger()]
    for _ in range(8):
        min(ledgers, key=lambda ledger: ledger.load({"default": 16}, 100.0)).choose(100.0)
    assert [ledger.load({"default": 16}, 100.0) for ledger in ledgers] == [64, 64]


def test_what_was_not_used_is_forgotten() -> None:
    ledger = Ledger()
    ledger.choose(100.0)
    assert ledger.load({}, 100.0 + UNUSED_SECONDS + 0.01) == 0
    ledger.send(100.0)
    assert ledger.load({}, 100.0 + KEPT_SECONDS + 0.01) == 0


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [({}, 3), ({"a": 0.0, "b": 0.0}, 1), ({"a": 192.0}, 1), ({"a": 193.0}, 2), ({"a": 1280.0, "b": 256.0}, 8)],
)
def test_replicas_follow_the_candidates(candidates: dict[str, float], expected: int) -> None:
    assert wanted(candidates, {"a": 256.0}, current=3) == expected
