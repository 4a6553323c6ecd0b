"""Pair policies: what each takes, that equal seeds take equal pairs, and how likely a pair was."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.annotated import MANIFEST, NOW, answered, batch, filled, row
from winnow.clients.schema import NewBatch, PolicyName
from winnow.models.errors import NotStored, RequestError
from winnow.server.annotation.policies import Variant, distinct, matched
from winnow.server.store.rows import NewRow
from winnow.server.store.store import Store

THREE = (("best", 2.0, 3.0), ("near", 2.5, 2.9), ("worst", 0.0, -1.0))
"""Answers with their logits: the models contradict each other about the first two."""


def pairs(store: Store, number: int = 1) -> list[tuple[int, int, int, int, float]]:
    return [
        tuple(row)  # type: ignore[misc]
        for row in store._database.execute(
            "SELECT a_selection, a_index, b_selection, b_index, propensity FROM pair WHERE batch = ? "
            "ORDER BY a_selection, a_index",
            (number,),
        )
    ]


@pytest.mark.parametrize(
    ("policy", "indices"),
    [("margin", (0, 1)), ("disagree", (0, 1)), ("top", (0, 1))],
)
def test_a_policy_takes_what_it_says(tmp_path: Path, policy: PolicyName, indices: tuple[int, int]) -> None:
    store = filled(str(tmp_path / "s.db"), answered(1, *THREE))
    batch(store, policy=policy)
    assert [(one[1], one[3]) for one in pairs(store)] == [indices]
    store.close()


def test_margin_takes_the_nearest_two_of_the_best_four(tmp_path: Path) -> None:
    answers = [("a", 1.0, 9.0), ("b", 1.0, 7.0), ("c", 1.0, 6.5), ("d", 1.0, 1.0), ("e", 1.0, 0.9)]
    store = filled(str(tmp_path / "s.db"), answered(1, *answers), answered(2, ("a", 1.0, 2.0), ("b", 1.0, 1.9)))
    assert batch(store, policy="margin", pairs=1).pairs == 1
    batch(store, policy="margin")
    assert [one[:4] for one in pairs(store)] == [(2, 0, 2, 1)]  # the least margin of all first
    assert [one[:4] for one in pairs(store, 2)] == [(1, 1, 1, 2)]
    store.close()


def test_equal_and_empty_texts_are_no_pair(tmp_path: Path) -> None:
    store = filled(
        str(tmp_path / "s.db"),
        answered(1, ("same", 1, 1), ("same", 1, 2), (" ", 1, 3)),
        answered(2, ("one", 1, 1)),
        answered(3, ("one", 1, 1), ("one", 1, 2), ("two", 1, 0)),
    )
    for policy in ("random", "top", "margin"):
        assert batch(store, policy=policy, name=policy).pairs == 1 if policy == "random" else True
    assert [one[0] for one in pairs(store)] == [3]
    with pytest.raises(RequestError, match="no recorded answer"):
        batch(store, policy="random")
    store.close()


def test_no_pair_is_taken_twice(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), answered(1, *THREE))
    taken = []
    for number in (1, 2, 3):
        batch(store, policy="random")
        taken += [one[:4] for one in pairs(store, number)]
    assert len(set(taken)) == 3
    with pytest.raises(RequestError, match="in no batch yet"):
        batch(store, policy="random")
    with pytest.raises(RequestError, match="oppositely"):
        batch(store, policy="disagree")
    store.close()


@pytest.mark.parametrize("policy", ["margin", "disagree", "top", "random", "temperatures"])
def test_equal_seeds_take_equal_pairs_in_equal_order(tmp_path: Path, policy: PolicyName) -> None:
    found = []
    for copy in range(2):
        rows = [row(number, temperature=0.5 + number % 2, question=f"Q {number // 2}") for number in range(30)]
        store = filled(str(tmp_path / f"{copy}.db"), *rows)
        batch(store, policy=policy, pairs=8, seed=7)
        found.append(
            store._database.execute("SELECT a_selection, a_index, b_selection, b_index FROM pair ORDER BY number")
        )
        store.close()
    assert found[0] == found[1]
    assert len(found[0]) <= 8


@pytest.mark.parametrize("policy", ["top", "random"])
def test_equal_answers_are_drawn_alike_whatever_their_ids_and_order(tmp_path: Path, policy: PolicyName) -> None:
    found = []
    for ids in (range(30), range(100, 130)):
        rows = [answered(one, *THREE, question=f"Q {one % 100}") for one in ids]
        store = filled(str(tmp_path / f"{ids.start}.db"), *(rows if ids.start else rows[::-1]))
        batch(store, policy=policy, pairs=8, seed=7)
        questions = []
        for selection, first, _, second, _ in pairs(store):
            stored = store.numbered(selection, NOW)
            assert stored
            questions.append((stored.record.messages[-1].content, first, second))
        found.append(sorted(questions))
        store.close()
    assert found[0] == found[1]


def test_answers_that_are_equal_are_drawn_each_by_its_own_lot(tmp_path: Path) -> None:
    rows = [answered(number, *THREE, question="equal" if number < 30 else f"Q {number}") for number in range(60)]
    store = filled(str(tmp_path / "s.db"), *rows)
    batch(store, policy="top", pairs=20)
    equal = sum(one[0] <= 30 for one in pairs(store))
    assert 4 <= equal <= 16
    store.close()


def test_how_likely_a_random_pair_was(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), *(answered(number, *THREE) for number in range(10)))
    batch(store, policy="random", pairs=4)
    assert [one[4] for one in pairs(store)] == pytest.approx([4 / 10 / 3] * 4)
    batch(store, policy="margin", pairs=4)
    assert [one[4] for one in pairs(store, 2)] == [1.0] * 4
    store.close()


def test_random_pairs_are_drawn_evenly(tmp_path: Path) -> None:
    """Over 60 seeds every answer is about as often in a batch of a quarter of them."""
    store = filled(str(tmp_path / "s.db"), *(answered(number, *THREE) for number in range(8)))
    counts = dict.fromkeys(range(1, 9), 0)
    for seed in range(60):
        batch(store, policy="random", pairs=2, seed=seed)
        for one in pairs(store, 1):
            counts[one[0]] += 1
        store._database.execute("DELETE FROM batch")
        store._database.execute("DELETE FROM sqlite_sequence WHERE name = 'batch'")
    assert sum(counts.values()) == 120
    assert all(5 <= count <= 28 for count in counts.values()), counts
    store.close()


def tale(number: int, question: str, **fields: object) -> NewRow:
    return answered(number, (f"one {number}", 1, 1), (f"two {number}", 1, 2), question=question, **fields)


def test_temperatures_pairs_answers_to_one_prompt(tmp_path: Path) -> None:
    rows = [
        *(tale(number, "shared", temperature=0.2 + 0.6 * (number % 2)) for number in range(5)),
        *(tale(number, "alone", temperature=0.7) for number in range(5, 8)),
    ]
    store = filled(str(tmp_path / "s.db"), *rows)
    assert batch(store, policy="temperatures").pairs == 2
    for first, _, second, _, propensity in pairs(store):
        assert (first - second) % 2 == 1
        assert max(first, second) <= 5
        assert propensity == 1 / 4
    store.close()


def test_models_pairs_answers_of_two_policies(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), tale(1, "shared"), tale(2, "shared"), tale(3, "of one"))
    other = {**MANIFEST, "models": {**MANIFEST["models"], "policy": {"id": "winnow-demo", "sha256": "9" * 64}}}
    with pytest.raises(RequestError, match="two models"):
        batch(store, policy="models")
    store.add([tale(4, "shared")], store.origin(other))
    assert batch(store, policy="models").pairs == 1
    [(first, _, second, *_)] = pairs(store)
    assert second == 4
    assert first in (1, 2)
    store.close()


@pytest.mark.parametrize("sizes", list(itertools.product(range(3), repeat=3)))
def test_selections_are_matched_once_with_other_keys(sizes: tuple[int, int, int]) -> None:
    keys = [key for key, size in enumerate(sizes) for _ in range(size)]
    variants = [Variant(number, key) for number, key in enumerate(keys)]
    found = list(matched("digest", variants, 3))
    used = [number for _, first, second in found for number in (first, second)]
    assert len(set(used)) == len(used)
    assert all(keys[first] != keys[second] for _, first, second in found)
    assert len(found) == min(sum(sizes) // 2, sum(sizes) - max(sizes))  # as many as can be


def test_only_answers_of_the_time_are_taken(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), *(answered(number, *THREE) for number in range(6)))
    batch(store, policy="top", since=NOW + 2, until=NOW + 4)
    assert [one[0] for one in pairs(store)] == [3, 4]
    store.close()


def test_given_pairs_are_as_given(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), answered(1, *THREE), answered(2, *THREE))
    given = [{"completion": f"chatcmpl-{number:032x}", "candidates": [2, 0]} for number in (1, 2, 1)]
    made = batch(store, policy="given", pairs=None, given=given)
    assert made.pairs == 2
    assert [one[:4] for one in pairs(store)] == [(1, 2, 1, 0), (2, 2, 2, 0)]
    with pytest.raises(NotStored) as caught:
        batch(store, policy="given", pairs=None, given=[*given, {"completion": "chatcmpl-9", "candidates": [0, 1]}])
    assert caught.value.param == "given[3].completion"
    store.close()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"policy": "given"}, "pairs"),
        ({"policy": "given", "pairs": None}, "given"),
        ({"given": [{"completion": "x", "candidates": [0, 1]}]}, "given"),
        ({"pairs": None}, "pairs"),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(fields: dict[str, object], param: str) -> None:
    with pytest.raises(ValueError, match=param):
        NewBatch.model_validate({"name": "n", "policy": "top", "pairs": 3, **fields})


def test_distinct_answers_are_the_best_of_their_texts(tmp_path: Path) -> None:
    store = filled(str(tmp_path / "s.db"), row(1))
    stored = store.numbered(1, NOW)
    assert stored
    selection = stored.record.selection
    found = distinct(selection)
    assert {item.candidate.text for item in found} == {item.candidate.text for item in selection.scored}
    ranks = [selection.ranking.index(selection.scored.index(item)) for item in found]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0
    store.close()
