"""`winnow models`."""

from __future__ import annotations

from typer.testing import CliRunner

from winnow.models.cards import shipped
from winnow.models.cards.card import parse_card
from winnow.server.cli.main import app


def test_every_card_is_listed() -> None:
    done = CliRunner().invoke(app, ["models"], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    for card in shipped():
        assert card.name in done.stdout
        assert all(pattern in done.stdout for pattern in card.match)
    assert "logit of safe minus unsafe" in done.stdout
    assert "−score_head" in done.stdout


def test_a_shown_card_can_be_used() -> None:
    for card in shipped():
        done = CliRunner().invoke(app, ["models", "show", card.name])
        assert done.exit_code == 0
        assert parse_card(done.stdout, f"{card.name}.toml") == card


def test_an_unknown_card_is_one_line() -> None:
    done = CliRunner().invoke(app, ["models", "show", "beaver"])
    assert done.exit_code == 1
    assert done.stderr.startswith("winnow: there is no card 'beaver'; there are armorm, beaver-cost, ")
    assert done.stderr.count("\n") == 1
