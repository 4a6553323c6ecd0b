"""Prometheus metrics: what an operator watches. Label values are bounded: routes, statuses and branches, never user input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from winnow.models.types import Selection

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
REWARD = tuple(tenth / 20 for tenth in range(1, 21))


class Metrics:
    """One server's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "winnow_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.in_flight = Gauge("winnow_candidates_in_flight", "Candidates being sampled or scored.", registry=registry)
        self.candidates = Counter("winnow_candidates", "Candidates scored, by branch.", ["branch"], registry=registry)
        self.failed = Counter("winnow_candidates_failed", "Candidates that could not be scored.", registry=registry)
        self.sampled_tokens = Counter("winnow_tokens_sampled", "Tokens of all candidates.", registry=registry)
        self.winner_tokens = Counter("winnow_tokens_winners", "Tokens of the winners.", registry=registry)
        self.seconds = Histogram(
            "winnow_selection_seconds", "Wall-clock time of a selection, by phase.", ["phase"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.reward = Histogram("winnow_winner_reward", "R_c of the winners.", buckets=REWARD, registry=registry)
        self.gain = Histogram(
            "winnow_winner_gain", "R_c of the winner minus the mean R_c of its candidates.", buckets=REWARD,
            registry=registry,
        )  # fmt: skip

    @contextlib.contextmanager
    def candidates_in_flight(self, candidates: int) -> Iterator[None]:
        """Count `candidates` as in flight for the length of the block."""
        self.in_flight.inc(candidates)
        try:
            yield
        finally:
            self.in_flight.dec(candidates)

    def observe(self, selection: Selection) -> None:
        """Count one selection."""
        rewards = [item.reward.combined for item in selection.scored]
        best = selection.winner.reward.combined
        for item in selection.scored:
            self.candidates.labels(item.reward.branch.value).inc()
        self.failed.inc(len(selection.failures))
        self.sampled_tokens.inc(selection.sampled_tokens)
        self.winner_tokens.inc(selection.winner.candidate.tokens)
        for phase in ("first_candidate", "generate", "score_tail", "total"):
            self.seconds.labels(phase).observe(getattr(selection.timings, phase))
        self.reward.observe(best)
        self.gain.observe(best - sum(rewards) / len(rewards))

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
