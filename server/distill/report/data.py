"""The report as JSON, for programs: what the page shows of rewards, tokens and waves, as plain numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from winnow.models.statistics import Interval
from winnow.server.distill.report.findings import Findings
from winnow.server.distill.report.waves import WaveFindings


def data(findings: Findings) -> bytes:
    """Return the JSON; an interval is its value, its ends and the number of prompts it rests on, or null."""
    counts = findings.counts
    body = {
        "prompts": counts.prompts,
        "lines_without_answers": counts.problems.total(),
        "candidates": counts.candidates.answers,
        "failed_candidates": counts.failed,
        "tokens": counts.candidates.tokens,
        "winner": _interval(findings.winner),
        "mean": _interval(findings.mean),
        "gain": _interval(findings.gain),
        "curve": [{"n": point.size, "best": _interval(point.best)} for point in findings.curve],
        "waves": _waves(findings.waves) if findings.waves else None,
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n"


def _waves(found: WaveFindings) -> dict[str, Any]:
    drawn = found.drawn
    return {
        "fixed": [
            {"k": item.size, "reward": _interval(item.reward), "tokens": item.tokens, "estimated": item.is_estimated}
            for item in found.fixed
        ],
        "simulated_stops": [{**asdict(stop), "reward": _interval(stop.reward)} for stop in found.stops],
        "drawn": {
            "prompts": drawn.prompts,
            "k": {str(size): drawn.candidates[size] for size in sorted(drawn.candidates)},
            "mean_k": _interval(found.k),
            "tokens": _interval(found.spent),
            "requested": drawn.requested / drawn.prompts,
            "requested_tokens": found.tokens_of_k,
            "tokens_alike": found.tokens_alike,
            "stopped_by": dict(sorted(drawn.stopped_by.items())),
            "waves": [asdict(wave) for wave in drawn.gains],
            "expected_loss": drawn.expected_loss / drawn.expectations if drawn.expectations else None,
        }
        if drawn.prompts
        else None,
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return asdict(interval) if interval else None
