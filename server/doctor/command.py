"""The run of `winnow doctor`: facts, then one trial after another; the report is written after each."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import orjson

from winnow.models.errors import CheckpointError, DoesNotFit, RunError
from winnow.server.doctor.card_probe import free_memory
from winnow.server.doctor.facts import gather
from winnow.server.doctor.facts_findings import findings as facts_findings
from winnow.server.doctor.findings import Finding
from winnow.server.doctor.report import Report
from winnow.server.doctor.runner import attempt
from winnow.server.doctor.subject import ShapeName, Subject, subject
from winnow.server.doctor.trials import TITLES, TrialName
from winnow.server.memory_plan import plan
from winnow.server.settings import Settings

JSON, PAGE = "doctor.json", "doctor.html"
DEVICE_SECONDS, TINY_SECONDS, SECONDS = 120.0, 240.0, 600.0
COMPILED_TIMES = 3
"""A compiled start takes that many times as long."""
PROGRAM = (sys.executable, "-m", "winnow.server.doctor.trials")
"""The program of a trial."""
NO_START = {"no_engine", "no_card", "temporary"}
"""Findings with which no engine can be tried."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run: the shape (None: the operator's checkpoints, or one that fits), the output, the limit.

    `out` is a folder for both files, or a file ending in .json or .html, beside which the other one lies; None writes
    nothing.
    """

    shape: ShapeName | None
    out: Path | None
    trials: bool = True
    trial_seconds: float | None = None

    @property
    def files(self) -> tuple[Path, Path] | None:
        """The files for the JSON and the page."""
        if self.out is None:
            return None
        if self.out.suffix in (".json", ".html"):
            return self.out.with_suffix(".json"), self.out.with_suffix(".html")
        return self.out / JSON, self.out / PAGE


def examine(settings: Settings, options: Options, say: Callable[[str], None]) -> Report:
    """Examine this machine and write the report; `say` prints a line of progress, or part of one.

    Call it from the main thread.

    Raises:
        RunError: the report cannot be written.
    """
    _require_writable(options)
    say("facts of this machine … ")
    report = Report(gather(settings))
    report.known += facts_findings(report.facts)
    say("read\n")
    write(report, options)
    if options.trials and NO_START.isdisjoint(finding.code for finding in report.known):
        with tempfile.TemporaryDirectory(prefix="winnow-doctor-") as folder:
            for outcome in _tried(report, settings, options, Path(folder), say):
                report.outcomes[outcome.name] = outcome
                write(report, options)
    write(report, options)
    return report


def _tried(report: Report, settings: Settings, options: Options, folder: Path, say: Callable[[str], None]) -> Any:
    """Yield the outcomes of the trials that can be begun."""
    names: tuple[TrialName, ...] = get_args(TrialName)
    try:
        report.subject = subject(settings, options.shape, folder)
        plan(report.subject.settings)
    except (CheckpointError, OSError) as error:
        report.known.append(_untried(error))
        names = ("device",)
    job = folder / "options.json"
    job.write_text(json.dumps(report.subject.options if report.subject else {}), encoding="utf-8")
    for number, name in enumerate(names, start=1):
        limit = options.trial_seconds or _limit(name, report.subject)
        say(f"trial {number} of {len(names)}: {TITLES[name]} (at most {limit:.0f} s) … ")
        command = [*PROGRAM, name, str(job)]
        if report.facts.wanted.on_gpu:
            with free_memory() as free:
                outcome = attempt(name, command, folder, limit, free)
        else:
            outcome = attempt(name, command, folder, limit)
        say(f"{'ok' if outcome.is_ok else 'FAILED'}, {outcome.seconds:.0f} s\n")
        yield outcome


def _untried(error: CheckpointError | OSError) -> Finding:
    """Return the finding that engines cannot be tried."""
    if isinstance(error, DoesNotFit):
        return Finding("problem", "plan", f"The models do not fit: {error}.", "Or name smaller ones with --shape tiny.")
    if isinstance(error, CheckpointError):
        remedy = "Check --policy, --safety-rm and --helpfulness-rm, or try a known --shape."
        return Finding("problem", "checkpoint", f"The engines cannot be tried: {error}.", remedy)
    text = f"The models' folders cannot be written: {error.strerror}."
    return Finding("problem", "temporary", text, "Set TMPDIR to a folder that can, with a few MiB free.")


def _limit(name: TrialName, tried: Subject | None) -> float:
    if name == "device" or tried is None:
        return DEVICE_SECONDS
    seconds = TINY_SECONDS if tried.name == "tiny" else SECONDS
    return seconds * COMPILED_TIMES if tried.settings.compile else seconds


def as_json(report: Report) -> str:
    """Return the report's document as text."""
    return orjson.dumps(report.document, option=orjson.OPT_INDENT_2).decode()


def write(report: Report, options: Options) -> None:
    """Write the report as it is now: JSON, and the page if its library is installed.

    Raises:
        RunError: it cannot be written.
    """
    if not options.files:
        return
    json_file, page_file = options.files
    try:
        json_file.write_text(as_json(report), encoding="utf-8")
        try:
            from winnow.server.doctor.page import render

            page_file.write_bytes(render(report))
        except ModuleNotFoundError:  # jinja2, where only the client is installed
            page_file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"the report cannot be written to {options.out}: {error.strerror}") from None


def _require_writable(options: Options) -> None:
    try:
        for path in options.files or ():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
    except OSError as error:
        raise RunError(f"the report cannot be written to {options.out}: {error.strerror}") from None


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as an exception does, so that a running trial is ended and files are removed."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
