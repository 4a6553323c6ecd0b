"""The settings of one engine: the tables `[policy]`, `[safety]` and `[helpfulness]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, SecretStr

from winnow.models import demo
from winnow.models.cards import Card
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.addresses import Address, is_remote, parse_addresses
from winnow.models.engines.base import EngineKind
from winnow.models.errors import CheckpointError
from winnow.models.reward_model import Calibration
from winnow.models.safety_classifier import PROBE_MARGIN

ENGINES = ("policy", "safety", "helpfulness")
MAX_GIB = 2**20
"""Largest memory that can be named: a PiB, more than any machine has."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _not_zero(scale: float) -> float:
    if scale == 0:
        raise ValueError("a reward model's scale must not be 0")
    return scale


def _template(name: str) -> str:
    if name in ("auto", "tokenizer", *TEMPLATES) or name.endswith(".jinja"):
        return name
    raise ValueError(f"{name!r} is not auto, {', '.join(TEMPLATES)}, tokenizer, or the path of a file FILE.jinja")


def _policy_place(checkpoint: str) -> str:
    return _place(checkpoint, "completions")


def _place(checkpoint: str, plain: Literal["classify", "completions"] = "classify") -> str:
    if is_remote(checkpoint):
        parse_addresses(checkpoint, plain)
    elif re.fullmatch(r"[\w.-]+:\d+(/.*)?", checkpoint) and not Path(checkpoint).exists():
        other = "judge:" if plain == "classify" else "chat:"
        raise ValueError(f"an address of a server begins with http:// or {other}http://")
    return checkpoint


PolicyCheckpoint = Annotated[str, AfterValidator(_policy_place)]
Checkpoint = Annotated[str, AfterValidator(_place)]
"""A folder, a hub id, or the addresses of model servers."""
PolicyTemplate = Annotated[str, AfterValidator(_template)]
Scale = Annotated[FiniteFloat, AfterValidator(_not_zero)]


def setting(default: Any, *, offline: bool = False, memory: bool = False, flag: bool = True, **options: Any) -> Any:
    """Return a field; `offline` and `memory` say that it matters to `winnow distill` and to the memory plan."""
    return Field(default, json_schema_extra={"offline": offline, "memory": memory, "flag": flag}, **options)


class EngineSettings(BaseModel):
    """One engine's settings; None takes the value that all engines share."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    dtype: Dtype | None = Field(default=None, description="Precision of this engine; default: the shared `dtype`.")
    context: int | None = Field(
        default=None, ge=128, description="Maximum tokens of a sequence in this engine; default: the shared `context`."
    )


_CHECKPOINT = (
    "Checkpoint of the {} reward model: a folder, a hub id, http://HOST:PORT (a vLLM server) or "
    "judge:http://HOST:PORT/v1; several servers with commas between them."
)
_MEMORY = "GPU: {}'s share of the memory; default: planned from the weights and the card."
_CARD = "Card (TOML) of the {} reward model; default: the checkpoint's own, a shipped one, or one made of its config."
_KV_CACHE = "KV cache of {} in GiB; default: on CPU what typical requests use, at most 1; on a GPU, its share's rest."


class RemotableSettings(EngineSettings):
    """The settings of an engine that may be on other servers."""

    plain: ClassVar[Literal["classify", "completions"]] = "classify"
    """The API of a URL without a prefix."""

    checkpoint: str
    tokenizer: str | None = setting(
        None,
        offline=True,
        description="Model on a vLLM server: folder or hub id with its tokenizer and config.json; default: the "
        "server's own checkpoint, if it is on this machine.",
    )
    model: str | None = setting(
        None, offline=True, description="Model on a server: its name there; default: the only one."
    )
    key: SecretStr | None = setting(
        None, flag=False, description="Model on a server: the key that it asks for; from the environment or the file."
    )
    key_file: Path | None = setting(
        None, offline=True, description="Model on a server: file with the key that it asks for."
    )
    seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Model on a server: longest time of a score, retries included."
    )
    start_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="Model on a server: how long it is waited for at the start."
    )
    connections: int = Field(
        default=64, ge=1, le=4096, description="Model on a server: requests at once to each; the others wait."
    )

    @property
    def is_remote(self) -> bool:
        """Whether the model is on another server."""
        return is_remote(self.checkpoint)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of its servers; none if it is no remote model."""
        return parse_addresses(self.checkpoint, self.plain) if self.is_remote else ()


class PolicySettings(RemotableSettings):
    """The policy's engine."""

    plain = "completions"

    kind: EngineKind | None = Field(
        default=None, description="Engine kind that it must be; default: the one of its checkpoint."
    )
    template: PolicyTemplate = setting(
        "auto",
        offline=True,
        description="Chat template: llama2, tokenizer (the checkpoint's own), a file FILE.jinja, or auto: llama2 for "
        "Llama-2 checkpoints, else the tokenizer's.",
    )

    checkpoint: PolicyCheckpoint = setting(
        str(demo.weights("policy")),
        offline=True,
        memory=True,
        description="Checkpoint that answers: a folder, a hub id, http://HOST:PORT (a vLLM server; several with "
        "commas between them), or chat:http://HOST:PORT/v1 (an OpenAI-compatible chat endpoint).",
    )
    seconds: float = Field(
        default=600.0, gt=0, le=86_400, description="Model on a server: longest time of a candidate, retries included."
    )
    connections: int = Field(
        default=256, ge=1, le=4096, description="Model on a server: requests at once to each; the others wait."
    )
    memory: float | None = setting(
        None, offline=True, memory=True, gt=0, lt=1, description=_MEMORY.format("the policy engine")
    )
    kv_cache_gib: float | None = setting(
        None, offline=True, memory=True, gt=0, le=MAX_GIB, description=_KV_CACHE.format("the policy")
    )

    @property
    def runs_as(self) -> EngineKind:
        """The engine kind that runs it."""
        return self.addresses[0].kind if self.is_remote else "vllm"

    @property
    def files(self) -> str:
        """The folder or hub id with its tokenizer, chat template and config.json.

        Raises:
            CheckpointError: it is on another server, and no tokenizer is named; see `remote_models.with_files`.
        """
        if not self.is_remote:
            return self.checkpoint
        if self.tokenizer is None and self.runs_as == "chat":
            return str(demo.weights("policy"))  # only to count tokens, for admission
        if self.tokenizer is None:
            raise CheckpointError(
                "policy: it is on another server; give a folder or a hub id with its tokenizer and config.json in "
                "--policy-tokenizer"
            )
        return self.tokenizer

    @property
    def tokenizer_files(self) -> str | None:
        """The same, but None if the policy's own tokenizer is not known."""
        return None if self.runs_as == "chat" else self.files


class RewardModelSettings(RemotableSettings):
    """A reward model's engine, and the calibration of its raw logits."""

    checkpoint: Checkpoint
    kind: EngineKind | None = Field(
        default=None, description="Engine kind that it must be; default: the one of its checkpoint and card."
    )
    memory: float | None = setting(
        None, offline=True, memory=True, gt=0, lt=1, description=_MEMORY.format("each reward model")
    )
    kv_cache_gib: float | None = setting(
        None, offline=True, memory=True, gt=0, le=MAX_GIB, description=_KV_CACHE.format("each reward model")
    )

    card: Path | None
    scale: Scale | None
    bias: FiniteFloat | None

    def calibration(self, card: Card | None) -> Calibration:
        """Return the calibration of the model's raw logits: these settings', or else the card's, or else none."""
        scale, bias = (card.scale, card.bias) if card else (None, 0.0)
        own = scale if self.scale is None else self.scale
        return Calibration(1.0 if own is None else own, bias if self.bias is None else self.bias)


class SafetySettings(RewardModelSettings):
    """The safety reward model's engine."""

    checkpoint: Checkpoint = setting(
        str(demo.weights("safety-rm")), offline=True, memory=True,
        description=_CHECKPOINT.format("safety"),
    )  # fmt: skip
    card: Path | None = setting(None, offline=True, memory=True, description=_CARD.format("safety"))
    scale: Scale | None = setting(
        None,
        offline=True,
        description="Factor on the safety model's raw score, negative for a cost model; default: its card's.",
    )
    bias: FiniteFloat | None = setting(
        None, offline=True, description="Added to the scaled safety score; default: its card's."
    )
    probe_margin: FiniteFloat = setting(
        PROBE_MARGIN,
        offline=True,
        description="The classifier probe tags a prompt if the refusal scores higher by more than this (calibrated "
        "logits). The default was measured on the demo model; measure another's with winnow check --prompts.",
    )


class HelpfulnessSettings(RewardModelSettings):
    """The helpfulness reward model's engine."""

    checkpoint: Checkpoint = setting(
        str(demo.weights("helpfulness-rm")), offline=True, memory=True,
        description=_CHECKPOINT.format("helpfulness"),
    )  # fmt: skip
    card: Path | None = setting(None, offline=True, memory=True, description=_CARD.format("helpfulness"))
    scale: Scale | None = setting(
        None, offline=True, description="Factor on the helpfulness model's raw score; default: its card's."
    )
    bias: FiniteFloat | None = setting(
        None, offline=True, description="Added to the scaled helpfulness score; default: its card's."
    )
