"""vLLM's engine process, tied to the server's process as its first act.

vLLM forks or spawns the process itself. A spawned process runs no hook of its parent's, so the ties are made by the
function that it runs. Nothing here imports vLLM before that function is called: a spawned process that reads this
module is tied within a second, and imports vLLM afterwards.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from winnow.models.engines import heap
from winnow.models.engines.process import Attachment


class EngineProcess:
    """vLLM's `EngineCoreProc.run_engine_core`, run by a process with `attachment`; `run` None looks it up there.

    A forked process is attached as it is called, a spawned one as it reads this object.
    """

    def __init__(self, attachment: Attachment, run: Callable[..., None] | None = None) -> None:
        self._attachment = attachment
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the engine until it ends.

        Raises:
            RuntimeError: the process was forked after CUDA had been used, which no fork survives.
        """
        if self._run:
            self._attachment.apply()
            heap.inherit()
            torch = sys.modules["torch"]
            if torch.cuda._is_in_bad_fork():
                raise RuntimeError("CUDA was used before the engine's process was forked")
        from vllm.v1.engine.core import EngineCoreProc

        (self._run or EngineCoreProc.run_engine_core)(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[Attachment], EngineProcess], tuple[Attachment]]:
        return _spawned, (self._attachment,)


def _spawned(attachment: Attachment) -> EngineProcess:
    attachment.apply()
    return EngineProcess(attachment)


@contextlib.contextmanager
def attached(attachment: Attachment) -> Iterator[None]:
    """Let the engine processes that vLLM starts within the block have `attachment`."""
    from vllm.v1.engine.core import EngineCoreProc

    run = EngineCoreProc.run_engine_core
    EngineCoreProc.run_engine_core = staticmethod(EngineProcess(attachment, run))
    try:
        yield
    finally:
        EngineCoreProc.run_engine_core = staticmethod(run)
