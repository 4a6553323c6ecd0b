"""The trials, each run as `python -m winnow.server.doctor.trials NAME OPTIONS RESULT PARENT`.

OPTIONS is a file with the settings as JSON. What a trial finds is written to the file RESULT on the way, so that a
trial that crashes or hangs leaves what it had found. The process ends with PARENT.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from winnow.models.engines.process import Attachment
from winnow.models.errors import WinnowError
from winnow.server.doctor.notes import Notes
from winnow.server.settings import Settings

TrialName = Literal["device", "policy", "reward_model", "service"]
TITLES: Mapping[TrialName, str] = {
    "device": "bandwidth and arithmetic of the device",
    "policy": "the policy alone",
    "reward_model": "a reward model alone",
    "service": "all three, as the service starts them",
}


def device(_: Settings, notes: Notes) -> None:
    """Measure bytes and floating-point operations a second."""
    notes.at("measuring")
    from winnow.models.engines.bandwidth import measure

    notes.found["machine"] = dataclasses.asdict(measure())


def policy(settings: Settings, notes: Notes) -> None:
    """Start the policy's engine, and measure its decode steps."""
    from winnow.server.doctor.engine_trials import policy as run

    run(settings, notes)


def reward_model(settings: Settings, notes: Notes) -> None:
    """Start the safety model's engine, and measure the score of a long answer behind a cached prompt."""
    from winnow.server.doctor.engine_trials import reward_model as run

    run(settings, notes)


def service(settings: Settings, notes: Notes) -> None:
    """Start all three engines as the service does, and select the best of K answers."""
    from winnow.server.doctor.service_trial import service as run

    run(settings, notes)


TRIALS: Mapping[TrialName, Callable[[Settings, Notes], None]] = {
    "device": device,
    "policy": policy,
    "reward_model": reward_model,
    "service": service,
}


def run(trial: Callable[[Settings, Notes], None], settings: Settings, notes: Notes) -> int:
    """Run a trial and write what it found; returns the process's exit status."""
    try:
        trial(settings, notes)
    except WinnowError as error:
        notes.error = str(error)
    except Exception as error:  # the boundary of this process: whatever happens is an outcome to report
        traceback.print_exc()
        notes.error = " ".join(f"{type(error).__name__}: {error}".split())
    notes.write()
    return int(notes.error is not None)


def main() -> None:
    """Run the trial that the command line names."""
    name, options, result, parent = sys.argv[1:]
    assert name in get_args(TrialName)
    Attachment(int(parent), niceness=0).apply()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("winnow").setLevel(logging.DEBUG)  # with an engine's own output, if it does not start
    settings = Settings(**json.loads(Path(options).read_text(encoding="utf-8")))
    sys.exit(run(TRIALS[name], settings, Notes(Path(result))))  # type: ignore[index]


if __name__ == "__main__":
    main()
