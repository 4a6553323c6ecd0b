"""Derived seeds: their values are part of every recorded run, so they must never change."""

from __future__ import annotations

import pytest

from winnow.models.sampling import candidate_seed, derived_seed


@pytest.mark.parametrize(
    ("seed", "index", "derived"),
    [
        (0, 0, 7689419447139100721),
        (0, 1, 8724540124617128742),
        (1, 0, 2964727883954193085),
        (42, 15, 6480934619934484950),
        (2**63 - 1, 255, 7014360704932325498),
        (-1, 3, 1007717566093963150),
    ],
)
def test_candidate_seeds_are_those_of_earlier_releases(seed: int, index: int, derived: int) -> None:
    assert candidate_seed(seed, index) == derived


@pytest.mark.parametrize(
    ("parts", "derived"),
    [
        ((0, 1, 0), 8905565557003407953),
        ((0, 1, 2), 6892990246117180931),
        ((7, 100_000, 3), 4805606556542883290),
    ],
)
def test_seeds_of_offline_lines_are_those_of_earlier_releases(parts: tuple[int, ...], derived: int) -> None:
    assert derived_seed(*parts) == derived


def test_seeds_differ_by_candidate_and_by_request() -> None:
    seeds = {candidate_seed(seed, index) for seed in range(50) for index in range(64)}
    assert len(seeds) == 50 * 64
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_parts_are_not_joined() -> None:
    assert len({derived_seed(*parts) for parts in ((1, 23), (12, 3), (123,), (1, 2, 3))}) == 4
