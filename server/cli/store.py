"""`winnow store`: recorded answers, on the machine of the store; a server may go on writing meanwhile."""

from __future__ import annotations

import dataclasses
import json as json_lines
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.distill import FormatsOption, chosen_formats
from winnow.server.cli.options import one_line_errors
from winnow.server.distill.export import ALL_FORMATS, ExportOptions
from winnow.server.settings import load

if TYPE_CHECKING:
    from winnow.server.store.location import Location
    from winnow.server.store.pseudonyms import Pseudonyms
    from winnow.server.store.store import Store

app = typer.Typer(no_args_is_help=True, help="Look after recorded answers: count, prune, forget a user, export.")
Place = Annotated[
    str | None, typer.Option("--store", help="An SQLite file or a PostgreSQL URL; default: the setting store.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="The store's key file; default: the setting store_key_file, or beside the file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


@app.command()
def status(store: Place = None, json: AsJson = False) -> None:
    """Count what is in the store, and name the origins of its answers: which models scored them."""
    with _opened(store) as (place, found):
        now = int(time.time())
        counts = found.counts(now)
        origins = [
            {"origin": one.number, "answers": one.selections, **_models(one.manifest)} for one in found.origins()
        ]
        if json:
            body = {"store": str(place), **dataclasses.asdict(counts), "origins": origins}
            print(json_lines.dumps(body))
            return
        print(f"{place}: {counts.selections:,} answers, {counts.bytes / 1e6:,.1f} MB")
        if counts.selections:
            print(f"  from {_day(counts.oldest)} to {_day(counts.newest)}")
        print(f"  {counts.expired:,} have expired; {counts.exports:,} exports, {counts.forgotten:,} forgotten users")
        if counts.batches:
            print(f"  {counts.annotations:,} annotations in {counts.batches:,} batches")
        for line in origins:
            named = ", ".join(f"{role} {line[role]}" for role in line if role not in ("origin", "answers"))
            print(f"  origin {line['origin']}: {line['answers']:,} answers; {named}")


@app.command()
def prune(
    store: Place = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, help="Delete answers older than so many days, too.")
    ] = None,
) -> None:
    """Delete answers that have expired; a running server does that every hour."""
    with _opened(store) as (_, found):
        now = int(time.time())
        before = None if older_than is None else round(now - older_than * 86_400)
        print(f"deleted: {found.prune(now, before):,} answers")
        found.compact()


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="The `user` or `safety_identifier` that requests had.")],
    store: Place = None,
    key_file: KeyFile = None,
) -> None:
    """Delete every answer to a user for good, and name the exports that still hold some.

    Answers that a running server has not written yet are left out as well.
    """
    with one_line_errors():
        names = _names(store, key_file)
    with _opened(store, names) as (_, found):
        forgotten = found.forget(names.of_user(user), int(time.time()))
        about = f", {forgotten.annotations:,} annotations" if forgotten.annotations else ""
        print(f"deleted: {forgotten.selections:,} answers{about}")
        if forgotten.exports:
            print("these exports were written while they were there; delete them, and what was made of them:")
        for export in forgotten.exports:
            print(f"  {_day(export.created)}  {export.path}  ({export.formats})")


@app.command()
def export(
    store: Place = None,
    formats: FormatsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: STORE-export beside it.")] = None,
    origin: Annotated[int | None, typer.Option(min=1, help="Only the answers of this origin.")] = None,
    with_questioned: Annotated[
        bool, typer.Option("--with-questioned", help=str(ExportOptions.model_fields["with_questioned"].description))
    ] = False,
) -> None:
    """Write the answers as training data; `winnow export store:FILE` does the same, with every option."""
    with one_line_errors():
        from winnow.server.store.exporting import export as run

        logging.basicConfig(format="winnow: %(message)s")
        wanted = chosen_formats(formats, default=ALL_FORMATS, of_store=True)
        for item in run(_place(store), wanted, ExportOptions(with_questioned=with_questioned), out, origin):
            print(f"{item.rows:>9,}  {item.path}")


def _place(given: str | None) -> Location:
    from winnow.server.store.location import location

    text = given or load().store
    if text is None:
        raise SettingsError("name the store: --store winnow.db, or the setting store (WINNOW_STORE, winnow.toml)")
    return location(text)


def _names(given: str | None, key_file: Path | None) -> Pseudonyms:
    from winnow.server.store.opening import key_of

    return key_of(_place(given), key_file or load().store_key_file)


@contextmanager
def _opened(given: str | None, names: Pseudonyms | None = None) -> Iterator[tuple[Location, Store]]:
    """Open the store for a command, whose errors are one line; with `names` their key is checked."""
    with one_line_errors():
        from winnow.server.store.opening import open_existing

        place = _place(given)
        found = open_existing(place, names)
        try:
            yield place, found
        finally:
            found.close()


def _models(manifest: dict[str, Any]) -> dict[str, str]:
    models = manifest["models"]
    return {role: str(models[role]["id"]) for role in ("policy", "safety", "helpfulness")}


def _day(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
