"""Classifiers made from checkpoints: their heads, padding and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.models.engines import tiny
from tests.models.training.preferences import TINY, policy
from winnow.models import demo
from winnow.models.errors import CheckpointError
from winnow.models.training.classifier import choose_pad, head_of, load, load_tokenizer, save, score

SEQUENCES = [[0, *range(100, 100 + length), 1] for length in (3, 40, 1, 17, 90, 3)]


def test_a_new_head_is_small_and_its_seed_decides_it(tmp_path: Path) -> None:
    init = policy(tmp_path, hidden_size=256)
    state = torch.random.get_rng_state()
    first, again, other = (head_of(load(init, seed))[1].weight.detach() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(257**-0.5, rel=0.15)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_classifier_goes_on_with_its_own_head(tmp_path: Path) -> None:
    init = tiny.checkpoint(tmp_path, "qwen3", tiny.byte_level())
    theirs = AutoModelForSequenceClassification.from_pretrained(init, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = [float(theirs(torch.tensor([ids])).logits[0, 0]) for ids in SEQUENCES]
    assert score(load(init, 5), SEQUENCES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["LlamaForScore"]}, "not from a LlamaForScore"),
        ({"architectures": ["ArmoRMForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}, "has 2 labels"),
        (
            {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a"}},
            "lacks 1 weights, score.weight",
        ),
        ({"num_hidden_layers": 3}, r"lacks 9 weights, model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"beside what its architecture uses, 9 weights, model\.layers\.1"),
    ],
)
def test_a_checkpoint_that_would_lose_weights_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    policy(tmp_path)
    tiny.edit_config(tmp_path, **change)
    with pytest.raises(CheckpointError, match=reason):
        load(tmp_path, 0)


@pytest.mark.parametrize("tokens", [None, 1, 100])
def test_a_score_does_not_depend_on_its_batch(tmp_path: Path, tokens: int | None) -> None:
    model = load(policy(tmp_path), 0)
    model.config.pad_token_id = 2
    alone = [score(model, [sequence])[0] for sequence in SEQUENCES]
    assert score(model, SEQUENCES, tokens) == pytest.approx(alone, abs=1e-5)
    assert score(model, []) == []


@pytest.mark.parametrize("bad", [[], [5, 2]])
def test_a_sequence_whose_score_would_be_read_elsewhere_is_refused(tmp_path: Path, bad: list[int]) -> None:
    model = load(policy(tmp_path), 0)
    model.config.pad_token_id = 2
    with pytest.raises(ValueError, match="padding token"):
        score(model, [[5, 6], bad])


def pad_of(init: Path, ends: set[int], **names: str | None) -> str:
    tokenizer = load_tokenizer(init)
    for name, value in names.items():
        setattr(tokenizer, name, value)
    return str(tokenizer.convert_ids_to_tokens(choose_pad(load(init, 0), tokenizer, frozenset(ends))))


def test_padding_is_a_control_token_that_ends_no_answer(tmp_path: Path) -> None:
    init = policy(tmp_path)
    assert pad_of(init, {1}) == "<|pad|>"
    assert pad_of(init, {1, 2}) == "<|bos|>"  # a template that ends in the pad token: any other control token
    tiny.edit_config(init, pad_token_id=None)
    assert pad_of(init, {1}) == "<|pad|>"
    tiny.edit_config(init, pad_token_id=1)  # as TRL leaves it where the tokenizer has none
    assert pad_of(init, {5}, pad_token="<|eos|>") == "<|pad|>"
    assert pad_of(demo.weights("policy"), {2}, pad_token=None) == "<unk>"
    with pytest.raises(CheckpointError, match="no control token to pad with"):
        pad_of(init, set(range(500)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_saved_classifier_scores_for_transformers_as_here(tmp_path: Path, dtype: str) -> None:
    init, out = policy(tmp_path / "init"), tmp_path / "out"
    tiny.edit_config(init, pad_token_id=None)
    settings = json.loads((init / "tokenizer_config.json").read_text()) | {"pad_token": "<|eos|>"}
    (init / "tokenizer_config.json").write_text(json.dumps(settings))
    model = load(init, 0)
    model.config.pad_token_id = 2
    save(model, init, out, dtype)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|eos|>")
    assert (out / "tokenizer.json").read_bytes() == (init / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").read_bytes() == (init / "chat_template.jinja").read_bytes()
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
    config = json.loads((out / "config.json").read_text())
    assert (config["dtype"], config["use_cache"], config["pad_token_id"]) == (dtype, True, 2)
    assert str(tmp_path) not in json.dumps(config)
    theirs = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    batch = tokenizer.pad({"input_ids": SEQUENCES}, return_tensors="pt", padding_side="right")
    with torch.inference_mode():
        assert theirs(**batch).logits[:, 0].tolist() == pytest.approx(score(model, SEQUENCES), abs=1e-5)


def test_a_config_needs_an_architecture(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "llama", tiny.byte_level(), causal=True, **TINY)
    tiny.edit_config(tmp_path, architectures=None)
    with pytest.raises(CheckpointError, match="without an architecture"):
        load(tmp_path, 0)
