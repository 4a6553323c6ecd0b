"""Best-of-N with transformers alone, behind lines of JSON (`winnow.loadtests.benchmarks.baselines.subprocess_client`): one request at a time.

`generate(num_return_sequences=K)`, then each reward model over one padded batch through `AutoModelForSequenceClassification`: what TRL's
`BestOfNSampler` did until it was removed. It has all threads, and nothing else runs while it is measured.
Usage: python -m winnow.loadtests.benchmarks.baselines.padded_driver
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from winnow.loadtests.benchmarks.baselines.prompts import scored_text
from winnow.loadtests.benchmarks.baselines.scorer import Scores
from winnow.models import demo


@dataclass(frozen=True)
class Padded:
    """The three models and their tokenizer."""

    tokenizer: Any
    policy: Any
    safety: Any
    helpfulness: Any

    @classmethod
    def load(cls) -> Padded:
        """Load them in float32 on CPU, in bfloat16 on a GPU."""
        on_gpu = torch.cuda.is_available()
        where: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32}
        tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"), padding_side="right")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
        heads = [AutoModelForSequenceClassification.from_pretrained(demo.weights(name), **where) for name in _HEADS]
        for head in heads:
            head.config.pad_token_id = tokenizer.pad_token_id  # where a row ends
        models = [AutoModelForCausalLM.from_pretrained(demo.weights("policy"), **where), *heads]
        return cls(tokenizer, *(model.eval().to("cuda" if on_gpu else "cpu") for model in models))

    @torch.inference_mode()
    def __call__(self, order: dict[str, Any]) -> dict[str, Any]:
        """Sample, score, choose."""
        answers, tokens = self._sample(order)
        began = time.perf_counter()
        texts = [scored_text(order["prompt"], answer) for answer in answers]
        batch = self.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        batch = batch.to(self.policy.device)
        safety = self._scores(self.safety, batch)
        helpfulness = None if order["is_safety"] else self._scores(self.helpfulness, batch)
        winner = Scores(order["is_safety"], safety, helpfulness).winner
        return {"text": answers[winner], "tokens": tokens, "score_tail": time.perf_counter() - began}

    def _sample(self, order: dict[str, Any]) -> tuple[list[str], int]:
        """K answers and how many tokens they took; a banned EOS becomes a least length."""
        torch.manual_seed(order["seed"] or 0)
        ids = torch.tensor([order["ids"]], device=self.policy.device)
        least = order["max_tokens"] if "logit_bias" in order["options"] else 0
        sampled = self.policy.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=order["options"].get("temperature", 1.0),
            top_k=0,
            top_p=1.0,
            num_return_sequences=order["candidates"],
            min_new_tokens=least,
            max_new_tokens=order["max_tokens"],
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, ids.shape[1] :]
        answers = self.tokenizer.batch_decode(sampled, skip_special_tokens=True)
        return answers, int((sampled != self.tokenizer.pad_token_id).sum())

    @staticmethod
    def _scores(model: Any, batch: Any) -> tuple[float, ...]:
        return tuple(model(**batch).logits[:, 0].double().sigmoid().tolist())


_HEADS: tuple[demo.ModelName, ...] = ("safety-rm", "helpfulness-rm")


def main() -> None:
    """Answer lines until the input ends."""
    padded = Padded.load()
    _say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            told = padded(order)
        except (RuntimeError, ValueError, KeyError) as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        _say({"number": order["number"], **told})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
