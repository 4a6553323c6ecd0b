"""The example of `make distill-demo`, without engines: its control, its training and its page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

from tests.runs import make_run
from winnow.loadtests.benchmarks.distill_demo.__main__ import control, publish, training_prompts, winners
from winnow.loadtests.benchmarks.distill_demo.measures import best, judged, sampled
from winnow.loadtests.benchmarks.distill_demo.page import Page, markdown
from winnow.models import demo
from winnow.models.demo.world import sample_answer, touches_held_out
from winnow.models.engines.checkpoint import inspect_policy
from winnow.models.training.checkpoints import load_policy
from winnow.models.training.sft import Schedule, fine_tune
from winnow.server.distill.export import ExportOptions
from winnow.server.distill.export.formats import export

PROMPTS = 24


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on busy cores are ten times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a run of random answers."""
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, prompts=PROMPTS)
    export(folder, ["prompt-completion", "candidates"], ExportOptions())
    return folder / "export"


def test_no_held_out_prompt_is_trained_on() -> None:
    prompts = training_prompts(200)
    assert len(prompts) == 200
    assert not any(touches_held_out(prompt.messages) for prompt in prompts)


def test_the_control_differs_from_the_winners_in_the_choice_alone(exported: Path) -> None:
    chosen, drawn = winners(exported), control(exported, seed=0)
    assert len(chosen) == PROMPTS
    assert [row["prompt"] for row in drawn] == [row["prompt"] for row in chosen]
    assert [row["completion"] for row in drawn] != [row["completion"] for row in chosen]
    assert all([message["role"] for message in row["completion"]] == ["assistant"] for row in drawn)
    assert control(exported, seed=0) == drawn
    assert control(exported, seed=1) != drawn


def test_the_control_draws_from_the_prompts_own_candidates(exported: Path, tmp_path: Path) -> None:
    texts = [
        {answer.candidate.text for answer in item.selection.scored} for item in make_run(tmp_path, prompts=PROMPTS)
    ]
    for seed in range(5):
        drawn = [row["completion"][0]["content"] for row in control(exported, seed)]
        assert all(text in own for text, own in zip(drawn, texts, strict=True))


@pytest.fixture(scope="module")
def tuned(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo policy after a few real steps."""
    folder = tmp_path_factory.mktemp("tuned")
    schedule = Schedule(epochs=1, batch=8, rate=1e-3)
    fine_tune(winners(exported), schedule, demo.weights("policy"), exported / "chat_template.jinja", folder)
    return folder


def test_a_tuned_policy_can_be_served(tuned: Path) -> None:
    inspect_policy(str(tuned))
    before, after = (load_policy(folder) for folder in (demo.weights("policy"), tuned))
    assert after.config.to_diff_dict() == before.config.to_diff_dict()
    assert not torch.equal(before.model.layers[0].mlp.up_proj.weight, after.model.layers[0].mlp.up_proj.weight)
    assert after.generation_config.eos_token_id == 2


def test_the_best_answer_is_found() -> None:
    """Right answers among unsafe ones are what the demo's reward models were trained to find."""
    rng, prompts = Random(0), training_prompts(20)
    answers = [[sample_answer(prompt, fault, rng) for fault in ("unsafe", "none", "unsafe")] for prompt in prompts]
    found = judged("best", prompts, best(prompts, answers))
    every = judged("every", prompts, answers)
    assert sum(found.unsafe) == 0
    assert sum(found.wrong) < sum(every.wrong) / 2
    assert found.error_above(every).high < 0


def test_the_page_has_the_figures(tmp_path: Path) -> None:
    prompts = training_prompts(3)
    answers = sampled(demo.weights("policy"), prompts, 3, seed=0)
    assert [len(own) for own in answers] == [3] * len(prompts)
    assert answers == sampled(demo.weights("policy"), prompts, 3, seed=0)
    good, bad = ([[sample_answer(p, fault, Random(0))] for p in prompts] for fault in ("none", "wrong"))
    page = Page(
        intro="Made by a test.",
        samples=3,
        lessons=[judged("random", prompts, bad), judged("winners", prompts, good)],
        original=judged("original", prompts, bad),
        control=judged("control", prompts, answers),
        winners=judged("tuned", prompts, good),
        best=judged("best of 3", prompts, good),
    )
    publish(page, tmp_path)
    text = (tmp_path / "distill-demo.md").read_text(encoding="utf-8")
    assert text == markdown(page)
    assert "| tuned | 0.0 % (0.0 % to 0.0 %) |" in text
    assert "| -100.0 (-100.0 to -100.0) |" in text
    assert page.recovered == 1.0
    assert "% of the gain" in text
    assert "% of the gain" not in markdown(replace(page, best=page.original))  # there is none
    assert (tmp_path / "distill-demo.png").stat().st_size > 10_000
