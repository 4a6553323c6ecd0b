"""Every setting of the server: `winnow.toml` < environment `WINNOW_…` < command-line flags.

One frozen tree; each default stands here once, and the command line, its help and the README read it from here. The
environment is read in this module only.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from winnow.clients.schema import CandidateRange
from winnow.models import demo
from winnow.models.errors import WinnowError
from winnow.models.reward_model import Calibration
from winnow.models.safety_classifier import DEFAULT_PATTERNS
from winnow.models.types import CombinerName


def _not_zero(scale: float) -> float:
    if scale == 0:
        raise ValueError("a reward model's scale must not be 0")
    return scale


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _range(value: object) -> object:
    """`16` always, `4-16` as the load allows; in the file also `{min = 4, max = 16}`."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", value)
        if not found:
            raise ValueError(f"{value!r} is neither a number nor a range such as 4-16")
        return {"min": int(found[1]), "max": int(found[2] or found[1])}
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


T = TypeVar("T")
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Scale = Annotated[FiniteFloat, AfterValidator(_not_zero)]
Pattern = Annotated[str, AfterValidator(_compiles)]
Commas = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
"""A list that the environment writes with commas."""
DEFAULT_FILE = Path("winnow.toml")
PREFIX = "WINNOW_"


class SettingsError(WinnowError):
    """A setting is unknown or has a value that cannot be used; the message says which, and what would do."""


class Settings(BaseSettings):
    """The settings tree; a field's description is its documentation, on the command line too."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    policy: str = Field(str(demo.weights("policy")), description="Checkpoint that answers: a folder or a hub id.")
    safety_rm: str = Field(str(demo.weights("safety-rm")), description="Checkpoint of the safety reward model.")
    helpfulness_rm: str = Field(
        str(demo.weights("helpfulness-rm")), description="Checkpoint of the helpfulness reward model."
    )
    served_model_name: str | None = Field(
        None, description="Model id on the wire; default: the policy's last path part."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")

    api_keys: Commas[SecretStr] = Field(
        (),
        description="ApiKeys that may use the server; from the environment or the file.",
        json_schema_extra={"flag": False},
    )
    api_keys_file: Path | None = Field(
        None, description="File of keys that may use the server, one a line, or as sha256:HEX; # starts a comment."
    )
    allow_anonymous: bool = Field(
        False, description="Listen beyond this machine although no key is set: anyone who reaches the port may ask."
    )
    trusted_hosts: Commas[str] = Field(
        (), description="Host headers that are answered, *.example.org for a domain's; default: any."
    )
    accept_any_model: bool = Field(
        False, description="Answer whatever model a request names, for tools that insist on one."
    )

    candidates: Annotated[CandidateRange, NoDecode, BeforeValidator(_range)] = Field(
        CandidateRange(min=16, max=16),
        description="K, sampled for a request that does not say how many; a range, 4-16, lets K of every request shrink under load.",
    )
    max_candidates: int = Field(64, ge=1, description="Most candidates that a request may ask for.")
    combiner: CombinerName = Field(
        "llama2",
        description="How R_s and R_h decide: the paper's formula, or one that ranks every gated candidate last.",
    )
    when_all_unsafe: Literal["return", "refuse"] = Field(
        "return",
        description="If R_s < 0.15 for every candidate: return the paper's argmax, or refuse (finish_reason content_filter).",
    )
    refusal: str = Field("I'm sorry, but I can't help with that.", min_length=1, description="What a refusal says.")
    safety_patterns: tuple[Pattern, ...] = Field(
        DEFAULT_PATTERNS,
        description="Regular expressions; a last user message that matches one makes a safety prompt. [] for none.",
    )
    temperature: float = Field(1.0, gt=0, le=2, description="Sampling temperature of a request that names none.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus of a request that names none.")
    max_tokens: int = Field(512, ge=1, description="Most tokens of an answer whose request names no limit.")

    dtype: Dtype = Field("auto", description="Precision of all three engines; auto: float32 on CPU, bfloat16 on a GPU.")
    context: int | None = Field(
        None, ge=128, description="Tokens of prompt and answer together; default: the policy's own."
    )
    max_sequences: int = Field(256, ge=1, description="Candidates that an engine runs at once; the rest wait.")
    eager: bool = Field(True, description="Start without compiling: compiled engines are faster and start much slower.")
    load_format: Literal["auto", "dummy"] = Field(
        "auto",
        description="dummy: random weights in the checkpoint's shape, for benchmarks; answers mean nothing.",
    )
    policy_memory: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="GPU: the policy engine's share of the memory; default: planned from the weights and the card.",
    )
    rm_memory: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="GPU: each reward model's share of the memory; default: planned from the weights and the card.",
    )
    kv_cache_gib: float | None = Field(
        None, gt=0, description="KV cache of the policy in GiB; default: 1 on CPU, what its share leaves on a GPU."
    )
    rm_kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="KV cache of each reward model in GiB; default: 1 on CPU, what its share leaves on a GPU.",
    )
    safety_scale: Scale = Field(1.0, description="Factor on the safety model's raw score; negative for a cost model.")
    safety_bias: FiniteFloat = Field(0.0, description="Added to the scaled safety score.")
    helpfulness_scale: Scale = Field(1.0, description="Factor on the helpfulness model's raw score.")
    helpfulness_bias: FiniteFloat = Field(0.0, description="Added to the scaled helpfulness score.")
    canary: bool = Field(
        True, description="Refuse to start on a reward model that ranks a plain pair of answers wrongly."
    )

    max_candidates_in_flight: int = Field(
        256, ge=1, description="Candidates sampled or scored at once, over all requests; the rest wait in a fair queue."
    )
    max_queued_candidates: int = Field(1024, ge=0, description="Candidates that may wait; beyond it requests get 429.")
    max_queued_tokens: int = Field(65_536, ge=0, description="Prompt tokens that may wait; beyond it requests get 429.")
    max_queue_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest wait to expect in the queue; a request that would wait longer gets 429 at once. Default: 10, or 2 where "
        "candidates is a range.",
    )
    request_seconds: float = Field(
        600.0, gt=0, description="Longest time from a request's admission queue to its answer."
    )
    stall_seconds: float = Field(
        60.0, gt=0, description="An engine that owes answers and gives no sign of life for so long ends the server."
    )
    max_header_bytes: int = Field(65_536, ge=1024, description="Largest head of a request: its line and headers.")
    max_headers: int = Field(100, ge=10, description="Most headers of a request.")
    header_seconds: float = Field(10.0, gt=0, description="Longest time that a request's head may take to arrive.")
    body_seconds: float = Field(30.0, gt=0, description="Longest time that a request's body may take to arrive.")
    max_body_bytes: int = Field(2_000_000, ge=1000, description="Largest request body.")
    keep_alive_seconds: float = Field(5.0, gt=0, description="Longest silence on a stream before a comment is sent.")
    shutdown_seconds: float = Field(30.0, ge=0, description="How long requests in flight may finish after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="One line a message: text, or JSON for machines; auto: text on a terminal, else JSON."
    )
    log_content: bool = Field(
        False, description="Log prompts and answers too. They are what users wrote: mind the law."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.candidates.max > self.max_candidates:
            raise ValueError(f"candidates ({self.candidates.max}) is above max_candidates ({self.max_candidates})")
        if self.max_candidates > self.max_candidates_in_flight:
            raise ValueError(
                f"max_candidates ({self.max_candidates}) is above max_candidates_in_flight ({self.max_candidates_in_flight})"
            )
        return self

    @property
    def model_name(self) -> str:
        """The model id on the wire."""
        if self.served_model_name:
            return self.served_model_name
        return "winnow-demo" if self.policy == str(demo.weights("policy")) else Path(self.policy).name

    @property
    def queue_seconds(self) -> float:
        """Longest wait to expect in the queue: short where K may shrink, because then latency is what is asked for."""
        return self.max_queue_seconds or (10.0 if self.candidates.min == self.candidates.max else 2.0)

    @property
    def safety_calibration(self) -> Calibration:
        """How the safety model's raw score becomes a logit."""
        return Calibration(self.safety_scale, self.safety_bias)

    @property
    def helpfulness_calibration(self) -> Calibration:
        """How the helpfulness model's raw score becomes a logit."""
        return Calibration(self.helpfulness_scale, self.helpfulness_bias)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file whose path `load` put into the model's configuration."""
        return init_settings, named["env_settings"], TomlConfigSettingsSource(settings_cls)


def load(file: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; `flags` that are None were not given. Without `file`, `winnow.toml` is read if there is one.

    Raises:
        SettingsError: an unknown key, a value out of range, or a file that cannot be read.
    """
    path = file or DEFAULT_FILE
    _check_file(path, required=file is not None)
    _check_environment()
    given = {name: value for name, value in flags.items() if value is not None}
    source = type("_Settings", (Settings,), {"model_config": SettingsConfigDict(toml_file=path)})
    try:
        settings: Settings = source(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    return settings


def _check_environment() -> None:
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in Settings.model_fields:
            raise SettingsError(f"environment variable {variable}: {_unknown(name)}")


def _check_file(path: Path, *, required: bool) -> None:
    try:
        with path.open("rb") as file:
            tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise SettingsError(f"no such settings file: {path}") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None


def _explain(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{name or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
    return _unknown(name)


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0)
    return f"unknown setting {name!r}; the nearest is {nearest[0]!r}"
