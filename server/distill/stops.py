"""The ends of a run's waves, beside each prompt's own rewards: a table of expected gains, and a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from winnow.models.errors import RunError
from winnow.models.gains import ADVICE, GainTable
from winnow.server.distill.budget import Allocation
from winnow.server.distill.expected_gains import OwnGains, TableGains
from winnow.server.distill.identity import served_version
from winnow.server.distill.opening import Input
from winnow.server.distill.options import RunOptions
from winnow.server.model_identity import fingerprint_of
from winnow.server.pipeline.waves import ExpectedGain
from winnow.server.settings import Settings


class GainsInUse(NamedTuple):
    """A table that decides in a run, whose `digest` is part of the run's identity; `expected` is None of a server's."""

    digest: str
    expected: ExpectedGain | None


def gains_in_use(options: RunOptions, settings: Settings, run: Mapping[str, Any], given: Input) -> GainsInUse | None:
    """Return the table that decides where waves end in the run with this identity; None if none does.

    Raises:
        RunError: one is needed, and the server has none, or the settings' knows nothing.
        GainsError: the settings' cannot be read, or is of other models.
    """
    choices = options.choices
    is_stop = choices.waves is not None and choices.waves.gain is not None
    if options.server and not choices.budget:
        told = served_version(options).gains if is_stop or given.asks_gain else None
        if is_stop and not told:
            raise RunError(
                "the server has no table of expected gains, which --adaptive gain=… needs; start it with --gains FILE"
            )
        return GainsInUse(told.digest, None) if told else None
    if settings.gains is None or not (is_stop or given.asks_gain or choices.budget):
        return None
    table = GainTable.read(settings.gains, fingerprint_of(run["models"], run["settings"]))
    if not table.knows:
        raise RunError(f"{settings.gains} knows no expected gains yet; {ADVICE}")
    return GainsInUse(table.digest, table.expected)


def allocation_of(options: RunOptions, given: Input, gains: GainsInUse | None) -> Callable[[], Allocation] | None:
    """Return the rounds of the run's budget, each time from the beginning; None without a budget.

    Raises:
        RunError: the prompts cannot take just this budget.
    """
    budget = options.choices.budget
    if budget is None:
        return None
    budget.require_possible(given.limits.values())
    table = gains.expected if gains else None
    return lambda: Allocation(budget, given.limits, TableGains(table) if table else OwnGains())
