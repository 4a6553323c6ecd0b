"""Heads of every kind as vLLM serves them, against their authors' forward passes, on tiny random checkpoints."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.models.engines import tiny
from tests.models.engines.served import ANSWERS, CLOSE, GUARDS, LONG, PROMPT
from winnow.models.engines.base import EngineOptions
from winnow.models.engines.checkpoint import load_plain_tokenizer
from winnow.models.engines.environment import prepare
from winnow.models.engines.reward_text import CardInput, resolved
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.training.examples import Example, Recipe
from winnow.models.training.reward_trainer import save, score, train
from winnow.models.types import Prompt

pytestmark = pytest.mark.engine

GUARD = 'adapter = "labels"\nlabels = ["safe", "unsafe"]\ntemplate = "tokenizer"\nend = ["ĊĊ"]\n'

Forward = Callable[[list[int]], float]


def classifier(folder: Path) -> Forward:
    """transformers' own classifier of a folder."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda ids: float(model(torch.tensor([ids])).logits[0, 0])


def qwen3(folder: Path) -> Forward:
    return classifier(tiny.checkpoint(folder, "qwen3", tiny.byte_level(bos=False)))


def trained_here(folder: Path) -> Forward:
    """A language model that Winnow trained for a step, with adapters merged: the score is the trainer's own."""
    init = tiny.checkpoint(folder.with_name("init"), "qwen3", tiny.byte_level(bos=False), causal=True)
    examples = [Example((*range(10, 10 + size), 1), (*range(200, 210 + size), 1)) for size in range(4, 12)]
    recipe = Recipe(batch=8, lora_rank=4, learning_rate=1e-2)
    model = train(init, examples, recipe, folder.with_name("work"))
    save(model, init, folder, "float32")
    return lambda ids: score(model, [ids])[0]


def pad_is_eos(folder: Path) -> Forward:
    """As TRL saves a classifier whose tokenizer had no pad token: transformers reads it at the token before EOS."""
    tokenizer = tiny.byte_level(tiny.LLAMA3 + "{{ eos_token }}")
    tiny.checkpoint(folder, "llama", tokenizer, pad_token_id=tokenizer.eos_token_id)
    (folder / "winnow-card.toml").write_text('read_at = "before_pad"\n', encoding="utf-8")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return lambda ids: float(model(torch.tensor([[*ids, tokenizer.eos_token_id]])).logits[0, 0])


def beaver(folder: Path) -> Forward:
    """safe-rlhf's score: the plain one, plus the bias."""
    plain = classifier(tiny.checkpoint(folder.with_name("plain"), "llama", tiny.byte_level(None)))
    tiny.beaver(folder, tiny.byte_level(None), bias=7.0)
    return lambda ids: plain(ids) + 7.0


def renamed(kind: str, architecture: str, head: str, bias: float | None = None) -> Callable[[Path], Forward]:
    """A classifier whose head has another name, and perhaps a bias, in an architecture that transformers has not."""

    def build(folder: Path) -> Forward:
        extra: dict[str, Any] = {"sliding_window": 24} if kind == "mistral" else {}
        plain = classifier(tiny.checkpoint(folder, kind, tiny.byte_level(None), **extra))
        added = {} if bias is None else {f"{head}__bias": torch.tensor([bias])}
        tiny.edit_tensors(folder, {"score.weight": f"{head}.weight"}, **added)
        tiny.edit_config(folder, architectures=[architecture], id2label=None, label2id=None)
        return lambda ids: plain(ids) + (bias or 0.0)

    return build


def labels(kind: str, *, is_nemotron: bool = False) -> Callable[[Path], Forward]:
    """The difference of two logits at the last token, or the logit of token 0."""

    def build(folder: Path) -> Forward:
        tokenizer = tiny.byte_level()
        tiny.checkpoint(folder, kind, tokenizer, causal=True)
        if not is_nemotron:
            (folder / "winnow-card.toml").write_text(GUARD, encoding="utf-8")
        # Gemma 2's cap on attention is left out by transformers' default.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        safe, unsafe = tokenizer.convert_tokens_to_ids(["safe", "unsafe"])

        def forward(ids: list[int]) -> float:
            logits = model(torch.tensor([ids])).logits[0, -1]
            return float(logits[0] if is_nemotron else logits[safe] - logits[unsafe])

        return forward

    return build


def gated(quantiles: int) -> Callable[[Path], Forward]:
    """ArmoRM's and QRM's score, after their authors' description, in one pass over the conversation."""

    def build(folder: Path) -> Forward:
        tokenizer = tiny.llama3()
        tiny.gated(folder, tokenizer, quantiles=quantiles)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tensors = load_file(folder / "model.safetensors")
        names = ["<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "ĊĊ"]
        pattern = tokenizer.convert_tokens_to_ids(names)

        def forward(ids: list[int]) -> float:
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
            rewards = (tensors["regression_layer.weight"] @ hidden[-1]).reshape(5, quantiles).mean(-1)
            place = max(at for at in range(len(ids)) if ids[at : at + 5] == pattern)
            x = hidden[place]
            for layer in range(3):
                x = tensors[f"gating.layers.{layer}.weight"] @ x + tensors[f"gating.layers.{layer}.bias"]
                x = x.relu() if layer < 2 else x
            gate = torch.softmax(x / 3, dim=0) * tensors["gating.logit_scale"]
            return float((gate * (rewards @ tensors["reward_transform_matrix"])).sum())

        return forward

    return build


def internlm2(folder: Path) -> Forward:
    """InternLM2's forward pass, written from its description."""
    tiny.internlm2(folder, tiny.byte_level(tiny.LLAMA3 + "\n"))
    tensors = load_file(folder / "model.safetensors")

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * tensors[name]

    def rotated(x: torch.Tensor) -> torch.Tensor:  # [tokens, heads, 32]
        angles = torch.outer(torch.arange(len(x)), 1000000 ** (-torch.arange(0, 32, 2) / 32))
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return x * angles.cos() + torch.cat([-x[..., 16:], x[..., :16]], dim=-1) * angles.sin()

    def attention(x: torch.Tensor, layer: str) -> torch.Tensor:
        qkv = (x @ tensors[f"{layer}.attention.wqkv.weight"].T).view(len(x), 2, 4, 32)
        q, k = rotated(qkv[:, :, :2].reshape(-1, 4, 32)), rotated(qkv[:, :, 2]).repeat_interleave(2, dim=1)
        v = qkv[:, :, 3].repeat_interleave(2, dim=1)
        weights = torch.einsum("qhd,khd->hqk", q, k) / 32**0.5 + torch.full((len(x), len(x)), -torch.inf).triu(1)
        mixed = torch.einsum("hqk,khd->qhd", weights.softmax(-1), v).reshape(len(x), 128)
        return mixed @ tensors[f"{layer}.attention.wo.weight"].T

    def forward(ids: list[int]) -> float:
        x = tensors["model.tok_embeddings.weight"][ids]
        for layer in ("model.layers.0", "model.layers.1"):
            x = x + attention(norm(x, f"{layer}.attention_norm.weight"), layer)
            y = norm(x, f"{layer}.ffn_norm.weight")
            w1, w2, w3 = (tensors[f"{layer}.feed_forward.w{number}.weight"] for number in (1, 2, 3))
            x = x + (torch.nn.functional.silu(y @ w1.T) * (y @ w3.T)) @ w2.T
        return float(norm(x, "model.norm.weight")[-1] @ tensors["v_head.weight"][0])

    return forward


HEADS: dict[str, Callable[[Path], Forward]] = {
    "qwen3-rm": qwen3,
    "trained-here": trained_here,
    "pad-is-eos-rm": pad_is_eos,
    "beaver-7b-v1.0-reward": beaver,
    "llama-guard": labels("llama"),
    "shield-gemma2": labels("gemma2"),
    "Llama-3.1-Nemotron-70B-Reward-HF": labels("llama", is_nemotron=True),
    "UltraRM-13b": renamed("llama", "LlamaRewardModel", "regression_head"),
    "Ziya-LLaMA-7B-Reward": renamed("llama", "LlamaRewardModel", "value_head", bias=-3.0),
    "Eurus-RM-7b": renamed("mistral", "EurusRewardModel", "regression_head"),
    "internlm2-7b-reward": internlm2,
    "ArmoRM-Llama3-8B-v0.1": gated(1),
    "QRM-Llama3.1-8B": gated(3),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Forward]]:
    root = tmp_path_factory.mktemp("heads")
    return {name: (root / name, build(root / name)) for name, build in HEADS.items()}


@pytest.fixture(scope="module")
def served(built: dict[str, tuple[Path, Forward]]) -> dict[str, dict[str, Any]]:
    """The scores of each engine; a linear and a gated head in bfloat16, too."""
    folders = {name: (str(folder), "float32") for name, (folder, _) in built.items()}
    folders |= {f"{name} low": (folders[name][0], "bfloat16") for name in ("UltraRM-13b", "QRM-Llama3.1-8B")}
    program = [sys.executable, "-m", "tests.models.engines.served", json.dumps(folders)]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("scores "))
    scores: dict[str, dict[str, Any]] = json.loads(line.removeprefix("scores "))
    return scores


def reading(folder: Path) -> tuple[CardInput, Any]:
    scorer = inspect_scorer(str(folder))
    reader = CardInput(scorer.card, load_plain_tokenizer(str(folder), "reward model"), scorer.pad_id)
    return reader, resolved(scorer.head, scorer.card, reader)


@torch.inference_mode()
def expected(folder: Path, forward: Forward, prompt: Prompt, answers: tuple[str, ...]) -> list[float]:
    reader, _ = reading(folder)
    return [forward(reader.token_ids(prompt, answer)) for answer in answers]


@pytest.mark.parametrize("name", HEADS)
def test_a_served_score_is_the_authors_alone_in_a_batch_and_behind_a_cached_prefix(
    built: dict[str, tuple[Path, Forward]], served: dict[str, dict[str, Any]], name: str
) -> None:
    (folder, forward), scores = built[name], served[name]
    assert scores["alone"] == pytest.approx(expected(folder, forward, PROMPT, ANSWERS), abs=1e-3)
    assert scores["fresh"] == pytest.approx(expected(folder, forward, LONG, CLOSE[:16]), abs=1e-3)
    tolerance = 1e-5 if name == "shield-gemma2" else 0.0  # Gemma 2 has layers that the CPU worker does not replace
    assert scores["hit"] == pytest.approx(scores["alone"], abs=tolerance, rel=0)
    assert scores["together"] == pytest.approx(scores["alone"] * 4, abs=tolerance, rel=0)
    assert scores["unfinished"] == 0
    assert (scores["mass"] is not None) == (name in GUARDS)
    assert scores["mass"] is None or 0 < scores["mass"] < 1


@pytest.mark.parametrize("name", GUARDS)
@torch.inference_mode()
def test_a_guards_verdict_is_the_authors_pass_over_the_prompt(
    built: dict[str, tuple[Path, Forward]], served: dict[str, dict[str, Any]], name: str
) -> None:
    folder, forward = built[name]
    reader, _ = reading(folder)
    assert served[name]["verdict"] == pytest.approx(forward(reader.prompt_ids(PROMPT, 256)), abs=1e-3)


@pytest.mark.parametrize("name", HEADS)
def test_the_reference_of_winnow_check_is_the_authors_pass(built: dict[str, tuple[Path, Forward]], name: str) -> None:
    folder, forward = built[name]
    reader, head = reading(folder)
    reference = ReferenceRewardModel(str(folder), reader, head=head)
    scores = [asyncio.run(reference.score(PROMPT, answer)) for answer in ANSWERS]
    assert scores == pytest.approx(expected(folder, forward, PROMPT, ANSWERS), abs=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_a_gate_is_asked_for_once_for_all_answers(served: dict[str, dict[str, Any]], name: str) -> None:
    assert served[name]["requests"] == (17 if name in ("ArmoRM-Llama3-8B-v0.1", "QRM-Llama3.1-8B") else 16)


@pytest.mark.parametrize("name", ["UltraRM-13b low", "QRM-Llama3.1-8B low"])
def test_close_answers_do_not_tie_in_bfloat16(served: dict[str, dict[str, Any]], name: str) -> None:
    """A head in bfloat16 leaves 8 bits: answers of nearly one score are all the same then."""
    close = served[name]["close"]
    assert len(set(close)) == len(close) == 64
    assert len(set(torch.tensor(close).bfloat16().tolist())) < 64
    assert close == pytest.approx(served[name.removesuffix(" low")]["close"], abs=2)


@torch.inference_mode()
def test_a_spawned_engine_loads_a_head(tmp_path: Path) -> None:
    """The loader of heads, and a configuration of ours, have to reach a process that inherits nothing."""
    prepare(offline=True, compiled=False)
    from winnow.models.engines.vllm import start_reward_model

    folder = tmp_path / "internlm2-7b-reward"
    forward = internlm2(folder)
    reader, head = reading(folder)
    options = EngineOptions("internlm2", str(folder), "float32", 256, 2**25, None, 64, "eager", "auto", False, False)
    engine = start_reward_model(options, reader, head)

    async def score() -> list[float]:
        return [await engine.score(PROMPT, answer) for answer in ANSWERS]

    try:
        scores = asyncio.run(score())
    finally:
        engine.shutdown()
    assert scores == pytest.approx(expected(folder, forward, PROMPT, ANSWERS), abs=1e-3)
