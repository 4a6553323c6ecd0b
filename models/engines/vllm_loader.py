"""vLLM's side of a head: loads a checkpoint's tensors into vLLM's classifier, whatever the head's name and kind.

vLLM's own loader fails on other names, and makes label heads of label *strings*, of which an unknown one scores 0.
This one gives the classifier its rows, keeps the bias, and computes the head in float64: a few rows, at no cost.
Importing the module registers it; a worker imports it by the name of its extension, forked or spawned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from winnow.models.engines.heads import DROPPED, EMBEDDING, Head

LOAD_FORMAT = "winnow_head"
"""The name that the loader is registered under; `HEAD` is where its configuration has the head."""
HEAD = "winnow_head"
ROWS_AT_ONCE = 16
"""Answers whose logits over the vocabulary are held at once: 16 MB with 256,000 tokens, and a few copies."""
EXTENSION = f"{__name__}.WorkerExtension"


class WorkerExtension:
    """Nothing; a worker that is told to take it imports this module."""


class HeadForward:
    """The forward pass of a head, [rows, width] → [rows, outputs], in place of vLLM's linear layer.

    For label tokens the last output is the logarithm of the sum over the vocabulary, of `matrix`.
    """

    def __init__(self, head: Head, weight: torch.Tensor, bias: torch.Tensor | None, matrix: torch.Tensor | None):
        self._weight = weight.double()
        self._bias = None if bias is None else bias.double()
        self._matrix = matrix
        self._cap = head.cap

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores of the last tokens' hidden vectors."""
        logits = self._capped(torch.nn.functional.linear(hidden.double(), self._weight, self._bias))
        if self._matrix is None:
            return logits.float()
        sums = [self._log_sum(self._matrix, part) for part in torch.split(hidden, ROWS_AT_ONCE)]
        return torch.cat([logits.float(), torch.cat(sums)], dim=-1)

    def _log_sum(self, matrix: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        every = self._capped((hidden.to(matrix.dtype) @ matrix.T).float())
        return torch.logsumexp(every, dim=-1, keepdim=True)

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


class HeadLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's loader of safetensors, with a head of ours."""

    def __init__(self, load_config: Any) -> None:
        given = dict(load_config.model_loader_extra_config)
        head = given.pop(HEAD)
        self._head = Head(**{**head, "rows": tuple(head["rows"])})
        self._found: dict[str, torch.Tensor] = {}
        load_config.load_format, load_config.model_loader_extra_config = "auto", given
        super().__init__(load_config)

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the backbone's tensors as they are, and the head's rows under vLLM's name.

        Raises:
            ValueError: the checkpoint has no such head.
        """
        head = self._head
        for name, tensor in super().get_all_weights(model_config, model):
            if name in (head.weight, head.bias):
                # A loader may use the tensor's memory again.
                self._found[name] = tensor[list(head.rows)].clone() if head.rows else tensor.clone()
                if head.rows and not name.endswith(EMBEDDING):
                    self._found["matrix"] = tensor.clone()
            if name.endswith(EMBEDDING) or not (name in (head.weight, head.bias) or name.startswith(DROPPED)):
                yield name, tensor
        if head.weight not in self._found:
            raise ValueError(f"the checkpoint has no tensor {head.weight}")
        yield "score.weight", self._found[head.weight]

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load the model, and let its head be computed by `HeadForward`."""
        super().load_weights(model, model_config)
        head, device = self._head, model.score.weight.device
        bias = self._found.get(head.bias) if head.bias else None
        model.score.forward = HeadForward(
            head,
            self._found[head.weight].to(device),
            None if bias is None else bias.to(device),
            self._matrix(model, model_config.dtype, device) if head.rows else None,
        )
        self._found.clear()

    def _matrix(self, model: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return the output matrix: the checkpoint's, or the model's embedding where the two are tied."""
        if (own := self._found.get("matrix")) is not None:
            return own.to(device, dtype)
        embedding: torch.Tensor = next(value for name, value in model.named_parameters() if name.endswith(EMBEDDING))
        return embedding.data[: model.config.get_text_config().vocab_size]


register_model_loader(LOAD_FORMAT)(HeadLoader)
