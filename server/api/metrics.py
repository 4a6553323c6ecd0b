"""Prometheus metrics: what an operator watches. Label values are bounded: routes, statuses and branches, never user input."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from winnow.models.errors import NoScoredCandidate
from winnow.models.types import Branch, Selection
from winnow.server.pipeline.admission import Ticket
from winnow.server.service import Service

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
REWARD = tuple(twentieth / 20 for twentieth in range(1, 21))


class Metrics:
    """One server's metrics, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "winnow_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.in_flight = Gauge("winnow_candidates_in_flight", "Candidates being sampled or scored.", registry=registry)
        self.candidates = Counter("winnow_candidates", "Candidates scored, by branch.", ["branch"], registry=registry)
        self.failed = Counter("winnow_candidates_failed", "Candidates that could not be scored.", registry=registry)
        self.aborted = Counter(
            "winnow_candidates_aborted", "Candidates of requests given up: the client left, time was up, an engine died.",
            registry=registry,
        )  # fmt: skip
        self.given_up = Counter(
            "winnow_candidates_given_up", "Candidates given up because less than all K would do.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.selection_candidates = Histogram(
            "winnow_selection_candidates", "K as it was sampled, by what reduced it: none, load or deadline.",
            ["reduced_by"], buckets=CANDIDATES, registry=registry,
        )  # fmt: skip
        self.truncated = Counter(
            "winnow_selections_truncated", "Selections that ended before all of their candidates had.", ["by"],
            registry=registry,
        )  # fmt: skip
        self.all_unsafe = Counter(
            "winnow_selections_all_unsafe", "Selections in which every candidate was gated.", registry=registry
        )
        self.safe_passed_over = Counter(
            "winnow_selections_safe_passed_over", "Selections whose winner was gated although another was not.",
            registry=registry,
        )  # fmt: skip
        self.sampled_tokens = Counter("winnow_tokens_sampled", "Tokens of all candidates.", registry=registry)
        self.given_up_tokens = Counter(
            "winnow_tokens_given_up", "Tokens of the candidates that were given up.", registry=registry
        )
        self.winner_tokens = Counter("winnow_tokens_winners", "Tokens of the winners.", registry=registry)
        self.seconds = Histogram(
            "winnow_selection_seconds", "Wall-clock time of a selection, by phase.", ["phase"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.rewards = Histogram(
            "winnow_candidate_reward", "Every candidate's R_s, R_h where it decided, and R_c.", ["reward"],
            buckets=REWARD, registry=registry,
        )  # fmt: skip
        self.reward = Histogram("winnow_winner_reward", "R_c of the winners.", buckets=REWARD, registry=registry)
        self.gain = Histogram(
            "winnow_winner_gain", "R_c of the winner minus the mean R_c of its candidates.", buckets=REWARD,
            registry=registry,
        )  # fmt: skip
        self._gauges(service)

    def _gauges(self, service: Service) -> None:
        """What is read where it stands when somebody asks."""
        admission = service.admission
        now: dict[str, tuple[str, Callable[[], float]]] = {
            "winnow_requests_queued": ("Requests waiting for admission.", lambda: admission.queued_requests),
            "winnow_candidates_queued": ("Candidates of those requests.", lambda: admission.queued_candidates),
            "winnow_tokens_queued": ("Prompt tokens of those requests.", lambda: admission.queued_tokens),
            "winnow_candidates_admitted": ("Candidates that hold a place.", lambda: admission.in_flight),
            "winnow_ready": ("1 while requests are taken.", lambda: float(service.is_ready)),
        }
        for name, (text, read) in now.items():
            Gauge(name, text, registry=self.registry).set_function(read)
        unfinished = Gauge(
            "winnow_engine_requests", "Requests that an engine has not finished.", ["engine"], registry=self.registry
        )
        for name, engine in service.engines.items():
            unfinished.labels(name).set_function(functools.partial(getattr, engine, "unfinished"))

    @contextlib.contextmanager
    def candidates_in_flight(self, candidates: int) -> Iterator[None]:
        """Count `candidates` as in flight for the length of the block, and as failed or aborted if it raises."""
        self.in_flight.inc(candidates)
        try:
            yield
        except NoScoredCandidate:
            self.failed.inc(candidates)
            raise
        except BaseException:
            self.aborted.inc(candidates)
            raise
        finally:
            self.in_flight.dec(candidates)

    def observe(self, selection: Selection, ticket: Ticket) -> None:
        """Count one selection, and what it was let in with."""
        self.selection_candidates.labels(ticket.reduced_by or "none").observe(selection.requested)
        if selection.truncated_by:
            self.truncated.labels(selection.truncated_by).inc()
        for aborted in selection.aborted:
            self.given_up.labels(aborted.reason).inc()
        self.given_up_tokens.inc(selection.aborted_tokens)
        for item in selection.scored:
            reward = item.reward
            self.candidates.labels(reward.branch.value).inc()
            self.rewards.labels("safety").observe(reward.safety)
            self.rewards.labels("combined").observe(reward.combined)
            if reward.branch is Branch.HELPFUL:
                self.rewards.labels("helpfulness").observe(reward.combined)
        self.failed.inc(len(selection.failures))
        self.all_unsafe.inc(selection.all_unsafe)
        self.safe_passed_over.inc(selection.safe_passed_over)
        self.sampled_tokens.inc(selection.sampled_tokens)
        self.winner_tokens.inc(selection.winner.candidate.tokens)
        for phase in ("queue", "first_candidate", "generate", "score_tail", "total"):
            self.seconds.labels(phase).observe(getattr(selection.timings, phase))
        self.reward.observe(selection.winner.reward.combined)
        self.gain.observe(selection.gain)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
