"""The Llama-2 recipe, in a file that the user can edit: safety preprompts, answer templates, ghost attention."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from winnow.clients.text_files import read_text
from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import RunError
from winnow.models.types import Message


def _without_tags(text: str) -> str:
    for template in TEMPLATES.values():
        if tag := template.reserved_tag(text):
            raise ValueError(f"holds the template's own tag {tag}, which is not allowed")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_without_tags)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, str_strip_whitespace=True)


class ContextDistillation(_Part):
    """Context distillation (Llama 2, section 4.2.4): a preprompt while sampling, and answer templates by category."""

    preprompt: Text
    templates: dict[str, Text] = {}

    def sampling_dialog(self, messages: tuple[Message, ...], category: str | None) -> tuple[Message, ...]:
        """Return `messages` as they are sampled: the preprompt goes before their own system message."""
        text = self.preprompt
        if category in self.templates:
            text += f" A good answer is like this one: {self.templates[category]}"
        if messages[0].role == "system":
            return (Message("system", f"{text}\n\n{messages[0].content}"), *messages[1:])
        return (Message("system", text), *messages)

    def name(self, category: str | None) -> str:
        """Return the name of the preprompt in the journal."""
        return f"preprompt+{category}" if category in self.templates else "preprompt"


class GhostAttention(_Part):
    """Ghost attention (Llama 2, section 3.3): an instruction on every user turn while sampling, stored in the first."""

    instructions: tuple[Text, ...] = Field(min_length=1, strict=False)

    def instruction(self, own: str | None, messages: tuple[Message, ...], seed: int) -> str | None:
        """Return the dialog's `own` instruction, else one drawn by `seed`; None for a single turn without its own."""
        if own is not None:
            return own
        turns = sum(message.role == "user" for message in messages)
        return self.instructions[seed % len(self.instructions)] if turns > 1 else None


def on_every_turn(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """Return `messages` with the instruction at the end of each user message."""
    return tuple(_instructed(item, instruction) if item.role == "user" else item for item in messages)


def on_first_turn(messages: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """Return `messages` with the instruction at the end of the first user message."""
    first = next(index for index, message in enumerate(messages) if message.role == "user")
    return (*messages[:first], _instructed(messages[first], instruction), *messages[first + 1 :])


def _instructed(message: Message, instruction: str) -> Message:
    return Message(message.role, f"{message.content.rstrip()} {instruction}")


class Recipe(_Part):
    """The whole file."""

    context_distillation: ContextDistillation
    ghost_attention: GhostAttention


DEFAULT = Path(__file__).with_name("recipe.toml")


def read(path: Path | None) -> tuple[Recipe, str]:
    """Return the recipe in `path`, or the one that comes with Winnow, and the SHA-256 of its text.

    Raises:
        RunError: it cannot be read, or is not a recipe; the message names the place.
    """
    try:
        text = read_text(path or DEFAULT)
    except ValueError as error:
        raise RunError(f"recipe {error}") from None
    try:
        recipe = Recipe.model_validate(tomllib.loads(text))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise RunError(f"recipe {path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except ValueError as error:
        raise RunError(f"recipe {path} is not TOML: {error}") from None
    return recipe, hashlib.sha256(text.encode()).hexdigest()
