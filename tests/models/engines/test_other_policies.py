"""Policies of other architectures than Llama's, tiny and random: served as transformers computes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models.byte_level import Shipped, loaded, ship
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import inspect_policy
from winnow.models.engines.environment import prepare
from winnow.models.sampling import Sampling
from winnow.models.types import Message

pytestmark = pytest.mark.engine
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "head_dim": 32}
FAMILIES = {
    "qwen3": ("Qwen", {**SIZES, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "gpt2": ("ChatML", {"n_embd": 64, "n_layer": 2, "n_head": 2}),
    "gemma2": ("Gemma's format", {**SIZES, "num_key_value_heads": 1, "query_pre_attn_scalar": 32}),
}
CONTEXT = 128


def checkpoint(kind: str, folder: Path) -> Shipped:
    """Write a random model of one kind, with generation_config.json naming an id that is not special as an end, too."""
    family, sizes = FAMILIES[kind]
    own = loaded(ship(family, folder))
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=512, max_position_embeddings=CONTEXT, initializer_range=0.2, bos_token_id=0,
        eos_token_id=own.ours.eos_id, **sizes,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [own.ours.eos_id, end(own)]}))
    return own


def end(own: Shipped) -> int:
    """The id of a token that is text, and ends an answer."""
    return own.ours.encode("!")[0]


@pytest.mark.parametrize("kind", FAMILIES)
async def test_an_answer_is_transformers_own_and_ends_at_every_end_id(kind: str, tmp_path: Path) -> None:
    own = checkpoint(kind, tmp_path)
    inspect_policy(str(tmp_path))
    prepare(offline=True, compiled=False)
    from winnow.models.engines.vllm import start_policy

    options = EngineOptions("policy", str(tmp_path), "float32", CONTEXT, 2**26, None, 4, "eager", "auto", False, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own deprecations
        policy = start_policy(options, own.ours)
    try:
        prompt = own.template.render([Message("user", "Hi")], own.ours)
        answer = await policy.sample(prompt, Sampling(max_tokens=12, temperature=0, ignore_eos=True, alternatives=0), 0)
        assert answer.logprobs
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        sampled = [token.token_id for token in answer.logprobs]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt.token_ids, *sampled]])).logits.log_softmax(-1)[0, len(prompt) - 1 :]
        for place, token in enumerate(answer.logprobs):
            assert token.logprob == pytest.approx(float(logits[place, token.token_id]), abs=2e-3)
            assert token.logprob == pytest.approx(float(logits[place].max()), abs=2e-3), "the likeliest token"
        ended = await policy.sample(prompt, Sampling(max_tokens=12, logit_bias={end(own): 100.0}, alternatives=0), 0)
        assert (ended.text, ended.finish_reason, ended.tokens, ended.logprobs) == ("", "stop", 1, ())
    finally:
        policy.shutdown()
