"""Routing by candidates: a request of K = 64 weighs 64, where Ray's own routers would count it as one.

A proxy does not see a request's body, and so not its K. But each replica tells how many candidates it has, in flight
and queued, twice a second; between two such counts a request that was sent there weighs as much as that replica's
others.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from typing import Any

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from winnow.server.ray.ledger import Ledger


class CandidateRouter(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Sends each request to the replica with the fewest candidates; one that is full is passed over."""

    def initialize_state(self, **_: Any) -> None:
        """Begin without counts; Ray calls it."""
        self._ledgers: defaultdict[Any, Ledger] = defaultdict(Ledger)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas in the order in which they are to be tried, one a rank."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        now = time.time()
        ranked = sorted(
            candidate_replicas,
            key=lambda one: (self._ledgers[one.replica_id].load(one.routing_stats or {}, now), random.random()),
        )
        if ranked:
            self._ledgers[ranked[0].replica_id].choose(now)
        return [[replica] for replica in ranked]

    def on_send_request(self, replica_id: Any) -> None:
        """Count a request that is sent."""
        super().on_send_request(replica_id)
        self._ledgers[replica_id].send(time.time())

    def decrement_queue_len_cache(self, replica_id: Any) -> None:
        """Count a request that has ended."""
        super().decrement_queue_len_cache(replica_id)
        self._ledgers[replica_id].end(time.time())

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget the counts of replicas that are gone."""
        super().update_replicas(replicas)
        for gone in self._ledgers.keys() - self._replica_id_set:
            del self._ledgers[gone]
