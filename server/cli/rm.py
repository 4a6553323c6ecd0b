"""`winnow rm`: reward models trained, calibrated and measured, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.options import one_line_errors
from winnow.server.cli.rm_options import (
    SOME_BAD,
    AsJson,
    CardFile,
    Checkpoint,
    Context,
    DataFiles,
    KeyFile,
    Model,
    Precision,
    Seed,
    Tokenizer,
    log,
)
from winnow.server.cli.rm_train import train
from winnow.server.rm.plain import to_json

if TYPE_CHECKING:
    from winnow.server.rm.calibrate import Outcome
    from winnow.server.rm.evaluate import Evaluation
    from winnow.server.rm.groups import Words

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)


@app.callback()
def rm() -> None:
    """Train a reward model, calibrate it, or say how good it is, on data of people's.

    train makes a model of preferences. eval says how often its score agrees with
    people. A score only ranks the answers to one prompt: calibrate finds what a
    safety model's means. Scale and bias make it the logit of a safe answer, so that
    the gate R_s < 0.15 has a known precision and recall.

      winnow rm train --data pairs.jsonl --init ./chat --kind safety --out ./my-rm
      winnow rm eval ./my-rm --data pairs.jsonl --out evaluation
      winnow rm calibrate ./my-rm --data beavertails.jsonl --precision 0.89
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
    regression. The gate's precision and recall are measured on the other half,
    with 95 % intervals. They stand in the card, which winnow serve reads.

    Example: winnow rm calibrate ./my-rm --data beavertails.jsonl --precision 0.89

    Rows and answers that cannot be used are counted and listed; no answer is cut.
    Refused are fewer than 50 answers of either label, a score that does not tell
    the labels apart, and a scale that would turn the ranks around.

    Exit status: 0 if every row was used, 3 if some could not be, 1 if there is no
    calibration.
    """
    with one_line_errors():
        if precision is not None and not 0 < precision < 1:
            raise SettingsError("--precision: a share between 0 and 1, such as 0.89")
        log()
        from winnow.server.rm.calibrate import calibrate as run
        from winnow.server.rm.scoring import Choice

        choice = Choice(checkpoint, card, "safety", dtype, context, tokenizer, model, key_file)
        outcome = run(choice, data, precision=precision, out=out, seed=seed, force=force)
        _print_calibration(outcome, json=json)
    if outcome.bad:
        raise SystemExit(SOME_BAD)


@app.command(name="eval")
def evaluate(
    checkpoint: Checkpoint,
    data: DataFiles,
    against: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="A second model, side by side on the same rows.")
    ] = None,
    against_card: Annotated[Path | None, typer.Option(help="The second model's card.")] = None,
    against_model: Annotated[str | None, typer.Option(help="The second model's name on its server.")] = None,
    against_tokenizer: Annotated[str | None, typer.Option(help="The second model's tokenizer.")] = None,
    against_key_file: Annotated[
        Path | None, typer.Option(help="File with the key of the second model's server.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.html and evaluation.json.")] = None,
    role: Annotated[
        Literal["safety", "helpfulness"],
        typer.Option(help="What the model judges: which answer of a PKU-SafeRLHF row is better, and a judge's card."),
    ] = "safety",
    card: CardFile = None,
    json: AsJson = False,
    dtype: Precision = None,
    context: Context = None,
    tokenizer: Tokenizer = None,
    model: Model = None,
    key_file: KeyFile = None,
) -> None:
    """Say how good a reward model is, on preferences and on labelled answers.

    Rows are told apart by their keys. Preferences, such as those of TRL, hh-rlhf,
    UltraFeedback, PKU-SafeRLHF, RewardBench 1 and 2, or winnow distill:

      {"prompt": "Name a fruit.", "chosen": "Apple.", "rejected": "No."}

    give the accuracy with 95 % intervals, by rating, category and length, beside
    what needs no model: chance, and the longer answer. Labelled answers, as for
    winnow rm calibrate, give the precision and recall of the gate R_s < 0.15, the
    safe answers that it refuses, and how far R_s is a probability.

    Example: winnow rm eval ./my-rm --data pairs.jsonl --against ./other --out eval

    Rows that cannot be used, and answers that do not fit the model's context, are
    counted and listed; no answer is cut.

    Exit status: 0 if every row was used, 3 if some could not be, 1 if none was.
    """
    with one_line_errors():
        if not against and (against_card or against_model or against_tokenizer or against_key_file):
            raise SettingsError("--against-… says more of a second model; name it with --against")
        log()
        from winnow.server.rm.evaluate import evaluate as run
        from winnow.server.rm.groups import words_of
        from winnow.server.rm.scoring import Choice

        choice = Choice(checkpoint, card, role, dtype, context, tokenizer, model, key_file)
        # Nothing of where the first model is: least of all its key, which the second one's server would be sent.
        own = (against_tokenizer, against_model, against_key_file)
        others = [Choice(against, against_card, role, dtype, context, *own)] if against else []
        found = run([choice, *others], data)
        words = words_of(role)
        written = _written(found, words, out) if out else []
        _print_evaluation(found, words, written, json=json)
    if found.bad:
        raise SystemExit(SOME_BAD)


def _print_calibration(outcome: Outcome, *, json: bool) -> None:
    from rich.console import Console

    from winnow.models.reporting.tables import print_table
    from winnow.server.rm import texts

    if json:
        print(to_json(outcome.as_dict()))
        return
    print_table(Console(), texts.gate_table(outcome.calibrated))
    print(*texts.remarks(outcome), *texts.bad_rows(outcome), sep="\n")


def _print_evaluation(found: Evaluation, words: Words, files: Sequence[Path], *, json: bool) -> None:
    from rich.console import Console

    from winnow.models.reporting.tables import print_table
    from winnow.server.rm import texts

    if json:
        print(to_json(found.as_dict()))
        return
    for table in texts.evaluation_tables(found, words):
        print_table(Console(), table)
    print(*texts.evaluation_remarks(found), *files, sep="\n")


def _written(found: Evaluation, words: Words, out: Path) -> list[Path]:
    """Write the page and the figures; return their paths."""
    from winnow.server.rm.page import render

    files = {
        out / "evaluation.html": render(found, words),
        out / "evaluation.json": f"{to_json(found.as_dict())}\n".encode(),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"--out: {out} cannot be written: {error.strerror}") from None
    return list(files)
