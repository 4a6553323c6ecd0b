"""One started vLLM engine: its request ids, its pending requests, and its errors as this project's."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from winnow.models.engines import heap
from winnow.models.engines.output import EngineOutput
from winnow.models.errors import CandidateFailed, EngineDead

T = TypeVar("T")
MAX_REASON = 400
"""Characters of an engine's own error that are shown."""


class VllmEngine:
    """One started `AsyncLLM`, its request ids and its pending requests."""

    def __init__(self, llm: AsyncLLM, output: EngineOutput, name: str) -> None:
        self.llm = llm
        self.name = name
        self._output = output
        self.dtype = str(llm.model_config.dtype).removeprefix("torch.")
        self._ids = itertools.count()
        self._pending: dict[int, float] = {}
        """Submission times of the requests without an output, oldest first."""
        self._last_output = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether the engine's process still runs."""
        return not self.llm.errored

    def next_id(self) -> str:
        """Return a request id that no other request of this engine has."""
        return f"{self.name}-{next(self._ids)}"

    @property
    def unfinished(self) -> int:
        """Requests that the engine's front end still holds; 0 when nothing runs, or something has leaked."""
        return int(self.llm.output_processor.get_num_unfinished_requests())

    def _silent_seconds(self) -> float:
        """Return the seconds since the engine's last output while requests are pending; 0 while none is."""
        oldest = next(iter(self._pending.values()), None)
        return 0.0 if oldest is None else time.monotonic() - max(oldest, self._last_output)

    async def _last(self, stream: AsyncIterator[T], look: Callable[[T], None] | None = None) -> T:
        """Return the last item of an engine's stream, calling `look` with every item; translate vLLM's errors."""
        pending = next(self._ids)
        self._pending[pending] = time.monotonic()
        last: T | None = None
        try:
            async for item in stream:
                last = item
                if look:
                    look(item)
            self._last_output = time.monotonic()
            self._output.go_live()
        except EngineDeadError as error:
            self._output.end()
            raise EngineDead(_gone(self.name, self._output)) from error
        except EngineGenerateError as error:
            raise CandidateFailed(f"the {self.name} engine failed on a request") from error
        finally:
            del self._pending[pending]
        if last is None:
            raise CandidateFailed(f"the {self.name} engine returned nothing for a request")
        return last

    def shutdown(self) -> None:
        """End the engine's process and wait for it; the engine cannot be used afterwards."""
        self.llm.shutdown()
        del self.llm  # its finaliser must not run while the interpreter shuts down
        heap.release()


def token_prompt(ids: Sequence[int]) -> dict[str, Any]:
    """Return token ids in the form that vLLM takes directly; any other goes through a thread first.

    A plain dictionary: the type's name and module change from version to version, and a version without
    it ignores `type`.
    """
    return {"type": "token", "prompt_token_ids": list(ids)}


def one_line(text: str) -> str:
    """Return an engine's own error, shortened, on one line."""
    return " ".join(text.split())[:MAX_REASON].rstrip(".")


def _gone(name: str, output: EngineOutput) -> str:
    """Return that an engine has died, and of what if it had not answered before."""
    told = output.cause()
    return f"the {name} engine is gone" + (f": {one_line(told)}" if told else "")
