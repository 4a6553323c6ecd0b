"""One `winnow loadtest`, from its options to its files: the composition root of the load tests."""

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
from winnow.loadtests.progress import show_progress
from winnow.loadtests.results import Result, document, write
from winnow.loadtests.runner import Observer, run
from winnow.loadtests.scenario import Scenario
from winnow.loadtests.scenario_files import load
from winnow.loadtests.tables import show
from winnow.loadtests.target import Dialect, OpenAITarget, open_target

OPEN_FILES = 16_384
"""File descriptors to request from the system: every outstanding request has a connection."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `changes` replace keys of the scenario; `candidates`, `rate`, `concurrency` may be tuples."""

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


def scenario_of(options: Options) -> Scenario:
    """Return the scenario with the changes of the command line.

    Raises:
        ScenarioError: there is no such scenario, or the changes do not fit it.
    """
    original = load(options.scenario)
    changes = dict(options.changes)
    if options.candidates is not None:
        changes["candidates"] = options.candidates
    if options.prompts is not None:
        changes |= {"prompts": None, "prompts_file": str(options.prompts)}
    if options.rate is not None:
        kind = "constant" if original.arrivals and original.arrivals.kind == "constant" else "poisson"
        changes |= {"arrivals": {"kind": kind, "rate": options.rate}, "concurrency": None}
    if options.concurrency is not None:
        changes |= {"concurrency": options.concurrency, **({} if options.rate is not None else {"arrivals": None})}
    if "seconds" in changes and "requests" not in changes:
        changes["requests"] = None
    return load(options.scenario, changes)


def run_loadtest(options: Options) -> None:
    """Run a load test, print its result and write its files.

    Raises:
        ScenarioError: the scenario cannot be run as given.
        LoadTestError: the test failed, or was interrupted before anything was measured.
    """
    scenario = scenario_of(options)
    _raise_file_limit()
    with show_progress() as observer:
        result = asyncio.run(_measure(options, scenario, observer))
    if not result.repeats:
        raise LoadTestError("interrupted before anything was measured")
    if options.as_json:
        print(json.dumps(document(result), indent=1, ensure_ascii=False, default=str))
    else:
        show(result, Console(highlight=False))
    folder = options.out or (None if options.as_json else Path(f"loadtest-{scenario.name}"))
    if folder is not None:
        _write_files(result, folder)


async def _measure(options: Options, scenario: Scenario, observer: Observer) -> Result:
    servers = [(options.url, options.api_key)]
    servers += [(options.against, options.against_key)] if options.against else []
    started = datetime.now(UTC).isoformat(timespec="seconds")
    async with AsyncExitStack() as stack:
        targets: list[OpenAITarget] = []
        for url, key in servers:
            target = await open_target(
                url, api_key=key, model=options.model, dialect=options.dialect, stream=scenario.stream,
                taken={target.name for target in targets},
            )  # fmt: skip
            targets.append(await stack.enter_async_context(target))
        with _until_interrupted() as stop:
            repeats = await run(scenario, targets, stop=stop, observer=observer)
        facts = [{"name": target.name, **target.facts} for target in targets]
        return Result(scenario, facts, repeats, started, is_interrupted=stop.is_set())


@contextlib.contextmanager
def _until_interrupted() -> Iterator[asyncio.Event]:
    """Yield an event that the first Ctrl-C sets; the second raises KeyboardInterrupt as usual."""
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
    except ImportError:  # this platform has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _write_files(result: Result, folder: Path) -> None:
    console = Console(stderr=True, highlight=False)
    write(result, folder)
    console.print(Text(f"{folder / 'result.json'}, {folder / 'requests.jsonl'}"), soft_wrap=True)
    try:
        from winnow.loadtests.report import write_report
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        line = f"no report.html: {package} is not installed; pip install 'winnow-llm[loadtest]'"
        console.print(Text(line, style="yellow"), soft_wrap=True)
        return
    console.print(Text(str(write_report(result, folder))), soft_wrap=True)
