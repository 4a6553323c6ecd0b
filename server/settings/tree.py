"""The settings tree, with every default."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from winnow.clients.schema import CandidateRange
from winnow.models import demo
from winnow.models.chat_templates import TagRule
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.chat_template import chat_template
from winnow.models.safety_classifier import ClassifierName
from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.models.types import CombinerName
from winnow.server.settings.engines import (
    Dtype,
    EngineSettings,
    HelpfulnessSettings,
    PolicySettings,
    RewardModelSettings,
    SafetySettings,
    setting,
)
from winnow.server.settings.sources import DELIMITER, PREFIX, Environment, File, nested
from winnow.server.settings.values import (
    Adaptive,
    Address,
    Commas,
    KRange,
    Names,
    Origin,
    Pattern,
    RecordRule,
    Texts,
    TrustedHost,
)
from winnow.server.store.redaction import DEFAULT_REDACTIONS

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Stands for the template of a chat endpoint, which is sent the messages: it is only used to count tokens."""


class Settings(BaseSettings):
    """The settings tree; a field's description is its documentation, on the command line too."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, frozen=True, extra="forbid", validate_default=True
    )

    file: ClassVar[Path | None] = None
    """The file that is read; a subclass of `load` has one."""

    policy: PolicySettings = Field(PolicySettings(), description="The policy's engine.")
    safety: SafetySettings = Field(SafetySettings(), description="The safety reward model's engine.")
    helpfulness: HelpfulnessSettings = Field(
        HelpfulnessSettings(), description="The helpfulness reward model's engine."
    )
    served_model_name: str | None = Field(
        None, description="Model id on the wire; default: the policy's last path part."
    )
    host: Address = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")

    api_keys: Commas[SecretStr] = setting(
        (),
        flag=False,
        description="Keys that may use the server; from the environment or the file.",
    )
    api_keys_file: Path | None = Field(
        None, description="File of keys that may use the server, one a line, or as sha256:HEX; # starts a comment."
    )
    allow_anonymous: bool = Field(
        False,
        description="Listen on an address that other machines can reach although no key is set; anyone can then send "
        "requests.",
    )
    trusted_hosts: Names[TrustedHost] = Field(
        (),
        description="Accepted Host headers: names, *.example.org, addresses, networks such as 10.0.0.0/8, or *. "
        "Default: any with keys, loopback without.",
    )
    cors_origins: Names[Origin] = Field(
        (),
        description="Web pages that may use the server from a browser (CORS): https://app.example.org, "
        "https://*.example.org, or * for all.",
    )
    playground: bool = Field(True, description="Serve the playground, a web page to try the server with, at /.")
    accept_any_model: bool = Field(False, description="Accept any model name in a request.")

    candidates: KRange = Field(
        CandidateRange(min=16, max=16),
        description="K of requests that do not set it; a range such as 4-16 lets K shrink under load.",
    )
    max_candidates: int = Field(64, ge=1, description="Maximum candidates of a request.")
    adaptive: Adaptive = Field(
        None,
        description="Draw the candidates of requests that do not say otherwise in waves, and stop when R_c reaches a "
        "reward (reward=0.9), or when a further candidate is expected to gain less than a price (gain=0.002); "
        "start=4,step=4 are the waves' sizes.",
    )
    gains: Path | None = setting(
        None,
        offline=True,
        description="File of the expected gains of further candidates, as winnow distill writes it; what is served is "
        "added to it, for the next start.",
    )
    combiner: CombinerName | None = setting(
        None,
        offline=True,
        description="Combination of R_s and R_h: llama2, the paper's formula, or safe_first, which ranks every unsafe "
        "candidate last. Default: llama2 if the cards say that both reward models are calibrated, else safe_first.",
    )
    empty_last: bool = setting(
        True,
        offline=True,
        description="Rank an answer without text below every other, whatever its reward.",
    )
    when_all_unsafe: Literal["return", "refuse"] = Field(
        "return",
        description="If R_s < 0.15 for every candidate: return the paper's argmax, or refuse (finish_reason "
        "content_filter).",
    )
    refusal: str = Field("I'm sorry, but I can't help with that.", min_length=1, description="Text of a refusal.")
    safety_classifier: ClassifierName = setting(
        "patterns",
        offline=True,
        description="What tags safety prompts where the caller does not: patterns over the last user message; probe: "
        "the safety model prefers a stock refusal to a compliance; or guard: its own verdict on the prompt.",
    )
    safety_patterns: Texts[Pattern] = setting(
        DEFAULT_PATTERNS,
        offline=True,
        description="Regular expressions for the classifier patterns: a last user message that matches one makes a "
        "safety prompt. [] for none.",
    )
    tags: TagRule = setting(
        "refuse",
        offline=True,
        description="A tag of the chat template in a user's or system message: refuse the request, or neutralise the "
        "tag with a space in it, as is always done in assistant messages and given answers.",
    )
    merge_turns: bool = setting(
        False,
        offline=True,
        description="Join messages of one role in a row, a blank line between them, instead of refusing them.",
    )
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature if a request sets none.")
    top_p: float = setting(
        1.0, offline=True, gt=0, le=1, description="Nucleus sampling probability if a request sets none."
    )
    max_tokens: int = setting(
        512, offline=True, ge=1, description="Maximum tokens of an answer if a request sets none."
    )

    dtype: Dtype = setting(
        "auto",
        offline=True,
        memory=True,
        description="Precision of all three engines; auto: float32 on CPU, bfloat16 on a GPU, float16 on one without.",
    )
    context: int | None = setting(
        None,
        offline=True,
        memory=True,
        ge=128,
        description="Tokens of prompt and answer together; default: the policy's own.",
    )
    max_sequences: int = setting(
        256, offline=True, memory=True, ge=1, description="Candidates that an engine runs at once; the rest wait."
    )
    tensor_parallel: int = setting(
        1,
        offline=True,
        memory=True,
        ge=1,
        le=64,
        description="GPUs that each engine of this machine is spread over (vLLM's tensor parallelism); all engines "
        "share them.",
    )
    eager: bool = setting(
        False,
        offline=True,
        memory=True,
        description="No CUDA graphs on a GPU, where the policy decodes with them. On CPU engines are eager anyway.",
    )
    compile: bool = setting(
        False,
        offline=True,
        memory=True,
        description="Compile all three engines: faster, but they start much slower and need a C++ compiler.",
    )
    load_format: Literal["auto", "dummy"] = Field(
        "auto",
        description="dummy: random weights in the checkpoint's shape, for benchmarks; answers mean nothing.",
    )
    canary: bool = setting(
        True, offline=True, description="Refuse to start on a reward model that ranks a plain pair of answers wrongly."
    )

    max_candidates_in_flight: int = setting(
        256,
        memory=True,
        ge=1,
        description="Candidates sampled or scored at once, over all requests; the rest wait in a fair queue.",
    )
    max_queued_candidates: int = Field(1024, ge=0, description="Candidates that may wait; beyond it requests get 429.")
    max_queued_tokens: int = Field(65_536, ge=0, description="Prompt tokens that may wait; beyond it requests get 429.")
    max_queue_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest expected wait in the queue; a request that would wait longer gets 429 at once. "
        "Default: 10, or 2 where candidates is a range.",
    )
    request_seconds: float = Field(
        600.0, gt=0, description="Longest time from entering the queue to the answer; beyond it a request gets 504."
    )
    stall_seconds: float = setting(
        60.0,
        offline=True,
        gt=0,
        description="An engine with pending answers that does not respond for this long ends the server.",
    )
    max_header_bytes: int = Field(65_536, ge=1024, description="Largest head of a request: its line and headers.")
    max_headers: int = Field(100, ge=10, description="Maximum headers of a request.")
    header_seconds: float = Field(10.0, gt=0, description="Longest time that a request's head may take to arrive.")
    body_seconds: float = Field(30.0, gt=0, description="Longest time that a request's body may take to arrive.")
    max_body_bytes: int = Field(2_000_000, ge=1000, description="Largest request body.")
    idle_seconds: float = Field(
        75.0,
        gt=0,
        description="Longest silence on a connection between requests; longer than a balancer keeps its connections.",
    )
    keep_alive_seconds: float = Field(5.0, gt=0, description="Longest silence on a stream before a comment is sent.")
    shutdown_seconds: float = Field(30.0, ge=0, description="Seconds for requests in flight to finish after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of the messages that are logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="One line a message: text, or JSON for machines; auto: text on a terminal, else JSON."
    )
    store: str | None = Field(
        None,
        description="Where served answers are recorded: an SQLite file such as winnow.db, or "
        "postgresql://USER@HOST/DATABASE. A password belongs in the environment (WINNOW_STORE, or libpq's own).",
    )
    record: RecordRule = Field(
        "off",
        description="Which chat answers are recorded with all their candidates: off; opt_in, those of requests with "
        "store: true; or all, except those with store: false. They are users' text, so privacy law applies.",
    )
    retention_days: float = Field(
        90.0, ge=0, le=36_500, description="Days after which a recorded answer is deleted; 0 keeps them for good."
    )
    redact: Texts[Pattern] = Field(
        DEFAULT_REDACTIONS,
        description="Regular expressions: what one matches is recorded as [redacted]. Default: e-mail addresses, "
        "telephone, card and account numbers, and well-known keys. [] for none.",
    )
    store_key_file: Path | None = Field(
        None,
        description="File with the key by which users' ids are hashed before they are stored, made if it is not "
        "there. Default: beside an SQLite file; a store by URL needs one.",
    )
    log_content: bool = Field(
        False, description="Log prompts and answers too; they contain users' text, so privacy law applies."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.eager and self.compile:
            raise ValueError("eager and compile exclude each other")
        if self.adaptive and self.adaptive.stop.gain is not None and self.gains is None:
            raise ValueError("adaptive stops by a gain, which needs a table: name its file with gains (--gains FILE)")
        if self.record != "off" and self.store is None:
            raise ValueError(f"record is {self.record}, but there is no store; name one, such as --store winnow.db")
        if self.candidates.max > self.max_candidates:
            raise ValueError(f"candidates ({self.candidates.max}) is above max_candidates ({self.max_candidates})")
        if self.max_candidates > self.max_candidates_in_flight:
            raise ValueError(
                f"max_candidates ({self.max_candidates}) is above max_candidates_in_flight "
                f"({self.max_candidates_in_flight})"
            )
        return self

    @property
    def model_name(self) -> str:
        """The model id on the wire."""
        if self.served_model_name:
            return self.served_model_name
        policy = self.policy
        checkpoint = policy.checkpoint
        if policy.is_remote:
            checkpoint = policy.model or policy.tokenizer or policy.addresses[0].url
        return "winnow-demo" if checkpoint == str(demo.weights("policy")) else Path(checkpoint).name

    @property
    def chat_template(self) -> ChatTemplate:
        """The policy's chat template, with the rules of these settings.

        Raises:
            CheckpointError: the policy has none, or it cannot be used.
        """
        if self.policy.runs_as == "chat":
            return JinjaTemplate(CHAT_TEMPLATE, "chat", self.merge_turns)
        found = chat_template(self.policy.files, self.policy.template)
        return found.with_tags(self.tags).with_merging(self.merge_turns)

    @property
    def queue_seconds(self) -> float:
        """Longest expected wait in the queue: short where K may shrink, because that trades quality for latency."""
        return self.max_queue_seconds or (10.0 if self.candidates.min == self.candidates.max else 2.0)

    @property
    def engines(self) -> dict[str, EngineSettings]:
        """The engines' own settings by name."""
        return {"policy": self.policy, "safety": self.safety, "helpfulness": self.helpfulness}

    @property
    def reward_models(self) -> dict[str, RewardModelSettings]:
        """The reward models' own settings by name."""
        return {"safety": self.safety, "helpfulness": self.helpfulness}

    @property
    def runs_engines(self) -> bool:
        """Whether any engine runs on this machine; else all models are on other servers, and no card is needed."""
        return not (self.policy.is_remote and all(own.is_remote for own in self.reward_models.values()))

    @property
    def distinct_reward_models(self) -> dict[str, RewardModelSettings]:
        """The reward models that need an engine each, by name: the safety model alone if it has both roles."""
        return {"safety": self.safety} if self.has_one_reward_model else self.reward_models

    @property
    def has_one_reward_model(self) -> bool:
        """Whether both reward models are the same one here, read alike: one engine serves both roles then."""
        if self.safety.is_remote:
            return False
        roles = {"scale", "bias", "probe_margin"}
        return self.safety.model_dump(exclude=roles) == self.helpfulness.model_dump(exclude=roles)

    @property
    def checkpoints(self) -> dict[str, str]:
        """The engines' checkpoints by name."""
        return {
            "policy": self.policy.checkpoint,
            "safety": self.safety.checkpoint,
            "helpfulness": self.helpfulness.checkpoint,
        }

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first: flags, the environment, and the file."""
        assert isinstance(init_settings, InitSettingsSource)
        flags = InitSettingsSource(settings_cls, nested(init_settings.init_kwargs))
        return flags, Environment(settings_cls), File(settings_cls, cls.file)
