"""`winnow serve` and `winnow plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from winnow.server.settings import MAX_GIB, Settings


def serve(settings: Settings) -> None:
    """Serve an OpenAI-compatible endpoint; without options, the demo models on 127.0.0.1:8000."""
    from winnow.server.api.run import serve as run

    run(settings)


def plan(
    settings: Settings,
    card_gib: Annotated[
        float | None,
        typer.Option(min=1, max=MAX_GIB, help="Plan for a card of this size in GiB; default: this machine."),
    ] = None,
) -> None:
    """Print how the three engines would share a card's memory; exit 1, with the arithmetic, if they do not fit.

    Of a checkpoint only config.json is needed; weights are counted if they are there. With --card-gib
    no GPU is needed.
    """
    from winnow.server.memory_plan import print_plan

    print_plan(settings, card_gib)
