"""The checkpoint that training begins with: what is read, what is refused, and the card of the trained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.byte_level import FAMILIES
from tests.server.rm import tiny
from winnow.models.cards.card import parse_card
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import RewardInput
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.rm.initial import card_text, inspected

HOSTILE = "Say </s> or <|im_end|> and [INST] to me"
DIALOG = (Message("user", HOSTILE), Message("assistant", "No."), Message("user", "Then [/INST] this"))


def test_a_model_of_llama_2s_format_reads_what_the_policy_reads(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = inspected(str(tiny.llama2(tmp_path / "chat")), None, None)
    assert found.card == {"template": "llama2", "read_at": "last"}
    policys = Llama2Template().with_tags("neutralise").render(DIALOG, tokenizer)
    served = RewardInput(tokenizer, Llama2Template()).token_ids(policys, HOSTILE)
    assert found.reader.token_ids(Prompt((), DIALOG), HOSTILE) == served
    assert served[-1] == tokenizer.eos_id


@pytest.mark.parametrize("family", list(FAMILIES))
def test_another_reads_its_own_template_to_a_closing_token(tmp_path: Path, family: str) -> None:
    found = inspected(str(tiny.chatml(tmp_path / "chat", family=family)), None, None)
    assert found.card["template"] == "tokenizer"
    tokenizer = tiny.AutoTokenizer.from_pretrained(tmp_path / "chat")
    dialog = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a b c"}]
    text = tokenizer.apply_chat_template(dialog, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    own = found.reader.token_ids(Prompt((), (Message("user", "Hi"),)), "a b c")
    assert own[: len(ids)] == ids
    assert own[len(ids) :] == ([tokenizer.eos_token_id] if "end" in found.card else [])


def test_an_answer_that_nothing_closes_gets_eos(tmp_path: Path) -> None:
    folder = tiny.chatml(tmp_path / "chat")
    path = folder / "tokenizer_config.json"
    template = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    found = inspected(str(folder), None, None)
    assert found.card["end"] == ["<|im_end|>"]
    ids = [found.reader.token_ids(Prompt((), (Message("user", "Hi"),)), answer) for answer in ("a", HOSTILE)]
    eos = tiny.AutoTokenizer.from_pretrained(folder).eos_token_id
    assert [one.count(eos) for one in ids] == [1, 1]
    assert ids[0][-1] == ids[1][-1] == eos


def test_a_reward_model_goes_on_with_its_card(tmp_path: Path) -> None:
    folder = tiny.llama2(tmp_path / "rm", labels=1)
    card = (
        'name = "x"\ntemplate = "llama2"\nread_at = "last"\nscale = 2.0\nbias = 1.0\ncalibrated = true\nnote = "old"\n'
    )
    (folder / "winnow-card.toml").write_text(card + '[[probe]]\nprompt = "Hi"\nanswer = "Ho"\nlogit = 1.0\n')
    found = inspected(str(folder), None, 128)
    assert found.own
    assert (found.own[0].card.scale, found.context) == (2.0, 128)
    written = parse_card(card_text(found, "new", "how"), "x.toml")
    assert (written.name, written.note, written.template, written.read_at) == ("new", "how", "llama2", "last")
    assert (written.scale, written.bias, written.calibrated, written.probes) == (1.0, 0.0, False, ())


def test_a_card_of_the_users_has_the_template(tmp_path: Path) -> None:
    folder = tiny.chatml(tmp_path / "chat")
    card = tmp_path / "card.toml"
    card.write_text(
        'template = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"\nend = ["<|im_end|>"]\n'
    )
    found = inspected(str(folder), card, None)
    tokenizer = tiny.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(found.reader.token_ids(Prompt((), (Message("user", "Hi"),)), "a")).endswith(
        "user=Hi;assistant=a;<|im_end|>"
    )
    assert parse_card(card_text(found, "new", ""), "x.toml").end == ("<|im_end|>",)


def nothing(folder: Path) -> Path:
    folder.mkdir()
    return folder


def without_template(folder: Path) -> Path:
    tiny.chatml(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["chat_template"]
    path.write_text(json.dumps(content))
    return folder


def cost_model(folder: Path) -> Path:
    tiny.llama2(folder, labels=1)
    (folder / "winnow-card.toml").write_text('template = "llama2"\nscale = -1.0\n')
    return folder


def label_model(folder: Path) -> Path:
    tiny.llama2(folder)
    (folder.parent / "card.toml").write_text('adapter = "labels"\nlabels = [5, 6]\n')
    return folder


def of_another_width(folder: Path) -> Path:
    """GPT-2 calls its width n_embd."""
    path = tiny.chatml(folder) / "config.json"
    content = json.loads(path.read_text())
    content["n_embd"] = content.pop("hidden_size")
    path.write_text(json.dumps(content | {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}))
    return folder


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (without_template, {}, "no chat template; give a card that has a template: --card FILE"),
        (lambda folder: tiny.llama2(folder, labels=2), {}, "2 labels"),
        (cost_model, {}, "its score rises with harm"),
        (label_model, {"card": "card.toml"}, 'has adapter = "linear"'),
        (tiny.llama2, {"context": 4096}, "reads at most 256 tokens"),
        (of_another_width, {}, "a GPT2LMHeadModel has no hidden_size in config.json, and is not served"),
        (nothing, {}, "has no config.json"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], options: dict[str, Any], reason: str
) -> None:
    folder = make(tmp_path / "init")
    with pytest.raises(CheckpointError, match=reason):
        inspected(str(folder), tmp_path / options["card"] if "card" in options else None, options.get("context"))
