"""One `winnow loadtest` from its order to its files: the composition root of the load tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.progress import watching
from winnow.loadtests.results import Result, document, write
from winnow.loadtests.runner import Watch, run
from winnow.loadtests.scenario import Scenario
from winnow.loadtests.scenario_files import load
from winnow.loadtests.tables import show
from winnow.loadtests.target import Dialect, OpenAISystem, opened

OPEN_FILES = 16_384
"""File descriptors that are asked for: every request under way has a connection."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the command line says. `changes` replace keys of the scenario; numbers may be tuples, for a sweep."""

    scenario: str
    url: str
    against: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    candidates: Any = None
    rate: Any = None
    concurrency: Any = None
    prompts: Path | None = None
    model: str | None = None
    dialect: Dialect | None = None
    api_key: str | None = field(default=None, repr=False)
    against_key: str | None = field(default=None, repr=False)
    out: Path | None = None
    as_json: bool = False


def changed(order: Order) -> Scenario:
    """The scenario, with the order's changes.

    Raises:
        ScenarioError: there is none of that name, or the changes do not fit it.
    """
    plain = load(order.scenario)
    changes = dict(order.changes)
    if order.candidates is not None:
        changes["candidates"] = order.candidates
    if order.prompts is not None:
        changes |= {"prompts": None, "prompts_file": str(order.prompts)}
    if order.rate is not None:
        kind = "constant" if plain.arrivals and plain.arrivals.kind == "constant" else "poisson"
        changes |= {"arrivals": {"kind": kind, "rate": order.rate}, "concurrency": None}
    if order.concurrency is not None:
        changes |= {"concurrency": order.concurrency, **({} if order.rate is not None else {"arrivals": None})}
    if "seconds" in changes and "requests" not in changes:
        changes["requests"] = None
    return load(order.scenario, changes)


def carry_out(order: Order) -> None:
    """Run the order, show its result and write its files.

    Raises:
        ScenarioError: it cannot be run as it stands.
        LoadTestError: it could not be run, or nothing was measured.
    """
    scenario = changed(order)
    _raise_file_limit()
    with watching() as watch:
        result = asyncio.run(_measured(order, scenario, watch))
    if not result.repeats:
        raise LoadTestError("interrupted before anything was measured")
    if order.as_json:
        print(json.dumps(document(result), indent=1, ensure_ascii=False, default=str))
    else:
        show(result, Console(highlight=False))
    folder = order.out or (None if order.as_json else Path(f"loadtest-{scenario.name}"))
    if folder is not None:
        _keep(result, folder)


async def _measured(order: Order, scenario: Scenario, watch: Watch) -> Result:
    servers = [(order.url, order.api_key)] + ([(order.against, order.against_key)] if order.against else [])
    started = datetime.now(UTC).isoformat(timespec="seconds")
    async with AsyncExitStack() as stack:
        systems: list[OpenAISystem] = []
        for url, key in servers:
            taken = {system.name for system in systems}
            system = await opened(
                url, api_key=key, model=order.model, dialect=order.dialect, stream=scenario.stream, taken=taken
            )
            systems.append(await stack.enter_async_context(system))
        with _until_interrupted() as stop:
            repeats = await run(scenario, systems, stop=stop, watch=watch)
        facts = [{"name": system.name, **system.facts} for system in systems]
        return Result(scenario, facts, repeats, started, is_interrupted=stop.is_set())


@contextlib.contextmanager
def _until_interrupted() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C sets; the second one ends everything."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, interrupted)
    except (NotImplementedError, RuntimeError, ValueError):  # no signals on this platform or in this thread
        yield stop
        return
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _raise_file_limit() -> None:
    try:
        import resource
    except ImportError:  # no such limits on this platform
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep(result: Result, folder: Path) -> None:
    console = Console(stderr=True, highlight=False)
    write(result, folder)
    console.print(Text(f"{folder / 'result.json'}, {folder / 'requests.jsonl'}"), soft_wrap=True)
    try:
        from winnow.loadtests.report import write_report
    except ModuleNotFoundError as error:
        line = f"no report.html: {error.name} is not installed; pip install 'winnow-llm[loadtest]'"
        console.print(Text(line, style="yellow"), soft_wrap=True)
        return
    console.print(Text(str(write_report(result, folder))), soft_wrap=True)
