"""The settings' choices for each engine, made for the device that it runs on: precision, execution, start options."""

from __future__ import annotations

from winnow.models.cards import Card
from winnow.models.engines.addresses import is_remote
from winnow.models.engines.base import EngineKind, EngineOptions, Execution
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.engines.hardware import first_card
from winnow.models.engines.memory import Fixed
from winnow.models.errors import SettingsError
from winnow.server.settings import EngineSettings, Settings


def needs_card(settings: Settings) -> bool:
    """Whether an engine of this machine runs on a GPU; none does where all models are on other servers."""
    return runs_on_gpu() and settings.runs_engines


def precision(
    settings: Settings, engine: EngineSettings, *, on_gpu: bool | None = None, kind: EngineKind = "vllm"
) -> str:
    """Return the precision that `engine` of this `kind` computes in, on a GPU or not; an encoder is small and exact.

    `on_gpu` None means this machine, where "auto" is float16 on a card that has no bfloat16. True means a card that
    has it.
    """
    dtype = engine.dtype or settings.dtype
    if dtype != "auto":
        return dtype
    if kind == "transformers":
        return "float32"
    if on_gpu is None and runs_on_gpu():
        return "bfloat16" if first_card().has_bfloat16 else "float16"
    return "bfloat16" if on_gpu else "float32"


def execution(settings: Settings, name: str, *, on_gpu: bool) -> Execution:
    """Return how the engine called `name` runs its steps.

    On a GPU a policy replays its decoding steps as CUDA graphs: small steps, of which an answer has hundreds, cost
    more to launch than to compute. A reward model reads an answer in one large step, and gains nothing.
    """
    if settings.compile:
        return "compiled"
    return "graphs" if on_gpu and name == "policy" and not settings.eager else "eager"


def context_of(settings: Settings, engine: EngineSettings, card: Card | None = None) -> int | None:
    """Return the tokens of a sequence in `engine`, a reward model's by its card; None takes the checkpoint's own."""
    if engine.context or not (card and card.context):
        return engine.context or settings.context
    return min(card.context, settings.context or card.context)


def engine_options(
    settings: Settings, name: str, part: Fixed, *, fork: bool, card: Card | None = None, kind: EngineKind = "vllm"
) -> EngineOptions:
    """Return the start options of the engine called `name`, with its part of the memory; `card` is a reward model's."""
    engine: EngineSettings = settings.engines[name]
    checkpoint = settings.checkpoints[name]
    on_gpu = runs_on_gpu() and not is_remote(checkpoint)  # no card is asked for a model on another server
    return EngineOptions(
        name=name,
        checkpoint=checkpoint,
        dtype=precision(settings, engine, on_gpu=None if on_gpu else False, kind=kind),
        context=context_of(settings, engine, card),
        kv_cache=part.kv_cache,
        memory_share=part.share,
        max_sequences=settings.max_sequences,
        execution=execution(settings, name, on_gpu=on_gpu),
        load_format=settings.load_format,
        on_gpu=on_gpu,
        fork=fork,
        tensor_parallel=settings.tensor_parallel,
    )


def require_cards(settings: Settings) -> None:
    """Check that there are as many cards as the settings spread an engine over.

    Raises:
        SettingsError: there are fewer, or none.
        CheckpointError: the cards cannot be read.
    """
    wanted = settings.tensor_parallel
    there = first_card().count if wanted > 1 and needs_card(settings) else 0
    if 1 < wanted > there:
        raise SettingsError(f"tensor_parallel is {wanted}, but this machine has {there or 'no'} GPUs that CUDA sees")
