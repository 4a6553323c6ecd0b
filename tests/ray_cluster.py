"""A Ray cluster of several raylets on this machine's loopback, in a process of its own, for tests and measurements.

`python -m tests.ray_cluster NODES CPUS` prints its address and its raylets' process ids, and ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray connects to this machine's outward address
    "RAY_AUTH_MODE": "disabled",  # else Ray writes a token into the home
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine is no failure
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
STORE_BYTES = 80_000_000


@dataclass
class RayCluster:
    """A running cluster: the address of its head, and the process ids of its raylets, the head's first."""

    address: str
    raylets: list[int]
    environment: dict[str, str] = field(repr=False)

    @classmethod
    @contextlib.contextmanager
    def start(cls, nodes: int, cpus: int) -> Iterator[RayCluster]:
        """Start a cluster and yield it; everything of it has ended afterwards."""
        with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            environment = {**os.environ, **ENVIRONMENT, "RAY_TMPDIR": folder}
            with subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.ray_cluster", str(nodes), str(cpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                cwd=Path(__file__).parents[1],
            ) as process:
                assert process.stdout
                assert process.stdin
                found = json.loads(process.stdout.readline())
                try:
                    yield cls(found["address"], found["raylets"], environment)
                finally:
                    process.stdin.close()
                    process.wait(60)

    def workers(self, name: str) -> list[int]:
        """Return the process ids of the actors whose class is `name`."""
        title = f"ray::{name}".encode()
        return [pid for pid in self._children() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title)]

    def _children(self) -> Iterator[int]:
        for raylet in self.raylets:
            with contextlib.suppress(FileNotFoundError):
                for task in Path(f"/proc/{raylet}/task").iterdir():
                    yield from map(int, (task / "children").read_text().split())


def main() -> None:
    from ray.cluster_utils import Cluster

    nodes, cpus = map(int, sys.argv[1:])
    options = {
        "num_cpus": cpus,
        "node_ip_address": "127.0.0.1",
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    }
    cluster = Cluster(initialize_head=True, head_node_args=options)
    for _ in range(nodes - 1):
        cluster.add_node(**options)
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
