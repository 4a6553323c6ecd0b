"""A trial's findings so far, in a file, so that one that crashes or hangs leaves it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Notes:
    """The findings of a trial so far, kept in `file`; `step` says what it is doing.

    `ready_at` is when the last engine had started, by the monotonic clock, which all processes share.
    """

    file: Path
    found: dict[str, Any] = field(default_factory=dict)
    step: str = "starting"
    error: str | None = None
    ready_at: float | None = None

    def at(self, step: str) -> None:
        """Note what the trial is about to do."""
        self.step = step
        self.write()

    def write(self) -> None:
        """Write the file; a reader sees it whole."""
        told = {"found": self.found, "step": self.step, "error": self.error, "ready_at": self.ready_at}
        other = self.file.with_suffix(".part")
        other.write_text(json.dumps(told), encoding="utf-8")
        os.replace(other, self.file)
