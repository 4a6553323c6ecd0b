"""Chat templates: from a dialog to the ids that a policy continues. A new one is a name and a row of `TEMPLATES`."""

from collections.abc import Mapping
from typing import Literal

from winnow.models.chat_templates.base import ChatTemplate, TagRule
from winnow.models.chat_templates.llama2 import Llama2Template

__all__ = ["TEMPLATES", "TagRule", "TemplateName"]

TemplateName = Literal["llama2"]
TEMPLATES: Mapping[TemplateName, ChatTemplate] = {"llama2": Llama2Template()}
"""Every chat template, by its name in the settings."""
