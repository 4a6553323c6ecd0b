"""What an actor gets of a cluster, and how the command line finds one."""

from __future__ import annotations

import builtins
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from winnow.models.errors import SettingsError
from winnow.server.cli.options import with_ray_address
from winnow.server.ray import cluster
from winnow.server.ray.cluster import Share, share
from winnow.server.settings import Settings


@pytest.mark.parametrize(
    ("nodes", "actors", "expected"),
    [
        ([{"CPU": 4.0}, {"CPU": 2.0}], 2, 2),
        ([{"CPU": 4.0}, {"CPU": 2.0}], 1, 4),
        ([{"CPU": 2.0}] * 3, 4, 1),
        ([{"CPU": 3.0}, {}], 3, 1),
    ],
)
def test_cpus_are_shared_equally(nodes: list[dict[str, float]], actors: int, expected: int) -> None:
    assert share(nodes, actors) == Share(expected)


def test_cards_are_not_shared() -> None:
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}]
    assert share(nodes, 2, cards=1).options == {"num_cpus": 1, "num_gpus": 1}
    with pytest.raises(SettingsError, match="3 of them need a card each, and the Ray cluster has 2"):
        share(nodes, 3, cards=1)
    with pytest.raises(SettingsError, match="17 of them need a CPU each, and the Ray cluster has 16"):
        share(nodes, 17)


def test_engines_over_several_cards_get_whole_groups_of_one_node() -> None:
    """Regression: each got one card, and its engines did not start."""
    nodes = [{"CPU": 8.0, "GPU": 5.0}, {"CPU": 8.0, "GPU": 3.0}, {"CPU": 8.0, "GPU": 1.0}]
    found = share(nodes, 3, cards=2)
    assert (found.options, str(found)) == ({"num_cpus": 1, "num_gpus": 2}, "2 cards")
    with pytest.raises(SettingsError, match=r"4 of them need 2 cards of one node each .* has room for 3"):
        share(nodes, 4, cards=2)


ELSEWHERE = {"policy": "http://10.0.0.1:8000/v1", "safety": "http://10.0.0.2:8000/v1"}


@pytest.mark.parametrize(
    ("on_gpu", "settings", "cards"),
    [
        (True, {}, 1),
        (True, {"tensor_parallel": 4}, 4),
        (False, {"tensor_parallel": 4}, 0),
        (True, {**ELSEWHERE, "tensor_parallel": 4}, 4),
        (True, {**ELSEWHERE, "helpfulness": "http://10.0.0.3:8000/v1"}, 0),
    ],
)
def test_only_engines_of_the_actors_own_need_cards(
    on_gpu: bool, settings: dict[str, Any], cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: an actor whose models are all on other servers waited for a card."""
    monkeypatch.setattr(cluster, "runs_on_gpu", lambda: on_gpu)
    given = {
        name: {"checkpoint": value} if name in ("policy", "safety", "helpfulness") else value
        for name, value in settings.items()
    }
    found = Settings(**given)
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}}])
    assert cluster.share_of(ray, 1, found) == Share(1 if on_gpu else 8, cards)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--ray", "head:6379", "x"], ["--ray", "head:6379", "x"]),
        (["--ray", "prompts.jsonl"], ["--ray", "auto", "prompts.jsonl"]),
        (["--ray", "--actors", "2"], ["--ray", "auto", "--actors", "2"]),
        (["x", "--ray"], ["x", "--ray", "auto"]),
        (["--ray", "local"], ["--ray", "local"]),
        (["--ray=local"], ["--ray=local"]),
        (["--", "--ray"], ["--", "--ray"]),
    ],
)
def test_the_address_is_optional(given: list[str], expected: list[str]) -> None:
    assert with_ray_address(given) == expected


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refused(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError(name="ray")
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refused)
    with (
        pytest.raises(SettingsError, match=r"ray is not installed; --ray needs pip install 'winnow-llm\[ray\]'"),
        cluster.connected("local"),
    ):
        pass


def test_the_client_protocol_is_refused() -> None:
    pytest.importorskip("ray")
    with pytest.raises(SettingsError, match="client protocol"), cluster.connected("ray://head:10001"):
        pass


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"localhost:{held.getsockname()[1]}"
        with (
            pytest.raises(SettingsError, match=f"--ray {address}: no Ray cluster answers there"),
            cluster.connected(address),
        ):
            pass


def test_ray_is_not_imported_without_need() -> None:
    code = (
        "import sys, winnow.server.cli.main, winnow.server.distill.command, winnow.server.api.run;"
        "print('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
