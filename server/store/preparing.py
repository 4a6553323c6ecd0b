"""From a served answer to the row that is written: redacted, people as digests, and an end. Runs in the writer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson

from winnow.server.distill.records import Arm, Record, dump
from winnow.server.store.pseudonyms import Pseudonyms
from winnow.server.store.redaction import Redactor
from winnow.server.store.rows import NewRow, Served

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes rows; `retention_days` 0 keeps them for good."""

    redactor: Redactor
    pseudonyms: Pseudonyms
    retention_days: float

    def row(self, served: Served) -> NewRow:
        """Return the row of an answer.

        Raises:
            TypeError: a text cannot be written as JSON.
        """
        of_user = self.pseudonyms.of_user
        return NewRow(
            id=served.id,
            created=served.created,
            expires=served.created + round(self.retention_days * DAY) if self.retention_days else None,
            owner=None if served.owner is None else self.pseudonyms.of_owner(served.owner),
            user_digest=of_user(served.user) if served.user else None,
            identifier_digest=of_user(served.identifier) if served.identifier else None,
            model=served.model,
            refusal=served.refusal,
            record=dump(self._record(served)).decode(),
        )

    def _record(self, served: Served) -> Record:
        """Return the answer as an entry of a journal; its line is the row's number, once it has one."""
        selection = self.redactor.selection(served.selection)
        dialog = orjson.dumps([message.as_dict() for message in selection.prompt.messages])
        return Record(
            line=0,
            id=served.id,
            digest=hashlib.blake2b(dialog, digest_size=16).hexdigest(),
            category=None,
            mask_history=False,
            n=served.n,
            arms=(Arm(selection.candidates, served.temperature),),
            prompt_tokens=served.selection.prompt_tokens,
            selection=selection,
        )
