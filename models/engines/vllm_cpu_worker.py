"""The CPU engine's worker, made batch-invariant: a result does not depend on the requests beside it.

In float32 all of vLLM's CPU kernels treat each row alike, except two of PyTorch's, which are replaced
here, and attention split over the cached keys, which `winnow.models.engines.environment` switches off.
A score and a sampled token are then the same bits in any batch, which resumed offline runs rely on.
Lower precisions, compiled models and GPUs are not covered.

It also saves time on small models: norms in one pass instead of six, threads only where a step has work
for them, and in a reward model the rows that answers share only once, and after the last attention only those that are
read.

vLLM loads this class by its name, in the engine's process; nothing else imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from vllm import _custom_ops
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaModel
from vllm.v1.worker.cpu_worker import CPUWorker

from winnow.models.engines.shared_rows import RowSharing
from winnow.models.engines.vllm_loader import HeadForward

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

THREAD_WORK = 32_000_000
"""Multiplications in a step that justify one more thread: 16 rows of the demo policy. Idle threads sleep,
as co-located engines need, and waking one takes longer than computing a small layer."""

KEPT_PRODUCTS = 4
"""Numbers of rows for which a layer keeps a prepared product of 0.8 MB; vLLM keeps 32. Layers of equal size find others
in oneDNN's own cache (`winnow.models.engines.environment`), and making one anew takes 50 µs."""


class InvariantCPUWorker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker, with replacements for the layers whose result depends on a row's place in the batch.

    A reward model takes at most half of the threads: two of them run beside a policy, which takes as
    many as its step needs.
    """

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model as vLLM does, then replace its layers."""
        create = _custom_ops.create_onednn_mm
        _custom_ops.create_onednn_mm = lambda weight, _=0: create(weight, KEPT_PRODUCTS)
        super().load_model(*args, **kwargs)
        is_pooling = self.model_runner.model_config.runner_type == "pooling"
        self._threads = max(1, torch.get_num_threads() // (2 if is_pooling else 1))
        self._parameters = sum(parameter.numel() for parameter in self.model_runner.model.parameters())
        if is_pooling and self.model_runner.model_config.enforce_eager:
            self._skip_rows()
        if self.model_runner.model_config.dtype is not torch.float32:
            return
        for module in self.model_runner.model.modules():
            if isinstance(module, SiluAndMul):
                module._forward_method = silu_and_mul
            if type(module) is RMSNorm and module.has_weight and module.variance_size_override is None:
                module._forward_method = rms_norm(module.weight.data, module.variance_epsilon)
        head: Any = getattr(self.model_runner.model, "score", None)
        if head is not None and not isinstance(head.forward, HeadForward):
            head.forward = _exact(head)

    def _skip_rows(self) -> None:
        """Let a reward model compute once what sequences share, and nothing that is not read."""
        # Other architectures keep their layers elsewhere, and have another last layer.
        model: Any = getattr(self.model_runner.model, "model", None)
        layers: Any = getattr(model, "layers", (None,))
        *before, layer = layers
        is_llama = all(type(layer) is LlamaDecoderLayer for layer in layers)
        sharing = None
        if is_llama and type(model) is LlamaModel and self.model_runner.model_config.dtype is torch.float32:
            block = self.cache_config.block_size
            sharing = RowSharing(model, block, lambda: get_forward_context().attn_metadata)
        if before and type(layer) is LlamaDecoderLayer:
            layer.forward = last_tokens_only(layer, sharing.places if sharing else None)

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """Run one step, on as many threads as it has work for; results are the same bits on any number."""
        work = scheduler_output.total_num_scheduled_tokens * self._parameters
        # vLLM replaces `torch.set_num_threads` in its workers by one that does nothing.
        torch._C.set_num_threads(min(self._threads, math.ceil(work / THREAD_WORK) or 1))
        return super().execute_model(scheduler_output)


def rms_norm(weight: torch.Tensor, epsilon: float) -> Callable[..., torch.Tensor | tuple[torch.Tensor, torch.Tensor]]:
    """Return an RMS norm of x [..., width] and its residual, by vLLM's kernel, which treats rows alike.

    On CPU vLLM composes it of PyTorch operators, each of which is one more pass over the rows.
    """

    def forward(
        x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()  # the kernel takes it for that, and Qwen3 norms a part of each row, head by head
        if residual is None:
            result = torch.empty_like(x)
            torch.ops._C.rms_norm(result, x, weight, epsilon)
            return result
        torch.ops._C.fused_add_rms_norm(x, residual, weight, epsilon)  # in place, both
        return x, residual

    return forward


def silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    """Return SwiGLU's activation, x [rows, 2·width] → [rows, width].

    PyTorch's `silu` computes the odd elements at the end of each thread's share with a different
    exponential than the rest.
    """
    gate, up = x.chunk(2, dim=-1)
    result = torch.neg(gate).exp_().add_(1.0)
    return torch.div(gate, result, out=result).mul_(up)


def last_tokens_only(
    layer: Any, places: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return a forward of the last layer whose feed-forward part computes only each request's last token.

    Rows are independent there, so the scores, taken at that token, are the same bits; the other rows
    are never read. Prompts must not be chunked. `places` says where the step's rows are computed, if they are shared.
    """

    def forward(
        positions: torch.Tensor, hidden: torch.Tensor, residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = layer.input_layernorm(hidden, residual)
        hidden = layer.self_attn(positions=positions, hidden_states=hidden)
        attention = get_forward_context().attn_metadata
        if attention is None:  # a warm-up without requests
            hidden, residual = layer.post_attention_layernorm(hidden, residual)
            return layer.mlp(hidden), residual
        last = attention[layer.self_attn.attn.layer_name].query_start_loc[1:].long() - 1
        last = places(last) if places else last
        rows, residual[last] = layer.post_attention_layernorm(hidden[last], residual[last])
        hidden[last] = layer.mlp(rows)
        return hidden, residual

    return forward


def _exact(head: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the one-label head, [rows, width] → [rows, 1], in float64: float32 sums depend on the batch."""
    # The layer may have packed its weight; unit vectors pick out each element exactly.
    weight: torch.Tensor = head(torch.eye(head.input_size)).double()
    return lambda hidden: (hidden.double() @ weight).float()
