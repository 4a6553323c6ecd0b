"""`winnow models`: the cards of public reward models that come with Winnow."""

from __future__ import annotations

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from winnow.models.cards import Card, shipped
from winnow.models.cards.card import card_text, shipped_files
from winnow.models.errors import SettingsError
from winnow.models.reporting.tables import print_table
from winnow.server.cli.options import one_line_errors

app = typer.Typer(
    help="List the reward models that have a card, or show one's card.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def models(context: typer.Context) -> None:
    """List the reward models that have a card, or show one's card.

    A model whose name is in the table is served without a word about it. For another one, copy a card, change it,
    and give it with --safety-card or --helpfulness-card.
    """
    if context.invoked_subcommand is None:
        print_table(Console(), _table(shipped()))


@app.command()
def show(name: str) -> None:
    """Print the card NAME, as a file that can be copied and changed."""
    with one_line_errors():
        files = {entry.name.removesuffix(".toml"): entry for entry in shipped_files()}
        if name not in files:
            raise SettingsError(f"there is no card {name!r}; there are {', '.join(files)}")
        print(card_text(files[name]), end="")


def _table(cards: tuple[Card, ...]) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("card", "checkpoints", "score"):
        shown.add_column(heading)
    for card in cards:
        shown.add_row(card.name, ", ".join(card.match) or "judge:URL", _score(card))
    return shown


def _score(card: Card) -> str:
    if card.grades:
        return f"grade from {card.grades[0]} to {card.grades[1]}"
    if card.reduce == "minus_max":
        return "minus the largest logit of " + (", ".join(map(str, card.labels)) or "all labels")
    if card.labels:
        return "logit of " + " minus ".join(map(str, card.labels))
    sign = "−" if (card.scale or 1.0) < 0 else ""
    default = {"linear": "score", "encoder": "label"}.get(card.adapter, f"{card.adapter} sum")
    return f"{sign}{card.head or default}"
