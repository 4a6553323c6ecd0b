"""Training of reward models with TRL, on tiny models and preferences whose truth is known."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tests.models.engines import tiny
from tests.models.training.preferences import comparisons, policy, sigmoid, true_score
from winnow.models.errors import CheckpointError, RunError
from winnow.models.statistics import wilson_interval
from winnow.models.training import reward_trainer
from winnow.models.training.classifier import load
from winnow.models.training.examples import Example, Recipe
from winnow.models.training.reward_trainer import Progress, save, score, train

SHORT = Recipe(batch=8, micro_batch=4, learning_rate=1e-2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two that wait for each other on busy cores are ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy(tmp_path_factory.mktemp("init"))


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def mixed() -> list[Example]:
    """Pairs with and without margins and labels, and labelled answers alone: 12 examples."""
    pairs = comparisons(9)
    pairs[1] = dataclasses.replace(pairs[1], margin=1.0)
    pairs[2] = dataclasses.replace(pairs[2], chosen_label=None, rejected_label=None)
    return [
        *pairs,
        *(Example(example.chosen, None, chosen_label=bool(place)) for place, example in enumerate(pairs[:3])),
    ]


def expected_loss(examples: list[Example], logit: dict[tuple[int, ...], float], recipe: Recipe) -> float:
    """The loss of one step, written without tensors."""

    def log_sigmoid(value: float) -> float:
        return -math.log1p(math.exp(-value))

    def smoothed(value: float) -> float:
        wrong = recipe.label_smoothing
        return -(1 - wrong) * log_sigmoid(value) - wrong * log_sigmoid(-value)

    ranking, labelling = [], []
    for example in examples:
        if example.rejected is not None:
            chosen, rejected = logit[example.chosen], logit[example.rejected]
            ranking.append(smoothed(chosen - rejected - example.margin) + recipe.centre * (chosen + rejected) ** 2)
        answers = ((example.chosen, example.chosen_label), (example.rejected, example.rejected_label))
        for ids, label in answers:
            if ids is not None and label is not None:
                labelling.append(smoothed(logit[ids] if label else -logit[ids]))
    return sum(ranking) / len(ranking) + recipe.auxiliary * sum(labelling) / len(labelling)


def test_a_step_minimises_the_mean_loss_of_its_pairs_and_labels_however_it_is_cut(init: Path, tmp_path: Path) -> None:
    """Labels and pairs are not as frequent in each micro-batch: a mean of means would weigh them wrongly."""
    recipe = Recipe(batch=12, learning_rate=1e-3, auxiliary=0.5, label_smoothing=0.1, centre=0.01)
    examples = mixed()
    model = load(init, 0)
    model.config.pad_token_id = 2
    answers = list({ids for example in examples for ids in (example.chosen, example.rejected) if ids})
    loss = expected_loss(examples, dict(zip(answers, score(model, answers), strict=True)), recipe)
    found = []
    for size in (1, 4, 12):
        seen: list[Progress] = []
        cut = dataclasses.replace(recipe, micro_batch=size)
        found.append(weights(train(init, examples, cut, tmp_path / str(size), seen.append)))
        assert [(progress.step, progress.steps) for progress in seen] == [(1, 1)]
        assert seen[0].loss == pytest.approx(loss, abs=1e-5)
        assert seen[0].epoch == 1
    before = weights(model)
    for name, tensor in found[0].items():
        assert all(torch.allclose(tensor, other[name], atol=1e-5) for other in found[1:]), name
        assert not torch.equal(tensor, before[name]) or "embed" in name, name  # the one step has a rate above 0


def test_labels_alone_train_without_a_comparison(init: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    examples = [Example(pair.chosen, None, chosen_label=pair.chosen_label) for pair in comparisons(16)]
    train(init, examples, SHORT, tmp_path, seen.append)
    assert [math.isnan(progress.accuracy) for progress in seen] == [True, True]
    assert all(math.isfinite(progress.loss) for progress in seen)


def test_recovery_of_the_order_and_of_the_scale(init: Path, tmp_path: Path) -> None:
    """Choices drawn by Bradley and Terry's model, and noisy labels: the best possible model is known.

    On fresh pairs, the trained one decides as the better one would as often as the true scores do, and its logit is
    the log-odds of the labels.
    """
    recipe = Recipe(epochs=3, batch=32, micro_batch=32, learning_rate=6e-3, weight_decay=0.0)
    seen: list[Progress] = []
    model = train(init, comparisons(2_000), recipe, tmp_path, seen.append)
    fresh = comparisons(1_000, seed=1)
    chosen, rejected = score(model, [e.chosen for e in fresh]), score(model, [e.rejected or () for e in fresh])
    reached = wilson_interval(sum(a > b for a, b in zip(chosen, rejected, strict=True)), len(fresh))
    gaps = [abs(true_score(e.chosen) - true_score(e.rejected or ())) for e in fresh]
    best = sum(sigmoid(gap) for gap in gaps) / len(gaps)
    assert reached.low <= best <= reached.high
    assert 0.75 < best < 0.95
    truth = torch.tensor([true_score(e.chosen) for e in fresh])
    slope, intercept = torch.linalg.lstsq(torch.stack([truth, torch.ones(1_000)], 1), torch.tensor(chosen)).solution
    assert 0.75 < float(slope) < 1.25
    assert abs(float(intercept)) < 0.3
    assert seen[-1].accuracy == pytest.approx(best, abs=0.08)
    assert (seen[-1].step, seen[-1].seconds_left, seen[-1].epoch) == (189, 0, 3)
    assert seen[-1].pairs_per_second > 0


def test_margins_widen_the_gap(init: Path, tmp_path: Path) -> None:
    pairs = [Example(pair.chosen, pair.rejected) for pair in comparisons(64)]
    gaps = []
    for margin in (0.0, 3.0):
        examples = [dataclasses.replace(pair, margin=margin) for pair in pairs]
        model = train(init, examples, dataclasses.replace(SHORT, epochs=4), tmp_path / str(margin))
        chosen, rejected = score(model, [e.chosen for e in pairs]), score(model, [e.rejected or () for e in pairs])
        gaps.append(sum(chosen) - sum(rejected))
    assert gaps[1] > gaps[0]


@pytest.mark.parametrize("fields", [{}, {"lora_rank": 2}])
def test_a_training_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path, fields: dict[str, Any]) -> None:
    policy(tmp_path / "init")
    program = [sys.executable, "-W", "error", "-m", "tests.models.training.killed", str(tmp_path), json.dumps(fields)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 2
    assert result["cut"]["weights"] == result["whole"]["weights"]
    assert len(result["whole"]["steps"]) == 15
    assert len(result["cut"]["steps"]) < 15
    kept = {place.name for place in (tmp_path / "cut").iterdir()} - {"partial", "old"}
    assert kept == {"checkpoint-14", "checkpoint-15", "run.json"}


def test_a_finished_training_is_not_done_again_and_a_work_folder_has_one_owner(init: Path, tmp_path: Path) -> None:
    work, examples = tmp_path / "work", comparisons(16)
    first = weights(train(init, examples, SHORT, work))
    seen: list[Progress] = []
    again = weights(train(init, examples, dataclasses.replace(SHORT, save_seconds=1), work, seen.append))
    assert not seen
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(RunError, match=r"another: recipe\)"):
        train(init, examples, dataclasses.replace(SHORT, seed=1), work)
    with pytest.raises(RunError, match=r"another: examples\)"):
        train(init, [*examples[1:], examples[0]], SHORT, work)
    with pytest.raises(RunError, match="another: checkpoint, examples"):
        train(policy(tmp_path / "other", seed=1), comparisons(15), SHORT, work)
    (work / "run.json").unlink()
    with pytest.raises(RunError, match=r"no run\.json"):
        train(init, examples, SHORT, work)


@pytest.mark.parametrize("fields", [{}, {"lora_rank": 4}, {"upper_layers": 1}, {"dtype": "bfloat16"}])
def test_the_saved_model_is_the_trained_one_and_nothing_of_training_is_in_its_files(
    init: Path,
    tmp_path: Path,
    fields: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numerical: after adapters are merged, transformers reads the trainer's score from the folder."""

    def no_request(*_: Any, **__: Any) -> None:
        raise AssertionError("training makes no outbound request")

    monkeypatch.delenv("CI", raising=False)  # TRL reports each training to its makers, but not from CI
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", no_request)
    monkeypatch.setattr("socket.socket.connect", no_request)
    capfd.readouterr()
    examples, before = comparisons(16), weights(load(init, 0))
    model = train(init, examples, dataclasses.replace(SHORT, **fields), tmp_path / "work")
    assert not model.training
    assert type(model) is type(load(init, 0))
    save(model, init, tmp_path / "out", "float32")
    assert capfd.readouterr() == ("", "")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = [float(theirs(torch.tensor([e.chosen])).logits[0, 0]) for e in examples]
    assert score(model, [e.chosen for e in examples]) == pytest.approx(expected, abs=1e-5)
    config, old = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", init))
    new = {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    assert config == {**old, **new}
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    frozen = {name for name in after if "layers.0." in name or "embed" in name}
    adapted = {name for name in after if "proj" in name or name == "score.weight"}
    assert changed == (
        adapted if "lora_rank" in fields else after.keys() - frozen if "upper_layers" in fields else after.keys()
    )


def test_any_architecture_with_a_classifier_can_be_trained(tmp_path: Path) -> None:
    """An encoder has no cache and its head has another name; GPT-2's layers and matrices have others."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2}
    for kind, config in (("bert", {}), ("gpt2", sizes)):
        folder = tiny.checkpoint(tmp_path / kind, kind, tiny.byte_level(), causal=kind == "gpt2", **config)
        for fields in ({"lora_rank": 2}, {"upper_layers": 1}):
            recipe = dataclasses.replace(SHORT, **fields)
            train(folder, comparisons(8), recipe, tmp_path / f"{kind}-{next(iter(fields))}")


def test_ids_of_another_tokenizer_are_refused(init: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not belong together"):
        train(init, [Example((5, 10_000, 1), (5, 1))], SHORT, tmp_path)
    with pytest.raises(ValueError, match="no examples"):
        train(init, [], SHORT, tmp_path)


def test_a_training_that_diverges_ends_with_the_reason(init: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="lower learning rate"):
        train(init, comparisons(32), dataclasses.replace(SHORT, learning_rate=1e30), tmp_path)


def test_progress_stops_a_training_that_goes_on_later(init: Path, tmp_path: Path) -> None:
    """An interrupt loses what was not saved, and no more."""
    examples = comparisons(24)

    def interrupted(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    recipe = dataclasses.replace(SHORT, save_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train(init, examples, recipe, tmp_path, interrupted)
    seen: list[Progress] = []
    train(init, examples, recipe, tmp_path, seen.append)
    assert [progress.step for progress in seen] == [2, 3]


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", {"eager", "sdpa"}), ("float32", {"sdpa"})])
def test_short_sequences_in_low_precision_take_plain_attention(
    init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, expected: set[str]
) -> None:
    used: dict[int, str] = {}
    choose = reward_trainer._Trainer._choose_attention

    def watched(trainer: Any, tokens: int) -> None:
        choose(trainer, tokens)
        used[tokens] = trainer._attention.config._attn_implementation

    monkeypatch.setattr(reward_trainer._Trainer, "_choose_attention", watched)
    examples = [Example((1, *[5] * length, 2), (1, *[6] * length, 2)) for length in (8, 300)]
    model = train(init, examples, Recipe(batch=2, micro_batch=1, dtype=dtype), tmp_path)
    assert set(used.values()) == expected
    assert all(used[tokens] == "sdpa" for tokens in used if tokens > reward_trainer.PLAIN_ATTENTION_TOKENS)
    assert model.config._attn_implementation == "sdpa"
