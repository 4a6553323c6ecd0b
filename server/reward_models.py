"""The two reward models of the settings: inspected, and with what each of them reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from winnow.models.cards import Card
from winnow.models.chat_templates import TEMPLATES, TemplateName
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.base import AnswerReader, RewardInput, ServedRewardModel
from winnow.models.engines.checkpoint import load_plain_tokenizer, tokenizer_of
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.judge import JudgeInput
from winnow.models.engines.memory import Fixed
from winnow.models.engines.registry import KINDS
from winnow.models.engines.reward_text import CardInput, resolved
from winnow.models.engines.scorers import Scorer, inspect_scorer
from winnow.models.errors import CheckpointError, SettingsError
from winnow.models.reward_model import Calibration
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import CombinerName, Message
from winnow.server.engine_options import engine_options
from winnow.server.remote_models import card_of_settings, found_scorer, require_fitting
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = str
"""`safety` or `helpfulness`."""
LLAMA2: TemplateName = "llama2"


@dataclass(frozen=True, slots=True)
class Scoring:
    """One reward model as it is served: its files, what it reads, and the calibration of its logits.

    `overhead` are the tokens that it reads more than the policy: its template, and EOS.
    """

    scorer: Scorer
    reader: AnswerReader
    calibration: Calibration
    overhead: int = 1

    def room(self, context: int) -> int:
        """Return the tokens of the policy's prompt and answer that fit a `context` of the reward model's.

        An estimate where the tokenizers differ. A model that reads a part of a long conversation, or none of it, has
        no limit, and a judge's is its server's own.
        """
        reads_all = not isinstance(self.reader, EncoderInput) or self.reader.reads_history
        has_limit = reads_all and self.scorer.card.overflow == "refuse" and self.scorer.kind != "judge"
        return context - self.overhead if has_limit else sys.maxsize

    def __str__(self) -> str:
        card = "a card made of its config" if self.scorer.is_derived else f"card {self.scorer.card.name}"
        state = "calibrated" if self.scorer.card.calibrated else "not calibrated"
        if remote := self.scorer.remote:
            card = f"{remote.name} at {remote.link.shown}, {card}"
        if self.scorer.card.calibration:
            state += f" ({self.scorer.card.calibration})"
        return f"{card}, scale {self.calibration.scale:g}, bias {self.calibration.bias:g}, {state}"


def inspect_reward_models(settings: Settings) -> dict[Role, Scorer]:
    """Return both reward models, read from their own files; one on another server is waited for.

    Raises:
        CheckpointError: one cannot be served.
        SettingsError: the safety classifier cannot be made of the safety model, or a server's key cannot be used.
    """
    for name, own in settings.reward_models.items():
        require_fitting(name, own)
    # Those of this machine first: a refusal must not wait for another's server.
    order = sorted(settings.reward_models, key=lambda name: settings.reward_models[name].is_remote)
    found = {name: inspect_reward_model(settings, name) for name in order}
    if settings.safety_classifier == "probe" and found["safety"].card.reads == "answer":
        raise SettingsError(
            "safety_classifier is probe, but the safety model reads the answer alone: it would prefer the refusal "
            "behind every prompt; use patterns"
        )
    return {name: found[name] for name in settings.reward_models}


def inspect_reward_model(settings: Settings, name: Role) -> Scorer:
    """Return the reward model `name`, read from its own files; one on another server is waited for.

    Raises:
        CheckpointError: it cannot be served.
        SettingsError: a server's key cannot be used.
    """
    own = settings.reward_models[name]
    require_fitting(name, own)
    if own.is_remote:
        found = found_scorer(name, own)
    else:
        needs_weights = settings.load_format != "dummy"
        found = inspect_scorer(own.checkpoint, own.card, needs_weights=needs_weights, scale=own.scale)
    if own.kind not in (None, found.kind):
        raise CheckpointError(f"{name}.kind is {own.kind}, but its checkpoint is one for {found.kind}; leave kind out")
    if (encoder := found.encoder) and (own.context or 0) > encoder.context:
        raise CheckpointError(
            f"{name}.context is {own.context}, but its model reads at most {encoder.context} tokens; leave it out"
        )
    return found


def scoring_alone(settings: Settings, name: Role, scorer: Scorer) -> Scoring:
    """Return the reward model `name` as it reads without a policy: by its own tokenizer and template.

    Raises:
        CheckpointError: its card does not fit its tokenizer.
    """
    found, reader = with_reader(scorer)
    return Scoring(found, reader, settings.reward_models[name].calibration(scorer.card))


def start_reward_model(
    settings: Settings, name: Role, part: Fixed, scoring: Scoring, *, fork: bool
) -> ServedRewardModel:
    """Start the engine of the reward model `name` with its `part` of the memory.

    Raises:
        CheckpointError: it cannot be started.
    """
    scorer = scoring.scorer
    options = engine_options(settings, name, part, fork=fork, card=scorer.card, kind=scorer.kind)
    kind = KINDS[scorer.kind]
    return kind.reward_model(replace(options, checkpoint=str(scorer.folder)), scorer, scoring.reader)


def scorings(
    settings: Settings, scorers: Mapping[Role, Scorer], tokenizer: Tokenizer, template: ChatTemplate
) -> dict[Role, Scoring]:
    """Return both reward models with what they read beside a policy of this tokenizer and template.

    Raises:
        CheckpointError: a card does not fit its model's tokenizer.
    """
    found = {}
    for name, own in settings.reward_models.items():
        scorer, reader = with_reader(scorers[name], tokenizer, template)
        prompt = template.render([Message("user", "Hello")], tokenizer)
        overhead = max(1, len(reader.token_ids(prompt, "")) - len(prompt))
        found[name] = Scoring(scorer, reader, own.calibration(scorer.card), overhead)
    return found


def combiner_of(settings: Settings, cards: Iterable[Card | None]) -> CombinerName:
    """Return the settings' combiner; without one, the paper's formula if all `cards` are of calibrated models.

    0.15 means nothing on the scale of a model that is not. With the formula an unsafe answer would win wherever the
    helpfulness model scores a safe one lower than that.
    """
    if settings.combiner:
        return settings.combiner
    return "llama2" if all(card and card.calibrated for card in cards) else "safe_first"


def combiner_of_settings(settings: Settings) -> CombinerName:
    """Return the combiner that a service with these settings would have.

    Raises:
        CheckpointError: a card or a config cannot be read.
    """
    return combiner_of(settings, (card_of_settings(name, own) for name, own in settings.reward_models.items()))


def with_reader(
    scorer: Scorer, tokenizer: Tokenizer | None = None, template: ChatTemplate | None = None
) -> tuple[Scorer, AnswerReader]:
    """Return what a reward model reads, and the model with its label tokens resolved; without a policy, its own ids.

    A model with the policy's tokenizer and Llama 2's template reads the policy's own ids. So does one without a card.

    Raises:
        CheckpointError: the card does not fit the tokenizer, or there is no template.
    """
    card = scorer.card
    if scorer.kind == "judge":
        return scorer, JudgeInput(card)
    if scorer.encoder:
        return scorer, EncoderInput(card, load_plain_tokenizer(str(scorer.folder), "reward model"))
    loaded = load_plain_tokenizer(str(scorer.folder), "reward model")
    if card.template == LLAMA2 or (card.template is None and card.adapter == "linear"):
        own = _llama_tokenizer(scorer, loaded, is_required=card.template == LLAMA2)
        policys = tokenizer if own and template and template.name == LLAMA2 else None
        is_policys = policys is not None and own is not None and policys.equals(own)
        # Without a template of its own, a classifier of Llama 2's family is taken to have been trained on Llama 2's.
        is_llama2s = own is not None and bool(own.dummy_space) and not loaded.chat_template
        if own and (is_policys or card.template == LLAMA2 or is_llama2s):
            reads_end = not (card.read_at == "before_pad" and scorer.pad_id == own.eos_id)
            return scorer, RewardInput(
                policys if policys and is_policys else own, TEMPLATES[LLAMA2], is_policys, reads_end=reads_end
            )
    reader = CardInput(card, loaded, scorer.pad_id)
    return replace(scorer, head=resolved(scorer.head, card, reader)), reader


def _llama_tokenizer(scorer: Scorer, loaded: PreTrainedTokenizerBase, *, is_required: bool) -> Tokenizer | None:
    """Return a tokenizer as Llama 2's template needs it; None if it is of another kind."""
    try:
        return tokenizer_of(loaded, str(scorer.folder), "reward model")
    except CheckpointError:
        if is_required:
            raise
        return None
