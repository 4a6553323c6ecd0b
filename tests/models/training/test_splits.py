"""Splits of data by prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from winnow.models.training.splits import held_out

prompts = st.lists(st.text(max_size=8), unique=True, max_size=40)


@given(prompts, st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_split_is_of_half_and_knows_no_order(names: list[str], random: object, seed: int) -> None:
    half = held_out(names, seed)
    assert half <= set(names)
    assert len(half) == len(names) // 2
    shuffled = [*names, *names[:3]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert held_out(shuffled, seed) == half


def test_another_seed_is_another_half() -> None:
    names = [str(number) for number in range(40)]
    assert held_out(names, 0) != held_out(names, 1)
    assert len(held_out(names, 0, 0.1)) == 4
