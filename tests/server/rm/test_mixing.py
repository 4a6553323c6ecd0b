"""Mixes by share."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models.errors import SettingsError
from winnow.server.rm.mixing import Part, mixed, parsed


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(0, 5), st.data())
@settings(max_examples=30)
def test_a_mix_uses_each_example_once_until_a_source_is_used_up(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    shares = data.draw(st.lists(st.floats(0.1, 100), min_size=len(sizes), max_size=len(sizes)))
    order = mixed(sizes, shares, seed)
    assert len(set(order)) == len(order)
    used = Counter(source for source, _ in order)
    assert all(0 <= place < sizes[source] for source, place in order)
    assert any(used[source] == size for source, size in enumerate(sizes))
    assert order == mixed(sizes, [10 * share for share in shares], seed)


def test_the_shares_are_those_of_the_mix() -> None:
    order = mixed([20_000, 20_000], [0.9, 0.1], 0)
    used = Counter(source for source, _ in order)
    assert used[0] == 20_000
    assert used[1] / len(order) == pytest.approx(0.1, abs=0.01)
    assert order != mixed([20_000, 20_000], [0.9, 0.1], 1)
    assert len(mixed([9, 9], [1e308, 1e308], 0)) >= 9


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0.9:a.jsonl", Part(("a.jsonl",), 0.9)),
        ("90:C:/a.jsonl", Part(("C:/a.jsonl",), 90.0)),
        ("1e-2:x", Part(("x",), 0.01)),
    ],
)
def test_a_share_and_a_file(text: str, part: Part) -> None:
    assert parsed(text) == part


@pytest.mark.parametrize(
    "text", ["a.jsonl", "0.9", "0.9:", "0:a.jsonl", "-1:a.jsonl", "nan:a", "inf:a", ":a", "half:a"]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--mix: a share above 0"):
        parsed(text)
