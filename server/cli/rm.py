"""`winnow rm`: reward models calibrated and measured, offline."""

from __future__ import annotations

import json as jsons
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.options import one_line_errors
from winnow.server.settings.engines import Dtype

app = typer.Typer(
    help="Calibrate a reward model on data that people labelled.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SOME_BAD = 3
"""Exit status if the work is done, and some rows could not be used."""

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A folder, a hub id, http://HOST:PORT (a vLLM server) or judge:http://HOST:PORT/v1.",
    ),
]
DataFiles = Annotated[
    list[str],
    typer.Option("--data", metavar="FILE", help="JSON Lines, JSON, CSV (also .gz) or Parquet; may be repeated."),
]
CardFile = Annotated[
    Path | None, typer.Option(help="The model's card (TOML); default: the folder's own, a shipped one, or none.")
]
Seed = Annotated[int, typer.Option(min=0, help="Which half of the prompts is held out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Precision = Annotated[Dtype | None, typer.Option(help="Precision of the engine; default: as winnow serve has it.")]
Context = Annotated[int | None, typer.Option(min=128, help="Tokens of a sequence; default: the checkpoint's own.")]
Tokenizer = Annotated[str | None, typer.Option(help="Model on a vLLM server: folder or hub id with its tokenizer.")]
Model = Annotated[str | None, typer.Option(help="Model on a server: its name there; default: the only one.")]
KeyFile = Annotated[Path | None, typer.Option(help="Model on a server: file with the key that it asks for.")]


@app.callback()
def rm() -> None:
    """Calibrate a reward model on data that people labelled.

    A reward model's score only ranks the answers to one prompt. calibrate finds
    what a safety model's score means: scale and bias make it the logit of a safe
    answer, so that the gate R_s < 0.15 has a known precision and recall.

    Example: winnow rm calibrate ./my-rm --data beavertails.jsonl --precision 0.89
    """


@app.command()
def calibrate(
    checkpoint: Checkpoint,
    data: DataFiles,
    precision: Annotated[
        float | None,
        typer.Option(
            help="Move the bias so that the gate R_s < 0.15 has this precision on unsafe answers (the paper: 0.89). "
            "Default: keep the bias that makes R_s a probability."
        ),
    ] = None,
    card: CardFile = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the card to write; default: winnow-card.toml in CHECKPOINT.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the card if it exists.")] = False,
    seed: Seed = 0,
    json: AsJson = False,
    dtype: Precision = None,
    context: Context = None,
    tokenizer: Tokenizer = None,
    model: Model = None,
    key_file: KeyFile = None,
) -> None:
    """Find the scale and bias of a safety model on labelled answers; write its card.

    A row is an answer with a label, or a row of BeaverTails or PKU-SafeRLHF:

      {"prompt": "How do I …?", "response": "First …", "is_safe": false}

    The raw scores of the answers to half of the prompts are fitted by logistic
    regression. The gate's precision and recall are measured on the other half, with
    95 % intervals, and stand in the card, which winnow serve reads by itself.

    Example: winnow rm calibrate ./my-rm --data beavertails.jsonl --precision 0.89

    Rows that cannot be used, and answers that do not fit the model's context, are
    counted and listed; no answer is cut. What would have to be guessed is refused:
    fewer than 50 answers of either label, a score that does not tell the labels
    apart, or a scale that would turn the ranks around.

    Exit status: 0 if every row was used, 3 if some could not be, 1 if there is no
    calibration.
    """
    with one_line_errors():
        if precision is not None and not 0 < precision < 1:
            raise SettingsError("--precision: a share between 0 and 1, such as 0.89")
        _log()
        from winnow.server.rm.calibrate import calibrate as run
        from winnow.server.rm.scoring import Choice

        choice = Choice(
            checkpoint, card, dtype=dtype, context=context, tokenizer=tokenizer, model=model, key_file=key_file
        )
        outcome = run(choice, data, precision=precision, out=out, seed=seed, force=force)
        if json:
            print(jsons.dumps(_plain(outcome.as_dict()), indent=2))
        else:
            from rich.console import Console

            from winnow.models.reporting.tables import print_table
            from winnow.server.rm import texts

            print_table(Console(), texts.gate_table(outcome.calibrated))
            print(*texts.remarks(outcome), *texts.bad_rows(outcome), sep="\n")
    if outcome.bad:
        raise SystemExit(SOME_BAD)


def _log() -> None:
    logging.basicConfig(format="winnow: %(message)s", stream=sys.stderr)
    logging.getLogger("winnow").setLevel(logging.INFO)


def _plain(value: object) -> object:
    """Return a value as JSON can say it: no NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
