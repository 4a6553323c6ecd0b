"""The reference of a reward model: one unpadded forward pass of transformers for each answer.

`winnow check` and the tests compare served scores with it. Slow on purpose: no batching, no cache. It may run on a
GPU, but only after the engines have been forked: it initialises CUDA in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers import AutoModel, AutoModelForSequenceClassification, LlamaModel, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from winnow.models.engines import internlm2
from winnow.models.engines.base import AnswerReader
from winnow.models.engines.checkpoint import describe
from winnow.models.engines.encoder_files import Encoder, stored_numbers
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.hardware import ram
from winnow.models.engines.heads import PLAIN, Head
from winnow.models.engines.memory import GIB
from winnow.models.engines.scorers import Scorer
from winnow.models.engines.shape import BYTES
from winnow.models.errors import CheckpointError
from winnow.models.types import Prompt

Precision = Literal["float32", "bfloat16", "float16"]


class ReferenceRewardModel:
    """Scores answers with transformers, in `dtype` on `device` ("cpu" or "cuda"); a `RewardModel`.

    The head computes in float32 in any precision, as vLLM's does. `close` frees the memory.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, has no trained head, or needs more memory than there is.
    """

    def __init__(
        self,
        checkpoint: str,
        reward_input: AnswerReader,
        dtype: Precision = "float32",
        device: str = "cpu",
        head: Head = PLAIN,
    ) -> None:
        self._input = reward_input
        self._head = head
        self._dtype: Precision = dtype
        self._device = device
        with self._within_memory():
            _require_ram(describe(checkpoint, "reward model", "reference", dtype).weights, dtype)
            loaded: torch.nn.Module = _load(checkpoint, dtype) if head.is_plain else _WithHead(checkpoint, dtype, head)
            self._model = loaded.to(device).eval()

    async def score(self, prompt: Prompt, answer: str) -> float:
        """Score one answer; see `RewardModel.score`.

        Raises:
            CheckpointError: the pass needs more memory than there is.
        """
        return await asyncio.to_thread(self._logit, self._input.token_ids(prompt, answer))

    def close(self) -> None:
        """Free the memory; the model cannot be used afterwards."""
        del self._model
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _logit(self, ids: list[int]) -> float:
        with torch.inference_mode(), self._within_memory():
            if isinstance(self._model, _WithHead):
                return self._model.score(ids, self._device)
            given = torch.tensor([ids], device=self._device)
            return self._head.score(self._model(input_ids=given, use_cache=False).logits[0].tolist())

    @contextlib.contextmanager
    def _within_memory(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            # On a card torch.OutOfMemoryError; on CPU torch raises a RuntimeError that only its text tells from others.
            is_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)
            if not is_memory:
                raise
            place = "this machine's memory" if self._device == "cpu" else "the card"
            raise CheckpointError(
                f"the reference in {self._dtype} does not fit {place}; {_advice(self._dtype)}"
            ) from None


class EncoderReference(ReferenceRewardModel):
    """The reference of an encoder: its own classifier, one unpadded pass without a mask for each answer."""

    def __init__(
        self, checkpoint: str, encoder: Encoder, reader: EncoderInput, dtype: Precision = "float32", device: str = "cpu"
    ) -> None:
        self._input: EncoderInput = reader
        self._encoder = encoder
        self._dtype = dtype
        self._device = device
        with self._within_memory():
            _require_ram(stored_numbers(checkpoint) * BYTES[dtype], dtype)
            self._model = load_encoder(checkpoint, dtype, len(encoder.labels)).to(device).eval()

    def _logit(self, ids: list[int]) -> float:
        has_types = self._input.has_types and getattr(self._model.config, "type_vocab_size", 0) > 1
        types = {"token_type_ids": self._input.token_types(ids)} if has_types else {}
        with torch.inference_mode(), self._within_memory():
            given = {
                name: torch.tensor([row], device=self._device) for name, row in ({"input_ids": ids} | types).items()
            }
            return self._encoder.score(self._model(**given).logits[0].tolist())


def reference_of(scorer: Scorer, reader: AnswerReader, dtype: Precision, device: str) -> ReferenceRewardModel:
    """Return the reference of the reward model `scorer`; see `ReferenceRewardModel`."""
    if scorer.encoder:
        assert isinstance(reader, EncoderInput)
        return EncoderReference(str(scorer.folder), scorer.encoder, reader, dtype, device)
    return ReferenceRewardModel(str(scorer.folder), reader, dtype, device, scorer.head)


def load_encoder(checkpoint: str, dtype: str, labels: int) -> PreTrainedModel:
    """Return an encoder with a classifier of so many labels, which computes in float32 in any precision.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or is not complete.
    """
    model = _loaded(AutoModelForSequenceClassification, checkpoint, dtype, num_labels=labels)
    _keep_exact(model.classifier)
    return model


class _WithHead(torch.nn.Module):
    """A backbone of transformers with a head that transformers has no class for."""

    def __init__(self, checkpoint: str, dtype: Precision, head: Head) -> None:
        super().__init__()
        is_internlm2 = internlm2.is_internlm2(Path(checkpoint))
        self.backbone = _internlm2(checkpoint, dtype) if is_internlm2 else _loaded(AutoModel, checkpoint, dtype)
        self.head = head
        self.tensors = torch.nn.ParameterList(
            torch.nn.Parameter(head.part(_tensor(checkpoint, name)).float(), requires_grad=False)
            for name in head.tensors
        )

    def score(self, ids: list[int], device: str) -> float:
        """Return the score of a conversation."""
        given = torch.tensor([ids], device=device)
        hidden = self.backbone(input_ids=given, use_cache=False).last_hidden_state[0].float()
        return self.head.reference(dict(zip(self.head.tensors, self.tensors, strict=True)), hidden, ids)


def _internlm2(checkpoint: str, dtype: Precision) -> PreTrainedModel:
    """Return InternLM2's backbone, which transformers does not know, as the Llama that it is under other names."""
    folder = Path(checkpoint)
    names = [name for path in folder.glob("*.safetensors") for name in _names(path)]
    model = LlamaModel(internlm2.llama_config(folder)).to(getattr(torch, dtype))
    found = internlm2.llama_tensors(model.config, names, lambda name: _tensor(checkpoint, name))
    if missing := model.load_state_dict(dict(found), strict=False).missing_keys:
        raise CheckpointError(f"reward model: {folder.name} has no tensor for {missing[0]}; it is not complete")
    loaded: PreTrainedModel = model
    return loaded


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _tensor(checkpoint: str, name: str) -> torch.Tensor:
    for path in Path(checkpoint).glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if name in file.keys():  # noqa: SIM118, not a mapping
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
    raise CheckpointError(f"reward model: {checkpoint} has no tensor {name}; the checkpoint is not complete")


def _load(checkpoint: str, dtype: Precision) -> PreTrainedModel:
    model = _loaded(AutoModelForSequenceClassification, checkpoint, dtype)
    # Score at the last token given: with a pad id, which is often EOS, transformers would search for another place.
    model.config.pad_token_id = None
    _keep_exact(model.score)
    return model


def _keep_exact(head: Any) -> None:
    """Let a head compute in float32: in half precision close answers would tie."""
    head.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))


def _loaded(kind: Any, checkpoint: str, dtype: str, **config: Any) -> PreTrainedModel:
    disable_progress_bar()
    try:
        model, found = kind.from_pretrained(
            checkpoint,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,  # said aloud: otherwise it asks on a terminal
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, in one line
            **config,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        # The last four are what its configurations raise for a field that is missing or of another type.
        raise CheckpointError(f"reward model: transformers cannot load {checkpoint}: {_first_line(error)}") from error
    if missing := sorted(found["missing_keys"]):  # transformers makes up weights for them
        raise CheckpointError(f"reward model: {checkpoint} has no tensor {missing[0]}; the checkpoint is not complete")
    if mismatched := sorted(found["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise CheckpointError(
            f"reward model: {checkpoint}: {name} is {list(stored)}, but its config asks for {list(wanted)}"
        )
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the default leaves Gemma 2's cap out, which engines honour
    loaded: PreTrainedModel = model
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _require_ram(needed: int, dtype: Precision) -> None:
    """Check that the weights fit the memory, through which they reach a card as well.

    The kernel would end this process without a word.
    """
    free = ram().free
    if needed > free:
        raise CheckpointError(
            f"the reference in {dtype} needs {needed / GIB:.1f} GiB of this machine's memory, of which "
            f"{free / GIB:.1f} GiB are free; {_advice(dtype)}"
        )


def _advice(dtype: Precision) -> str:
    if dtype == "float32":
        return "use --reference-dtype bfloat16, which takes half, or end what else uses memory"
    return "end what else uses memory"
