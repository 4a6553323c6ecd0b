"""The table of expected gains of a running server: read once, so that answers can be repeated, and taught meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from winnow.models.errors import GainsError
from winnow.models.gains import GainTable, Trace, trace_of
from winnow.models.types import Selection
from winnow.server.pipeline.waves import Waves

logger = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
MAX_TRACES = 100_000
"""Prompts that are kept between two saves; further ones teach nothing."""


class ServedGains:
    """The table that this process stops by, which never changes, and what it has served since, for the next start.

    The file holds sums, and no text. It belongs to one server: of two that write it the later one wins.
    """

    def __init__(self, path: Path, table: GainTable) -> None:
        self.path = path
        self.table = table
        self.digest = table.digest
        self.is_writable = os.access(path.parent, os.W_OK)
        self._taught = table
        self._traces: list[Trace] = []

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> ServedGains:
        """Return the table in `path`, which must be of the models of `fingerprint`; an empty one if there is no file.

        Raises:
            GainsError: the file is damaged, or of other models; or there is none, and none can be written.
        """
        if not path.exists():
            if not path.parent.is_dir():
                raise GainsError(f"{path} can be neither read nor written: its folder does not exist")
            logger.info("there is no table of gains yet: what is served will make one")
            return cls(path, GainTable.learn(fingerprint, ()))
        gains = cls(path, GainTable.read(path, fingerprint))
        if not gains.is_writable:
            logger.info("the table of gains cannot be written: what is served does not add to it")
        return gains

    def observe(self, selection: Selection, waves: Waves | None) -> None:
        """Remember what a selection, drawn in `waves` or all at once, tells about further candidates."""
        if self.is_writable and len(self._traces) < MAX_TRACES:
            trace = trace_of(selection, (waves.start, waves.step) if waves else None)
            if trace:
                self._traces.append(trace)

    def save(self) -> None:
        """Write the table with what has been served; a failure is logged. No other thread may call it meanwhile."""
        traces, self._traces = self._traces, []
        if not traces:
            return
        today = datetime.now(UTC).date().isoformat()
        self._taught = GainTable.learn(self.table.fingerprint, traces, date=today, onto=self._taught)
        try:
            self._taught.write(self.path)
        except GainsError as error:
            logger.warning("%s", error)

    async def keep_saving(self) -> None:
        """Write the table from time to time, outside the event loop, until cancelled; then once more."""
        try:
            while True:
                await asyncio.sleep(SAVE_SECONDS)
                # Shielded: a write that has begun ends before the last one.
                writing = asyncio.create_task(asyncio.to_thread(self.save))
                try:
                    await asyncio.shield(writing)
                except asyncio.CancelledError:
                    await writing
                    raise
        finally:
            self.save()
