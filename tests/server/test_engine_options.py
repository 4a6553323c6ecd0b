"""The options that each engine is started with, by the device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from winnow.models.engines.hardware import Card
from winnow.models.engines.memory import Fixed
from winnow.models.errors import CheckpointError, SettingsError
from winnow.server import engine_options as module
from winnow.server.engine_options import engine_options, execution, precision, require_cards
from winnow.server.settings import ENGINES, Settings

H100, T4 = Card("NVIDIA H100", 80, 79, (9, 0), True), Card("Tesla T4", 16, 15, (7, 5), False)


@pytest.fixture(params=[H100, T4], ids=lambda card: card.name)
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(module, "first_card", lambda: request.param)
    found: Card = request.param
    return found


def test_auto_is_float16_on_a_card_without_bfloat16(card: Card) -> None:
    """vLLM refuses bfloat16 below compute capability 8.0, and the engine did not start."""
    settings = Settings(helpfulness={"dtype": "float32"})
    served = [precision(settings, engine) for engine in settings.engines.values()]
    assert served == [*["bfloat16" if card is H100 else "float16"] * 2, "float32"]


def test_a_named_precision_is_kept(card: Card) -> None:
    settings = Settings(dtype="bfloat16")
    assert {precision(settings, engine) for engine in settings.engines.values()} == {"bfloat16"}


@pytest.mark.parametrize(
    ("flags", "on_gpu", "expected"),
    [
        ({}, True, ["graphs", "eager", "eager"]),
        ({"eager": True}, True, ["eager"] * 3),
        ({"compile": True}, True, ["compiled"] * 3),
        ({}, False, ["eager"] * 3),
        ({"eager": True}, False, ["eager"] * 3),
        ({"compile": True}, False, ["compiled"] * 3),
    ],
)
def test_the_policy_decodes_with_cuda_graphs_on_a_gpu_only(
    flags: dict[str, bool], on_gpu: bool, expected: list[str]
) -> None:
    settings = Settings(**flags)
    assert [execution(settings, name, on_gpu=on_gpu) for name in ENGINES] == expected


def test_eager_and_compile_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="eager and compile exclude each other"):
        Settings(eager=True, compile=True)


def test_an_engines_options_have_its_part_of_the_memory(card: Card) -> None:
    options = engine_options(Settings(context=1024), "safety", Fixed(None, 0.2), fork=True)
    assert (options.name, options.memory_share, options.kv_cache, options.context) == ("safety", 0.2, None, 1024)
    assert options.on_gpu
    assert options.fork
    assert options.execution == "eager"


@pytest.mark.parametrize(("wanted", "count"), [(1, 1), (2, 2), (2, 8)])
def test_an_engine_is_spread_over_the_cards_that_there_are(
    monkeypatch: pytest.MonkeyPatch, wanted: int, count: int
) -> None:
    monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(module, "first_card", lambda: replace(H100, count=count))
    settings = Settings(tensor_parallel=wanted)
    require_cards(settings)
    assert engine_options(settings, "policy", Fixed(None, 0.5), fork=False).tensor_parallel == wanted


def test_more_cards_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="tensor_parallel is 2, but this machine has no GPUs that CUDA sees"):
        require_cards(Settings(tensor_parallel=2))
    monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(module, "first_card", lambda: H100)
    with pytest.raises(SettingsError, match="this machine has 1 GPUs"):
        require_cards(Settings(tensor_parallel=2))


def test_a_model_on_another_server_needs_no_card_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a front whose vLLM is built for CUDA did not start on a node without a card."""

    def no_card() -> Card:
        raise CheckpointError("no GPU can be used")

    monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(module, "first_card", no_card)
    settings = Settings(policy={"checkpoint": "http://10.0.0.1:8000/v1", "tokenizer": "/models/policy"})
    assert engine_options(settings, "policy", Fixed(), fork=False).dtype == "float32"
    with pytest.raises(CheckpointError, match="no GPU"):
        engine_options(settings, "safety", Fixed(), fork=False)
