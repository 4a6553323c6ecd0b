"""The CPU engine's worker, made exact: what it computes for one request does not depend on who else asks at the time.

A reward model's worker also leaves out what nobody reads: behind the last layer's attention only the last token's row goes on.

vLLM loads this class by its name, in the engine's process; nothing else imports it. In float32 all of vLLM's CPU kernels treat
each row alike but for two of PyTorch's, which are replaced here, and for attention split over the cached keys, which
`winnow.models.environment` switches off. Then a score and a sampled token are the same bits in any batch; offline runs rest on it.
Lower precisions, compiled models and GPUs are not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.models.llama import LlamaDecoderLayer
from vllm.v1.worker.cpu_worker import CPUWorker


class InvariantCPUWorker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker, with the layers replaced whose result depends on a row's place in the batch.

    A reward model takes half of the threads: there are two of them, beside a policy that has all.
    """

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model as vLLM does, then replace."""
        super().load_model(*args, **kwargs)
        if self.model_runner.model_config.runner_type == "pooling":
            # vLLM replaces `torch.set_num_threads` in its workers by one that does nothing.
            torch._C.set_num_threads(max(1, torch.get_num_threads() // 2))
            *before, layer = self.model_runner.model.model.layers
            if before and type(layer) is LlamaDecoderLayer and self.model_runner.model_config.enforce_eager:
                layer.forward = last_tokens_only(layer)
        if self.model_runner.model_config.dtype is not torch.float32:
            return
        for module in self.model_runner.model.modules():
            if isinstance(module, SiluAndMul):
                module._forward_method = silu_and_mul
        if head := getattr(self.model_runner.model, "score", None):
            head.forward = _exact(head)


def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    """SwiGLU's activation, x [rows, 2·width] → [rows, width].

    PyTorch's `silu` computes the odd elements at the end of each thread's share with another exponential than the rest.
    """
    gate, up = x.chunk(2, dim=-1)
    result = torch.neg(gate).exp_().add_(1.0)
    return torch.div(gate, result, out=result).mul_(up)


def last_tokens_only(layer: Any) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The forward of a model's last layer whose feed-forward part sees each request's last token alone, at which it is scored.

    Rows are independent there, so the scores are the same bits; the other rows hold what nobody reads. Prompts must not come in parts.
    """

    def forward(
        positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = layer.input_layernorm(hidden, residual)
        hidden = layer.self_attn(positions=positions, hidden_states=hidden)
        attention = get_forward_context().attn_metadata
        if attention is None:  # a rehearsal without requests
            hidden, residual = layer.post_attention_layernorm(hidden, residual)
            return layer.mlp(hidden), residual
        last = attention[layer.self_attn.attn.layer_name].query_start_loc[1:].long() - 1
        rows, residual[last] = layer.post_attention_layernorm(hidden[last], residual[last])
        hidden[last] = layer.mlp(rows)
        return hidden, residual

    return forward


def _exact(head: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The one-label head [rows, width] → [rows, 1] in double precision: its float32 product sums in an order that depends on the rows."""
    # The layer may have packed its weight away; a unit vector picks each of them exactly.
    weight: torch.Tensor = head(torch.eye(head.input_size)).double()
    return lambda hidden: (hidden.double() @ weight).float()
