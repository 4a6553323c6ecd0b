"""The input of a run, checked before a folder is made or an engine started."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import RunError
from winnow.server.distill.budget import Limits
from winnow.server.distill.options import RunOptions
from winnow.server.distill.parser import Task, parse, require_readable
from winnow.server.distill.reader import Source, open_source

logger = logging.getLogger(__name__)
SPOOL = "input.jsonl"
"""The copy of standard input in a run's folder, whatever its format."""


@dataclass(frozen=True, slots=True)
class Input:
    """The input, read once before anything is started: the numbers of the rows to answer, and of those at fault.

    Of a shard they are its own rows'; the rest is the whole input's, so that shards have one identity.
    """

    source: Source
    tasks: Sequence[int]
    problems: Sequence[int]
    limits: Mapping[int, Limits]
    """Of a run with a budget: the least and the most candidates of each task that can be answered."""
    asks_gain: bool
    """Whether a line has waves of its own that end by an expected gain."""

    @classmethod
    def opened(cls, options: RunOptions, template: ChatTemplate) -> Input:
        """Open the input.

        Raises:
            RunError: it cannot be read, its first rows are not understood, or it is empty.
        """
        source = open_source(options.prompts, options.out / SPOOL, options.input_format)
        require_readable(source, template)
        tasks, problems, limits, asks_gain = array("q"), array("q"), {}, False
        for item in parse(source, template, lambda remark: logger.info("note: %s", remark)):
            (tasks if isinstance(item, Task) else problems).append(item.line)
            if isinstance(item, Task):
                asks_gain |= bool(item.options.adaptive and item.options.adaptive.gain is not None)
                if options.choices.budget and (found := options.choices.limits(item)):
                    limits[item.line] = found
        if not (tasks or problems) and (source.total or source.is_lines):
            raise RunError(f"{source.name} holds no prompts; if that is meant, write an empty data set as []")
        if options.shard:
            tasks, problems = (array("q", filter(options.has, lines)) for lines in (tasks, problems))
        return cls(source, tasks, problems, limits, asks_gain)

    @property
    def total(self) -> int:
        """Rows to answer or at fault."""
        return len(self.tasks) + len(self.problems)

    @property
    def identity(self) -> dict[str, Any]:
        """The manifest's entry."""
        source = self.source
        return {"name": source.name, "sha256": source.sha256, "bytes": source.size, "format": source.kind}
