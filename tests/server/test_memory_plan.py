"""The plan as the settings ask for it: for a service's engines, and for `winnow plan`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from winnow.loadtests.benchmarks.shapes import SHAPES, write_all
from winnow.models import demo
from winnow.models.engines.memory import GIB, Fixed, Memory
from winnow.models.errors import DoesNotFit
from winnow.server import plan as planning
from winnow.server.cli.main import app
from winnow.server.memory_plan import parts, plan
from winnow.server.settings import Settings


@pytest.fixture
def seven(tmp_path: Path) -> dict[str, str]:
    """The settings of three 7B models without weights."""
    folders = write_all(tmp_path, SHAPES["llama-2-7b"], demo.weights("policy"))
    return {role.replace("-", "_"): str(folder) for role, folder in folders.items()}


@pytest.fixture
def on_card(monkeypatch: pytest.MonkeyPatch) -> Memory:
    card = Memory("NVIDIA H100", int(79.6 * GIB), 79 * GIB)
    monkeypatch.setattr(planning, "runs_on_gpu", lambda: True)
    monkeypatch.setattr(planning, "card", lambda: card)
    return card


def test_on_cpu_each_engine_is_told_its_cache() -> None:
    assert parts(Settings()) == (Fixed(GIB),) * 3
    assert [part.kv_cache for part in parts(Settings(kv_cache_gib=0.5, rm_kv_cache_gib=0.25))] == [
        GIB // 2,
        GIB // 4,
        GIB // 4,
    ]


def test_on_cpu_what_cannot_fit_is_told_before_anything_is_loaded(
    seven: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ram", lambda: Memory("this machine", 16 * GIB, 12 * GIB))
    with pytest.raises(DoesNotFit, match=r"need 77\.3 GiB at least; this machine has 16\.0 GiB"):
        parts(Settings(**seven))


@pytest.mark.usefixtures("on_card")
def test_on_a_card_each_engine_is_told_its_share(seven: dict[str, str]) -> None:
    told = parts(Settings(**seven))
    assert all(part.kv_cache is None for part in told), "an engine fills its share itself"
    shares = [part.share or 0 for part in told]
    assert shares[0] > shares[1] == shares[2] > 0.2
    assert sum(shares) < 79 / 79.6


@pytest.mark.usefixtures("on_card")
def test_what_is_set_is_told(seven: dict[str, str]) -> None:
    policy, safety, _ = parts(Settings(**seven, policy_memory=0.4, rm_kv_cache_gib=3))
    assert policy == Fixed(None, 0.4)
    assert safety.kv_cache == 3 * GIB


def test_with_both_shares_set_nothing_is_planned(seven: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "runs_on_gpu", lambda: True)
    told = parts(Settings(**seven, policy_memory=0.1, rm_memory=0.9))
    assert told == (Fixed(None, 0.1), Fixed(None, 0.9), Fixed(None, 0.9))


def test_the_whole_context_and_the_precision_of_the_settings_count(seven: dict[str, str]) -> None:
    card = Memory("the card", 80 * GIB, 80 * GIB)
    short = plan(Settings(**seven, context=512), card)
    assert short.policy.context == 512
    assert short.policy.model.dtype == "bfloat16"
    with pytest.raises(DoesNotFit, match="float32"):
        plan(Settings(**seven, dtype="float32"), card)


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
    assert "12.6 GiB weights (bfloat16) + 1.9 GiB overhead + 2.0 GiB KV cache (4,112 tokens)" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_card_the_machine_is_planned() -> None:
    done = run()
    assert done.exit_code == 0
    assert "this machine has" in done.stdout
    assert "helpfulness" in done.stdout
