"""`winnow distill`: opens the input, claims the folder, starts engines or a client, runs, and exports."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import DialogError, EngineDead, RunError, SettingsError
from winnow.models.safety_classifier import PatternClassifier
from winnow.models.types import Message, Prompt
from winnow.server.aio import cancel, interrupted_by
from winnow.server.distill import journal as journal_file
from winnow.server.distill import manifest, outcome, progress, recipe, rounds, shards, tokenizer_copy
from winnow.server.distill.backends.base import Backend
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.backends.remote import Remote
from winnow.server.distill.budget import Allocation
from winnow.server.distill.export.formats import without_ids
from winnow.server.distill.files import made, undone
from winnow.server.distill.identity import chat_template, identity, served_model, served_version
from winnow.server.distill.journal import Journal
from winnow.server.distill.opening import SPOOL, Input
from winnow.server.distill.options import RunOptions
from winnow.server.distill.parser import Task, parse
from winnow.server.distill.plans import Planner
from winnow.server.distill.progress import Meter
from winnow.server.distill.reader import STDIN, Source, require_apart
from winnow.server.distill.recipe import Recipe
from winnow.server.distill.records import Problem
from winnow.server.distill.rounds import Rounds
from winnow.server.distill.runner import Runner
from winnow.server.distill.stops import GainsInUse, allocation_of, gains_in_use
from winnow.server.model_identity import fingerprint_of
from winnow.server.ray.actor import Orders
from winnow.server.ray.pool import ActorPool, OnActors, opened_pool
from winnow.server.remote_models import with_files
from winnow.server.reward_models import combiner_of_settings
from winnow.server.service import Service, started
from winnow.server.settings import Settings

logger = logging.getLogger(__name__)

MAX_RETRIES = 16
"""Retries of a call to a server: enough to outlast a server restart (about a minute)."""
SYNC_SECONDS = 1.0
"""Most work, in seconds, that a power cut can lose."""
IN_FLIGHT = 1024
"""Prompts in flight by default: enough for engines in this process to run at full throughput."""
IN_FLIGHT_REMOTE = 32
"""Prompts in flight by default with a server, which may serve other clients too."""


def distill(options: RunOptions, settings: Settings) -> int:
    """Start or continue a run; returns the exit status, 0 or `outcome.INCOMPLETE`.

    A signal raises `SystemExit` with 128 plus its number; finished prompts are kept.

    Raises:
        RunError: the run cannot start or continue; nothing that was finished is lost.
        GainsError: the table of expected gains cannot be used.
        SettingsError: the safety classifier needs a model that a run on a server does not have.
        CheckpointError, EngineDead: the engines.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    _require_possible(options, settings)
    require_apart(options.prompts, options.out)
    rules, digest = recipe.read(options.recipe)
    settings = settings if options.server else with_files(settings)
    manifest.require_readable(options.out)
    served = served_model(options) if options.server else None
    template = chat_template(settings, served)
    options = _with_combiner(options, settings)
    if options.choices.context_distillation:
        _require_system_messages(template)
    given = None if options.prompts == STDIN else Input.opened(options, template)
    run = identity(options, settings, template, digest, served)
    with made(options.out), Journal(options.out) as journal, _undone(options.out, journal):
        given = given or Input.opened(options, template)
        decides = gains_in_use(options, settings, run, given)
        run["input"] = given.identity
        run["settings"] |= {"gains": decides.digest} if decides else {}
        run |= {shards.KEY: asdict(options.shard)} if options.shard else {}
        manifest.claim(options.out, run, is_begun=bool(journal.done))
        if options.retry_failed:
            journal.done -= journal.failed
        if journal.damaged:
            logger.warning(
                "%d damaged lines in the journal were ignored; their prompts are answered again", journal.damaged
            )
        if journal.done:
            what = "have candidates" if options.choices.budget else "are done"
            logger.info("continuing: %d of %d lines %s", len(journal.done), given.total, what)
        allocation = allocation_of(options, given, decides)
        models = fingerprint_of(run["models"], run["settings"])
        session = _Session(options, given.source, template, journal, rules, decides, allocation, models)
        if session.is_complete(given.tasks):
            session.run_without_engines(settings)
        else:
            session.run(settings, given.total)
        journal.sync()
        if not journal.done.issuperset((*given.tasks, *given.problems)):
            raise RunError("the run ended before every line was done; run it again")
        if options.shard:
            shards.finish(options.out, given.total)
        return outcome.conclude(options.out, options.formats, as_json=options.as_json, shard=options.shard)


def _require_possible(options: RunOptions, settings: Settings) -> None:
    """Check that the options fit one another, and that what they need is installed.

    Raises:
        RunError, SettingsError: they do not.
    """
    if options.server:
        _require_patterns(settings)
    if options.formats:
        importlib.import_module("pyarrow")  # fail now rather than at the end
    if options.server or settings.policy.runs_as == "chat":
        without_ids(options.formats)
    if options.choices.budget and options.retry_failed:
        raise RunError("a failed prompt has used up its part of the budget; leave out --retry-failed")
    if options.choices.budget and options.shard:
        raise RunError(
            "--budget gives candidates where they gain most among all prompts, and a shard knows only its own; leave "
            "out --shard, or stop each prompt by itself with --adaptive"
        )


def _with_combiner(options: RunOptions, settings: Settings) -> RunOptions:
    """Return the options with the combiner that the models have where the settings name none.

    Raises:
        CheckpointError: a card or a config cannot be read.
        RunError: the server does not answer.
    """
    if settings.combiner:
        return options
    combiner = served_version(options).combiner if options.server else combiner_of_settings(settings)
    return replace(options, choices=replace(options.choices, combiner=combiner))


def _require_system_messages(template: ChatTemplate) -> None:
    """Check that preprompts, which are system messages, can be rendered.

    Raises:
        RunError: they cannot.
    """
    try:
        template.validate([Message("system", "Be careful."), Message("user", "Hello")])
    except DialogError as error:
        raise RunError(f"context distillation needs system messages: {error}") from None


def _require_patterns(settings: Settings) -> None:
    if settings.safety_classifier != "patterns":
        raise SettingsError(
            f"safety_classifier {settings.safety_classifier} needs the reward model in this process; with --server "
            "choose patterns, or set is_safety in the input"
        )


def _undone(folder: Path, journal: Journal) -> contextlib.AbstractContextManager[None]:
    """Remove the files of a run that is refused before it has answered anything; called while it holds the lock."""
    added = [path for path in (folder / SPOOL, folder / tokenizer_copy.FOLDER) if not path.exists()]
    if (folder / manifest.NAME).exists() or journal.done:
        # Perhaps another run's folder, whose input is not this one.
        return undone([path for path in added if path.name == SPOOL], lambda: False)
    files = [folder / name for name in (journal_file.NAME, journal_file.LOCK, manifest.NAME)]
    return undone([*files, *added], lambda: bool(journal.failed or journal.done - journal.problems))


@dataclass(frozen=True, slots=True)
class _Session:
    """One process's part of a run, until the run is done or the process is interrupted."""

    options: RunOptions
    source: Source
    template: ChatTemplate
    journal: Journal
    rules: Recipe
    gains: GainsInUse | None = None
    allocation: Callable[[], Allocation] | None = None
    """The rounds of a budget, from the beginning."""
    models: str | None = None
    """The fingerprint of the run's models; None if a server has them."""

    def is_complete(self, tasks: Collection[int]) -> bool:
        """Whether nothing is left to sample."""
        if self.allocation:
            return rounds.is_complete(self.allocation(), self.journal, tasks)
        return self.journal.done.issuperset(tasks)

    def run(self, settings: Settings, total: int) -> None:
        """Answer the lines that are not done, of `total` lines in all."""
        if self.options.server:
            _interruptible(self._remote(settings, total))
            return
        # Without its own table: what decides is in the run's identity, and an offline run teaches no server.
        own = settings.model_copy(update={"gains": None, "adaptive": None})
        if self.options.ray:
            self._on_ray(self.options.ray, own, total)
        else:
            with started(own) as service:
                _interruptible(self._in_process(service, total))

    def run_without_engines(self, settings: Settings) -> None:
        """Write the problems down; no engine is needed if no other row is left. Exports need the tokenizer even so."""
        if not self.options.server:
            tokenizer_copy.keep(self.options.out, settings.policy.tokenizer_files, self.template)
        for item in self._lines():
            if isinstance(item, Problem) and item.line not in self.journal.done:
                self.journal.append(item)

    async def _in_process(self, service: Service, total: int) -> None:
        await service.warm_up()
        # Not before: a refused run leaves nothing behind.
        policy = service.settings.policy.tokenizer_files
        await asyncio.to_thread(tokenizer_copy.keep, self.options.out, policy, self.template)
        watch = asyncio.create_task(service.watch())
        try:
            async with service.lifecycle.guard():
                backend = InProcess(service, expected_gain=self.gains.expected if self.gains else None)
                await self._run(backend, backend.is_safety, total, self.options.in_flight or IN_FLIGHT)
        finally:
            cancel(watch)
            await service.leave_loop()
        if not service.is_alive:
            raise EngineDead("an engine has died")

    def _on_ray(self, address: str, settings: Settings, total: int) -> None:
        orders = Orders.of(settings, started, self.gains.expected if self.gains else None, self.models)
        with opened_pool(address, orders, self.options.actors) as pool:
            _interruptible(self._on_actors(pool, settings, total))

    async def _on_actors(self, pool: ActorPool, settings: Settings, total: int) -> None:
        async with pool.running():
            await asyncio.to_thread(
                tokenizer_copy.keep, self.options.out, settings.policy.tokenizer_files, self.template
            )
            backend = OnActors(pool)
            in_flight = self.options.in_flight or IN_FLIGHT * self.options.actors
            await self._run(backend, backend.is_safety, total, in_flight)

    async def _remote(self, settings: Settings, total: int) -> None:
        async with self.options.client(MAX_RETRIES) as client:
            backend, patterns = (
                Remote(client, empty_last=settings.empty_last, gains=self.gains.digest if self.gains else None),
                PatternClassifier(settings.safety_patterns),
            )

            async def is_safety(task: Task) -> bool:
                return await patterns.is_safety(Prompt((), task.messages))

            await self._run(backend, is_safety, total, self.options.in_flight or IN_FLIGHT_REMOTE)

    async def _run(
        self, backend: Backend, is_safety: Callable[[Task], Awaitable[bool]], total: int, in_flight: int
    ) -> None:
        problems = len(self.journal.problems & self.journal.done)
        meter = Meter(total, len(self.journal.done) - problems, problems)
        planner = Planner(self.options.choices, self.rules, is_safety)
        lines = self._lines
        if self.allocation:
            work = Rounds(planner, backend, self.journal, meter, in_flight, self.allocation()).run(lines)
        else:
            work = Runner(planner.plan, backend, self.journal, meter, in_flight).run(lines())
        async with (
            interrupted_by(self._disk_fails(), self._lost),
            progress.shown(meter, progress.style(self.options.as_json)),
        ):
            await work

    def _lines(self) -> Iterator[Task | Problem]:
        """Yield the input's rows, of a shard its own."""
        return (item for item in parse(self.source, self.template) if self.options.has(item.line))

    async def _disk_fails(self) -> None:
        """Flush the journal from time to time, until the disk does not take it."""
        with contextlib.suppress(RunError):
            while True:
                await asyncio.sleep(SYNC_SECONDS)
                await asyncio.to_thread(self.journal.sync)

    def _lost(self) -> RunError:
        assert self.journal.lost
        return self.journal.lost


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
