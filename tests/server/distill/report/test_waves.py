"""What the report says of waves: simulated on runs of a fixed K, and measured or estimated on runs in waves."""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.runs import make_run, manifest, record, scored
from winnow.models.combiner import combine, rank
from winnow.models.statistics import Interval
from winnow.models.types import Failure, sigmoid
from winnow.server.distill.gains import learnt_from
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Arm, DrawnWaves, Record
from winnow.server.distill.report import DATA, report
from winnow.server.distill.report.survey import gather
from winnow.server.distill.report.waves import STOPS, FixedK, WaveFindings, tokens_alike
from winnow.server.pipeline.waves import Waves

K = 8


def prompt(line: int, logits: list[float], waves: Waves | None = None, requested: int = K) -> Record:
    """A prompt whose candidates have these logit(R_c) and 10 tokens each; with `waves`, as many as they draw."""
    k, count = len(logits), 1
    if waves:
        assert waves.reward
        ends = list(waves.ends(requested))
        k = next((end for end in ends if max(map(sigmoid, logits[:end])) >= waves.reward), requested)
        count = ends.index(k) + 1
    answers = [
        scored(index, f"answer {index}", combine(False, 3.0, logit), 10) for index, logit in enumerate(logits[:k])
    ]
    by = "candidates" if k == requested else "reward"
    drawn = DrawnWaves(requested, waves.start, waves.step, count, by) if waves else None
    made = record(line, Random(0), (Arm(k, 1.0, waves=drawn),), answers=answers, failures=[], is_safety=False)
    if not drawn:
        return made
    return replace(made, selection=replace(made.selection, requested=requested, waves=count, stopped_by=by))


def found(folder: Path, records: list[Record]) -> WaveFindings:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest()))
    with Journal(folder) as journal:
        for item in records:
            journal.append(item)
    waves = gather(folder, 0, learnt_from(folder)).waves
    assert waves
    return waves


def rewards(seed: int = 0, prompts: int = 60, k: int = K) -> list[list[float]]:
    rng = Random(seed)
    means = [rng.gauss(0.5, 1.5) for _ in range(prompts)]
    return [[rng.gauss(mean, 1.2) for _ in range(k)] for mean in means]


def test_every_fixed_k_is_the_mean_over_subsets_and_costs_its_tokens(tmp_path: Path) -> None:
    drawn = rewards(prompts=5, k=5)
    fixed = found(tmp_path, [prompt(line, logits) for line, logits in enumerate(drawn, 1)]).fixed
    assert [(item.size, item.tokens, item.is_estimated) for item in fixed] == [
        (size, pytest.approx(10 * size), False) for size in range(1, 6)
    ]
    for item in fixed:
        best = [max(map(sigmoid, part)) for logits in drawn for part in itertools.combinations(logits, item.size)]
        assert item.reward.value == pytest.approx(statistics.fmean(best), abs=1e-5)


def test_a_simulated_stop_is_what_waves_would_have_drawn(tmp_path: Path) -> None:
    """Over four orders of each prompt's candidates, each turned by a quarter."""
    drawn = rewards()
    waves = found(tmp_path, [prompt(line, logits) for line, logits in enumerate(drawn, 1)])
    assert [stop.at for stop in waves.stops] == list(STOPS)
    for stop in waves.stops:
        runs, losses = [], []
        for logits in drawn:
            for turn in range(4):
                turned = logits[2 * turn :] + logits[: 2 * turn]
                made = prompt(1, turned, Waves(reward=stop.at)).selection
                runs.append(made)
                if made.candidates < K:
                    losses.append(sigmoid(max(logits)) - made.winner.reward.combined)
        assert stop.reward.value == pytest.approx(
            statistics.fmean(item.winner.reward.combined for item in runs), abs=1e-5
        )
        assert stop.candidates == pytest.approx(statistics.fmean(item.candidates for item in runs), abs=1e-5)
        assert stop.tokens == pytest.approx(10 * stop.candidates)
        assert stop.stopped == pytest.approx(len(losses) / len(runs), abs=1e-5)
        assert stop.loss == pytest.approx(statistics.fmean(losses), abs=1e-5)
        assert stop.kept == pytest.approx(sum(loss <= 0 for loss in losses) / len(losses), abs=1e-5)
    assert waves.drawn.prompts == 0
    assert waves.k is waves.spent is None


def test_a_stop_is_not_for_an_empty_answer_nor_for_an_unsafe_one_under_safe_first(tmp_path: Path) -> None:
    answers = [scored(index, "" if index < 4 else "text", combine(False, 3.0, 9.0), 1) for index in range(8)]
    empty = record(1, Random(0), answers=answers, failures=[], is_safety=False)
    assert {stop.candidates for stop in found(tmp_path / "empty", [empty]).stops} == {
        5.0
    }  # 8, then 4 where a text is among the first
    unsafe = [scored(index, "text", combine(False, -9.0, None), 1) for index in range(8)]
    safe_first = record(1, Random(0), answers=unsafe, failures=[], is_safety=False, combiner="safe_first")
    assert {stop.candidates for stop in found(tmp_path / "unsafe", [safe_first]).stops} == {8.0}


def test_prompts_with_failures_and_several_arms_are_left_out(tmp_path: Path) -> None:
    whole, other = (prompt(line, [0.0] * K) for line in (1, 2))
    failed = replace(
        other, selection=replace(other.selection, scored=other.selection.scored[:7], failures=(Failure(7, "failed"),))
    )
    failed = replace(failed, selection=replace(failed.selection, ranking=rank(failed.selection.scored, "llama2")))
    arms = replace(prompt(3, [9.0] * K), arms=(Arm(4, 1.0), Arm(4, 0.7)))
    waves = found(tmp_path, [whole, failed, arms])
    assert {stop.reward.count for stop in waves.stops} == {1}
    assert waves.stops[0].candidates == 4


def test_a_run_in_waves_is_measured_up_to_its_first_wave_and_estimated_beyond(tmp_path: Path) -> None:
    """The first waves are those of the exact run; the estimate comes close to what all candidates have."""
    drawn = rewards(prompts=400)
    exact = found(tmp_path / "exact", [prompt(line, logits) for line, logits in enumerate(drawn, 1)])
    waves = Waves(2, 2, reward=0.85)
    records = [prompt(line, logits, waves) for line, logits in enumerate(drawn, 1)]
    here = found(tmp_path / "waves", records)
    assert [(item.size, item.is_estimated) for item in here.fixed] == [
        (1, False), (2, False), (4, True), (6, True), (8, True)
    ]  # fmt: skip
    of_all = {item.size: item.reward.value for item in exact.fixed}
    first = [max(map(sigmoid, logits[:2])) for logits in drawn]
    assert here.fixed[1].reward.value == pytest.approx(statistics.fmean(first), abs=1e-5)
    for item in here.fixed:
        assert item.reward.value == pytest.approx(of_all[item.size], abs=0.03)
    assert not here.stops
    sizes = [item.selection.candidates for item in records]
    assert here.k
    assert here.spent
    assert here.k.value == pytest.approx(statistics.fmean(sizes), abs=1e-5)
    assert here.spent.value == pytest.approx(10 * statistics.fmean(sizes), abs=1e-3)
    assert here.tokens_of_k == pytest.approx(80)
    assert dict(here.drawn.candidates) == {size: sizes.count(size) for size in set(sizes)}
    assert here.drawn.stopped_by.total() == here.drawn.prompts == 400


def test_each_wave_has_its_growth(tmp_path: Path) -> None:
    drawn = [[-2.0, -1.0, 0.0, 0.5, 3.0, 1.0], [-1.0, -3.0, 2.9, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    waves = Waves(2, 2, reward=0.9)
    here = found(tmp_path, [prompt(line, logits, waves, 6) for line, logits in enumerate(drawn, 1)])
    second, third = here.drawn.gains
    assert (second.number, second.prompts, third.number, third.prompts) == (2, 2, 3, 1)
    growths = [sigmoid(0.5) - sigmoid(-1.0), sigmoid(2.9) - sigmoid(-1.0)]
    assert second.growth == pytest.approx(statistics.fmean(growths))
    assert second.growth_by_candidate == pytest.approx(statistics.fmean(growths) / 2)
    assert third.before == pytest.approx(sigmoid(0.5))
    assert third.growth == pytest.approx(sigmoid(3.0) - sigmoid(0.5))


def test_tokens_alike_lie_between_two_sizes() -> None:
    fixed = [FixedK(size, Interval(0.2 * size, 0, 1, 9), 10.0 * size) for size in (1, 2, 4)]
    assert tokens_alike(fixed, 0.3) == pytest.approx(15)
    assert tokens_alike(fixed, 0.6) == pytest.approx(30)
    assert tokens_alike(fixed, 0.1) is None
    assert tokens_alike(fixed, 0.9) is None


def test_the_page_and_the_json_say_it(tmp_path: Path) -> None:
    make_run(tmp_path / "exact", prompts=40)
    page = report(tmp_path / "exact")
    assert "Reward against tokens" in page.read_text()
    body = json.loads((page.parent / DATA).read_bytes())
    assert body["prompts"] == 40
    assert [item["k"] for item in body["waves"]["fixed"]] == list(range(1, 9))
    assert body["waves"]["drawn"] is None
    assert len(body["waves"]["simulated_stops"]) == len(STOPS)
    found(
        tmp_path / "waves", [prompt(line, logits, Waves(2, 2, reward=0.8)) for line, logits in enumerate(rewards(), 1)]
    )
    page = report(tmp_path / "waves")
    text = page.read_text()
    assert "on average gains" in text
    assert "estimated" in text
    assert "the reward was reached" in text
    assert "of the first waves alone" in text
    drawn = json.loads((page.parent / DATA).read_bytes())["waves"]["drawn"]
    assert sum(drawn["k"].values()) == drawn["prompts"] == 60
    assert (page.parent / "candidates.png").exists()
    again = report(tmp_path / "waves", tmp_path / "again")
    assert (again.parent / DATA).read_bytes() == (page.parent / DATA).read_bytes()


def test_a_run_without_answers_has_none_of_it(tmp_path: Path) -> None:
    make_run(tmp_path / "none", prompts=0)
    page = report(tmp_path / "none")
    assert "Reward against tokens" not in page.read_text()
    assert json.loads((page.parent / DATA).read_bytes())["waves"] is None
