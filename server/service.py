"""The composition root: from settings to a started service. Everything that serves is built here and handed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import EngineStatus, ServedPolicy, ServedRewardModel
from winnow.models.engines.checkpoint import inspect, is_local, load_tokenizer, require_same_tokenizer
from winnow.models.engines.environment import prepare, runs_on_gpu
from winnow.models.engines.memory import Fixed
from winnow.models.errors import CheckpointError, EngineDead
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.types import Message
from winnow.server.memory_plan import parts, precision
from winnow.server.pipeline.admission import Admission
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.pipeline.lifecycle import Lifecycle, give_up
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.models.engines.vllm import EngineOptions

logger = logging.getLogger(__name__)

ENGINE_CHECK_SECONDS = 0.5
WARM_UP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Service:
    """The started engines and what stands on them."""

    settings: Settings
    template: Llama2Template
    tagger: SafetyClassifier
    policy: ServedPolicy
    safety: ServedRewardModel
    helpfulness: ServedRewardModel
    admission: Admission
    life: Lifecycle = field(default_factory=Lifecycle)

    @property
    def pipeline(self) -> BestOfN:
        """The best-of-N pipeline over the three engines."""
        return BestOfN(self.policy, self.safety, self.helpfulness)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together; the reward models need one more, for EOS."""
        return min(self.policy.context, self.safety.context - 1, self.helpfulness.context - 1)

    @property
    def engines(self) -> dict[str, EngineStatus]:
        """The three engines by name."""
        return {"policy": self.policy, "safety": self.safety, "helpfulness": self.helpfulness}

    @property
    def is_alive(self) -> bool:
        """Whether requests can be answered: all three engines run, and none has been found hanging."""
        return not self.lifecycle.is_dead and all(engine.is_alive for engine in self.engines.values())

    @property
    def is_ready(self) -> bool:
        """Whether new requests are taken."""
        return self.is_alive and not self.lifecycle.is_draining

    async def watch(self) -> None:
        """Look after the engines: the service's life ends when one has died, or has hung for `stall_seconds`."""
        await asyncio.gather(*(self._watch(name, engine) for name, engine in self.engines.items()))

    async def _watch(self, name: str, engine: EngineStatus) -> None:
        limit = self.settings.stall_seconds
        stuck = asyncio.create_task(engine.is_stuck(limit))
        try:
            while True:
                await asyncio.wait([stuck], timeout=ENGINE_CHECK_SECONDS)
                if not engine.is_alive:
                    return self.lifecycle.end(EngineDead(f"the {name} engine has died"))
                if not stuck.done():
                    continue
                if error := stuck.exception():
                    logger.error("the %s engine could not be asked for a sign of life: %s", name, type(error).__name__)
                elif stuck.result():
                    return self.lifecycle.end(EngineDead(f"the {name} engine hangs: no answer for {limit:g} s"))
                await asyncio.sleep(ENGINE_CHECK_SECONDS)
                stuck = asyncio.create_task(engine.is_stuck(limit))
        finally:
            give_up(stuck)

    async def warm_up(self) -> None:
        """Answer one request and, if asked for, let each reward model's canary sing.

        Raises:
            CheckpointError: a canary failed, or the engines did not answer in ten minutes.
            EngineDead: an engine has died.
        """
        try:
            await asyncio.wait_for(self._warm_up(), WARM_UP_SECONDS)
        except TimeoutError:
            raise CheckpointError(f"the engines did not answer a first request within {WARM_UP_SECONDS} s") from None

    async def _warm_up(self) -> None:
        if self.settings.load_format == "dummy":
            logger.warning("the weights are random (load_format dummy): no canary sings, and no answer means anything")
        elif self.settings.canary:
            await asyncio.gather(
                SAFETY_CHECK.sing("safety", self.safety, self.template),
                HELPFULNESS_CHECK.sing("helpfulness", self.helpfulness, self.template),
            )
        prompt = self.template.render([Message("user", "Hello")])
        await self.pipeline.select(prompt, Sampling(max_tokens=8), self.settings.candidates.max, self.settings.combiner)


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[Service]:
    """Start the three engines, one after another, and end their processes on leaving.

    Call it from the main thread, before an event loop runs: on CPU the engines are forked, unless torch has been imported
    before, when they are spawned, which is safe then and slower.

    Raises:
        CheckpointError: a checkpoint is missing, damaged, of the wrong kind, or does not fit the others.
        DoesNotFit: the memory does not suffice for all three.
    """
    needs_weights = settings.load_format != "dummy"
    inspect(settings.policy, "policy", needs_weights=needs_weights)
    inspect(settings.safety_rm, "reward model", needs_weights=needs_weights)
    inspect(settings.helpfulness_rm, "reward model", needs_weights=needs_weights)
    fork = not runs_on_gpu() and "torch" not in sys.modules
    prepare(offline=all(map(is_local, _checkpoints(settings))), eager=settings.eager)
    told = parts(settings)
    tokenizer = load_tokenizer(settings.policy, "policy")
    for checkpoint in (settings.safety_rm, settings.helpfulness_rm):
        require_same_tokenizer(tokenizer, load_tokenizer(checkpoint, "reward model"), checkpoint)
    template = Llama2Template(tokenizer)
    logger.info("starting three engines; with the demo models this takes about 20 seconds")

    from winnow.models.engines.vllm import start_policy, start_reward_model

    with contextlib.ExitStack() as running:
        options = [_options(settings, *engine, fork) for engine in zip(_checkpoints(settings), told, strict=True)]
        policy = start_policy(options[0], template)
        running.callback(policy.shutdown)
        safety = start_reward_model(options[1], "safety", template.eos_id, settings.safety_calibration)
        running.callback(safety.shutdown)
        helpfulness = start_reward_model(options[2], "helpfulness", template.eos_id, settings.helpfulness_calibration)
        running.callback(helpfulness.shutdown)
        tagger = SafetyClassifier(settings.safety_patterns)
        yield Service(settings, template, tagger, policy, safety, helpfulness, _admission(settings))


def _admission(settings: Settings) -> Admission:
    return Admission(
        settings.max_candidates_in_flight,
        settings.max_queued_candidates,
        settings.max_queued_tokens,
        settings.queue_seconds,
    )


def _checkpoints(settings: Settings) -> tuple[str, str, str]:
    return settings.policy, settings.safety_rm, settings.helpfulness_rm


def _options(settings: Settings, checkpoint: str, told: Fixed, fork: bool) -> EngineOptions:
    from winnow.models.engines.vllm import EngineOptions

    return EngineOptions(
        checkpoint=checkpoint,
        dtype=precision(settings),
        context=settings.context,
        kv_cache=told.kv_cache,
        memory_share=told.share,
        max_sequences=settings.max_sequences,
        eager=settings.eager,
        load_format=settings.load_format,
        on_gpu=runs_on_gpu(),
        fork=fork,
    )
