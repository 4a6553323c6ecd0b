"""The three models that the trials run: shapes, written as checkpoints with dummy weights, and settings for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from winnow.models import demo
from winnow.models.demo import ModelName
from winnow.models.engines.checkpoint import Kind, describe
from winnow.models.engines.dummy_checkpoints import SHAPES, write
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.engines.shape import Shape
from winnow.models.errors import DoesNotFit
from winnow.server.doctor.privacy import clean_text
from winnow.server.memory_plan import plan, planned_engines
from winnow.server.settings import Settings

ShapeName = Literal["llama-2-7b", "llama-2-13b", "tiny"]
LARGEST_FIRST: tuple[ShapeName, ...] = ("llama-2-13b", "llama-2-7b")
"""The shapes that are tried on a card; the first of which three fit is taken."""
ROLES: dict[ModelName, str] = {"policy": "policy", "safety-rm": "safety", "helpfulness-rm": "helpfulness"}
"""The names of models, and of their engines in the settings."""
_TRIAL_FIELDS = (
    "dtype", "context", "max_sequences", "eager", "compile", "candidates", "max_candidates", "max_candidates_in_flight",
)  # fmt: skip
_PART_FIELDS = ("template", "dtype", "context", "memory", "kv_cache_gib")


@dataclass(frozen=True, slots=True)
class Subject:
    """The models of the trials by engine: their shapes, and settings whose checkpoints are dummies of these shapes."""

    name: str
    shapes: dict[str, Shape]
    settings: Settings

    @property
    def as_json(self) -> dict[str, Any]:
        """The name and the sizes as values of JSON."""
        return {"name": self.name, **{role: asdict(shape) for role, shape in self.shapes.items()}}

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the trials, as `Settings` takes them."""
        return trial_options(self.settings)


def subject(settings: Settings, shape: ShapeName | None, folder: Path) -> Subject:
    """Write three dummy checkpoints into `folder`.

    They have the `shape`, or those of the operator's checkpoints, of which only config.json is read; a model that is
    not named then has the shape of one that is. If neither is given, on a card the largest shape of which three fit
    by the plan, else a tiny one.

    Raises:
        CheckpointError: a config.json is missing or incomplete, or there is no card.
    """
    if shape is None and (own := _own_shapes(settings)):
        names = dict.fromkeys(Path(clean_text(settings.checkpoints[ROLES[role]])).name for role in own)
        return _written(settings, f"shape of {', '.join(names)}", _completed(own), folder)
    if shape is not None:
        return _written(settings, shape, _alike(SHAPES[shape]), folder)
    if runs_on_gpu():
        for name in LARGEST_FIRST:
            found = _written(settings, name, _alike(SHAPES[name]), folder)
            try:
                plan(found.settings)
            except DoesNotFit:
                continue
            return found
    return _written(settings, "tiny", _alike(SHAPES["tiny"]), folder)


def trial_options(settings: Settings) -> dict[str, Any]:
    """Return what of the settings the trials use, as keyword arguments of `Settings`; nothing in it is secret.

    A reward model's kind is that of its dummy, whatever the operator's is.
    """
    values = settings.model_dump(mode="json", include=set(_TRIAL_FIELDS))
    parts = {name: part.model_dump(mode="json", include={*_PART_FIELDS, "checkpoint"})
             for name, part in settings.engines.items()}  # fmt: skip
    return {**values, **parts, "load_format": "dummy", "canary": False}


def _own_shapes(settings: Settings) -> dict[ModelName, Shape]:
    """Return the shapes of the checkpoints that are not the demo's, and that engines of their own run: no encoders."""
    found = {}
    for role, engine in ROLES.items():
        checkpoint = settings.checkpoints[engine]
        kind: Kind = "policy" if engine == "policy" else "reward model"
        if checkpoint != str(demo.weights(role)) and engine in planned_engines(settings):
            found[role] = describe(checkpoint, kind, engine, "float32").shape
    return found


def _completed(own: dict[ModelName, Shape]) -> dict[ModelName, Shape]:
    first = next(iter(own.values()))
    return {role: own.get(role, first) for role in get_args(ModelName)}


def _alike(shape: Shape) -> dict[ModelName, Shape]:
    return dict.fromkeys(get_args(ModelName), shape)


def _written(settings: Settings, name: str, shapes: dict[ModelName, Shape], folder: Path) -> Subject:
    options = trial_options(settings)
    found = {}
    for role, engine in ROLES.items():
        found[engine] = replace(shapes[role], is_reward_model=engine != "policy")
        options[engine]["checkpoint"] = str(write(folder / role, found[engine], role, demo.weights("policy")))
    return Subject(name, found, Settings(**options))
