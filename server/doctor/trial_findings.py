"""Findings about the trials: which failed, where the plan was exceeded, and how far times are from the roofline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from winnow.models.engines.memory import GIB
from winnow.models.reporting.numbers import percent
from winnow.server.doctor.figures import Figures, Timed
from winnow.server.doctor.findings import Finding, Severity
from winnow.server.doctor.runner import Outcome
from winnow.server.doctor.trials import TITLES

FAR_FROM_FLOOR = 1.3
"""The ratio of a selection to its roofline that is worth a look, on a card and for a model of real size."""
LEAST_FREE, SCARCE_FREE = 0.01, 0.02
"""Shares of a card that must, and that should, stay free under load."""


def findings(outcomes: Mapping[str, Outcome], figures: Figures, *, is_tiny: bool, on_gpu: bool) -> Iterator[Finding]:
    """Yield what follows from the trials."""
    failed = [outcome for outcome in outcomes.values() if not outcome.is_ok]
    for error in dict.fromkeys(outcome.error for outcome in failed):
        yield _failure([outcome for outcome in failed if outcome.error == error])
    service = outcomes.get("service")
    if service and service.is_ok:
        yield _answers(service, figures)
        if not figures.parts:
            yield Finding("advice", "memory", "The engines' memory could not be measured.", "Report it with this file.")
    yield from _memory(figures, on_gpu=on_gpu)
    if figures.steps:
        yield _decoding(figures.steps)
    if on_gpu and not is_tiny:
        yield from _distance(figures)


def _failure(failed: Sequence[Outcome]) -> Finding:
    """Return the finding about trials that failed for the same reason."""
    names = " and ".join(f'"{_title(outcome)}"' for outcome in failed)
    is_late = failed[0].is_late
    return Finding(
        "problem",
        f"trial_{failed[0].name}",
        f"The trial{'s' * (len(failed) > 1)} {names} {'did not end in time' if is_late else 'failed'}: "
        f"{(failed[0].error or '').rstrip('.')}.",
        "Mend the other findings first. If it stays, attach this report to a bug report: it has the last lines of the "
        "log." + (" --trial-seconds gives a slow machine more time." if is_late else ""),
    )


def _title(outcome: Outcome) -> str:
    return next((title for name, title in TITLES.items() if name == outcome.name), outcome.name)


def _answers(service: Outcome, figures: Figures) -> Finding:
    if figures.scored < figures.candidates:
        reasons = sorted({reason for row in service.found["best_of"] for reason in row["failures"]})
        return Finding(
            "problem",
            "scores",
            f"Only {figures.scored} of {figures.candidates} candidates have two scores: "
            f"{'; '.join(reasons) or 'a score is not a number'}.",
            "Random weights can overflow in float16; if --dtype float32 scores all, it is that. Else report it.",
        )
    return Finding(
        "ok",
        "service",
        f"The three engines start in {service.found['start_seconds']:.0f} s ({service.found['start_method']}) and "
        f"answer; all {figures.candidates} candidates were scored.",
    )


def _memory(figures: Figures, *, on_gpu: bool) -> Iterator[Finding]:
    exceeded = [part for part in figures.parts if part.is_exceeded]
    for part in exceeded:
        yield Finding(
            "problem",
            f"plan_{part.name}",
            f"{'All engines' if part.name == 'all' else f'The {part.name} engine'} took {_gib(part.measured)}, more "
            f"than the {_gib(part.planned)} of the plan (by {_mib(part.measured - part.planned)}).",
            "Report it with this file: the plan's constants are estimates. Until then leave more free with "
            + ("--policy-memory and --rm-memory." if on_gpu else "--kv-cache-gib and --rm-kv-cache-gib."),
        )
    if figures.parts and not exceeded:
        total = figures.parts[-1]
        yield Finding(
            "ok",
            "plan",
            f"The engines took {_gib(total.measured)} at most, within the {_gib(total.planned)} of the plan.",
        )
    if not on_gpu or figures.least_free is None or not figures.total:
        return
    share = figures.least_free / figures.total
    text = f"{_gib(figures.least_free)} of the card stayed free under load, {percent(share)}."
    if share >= SCARCE_FREE:
        yield Finding("ok", "card_free", text)
    else:
        severity: Severity = "problem" if share < LEAST_FREE else "advice"
        yield Finding(severity, "card_free", text, "A smaller --policy-memory, --rm-memory or --max-sequences.")


def _decoding(steps: Sequence[Timed]) -> Finding:
    times = " and ".join(
        f"{1e3 * step.seconds:.2f} ms for {step.candidates} candidate{'s' * (step.candidates > 1)}"
        for step in dict.fromkeys((steps[0], steps[-1]))
    )
    return Finding("ok", "decode_step", f"A decode step of the policy alone takes {times}.")


def _distance(figures: Figures) -> Iterator[Finding]:
    for selection in figures.selections:
        ratio = selection.ratio_tied
        if ratio and ratio > FAR_FROM_FLOOR:
            yield Finding(
                "advice",
                f"speed_{selection.candidates}",
                f"The best of {selection.candidates} takes {ratio:.1f} times as long as the card's memory and "
                "arithmetic allow.",
                "Compare with --compile, and with MPS on; leave --eager out. docs/operations.md says how to read this.",
            )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
