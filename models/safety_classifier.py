"""The classifier of safety prompts, whose answers are ranked by R_s alone.

The paper tags prompts by the data set they come from. At inference time a request may carry the tag; otherwise
a classifier decides. The answers to a prompt that it misses still face the safety threshold, R_s < 0.15; after a false
alarm the safest answer wins instead of the most helpful one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from winnow.models.safety_patterns import DEFAULT_PATTERNS
from winnow.models.types import Dialog, Message


class SafetyClassifier:
    """Tags a dialog whose last message matches one of the patterns (Python regular expressions, any case)."""

    def __init__(self, patterns: Sequence[str] = DEFAULT_PATTERNS) -> None:
        # One search each, not one of them all: other threads run between two searches of a long text.
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def __call__(self, dialog: Dialog) -> bool:
        """Whether `dialog` asks for something dangerous, as far as the patterns can tell."""
        if not dialog:
            return False
        last = dialog[-1]
        content = last.content if isinstance(last, Message) else last["content"]
        return any(pattern.search(content) for pattern in self._patterns)
