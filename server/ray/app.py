"""The Ray Serve application: `serve run winnow.server.ray.app:build`, and what `winnow serve --ray` runs.

Arguments of `build` are settings under their flat names, `config` for a file of them, `replicas` (a number, or a range
such as 2-8 to scale within), and `cpus` for a replica without a card.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winnow.models.errors import SettingsError
from winnow.server.api.auth import ApiKeys
from winnow.server.api.run import require_keys
from winnow.server.ray import haproxy
from winnow.server.ray.actor import OpenService, Orders
from winnow.server.ray.cluster import Share, cards_of, imported, share_of
from winnow.server.service import started
from winnow.server.settings import Settings, load
from winnow.server.store.location import location
from winnow.server.store.opening import require_store

NAME = "winnow"
"""Name of the application and of its deployment."""
SPARE_REQUESTS = 64
"""Requests that a replica takes beyond those that may have a candidate: probes, metrics, and those that get 429."""
ENDING_SECONDS = 10
"""Time for a replica's engines to end, after its requests have."""
ROUTING_SECONDS = 0.5
"""Interval at which a replica's candidates are counted for the proxies."""
ROUTER = {
    "request_router_class": "winnow.server.ray.router:CandidateRouter",
    "request_routing_stats_period_s": ROUTING_SECONDS,
}
PROXIES = "what Ray Serve listens on"
"""In the place of `host`, which says nothing where Ray's own command or config file starts the proxies."""
STARTS = 3
"""Starts that a replica may fail in before the application counts as failed."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The fewest and the most replicas; autoscaling chooses between them."""

    least: int
    most: int

    @classmethod
    def of(cls, text: str | int) -> Replicas:
        """Return the replicas that a number or a range spells.

        Raises:
            SettingsError: it is neither.
        """
        found = re.fullmatch(r"([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", str(text))
        if not found or int(found[1]) > int(found[2] or found[1]):
            raise SettingsError(f"replicas: a number, or a range such as 2-8, not {text!r}")
        return cls(int(found[1]), int(found[2] or found[1]))

    @property
    def options(self) -> dict[str, Any]:
        """The options of a deployment."""
        if self.least == self.most:
            return {"num_replicas": self.least}
        policy = {"policy_function": "winnow.server.ray.scaling:by_candidates"}
        bounds = {"min_replicas": self.least, "initial_replicas": self.least, "max_replicas": self.most}
        return {"autoscaling_config": {**bounds, "policy": policy}}


def build(arguments: Mapping[str, Any]) -> Any:
    """Return the application for `serve run` and for a Serve config file.

    Raises:
        SettingsError: an argument cannot be used.
        CheckpointError: a model is missing.
    """
    flags = dict(arguments)
    replicas, cpus = Replicas.of(flags.pop("replicas", 1)), flags.pop("cpus", None)
    config = flags.pop("config", None)
    settings = load(Path(config) if config else None, **flags)
    return application(settings, replicas, _share(settings, replicas, cpus), started, PROXIES)


def _share(settings: Settings, replicas: Replicas, cpus: Any) -> Share:
    """Return what a replica gets; cards are not counted, as they may come with nodes that are started for them."""
    ray = imported()
    if cards := cards_of(settings):
        return Share(1, cards)
    if cpus or not ray.is_initialized():
        return Share(int(cpus or 1))
    return share_of(ray, replicas.most, settings)


def application(
    settings: Settings, replicas: Replicas, share: Share, open_service: OpenService, front: str | None = None
) -> Any:
    """Return the application of whole Winnows, each with its share of the cluster; for `front` see `require_keys`.

    Raises:
        SettingsError: a setting is not for several replicas, or a key is missing.
    """
    require_shareable(settings)
    require_keys(settings, ApiKeys.of(settings), front)
    imported()
    from ray import serve

    from winnow.server.ray.replica import Replica

    deployment = serve.deployment(name=NAME, **options(settings, replicas, share))(serve.ingress()(Replica))
    return deployment.bind(Orders.of(settings, open_service))


def options(settings: Settings, replicas: Replicas, share: Share) -> dict[str, Any]:
    """Return the options of the deployment.

    Ray's own queue never holds a request: admission decides, so that a client gets its 429 at once.
    """
    return {
        **replicas.options,
        "ray_actor_options": share.options,
        "max_ongoing_requests": settings.max_candidates_in_flight + settings.max_queued_candidates + SPARE_REQUESTS,
        "max_queued_requests": -1,
        "graceful_shutdown_timeout_s": math.ceil(settings.shutdown_seconds) + ENDING_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": 2,
        "health_check_timeout_s": 30,
        "max_constructor_retry_count": STARTS,
        # HAProxy would pass the router by, and Ray refuses the two together.
        **({} if haproxy.is_enabled(os.environ) else {"request_router_config": ROUTER}),
    }


def require_shareable(settings: Settings) -> None:
    """Check the settings that several processes would write to at once.

    Raises:
        SettingsError: one is not for several replicas.
    """
    if settings.store and location(settings.store).kind == "sqlite":
        raise SettingsError("replicas on Ray share a store: name one by its URL, postgresql://USER@HOST/DATABASE")
    require_store(settings)
