"""The engine kinds: a table from a kind's name in the settings to the functions that start such an engine.

A new kind is a new row of `KINDS`. The functions import their library only when they are called:
engines are forked, and vLLM must not be loaded before `winnow.models.engines.environment.prepare` has
set its environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from winnow.models.engines.base import AnswerReader, EngineKind, EngineOptions, ServedPolicy, ServedRewardModel
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.remote import RemoteModel
from winnow.models.engines.scorers import Scorer
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Starters:
    """The start functions of one engine kind, by role; both raise `CheckpointError` if it cannot be started.

    A policy on another server is started with what that tells of it.

    An engine that `is_in_process` loads torch into this process, from which no other can be forked afterwards: it is
    started last.
    """

    policy: Callable[[EngineOptions, Tokenizer, RemoteModel | None], ServedPolicy]
    reward_model: Callable[[EngineOptions, Scorer, AnswerReader], ServedRewardModel]
    is_in_process: bool = False


def _vllm_policy(options: EngineOptions, tokenizer: Tokenizer, _: RemoteModel | None = None) -> ServedPolicy:
    from winnow.models.engines.vllm import start_policy

    return start_policy(options, tokenizer)


def _vllm_reward_model(options: EngineOptions, scorer: Scorer, reader: AnswerReader) -> ServedRewardModel:
    from winnow.models.engines.vllm import start_reward_model

    return start_reward_model(options, reader, scorer.head)


def _no_policy(options: EngineOptions, tokenizer: Tokenizer, _: RemoteModel | None = None) -> ServedPolicy:
    raise CheckpointError(f"the {options.name} cannot be of this engine kind, which serves reward models alone")


def _no_reward_model(options: EngineOptions, scorer: Scorer, reader: AnswerReader) -> ServedRewardModel:
    raise CheckpointError(f"the {options.name} reward model cannot be of this engine kind, which serves policies alone")


def _completions(options: EngineOptions, tokenizer: Tokenizer, remote: RemoteModel | None) -> ServedPolicy:
    from winnow.models.engines.completions import start_policy

    assert remote
    return start_policy(options, remote, tokenizer)


def _encoder(options: EngineOptions, scorer: Scorer, reader: AnswerReader) -> ServedRewardModel:
    from winnow.models.engines.encoder import start_reward_model

    assert scorer.encoder
    assert isinstance(reader, EncoderInput)
    return start_reward_model(options, scorer.encoder, reader)


def _classify(options: EngineOptions, scorer: Scorer, reader: AnswerReader) -> ServedRewardModel:
    from winnow.models.engines.classify import start_classify

    assert scorer.remote
    return start_classify(options, scorer.remote, reader, scorer.card.labels)


def _judge(options: EngineOptions, scorer: Scorer, reader: AnswerReader) -> ServedRewardModel:
    from winnow.models.engines.judge import Judge

    assert scorer.remote
    return Judge(options, scorer.remote, scorer.card)


def _chat(options: EngineOptions, tokenizer: Tokenizer, remote: RemoteModel | None) -> ServedPolicy:
    from winnow.models.engines.chat import ChatPolicy

    assert remote
    return ChatPolicy(options, remote, tokenizer)


KINDS: Mapping[EngineKind, Starters] = {
    "vllm": Starters(_vllm_policy, _vllm_reward_model),
    "transformers": Starters(_no_policy, _encoder, is_in_process=True),
    "classify": Starters(_no_policy, _classify),
    "judge": Starters(_no_policy, _judge),
    "completions": Starters(_completions, _no_reward_model),
    "chat": Starters(_chat, _no_reward_model),
}
