from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from tests.fakes import ScriptedRewardModel
from tests.live import scripted
from tests.models.engines import tiny_encoders
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import EngineOptions, RewardInput
from winnow.models.engines.registry import KINDS
from winnow.models.engines.transformers import Precision, ReferenceRewardModel
from winnow.models.errors import CandidateFailed
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Prompt
from winnow.server.cli import check
from winnow.server.cli.check import ANSWERS, against_references, example_prompts, score_served
from winnow.server.cli.comparison import (
    FULL_PRECISION_SHARE,
    LOW_PRECISION_SHARE,
    Comparison,
    Reference,
    Scores,
    Served,
)
from winnow.server.cli.main import app
from winnow.server.reward_models import inspect_reward_models, scorings
from winnow.server.service import Service
from winnow.server.settings import Settings

COUNT = 48 * len(ANSWERS)


class StandIn(ScriptedRewardModel):
    """A reward model as if served: transformers in `dtype`, its logits `changed` by a fault."""

    def __init__(
        self,
        checkpoint: str,
        reward_input: RewardInput,
        dtype: Precision = "float32",
        changed: Callable[[float], float] = float,
    ) -> None:
        super().__init__(dtype=dtype)
        self._reference = ReferenceRewardModel(checkpoint, reward_input, dtype)
        self._changed = changed

    async def score(self, prompt: Prompt, answer: str) -> float:
        return self._changed(await self._reference.score(prompt, answer))


async def compare(service: Service, reference_dtype: Precision = "float32") -> list[Comparison]:
    return await against_references(service, await score_served(service), reference_dtype)


def standing_in(tokenizer: Tokenizer, dtype: Precision, changed: Callable[[float], float] = float) -> Service:
    """A service whose reward models are stand-ins; of the safety model the logits are `changed`."""
    service = scripted(tokenizer)
    safety, helpfulness = service.settings.safety, service.settings.helpfulness
    reader = RewardInput(tokenizer, Llama2Template())
    return with_settings(
        dataclasses.replace(
            service,
            safety=StandIn(safety.checkpoint, reader, dtype, changed),
            helpfulness=StandIn(helpfulness.checkpoint, reader, dtype),
        ),
        service.settings,
    )


def with_settings(service: Service, settings: Settings) -> Service:
    """The service with other settings, and the reward models that they name."""
    found = scorings(settings, inspect_reward_models(settings), service.tokenizer, service.template)
    return dataclasses.replace(service, settings=settings, scorings=found)


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "QUESTIONS", check.QUESTIONS[::4])
    monkeypatch.setattr(check, "SYSTEM_PROMPTS", (None,))


class Open(RewardInput):
    """Lacks the closing EOS."""

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        return super().token_ids(prompt, answer)[:-1]


class Plain(RewardInput):
    """Another template: none."""

    def token_ids(self, prompt: Prompt, answer: str) -> list[int]:
        text = self.tokenizer.encode(f"{prompt.messages[-1].content} {answer}")
        return [self.tokenizer.bos_id, *text, self.tokenizer.eos_id]


def reference(name: demo.ModelName, reward_input: RewardInput, dtype: Precision = "float32") -> ReferenceRewardModel:
    return ReferenceRewardModel(str(demo.weights(name)), reward_input, dtype)


def scored(model: ReferenceRewardModel, reward_input: RewardInput) -> Scores:
    prompts = example_prompts(reward_input.template, reward_input.tokenizer)
    return [[model._logit(model._input.token_ids(prompt, answer)) for answer in ANSWERS] for prompt in prompts]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on busy cores are ten times slower
    yield
    torch.set_num_threads(threads)


MODELS: tuple[demo.ModelName, ...] = ("safety-rm", "helpfulness-rm")
Faithful = dict[demo.ModelName, tuple[Scores, Scores]]


@pytest.fixture(scope="module")
def reward_input(tokenizer: Tokenizer, template: Llama2Template) -> RewardInput:
    return RewardInput(tokenizer, template)


@pytest.fixture(scope="module")
def faithful(reward_input: RewardInput) -> Faithful:
    """The example scores of both demo models in float32 and in bfloat16."""
    precisions: tuple[Precision, Precision] = ("float32", "bfloat16")
    return {
        name: tuple(scored(reference(name, reward_input, dtype), reward_input) for dtype in precisions)  # type: ignore[misc]
        for name in MODELS
    }


def judged(served: Scores, full: Scores) -> Comparison:
    """The verdict on scores that claim bfloat16, the wider tolerance."""
    return Comparison(Served("safety", "bfloat16", served, served, served), Reference("float32", "cpu", full))


@pytest.mark.parametrize("name", MODELS)
def test_rounding_to_bfloat16_passes_with_room(faithful: Faithful, name: demo.ModelName) -> None:
    full, rounded = faithful[name]
    compared = judged(rounded, full)
    assert compared.passes
    assert 0 < compared.largest_difference < compared.tolerance / 2
    strict = Comparison(Served("safety", "float32", rounded, rounded, rounded), Reference("float32", "cpu", full))
    assert strict.tolerance == pytest.approx(compared.tolerance * FULL_PRECISION_SHARE / LOW_PRECISION_SHARE)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "fault",
    [
        lambda logit: 1 / (1 + math.exp(-logit)),
        lambda logit: -logit,
        lambda logit: logit + 0.5,
        lambda logit: 1.2 * logit,
        lambda logit: 0.0,
    ],
    ids=["second sigmoid", "sign", "bias", "scale", "no head"],
)
def test_a_fault_of_the_logits_fails_in_any_precision(
    faithful: Faithful, name: demo.ModelName, fault: Callable[[float], float]
) -> None:
    full, rounded = faithful[name]
    assert judged([list(map(fault, row)) for row in rounded], full).differs


@pytest.mark.parametrize("broken", [Open, Plain])
def test_a_fault_of_the_tokens_fails_in_any_precision(
    faithful: Faithful, reward_input: RewardInput, broken: type[RewardInput]
) -> None:
    """By the helpfulness model: what is unsafe is visible in its words, so the safety model hardly reads the rest."""
    faulty = reference("helpfulness-rm", broken(reward_input.tokenizer, reward_input.template))
    compared = judged(scored(faulty, reward_input), faithful["helpfulness-rm"][0])
    assert compared.largest_difference > 2 * compared.tolerance


@pytest.mark.parametrize("name", MODELS)
def test_an_untrained_head_fails_in_any_precision(
    faithful: Faithful, reward_input: RewardInput, name: demo.ModelName
) -> None:
    faulty = reference(name, reward_input)
    torch.nn.init.normal_(faulty._model.score.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    compared = judged(scored(faulty, reward_input), faithful[name][0])
    assert compared.largest_difference > 2 * compared.tolerance


@pytest.mark.usefixtures("few_prompts")
@pytest.mark.parametrize(
    ("served", "computed"), [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "float16")]
)
async def test_models_served_as_they_are_pass(tokenizer: Tokenizer, served: Precision, computed: Precision) -> None:
    comparisons = await compare(standing_in(tokenizer, served), computed)
    assert [each.served.name for each in comparisons] == ["safety", "helpfulness"]
    assert all(each.passes for each in comparisons)
    assert {(each.served.dtype, each.reference.dtype, each.reference.device) for each in comparisons} == {
        (served, computed, "cpu")
    }


@pytest.mark.usefixtures("few_prompts")
async def test_a_faulty_model_fails_alone(tokenizer: Tokenizer) -> None:
    safety, helpfulness = await compare(standing_in(tokenizer, "bfloat16", lambda logit: logit + 1.0))
    assert (safety.differs, safety.served.failure) == (True, None)
    assert helpfulness.passes


@pytest.mark.usefixtures("few_prompts")
@pytest.mark.parametrize("canary", [True, False])
async def test_a_wrong_sign_in_the_settings_fails_the_sanity_check(tokenizer: Tokenizer, canary: bool) -> None:
    """The served scores equal the checkpoint's, because both have the wrong sign; the table once said ok."""
    service = standing_in(tokenizer, "float32")
    settings = Settings(safety={"scale": -1.0}, canary=canary)  # type: ignore[arg-type]
    safety, helpfulness = await compare(with_settings(service, settings))
    assert (safety.differs, safety.passes, helpfulness.passes) == (False, not canary, True)
    assert safety.served.failure is None if not canary else "sanity check" in (safety.served.failure or "")


@pytest.mark.usefixtures("few_prompts")
async def test_a_checkpoint_whose_head_is_zero_is_reported(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "zero"
    shutil.copytree(demo.weights("safety-rm"), folder)
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "score.weight": 0 * weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    settings = Settings(safety={"checkpoint": str(folder), "bias": 3.0}, canary=False)  # type: ignore[arg-type]
    service = standing_in(tokenizer, "float32", lambda logit: 0.0)
    safety, helpfulness = await compare(with_settings(service, settings))
    assert (safety.is_constant, safety.differs, safety.passes) == (True, False, False)
    assert helpfulness.passes


@pytest.mark.parametrize(("on_gpu", "device"), [(True, "cuda"), (False, "cpu")])
async def test_one_reference_at_a_time_is_loaded_where_the_engines_ran(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, device: str
) -> None:
    events: list[object] = []

    class Loaded(ScriptedRewardModel):
        def __init__(self, checkpoint: str, reward_input: object, dtype: str, device: str, head: object) -> None:
            super().__init__()
            events.append((Path(checkpoint).name, dtype, device))

        def close(self) -> None:
            events.append("freed")

    monkeypatch.setattr("winnow.models.engines.transformers.ReferenceRewardModel", Loaded)
    monkeypatch.setattr(check, "runs_on_gpu", lambda: on_gpu)
    service = with_settings(scripted(tokenizer), Settings())
    comparisons = await against_references(service, await score_served(service), "float16")
    assert events == [("safety-rm", "float16", device), "freed", ("helpfulness-rm", "float16", device), "freed"]
    assert {comparison.reference.device for comparison in comparisons} == {device}


@pytest.mark.usefixtures("few_prompts")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_an_encoder_is_compared_with_its_plain_pass(
    tokenizer: Tokenizer, tmp_path: Path, dtype: Precision
) -> None:
    folder = tiny_encoders.encoder(tmp_path / "deberta", "deberta-v2")
    settings = Settings(safety={"checkpoint": str(folder)}, canary=False)  # type: ignore[arg-type]
    service = with_settings(standing_in(tokenizer, "float32"), settings)
    own = service.scorings["safety"]
    options = EngineOptions("safety", str(folder), dtype, None, None, None, 64, "eager", "auto", False, False)
    model = KINDS[own.scorer.kind].reward_model(options, own.scorer, own.reader)
    try:
        safety, helpfulness = await compare(dataclasses.replace(service, safety=model))
        assert safety.passes
        assert helpfulness.passes
        assert (safety.served.dtype, safety.spread > 0.1) == (dtype, True)
        model._model.classifier.bias.data += safety.spread  # type: ignore[attr-defined]
        assert (await compare(dataclasses.replace(service, safety=model)))[0].differs
    finally:
        model.shutdown()


@pytest.mark.usefixtures("few_prompts")
async def test_an_answer_without_a_score_is_an_error(tokenizer: Tokenizer) -> None:
    def fail(_: float) -> float:
        raise CandidateFailed("no score")

    with pytest.raises(CandidateFailed):
        await score_served(standing_in(tokenizer, "float32", fail))


def comparison(
    served: list[float],
    failure: str | None = None,
    reference: tuple[float, ...] = (1, 2, 3),
    mass: float | None = None,
) -> Comparison:
    return Comparison(
        Served("safety", "float32", [served], [served], [served], failure, mass),
        Reference("float32", "cpu", [list(reference)]),
    )


GOOD, BAD = comparison([1.0, 2.0, 3.0]), comparison([1.0, 2.0, 4.0])
DIFFERS = "the served scores of the safety model differ from the checkpoint's"


def run(monkeypatch: pytest.MonkeyPatch, comparisons: list[Comparison], *flags: str) -> tuple[Result, list[object]]:
    """Run the command with comparisons that are given and no engine; also return what happened, in order."""
    events: list[object] = []

    @contextlib.contextmanager
    def started(settings: object) -> Iterator[str]:
        events.append("engines started")
        yield "service"
        events.append("engines ended")

    async def score_served(service: object) -> str:
        events.append("served scored")
        return "served"

    async def against_references(service: object, served: object, dtype: object) -> list[Comparison]:
        events.append((service, served, dtype))
        return comparisons

    monkeypatch.setattr("winnow.server.service.started", started)
    monkeypatch.setattr(check, "score_served", score_served)
    monkeypatch.setattr(check, "against_references", against_references)
    log = logging.getLogger("winnow")
    level = log.level
    try:
        return CliRunner().invoke(app, ["check", *flags], env={"COLUMNS": "120"}), events
    finally:
        log.setLevel(level)  # the command sets it for its process


def test_the_command_prints_a_row_per_model_and_fails_if_one_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = run(monkeypatch, [GOOD, GOOD])
    assert done.exit_code == 0
    assert done.stdout.count(" ok ") == 2
    assert "transformers in float32 on cpu" in done.stdout
    done, _ = run(monkeypatch, [GOOD, BAD])
    assert done.exit_code == 1
    assert (done.stdout.count(" ok "), done.stdout.count("FAILED")) == (1, 1)
    assert done.stderr == f"winnow: {DIFFERS}\n"


def test_the_table_has_label_tokens_only_where_a_model_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without, _ = run(monkeypatch, [GOOD, GOOD])
    assert "labels" not in without.stdout
    labelled, _ = run(monkeypatch, [comparison([1.0, 2.0, 3.0], mass=0.987), GOOD])
    assert "labels" in labelled.stdout
    assert "98.7 %" in labelled.stdout


async def test_each_score_is_computed_whole_once_and_the_start_checks_are_told(tokenizer: Tokenizer) -> None:
    class Labelled(ScriptedRewardModel):
        async def label_mass(self, prompt: Prompt, answer: str) -> float | None:
            return 0.4 if prompt.messages[-1].content == check.QUESTIONS[0] else 0.9

    safety = Labelled()
    service = scripted(tokenizer, safety=safety)
    served, _ = await score_served(service)
    assert safety.forgotten == COUNT
    assert served.label_mass == 0.4
    assert "sanity check" in (served.failure or "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_reference_runs_in_the_chosen_precision_after_the_engines_have_ended(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Three engines fill a card: a reference beside them would not fit."""
    _, events = run(monkeypatch, [GOOD, GOOD], "--reference-dtype", dtype)
    assert events == ["engines started", "served scored", "engines ended", ("service", "served", dtype)]


def test_every_reason_is_in_the_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = comparison([1.0, 1.0, 1.0], reference=(1.0, 1.0, 1.0))
    done, _ = run(monkeypatch, [flat, BAD])
    same = "the checkpoint of the safety model gives every answer the same score"
    assert done.stderr == f"winnow: {DIFFERS}; {same}\n"
    assert done.stdout.count("FAILED") == 2
    done, _ = run(monkeypatch, [GOOD, comparison([1.0, 2.0, 3.0], reference=(1.0, 2.0, math.nan))])
    assert "the reference's scores of the safety model are not all numbers; try another" in done.stderr
    assert DIFFERS not in done.stderr
    done, _ = run(monkeypatch, [GOOD, comparison([1.0, 2.0, 3.0], failure="its sign is wrong")])
    assert done.stderr == "winnow: its sign is wrong\n"
    assert done.exit_code == 1


@pytest.mark.usefixtures("few_prompts")
async def test_each_stage_is_told_on_standard_error_only(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "winnow"):
        await compare(standing_in(tokenizer, "float32"), "bfloat16")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 8
    for name, stages in (("safety", told[:2] + told[4:6]), ("helpfulness", told[2:4] + told[6:])):
        assert all(stage.startswith(f"{name}: ") for stage in stages)
        assert "20 answers" in stages[0]
        assert stages[2].endswith("loading the reference in bfloat16 on cpu")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_help_names_the_shares_and_every_column() -> None:
    text = " ".join(CliRunner().invoke(app, ["check", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout.split())
    assert f"{FULL_PRECISION_SHARE} of the spread if both sides are in float32, else {LOW_PRECISION_SHARE}" in text
    for column in check._table([GOOD]).columns[2:]:
        assert str(column.header).lower() in text.lower()


@pytest.mark.engine
async def test_the_demo_models_pass(service: Service) -> None:
    comparisons = await compare(service)
    assert [(each.served.name, each.count) for each in comparisons] == [("safety", COUNT), ("helpfulness", COUNT)]
    assert all(each.passes for each in comparisons)
    assert all(each.served.failure is None for each in comparisons)
