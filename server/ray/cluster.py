"""The way to a Ray cluster: found or started here, nothing sent out, and what of it an actor gets."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from winnow.models.engines.environment import runs_on_gpu
from winnow.models.errors import SettingsError
from winnow.server.settings import Settings

AUTO, LOCAL = "auto", "local"
"""A running cluster, or else one of this machine; and one of this machine, which ends with the command."""
LOOPBACK = "127.0.0.1"
PROBE_SECONDS = 5.0
"""Longest wait for a cluster's address to take a connection."""
DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report its use over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a driver without a card would hide the cards from its engines
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # after three times 5 s Ray ends a proxy on a busy machine
}
"""Ray's variables that are set where Ray is started or joined here, unless the operator has."""


def imported() -> Any:
    """Return the module `ray`, which sends no statistics unless the operator wants it.

    Raises:
        SettingsError: it is not installed.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise SettingsError("ray is not installed; --ray needs pip install 'winnow-llm[ray]'") from None
    return ray


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster at `address` for the length of the block.

    Of `AUTO` it is the cluster that `RAY_ADDRESS` names or that runs on this machine. If there is none, or of `LOCAL`,
    one is started that listens on loopback alone and ends with the block.

    Raises:
        SettingsError: Ray is not installed, or there is no cluster at the address.
    """
    ray = imported()
    if address.startswith("ray://"):
        raise SettingsError(
            f"--ray {address}: Ray's client protocol is not used; name a node's address such as HOST:6379, from a "
            "machine of the cluster"
        )
    options = {"log_to_driver": False, "logging_level": logging.WARNING, "namespace": "winnow"}
    try:
        if address == LOCAL or not _found(ray, address, options):
            ray.init(LOCAL, include_dashboard=False, _node_ip_address=LOOPBACK, **options)
        yield ray
    finally:
        ray.shutdown()


def _found(ray: Any, address: str, options: Mapping[str, Any]) -> bool:
    """Connect to the cluster at `address`; False if there is none and none was named.

    Ray itself would try an address that does not answer for minutes, such as that of a cluster that has ended.
    """
    place, reason = None, "no Ray cluster answers there"
    try:
        place = ray._private.services.canonicalize_bootstrap_address_or_die(address)
        if _answers(place):
            ray.init(place, **options)
            return True
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = line_of(error)
    if address == AUTO and not os.environ.get("RAY_ADDRESS"):
        return False
    raise SettingsError(f"--ray {address}: {reason}" + (f" ({place})" if place and place != address else "")) from None


def _answers(place: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS):
            return True
    except OSError:
        return False


def line_of(error: BaseException) -> str:
    """Return the first sentence of one of Ray's messages, which may have many lines."""
    return " ".join(str(error).split()).split(". ")[0][:200]


@dataclass(frozen=True, slots=True)
class Share:
    """The share of its node that an actor gets: as many cards as its engines are spread over, or some CPUs."""

    cpus: int
    gpus: int = 0

    @property
    def options(self) -> dict[str, int]:
        """The options of a Ray actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def __str__(self) -> str:
        if self.gpus:
            return "one card" if self.gpus == 1 else f"{self.gpus} cards"
        return "one CPU" if self.cpus == 1 else f"{self.cpus} CPUs"


def cards_of(settings: Settings) -> int:
    """Return how many cards an actor with these settings needs: none on CPU, or if all models are elsewhere."""
    return settings.tensor_parallel if runs_on_gpu() and settings.runs_engines else 0


def share_of(ray: Any, actors: int, settings: Settings) -> Share:
    """Return what each of `actors` with these settings gets of the connected cluster.

    Raises:
        SettingsError: it has no room for so many.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return share(nodes, actors, cards=cards_of(settings), most_cpus=None if settings.runs_engines else 1)


def share(nodes: Sequence[Mapping[str, float]], actors: int, *, cards: int = 0, most_cpus: int | None = None) -> Share:
    """Return an actor's share of nodes with these resources: `cards`, all of one node, or else CPUs.

    CPUs are shared equally, at most `most_cpus` for each.

    Raises:
        SettingsError: there is no room for so many.
    """
    if cards:
        _require_groups([int(node.get("GPU", 0)) for node in nodes], actors, cards)
        return Share(1, cards)
    there = [int(node.get("CPU", 0)) for node in nodes]
    for cpus in range(min(max(there), most_cpus or max(there)), 0, -1):
        if sum(count // cpus for count in there) >= actors:
            return Share(cpus)
    raise SettingsError(f"{actors} of them need a CPU each, and the Ray cluster has {sum(there)}")


def _require_groups(there: Sequence[int], actors: int, cards: int) -> None:
    """Check that nodes with so many cards have groups of `cards` for all actors.

    Raises:
        SettingsError: they do not.
    """
    groups = sum(count // cards for count in there)
    if groups >= actors:
        return
    if cards == 1:
        raise SettingsError(f"{actors} of them need a card each, and the Ray cluster has {groups}")
    raise SettingsError(
        f"{actors} of them need {cards} cards of one node each (tensor_parallel), and the Ray cluster has room for "
        f"{groups}"
    )
