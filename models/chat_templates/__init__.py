"""Chat templates: from a dialog to the ids that a policy continues. A new one is a row of `TEMPLATES`."""

from collections.abc import Mapping

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.llama2 import Llama2Template

TEMPLATES: Mapping[str, ChatTemplate] = {"llama2": Llama2Template()}
"""Every chat template, by its name in the settings."""
