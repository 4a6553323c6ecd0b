"""The reward models of the settings: what each reads beside a policy, and the combiner that follows from the cards."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live import ScriptedServer, scripted
from tests.models.engines import tiny, tiny_encoders
from winnow.models import demo
from winnow.models.cards import Card
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import RewardInput
from winnow.models.engines.encoder_text import EncoderInput
from winnow.models.engines.hardware import Card as GpuCard
from winnow.models.engines.memory import GIB
from winnow.models.engines.reward_text import CardInput
from winnow.models.errors import CheckpointError, SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.memory_plan import part_alone
from winnow.server.reward_models import (
    Scoring,
    combiner_of,
    combiner_of_settings,
    inspect_reward_model,
    inspect_reward_models,
    scoring_alone,
    scorings,
)
from winnow.server.settings import Settings, of_reward_model

TEMPLATE = Llama2Template()


def found(tokenizer: Tokenizer, safety: Path, **own: Any) -> Scoring:
    settings = Settings(safety={"checkpoint": str(safety), **own})  # type: ignore[arg-type]
    return scorings(settings, inspect_reward_models(settings), tokenizer, TEMPLATE)["safety"]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The demo's safety model without its card."""
    folder = Path(shutil.copytree(demo.weights("safety-rm"), tmp_path / "mine"))
    (folder / "winnow-card.toml").unlink()
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("rm") / "foreign", "qwen3", tiny.byte_level(bos=False))


def test_a_llama_with_the_policys_tokenizer_reads_the_policys_ids(tokenizer: Tokenizer, plain: Path) -> None:
    """So no prefix of a prompt is lost to the cache; with the demo's card as without one."""
    for folder in (demo.weights("safety-rm"), plain):
        scoring = found(tokenizer, folder)
        assert isinstance(scoring.reader, RewardInput)
        assert scoring.reader.shares_policy_ids
        assert scoring.reader.tokenizer is tokenizer
        assert scoring.overhead == 1


def test_a_llama_with_another_tokenizer_renders_for_itself(tokenizer: Tokenizer, plain: Path) -> None:
    path = plain / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [name for name in vocabulary if len(name) > 1 and not name.startswith("<")][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))
    reader = found(tokenizer, plain).reader
    assert isinstance(reader, RewardInput)
    assert not reader.shares_policy_ids
    prompt = TEMPLATE.render([Message("user", "Hi there")], tokenizer)
    own = TEMPLATE.render(prompt.messages, reader.tokenizer)
    assert reader.token_ids(prompt, "Hello")[: len(own)] == list(own.token_ids)


@pytest.mark.parametrize(("read_at", "reads_end"), [("last", True), ("before_pad", False)])
def test_a_llama_whose_pad_token_is_eos_is_read_where_its_card_says(
    tokenizer: Tokenizer, plain: Path, read_at: str, reads_end: bool
) -> None:
    tiny.edit_config(plain, pad_token_id=2)
    with pytest.raises(CheckpointError, match="its pad token is EOS"):
        found(tokenizer, plain)
    card = plain.parent / "card.toml"
    card.write_text(f'template = "llama2"\nread_at = "{read_at}"\n')
    prompt = TEMPLATE.render([Message("user", "Hi")], tokenizer)
    ids = found(tokenizer, plain, card=card).reader.token_ids(prompt, "Hello")
    assert (ids[-1] == tokenizer.eos_id) == reads_end


def test_a_foreign_model_reads_its_own_template(tokenizer: Tokenizer, foreign: Path) -> None:
    scoring = found(tokenizer, foreign)
    assert isinstance(scoring.reader, CardInput)
    prompt = TEMPLATE.render([Message("user", "Hello")], tokenizer)
    read = len(scoring.reader.token_ids(prompt, ""))
    assert scoring.overhead == max(1, read - len(prompt))
    assert scoring.room(100) == 100 - scoring.overhead
    assert "made of its config, scale 1, bias 0, not calibrated" in str(scoring)


def test_a_model_that_reads_a_part_does_not_limit_the_policy(
    tokenizer: Tokenizer, foreign: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card.toml"
    card.write_text('overflow = "drop_oldest_turns"\n')
    assert found(tokenizer, foreign, card=card).room(100) == sys.maxsize


def test_the_settings_scale_wins_over_the_cards(tokenizer: Tokenizer, foreign: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text("scale = -2\nbias = 0.5\n")
    of_card, own = found(tokenizer, foreign, card=card), found(tokenizer, foreign, card=card, scale=3.0)
    assert (of_card.calibration.scale, of_card.calibration.bias) == (-2, 0.5)
    assert (own.calibration.scale, own.calibration.bias) == (3.0, 0.5)


@pytest.mark.parametrize(
    ("calibrated", "setting", "combiner"),
    [
        ((True, True), None, "llama2"),
        ((True, False), None, "safe_first"),
        ((False, False), "llama2", "llama2"),
        ((True, True), "safe_first", "safe_first"),
    ],
)
def test_uncalibrated_models_are_combined_safe_first(
    calibrated: tuple[bool, bool], setting: str | None, combiner: str
) -> None:
    settings = Settings(combiner=setting)  # type: ignore[arg-type]
    assert combiner_of(settings, [Card(name="x", calibrated=one) for one in calibrated]) == combiner


def test_the_combiner_is_known_before_anything_is_loaded(foreign: Path) -> None:
    assert combiner_of_settings(Settings()) == "llama2"
    assert combiner_of_settings(Settings(helpfulness={"checkpoint": str(foreign)})) == "safe_first"  # type: ignore[arg-type]


def test_a_service_tells_its_combiner(tokenizer: Tokenizer, foreign: Path) -> None:
    settings = Settings(safety={"checkpoint": str(foreign)})  # type: ignore[arg-type]
    service = scripted(tokenizer)
    assert (service.combiner, service.calibrated) == ("llama2", {})
    own = scorings(settings, inspect_reward_models(settings), tokenizer, TEMPLATE)
    served = replace(service, settings=settings, scorings=own)
    assert (served.combiner, served.defaults.combiner) == ("safe_first", "safe_first")
    assert served.calibrated == {"safety": False, "helpfulness": True}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders.encoder(tmp_path_factory.mktemp("rm") / "judge", "roberta")


def encoder_card(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "card.toml"
    path.write_text(f'adapter = "encoder"\n{text}\n')
    return path


def test_an_encoder_that_reads_the_whole_conversation_limits_the_policy(tokenizer: Tokenizer, encoder: Path) -> None:
    scoring = found(tokenizer, encoder)
    assert isinstance(scoring.reader, EncoderInput)
    prompt = TEMPLATE.render([Message("user", "Hello")], tokenizer)
    assert scoring.overhead == max(1, len(scoring.reader.token_ids(prompt, "")) - len(prompt))
    assert scoring.room(512) == 512 - scoring.overhead


@pytest.mark.parametrize(
    "card", ['reads = "answer"', 'overflow = "drop_oldest_turns"', 'template = "{{ messages[-1].content }}"']
)
def test_an_encoder_that_reads_a_part_does_not(tokenizer: Tokenizer, encoder: Path, tmp_path: Path, card: str) -> None:
    assert found(tokenizer, encoder, card=encoder_card(tmp_path, card)).room(512) == sys.maxsize


def test_a_context_beyond_the_encoders_is_refused(encoder: Path) -> None:
    safety: Any = {"checkpoint": str(encoder), "context": 513}
    with pytest.raises(CheckpointError, match=r"safety\.context is 513, but its model reads at most 512 tokens"):
        inspect_reward_models(Settings(safety=safety))
    assert inspect_reward_models(Settings(safety={**safety, "context": 200}))["safety"].encoder
    assert inspect_reward_models(Settings(safety={"checkpoint": str(encoder)}, context=4096))["safety"].encoder  # type: ignore[arg-type]


def test_a_kind_that_is_not_the_encoders_is_refused(encoder: Path) -> None:
    safety: Any = {"checkpoint": str(encoder), "kind": "vllm"}
    with pytest.raises(CheckpointError, match=r"safety\.kind is vllm, but its checkpoint is one for transformers"):
        inspect_reward_models(Settings(safety=safety))


def test_the_probe_needs_a_safety_model_that_reads_the_question(encoder: Path, tmp_path: Path) -> None:
    """One that reads the answer alone prefers the refusal behind every prompt, so that each is a safety prompt."""
    for card, is_refused in (('reads = "answer"', True), ('reads = "pair"', False)):
        safety: Any = {"checkpoint": str(encoder), "card": encoder_card(tmp_path, card)}
        settings = Settings(safety=safety, safety_classifier="probe")
        if is_refused:
            with pytest.raises(SettingsError, match="reads the answer alone: it would prefer the refusal"):
                inspect_reward_models(settings)
        else:
            inspect_reward_models(settings)


def test_a_foreign_model_without_a_template_needs_a_card(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "bare", "llama", tiny.byte_level(None))
    with pytest.raises(CheckpointError, match="no chat template; write a card with a template"):
        found(tokenizer, folder)


def test_a_calibration_is_told_unless_settings_replace_it(tokenizer: Tokenizer, plain: Path) -> None:
    (plain / "winnow-card.toml").write_text(
        'template = "llama2"\nread_at = "last"\nscale = 0.4\nbias = -3.6\n\n'
        '[calibration]\ndata = "labels.jsonl"\nn = 1384\ndate = 2026-11-26\nprecision = 0.78\nrecall = 0.89\n'
    )
    for own, is_told in (({}, True), ({"safety_bias": 1.0}, False)):
        service = scripted(tokenizer, safety_rm=str(plain), **own)
        inspected = inspect_reward_models(service.settings)
        service = replace(service, scorings=scorings(service.settings, inspected, tokenizer, TEMPLATE))
        with ScriptedServer.start(service) as server, server.http as http:
            told = http.get("/version").json()
        record = {"data": "labels.jsonl", "n": 1384, "date": "2026-11-26", "precision": 0.78, "recall": 0.89}
        assert told["calibration"]["safety"] == (record if is_told else None)
        assert told["calibration"]["helpfulness"]["data"] == "helpfulness-rm.jsonl"


def test_a_model_alone_reads_what_it_reads_beside_a_foreign_policy(tokenizer: Tokenizer, plain: Path) -> None:
    settings = of_reward_model("safety", checkpoint=str(plain), dtype=None)
    alone = scoring_alone(settings, "safety", inspect_reward_model(settings, "safety"))
    prompt = TEMPLATE.render([Message("user", "Hi there")], tokenizer)
    beside = found(tokenizer, plain).reader
    assert alone.reader.token_ids(Prompt((), prompt.messages), "Hello") == beside.token_ids(prompt, "Hello")


def test_a_models_own_settings_come_from_the_caller_alone(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a scale in a forgotten winnow.toml would be calibrated against."""
    (tmp_path / "winnow.toml").write_text("[safety]\nscale = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINNOW_SAFETY__BIAS", "7")
    own = of_reward_model("safety", checkpoint=str(plain), context=512).safety
    assert (own.scale, own.bias, own.context) == (None, None, 512)
    with pytest.raises(SettingsError, match="context"):
        of_reward_model("safety", checkpoint=str(plain), context=1)


def test_one_model_has_the_memory_to_itself(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = of_reward_model("safety", checkpoint=str(plain))
    assert part_alone(settings, "safety").kv_cache
    card = GpuCard("a card", 80 * GIB, 80 * GIB, (9, 0), None)
    monkeypatch.setattr("winnow.server.memory_plan.runs_on_gpu", lambda: True)
    monkeypatch.setattr("winnow.server.memory_plan.first_card", lambda: card)
    assert 0 < (part_alone(settings, "safety").share or 0) < 0.9
