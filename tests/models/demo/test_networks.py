"""The demo networks: the reward models tell good from bad, and the policy samples by seed."""

from __future__ import annotations

import math

import pytest

from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.demo import ModelName, weights
from winnow.models.demo.networks import configuration, load_tokenizer, sample, score
from winnow.models.demo.world import held_out_pairs, held_out_prompts
from winnow.models.engines.base import RewardInput
from winnow.models.engines.transformers import ReferenceRewardModel
from winnow.models.reward_model import HELPFULNESS_CHECK, SAFETY_CHECK, SanityCheck
from winnow.models.tokenizer import Tokenizer
from winnow.models.training import classifier
from winnow.models.training.checkpoints import load_policy
from winnow.models.types import Message


@pytest.mark.parametrize(("name", "check"), [("safety-rm", SAFETY_CHECK), ("helpfulness-rm", HELPFULNESS_CHECK)])
def test_the_answers_of_the_sanity_check_lie_on_both_sides_of_the_safety_threshold(
    tokenizer: Tokenizer, name: ModelName, check: SanityCheck
) -> None:
    model = classifier.load(weights(name))
    dialog = (Message("user", check.question),)
    better, worse = score(model, tokenizer, [(dialog, check.better), (dialog, check.worse)])
    assert better > 0 > math.log(0.15 / 0.85) > worse


async def test_scores_are_those_of_the_reference(tokenizer: Tokenizer, template: Llama2Template) -> None:
    """Two paths through transformers: padded batches of the trunk and the head, and one sequence at a time."""
    folder = weights("helpfulness-rm")
    reference = ReferenceRewardModel(str(folder), RewardInput(tokenizer, template))
    pairs = held_out_pairs(12, kind="helpfulness")
    batched = score(classifier.load(folder), tokenizer, [(pair.messages, pair.chosen) for pair in pairs])
    for pair, logit in zip(pairs, batched, strict=True):
        prompt = template.render(pair.messages, tokenizer)
        assert await reference.score(prompt, pair.chosen) == pytest.approx(logit, abs=1e-4)


def test_the_policy_samples_by_seed_and_is_small(tokenizer: Tokenizer) -> None:
    policy = load_policy(weights("policy"))
    asked = held_out_prompts(5)
    first, second, other = (sample(policy, tokenizer, asked, 4, seed) for seed in (0, 0, 1))
    assert first == second != other
    assert [len(answers) for answers in first] == [4] * 5
    assert sum(parameter.numel() for parameter in policy.parameters()) <= 3_000_000


def test_the_shipped_policy_has_the_configuration_of_new_ones() -> None:
    shipped, new = load_policy(weights("policy")).config.to_dict(), configuration().to_dict()
    assert {name: shipped[name] for name in new if name not in ("architectures", "dtype", "_name_or_path")} == {
        name: value for name, value in new.items() if name not in ("architectures", "dtype", "_name_or_path")
    }


def test_the_tokenizer_of_every_model_is_the_same(tokenizer: Tokenizer) -> None:
    names: tuple[ModelName, ...] = ("policy", "safety-rm", "helpfulness-rm")
    assert all(load_tokenizer(weights(name)).equals(tokenizer) for name in names)
