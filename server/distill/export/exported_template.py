"""The chat format of an export: a Jinja template that gives the ids that were sampled and scored, or none."""

from __future__ import annotations

from dataclasses import dataclass

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.exactness import exact_jinja
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill.export import CHAT_TEMPLATE, FILES
from winnow.server.distill.export.sources import AnsweredPrompt


@dataclass(frozen=True, slots=True)
class ExportedTemplate:
    """The policy's template, its tokenizer if that is known, and the Jinja template for trainers.

    `jinja` was tried with the tokenizer, and is None if no form of the template is exact with it. Without a tokenizer
    it is the template's first form.
    """

    template: ChatTemplate
    tokenizer: Tokenizer | None
    jinja: str | None

    @classmethod
    def of(cls, template: ChatTemplate, tokenizer: Tokenizer | None) -> ExportedTemplate:
        """Return the chat format, with the form of the template that suits `tokenizer`."""
        return cls(template, tokenizer, exact_jinja(template, tokenizer) if tokenizer else template.jinja)

    @property
    def is_exact(self) -> bool:
        """Whether `jinja` was found to give the policy's tokenizer the ids that were sampled and scored."""
        return self.tokenizer is not None and self.jinja is not None

    @property
    def about(self) -> str:
        """Remarks about the template, for the card and the terminal."""
        name, ids = self.template.name, f"`{FILES['token-ids'].name}`"
        if self.jinja is None and self.tokenizer is None:
            return (
                f"The chat format is the served model's own (`{name}`), which is not known here, so there is no "
                f"`{CHAT_TEMPLATE}`. `winnow export RUN --tokenizer CHECKPOINT` adds the checkpoint's."
            )
        if self.jinja is None:
            return (
                f"No Jinja template of the chat format `{name}` gives the policy's tokenizer the ids that were sampled "
                f"and scored, so there is no `{CHAT_TEMPLATE}`. Train on the ids in {ids}."
            )
        if self.tokenizer is None:
            return (
                f"`{CHAT_TEMPLATE}` writes the chat format `{name}`. It is not checked, because the policy's tokenizer "
                "is not known here: the same vocabulary, shipped otherwise, may need another form of the template. "
                "`winnow export RUN --tokenizer CHECKPOINT` compares the ids, and can export them."
            )
        if self.template.digest:
            return (
                f"`{CHAT_TEMPLATE}` is the policy's own chat template. It gives the policy's tokenizer the ids that "
                "were sampled and scored, as compared for this export. It marks no loss: train on prompts and "
                f"completions, or on the ids in {ids}."
            )
        return (
            f"`{CHAT_TEMPLATE}` writes the chat format `{name}`. It gives the policy's tokenizer the ids that were "
            "sampled and scored, as compared for this export. A tokenizer with the same vocabulary, shipped otherwise, "
            "may need another form of the template: export again with `--tokenizer`, or train on `token-ids`."
        )

    @property
    def about_control_tokens(self) -> str:
        """A sentence on the Jinja template and control tokens' names in a text."""
        if self.template.digest:
            return "By the template that name becomes the token."
        return "The template puts a space into that name, because rendered text cannot tell it from the token itself."

    def spells_a_control_token(self, prompt: AnsweredPrompt) -> bool:
        """Whether a message or an answer spells a control token, which the Jinja template does not render as text."""
        if self.tokenizer is None:
            return False
        texts = [message.content for message in prompt.messages]
        texts += [answer.candidate.text for answer in prompt.answers]
        return any(name in text for name in self.tokenizer.control_tokens for text in texts)
