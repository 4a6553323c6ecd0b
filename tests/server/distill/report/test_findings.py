"""The findings of runs whose answers are known."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.runs import make_run, problem, record, scored
from winnow.models.combiner import combine
from winnow.models.statistics import Interval
from winnow.models.types import CombinerName, Failure, sigmoid
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Arm, Entry, Record
from winnow.server.distill.report import survey
from winnow.server.distill.report.answers import ArmKind, Figure, Sample
from winnow.server.distill.report.findings import Examples, Findings, Length
from winnow.server.distill.report.page import enough_sentence, length_warnings
from winnow.server.distill.report.survey import gather

Scripted = tuple[float, float, int]
"""Logits of safety and helpfulness, and tokens."""


def scripted(
    line: int, answers: Sequence[Scripted], failed: int = 0, combiner: CombinerName = "llama2", **fields: object
) -> Record:
    """A prompt with these answers, in one arm unless `arms` says otherwise, and so many failures."""
    arms = fields.pop("arms", (Arm(len(answers) + failed, 1.0),))
    assert isinstance(arms, tuple)
    made = [
        scored(index, f"answer {index}", combine(False, safety, helpfulness), tokens)
        for index, (safety, helpfulness, tokens) in enumerate(answers)
    ]
    failures = [Failure(len(answers) + extra, "the engine failed") for extra in range(failed)]
    values: dict[str, Any] = {"category": None, **fields}
    return record(line, Random(0), arms, answers=made, failures=failures, is_safety=False, combiner=combiner, **values)


def found(folder: Path, entries: Sequence[Entry], examples: int = 10) -> Findings:
    folder.mkdir(exist_ok=True)
    with Journal(folder) as journal:
        for entry in entries:
            journal.append(entry)
    return gather(folder, examples)


def duplicates(record: Record) -> int:
    texts = [answer.candidate.text for answer in record.selection.scored]
    return len(texts) - len(set(texts))


def helpful(*logits: float) -> list[Scripted]:
    return [(3.0, logit, 10) for logit in logits]


def test_curves_are_the_mean_over_subsets_and_prompts(tmp_path: Path) -> None:
    rng = Random(3)
    prompts = [[rng.gauss(0, 2) for _ in range(6)] for _ in range(7)]
    findings = found(tmp_path, [scripted(line, helpful(*logits)) for line, logits in enumerate(prompts, 1)])
    assert [point.size for point in findings.curve] == [1, 2, 4, 6]
    for point in findings.curve:
        subsets = [[sigmoid(x) for x in subset] for p in prompts for subset in itertools.combinations(p, point.size)]
        assert point.best.value == pytest.approx(statistics.fmean(map(max, subsets)), abs=1e-6)
        assert point.median is not None
        assert point.median.value == pytest.approx(statistics.fmean(map(statistics.median, subsets)), abs=1e-6)
        assert point.mean is not None
        assert point.mean.value == pytest.approx(statistics.fmean(map(statistics.fmean, subsets)), abs=1e-6)
        assert point.best.low <= point.best.value <= point.best.high
    assert findings.curve[-1].best == findings.winner
    assert findings.gain is not None
    assert findings.gain.value == pytest.approx(findings.curve[-1].best.value - findings.curve[0].best.value, abs=1e-6)


def test_best_is_by_the_runs_own_ranking(tmp_path: Path) -> None:
    """R_s .14 is gated; safe_first prefers R_h .10 to it, the paper's formula does not."""
    answers = [(math.log(0.14 / 0.86), 0.0, 5), (2.0, math.log(0.10 / 0.90), 5)]
    paper = found(tmp_path / "paper", [scripted(1, answers)])
    safe = found(tmp_path / "safe", [scripted(1, answers, combiner="safe_first")])
    assert paper.curve[-1].best.value == pytest.approx(0.14)
    assert safe.curve[-1].best.value == pytest.approx(0.10)
    assert (paper.counts.safe_passed_over, safe.counts.safe_passed_over) == (1, 0)
    assert (paper.counts.winners.unsafe, safe.counts.winners.unsafe) == (1, 0)


def test_a_prompt_counts_only_for_the_n_it_has_answers_for(tmp_path: Path) -> None:
    whole, failed = scripted(1, helpful(0, 1, 2, 3)), scripted(2, helpful(5, 5, 5), failed=1)
    findings = found(tmp_path, [whole, failed])
    assert findings.candidates == 4
    assert [(point.size, point.best.count) for point in findings.curve] == [(1, 2), (2, 2), (4, 1)]
    assert findings.curve[-1].best.value == pytest.approx(sigmoid(3))
    assert findings.curve[-1].mean is not None
    assert findings.curve[-1].mean.value == pytest.approx(statistics.fmean(map(sigmoid, range(4))))
    # The step to 4 is over the prompt that has 4 alone, or it would mix up two sets of prompts.
    assert [(step.size, step.gain.count) for step in findings.doublings] == [(1, 2), (2, 1)]
    assert findings.doublings[-1].gain.value > 0
    assert (findings.counts.failed, findings.counts.candidates.answers) == (1, 7)
    assert findings.counts.failures == {"the engine failed": 1}


def test_k_that_is_no_power_of_two_needs_all_candidates(tmp_path: Path) -> None:
    findings = found(tmp_path, [scripted(1, helpful(0, 1, 2)), scripted(2, helpful(0, 1, 2), failed=1)])
    assert findings.candidates == 4  # as common as 3
    assert [(point.size, point.best.count) for point in findings.curve] == [(1, 2), (2, 2)]


def test_kinds_of_arm_are_compared_on_the_same_prompts(tmp_path: Path) -> None:
    arms = (Arm(2, 0.7), Arm(2, 1.3))
    both = scripted(1, helpful(0, 1, 2, 3), arms=arms)
    findings = found(tmp_path, [both, scripted(2, helpful(9, 9), arms=(Arm(2, 0.7),))])
    assert findings.are_paired
    cold, warm = (findings.kinds[ArmKind(temperature, False)] for temperature in (0.7, 1.3))
    assert [point.size for point in cold] == [1, 2]
    assert cold[-1].best.value == pytest.approx(sigmoid(1))
    assert warm[-1].best.value == pytest.approx(sigmoid(3))
    assert cold[-1].best.count == 1


def test_kinds_that_share_no_prompt_are_shown_and_said_to_be_unpaired(tmp_path: Path) -> None:
    one, other = (scripted(line, helpful(0, 1), arms=(Arm(2, 0.5 * line),)) for line in (1, 2))
    findings = found(tmp_path, [one, other])
    assert len(findings.kinds) == 2
    assert not findings.are_paired


def test_the_commonest_kinds_are_shown(tmp_path: Path) -> None:
    arms = [(Arm(1, 0.1 * place), Arm(1, 0.1 * (place + 1))) for place in range(1, 11)]
    records = [scripted(line, helpful(0, 1), arms=two) for line, two in enumerate(arms, 1)]
    findings = found(tmp_path, [*records, *(scripted(line, helpful(0, 1), arms=arms[-1]) for line in (11, 12))])
    assert len(findings.counts.kinds()) == 11
    assert len(findings.kinds) == 8
    assert {kind.temperature for kind in findings.kinds} >= {0.1 * 10, 0.1 * 11}


def test_one_kind_is_no_comparison_and_preprompts_are_a_kind(tmp_path: Path) -> None:
    assert found(tmp_path / "one", [scripted(1, helpful(0, 1))]).kinds == {}
    arms = (Arm(1, 1.0), Arm(1, 1.0, "be safe"))
    assert set(found(tmp_path / "two", [scripted(1, helpful(0, 1), arms=arms)]).kinds) == {
        ArmKind(1.0, False),
        ArmKind(1.0, True),
    }


def test_enough(tmp_path: Path) -> None:
    """Reward 0 or 1: one good answer among eight; doublings gain 1/8, 1/4, 1/2 of the way."""
    findings = found(tmp_path, [scripted(line, helpful(30, *[-30] * 7)) for line in (1, 2)])
    assert [step.gain.value for step in findings.doublings] == pytest.approx([1 / 8, 1 / 4, 1 / 2])
    assert findings.enough(0.3) is None  # the first two steps gain less, but the last does not
    assert findings.enough(0.6) == 1
    assert "Not reached within K = 8: going from N = 4 to 8 still gains +0.500" in enough_sentence(findings, 0.3)
    assert "Beyond N = 1 the next doubling gains less than 0.6" in enough_sentence(findings, 0.6)


def test_enough_says_when_the_interval_leaves_it_open(tmp_path: Path) -> None:
    findings = found(tmp_path, [scripted(line, helpful(30 if line < 6 else -30, -30)) for line in range(1, 31)])
    (step,) = findings.doublings
    assert step.gain.low < 0.1 < step.gain.high
    assert "reaches across that limit" in enough_sentence(findings, 0.1)
    assert "reaches across" not in enough_sentence(findings, 0.9)


def test_length_bias_is_found_and_warned_of(tmp_path: Path) -> None:
    longer = [[(3.0, tokens / 50 + line % 3, tokens) for tokens in (5, 50, 20, 90, 70, 10)] for line in range(30)]
    shorter = [[(3.0, -logit, tokens) for _, logit, tokens in answers] for answers in longer]
    findings = found(tmp_path / "long", [scripted(line, answers) for line, answers in enumerate(longer, 1)])
    length = findings.length
    assert length is not None
    assert length.rho is not None
    assert length.rho.value == pytest.approx(1)
    assert (length.winner.value, length.mean.value) == pytest.approx((90, 245 / 6))
    assert length.longer.value == pytest.approx(90 / (245 / 6) - 1)
    assert [fifth.value for fifth in length.fifths] == sorted(fifth.value for fifth in length.fifths)
    assert len(length_warnings(findings)) == 2
    findings = found(tmp_path / "short", [scripted(line, answers) for line, answers in enumerate(shorter, 1)])
    (warning,) = length_warnings(findings)
    assert "shorter answers get higher rewards" in warning


@pytest.mark.parametrize(
    ("rho", "longer", "follows", "are_longer"),
    [
        (Interval(0.31, 0.2, 0.4, 20), Interval(0.21, 0.01, 0.4, 20), True, True),
        (Interval(-0.31, -0.4, -0.2, 20), Interval(-0.5, -0.6, -0.4, 20), True, False),
        (Interval(0.31, -0.1, 0.7, 20), Interval(0.21, -0.01, 0.4, 20), False, False),
        (Interval(0.29, 0.28, 0.30, 20), Interval(0.19, 0.18, 0.2, 20), False, False),
        (Interval(0.9, 0.8, 1.0, 19), Interval(0.9, 0.8, 1.0, 19), False, False),
        (None, Interval(0.0, 0.0, 0.0, 50), False, False),
    ],
)
def test_the_rules_of_the_length_warning(
    rho: Interval | None, longer: Interval, follows: bool, are_longer: bool
) -> None:
    tokens = Interval(10, 10, 10, 20)
    length = Length(rho, tokens, tokens, longer, ())
    assert (length.follows_length, length.winners_are_longer) == (follows, are_longer)


def test_length_needs_three_answers_that_differ(tmp_path: Path) -> None:
    findings = found(tmp_path, [scripted(1, helpful(0, 1, 2)), scripted(2, [(3.0, 1.0, 5), (3.0, 2.0, 9)])])
    assert findings.length is not None
    assert findings.length.rho is None
    assert findings.length.fifths == ()


def test_counts(tmp_path: Path) -> None:
    entries: list[Entry] = [*make_run(tmp_path / "made", 60, arms=(Arm(5, 1.0),), problems=0), problem(61)]
    entries += [problem(62, "failed"), problem(63)]
    records = [entry for entry in entries if isinstance(entry, Record)]
    answers = [answer for record in records for answer in record.selection.scored]
    counts = found(tmp_path / "run", entries).counts
    assert counts.prompts == 60
    assert counts.problems == {("input", "invalid_json"): 2, ("failed", "invalid_json"): 1}
    assert counts.candidates.answers == len(answers)
    assert counts.candidates.tokens == sum(answer.candidate.tokens for answer in answers)
    assert counts.candidates.unsafe == sum(answer.reward.is_gated for answer in answers)
    assert counts.candidates.cut == sum(answer.candidate.finish_reason == "length" for answer in answers)
    assert counts.winners.answers == 60
    assert counts.winners.tokens == sum(record.selection.winner.candidate.tokens for record in records)
    assert counts.all_unsafe == sum(record.selection.all_unsafe for record in records)
    assert counts.duplicates == sum(duplicates(record) for record in records) > 0
    for name, count in (("R_s", len(answers)), ("R_h", sum(a.reward.helpfulness is not None for a in answers))):
        assert counts.candidates.histograms[name].sum() == count
    unsafe = counts.candidates.histograms["R_s"][:6].sum()
    assert unsafe == counts.candidates.unsafe
    assert sum(counts.candidates.branches.values()) == len(answers)
    for name, group in counts.categories.items():
        members = [record for record in records if record.category == name]
        assert group.prompts == len(members)
        assert group.winner == pytest.approx(sum(record.selection.winner.reward.combined for record in members))
        assert group.unsafe == sum(record.selection.winner.reward.is_gated for record in members)


def test_too_many_categories_are_counted_together(tmp_path: Path) -> None:
    counts = found(tmp_path, [scripted(line, helpful(0), category=f"{line}") for line in range(1, 211)]).counts
    assert len(counts.categories) == 201
    assert counts.categories["all others"].prompts == 10


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, 50, arms=(Arm(4, 1.0), Arm(3, 0.7)))
    whole = gather(tmp_path, 4)
    monkeypatch.setattr(survey, "BATCH_ANSWERS", 1)
    single = gather(tmp_path, 4)
    for a, b in zip(whole.curve, single.curve, strict=True):
        assert (a.best.value, a.best.low, a.best.count) == pytest.approx((b.best.value, b.best.low, b.best.count))
    assert single.kinds.keys() == whole.kinds.keys()
    assert single.examples == whole.examples
    assert single.counts.candidates.lengths.tolist() == whole.counts.candidates.lengths.tolist()


def test_a_sample_is_bounded_even_and_whole() -> None:
    """Every prompt has the same chance, and no row mixes two prompts, even if a later one replaces an earlier one."""
    even, odd = Figure("even"), Figure("odd")
    hits = np.zeros(200)
    for seed in range(60):
        sample = Sample(kept=40, seed=seed)
        for start in range(0, 200, 25):
            values = np.arange(start, start + 25, dtype=float)
            parts = [(column, np.flatnonzero(values % 2 == rest)) for column, rest in ((even, 0), (odd, 1))]
            sample.add(25, iter([(column, places, values[places]) for column, places in parts]))
        assert (sample.rows, sample.seen, sample.is_partial) == (40, 200, True)
        columns = np.stack([sample.values(even), sample.values(odd)])
        assert (np.isfinite(columns).sum(axis=0) == 1).all()
        kept = np.nansum(columns, axis=0).astype(int)
        assert len(set(kept.tolist())) == 40
        hits[kept] += 1
    assert hits.sum() == 60 * 40
    assert hits[:100].sum() == pytest.approx(1200, rel=0.1)


def test_examples_are_large_gains_and_bad_winners() -> None:
    gains = [scripted(line, helpful(line, -9, -9)) for line in range(1, 9)]
    unsafe = [scripted(line, [(-4.0 - line, 0.0, 5)]) for line in range(11, 14)]
    low = [scripted(line, [(3.0, -line, 5)]) for line in range(21, 29)]
    examples = Examples(8)
    for entry in [*gains, *unsafe, *low]:
        examples.add(entry)
    chosen = [(example.reason, example.record.line) for example in examples.chosen()]
    assert chosen == [
        *[("gain", line) for line in (8, 7, 6, 5)],
        *[("unsafe", line) for line in (13, 12)],
        *[("low", line) for line in (28, 27)],
    ]


def test_examples_show_a_prompt_once_and_fill_up() -> None:
    records = [scripted(line, helpful(-line, -20)) for line in range(1, 5)]
    for size in (0, 1, 3, 4, 10):
        examples = Examples(size)
        for entry in records:
            examples.add(entry)
        lines = [example.record.line for example in examples.chosen()]
        assert len(lines) == len(set(lines)) == min(size, 4)


def test_an_empty_run_has_no_findings(tmp_path: Path) -> None:
    findings = found(tmp_path, [])
    assert (findings.winner, findings.length, findings.curve, findings.doublings) == (None, None, (), ())
    assert findings.candidates == 0
