"""`winnow rm train`: a reward model made of preferences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from winnow.models.errors import SettingsError
from winnow.models.training.examples import Recipe
from winnow.server.cli.options import one_line_errors
from winnow.server.cli.rm_options import SOME_BAD, AsJson, Context, log
from winnow.server.rm.mixing import Part, parsed

if TYPE_CHECKING:
    from winnow.server.rm.trained import Trained

DataFiles = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE", help="JSON Lines, JSON, CSV (also .gz) or Parquet; may be repeated."),
]
Mixes = Annotated[
    list[str] | None,
    typer.Option(
        "--mix",
        metavar="SHARE:FILE",
        help="Instead of --data: a file and its share of the examples. Repeat it; the mix ends with the first file.",
    ),
]
Init = Annotated[
    str, typer.Option(metavar="CHECKPOINT", help="A chat model, or a reward model with one label: folder or hub id.")
]
KindOption = Annotated[
    Literal["safety", "helpfulness"],
    typer.Option(help="What the model judges: which answer of a PKU-SafeRLHF row is better, and which labels count."),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the model. The same command again goes on with it.")]
MarginsOption = Annotated[
    Literal["small", "large", "none"],
    typer.Option(help="The paper's m(r) by rating: small 1, 2/3, 1/3, 0; large 3, 2, 1, 0."),
]
Epochs = Annotated[float, typer.Option(help="How often each example is seen.")]
LearningRate = Annotated[float, typer.Option(help="Peak: warm-up over 3 % of the steps, then a cosine to 10 %.")]
Batch = Annotated[int, typer.Option(help="Examples a step.")]
MicroBatch = Annotated[int, typer.Option(help="Examples computed at once: less takes less memory, same result.")]
Auxiliary = Annotated[float, typer.Option(help="Weight of the loss on labels (safe or not; helpful or not).")]
Smoothing = Annotated[float, typer.Option(help="Share of comparisons and labels that are taken to be wrong.")]
Lora = Annotated[int | None, typer.Option(metavar="RANK", help="Train LoRA adapters, merged at the end; default: all.")]
UpperLayers = Annotated[int | None, typer.Option(metavar="N", help="Train the last N layers and the head alone.")]
HeldOut = Annotated[float, typer.Option(help="Share of the prompts that is measured on, and not trained on.")]
CardOption = Annotated[
    Path | None, typer.Option("--card", help="Card (TOML) with the template; default: CHECKPOINT's own.")
]
DtypeOption = Annotated[
    Literal["bfloat16", "float32"] | None,
    typer.Option(
        help="Precision of the forward pass and of the written weights, which are trained in float32; default: as "
        "CHECKPOINT's weights are, computed in float32 on a CPU."
    ),
]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Of the new head, the order and the held-out prompts.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is in DIR.")]


def train(
    init: Init,
    kind: KindOption,
    out: Out,
    data: DataFiles = None,
    mix: Mixes = None,
    margins: MarginsOption = "small",
    epochs: Epochs = 1.0,
    learning_rate: LearningRate = 1e-5,
    batch: Batch = 512,
    micro_batch: MicroBatch = 8,
    auxiliary: Auxiliary = 1.0,
    label_smoothing: Smoothing = 0.0,
    lora: Lora = None,
    upper_layers: UpperLayers = None,
    context: Context = None,
    held_out: HeldOut = 0.1,
    card: CardOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = 0,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Train a reward model on preferences; write it with its card and a report.

    Rows are those of winnow rm eval and calibrate, told apart by their keys, or:

      {"prompt": "How do I …?", "chosen": "I can't …", "rejected": "First …",
       "rating": "better", "chosen_safe": true, "rejected_safe": false}

    Ratings become margins, labels an auxiliary loss. training.html has accuracy
    and calibration on held-out prompts, beside the longer answer's accuracy.

    Example: winnow rm train --mix 0.9:safety.jsonl --mix 0.1:helpful.jsonl
      --init ./chat-model --kind safety --out ./safety-rm

    winnow serve --safety-rm DIR takes the model without further flags. After an
    interruption the same command goes on. Rows that cannot be used, or do not fit
    the context, are counted and listed; no answer is cut.

    Exit status: 0 if every row was used, 3 if some could not be, 1 without a model.
    """
    with one_line_errors():
        recipe = _recipe(
            epochs=epochs, learning_rate=learning_rate, batch=batch, micro_batch=micro_batch, auxiliary=auxiliary,
            label_smoothing=label_smoothing, lora_rank=lora, upper_layers=upper_layers, seed=seed,
        )  # fmt: skip
        parts, share = _parts(data, mix), _share(held_out)
        log()
        from winnow.server.rm.order import Order
        from winnow.server.rm.train import train as run

        report = run(Order(parts, init, kind, out, recipe, margins, share, card, context, dtype, force))
        _print(report, json=json)
    raise SystemExit(SOME_BAD if report.material.bad else 0)


def _recipe(**values: float | int | None) -> Recipe:
    try:
        return Recipe(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise SettingsError(f"{error}") from None


def _share(held_out: float) -> float:
    if not 0 < held_out < 1:
        raise SettingsError("--held-out: a share between 0 and 1, such as 0.1")
    return held_out


def _parts(data: list[str] | None, mix: list[str] | None) -> list[Part]:
    if bool(data) == bool(mix):
        raise SettingsError("give files with --data, or a mix with --mix 0.9:safety.jsonl --mix 0.1:helpful.jsonl")
    return [parsed(text) for text in mix] if mix else [Part(tuple(data or ()))]


def _print(report: Trained, *, json: bool) -> None:
    from rich.console import Console

    from winnow.models.reporting.tables import print_table
    from winnow.server.rm import training_texts
    from winnow.server.rm.plain import to_json

    if json:
        print(to_json(report.as_dict()))
        return
    for table in training_texts.tables(report):
        print_table(Console(), table)
    print(*training_texts.remarks(report), sep="\n")
