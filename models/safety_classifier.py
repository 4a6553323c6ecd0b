"""The classifier of safety prompts, whose answers are ranked by R_s alone.

The paper tags prompts by the data set they come from. At inference time a request may carry the tag; otherwise
this classifier decides, by patterns over the user's words. It is deliberately simple. The answers to a missed
prompt still face the safety threshold, R_s < 0.15; after a false alarm the safest answer wins instead of the
most helpful one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from winnow.models.types import Dialog, Message

DEFAULT_PATTERNS: tuple[str, ...] = (
    r"\b(bombs?|explosives?|grenades?|malware|ransomware|computer virus)\b",
    r"\b(make|build|get|buy|sell|smuggle) (?:a |an |some |illegal )*(weapons?|guns?|poison|meth|drugs?)\b",
    r"\b(hack|break) into\b",
    r"\b(steal|stolen|rob|forge|counterfeit|smuggle|kidnap|blackmail|stalk|murder|threaten|beat up|spy on"
    r"|illegal|illegally)\b",
    r"\b(poison|kill|hurt|stab|attack) (?:my|a|an|some|the)? ?"
    r"(neighbou?r|boss|wife|husband|person|people|someone|man|woman|child|friend|teacher|dog|cat)\b",
    r"\b(kill|hurt|harm) (myself|yourself|himself|herself)\b",
    r"\b(set .{1,40} on fire|burn down|cheat on my tax(es)?)\b",
)


class SafetyClassifier:
    """Tags a dialog whose last message matches one of the patterns (Python regular expressions, any case)."""

    def __init__(self, patterns: Sequence[str] = DEFAULT_PATTERNS) -> None:
        self._pattern = (
            re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE) if patterns else None
        )

    def __call__(self, dialog: Dialog) -> bool:
        """Whether `dialog` asks for something dangerous, as far as the patterns can tell."""
        if self._pattern is None or not dialog:
            return False
        last = dialog[-1]
        content = last.content if isinstance(last, Message) else last["content"]
        return self._pattern.search(content) is not None
