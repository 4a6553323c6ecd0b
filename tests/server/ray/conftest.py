from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray_cluster import RayCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Three raylets on this machine; one for each module, whose tests may kill them."""
    pytest.importorskip("ray")
    with RayCluster.start(nodes=3, cpus=2) as running:
        yield running
