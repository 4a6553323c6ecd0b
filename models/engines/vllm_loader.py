"""vLLM's side of a head: loads a checkpoint's tensors into vLLM's classifier, whatever the head's name and kind.

vLLM's own loader fails on other names, and makes label heads of label *strings*, of which an unknown one scores 0.
This one lets the head compute itself (`Head.forward`), in float64: a few rows, at no cost.
Importing the module registers it; a worker imports it by the name of its extension, forked or spawned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from winnow.models.engines import internlm2
from winnow.models.engines.heads import DROPPED, EMBEDDINGS, Loaded, head_of

LOAD_FORMAT = "winnow_head"
"""The name that the loader is registered under; `HEAD` is where its configuration has the head."""
HEAD = "winnow_head"
EXTENSION = f"{__name__}.WorkerExtension"


class WorkerExtension:
    """Nothing; a worker that is told to take it imports this module."""


class HeadForward:
    """The forward pass of a head, [rows, width] → [rows, numbers], in place of vLLM's linear layer."""

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._forward = forward

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the last tokens' hidden vectors."""
        return self._forward(hidden)


class HeadLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's loader of safetensors, with a head of ours."""

    def __init__(self, load_config: Any) -> None:
        given = dict(load_config.model_loader_extra_config)
        self._head = head_of(given.pop(HEAD))
        self._found: dict[str, torch.Tensor] = {}
        self._matrix: torch.Tensor | None = None
        load_config.load_format, load_config.model_loader_extra_config = "auto", given
        super().__init__(load_config)

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the backbone's tensors as they are, and what vLLM asks for as its own head.

        Raises:
            ValueError: the checkpoint lacks a tensor of the head.
        """
        head = self._head
        for name, tensor in super().get_all_weights(model_config, model):
            if name in head.tensors:
                # A loader may use the tensor's memory again.
                self._found[name] = head.part(tensor).clone()
            if name == head.vocabulary_matrix:
                self._matrix = tensor.clone()
            if name.endswith(EMBEDDINGS) or not (name in head.tensors or name.startswith(DROPPED)):
                yield name, tensor
        if missing := [name for name in head.tensors if name not in self._found]:
            raise ValueError(f"the checkpoint has no tensor {missing[0]}")
        yield "score.weight", head.placeholder(self._found)

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Load the model, and let its head be computed by `HeadForward`."""
        super().load_weights(model, model_config)
        device, dtype = model.score.weight.device, model_config.dtype
        tensors = {name: tensor.to(device) for name, tensor in self._found.items()}
        loaded = Loaded(tensors, lambda: self._output_matrix(model, dtype, device))
        model.score.forward = HeadForward(self._head.forward(loaded))
        self._found, self._matrix = {}, None

    def _output_matrix(self, model: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return the output matrix: the checkpoint's, or the model's embedding where the two are tied."""
        if self._matrix is not None:
            return self._matrix.to(device, dtype)
        embedding: torch.Tensor = next(value for name, value in model.named_parameters() if name.endswith(EMBEDDINGS))
        return embedding.data[: model.config.get_text_config().vocab_size]


internlm2.register()
register_model_loader(LOAD_FORMAT)(HeadLoader)
