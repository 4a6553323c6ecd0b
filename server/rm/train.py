"""`winnow rm train`: preferences and labels → a reward model, its card and calibration, and a report on held-out data.

The folder of the model is resumable: see `winnow.server.rm.out_folder`. Held-out answers are scored in this process by
the weights that were written, so that nothing is forked after torch ran.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from winnow.models.cards.card import FILE
from winnow.models.cards.writing import with_calibration
from winnow.models.engines.environment import COMMON, TRAINING
from winnow.models.engines.hub import is_local
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import AnotherRun, CheckpointError, SettingsError
from winnow.models.reward_model import IDENTITY, Calibration
from winnow.models.training.examples import Recipe
from winnow.models.types import Prompt
from winnow.server.reward_models import with_reader
from winnow.server.rm.curve import Journal, Point
from winnow.server.rm.initial import Initial, card_text, inspected
from winnow.server.rm.order import Order
from winnow.server.rm.out_folder import FINISHED, PAGE, OutFolder, opened
from winnow.server.rm.plain import to_json
from winnow.server.rm.rows import Answer
from winnow.server.rm.scoring import Scores
from winnow.server.rm.trained import Model, Trained, calibration_of, evaluation_of
from winnow.server.rm.training_data import Ids, IdsOf, Material, material
from winnow.server.rm.watch import Watch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
PACKAGES = ("accelerate", "datasets", "matplotlib", "peft", "sklearn", "torch", "trl")
"""The packages that training needs beside serving, and torch, which serving brings."""


def train(order: Order) -> Trained:
    """Train a reward model, write it with its card and report, and return the report.

    Raises:
        SettingsError: the folder or a share cannot be used, or a package is missing.
        CheckpointError: the checkpoint cannot be trained.
        RunError: the data cannot be used, or an unfinished run in the folder is another one.
    """
    _require_packages()
    _prepare(order.init)
    initial = inspected(order.init, order.card, order.context)
    dtype = order.dtype or ("bfloat16" if initial.dtype == "bfloat16" else "float32")
    needed = initial.parameters * (2 if dtype == "bfloat16" else 4)
    if order.recipe.lora_rank is None and order.recipe.upper_layers is None:
        needed += 2 * 12 * initial.parameters  # two checkpoints of weights and AdamW's two moments
    with opened(order.out, order.init, needed, force=order.force) as folder:
        found = material(
            order.parts, order.kind, order.margins, initial.reader, initial.context, order.held_out, order.recipe.seed
        )
        logger.info("%s", _described(found))
        recipe = replace(order.recipe, dtype=_computed_in(order.dtype, dtype))
        model, curve = _trained(order, recipe, initial, found, folder)
        report = _finished(order, recipe, dtype, initial, found, folder, model, curve)
        folder.publish()
    return report


def _trained(
    order: Order, recipe: Recipe, initial: Initial, found: Material, folder: OutFolder
) -> tuple[PreTrainedModel, list[Point]]:
    """Train, or go on with it; return the model and the whole curve.

    Raises:
        AnotherRun: the folder has the unfinished training of another command.
        RunError: the training diverges.
    """
    if not folder.has_checkpoint:
        folder.begin_anew()  # nothing is lost, whatever run it was
    else:
        logger.info("going on with the training in %s", order.out)
    try:
        return _run(recipe, initial, found, folder)
    except AnotherRun as error:
        if not order.force:
            raise AnotherRun(
                f"{order.out} has an unfinished training with another checkpoint, data or recipe: give the same "
                "command as then, another --out, or --force to begin anew"
            ) from error
    folder.begin_anew()
    return _run(recipe, initial, found, folder)


def _run(
    recipe: Recipe, initial: Initial, found: Material, folder: OutFolder
) -> tuple[PreTrainedModel, list[Point]]:  # fmt: skip
    from winnow.models.training.reward_trainer import train as run

    journal = Journal(folder.curve)
    watch = Watch(journal)
    try:
        model = run(initial.folder, found.examples, recipe, folder.steps, watch)
    except KeyboardInterrupt:
        watch.end()
        logger.info("interrupted; the same command goes on from the last checkpoint, of at most five minutes ago")
        raise
    finally:
        watch.end()
        journal.close()
    return model, journal.points()


def _finished(
    order: Order, recipe: Recipe, dtype: str, initial: Initial, found: Material, folder: OutFolder,
    model: PreTrainedModel, curve: Sequence[Point],
) -> Trained:  # fmt: skip
    """Write the model with its card and report into the staged folder, and return the report."""
    from winnow.models.training.reward_trainer import save
    from winnow.server.rm.training_page import render

    staged = folder.stage()
    save(model, initial.folder, staged, dtype)
    scores, pad = _scores(model, found.ids), model.config.get_text_config().pad_token_id
    calibration, reason = calibration_of(found, scores, recipe.seed)
    today = datetime.date.today()
    note = f"A {order.kind} model that winnow rm train made of {initial.name} on {today}, from {found.name}"
    text = card_text(initial, order.name, note)
    own = calibration.calibration if calibration else IDENTITY
    if calibration:
        text = with_calibration(text, FILE, own.scale, own.bias, calibration.record)
    (staged / FILE).write_text(text, encoding="utf-8")
    _require_served(staged, found)
    models = [Model(order.name, scores, own, calibration is not None), *_before(initial, found, pad)]
    judged = evaluation_of(found, models, calibration)
    report = Trained(order, recipe, dtype, initial.name, today, found, judged, calibration, reason, curve)
    (staged / PAGE).write_bytes(render(report))
    (staged / FINISHED).write_text(f"{to_json(report.as_dict())}\n", encoding="utf-8")
    return report


def _scores(model: PreTrainedModel, ids: Mapping[Answer, Ids]) -> Scores:
    """Return the raw score of each answer."""
    from winnow.models.training.reward_trainer import score

    logger.info("scoring %s held-out answers", f"{len(ids):,}")
    return dict(zip(ids, score(model, list(ids.values())), strict=True))


def _before(initial: Initial, found: Material, pad: int) -> list[Model]:
    """Return the checkpoint that training began with, if it was a reward model, as it scores what is held out."""
    if initial.own is None:
        return []
    from winnow.models.training.classifier import load

    scorer, reader = initial.own
    own = Calibration(scorer.card.scale or 1.0, scorer.card.bias)
    ids = IdsOf(reader, initial.context).of(found.ids)
    if len(ids) < len(found.ids):  # a card of its own may read more of a conversation
        return []
    model = load(initial.folder, 0)
    model.config.get_text_config().pad_token_id = pad  # its own may be EOS, where its score is read
    return [Model(f"{initial.name}, before", _scores(model, ids), own, scorer.card.calibrated)]


def _require_served(folder: Path, found: Material) -> None:
    """Check that winnow serve takes the model as it is, and gives it the ids that it was trained on.

    Raises:
        CheckpointError: it does not.
    """
    _, reader = with_reader(inspect_scorer(str(folder)))
    answer, ids = next(iter(found.ids.items()))
    own = reader.token_ids(Prompt((), answer.messages), answer.text)
    if tuple(own) != ids and len(own) <= len(ids):
        raise CheckpointError("the trained model would be served other tokens than it was trained on")


def _described(found: Material) -> str:
    """Return a line that says what is trained on."""
    return (
        f"{found.comparisons:,} comparisons and {found.labels:,} labels to train on, to "
        f"{found.prompts - found.held_prompts:,} prompts; {found.held_prompts:,} prompts are held out"
    )


def _require_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        name = {"sklearn": "scikit-learn"}.get(missing[0], missing[0])
        raise SettingsError(f"{name} is not installed; winnow rm train needs pip install 'winnow-llm[train]'")


def _prepare(init: str) -> None:
    """Set the environment before the libraries are imported: quiet, small, and offline for a local checkpoint."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if is_local(init) else {}
    for name, value in {**COMMON, **TRAINING, **offline}.items():
        os.environ.setdefault(name, value)


def _computed_in(asked: str | None, dtype: str) -> Literal["float32", "bfloat16"]:
    """Return the precision of the forward pass, `dtype` on a GPU; on a CPU bfloat16 only where it was asked for.

    Some CPUs are faster with it, others far slower.
    """
    import torch

    is_fast = asked is not None or torch.cuda.is_available()
    return "bfloat16" if dtype == "bfloat16" and is_fast else "float32"
