"""Prometheus metrics. Label values are bounded: routes, statuses, branches and reasons, never what a client sent."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from winnow.models.engines.chat import ChatPolicy
from winnow.models.engines.judge import Judge
from winnow.models.engines.model_server import RemoteEngine
from winnow.models.errors import NoScoredCandidate
from winnow.models.types import Branch, Selection
from winnow.server.service import Service

SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
REWARD = tuple(twentieth / 20 for twentieth in range(1, 21))


class Metrics:
    """One server's metrics, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        counter = functools.partial(Counter, registry=registry)
        histogram = functools.partial(Histogram, registry=registry)
        # fmt: off
        self.requests = counter("winnow_requests", "Requests by route and status.", ["route", "status"])
        self.candidates = counter("winnow_candidates", "Candidates scored, by branch.", ["branch"])
        self.failed = counter("winnow_candidates_failed", "Candidates that could not be scored.")
        self.aborted = counter(
            "winnow_candidates_aborted", "Candidates that early stopping or a deadline aborted.", ["reason"])
        self.cancelled = counter(
            "winnow_candidates_cancelled", "Candidates of cancelled requests: client left, timeout, dead engine.")
        self.selection_candidates = histogram(
            "winnow_selection_candidates", "K as sampled, by what reduced it: none, load, deadline or temperature.",
            ["reduced_by"], buckets=CANDIDATES)
        self.adaptive_candidates = histogram(
            "winnow_adaptive_candidates", "k of adaptive selections, by what stopped their waves.", ["stopped_by"],
            buckets=CANDIDATES)
        self.adaptive_waves = histogram(
            "winnow_adaptive_waves", "Waves of adaptive selections.", buckets=CANDIDATES)
        self.adaptive_saved = counter(
            "winnow_adaptive_candidates_saved", "Candidates that adaptive selections did not need: K minus k.")
        self.truncated = counter("winnow_selections_truncated", "Selections that ended early, by the cause.", ["by"])
        self.all_unsafe = counter("winnow_selections_all_unsafe", "Selections in which every candidate was unsafe.")
        self.safe_passed_over = counter(
            "winnow_selections_safe_passed_over", "Selections with an unsafe winner and a safe candidate.")
        self.sampled_tokens = counter("winnow_tokens_sampled", "Tokens of all candidates.")
        self.aborted_tokens = counter("winnow_tokens_aborted", "Tokens of aborted candidates.")
        self.winner_tokens = counter("winnow_tokens_winners", "Tokens of the winners.")
        self.seconds = histogram(
            "winnow_selection_seconds", "Wall-clock time of a selection, by phase.", ["phase"], buckets=SECONDS)
        self.rewards = histogram(
            "winnow_candidate_reward", "R_s and R_c of every candidate, R_h of those it decided.",
            ["reward"], buckets=REWARD)
        self.reward = histogram("winnow_winner_reward", "R_c of the winners.", buckets=REWARD)
        self.gain = histogram("winnow_winner_gain", "R_c of the winner minus the candidates' mean.", buckets=REWARD)
        # fmt: on
        self._held: set[Callable[[], int]] = set()
        self._register_gauges(service)

    def _register_gauges(self, service: Service) -> None:
        """Register the gauges that are read from the service at each scrape."""
        admission = service.admission
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "winnow_requests_queued": ("Requests waiting for admission.", lambda: admission.queued_requests),
            "winnow_candidates_queued": ("Candidates of those requests.", lambda: admission.queued_candidates),
            "winnow_tokens_queued": ("Prompt tokens of those requests.", lambda: admission.queued_tokens),
            "winnow_candidates_in_flight": (
                "Candidates being sampled or scored.",
                lambda: sum(held() for held in self._held),
            ),
            "winnow_candidates_admitted": ("Candidates admitted and not finished.", lambda: admission.in_flight),
            "winnow_ready": ("1 while new requests are accepted.", lambda: float(service.is_ready)),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(read)
        unfinished = Gauge(
            "winnow_engine_requests", "Requests that an engine has not finished.", ["engine"], registry=self.registry
        )
        for name, engine in service.engines.items():
            unfinished.labels(name).set_function(functools.partial(getattr, engine, "unfinished"))
        self.registry.register(_RemoteModels(service))
        self.registry.register(_Recording(service))

    @contextlib.contextmanager
    def candidates_in_flight(self, held: Callable[[], int]) -> Iterator[None]:
        """Count what `held` returns as in flight during the block, and as cancelled if it raises; failed ones too."""
        self._held.add(held)
        try:
            yield
        except NoScoredCandidate as error:
            self.failed.inc(len(error.failures))
            raise
        except BaseException:
            self.cancelled.inc(held())
            raise
        finally:
            self._held.discard(held)

    def observe(self, selection: Selection) -> None:
        """Count one selection."""
        self.selection_candidates.labels(selection.reduced_by or "none").observe(selection.candidates)
        if selection.waves:
            self.adaptive_candidates.labels(selection.stopped_by).observe(selection.candidates)
            self.adaptive_waves.observe(selection.waves)
            self.adaptive_saved.inc((selection.requested or selection.candidates) - selection.candidates)
        if selection.truncated_by:
            self.truncated.labels(selection.truncated_by).inc()
        for aborted in selection.aborted:
            self.aborted.labels(aborted.reason).inc()
        self.aborted_tokens.inc(selection.aborted_tokens)
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
        for phase, seconds in asdict(selection.timings).items():
            self.seconds.labels(phase).observe(seconds)
        self.reward.observe(selection.winner.reward.combined)
        self.gain.observe(selection.gain)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _RemoteModels(Collector):
    """The models on other servers, read from their engines at each scrape."""

    def __init__(self, service: Service) -> None:
        self._engines = {name: one for name, one in service.engines.items() if isinstance(one, RemoteEngine)}

    def collect(self) -> Iterator[Metric]:
        """Yield the series; without such models they are empty."""
        up = GaugeMetricFamily("winnow_reward_model_up", "1 while the model's server can be used.", labels=["model"])
        retries = CounterMetricFamily("winnow_reward_model_retries", "Requests sent again.", labels=["model"])
        tokens = CounterMetricFamily(
            "winnow_judge_tokens", "Tokens that a judge's server has counted.", labels=["model", "kind"]
        )
        labels = ["engine", "server"]
        each = GaugeMetricFamily("winnow_remote_server_up", "1 while the server can be used.", labels=labels)
        held = GaugeMetricFamily("winnow_remote_server_requests", "Requests that it has not finished.", labels=labels)
        paid = CounterMetricFamily("winnow_policy_tokens", "Tokens that a chat endpoint has counted.", labels=["kind"])
        again = CounterMetricFamily("winnow_remote_retries", "Requests sent again.", labels=["engine"])
        for name, engine in self._engines.items():
            again.add_metric([name], engine.server.retries)
            if isinstance(engine, ChatPolicy):
                paid.add_metric(["prompt"], engine.prompt_tokens)
                paid.add_metric(["completion"], engine.completion_tokens)
            for server in engine.server.endpoints:
                each.add_metric([name, server.address.url], float(server.outage is None))
                held.add_metric([name, server.address.url], server.unfinished)
            if name == "policy":
                continue
            up.add_metric([name], float(engine.outage is None))
            retries.add_metric([name], engine.server.retries)
            if isinstance(engine, Judge):
                tokens.add_metric([name, "prompt"], engine.prompt_tokens)
                tokens.add_metric([name, "completion"], engine.completion_tokens)
        yield from (up, retries, tokens, each, held, again, paid)


class _Recording(Collector):
    """The recorder's counts, read at each scrape."""

    def __init__(self, service: Service) -> None:
        self._recorder = service.recorder

    def collect(self) -> Iterator[Metric]:
        """Yield the series; without a store they are empty."""
        up = GaugeMetricFamily("winnow_store_up", "1 while the store takes answers, 0 after one was refused.")
        waiting = GaugeMetricFamily("winnow_store_waiting", "Answers that wait to be recorded.")
        written = CounterMetricFamily("winnow_store_written", "Answers that were recorded.")
        dropped = CounterMetricFamily(
            "winnow_store_dropped", "Answers that could not be recorded, by the reason.", labels=["reason"]
        )
        if self._recorder:
            up.add_metric([], float(self._recorder.fault is None))
            waiting.add_metric([], self._recorder.waiting)
            written.add_metric([], self._recorder.written)
            for reason, number in self._recorder.drops.items():
                dropped.add_metric([reason], number)
        yield from (up, waiting, written, dropped)
