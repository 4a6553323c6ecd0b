"""The parts of `make loop-demo` without engines: its annotator, alone and over HTTP, its control, and its page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.fakes import ScriptedPolicy
from tests.server.api.test_stored import recording
from winnow.loadtests.benchmarks.loop_demo import first, steps
from winnow.loadtests.benchmarks.loop_demo.annotator import AnnotationRefused, ScriptedAnnotator, Work, post
from winnow.loadtests.benchmarks.loop_demo.asking import Measured
from winnow.loadtests.benchmarks.loop_demo.page import HEADING, Results, publish
from winnow.loadtests.benchmarks.loop_demo.shuffling import exchanged, shuffled
from winnow.loadtests.benchmarks.loop_demo.steps import DEVELOPMENT, Loop, Plan, annotate, exam
from winnow.loadtests.benchmarks.winnow_process import as_json
from winnow.models.demo.world import FAULTS, DemoPrompt, held_out_prompts, prompts, sample_answer, touches_held_out
from winnow.models.policy import CandidateHandle
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt
from winnow.server.rm.lessons import lessons_of

ASKED = list(islice(prompts(20, held_out=False), 60))


def answers(prompt: DemoPrompt, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return [sample_answer(prompt, fault, rng) for fault in FAULTS if fault != "empty"]


class WorldPolicy(ScriptedPolicy):
    """Answers a prompt of the world with its right and wrong answers."""

    async def sample(
        self, prompt: Prompt, sampling: Sampling, index: int, handle: CandidateHandle | None = None
    ) -> Candidate:
        asked = next(one for one in ASKED if one.messages == prompt.messages)
        texts = answers(asked)
        return Candidate(index, texts[index % len(texts)], "stop", 3)


def test_without_noise_the_annotator_says_what_the_world_does() -> None:
    annotator = ScriptedAnnotator(ASKED, seed=0, noise=0)
    seen = Counter[int | None]()
    for prompt in ASKED:
        left, *others = answers(prompt)
        for right in others:
            gap = prompt.grade(left, "helpfulness") - prompt.grade(right, "helpfulness")
            found = annotator.judge(as_json(prompt.messages), left, right)
            assert (found is None) == (gap == 0)
            seen[found.choice if found else None] += 1
            if found:
                assert found.choice == {3: 1, 2: 2, 1: 3, -1: 6, -2: 7, -3: 8}[gap]
                assert (found.left_safe, found.right_safe) == (prompt.judge(left).safe, prompt.judge(right).safe)
    assert {None, 1, 2} <= seen.keys()


def test_noise_turns_a_share_of_the_choices_round_whatever_the_order() -> None:
    true, noisy = (ScriptedAnnotator(ASKED, seed=3, noise=noise) for noise in (0.0, 0.15))
    turned = pairs = 0
    for prompt in ASKED:
        messages, (left, *others) = as_json(prompt.messages), answers(prompt)
        for right in others:
            shown, mirrored = noisy.judge(messages, left, right), noisy.judge(messages, right, left)
            truth = true.judge(messages, left, right)
            assert (shown is None) == (mirrored is None) == (truth is None)
            if shown and mirrored and truth:
                pairs += 1
                turned += shown.is_noise
                assert mirrored.choice == 9 - shown.choice
                assert shown.choice == (9 - truth.choice if shown.is_noise else truth.choice)
    assert pairs > 300
    assert 0.1 < turned / pairs < 0.2


def test_the_annotator_works_through_a_server(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """What the server keeps are the choices that the annotator made, on the sides that it was shown."""
    annotator = ScriptedAnnotator(ASKED, seed=0, noise=0)
    with recording(tokenizer, tmp_path, policy=WorldPolicy(), candidates=10) as server:
        with server.http as http:
            for prompt in ASKED[:12]:
                http.post("/v1/chat/completions", json=body_of(prompt)).raise_for_status()
        done = annotate(server.url, annotator, wanted=20, seed=0)
        assert done.annotated == 20
        assert done.turned == done.questioned == 0
        with server.http as http:
            batches = http.get("/v1/annotation/batches").json()["data"]
    assert len(batches) > 1, "a batch has one pair of an answer: more pairs than answers take several"
    assert sum(batch["annotations"] for batch in batches) == 20
    assert sum(batch["skipped"] for batch in batches) == done.skipped
    assert all(batch["closed"] for batch in batches)


def test_the_work_ends_where_no_batch_can_be_made(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with recording(tokenizer, tmp_path) as server, pytest.raises(AnnotationRefused, match="400"):
        annotate(server.url, ScriptedAnnotator(ASKED, seed=0), wanted=1, seed=0)


def test_a_choice_that_is_sent_twice_counts_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    sent: list[bytes] = []

    def note(request: httpx.Request) -> None:
        if request.url.path.endswith("/annotations"):
            sent.append(request.content)

    annotator = ScriptedAnnotator(ASKED, seed=0, noise=0)
    with (
        recording(tokenizer, tmp_path, policy=WorldPolicy(), candidates=10) as server,
        httpx.Client(base_url=server.url, trust_env=False, event_hooks={"request": [note]}) as http,
    ):
        for prompt in ASKED[:6]:
            http.post("/v1/chat/completions", json=body_of(prompt)).raise_for_status()
        batch = post(http, "/v1/annotation/batches", {"name": "One", "policy": "random", "pairs": 6})["id"]
        done = annotator.work(http, batch, 6)
        first_time = tuple(sent)
        for content in first_time:
            assert post(http, "/v1/annotation/annotations", json.loads(content))["revision"] == 1
        annotations = http.get(f"/v1/annotation/batches/{batch}").json()["annotations"]
    assert annotations == done.annotated == len(first_time)


def body_of(prompt: DemoPrompt) -> dict[str, Any]:
    return {"model": "winnow-demo", "messages": list(as_json(prompt.messages))}


def test_no_prompt_is_measured_on_that_the_recipe_was_chosen_on() -> None:
    asked = {one.messages for one in exam(Plan(Path(), 0, 0, 0, 300, 0))}
    assert not asked & {one.messages for one in held_out_prompts(*DEVELOPMENT)}
    assert all(map(touches_held_out, asked))


def test_two_trainings_at_once_share_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    cards = {}

    def rm_train(options: dict[str, Any]) -> None:
        both.wait(10)
        cards[options["out"].name] = options["card"], options["card"].read_text()
        both.wait(10)

    monkeypatch.setattr(steps, "rm_train", rm_train)
    Loop(Plan(tmp_path, 0, 0, 0, 0, 0)).train_on(tmp_path / "annotations.jsonl")
    assert cards.keys() == {"after", "control"}
    assert cards["after"][0] != cards["control"][0]
    assert all(f"loop-{name}" in text for name, (_, text) in cards.items())


def row(number: int) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"Question {number}?"}], "chosen": f"good {number}",
        "rejected": f"bad {number}", "rating": number % 4, "chosen_safe": True, "rejected_safe": number % 2 == 0,
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 41])
def test_the_control_has_half_of_the_choices_turned_round(count: int) -> None:
    rows = [row(number) for number in range(count)]
    control = shuffled(rows, seed=5)
    turned = [one != other for one, other in zip(rows, control, strict=True)]
    assert sum(turned) == count // 2
    assert all(other in (one, exchanged(one)) for one, other in zip(rows, control, strict=True))
    assert shuffled(rows, seed=5) == control
    assert count < 41 or shuffled(rows, seed=6) != control


def test_labels_go_with_the_answer_that_they_are_of() -> None:
    turned = exchanged(row(1))
    assert (turned["chosen"], turned["chosen_safe"]) == ("bad 1", False)
    assert (turned["rejected"], turned["rejected_safe"]) == ("good 1", True)
    assert exchanged(turned) == row(1)


def test_the_first_models_comparisons_are_what_rm_train_reads() -> None:
    for one in islice(first.comparisons(0), 30):
        (lesson,) = lessons_of(one.row(), "helpfulness", "small")
        assert lesson.comparison
        assert (lesson.comparison.better[0].text, lesson.comparison.worse[0].text) == (one.chosen, one.rejected)


def results() -> Results:
    def model(share: float) -> Measured:
        wrong = [float(number < 200 * share) for number in range(200)]
        return Measured(wrong, [0.0] * 200, [0.4] * 200, [0.0] * 200)

    shares = {"before": 0.3, "after": 0.1, "control": 0.35}
    models = {name: model(share) for name, share in shares.items()}
    return Results(Work(600, 410, 88, 3), models, 12_000, 900, 597, 3e-4, 0)


def test_the_page_keeps_what_stands_before_its_figures(tmp_path: Path) -> None:
    (tmp_path / "loop.md").write_text(f"# The loop\n\nServe.\n\n{HEADING}\n\nOld.\n", encoding="utf-8")
    text = publish(results(), tmp_path)
    page = (tmp_path / "loop.md").read_text(encoding="utf-8")
    assert page == f"# The loop\n\nServe.\n\n{text}"
    assert "| after: people's choices | 10.0 % (" in page
    assert "-20.0 (" in page
    assert "of the policy `random`, 1,010 pairs." in re.sub(r"\s+", " ", page)
    assert (tmp_path / "loop.png").stat().st_size > 10_000
    figures = json.loads((tmp_path / "loop.json").read_text(encoding="utf-8"))
    assert figures["models"]["control"]["wrong"]["value"] == pytest.approx(0.35)
    assert figures["random_choice_wrong"] == pytest.approx(0.4)


def test_equal_figures_give_the_same_page(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "other"):
        publish(dataclasses.replace(results()), tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        digests.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
    assert len(digests) == 1
