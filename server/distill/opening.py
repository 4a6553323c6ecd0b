"""The input of a run, checked before a folder is made or an engine started."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import RunError
from winnow.server.distill.options import RunOptions
from winnow.server.distill.parser import Task, parse, require_readable
from winnow.server.distill.reader import Source, open_source

logger = logging.getLogger(__name__)
SPOOL = "input.jsonl"
"""The copy of standard input in a run's folder, whatever its format."""


@dataclass(frozen=True, slots=True)
class Input:
    """The input, read once before anything is started: the numbers of the rows to answer, and of those at fault."""

    source: Source
    tasks: Sequence[int]
    problems: Sequence[int]

    @classmethod
    def opened(cls, options: RunOptions, template: ChatTemplate) -> Input:
        """Open the input.

        Raises:
            RunError: it cannot be read, its first rows are not understood, or it is empty.
        """
        source = open_source(options.prompts, options.out / SPOOL, options.input_format)
        require_readable(source, template)
        tasks, problems = array("q"), array("q")
        for item in parse(source, template, lambda remark: logger.info("note: %s", remark)):
            (tasks if isinstance(item, Task) else problems).append(item.line)
        if not (tasks or problems) and (source.total or source.is_lines):
            raise RunError(f"{source.name} holds no prompts; if that is meant, write an empty data set as []")
        return cls(source, tasks, problems)

    @property
    def total(self) -> int:
        """Rows to answer or at fault."""
        return len(self.tasks) + len(self.problems)

    @property
    def identity(self) -> dict[str, Any]:
        """The manifest's entry."""
        source = self.source
        return {"name": source.name, "sha256": source.sha256, "bytes": source.size, "format": source.kind}
