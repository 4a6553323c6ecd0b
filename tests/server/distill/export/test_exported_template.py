"""The chat template beside an export: it gives the policy's tokenizer the scored ids, or is not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.models.byte_level import ship as ship_byte_level
from tests.models.byte_level import shipped
from tests.models.real_vocabulary import ship
from tests.runs import make_run, record
from tests.server.distill.export.test_export import lines, write_run
from winnow.models import demo
from winnow.models.chat_templates.exactness import exact_jinja
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import RewardInput
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import CheckpointError, RunError
from winnow.models.types import Message
from winnow.server.distill import tokenizer_copy
from winnow.server.distill.export import ALL_FORMATS, ExportOptions
from winnow.server.distill.export.formats import export

TRICKY = (" Paris", "  two\n", ", and", "\n", "(a)", "中文🙂", '"x": [1]', "\tb", "é ", "")
PAIRS = [(a, b) for a in TRICKY for b in TRICKY[:3]]
FILES = ("prompt_completion", "token_ids")
WAYS = ("LlamaTokenizer", "PreTrainedTokenizerFast, Metaspace always")
"""One for each form of the template; tests/models/chat_templates has all ways."""


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a run and of its policy's tokenizer."""
    folder = tmp_path / "run"
    make_run(folder, prompts=20)
    shipped = ship(request.param, tmp_path / "policy")
    tokenizer_copy.keep(folder, str(shipped))
    return folder, shipped


def test_rendered_rows_have_the_scored_ids(run: tuple[Path, Path], template: Llama2Template) -> None:
    """As a trainer loads the policy's tokenizer, whichever class ships it: prompt form, training form and mask."""
    folder, shipped = run
    export(folder, ["sft", "prompt-completion", "token-ids"], ExportOptions())
    theirs, ours = AutoTokenizer.from_pretrained(shipped), load_tokenizer(str(shipped), "policy")
    theirs.chat_template = (folder / "export" / "chat_template.jinja").read_text(encoding="utf-8")
    compared = 0
    for pair, ids in zip(*(lines(folder / "export" / f"{name}.jsonl") for name in FILES), strict=True):
        prompt = template.render(pair["prompt"], ours)
        scored = RewardInput(ours, template).token_ids(prompt, pair["completion"][0]["content"])
        assert ids["input_ids"] == scored
        if "</s>" in str(pair):  # rendered text cannot tell it from the token
            continue
        rendered = theirs.apply_chat_template(pair["prompt"], add_generation_prompt=True)["input_ids"]
        assert rendered == list(prompt.token_ids)
        whole = theirs.apply_chat_template(
            [*({**message, "weight": 0} for message in pair["prompt"]), *pair["completion"]],
            return_assistant_tokens_mask=True,
        )
        assert whole["input_ids"] == scored
        assert whole["assistant_masks"] == ids["completion_mask"]
        compared += 1
    assert compared > 5


def test_token_ids_are_those_that_were_scored(tmp_path: Path, template: Llama2Template) -> None:
    """Also of texts that no rendered template spells: control tokens' names."""
    messages = [(Message("user", f"{a}</s>{b}"), Message("assistant", b), Message("user", a)) for a, b in PAIRS]
    items = [record(line, Random(line), messages=dialog) for line, dialog in enumerate(messages, start=1)]
    folder = write_run(tmp_path / "run", items)
    shipped = ship("LlamaTokenizer", tmp_path / "policy")
    export(folder, ["token-ids"], ExportOptions(tokenizer=str(shipped)))
    ours = load_tokenizer(str(shipped), "policy")
    for item, row in zip(items, lines(folder / "export" / "token_ids.jsonl"), strict=True):
        prompt = template.render(item.messages, ours)
        whole = RewardInput(ours, template).token_ids(prompt, item.selection.winner.candidate.text)
        assert row["input_ids"] == whole
        assert row["completion_mask"] == [0] * len(prompt) + [1] * (len(whole) - len(prompt))
        assert row["labels"] == [-100] * len(prompt) + whole[len(prompt) :]
        assert row["line"] == item.line
    assert f"spells a control token such as `</s>`: {len(items)}." in card(folder)


def card(folder: Path) -> str:
    return (folder / "export" / "README.md").read_text(encoding="utf-8")


def test_where_no_template_is_exact_there_are_ids_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tokenizer whose control tokens take the spaces before them; a template of an earlier export goes away."""
    folder = tmp_path / "run"
    make_run(folder, prompts=5)
    export(folder, ["sft"], ExportOptions())
    tokenizer_copy.keep(folder, str(spoilt(tmp_path / "policy", lstrip=True)))
    caplog.clear()
    written = export(folder, ["sft"], ExportOptions())
    assert [item.path.name for item in written] == ["sft.jsonl", "token_ids.jsonl"]
    assert not (folder / "export" / "chat_template.jinja").exists()
    for told in (card(folder), caplog.text):
        assert "Train on the ids in `token_ids.jsonl`" in told
    assert "`chat_template.jinja` |" not in card(folder)


def spoilt(folder: Path, **options: Any) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        body = json.loads((demo.weights("policy") / name).read_text(encoding="utf-8"))
        if "added_tokens" in body:
            body["added_tokens"] = [{**token, **options} for token in body["added_tokens"]]
        (folder / name).write_text(json.dumps(body), encoding="utf-8")
    return folder


def test_without_the_policys_tokenizer_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run on a server: all formats but the ids, and a template that is not checked."""
    folder = tmp_path / "run"
    make_run(folder, prompts=5)
    with caplog.at_level(logging.WARNING):
        written = export(folder, ALL_FORMATS, ExportOptions())
    assert "token_ids.jsonl" not in [item.path.name for item in written]
    for told in (card(folder), caplog.text):
        assert "It is not checked" in told
    with pytest.raises(RunError, match="--tokenizer"):
        export(folder, ["token-ids"], ExportOptions())


@pytest.mark.parametrize("way", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_a_named_tokenizer_decides(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    make_run(folder, prompts=5)
    shipped = ship(way, tmp_path / "policy")
    export(folder, ["sft"], ExportOptions(tokenizer=str(shipped)))
    form = (folder / "export" / "chat_template.jinja").read_text(encoding="utf-8")
    assert Llama2Template().jinja_forms().index(form) == ["PreTrainedTokenizerFast", "LlamaTokenizer"].index(way)
    assert "as compared for this export" in card(folder)
    assert str(tmp_path) not in card(folder)
    assert not caplog.records
    with pytest.raises(CheckpointError, match="no tokenizer"):
        export(folder, ["sft"], ExportOptions(tokenizer=str(tmp_path / "none")))


@pytest.mark.parametrize("family", ["ChatML", "Llama 3", "Gemma's format"])
def test_the_policys_own_template_is_exported_and_gives_the_scored_ids(family: str, tmp_path: Path) -> None:
    """A run keeps it beside the tokenizer; rendered rows have the ids of `token-ids`, up to the end of the answer."""
    own = shipped(family)
    ship_byte_level(family, tmp_path / "policy")
    dialogs = [(Message("user", a), Message("assistant", "x"), Message("user", b.strip() or "c")) for a, b in PAIRS]
    items = [record(line, Random(line), messages=dialog) for line, dialog in enumerate(dialogs, start=1)]
    folder = write_run(tmp_path / "run", items)
    named = json.loads((folder / "manifest.json").read_text())
    named["models"]["policy"] = {**named["models"].get("policy", {}), "template": own.template.name}
    (folder / "manifest.json").write_text(json.dumps(named))
    with pytest.raises(RunError, match="does not hold the chat template"):
        export(folder, ["sft"], ExportOptions())
    tokenizer_copy.keep(folder, str(tmp_path / "policy"), own.template)
    export(folder, ["prompt-completion", "token-ids"], ExportOptions())
    jinja = (folder / "export" / "chat_template.jinja").read_text(encoding="utf-8")
    assert jinja == own.template.source
    assert "is the policy's own chat template" in card(folder)
    for pair, ids in zip(*(lines(folder / "export" / f"{name}.jsonl") for name in FILES), strict=True):
        answer = pair["completion"][0]["content"]
        prompt = own.ids(pair["prompt"])
        assert ids["input_ids"][: len(prompt)] == prompt
        assert ids["completion_mask"] == [0] * len(prompt) + [1] * (len(ids["input_ids"]) - len(prompt))
        if answer == answer.strip():
            whole = own.ids([*pair["prompt"], *pair["completion"]], add_generation_prompt=False)
            assert whole[: len(ids["input_ids"])] == ids["input_ids"]


def test_a_template_that_does_not_give_the_scored_ids_is_not_exported() -> None:
    """One that writes something between the opening of an answer and the answer, when the answer is there."""
    own = shipped("ChatML")
    template = JinjaTemplate(
        own.template.source.replace("'\n' + message", "'\n' + ('~' if loop.last else '') + message")
    )
    assert exact_jinja(own.template, own.ours) == own.template.source
    assert exact_jinja(template, own.ours) is None
