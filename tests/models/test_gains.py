"""Expected gains: what a table may say, what it learns from prompts of a known kind, and the file that holds it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models import gain_sums
from winnow.models.errors import GainsError
from winnow.models.gains import GainTable, Trace, trace_of
from winnow.models.types import (
    Aborted,
    Branch,
    Candidate,
    CombinerName,
    Failure,
    Prompt,
    Reward,
    ScoredCandidate,
    Selection,
    Timings,
    logit,
)

rewards = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=40)
waves = st.none() | st.tuples(st.integers(1, 6), st.integers(1, 6))
traces = st.lists(st.builds(Trace, rewards, st.booleans(), waves), max_size=12)
bests = st.floats(0, 1)
counts = st.integers(1, 200)


def learnt(*given: Trace) -> GainTable:
    return GainTable.learn("models", given, date="2026-11-26")


@settings(max_examples=60, deadline=None)
@given(traces, st.tuples(bests, bests), st.tuples(counts, counts), st.tuples(counts, counts), st.booleans())
def test_gains_fall_with_the_best_and_the_seen_and_rise_with_the_step(
    given: list[Trace],
    best: tuple[float, float],
    seen: tuple[int, int],
    step: tuple[int, int],
    is_safety: bool,
) -> None:
    table = learnt(*given)
    most = table.expected(min(best), min(seen), max(step), is_safety=is_safety)
    assert 0 <= table.expected(max(best), max(seen), min(step), is_safety=is_safety) <= most + 1e-12
    assert most <= 1 - min(best)
    assert table.expected(1.0, seen[0], step[0], is_safety=is_safety) == 0


@settings(max_examples=30, deadline=None)
@given(traces)
def test_a_file_gives_the_table_back(tmp_path_factory: pytest.TempPathFactory, given: list[Trace]) -> None:
    path = tmp_path_factory.mktemp("gains") / "gains.json"
    table = learnt(*given)
    table.write(path)
    read = GainTable.read(path, "models")
    assert read == table
    assert read.digest == table.digest
    assert read.expected(0.5, 4, 4, is_safety=False) == table.expected(0.5, 4, 4, is_safety=False)
    assert os.listdir(path.parent) == ["gains.json"]
    first = path.read_bytes()
    learnt(*given).write(path)
    assert path.read_bytes() == first


def test_the_date_is_no_part_of_the_digest() -> None:
    table = learnt(Trace([0.2, 0.8], False))
    assert replace(table, date="2030-01-01").digest == table.digest
    assert replace(table, fingerprint="others").digest != table.digest


def uniform(rng: Random, top: float, count: int) -> list[float]:
    return [rng.uniform(0, top) for _ in range(count)]


@pytest.mark.parametrize("top", [0.6, 0.99])
@pytest.mark.parametrize("is_safety", [False, True])
def test_it_learns_a_known_distribution(top: float, is_safety: bool) -> None:
    """Candidates uniform on (0, top): the best of m more grows by the integral of 1 - (x / top)^m from b to top."""
    rng = Random(0)
    table = learnt(*(Trace(uniform(rng, top, 24), is_safety) for _ in range(1500)))
    for seen, step in ((2, 2), (4, 4), (8, 4), (5, 3)):
        # Where the best of `seen` is likely to lie, so that there are data.
        for best in (0.5 * top, 0.7 * top, 0.85 * top):
            exact = (top - best) - top * (1 - (best / top) ** (step + 1)) / (step + 1)
            found = table.expected(best, seen, step, is_safety=is_safety)
            assert found == pytest.approx(exact, rel=0.12, abs=0.006)


def test_what_was_seen_tells_of_the_prompt() -> None:
    """Half of the prompts never exceed 0.5, half reach 0.95: after many candidates below 0.5 no better ones come."""
    rng = Random(1)
    table = learnt(*(Trace(uniform(rng, top, 32), False) for _ in range(600) for top in (0.5, 0.95)))
    early, late = (table.expected(0.48, seen, 4, is_safety=False) for seen in (1, 16))
    assert late < 0.05 < 0.09 < early


def brute_force(values: list[float], seen: int, step: int) -> dict[float, tuple[float, float]]:
    """Each best reward's chance and expected growth, over all orders of the candidates."""
    found: dict[float, list[float]] = {}
    orders = list(permutations(values))
    for order in orders:
        best = max(order[:seen])
        found.setdefault(best, []).append(max(0.0, max(order[seen : seen + step]) - best))
    return {best: (len(grown) / len(orders), sum(grown) / len(grown)) for best, grown in found.items()}


@pytest.mark.parametrize(("seen", "step"), [(1, 1), (2, 2), (3, 2), (4, 2)])
def test_the_sums_are_exact_over_all_orders(seen: int, step: int) -> None:
    values = [0.9, 0.2, 0.6, 0.75, 0.4, 0.85]
    sums = gain_sums.empty()
    gain_sums.add_whole(sums[0], gain_sums.np.array([values]))
    row, column = gain_sums.SEEN.index(seen), gain_sums.STEPS.index(step)
    expected = brute_force(values, seen, step)
    assert gain_sums.weights_of(sums)[0, row, column].sum() == pytest.approx(1)
    shares = sum(chance * grown / (1 - best) * (seen + step) / step for best, (chance, grown) in expected.items())
    assert sums[0, 2, row, column].sum() == pytest.approx(shares)


def test_few_prompts_are_not_believed() -> None:
    """One prompt whose candidates were all alike does not tell that no other prompt gains anything."""
    one = learnt(Trace([0.5] * 16, False))
    many = learnt(*[Trace([0.5] * 16, False)] * 400)
    nothing = learnt()
    assert nothing.expected(0.5, 4, 4, is_safety=False) > 0.05
    assert many.expected(0.5, 4, 4, is_safety=False) < 0.004 < one.expected(0.5, 4, 4, is_safety=False)


def test_safety_prompts_are_told_apart_and_borrow_where_there_are_none() -> None:
    rng = Random(2)
    others = [Trace(uniform(rng, 0.95, 16), False) for _ in range(300)]
    safety = [Trace([0.9] * 16, True) for _ in range(300)]
    alone, both = learnt(*others), learnt(*others, *safety)
    assert alone.expected(0.7, 4, 4, is_safety=True) == pytest.approx(
        alone.expected(0.7, 4, 4, is_safety=False), rel=0.1
    )
    assert both.expected(0.9, 4, 4, is_safety=True) < 0.2 * both.expected(0.9, 4, 4, is_safety=False)


def test_waves_that_ended_with_a_good_candidate_do_not_mislead() -> None:
    """A server that stops at 0.8 keeps long traces of its poor prompts: they say what the exact traces of all say."""
    rng, exact, stopped, naive = Random(3), [], [], []
    for _ in range(4000):
        values = uniform(rng, rng.choice([0.7, 0.95]), 16)
        exact.append(Trace(values, False))
        end = next((end for end in range(4, 16, 4) if max(values[:end]) >= 0.8), 16)
        stopped.append(Trace(values[:end], False, (4, 4)))
        naive.append(Trace(values[:end], False))
    truth, found, wrong = (learnt(*given) for given in (exact, stopped, naive))
    below = [(best, seen) for best in (0.6, 0.7, 0.75) for seen in (4, 8, 12)]

    def error(table: GainTable) -> float:
        return max(
            abs(math.log(table.expected(*state, 4, is_safety=False) / truth.expected(*state, 4, is_safety=False)))
            for state in below
        )

    assert error(found) < 0.35
    assert error(wrong) > 1.5 * error(found)


def test_what_was_served_is_added() -> None:
    rng = Random(4)
    given = [Trace(uniform(rng, 0.9, 8), index % 3 == 0) for index in range(60)]
    onto = GainTable.learn("models", given[40:], onto=GainTable.learn("models", given[:40]))
    whole = GainTable.learn("models", given)
    assert (onto.prompts, onto.candidates) == (whole.prompts, whole.candidates) == (60, 480)
    assert onto.sums == pytest.approx(whole.sums, abs=1e-5)
    with pytest.raises(ValueError, match="different models"):
        GainTable.learn("others", given, onto=whole)


def damaged(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        body = json.loads(path.read_text())
        change(body)
        path.write_text(json.dumps(body))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not JSON"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not JSON"),
        (lambda path: path.write_text("[" * 100_000), "not JSON"),
        (lambda path: path.write_text("[]"), "no table of gains"),
        (lambda path: path.write_text('{"rewards": []}'), "no table of gains"),
        (damaged(lambda body: body.update(winnow_gains=99)), "format 99"),
        (damaged(lambda body: body.update(prompts=7)), "damaged"),
        (damaged(lambda body: body.update(date=7)), "damaged"),
        (damaged(lambda body: body.pop("states")), "damaged"),
        (damaged(lambda body: body.update(states=[{"class": "other"}])), "damaged"),
        (damaged(lambda body: body["states"][0]["sums"].append([1.0])), "damaged"),  # type: ignore[index]
        (damaged(lambda body: body.update(fingerprint="others")), "damaged"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "gains.json"
    learnt(Trace([0.1, 0.4, 0.9], False)).write(path)
    damage(path)
    with pytest.raises(GainsError, match=said) as caught:
        GainTable.read(path, "models")
    assert "\n" not in str(caught.value)
    assert "winnow distill" in str(caught.value)


def test_a_table_of_other_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gains.json"
    learnt(Trace([0.1, 0.4], False)).write(path)
    with pytest.raises(GainsError, match="other models"):
        GainTable.read(path, "theirs")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(GainsError, match="cannot be written"):
        learnt().write(tmp_path / "missing" / "gains.json")


def scored(index: int, reward: float, *, text: str = "Yes.", safety: float = 0.9) -> ScoredCandidate:
    branch = Branch.HELPFUL if safety >= 0.15 else Branch.UNSAFE
    return ScoredCandidate(Candidate(index, text, "stop", 3), Reward(logit(safety), logit(reward), branch))


def selection(*items: ScoredCandidate, combiner: CombinerName = "llama2") -> Selection:
    return Selection(Prompt((1,)), combiner, items, tuple(range(len(items))), (), Timings(0, 0, 0, 0, 0))


def test_a_selection_gives_its_rewards_in_the_order_of_its_candidates() -> None:
    chosen = selection(scored(0, 0.5), scored(3, 0.25), scored(2, 0.75, text=" "))
    trace = trace_of(replace(chosen, failures=(Failure(1, "score"),)))
    assert trace is not None
    assert trace.rewards == [pytest.approx(0.5), None, None, pytest.approx(0.25)]


def test_a_gated_candidate_could_not_win_under_safe_first_alone() -> None:
    gated = scored(0, 0.9, safety=0.1)
    plain, safe_first = (trace_of(selection(gated, combiner=name)) for name in ("llama2", "safe_first"))
    assert plain is not None
    assert safe_first is not None
    assert plain.rewards == [pytest.approx(0.1)]
    assert safe_first.rewards == [None]


def test_a_selection_that_was_cut_short_gives_no_trace() -> None:
    whole = selection(scored(0, 0.5), scored(1, 0.6))
    assert trace_of(replace(whole, truncated_by="deadline")) is None
    assert trace_of(replace(whole, aborted=(Aborted(2, "early_rejection", 3),))) is None
    adaptive = replace(whole, waves=1, stopped_by="gain", aborted=(Aborted(2, "adaptive", 3),))
    assert trace_of(adaptive) is None
    assert trace_of(adaptive, (2, 2)) == Trace([pytest.approx(0.5), pytest.approx(0.6)], False, (2, 2))
