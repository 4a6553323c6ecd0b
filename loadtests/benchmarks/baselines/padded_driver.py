"""Best-of-N with transformers alone, behind lines of JSON (see `subprocess_client`).

`generate(num_return_sequences=K)`, then each reward model over one padded batch through
`AutoModelForSequenceClassification`, as TRL's `BestOfNSampler` did until it was removed. One request at a
time; it has all threads, and nothing else runs while it is measured.

Usage: python -m winnow.loadtests.benchmarks.baselines.padded_driver
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from winnow.loadtests.benchmarks.baselines.prompts import Rendered
from winnow.loadtests.benchmarks.baselines.scorer import best
from winnow.loadtests.benchmarks.baselines.subprocess_client import parsed, write_line
from winnow.loadtests.types import Request
from winnow.models import demo
from winnow.models.combiner import combine
from winnow.models.errors import CandidateFailed

_HEADS: tuple[demo.ModelName, ...] = ("safety-rm", "helpfulness-rm")


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
        options: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32}
        tokenizer = AutoTokenizer.from_pretrained(demo.weights("policy"), padding_side="right")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
        heads = [AutoModelForSequenceClassification.from_pretrained(demo.weights(name), **options) for name in _HEADS]
        for head in heads:
            head.config.pad_token_id = tokenizer.pad_token_id  # it marks the end of a row
        models = [AutoModelForCausalLM.from_pretrained(demo.weights("policy"), **options), *heads]
        return cls(tokenizer, *(model.eval().to("cuda" if on_gpu else "cpu") for model in models))

    @torch.inference_mode()
    def __call__(self, prompt: Rendered, request: Request) -> dict[str, Any]:
        """Sample, score, and return the best answer."""
        answers, tokens = self._sample(prompt, request)
        began = time.perf_counter()
        texts = [prompt.with_answer(answer) for answer in answers]
        batch = self.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        batch = batch.to(self.policy.device)
        safety = self._logits(self.safety, batch)
        helpfulness = [None] * len(texts) if prompt.is_safety else self._logits(self.helpfulness, batch)
        rewards = [combine(prompt.is_safety, s, h) for s, h in zip(safety, helpfulness, strict=True)]
        return {"text": answers[best(rewards)], "tokens": tokens, "score_tail": time.perf_counter() - began}

    def _sample(self, prompt: Rendered, request: Request) -> tuple[list[str], int]:
        """Return K answers and their tokens in all; a banned EOS becomes a least length."""
        torch.manual_seed(request.seed or 0)
        ids = torch.tensor([prompt.ids], device=self.policy.device)
        sampled = self.policy.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=request.options.get("temperature", 1.0),
            top_k=0,
            top_p=1.0,
            num_return_sequences=request.candidates,
            min_new_tokens=request.max_tokens if "logit_bias" in request.options else 0,
            max_new_tokens=request.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, ids.shape[1] :]
        answers = self.tokenizer.batch_decode(sampled, skip_special_tokens=True)
        return answers, int((sampled != self.tokenizer.pad_token_id).sum())

    @staticmethod
    def _logits(model: Any, batch: Any) -> list[float]:
        logits: list[float] = model(**batch).logits[:, 0].double().tolist()
        return logits


def main() -> None:
    """Answer lines until the input ends."""
    padded = Padded.load()
    write_line(ready=True)
    for line in sys.stdin:
        number, prompt, request = parsed(line)
        try:
            outcome = padded(prompt, request)
        except (CandidateFailed, RuntimeError, ValueError, KeyError) as error:
            outcome = {"error": f"{type(error).__name__}: {error}"}
        write_line(number=number, **outcome)


if __name__ == "__main__":
    main()
