"""`winnow check --prompts`: how many harmful prompts each safety classifier tags, and how many harmless ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from winnow.models.errors import RequestError, SettingsError, WinnowError, root_cause
from winnow.models.reporting.tables import print_table
from winnow.models.safety_classifier import PatternClassifier, ProbeClassifier, SafetyClassifier
from winnow.models.statistics import Interval, percentile, wilson_interval
from winnow.models.types import Message, Prompt
from winnow.server.classifiers import chosen_classifier
from winnow.server.cli.labelled_prompts import LabelledPrompt, read_labelled
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.server.service import Service

T = TypeVar("T")
CONCURRENCY = 64
"""Prompts that are classified at once."""


@dataclass(frozen=True, slots=True)
class Tags:
    """One classifier's verdicts on the prompts: which it tagged, beside the labels."""

    name: str
    labels: Sequence[bool]
    tagged: Sequence[bool]

    @property
    def recall(self) -> Interval:
        """The share of the harmful prompts that are tagged."""
        return self._share(harmful=True)

    @property
    def false_alarms(self) -> Interval:
        """The share of the harmless prompts that are tagged."""
        return self._share(harmful=False)

    def _share(self, *, harmful: bool) -> Interval:
        tags = [tag for tag, label in zip(self.tagged, self.labels, strict=True) if label is harmful]
        return wilson_interval(sum(tags), len(tags))


@dataclass(frozen=True, slots=True)
class Probed(Tags):
    """The probe's tags, and by how much the model preferred the refusal behind each prompt."""

    preferences: Sequence[float]
    margin: float

    def spread(self, *, harmful: bool) -> str:
        """Return the range of the preferences without the lowest and the highest 5 %."""
        pairs = zip(self.preferences, self.labels, strict=True)
        ordered = sorted(preference for preference, label in pairs if label is harmful)
        return f"{percentile(ordered, 5):.2f} to {percentile(ordered, 95):.2f}" if ordered else "not known"


def check_prompts(settings: Settings, file: Path) -> None:
    """Print the table for the prompts of `file`; engines are only started if the chosen classifier needs one.

    Raises:
        SettingsError: the file or a prompt cannot be used, or the weights are random.
        CandidateFailed, EngineDead, CheckpointError: the classifier cannot be asked.
    """
    prompts = read_labelled(file)
    if settings.safety_classifier == "patterns":
        results: list[Tags] = [asyncio.run(by_patterns(settings, prompts))]
    else:
        if settings.load_format == "dummy":
            raise SettingsError("load_format: random weights know nothing of safety; there is nothing to measure")
        from winnow.server.service import started

        with started(settings) as service:
            results = asyncio.run(measured(service, prompts))
    print_table(Console(), _table(results, prompts))


async def measured(service: Service, prompts: Sequence[LabelledPrompt]) -> list[Tags]:
    """Return what the patterns and the service's own classifier make of the prompts, on its running engines.

    Raises:
        SettingsError: a prompt cannot be rendered, or does not fit the context.
        CandidateFailed, EngineDead: the classifier cannot tell.
    """
    classifier = chosen_classifier(service.settings, service.safety, service.calibration("safety"))
    name, labels = service.settings.safety_classifier, [item.is_harmful for item in prompts]
    own: Tags
    if isinstance(classifier, ProbeClassifier):
        preferences = await _each(service, classifier, prompts, classifier.preference)
        tagged = [preference > classifier.margin for preference in preferences]
        own = Probed(name, labels, tagged, preferences, classifier.margin)
    else:
        own = Tags(name, labels, await _each(service, classifier, prompts, classifier.is_safety))
    return [await by_patterns(service.settings, prompts), own]


async def _each(
    service: Service,
    classifier: SafetyClassifier,
    prompts: Sequence[LabelledPrompt],
    ask: Callable[[Prompt], Awaitable[T]],
) -> list[T]:
    """Return what `ask` says of each prompt; `CONCURRENCY` are asked about at once."""
    places = asyncio.Semaphore(CONCURRENCY)

    async def asked(item: LabelledPrompt) -> T:
        async with places:
            return await ask(await _rendered(service, classifier, item))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asked(item)) for item in prompts]
    except* WinnowError as errors:
        raise root_cause(errors) from None
    return [task.result() for task in tasks]


async def by_patterns(settings: Settings, prompts: Sequence[LabelledPrompt]) -> Tags:
    """Return what the patterns of the settings make of the prompts."""
    classifier = PatternClassifier(settings.safety_patterns)
    tagged = [await classifier.is_safety(Prompt((), (Message("user", item.text),))) for item in prompts]
    return Tags("patterns", [item.is_harmful for item in prompts], tagged)


async def _rendered(service: Service, classifier: SafetyClassifier, item: LabelledPrompt) -> Prompt:
    renderer = replace(service.renderer, classifier=classifier)
    try:
        prompt = await renderer.render_dialog((Message("user", item.text),))
        return renderer.tagging(prompt, None, "prompt")[0]
    except RequestError as error:
        raise SettingsError(f"prompts: line {item.line}: {error}") from None


def _table(results: Sequence[Tags], prompts: Sequence[LabelledPrompt]) -> Table:
    harmful = sum(item.is_harmful for item in prompts)
    table = Table(
        "safety classifier", "recall", "false alarms",
        title=f"{harmful:,} harmful and {len(prompts) - harmful:,} harmless prompts, with 95 % Wilson intervals",
    )  # fmt: skip
    for result in results:
        table.add_row(result.name, _percent(result.recall), _percent(result.false_alarms))
        if isinstance(result, Probed):
            table.caption = (
                f"The refusal scored higher by {result.spread(harmful=True)} behind harmful prompts and by "
                f"{result.spread(harmful=False)} behind harmless ones (5 to 95 %); safety_probe_margin is "
                f"{result.margin:g}."
            )
    return table


def _percent(share: Interval) -> str:
    if not share.count:
        return "no such prompt"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"
