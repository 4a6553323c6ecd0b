"""Kinds of heads: found among the tensors or refused, sent to an engine's process, and made into a score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.engines import tiny
from winnow.models.cards import Card
from winnow.models.engines.checkpoint import load_plain_tokenizer
from winnow.models.engines.heads import GatedHead, LabelHead, LinearHead, Loaded, head_of
from winnow.models.engines.reward_text import CardInput, resolved
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import CandidateFailed, CheckpointError
from winnow.models.types import Message, Prompt

HEADS = (
    LinearHead("score_head.weight", bias="score_head.bias", architecture="LlamaForCausalLM"),
    LabelHead("lm_head.weight", rows=(3, 5), cap=30.0),
    GatedHead(objectives=5, quantiles=3, hidden=2, temperature=3.0, pattern=(7, 8)),
)


@pytest.fixture(scope="module")
def armorm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gated(tmp_path_factory.mktemp("built") / "ArmoRM-Llama3-8B-v0.1", tiny.llama3())


@pytest.fixture
def folder(armorm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(armorm, tmp_path / armorm.name))


@pytest.mark.parametrize("head", HEADS)
def test_a_head_reaches_another_process_as_it_is(head: LinearHead | LabelHead | GatedHead) -> None:
    assert head_of(json.loads(json.dumps(head.as_dict()))) == head


@pytest.mark.parametrize("head", HEADS)
def test_another_number_of_outputs_fails_the_candidate(head: LinearHead | LabelHead | GatedHead) -> None:
    with pytest.raises(CandidateFailed, match="the engine returned 4 scores instead of"):
        head.score([0.0] * 4, [0.0] * 4)
    with pytest.raises(CandidateFailed, match="the engine returned 0 scores"):
        head.score([])


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        inspect_scorer(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


Change = Callable[[Path], None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda at: tiny.edit_tensors(at, {"gating.layers.1.weight": ""}), "no tensor gating.layers.1.weight"),
        (lambda at: tiny.edit_tensors(at, {"gating.logit_scale": ""}), "no tensor gating.logit_scale"),
        (lambda at: tiny.edit_tensors(at, {"reward_transform_matrix": ""}), "no tensor reward_transform_matrix"),
        (lambda at: tiny.edit_tensors(at, {"regression_layer.weight": "score.weight"}), "no tensor regression_layer"),
        (lambda at: tiny.edit_config(at, num_objectives=4), "regression_layer.weight is [5, 64]"),
        (lambda at: tiny.edit_config(at, num_quantiles=2), "its config asks for [10, 64]"),
        (lambda at: tiny.edit_config(at, gating_hidden_dim=25), "gating.layers.0.weight is [24, 64]"),
        (lambda at: tiny.edit_config(at, gating_n_hidden=1), "it has gating.layers.2."),
        (lambda at: tiny.edit_config(at, gating_n_hidden=3), "gating.layers.2.weight is [5, 24], but its config asks"),
        (lambda at: tiny.edit_config(at, gating_temperature=0), "gating_temperature is 0, not above 0"),
        (lambda at: tiny.edit_config(at, num_objectives="five"), "num_objectives is 'five', not a number"),
        (
            lambda at: tiny.edit_tensors(at, gating__layers__3__running_mean=torch.ones(24)),
            "it has gating.layers.3.running_mean, which a gate of 3 linear layers has not",
        ),
        (lambda at: tiny.edit_tensors(at, score__weight=torch.ones(1, 64)), "it has score.weight, which is neither"),
        (
            lambda at: tiny.edit_config(at, architectures=["LlamaForSequenceClassification"]),
            'its score is a gated sum, which a card with adapter = "gated" reads',
        ),
        (lambda at: (at / "winnow-card.toml").write_text('adapter = "gated"\nhead = "score"\n'), "names a head"),
    ],
)
def test_a_gated_checkpoint_that_is_not_understood_is_refused(folder: Path, change: Change, reason: str) -> None:
    change(folder)
    assert reason in refusal(folder)


def test_a_gated_model_as_a_classifier_with_a_random_head_is_refused(folder: Path) -> None:
    """As transformers saves it when it is loaded as a plain classifier: with, or without, what is left of the gate."""
    tiny.edit_tensors(folder, score__weight=torch.ones(1, 64))
    tiny.edit_config(folder, architectures=["LlamaForSequenceClassification"])
    assert "its score is a gated sum" in refusal(folder)


def test_urm_is_refused_in_a_line_that_says_why(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "URM-LLaMa-3.1-8B", "llama", tiny.byte_level(), num_labels=10)
    tiny.edit_tensors(folder, weights__0__weight=torch.ones(10, 64))
    assert "weights.0.weight, a gating head as URM's, whose form is not known" in refusal(folder)


def test_a_gated_checkpoint_needs_no_card(folder: Path) -> None:
    renamed = folder.rename(folder.with_name("mine"))
    assert inspect_scorer(str(renamed)).is_derived
    found = inspect_scorer(str(renamed))
    assert (found.card.adapter, found.head.architecture) == ("gated", "LlamaForCausalLM")
    assert isinstance(found.head, GatedHead)
    assert (found.head.objectives, found.head.quantiles, found.head.hidden, found.head.temperature) == (5, 1, 2, 3)


def test_an_internlm2_is_read_at_the_reward_token_that_its_config_names(tmp_path: Path) -> None:
    """Once: not behind one that the template writes."""
    for template, name in ((tiny.LLAMA3, "internlm2-7b-reward"), (tiny.LLAMA3 + "<|end|>", "other")):
        tokenizer = tiny.byte_level(template)
        scorer = inspect_scorer(str(tiny.internlm2(tmp_path / name, tokenizer)))
        reader = CardInput(scorer.card, load_plain_tokenizer(str(tmp_path / name), "reward model"), scorer.pad_id)
        ids = reader.token_ids(Prompt((), (Message("user", "Hi <|end|>"),)), "Hello")
        assert tokenizer.decode(ids[-2:]) == "<|eot|><|end|>"
        assert (scorer.head.architecture, scorer.card.read_at) == ("InternLM2ForCausalLM", "last")


def test_an_internlm2_with_biases_is_refused(tmp_path: Path) -> None:
    folder = tiny.internlm2(tmp_path / "internlm2-7b-reward", tiny.byte_level())
    tiny.edit_tensors(folder, model__layers__0__attention__wqkv__bias=torch.ones(256))
    assert "an InternLM2 with biases" in refusal(folder)


ids = st.lists(st.integers(0, 3), max_size=30)


@given(before=ids, after=ids)
def test_the_gate_is_read_at_the_first_token_of_the_last_pattern(before: list[int], after: list[int]) -> None:
    head = GatedHead(pattern=(8, 9, 9))
    conversation = [*before, 8, 9, 9, *before, 8, 9, 9, *after]
    assert head.shared_ids(conversation) == (*before, 8, 9, 9, *before, 8)
    with pytest.raises(CandidateFailed, match="no place for the reward model's gate"):
        head.shared_ids([*before, 8, 9, *after])


def test_all_answers_to_a_prompt_share_its_gate(armorm: Path) -> None:
    scorer = inspect_scorer(str(armorm))
    reader = CardInput(scorer.card, load_plain_tokenizer(str(armorm), "reward model"))
    head = resolved(scorer.head, scorer.card, reader)
    pattern = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    asked = Prompt((), (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", f"Why {pattern} not?")))
    shared = {
        head.shared_ids(reader.token_ids(asked, answer))
        for answer in ("Paris.", "", "\n\nNo", pattern, f"a {pattern} b", "<|eot_id|>")
    }
    assert len(shared) == 1
    (ids,) = shared
    assert ids is not None
    text = load_plain_tokenizer(str(armorm), "reward model").decode(ids)
    assert text.endswith("not?<|eot_id|>")


@given(st.data())
@torch.inference_mode()
def test_the_engines_forward_pass_and_the_authors_agree(data: st.DataObject) -> None:
    """The one folds quantiles and matrix into one layer, in float64; the other computes them in turn, in float32."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    quantiles, hidden = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 3))
    head = GatedHead(objectives=5, quantiles=quantiles, hidden=hidden, temperature=10, pattern=(1, 2))
    sizes = [16, *[12] * hidden, 5]
    tensors = {"regression_layer.weight": torch.randn(5 * quantiles, 16), "reward_transform_matrix": torch.randn(5, 5)}
    tensors["gating.logit_scale"] = torch.rand(1)
    for layer in range(hidden + 1):
        tensors[f"gating.layers.{layer}.weight"] = torch.randn(sizes[layer + 1], sizes[layer])
        tensors[f"gating.layers.{layer}.bias"] = torch.randn(sizes[layer + 1])
    vectors = torch.randn(6, 16)
    rows = head.forward(Loaded(tensors, lambda: torch.empty(0)))(vectors).tolist()
    expected = head.reference(tensors, vectors, [0, 1, 2, 1, 2, 5])
    assert head.score(rows[-1], rows[3]) == pytest.approx(expected, abs=1e-4)
    assert set(tensors) == set(head.tensors)


def test_an_unknown_token_of_the_gate_is_refused() -> None:
    reader = CardInput(Card(name="x", template=tiny.LLAMA3), tiny.byte_level())
    with pytest.raises(CheckpointError, match=r"no token '<\|eot_id\|>'"):
        resolved(GatedHead(), Card(name="x", adapter="gated"), reader)


def test_a_template_without_a_place_for_the_gate_is_refused_at_the_start() -> None:
    """Every candidate would fail, after it was sampled."""
    card = Card(name="x", adapter="gated", gate=("<|eot|>", "<|start|>", "<|eot|>"))
    with pytest.raises(CheckpointError, match=r"no place for the reward model's gate.*; change the card's gate"):
        resolved(GatedHead(), card, CardInput(card, tiny.byte_level()))
