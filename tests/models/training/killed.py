"""A program for `test_reward_trainer`: trains undisturbed, then killed at random moments, and prints JSON of both.

Each training is a forked child that kills itself with SIGKILL at the n-th call or return of a Python function: most
of them are in the middle of a save, which is after each step. Its arguments: a folder, and Recipe's fields as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.models.training.preferences import comparisons
from winnow.models.training.classifier import load
from winnow.models.training.examples import Recipe
from winnow.models.training.reward_trainer import train

KILLS = 5


def trained(init: Path, work: Path, recipe: Recipe, result: Path, kill_at: int | None) -> int:
    """Train in a child, and return how it ended: 0, or the signal. `result` gets its events, steps and weights."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    events = 0
    steps: list[tuple[int, int]] = []

    def count(*_: Any) -> None:
        nonlocal events
        events += 1
        if events == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    model = train(init, comparisons(40), recipe, work, lambda p: steps.append((p.step, events)))
    sys.setprofile(None)
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    result.write_text(json.dumps({"events": events, "steps": steps, "weights": digest.hexdigest()}), encoding="utf-8")
    os._exit(0)


def main(root: Path, fields: dict[str, Any]) -> None:
    """Print both results, and how often the second training was killed."""
    torch.set_num_threads(1)
    recipe = Recipe(**{"epochs": 3, "batch": 8, "micro_batch": 4, "learning_rate": 1e-2, "save_seconds": 0, **fields})
    load(root / "init", 0)  # imports the architecture once for all
    assert trained(root / "init", root / "whole", recipe, root / "whole.json", None) == 0
    whole = json.loads((root / "whole.json").read_text(encoding="utf-8"))
    first = whole["steps"][0][1]
    moments = Random(recipe.seed).sample(range(first, first + (whole["events"] - first) // 2), KILLS)
    ends = [trained(root / "init", root / "cut", recipe, root / "cut.json", moment) for moment in moments]
    assert set(ends) <= {0, -signal.SIGKILL}, ends
    assert trained(root / "init", root / "cut", recipe, root / "cut.json", None) == 0
    cut = json.loads((root / "cut.json").read_text(encoding="utf-8"))
    print(json.dumps({"whole": whole, "cut": cut, "kills": ends.count(-signal.SIGKILL)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
