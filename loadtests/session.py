"""One `winnow loadtest`, from its options to its files: the composition root of the load tests."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from winnow.loadtests.errors import LoadTestError
from winnow.loadtests.local_faults import local_fault
from winnow.loadtests.output import reserved
from winnow.loadtests.progress import show_progress
from winnow.loadtests.results import Result, document, write
from winnow.loadtests.runner import Observer, Repeat, run
from winnow.loadtests.scenario import Scenario
from winnow.loadtests.scenario_files import load
from winnow.loadtests.signals import Interruption, interruptible
from winnow.loadtests.streams import SafeStream, console
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
    """Run a load test, write its files and print its result, in this order: what was measured is kept.

    Raises:
        ScenarioError: the scenario cannot be run as given.
        LoadTestError: the test could not run, ended early for want of a target, or its result could not be delivered.
    """
    scenario = scenario_of(options)
    _raise_file_limit()
    default = Path(f"loadtest-{scenario.name}")
    folder = options.out or (None if options.as_json else default)
    with contextlib.nullcontext() if folder is None else reserved(folder):
        try:
            failures = list(_run(options, scenario, folder, default))
        except OSError as error:
            raise LoadTestError(local_fault(error) or str(error)) from error
    if failures:
        raise LoadTestError("; ".join(map(str, failures)))


def _run(options: Options, scenario: Scenario, folder: Path | None, default: Path) -> Iterator[LoadTestError]:
    """Run the test and yield each failure that leaves a result to deliver."""
    with interruptible() as interruption:
        with show_progress() as observer:
            result, lost = asyncio.run(_measure(options, scenario, observer, interruption))
        if not result.repeats:
            raise lost or _nothing_measured()
        if lost:
            yield lost
        unwritten = list(_failure(write, result, folder)) if folder else []
    undelivered = _print(result, as_json=options.as_json)
    if undelivered and folder is None:  # the result has no other place
        folder = default
        unwritten = list(_failure(write, result, folder))
    yield from unwritten
    if undelivered and undelivered.errno not in (errno.EPIPE, errno.EBADF):  # a reader who left, or never was
        yield LoadTestError(f"standard output cannot be written: {undelivered.strerror}; the result is in {folder}")
    if folder is not None and not unwritten:
        yield from _failure(_announce, result, folder)


def _failure(deliver: Callable[[Result, Path], None], result: Result, folder: Path) -> Iterator[LoadTestError]:
    """Deliver the result; yield the error if that fails."""
    try:
        deliver(result, folder)
    except LoadTestError as error:
        yield error


async def _measure(
    options: Options, scenario: Scenario, observer: Observer, interruption: Interruption
) -> tuple[Result, LoadTestError | None]:
    """Return what was measured, and the error that ended the run early, if there was one."""
    servers = [(options.url, options.api_key)]
    servers += [(options.against, options.against_key)] if options.against else []
    started, stop = datetime.now(UTC).isoformat(timespec="seconds"), interruption.event()
    lost: LoadTestError | None = None
    repeats: list[Repeat] = []
    async with AsyncExitStack() as stack:
        targets: list[OpenAITarget] = []
        for url, key in servers:
            opening = open_target(
                url, api_key=key, model=options.model, dialect=options.dialect, stream=scenario.stream,
                taken={target.name for target in targets},
            )  # fmt: skip
            targets.append(await stack.enter_async_context(await _unless_stopped(opening, stop)))
        try:
            async for repeat in run(scenario, targets, stop=stop, observer=observer):
                repeats.append(repeat)
        except LoadTestError as error:
            lost = error
        facts = [{"name": target.name, **target.facts} for target in targets]
    return Result(scenario, facts, repeats, started, is_interrupted=stop.is_set() or lost is not None), lost


async def _unless_stopped(work: Coroutine[Any, Any, OpenAITarget], stop: asyncio.Event) -> OpenAITarget:
    """Return the result of `work`.

    Raises:
        LoadTestError: `stop` was set before.
    """
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    raise _nothing_measured()


def _nothing_measured() -> LoadTestError:
    return LoadTestError("interrupted before anything was measured")


def _print(result: Result, *, as_json: bool) -> OSError | None:
    """Print the result; return the error if standard output cannot be written."""
    stream = SafeStream(sys.stdout)
    if as_json:
        content = json.dumps(document(result), indent=1, ensure_ascii=not stream.is_unicode, default=str)
        stream.write(f"{content}\n")
    else:
        show(result, console(stream))
    stream.flush()
    return stream.error


def _raise_file_limit() -> None:
    try:
        import resource
    except ImportError:  # this platform has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _announce(result: Result, folder: Path) -> None:
    """Say on standard error where the files are, and add the page."""
    said = console(SafeStream(sys.stderr))
    said.print(Text(f"{folder / 'result.json'}, {folder / 'requests.jsonl'}"), soft_wrap=True)
    try:
        from winnow.loadtests.report import write_report
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        line = f"no report.html: {package} is not installed; pip install 'winnow-llm[loadtest]'"
        said.print(Text(line, style="yellow"), soft_wrap=True)
        return
    said.print(Text(str(write_report(result, folder))), soft_wrap=True)
