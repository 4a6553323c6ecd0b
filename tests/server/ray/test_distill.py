"""`winnow distill --ray` on a cluster of three raylets, whose parts are killed: the journal is that of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.live import wait_until
from tests.ray_cluster import RayCluster
from tests.scripted_ray import TICK

pytest.importorskip("ray")
SECONDS = 120
PROMPTS = 800
"""So many that a run on two actors takes half a minute: the three kills come before its end, on a busy machine, too."""


def begin(
    cluster: RayCluster,
    prompts: Path,
    out: Path,
    *more: str,
    tick: float = 0.001,
    said: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.scripted_ray", "distill", str(prompts), "--out", str(out)),
            *("-k", "4", "--no-canary", "--format", "sft", "--max-sequences", "16", *more),
        ],
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        env={**cluster.environment, TICK: str(tick)},
        cwd=Path(__file__).parents[3],
    )


def entries(out: Path) -> list[dict[str, Any]]:
    """The journal's entries by line, without what the clock has measured; each line has one."""
    found = [json.loads(line) for line in (out / "journal.jsonl").read_bytes().splitlines()]
    for entry in found:
        entry["selection"].pop("timings", None)
    assert len({entry["line"] for entry in found}) == len(found)
    return sorted(found, key=lambda entry: entry["line"])


def answered(out: Path) -> int:
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_a_run_is_that_of_one_machine_whatever_is_killed(cluster: RayCluster, tmp_path: Path) -> None:
    """An actor is killed, then a raylet, then the driver; one machine finishes the run."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"What is {n} plus {n * 7919 % 1000}?"}) + "\n" for n in range(PROMPTS))
    )
    out, said = tmp_path / "ray", tmp_path / "said"
    with (
        said.open("w") as file,
        begin(cluster, prompts, tmp_path / "plain") as plain,
        begin(cluster, prompts, out, "--ray", cluster.address, "--actors", "2", tick=0.06, said=file) as driver,
    ):
        for victim in (lambda: cluster.workers("EngineActor")[0], lambda: cluster.raylets[-1], lambda: driver.pid):
            before = answered(out)
            assert wait_until(lambda: answered(out) > before + 20 or driver.poll() is not None, SECONDS)  # noqa: B023
            assert driver.poll() is None, said.read_text()
            os.kill(victim(), signal.SIGKILL)
            # Not before: the driver may be dead before it has seen that an actor is.
            assert wait_until(lambda: "an actor is gone" in said.read_text() or driver.poll() is not None, SECONDS)
        driver.wait(SECONDS)
        assert "an actor is gone" in said.read_text()
        assert wait_until(lambda: not cluster.workers("EngineActor"), SECONDS), "actors outlive their driver"
        assert answered(out) < PROMPTS
        for finished in (plain, begin(cluster, prompts, out)):
            problem = finished.communicate(timeout=SECONDS)[1]
            assert finished.returncode == 0, problem
    assert entries(out) == entries(tmp_path / "plain")
    for name in ("export/sft.jsonl", "gains.json"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_cluster_without_room_is_refused(cluster: RayCluster, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "What is the moon?"}\n')
    driver = begin(cluster, prompts, tmp_path / "out", "--ray", cluster.address, "--actors", "99")
    said = driver.communicate(timeout=SECONDS)[1]
    assert driver.returncode == 1
    assert "99 of them need a CPU each" in said
