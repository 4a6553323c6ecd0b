"""The composition root: from settings to a started service. Everything that serves is built here and handed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from winnow.models.checkpoint import inspect, is_local, load_tokenizer, require_same_tokenizer
from winnow.models.environment import prepare, runs_on_gpu
from winnow.models.policy import Sampling
from winnow.models.reward import HELPFULNESS_CANARY, SAFETY_CANARY
from winnow.models.safety_tagger import SafetyTagger
from winnow.models.template import Llama2Template
from winnow.models.types import Message
from winnow.server.best_of_n import BestOfN
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.models.engine import EngineOptions, VllmPolicy, VllmRewardModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """The started engines and what stands on them."""

    settings: Settings
    template: Llama2Template
    tagger: SafetyTagger
    policy: VllmPolicy
    safety: VllmRewardModel
    helpfulness: VllmRewardModel
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an engine has been found dead, so that what waits for an answer can stop waiting."""

    @property
    def pipeline(self) -> BestOfN:
        """The best-of-N pipeline over the three engines."""
        return BestOfN(self.policy, self.safety, self.helpfulness)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together; the reward models need one more, for EOS."""
        return min(self.policy.context, self.safety.context - 1, self.helpfulness.context - 1)

    @property
    def is_alive(self) -> bool:
        """Whether all three engines still run."""
        return all(engine.is_alive for engine in (self.policy, self.safety, self.helpfulness))

    async def warm_up(self) -> None:
        """Answer one request and, if asked for, let each reward model's canary sing.

        Raises:
            CheckpointError: a canary failed.
        """
        if self.settings.canary:
            await asyncio.gather(
                SAFETY_CANARY.sing("safety", self.safety, self.template),
                HELPFULNESS_CANARY.sing("helpfulness", self.helpfulness, self.template),
            )
        prompt = self.template.render([Message("user", "Hello")])
        await self.pipeline.select(prompt, Sampling(max_tokens=8), self.settings.candidates, self.settings.combiner)


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[Service]:
    """Start the three engines, one after another, and end their processes on leaving.

    Call it from the main thread, before an event loop runs: on CPU the engines are forked, unless torch has been imported
    before, when they are spawned, which is safe then and slower.

    Raises:
        CheckpointError: a checkpoint is missing, damaged, of the wrong kind, or does not fit the others.
    """
    inspect(settings.policy, "policy")
    inspect(settings.safety_rm, "reward model")
    inspect(settings.helpfulness_rm, "reward model")
    fork = not runs_on_gpu() and "torch" not in sys.modules
    prepare(offline=all(map(is_local, _checkpoints(settings))))
    tokenizer = load_tokenizer(settings.policy, "policy")
    for checkpoint in (settings.safety_rm, settings.helpfulness_rm):
        require_same_tokenizer(tokenizer, load_tokenizer(checkpoint, "reward model"), checkpoint)
    template = Llama2Template(tokenizer)
    logger.info("starting three engines; with the demo models this takes about 20 seconds")

    from winnow.models.engine import start_policy, start_reward_model

    with contextlib.ExitStack() as running:
        policy = start_policy(_policy_options(settings, fork), template)
        running.callback(policy.shutdown)
        safety = start_reward_model(
            _rm_options(settings, settings.safety_rm, fork), "safety", template.eos_id, settings.safety_calibration
        )
        running.callback(safety.shutdown)
        helpfulness = start_reward_model(
            _rm_options(settings, settings.helpfulness_rm, fork), "helpfulness", template.eos_id,
            settings.helpfulness_calibration,
        )  # fmt: skip
        running.callback(helpfulness.shutdown)
        yield Service(settings, template, SafetyTagger(settings.safety_patterns), policy, safety, helpfulness)


def _checkpoints(settings: Settings) -> tuple[str, str, str]:
    return settings.policy, settings.safety_rm, settings.helpfulness_rm


def _policy_options(settings: Settings, fork: bool) -> EngineOptions:
    return _options(settings, settings.policy, settings.kv_cache_gib, settings.policy_memory, None, fork)


def _rm_options(settings: Settings, checkpoint: str, fork: bool) -> EngineOptions:
    return _options(settings, checkpoint, settings.rm_kv_cache_gib, settings.rm_memory, 8.0, fork)


def _options(
    settings: Settings,
    checkpoint: str,
    kv_cache_gib: float | None,
    memory_share: float,
    gpu_kv_cache_gib: float | None,
    fork: bool,
) -> EngineOptions:
    from winnow.models.engine import EngineOptions

    on_gpu = runs_on_gpu()
    return EngineOptions(
        checkpoint=checkpoint,
        dtype=settings.dtype if settings.dtype != "auto" else "bfloat16" if on_gpu else "float32",
        context=settings.context,
        kv_cache_gib=kv_cache_gib or (gpu_kv_cache_gib if on_gpu else 1.0),
        memory_share=memory_share,
        max_sequences=settings.max_sequences,
        eager=settings.eager,
        on_gpu=on_gpu,
        fork=fork,
    )
