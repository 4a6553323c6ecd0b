"""The chat template of a policy: the one that the settings name, or the one that its checkpoint asks for."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.chat_templates.sandbox import NO_NAMES, Refused, render
from winnow.models.engines.checkpoint import TEMPLATE_FILE, template_files
from winnow.models.errors import CheckpointError

META_TAGS = ("[INST]", "<<SYS>>")
"""Both stand in the chat templates that Llama-2 chat checkpoints are shipped with."""
QUESTION = ({"role": "user", "content": "Hello"},)


@lru_cache(16)
def chat_template(checkpoint: str, choice: str) -> ChatTemplate:
    """Return the chat template of the policy `checkpoint`.

    `choice` is `llama2`, `tokenizer` (the checkpoint's own), a path that ends in `.jinja`, or `auto`: Llama-2's for a
    checkpoint of that kind, else its own.

    Raises:
        CheckpointError: there is none, it cannot be read, or it does not render a question.
    """
    if choice == "llama2":
        return Llama2Template()
    if choice.endswith(".jinja"):
        return _usable(JinjaTemplate(_read(Path(choice)), Path(choice).name), choice)
    files = template_files(checkpoint)
    own = _own_template(files, checkpoint)
    if choice == "auto" and _is_llama2(files, own):
        return Llama2Template()
    if own is None:
        raise CheckpointError(
            f"policy: the tokenizer of {checkpoint} has no chat template; name one with --chat-template FILE.jinja, "
            "or llama2"
        )
    return _usable(JinjaTemplate(own), f"the tokenizer of {checkpoint}")


def _own_template(files: dict[str, str], checkpoint: str) -> str | None:
    """Return the Jinja template that a checkpoint's tokenizer is shipped with; of several the one named default."""
    if TEMPLATE_FILE in files:
        return files[TEMPLATE_FILE]
    found = _json(files, "tokenizer_config.json", checkpoint).get("chat_template")
    if isinstance(found, list):
        found = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}.get("default")
    return found if isinstance(found, str) and found.strip() else None


def _is_llama2(files: dict[str, str], own: str | None) -> bool:
    """Whether the vocabulary is SentencePiece's with byte fallback, and its own template Meta's format or none."""
    model = _json(files, "tokenizer.json", "").get("model")
    is_sentencepiece = isinstance(model, dict) and model.get("type") == "BPE" and bool(model.get("byte_fallback"))
    return is_sentencepiece and (own is None or all(tag in own for tag in META_TAGS))


def _json(files: dict[str, str], name: str, checkpoint: str) -> dict[str, object]:
    try:
        content = json.loads(files.get(name, "{}"))
    except ValueError:
        raise CheckpointError(f"policy: {name} of {checkpoint} is not valid JSON") from None
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise CheckpointError(f"policy: the chat template {path} cannot be read: {reason}") from None


def _usable(template: JinjaTemplate, source: str) -> JinjaTemplate:
    try:
        rendered = render(template.source, QUESTION, NO_NAMES, to_answer=True)
    except Refused as reason:
        raise CheckpointError(f"policy: the chat template of {source} cannot render a question: {reason}") from None
    if QUESTION[0]["content"] not in rendered:
        raise CheckpointError(f"policy: the chat template of {source} leaves a user's question out")
    return template
