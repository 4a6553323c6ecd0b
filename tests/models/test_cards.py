"""Cards: the shipped ones, and what a card that a person writes may hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from winnow.models.cards import read_card, shipped
from winnow.models.cards.card import card_text, parse_card, shipped_files
from winnow.models.errors import CheckpointError

MODELS_PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_a_shipped_card_has_at_most_15_lines_and_says_where_it_is_read() -> None:
    assert len(shipped()) >= 10
    for entry in shipped_files():
        assert len(card_text(entry).splitlines()) <= 15, entry.name
        card = parse_card(card_text(entry), entry.name)
        assert card.match or card.grades
        assert card.read_at or card.adapter in ("encoder", "judge")
        assert card.note
        assert not card.calibrated, "nobody has calibrated a public model yet"


def test_the_cards_in_the_docs_can_be_read() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", MODELS_PAGE.read_text(encoding="utf-8"), re.M | re.S)
    cards = [block for block in blocks if re.search(r"^(adapter|scale|template|system|read_at|reads) =", block, re.M)]
    assert len(cards) >= 2
    for number, block in enumerate(cards):
        parse_card(block, f"card {number} of {MODELS_PAGE.name}")


@pytest.mark.parametrize(
    ("name", "architecture", "card"),
    [
        ("beaver-7b-v1.0-cost", "LlamaModelForScore", "beaver-cost"),
        ("beaver-7b-v3.0-reward", "LlamaForScore", "beaver-reward"),
        ("Llama-Guard-3-8B", "LlamaForCausalLM", "llama-guard-3"),
        ("Skywork-Reward-V2-Qwen3-8B", "Qwen3ForSequenceClassification", "skywork-reward"),
        ("UltraRM-13b", "LlamaRewardModel", "ultrarm"),
        ("Ziya-LLaMA-7B-Reward", "LlamaRewardModel", "ziya"),
        ("shieldgemma-2b", "Gemma2ForCausalLM", "shieldgemma"),
        ("ArmoRM-Llama3-8B-v0.1", "LlamaForRewardModelWithGating", "armorm"),
        ("QRM-Llama3-8B", "LlamaForRewardModelWithGating", "qrm"),
        ("QRM-Llama3.1-8B-v2", "LlamaForRewardModelWithGating", "qrm"),
        ("ArmoRM-Llama3-8B-v0.1", "LlamaForSequenceClassification", None),
        ("Eurus-RM-7b", "EurusRewardModel", "eurus-rm"),
        ("internlm2-1_8b-reward", "InternLM2ForRewardModel", "internlm2"),
        ("beaver-7b-v1.0-cost", "LlamaForCausalLM", None),
        ("safety-rm", "LlamaForSequenceClassification", None),
        ("reward-model-deberta-v3-large-v2", "DebertaV2ForSequenceClassification", "oasst-deberta"),
        ("toxic-bert", "BertForSequenceClassification", "toxic-bert"),
        ("roberta_toxicity_classifier", "RobertaForSequenceClassification", "roberta-toxicity"),
    ],
)
def test_a_card_is_found_by_name_and_architecture(name: str, architecture: str, card: str | None) -> None:
    assert next((one.name for one in shipped() if one.is_for(name, architecture)), None) == card


def test_a_cost_model_is_turned() -> None:
    scales = {card.name: card.scale for card in shipped()}
    assert (scales["beaver-cost"], scales["beaver-reward"]) == (-1, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("head = ", "is not TOML"),
        ("heads = 1", "unknown field 'heads'; fields are name"),
        ("head = 1", "head must be a text"),
        ("context = true", "context must be a number"),
        ("context = 0", "context must be positive"),
        ("scale = 0", "scale must not be 0"),
        ('adapter = "oracle"', "adapter is 'oracle'; it may be linear, labels, gated, encoder, judge"),
        ('adapter = "judge"', "a judge needs grades, the lowest and the highest"),
        ('adapter = "judge"\ngrades = [1]', "a judge needs grades, the lowest and the highest"),
        ('adapter = "judge"\ngrades = [5, 5]', "a judge needs grades, the lowest and the highest"),
        ('adapter = "judge"\ngrades = [1, 2.5]', "grades must hold a number only"),
        ('adapter = "judge"\ngrades = [1, 9]', "a judge needs a Jinja template of messages and answer"),
        ('adapter = "judge"\ngrades = [1, 9]\ntemplate = "{{ answer }}"', "a Jinja template of messages and answer"),
        ('adapter = "judge"\ngrades = [1, 9]\nhead = "score"', "head is not a judge's"),
        ('adapter = "judge"\ngrades = [1, 9]\noverflow = "drop_oldest_turns"', "overflow is not a judge's"),
        ('adapter = "judge"\ngrades = [1, 10]\nexpected = true', "expected needs grades of one digit"),
        ("grades = [1, 9]", 'grades and expected belong to adapter = "judge"'),
        ("expected = true", 'grades and expected belong to adapter = "judge"'),
        ('read_at = "first"', "it may be last, before_pad"),
        ('labels = ["safe"]', 'labels belong to adapter = "labels"'),
        ('adapter = "labels"', "needs one or two"),
        ('adapter = "labels"\nlabels = ["a", "a"]', "two different ones"),
        ('adapter = "labels"\nlabels = ["a", true]', "labels must hold a number or a text only"),
        ('adapter = "labels"\nlabels = [1]\nhead = "x"', "there is no head to name"),
        ('gate = ["<|eot_id|>"]', 'gate belongs to adapter = "gated"'),
        ('adapter = "gated"\ngate = [true]', "gate must hold a number or a text only"),
        ('adapter = "gated"\ntemplate = "llama2"', "has no place for a gate"),
        ('template = "chatml"', 'must be "tokenizer", "llama2" or a Jinja template'),
        ('template = "llama2"\nsystem = "drop"', "a system block and an EOS of its own"),
        ("calibration = true", "calibration must be a table"),
        ('[calibration]\ndata = "x"', "calibration: n: Field required"),
        ('[calibration]\ndata = "x"\nn = 9\nprecision = 89', "calibration: precision: Input should be less than"),
        ('calibrated = false\n[calibration]\ndata = "x"\nn = 9', "calibrated is false, but there is a [calibration]"),
        ("[probe]", "probe must be tables, [[probe]] each"),
        ('[[probe]]\nanswer = "a"\nlogit = 1', "probe 1: give a prompt or a dialog, not both"),
        ('[[probe]]\nprompt = "q"\nanswer = "a"\nlogit = "high"', "probe 1: logit: Input should be a valid number"),
        ('[[probe]]\ndialog = [{role = "judge", content = "q"}]\nanswer = "a"\nlogit = 1', "probe 1: dialog.0.role"),
        ('[[probe]]\nprompt = "q"\nanswer = "a"\nlogit = 1\nlogits = 2', "probe 1: logits: Extra inputs"),
        ('reads = "pair"', 'reads and reduce belong to adapter = "encoder"'),
        ('reduce = "raw"', 'reads and reduce belong to adapter = "encoder"'),
        ('adapter = "encoder"\nreads = "both"', "reads is 'both'; it may be pair, answer"),
        ('adapter = "encoder"\nreduce = "softmax"', "it may be raw, difference, minus_max"),
        ('adapter = "encoder"\nhead = "classifier"', "an encoder has no head"),
        ('adapter = "encoder"\nread_at = "last"', "an encoder has no head, read_at"),
        ('adapter = "encoder"\nend = ["[SEP]"]', "an encoder has no head, read_at, end"),
        ('adapter = "encoder"\nbos = true', "an encoder has no head, read_at, end or bos"),
        ('adapter = "encoder"\nreads = "answer"\nsystem = "drop"', "reads no conversation"),
        ('adapter = "encoder"\nreads = "answer"\noverflow = "drop_oldest_turns"', "reads no conversation"),
        ('adapter = "encoder"\ntemplate = "tokenizer"', "a Jinja template of the conversation without the answer"),
        ('adapter = "encoder"\nlabels = ["a", "a"]', "labels must be different ones"),
        ('adapter = "encoder"\nlabels = ["a", "b"]\nreduce = "raw"', "is the logit of one label"),
        ('adapter = "encoder"\nreduce = "difference"', "needs two labels"),
        ('adapter = "encoder"\nlabels = ["a", "b", "c"]', "more than two labels need a reduce"),
    ],
)
def test_a_card_that_cannot_be_used_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_card(path)
    assert reason in str(caught.value)
    assert str(caught.value).startswith("card mine.toml")
    assert "\n" not in str(caught.value)


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"card nowhere\.toml cannot be read: No such file"):
        read_card(tmp_path / "nowhere.toml")


def test_the_digest_is_of_what_decides_a_score() -> None:
    card = shipped()[0]
    assert replace(card, note="another", name="another").sha256 == card.sha256
    assert replace(card, scale=-3.0).sha256 != card.sha256
    assert parse_card("bias = 0.0", "a.toml").sha256 == parse_card("", "b.toml").sha256, "as if the field were new"


def test_a_card_offers_its_evidence() -> None:
    text = """scale = 0.5
[calibration]
data = "beavertails"
n = 1200
date = 2026-11-26
precision = 0.89
[[probe]]
dialog = [{role = "system", content = "Be brief."}, {role = "user", content = "Hi?"}]
answer = "Hello."
logit = 3
match = "big-*"
[[probe]]
prompt = "Hi?"
answer = "Go away."
logit = -2.5
tolerance = 0.01
"""
    card = parse_card(text, "mine.toml")
    assert card.calibrated
    assert str(card.calibration) == "1,200 rows of beavertails, precision 0.89"
    assert [message.role for message in card.probes[0].messages] == ["system", "user"]
    assert [(probe.logit, probe.tolerance) for probe in card.probes] == [(3, 0.5), (-2.5, 0.01)]
    assert [probe.is_for("Big-RM") for probe in card.probes] == [True, True]
    assert [probe.is_for("small") for probe in card.probes] == [False, True]
    assert card.sha256 == parse_card("scale = 0.5\ncalibrated = true", "other.toml").sha256, "evidence decides no score"
