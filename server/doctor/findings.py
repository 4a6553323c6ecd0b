"""Findings: sentences about this machine, each with a severity and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["problem", "advice", "ok"]
SEVERITIES: tuple[Severity, ...] = ("problem", "advice", "ok")
"""Worst first: something does not work; something could be better; something works."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found, in a sentence, and what to do about it; `code` is stable, for programs."""

    severity: Severity
    code: str
    text: str
    remedy: str = ""


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first, else in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity among the findings; "ok" if there are none."""
    found = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in found), "ok")
