"""A report: facts, outcomes and findings, as a document of JSON and as a summary for the terminal.

The document's keys are described in docs/operations.md. They stay within one `version`; new ones may come.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from winnow.server.doctor.facts import Facts
from winnow.server.doctor.figures import Figures, figures
from winnow.server.doctor.findings import Finding, Severity, by_severity, worst
from winnow.server.doctor.privacy import clean, clean_text
from winnow.server.doctor.runner import Outcome
from winnow.server.doctor.subject import Subject
from winnow.server.doctor.trial_findings import findings as trial_findings

VERSION = 1


@dataclass
class Report:
    """The findings so far; `known` are the findings about the facts and about what could not be tried."""

    facts: Facts
    subject: Subject | None = None
    known: list[Finding] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def figures(self) -> Figures:
        """The figures of the trials so far."""
        return figures(self.subject, self.outcomes) if self.subject else Figures(None)

    @property
    def findings(self) -> list[Finding]:
        """All findings, the worst first."""
        on_gpu = self.facts.wanted.on_gpu
        is_tiny = self.subject is None or self.subject.name == "tiny"
        tried = trial_findings(self.outcomes, self.figures, is_tiny=is_tiny, on_gpu=on_gpu)
        return by_severity([*self.known, *tried])

    @property
    def status(self) -> Severity:
        """The worst severity of all findings."""
        return worst(self.findings)

    @property
    def headline(self) -> str:
        """The outcome in a few words: the number of problems and of pieces of advice."""
        found = [finding.severity for finding in self.findings]
        problems, advice = found.count("problem"), found.count("advice")
        lead = f"{problems} problem{'s' * (problems != 1)}" if problems else "No problem was found"
        return lead + (f", {advice} piece{'s' * (advice != 1)} of advice" if advice else "")

    @property
    def document(self) -> dict[str, Any]:
        """The report as values of JSON, without anything that identifies a person or a machine."""
        document = {
            "version": VERSION,
            "winnow": version("winnow-llm"),
            "date": self.date,
            "status": self.status,
            "findings": [asdict(finding) for finding in self.findings],
            "facts": self.facts.as_json,
            "shape": self.subject.as_json if self.subject else None,
            "settings": self._settings(),
            "trials": {name: outcome.as_json for name, outcome in self.outcomes.items()},
            "figures": self.figures.as_json,
        }
        cleaned: dict[str, Any] = clean(document)
        return cleaned

    def _settings(self) -> dict[str, Any] | None:
        """Return the settings of the trials, without the paths of their checkpoints."""
        if self.subject is None:
            return None
        hidden = ("checkpoint", "canary", "load_format")
        values = ((name, value) for name, value in self.subject.options.items() if name not in hidden)
        return {
            name: {key: part for key, part in value.items() if key not in hidden} if isinstance(value, dict) else value
            for name, value in values
        }

    def summary(self) -> Iterator[str]:
        """Yield the lines of a summary, as wide as the terminal."""
        width = min(100, max(40, shutil.get_terminal_size().columns))
        yield f"{self.headline}."
        for finding in self.findings:
            first, *others = clean_text(finding.text).splitlines()
            yield textwrap.fill(first, width, initial_indent=f"{finding.severity + ':':9}", subsequent_indent=" " * 9)
            for line in others:
                yield textwrap.fill(line.strip(), width, initial_indent=" " * 11, subsequent_indent=" " * 13)
            if finding.remedy:
                yield textwrap.fill(finding.remedy, width, initial_indent=" " * 9 + "→ ", subsequent_indent=" " * 11)
