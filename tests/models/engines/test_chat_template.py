"""The choice of a policy's chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.models.byte_level import CHATML, FAMILIES, GEMMA, ship
from tests.models.real_policy import real_policy
from winnow.models import demo
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.chat_template import chat_template
from winnow.models.errors import CheckpointError

META = "{{ bos_token + '[INST] <<SYS>>' + messages[0].content }}"


def sentencepiece(folder: Path, template: object = None) -> str:
    """The demo policy's tokenizer, with a template of its own."""
    shutil.copytree(demo.weights("policy"), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return str(folder)


def test_llama2_checkpoints_are_recognised(tmp_path: Path) -> None:
    for number, template in enumerate([None, META]):
        assert chat_template(sentencepiece(tmp_path / str(number), template), "auto") == Llama2Template()
    assert chat_template(str(demo.weights("policy")), "auto") == Llama2Template()


@pytest.mark.parametrize("shape", ["text", "list", "file"])
def test_another_template_is_the_tokenizers_own_in_every_way_it_is_shipped(shape: str, tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": GEMMA}]
    folder = sentencepiece(tmp_path / "policy", {"text": GEMMA, "list": named, "file": None}[shape])
    if shape == "file":
        (Path(folder) / "chat_template.jinja").write_text(GEMMA)
    assert chat_template(folder, "auto") == chat_template(folder, "tokenizer") == JinjaTemplate(GEMMA)
    assert chat_template(folder, "llama2") == Llama2Template()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_byte_level_vocabulary_is_no_llama2(family: str, tmp_path: Path) -> None:
    assert chat_template(str(ship(family, tmp_path)), "auto") == JinjaTemplate(FAMILIES[family].template)


def test_a_real_model_brings_its_own() -> None:
    template = chat_template(str(real_policy()), "auto")
    assert "SmolLM" in template.jinja
    assert template.name == "tokenizer"


def test_a_file_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(CHATML)
    template = chat_template(str(demo.weights("policy")), str(file))
    assert (template.jinja, template.name) == (CHATML, "own.jinja")
    assert template.digest
    assert Llama2Template().digest is None


def test_a_checkpoint_without_a_template_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = ship("ChatML", tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    for choice in ("auto", "tokenizer"):
        with pytest.raises(CheckpointError, match="has no chat template; name one with --chat-template") as caught:
            chat_template(str(folder), choice)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('tools only') }}", "cannot render a question: tools only"),
        ("{% for x in %}", "cannot render a question"),
        ("{{ messages[0].content[0].text }}", "leaves a user's question out"),
        ("{{ ''.__class__.__mro__ }}", "cannot render a question"),
        ("hello", "leaves a user's question out"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_one_line(source: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jinja"
    file.write_text(source)
    with pytest.raises(CheckpointError, match=reason) as caught:
        chat_template("models/none", str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.jinja cannot be read: No such file"):
        chat_template("models/none", str(tmp_path / "nowhere.jinja"))
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(CheckpointError, match="is not UTF-8"):
        chat_template("models/none", str(tmp_path / "latin.jinja"))
