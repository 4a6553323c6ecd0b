"""The metrics of several replicas as one page: each series with the label `replica`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LABEL = "replica"


def merged(pages: Mapping[str, Sequence[Metric]]) -> bytes:
    """Return the metrics of replicas, by their names, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pages(pages))
    return generate_latest(registry)


class _Pages(Collector):
    def __init__(self, pages: Mapping[str, Sequence[Metric]]) -> None:
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        """Yield each family once, with the series of all replicas."""
        families: dict[str, Metric] = {}
        for replica, page in sorted(self._pages.items()):
            for family in page:
                own = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                own.samples += [sample._replace(labels={**sample.labels, LABEL: replica}) for sample in family.samples]
        yield from families.values()


def pages_of(answers: Iterable[object]) -> dict[str, Sequence[Metric]]:
    """Return the pages among the replicas' answers; of a replica that has just died there is an exception instead."""
    return dict(answer for answer in answers if isinstance(answer, tuple))
