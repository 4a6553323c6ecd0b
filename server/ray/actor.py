"""A Ray actor with engines of its own: it answers requests of an offline run as one machine would.

The class is plain; `winnow.server.ray.pool` makes an actor of it. Whatever is the caller's or the models' fault is
returned as a value. If an engine dies the actor's process ends, and Ray starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NoReturn, TypeVar

from winnow.models.engines.environment import START_METHOD
from winnow.models.errors import EngineDead, ModelUnavailable, NoScoredCandidate, RequestError, RunError, WinnowError
from winnow.models.types import Failure
from winnow.server.aio import cancel
from winnow.server.distill.backends.base import Answered
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.parser import Task
from winnow.server.model_identity import models_fingerprint
from winnow.server.pipeline.request import Request
from winnow.server.pipeline.waves import ExpectedGain
from winnow.server.service import Service
from winnow.server.settings import Settings

T = TypeVar("T")
OpenService = Callable[[Settings], contextlib.AbstractContextManager[Service]]
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class Refused:
    """An error as a value: exceptions with arguments of their own do not survive the way between processes."""

    kind: str
    message: str
    param: str | None = None
    code: str = ""
    failures: tuple[Failure, ...] = ()

    UNREADY: ClassVar[Refused]
    """The answer of an actor that has just begun, in place of one that has died."""

    @classmethod
    def of(cls, error: WinnowError) -> Refused:
        """Return an error as a value."""
        if isinstance(error, RequestError):
            return cls("request", str(error), error.param, error.code)
        if isinstance(error, NoScoredCandidate):
            return cls("unscored", str(error), failures=error.failures)
        return cls("run", str(error))

    def raised(self) -> NoReturn:
        """Raise the error."""
        if self.kind == "request":
            error = RequestError(self.message, self.param)
            error.code = self.code
            raise error
        if self.kind == "unscored":
            raise NoScoredCandidate(self.message, self.failures)
        raise RunError(self.message)


Refused.UNREADY = Refused("unready", "the engines have not been started")


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of an actor: the run's settings, and how its engines are started.

    `models` is the fingerprint of the run's models; None if they have none. `folder` and `threads` are the driver's
    working directory and its OMP_NUM_THREADS.
    """

    settings: Settings
    open_service: OpenService
    expected_gain: ExpectedGain | None
    models: str | None
    folder: str
    threads: str | None

    @classmethod
    def of(
        cls,
        settings: Settings,
        open_service: OpenService,
        expected_gain: ExpectedGain | None = None,
        models: str | None = None,
    ) -> Orders:
        """Return the orders of this process. Settings are sent as they are, without the file that they were read of."""
        sent = Settings.model_construct(settings.model_fields_set, **dict(settings))
        return cls(sent, open_service, expected_gain, models, os.getcwd(), os.environ.get(THREADS))


class EngineActor:
    """Engines, and the backend over them. They start with the actor, in its event loop's thread."""

    def __init__(self, orders: Orders) -> None:
        self._fault: str | None = None
        self._service: Service | None = None
        self._backend: InProcess | None = None
        self._gain = orders.expected_gain
        self._running = contextlib.ExitStack()
        prepare_process(orders)
        with self._faults():
            _require_models(orders)
            self._service = self._running.enter_context(orders.open_service(orders.settings))

    async def start(self) -> str | Refused | None:
        """Warm the engines up; return why they cannot be used, or None. A second call does nothing.

        While a model on another server is down, the refusal says so, and the next call tries again.
        """
        if self._service and not self._backend:
            try:
                with self._faults():
                    await self._service.warm_up()
                    self._backend = InProcess(self._service, expected_gain=self._gain)
                    self._watching = asyncio.create_task(self._watch(self._service))
            except ModelUnavailable as error:
                return Refused("unready", str(error))
        return self._fault

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Keep an error of the block as the fault of this actor, if another start would not mend it."""
        try:
            yield
        except EngineDead:
            _end_process()
        except ModelUnavailable:
            raise
        except WinnowError as error:
            self._fault = str(error)
            self._running.close()

    async def _watch(self, service: Service) -> None:
        watch = asyncio.create_task(service.watch())
        try:
            await service.lifecycle.over()
        finally:
            cancel(watch)
        _end_process()

    async def answer(self, request: Request, first: int = 0) -> Answered | Refused:
        """Sample and score; see `Backend`."""
        return await _outcome(self._backend(request, first)) if self._backend else Refused.UNREADY

    async def is_safety(self, task: Task) -> bool | Refused:
        """Whether the line's dialog is a safety prompt; see `InProcess.is_safety`."""
        return await _outcome(self._backend.is_safety(task)) if self._backend else Refused.UNREADY

    async def close(self) -> None:
        """End the engines."""
        if self._backend:
            cancel(self._watching)
        self._running.close()


async def _outcome(work: Awaitable[T]) -> T | Refused:
    try:
        return await work
    except EngineDead:
        _end_process()
    except WinnowError as error:
        return Refused.of(error)


def prepare_process(orders: Orders) -> None:
    """Set this process's environment, before anything reads it, as it is where a run needs no Ray.

    Ray's own number of threads is that of the actor's CPUs: sums would be split otherwise, and end in other bits.
    """
    with contextlib.suppress(OSError):  # on another machine it may not be there
        os.chdir(orders.folder)
    os.environ[START_METHOD] = "spawn"  # Ray's threads run already, and do not survive a fork
    if orders.threads is None:
        os.environ.pop(THREADS, None)
    else:
        os.environ[THREADS] = orders.threads


def _require_models(orders: Orders) -> None:
    """Check that the models of this node are those of the run.

    Raises:
        CheckpointError: one is missing.
        RunError: they are others.
    """
    settings = orders.settings
    if orders.models and models_fingerprint(settings, settings.chat_template) != orders.models:
        raise RunError("the models on this node are not those of the run")


def _end_process() -> NoReturn:
    """End this process, and with it its engines; Ray starts the actor again."""
    os._exit(1)
