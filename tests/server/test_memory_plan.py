"""The memory plan of the settings: for a service's engines, and for `winnow plan`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.models.engines import tiny_encoders
from winnow.models import demo
from winnow.models.engines.dummy_checkpoints import SHAPES, write_all
from winnow.models.engines.encoder_files import stored_numbers
from winnow.models.engines.hardware import Card
from winnow.models.engines.memory import GIB, Fixed, Memory
from winnow.models.errors import CheckpointError, DoesNotFit
from winnow.server import engine_options, memory_plan
from winnow.server.cli.main import app
from winnow.server.engine_options import precision
from winnow.server.memory_plan import engine_parts, plan, policy_part
from winnow.server.settings import Settings


@pytest.fixture
def seven(tmp_path: Path) -> dict[str, str]:
    """Return the settings of three 7B models without weights."""
    folders = write_all(tmp_path, SHAPES["llama-2-7b"], demo.weights("policy"))
    return {role.replace("-", "_"): str(folder) for role, folder in folders.items()}


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> Memory:
    card = Card("NVIDIA H100", int(79.6 * GIB), 79 * GIB, (9, 0), True)
    for module in (memory_plan, engine_options):
        monkeypatch.setattr(module, "runs_on_gpu", lambda: True)
        monkeypatch.setattr(module, "first_card", lambda: card)
    return card.memory


def test_on_cpu_each_engine_gets_the_kv_cache_that_it_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", 16 * GIB, 12 * GIB))
    policy, safety, helpfulness = engine_parts(Settings()).values()
    assert policy.kv_cache
    assert policy.kv_cache < 0.4 * GIB
    assert safety == helpfulness
    assert safety.kv_cache
    assert safety.kv_cache < GIB // 10
    kept = Settings(kv_cache_gib=2, rm_kv_cache_gib=0.25)
    assert [part.kv_cache for part in engine_parts(kept).values()] == [2 * GIB, GIB // 4, GIB // 4]


def test_little_free_memory_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", 16 * GIB, 12 * GIB))
    engine_parts(Settings())
    assert not caplog.messages
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", 16 * GIB, 2 * GIB))
    parts = engine_parts(Settings())
    assert (parts["policy"].kv_cache or GIB) < GIB // 2
    assert "smaller KV caches" in caplog.text


def test_on_cpu_models_that_cannot_fit_are_refused_before_anything_is_loaded(
    seven: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", 16 * GIB, 12 * GIB))
    monkeypatch.setattr(memory_plan, "may_fork", lambda: False)
    with pytest.raises(DoesNotFit, match=r"need 88\.8 GiB at least"):
        engine_parts(Settings(**seven))
    monkeypatch.setattr(memory_plan, "may_fork", lambda: True)
    with pytest.raises(DoesNotFit, match=r"need 88\.0 GiB at least; this machine has 16\.0 GiB"):
        engine_parts(Settings(**seven))


@pytest.mark.usefixtures("on_card")
def test_on_a_card_each_engine_gets_its_share(seven: dict[str, str]) -> None:
    parts = engine_parts(Settings(**seven))
    assert all(part.kv_cache is None for part in parts.values()), "an engine fills its share itself"
    shares = [part.share or 0 for part in parts.values()]
    assert shares[0] > shares[1] == shares[2] > 0.2
    assert sum(shares) < 79 / 79.6


@pytest.mark.usefixtures("on_card")
def test_the_settings_shares_and_caches_are_kept(seven: dict[str, str]) -> None:
    policy, safety, _ = engine_parts(Settings(**seven, policy_memory=0.4, rm_kv_cache_gib=3)).values()
    assert policy == Fixed(None, 0.4)
    assert safety.kv_cache == 3 * GIB


def reading(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """Let the card have `free` GiB once the reward models run."""
    now = Card("NVIDIA H100", int(79.6 * GIB), int(free * GIB), (9, 0), True)
    monkeypatch.setattr(memory_plan, "card", lambda: now)


@pytest.mark.usefixtures("on_card")
def test_the_policy_gets_what_the_reward_models_have_really_left(
    seven: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(**seven)
    policy = engine_parts(settings)["policy"]
    shares = []
    for free in (34, 40, 45):
        reading(monkeypatch, free)
        shares.append(policy_part(settings, policy).share or 0)
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] * 79.6 < 45 - 0.02 * 79.6
    reading(monkeypatch, 14)
    with pytest.raises(DoesNotFit, match="with the reward models running"):
        policy_part(settings, policy)


@pytest.mark.usefixtures("on_card")
def test_a_share_that_is_set_is_not_planned_again(seven: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, 1)
    assert policy_part(Settings(**seven, policy_memory=0.4), Fixed(None, 0.4)) == Fixed(None, 0.4)


def test_on_cpu_the_policy_keeps_its_plan() -> None:
    assert policy_part(Settings(), Fixed(GIB)) == Fixed(GIB)


@pytest.mark.usefixtures("on_card")
def test_cuda_graphs_are_planned_for_the_policy_unless_it_is_eager(seven: dict[str, str]) -> None:
    graphs, eager, compiled = (plan(Settings(**seven, **how)) for how in ({}, {"eager": True}, {"compile": True}))
    assert [engine.model.has_graphs for engine in graphs.engines] == [True, False, False]
    assert [engine.model.has_graphs for engine in compiled.engines] == [True, True, True]
    assert graphs.policy.uncounted - eager.policy.uncounted == 1.25 * GIB


def test_with_all_shares_set_nothing_is_planned(seven: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "runs_on_gpu", lambda: True)  # and no card, so that a plan would fail
    parts = engine_parts(Settings(**seven, policy_memory=0.4, rm_memory=0.3))
    assert list(parts.values()) == [Fixed(None, 0.4), Fixed(None, 0.3), Fixed(None, 0.3)]


def test_shares_of_more_than_a_card_are_refused_before_an_engine_starts(
    seven: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM refused the last engine, minutes later."""
    monkeypatch.setattr(memory_plan, "runs_on_gpu", lambda: True)
    with pytest.raises(DoesNotFit, match=r"shares .* are 1\.5 of the card"):
        engine_parts(Settings(**seven, policy_memory=0.5, rm_memory=0.5))


def test_context_and_precision_of_the_settings_count(seven: dict[str, str]) -> None:
    card = Memory("the card", 80 * GIB, 80 * GIB)
    short = plan(Settings(**seven, context=512), card)
    assert short.policy.model.context == 512
    assert short.policy.model.dtype == "bfloat16"
    with pytest.raises(DoesNotFit, match="float32"):
        plan(Settings(**seven, dtype="float32"), card)


def test_an_engine_may_differ_from_the_shared_settings(seven: dict[str, str]) -> None:
    checkpoints = {"safety": {"dtype": "float32", "context": 1024, "kv_cache_gib": 3}, "helpfulness": {"memory": 0.3}}
    settings = Settings(**seven, **checkpoints, context=2048, rm_kv_cache_gib=5)
    planned = plan(settings, Memory("the card", 140 * GIB, 140 * GIB))
    assert [engine.model.context for engine in planned.engines] == [2048, 1024, 2048]
    assert [engine.model.dtype for engine in planned.engines] == ["bfloat16", "float32", "bfloat16"]
    assert [precision(settings, engine, on_gpu=False) for engine in settings.engines.values()] == ["float32"] * 3
    assert planned.engine("safety").kv_cache == 3 * GIB
    assert planned.engine("helpfulness").share == 0.3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoders.encoder(tmp_path_factory.mktemp("rm") / "bert", "bert", hidden_size=512)


def with_encoder(encoder: Path, **own: object) -> Settings:
    return Settings(safety={"checkpoint": str(encoder), **own})  # type: ignore[arg-type]


def test_an_encoder_takes_memory_and_no_cache(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", 16 * GIB, 12 * GIB))
    planned = plan(with_encoder(encoder))
    assert [engine.model.name for engine in planned.engines] == ["policy", "helpfulness"]
    (resident,) = planned.residents
    numbers = stored_numbers(str(encoder))
    assert (resident.name, resident.dtype, resident.weights) == ("safety", "float32", 4 * numbers)
    assert plan(with_encoder(encoder, dtype="bfloat16")).residents[0].weights == 2 * numbers
    assert set(engine_parts(with_encoder(encoder))) == {"policy", "helpfulness"}
    assert f"safety: {resident.held / GIB:.1f}" not in str(plan(Settings()))
    assert resident.arithmetic in str(planned)


def test_an_encoder_that_does_not_fit_is_refused(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = plan(with_encoder(encoder)).residents[0].held
    demo_alone = plan(Settings()).needed - plan(Settings()).engine("safety").held
    tight = Memory("this machine", demo_alone + needed // 2, demo_alone + needed // 2)
    monkeypatch.setattr(memory_plan, "ram", lambda: tight)
    kept = with_encoder(encoder).model_copy(update={})
    assert plan(kept).is_shrunk
    monkeypatch.setattr(memory_plan, "ram", lambda: Memory("this machine", GIB, GIB))
    with pytest.raises(DoesNotFit, match=r"the three engines need (.|\n)* safety: 0\.\d GiB weights \(float32\)"):
        plan(with_encoder(encoder))


def test_on_a_card_the_policy_leaves_room_for_the_encoder(
    encoder: Path, seven: dict[str, str], on_card: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded last: engines cannot be forked behind it."""
    settings = Settings(**{**seven, "safety_rm": str(encoder)})  # type: ignore[arg-type]
    planned = plan(settings)
    held = planned.residents[0].held
    assert planned.needed >= sum(engine.held for engine in planned.engines) + held
    reading(monkeypatch, 40)
    part = engine_parts(settings)["policy"]
    alone, beside = (policy_part(one, part).share or 0 for one in (Settings(**seven), settings))
    assert (alone - beside) * on_card.total == pytest.approx(held, rel=0.01)
    reading(monkeypatch, 19)
    with pytest.raises(DoesNotFit, match=r"\n  safety: 0\.0 GiB weights \(float32\)"):
        policy_part(settings, part)
    shares: dict[str, object] = {"policy_memory": 0.6, "helpfulness": {"memory": 0.39}}
    with pytest.raises(DoesNotFit, match=r"until they are at most 0\.9[67]"):
        engine_parts(Settings(safety={"checkpoint": str(encoder)}, **shares))  # type: ignore[arg-type]


def test_the_table_shows_an_encoder(encoder: Path) -> None:
    done = run("--card-gib", "24", "--safety-rm", str(encoder))
    assert done.exit_code == 0
    (row,) = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["safety"]]
    assert row[3:] == ["–", row[4], "–", "–", "–", "–"]
    assert float(row[4]) == pytest.approx(float(row[1]) + float(row[2]), abs=0.02)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "80"})


def test_the_command_prints_a_table_or_the_arithmetic(seven: dict[str, str]) -> None:
    flags = [part for name, folder in seven.items() for part in (f"--{name.replace('_', '-')}", folder)]
    done = run("--card-gib", "80", *flags)
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    (policy,) = [row for row in rows if row[:1] == ["policy"]]
    assert policy[1] == "12.55"
    done = run("--card-gib", "24", *flags)
    assert done.exit_code == 1
    assert "12.6 GiB weights (bfloat16) + 3.3 GiB overhead + 2.0 GiB KV cache (4,112 tokens)" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_card_the_machine_is_planned() -> None:
    done = run()
    assert done.exit_code == 0
    assert "this machine has" in done.stdout
    assert "helpfulness" in done.stdout


@pytest.mark.parametrize("flag", ["--card-gib", "--kv-cache-gib", "--rm-kv-cache-gib"])
@pytest.mark.parametrize("size", ["inf", "1e300", "1e9", "nan"])
def test_a_size_that_no_machine_has_is_refused_in_words(flag: str, size: str) -> None:
    """Infinity ended in a traceback, 1e290 in a message with that many digits."""
    done = run(flag, size)
    assert done.exit_code
    assert isinstance(done.exception, SystemExit)
    assert "1048576" in done.stderr or size == "nan"


def test_an_engine_over_several_cards_takes_a_part_of_each(seven: dict[str, str]) -> None:
    card = Memory("the card", 24 * GIB, 24 * GIB)
    with pytest.raises(DoesNotFit):
        plan(Settings(**seven, dtype="bfloat16"), card)
    spread = plan(Settings(**seven, dtype="bfloat16", tensor_parallel=4), card)
    whole = plan(Settings(**seven, dtype="bfloat16"), Memory("the card", 80 * GIB, 80 * GIB))
    for part, engine in zip(spread.engines, whole.engines, strict=True):
        assert part.model.weights * 4 == pytest.approx(engine.model.weights, rel=1e-6)
        assert part.model.kv_per_token * 4 == engine.model.kv_per_token
    with pytest.raises(CheckpointError, match="32 attention heads, 32 of them cached, cannot be shared out to 3 cards"):
        plan(Settings(**seven, tensor_parallel=3), card)
