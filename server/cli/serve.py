"""`winnow serve` and `winnow plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.options import RayAddress
from winnow.server.settings import MAX_GIB, Settings

if TYPE_CHECKING:
    from winnow.server.cluster_plan import ClusterPlan

ReplicaCount = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Whole Winnows on the Ray cluster, a card each: a number, or a range such as 2-8, in which their number "
        "follows the candidates (default: 1).",
        show_default=False,
    ),
]


def serve(settings: Settings, ray: RayAddress = None, replicas: ReplicaCount = None) -> None:
    """Serve an OpenAI-compatible endpoint; without options, the demo models on 127.0.0.1:8000."""
    if ray:
        from winnow.server.ray.app import Replicas
        from winnow.server.ray.online import serve_on_ray

        return serve_on_ray(settings, ray, Replicas.of(replicas or 1))
    if replicas:
        raise SettingsError("--replicas is for a Ray cluster; name it with --ray")
    from winnow.server.api.run import serve as run

    return run(settings)


def plan(
    settings: Settings,
    card_gib: Annotated[
        float | None,
        typer.Option(min=1, max=MAX_GIB, help="Plan for a card of this size in GiB; default: this machine."),
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Print how many replicas and cards a load needs; see the next options.")
    ] = False,
    requests_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Of a cluster: the load, over all clients.")
    ] = None,
    candidates: Annotated[int | None, typer.Option("--candidates", "-k", min=1, help="Of a cluster: K.")] = None,
    answer_tokens: Annotated[
        float | None,
        typer.Option(min=1, help="Of a cluster: a candidate's tokens, on average (default: as measured, or 256)."),
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(min=1, help="Of a cluster: sampled tokens a second of one replica, all candidates together."),
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(help="Of a cluster: result.json of winnow loadtest on one replica, which tells that.")
    ] = None,
    busy: Annotated[float, typer.Option(min=0.05, max=1, help="Of a cluster: the share of it to plan for.")] = 0.7,
    spare: Annotated[int, typer.Option(min=0, help="Of a cluster: replicas that may be gone.")] = 1,
) -> None:
    """Print how the three engines would share a card's memory; exit 1, with the arithmetic, if they do not fit.

    Of a checkpoint only config.json is needed; weights are counted if they are there. With --card-gib
    no GPU is needed. With --cluster: how many such cards a load needs.
    """
    from winnow.server.memory_plan import print_cluster, print_plan

    if not cluster:
        given = (requests_per_second, candidates, answer_tokens, tokens_per_second, measured)
        if any(value is not None for value in given):
            raise SettingsError("the load is that of a cluster; add --cluster")
        print_plan(settings, card_gib)
        return
    if settings.policy.is_remote:
        raise SettingsError("--cluster plans whole replicas; with the policy on other servers the cards are theirs")
    load = (requests_per_second, candidates or settings.candidates.max, answer_tokens)
    print_cluster(settings, card_gib, _cluster(load, tokens_per_second, measured, busy, spare))


def _cluster(
    load: tuple[float | None, int, float | None], stated: float | None, measured: Path | None, busy: float, spare: int
) -> ClusterPlan:
    """Return the plan for a load, which is requests a second, K and tokens of an answer."""
    from winnow.models.engines.planning import TYPICAL_ANSWER
    from winnow.server import cluster_plan

    requests, candidates, tokens = load
    if requests is None:
        raise SettingsError("--cluster needs the load: --requests-per-second")
    if (stated is None) == (measured is None):
        raise SettingsError(
            "--cluster needs one replica's speed: either --tokens-per-second, or --measured result.json"
        )
    speed = cluster_plan.measured(measured) if measured else cluster_plan.Speed(stated or 0, "as stated")
    asked = cluster_plan.Load(requests, candidates, tokens or speed.answer_tokens or TYPICAL_ANSWER)
    return cluster_plan.ClusterPlan(asked, speed, busy, spare)
