"""`winnow doctor`: what an owner of a machine runs before anything else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from winnow.server.doctor.subject import ShapeName
from winnow.server.settings import Settings


def doctor(
    settings: Settings,
    shape: Annotated[
        ShapeName | None,
        typer.Option(
            help="Shape of the models that are tried. Default: that of --policy, --safety-rm and --helpfulness-rm if "
            "given, of which only config.json is read; else tiny, or on a card the largest that fits three times."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for doctor.json and doctor.html, or a name ending in .json or .html (default: winnow-doctor; "
            "with --json no files)."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print doctor.json instead of the summary.")] = False,
    trials: Annotated[bool, typer.Option(help="Start engines; --no-trials only reads facts, in seconds.")] = True,
    trial_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="Longest time of a trial. Default: 240, or 600 for other shapes than tiny."),
    ] = None,
) -> None:
    """Find out whether this machine can serve, and how well: run it before anything else, and attach it to bug reports.

    It reads facts (card, driver, MPS, memory, compilers, versions), then tries the engines on random weights: the
    policy, a reward model, and all three as `winnow serve` starts them, each in a process with a time limit. It holds
    the memory plan against the memory that was taken, and times against the least that the machine allows.

    A minute for tiny models; three to six on a card with a Llama-2 shape. No weights are downloaded or read, nothing
    is sent anywhere, and the report names no user, host or folder.

    Exit status: 0 if everything works, 1 if there is a problem.
    """
    from winnow.server.doctor.command import Options, as_json, end_on_sigterm, examine

    options = Options(shape, out or (None if json else Path("winnow-doctor")), trials, trial_seconds)
    end_on_sigterm()
    try:
        report = examine(settings, options, _say)
    except KeyboardInterrupt:
        kept = f"; {options.files[0]} has what was found until then" if options.files else ""
        _say(f"\nwinnow: interrupted{kept}\n")
        raise SystemExit(130) from None
    if json:
        print(as_json(report))
    else:
        print(*report.summary(), sep="\n")
    if options.files:
        _say(f"\n{next(file for file in reversed(options.files) if file.exists())}\n")
    raise SystemExit(int(report.status == "problem"))


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
