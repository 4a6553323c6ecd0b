"""The composition root: from settings to a started service. Everything that serves is built here and passed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from winnow.models.cards.evidence import CalibrationRecord
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.base import EngineStatus, MayBeDown, RewardInput, ServedPolicy, ServedRewardModel
from winnow.models.engines.checkpoint import inspect_policy, load_tokenizer
from winnow.models.engines.environment import may_fork, prepare
from winnow.models.engines.hardware import Card, first_card
from winnow.models.engines.heap import growing
from winnow.models.engines.hub import is_local
from winnow.models.engines.memory import NOT_FIXED, Fixed
from winnow.models.engines.model_server import RemoteEngine
from winnow.models.engines.registry import KINDS
from winnow.models.errors import CheckpointError, DialogError, EngineDead, GainsError, unavailable
from winnow.models.gains import ADVICE
from winnow.models.reward_model import SANITY_CHECKS, Calibration, require_labels, require_score
from winnow.models.safety_classifier import SafetyClassifier
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import CombinerName, Message, Prompt
from winnow.server.aio import cancel
from winnow.server.classifiers import chosen_classifier, require_judge_of_prompts
from winnow.server.engine_options import engine_options, needs_card, require_cards
from winnow.server.memory_plan import engine_parts, policy_part
from winnow.server.model_identity import models_fingerprint
from winnow.server.pipeline.admission import Admission
from winnow.server.pipeline.best_of_n import BestOfN
from winnow.server.pipeline.lifecycle import Lifecycle
from winnow.server.pipeline.rendering import PromptRenderer, ScorerLimit
from winnow.server.pipeline.request import Defaults, waves_of
from winnow.server.remote_models import found_policy, with_files
from winnow.server.reward_models import Scoring, combiner_of, inspect_reward_models, scorings, start_reward_model
from winnow.server.served_gains import ServedGains
from winnow.server.settings import Settings
from winnow.server.store.recorder import Recorder

logger = logging.getLogger(__name__)

ENGINE_CHECK_SECONDS = 0.5
WARM_UP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Service:
    """The started engines and everything built on them."""

    settings: Settings
    template: ChatTemplate
    tokenizer: Tokenizer
    classifier: SafetyClassifier
    policy: ServedPolicy
    safety: ServedRewardModel
    helpfulness: ServedRewardModel
    admission: Admission
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    card: Card | None = None
    """The GPU, as it was before the engines started; None on CPU."""
    gains: ServedGains | None = None
    """The table of expected gains; None without one, so that no request can ask for a stop by it."""
    scorings: Mapping[str, Scoring] = field(default_factory=dict)
    """Each reward model's reader and calibration; a scripted model has neither."""
    recorder: Recorder | None = None
    """Records served answers; None without a store."""

    @property
    def pipeline(self) -> BestOfN:
        """The best-of-N pipeline over the engines."""
        settings = self.settings
        return BestOfN(
            self.policy,
            self.safety,
            self.helpfulness,
            self.calibration("safety"),
            self.calibration("helpfulness"),
            settings.empty_last,
            # One model scores an answer twice: the second time nearly all of it is in the prefix cache.
            helpfulness_on_demand=self.helpfulness is self.safety,
            expected_gain=self.gains.table.expected if self.gains else None,
        )

    @property
    def renderer(self) -> PromptRenderer:
        """The renderer of requests for the served policy."""
        return PromptRenderer(
            self.tokenizer,
            self.template,
            self.classifier,
            self.context,
            self.policy.vocabulary,
            self._limits,
            takes_messages_only=self.settings.policy.runs_as == "chat",
        )

    @property
    def _limits(self) -> tuple[ScorerLimit, ...]:
        """The limits of the reward models that do not read the policy's own tokens."""
        return tuple(
            ScorerLimit(name, scoring.reader, self.reward_models[name].context)
            for name, scoring in self.scorings.items()
            if not (isinstance(scoring.reader, RewardInput) and scoring.reader.shares_policy_ids)
        )

    @property
    def defaults(self) -> Defaults:
        """The defaults and limits of a request over HTTP."""
        settings = self.settings
        return Defaults(
            candidates=settings.candidates.max,
            least=settings.candidates.min,
            max_candidates=settings.max_candidates,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            combiner=self.combiner,
            adaptive=waves_of(settings.adaptive) if settings.adaptive else None,
            knows_gains=bool(self.gains and self.gains.table.knows),
        )

    @property
    def combiner(self) -> CombinerName:
        """The combiner of requests that name none."""
        return combiner_of(self.settings, (scoring.scorer.card for scoring in self.scorings.values()))

    @property
    def calibrated(self) -> dict[str, bool]:
        """Whether each reward model's card says that it is calibrated."""
        return {name: scoring.scorer.card.calibrated for name, scoring in self.scorings.items()}

    @property
    def calibration_records(self) -> dict[str, CalibrationRecord | None]:
        """The origin of each reward model's scale and bias; None if its card is silent or settings replace them."""
        return {
            name: scoring.scorer.card.calibration
            if (own := self.settings.reward_models[name]).scale is None and own.bias is None
            else None
            for name, scoring in self.scorings.items()
        }

    def calibration(self, name: str) -> Calibration:
        """Return the calibration of the reward model `name`."""
        own, scoring = self.settings.reward_models[name], self.scorings.get(name)
        return own.calibration(scoring.scorer.card if scoring else None)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together; the reward models need more, for EOS or their own template."""
        rooms = (
            self.scorings[name].room(model.context) if name in self.scorings else model.context - 1
            for name, model in self.reward_models.items()
        )
        return min(self.policy.context, *rooms)

    @property
    def reward_models(self) -> dict[str, ServedRewardModel]:
        """The two reward models by name."""
        return {"safety": self.safety, "helpfulness": self.helpfulness}

    @property
    def engines(self) -> dict[str, EngineStatus]:
        """The engines by name; a model in both roles is one."""
        return {"policy": self.policy, **self.reward_models}

    @property
    def is_alive(self) -> bool:
        """Whether requests can be answered: all engines run, and none has been found to hang."""
        return not self.lifecycle.is_dead and all(engine.is_alive for engine in self.engines.values())

    @property
    def is_ready(self) -> bool:
        """Whether new requests are taken."""
        return self.is_alive and not self.lifecycle.is_draining and not self.outages

    @property
    def outages(self) -> dict[str, str]:
        """Reasons why engines on other servers cannot be used for now, by name; empty if all can."""
        down = {name: engine.outage for name, engine in self.engines.items() if isinstance(engine, MayBeDown)}
        return {name: reason for name, reason in down.items() if reason}

    @property
    def degraded(self) -> dict[str, str]:
        """The servers that cannot be used for now of engines on several, counted and with the reason, by engine."""
        shown = {}
        for name, engine in self.engines.items():
            if isinstance(engine, RemoteEngine) and not engine.outage and (down := engine.server.down):
                servers = f"{len(down)} of {len(engine.server.endpoints)} servers"
                shown[name] = f"{servers} cannot be used: {'; '.join(dict.fromkeys(down))}"
        return shown

    def require_engines(self) -> None:
        """Check that every engine can be used.

        Raises:
            ModelUnavailable: one cannot, for now.
        """
        for name, reason in self.outages.items():
            raise unavailable(name, reason)

    async def watch(self) -> None:
        """Watch each engine by itself; the first that dies, or hangs for `stall_seconds`, ends the lifecycle."""
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
                    logger.error("cannot probe the %s engine: %s", name, type(error).__name__)
                elif stuck.result():
                    return self.lifecycle.end(EngineDead(f"the {name} engine hangs: no answer for {limit:g} s"))
                await asyncio.sleep(ENGINE_CHECK_SECONDS)
                stuck = asyncio.create_task(engine.is_stuck(limit))
        finally:
            cancel(stuck)

    async def leave_loop(self) -> None:
        """Close the connections to models on other servers; call it when the running loop is about to end."""
        for engine in self.engines.values():
            if isinstance(engine, RemoteEngine):
                for endpoint in engine.server.endpoints:
                    await endpoint.leave_loop()

    async def warm_up(self) -> None:
        """Answer one request, and run each reward model's sanity check if the settings ask for it.

        Raises:
            CheckpointError: a sanity check failed, or the engines did not answer within ten minutes.
            EngineDead: an engine has died.
        """
        try:
            await asyncio.wait_for(self._warm_up(), WARM_UP_SECONDS)
        except TimeoutError:
            raise CheckpointError(f"the engines did not answer a first request within {WARM_UP_SECONDS} s") from None

    async def _warm_up(self) -> None:
        settings = self.settings
        if settings.load_format == "dummy":
            logger.warning(
                "the weights are random (load_format dummy): no sanity check is run, and answers mean nothing"
            )
        elif settings.canary:
            await asyncio.gather(*map(self.require_sound, self.reward_models))
        prompt = self.template.render([Message("user", "Hello")], self.tokenizer)
        # A chat endpoint may be paid for by the token.
        candidates = 1 if settings.policy.runs_as == "chat" else settings.candidates.max
        await self.pipeline.select(prompt, Sampling(max_tokens=8), candidates, self.combiner)

    async def require_sound(self, name: str) -> None:
        """Check the reward model `name`: its label tokens, its sanity check, and the published scores of its card.

        Raises:
            CheckpointError: one fails.
            CandidateFailed, EngineDead: the engine gave no score.
        """
        check, model = SANITY_CHECKS[name], self.reward_models[name]
        prompt = self.template.render([Message("user", check.question)], self.tokenizer)
        await require_labels(name, model, prompt, check.better)
        await check.run(name, model, prompt, self.calibration(name))
        for probe in self.scorings[name].scorer.card.probes if name in self.scorings else ():
            await require_score(name, model, self._rendered(probe.messages), probe)

    def _rendered(self, messages: Sequence[Message]) -> Prompt:
        """Return a prompt for the reward models, also of a dialog that the policy's template does not render."""
        try:
            return self.template.render(messages, self.tokenizer)
        except DialogError:
            return Prompt((), tuple(messages))


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[Service]:
    """Start the engines of this machine, one after another, and end their processes on leaving.

    The reward models come first, so that on a GPU the policy gets what they have left; a model in both roles has one
    engine. Those that this process itself runs come last, because they load torch. Call it from the main thread, before
    an event loop runs: the engines are forked, unless torch has been imported before; then they are spawned, which is
    safe and slower.

    Raises:
        CheckpointError: a checkpoint is missing, damaged, of the wrong kind, or does not match the others.
        DoesNotFit: the memory does not suffice for all of them.
    """
    with contextlib.ExitStack() as running:
        with growing():
            service = running.enter_context(_started(settings))
        yield service


@contextlib.contextmanager
def _started(settings: Settings) -> Iterator[Service]:
    remote = None
    require_cards(settings)
    settings = with_files(settings)
    if not settings.policy.is_remote:
        folder = inspect_policy(settings.policy.checkpoint, needs_weights=settings.load_format != "dummy")
    scorers = inspect_reward_models(settings)
    if settings.policy.is_remote:
        remote, place = found_policy(settings.policy)
        folder = place if settings.policy.runs_as == "chat" else inspect_policy(str(place), needs_weights=False)
        logger.info("policy: %s at %s", remote.name, remote.link.shown)
    fork = may_fork()
    named = (settings.policy.files, *settings.checkpoints.values())
    prepare(offline=all(map(is_local, named)), compiled=settings.compile)
    template = settings.chat_template
    parts = engine_parts(settings)
    gains = opened_gains(settings, template)
    tokenizer = load_tokenizer(settings.policy.files, "policy")
    served = scorings(settings, scorers, tokenizer, template)
    require_judge_of_prompts(settings, served["safety"])
    card = first_card() if needs_card(settings) else None
    if card and card.mps is False:
        logger.warning("MPS is off: the engines' kernels take turns on the card, and scoring never overlaps decoding")
    for name, scoring in served.items():
        logger.info("%s reward model: %s", name, scoring)
    if settings.combiner is None and combiner_of(settings, (one.scorer.card for one in served.values())) != "llama2":
        logger.info("the combiner is safe_first, because a reward model is not calibrated; --combiner changes it")
    if parts:
        logger.info("starting %d engines; with the demo models this takes about 10 seconds", len(parts))
    with contextlib.ExitStack() as running:
        models = _start(settings, parts, served, running, in_process=False, fork=fork)
        part = NOT_FIXED if remote else policy_part(settings, parts["policy"])
        policy_options = engine_options(settings, "policy", part, fork=fork)
        policy = KINDS[settings.policy.runs_as].policy(
            replace(policy_options, checkpoint=str(folder)), tokenizer, remote
        )
        running.callback(policy.shutdown)
        models |= _start(settings, parts, served, running, in_process=True, fork=fork)
        safety = models["safety"]
        helpfulness = models.get("helpfulness", safety)
        classifier = chosen_classifier(settings, safety, served["safety"].calibration)
        admission = Admission(
            settings.max_candidates_in_flight,
            settings.max_queued_candidates,
            settings.max_queued_tokens,
            settings.queue_seconds,
        )
        yield Service(
            settings, template, tokenizer, classifier, policy, safety, helpfulness, admission,
            card=card, gains=gains, scorings=served,
        )  # fmt: skip


def opened_gains(settings: Settings, template: ChatTemplate) -> ServedGains | None:
    """Return the settings' table of expected gains; None if they name none.

    Raises:
        GainsError: it cannot be used, or knows nothing although the settings stop by it.
        CheckpointError: a model is missing.
    """
    if settings.gains is None:
        return None
    gains = ServedGains.open(settings.gains, models_fingerprint(settings, template))
    if settings.adaptive and settings.adaptive.stop.gain is not None and not gains.table.knows:
        raise GainsError(f"adaptive stops by a gain, and {settings.gains} knows none yet; {ADVICE}")
    return gains


def _start(
    settings: Settings,
    parts: Mapping[str, Fixed],
    served: Mapping[str, Scoring],
    running: contextlib.ExitStack,
    *,
    in_process: bool,
    fork: bool,
) -> dict[str, ServedRewardModel]:
    """Start the reward models that this process itself runs, or the others; `running` ends them."""
    models = {}
    for name in settings.distinct_reward_models:
        if KINDS[served[name].scorer.kind].is_in_process is in_process:
            models[name] = start_reward_model(settings, name, parts.get(name, NOT_FIXED), served[name], fork=fork)
            running.callback(models[name].shutdown)
    return models
