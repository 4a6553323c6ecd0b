"""The options of a run, as the command line gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from winnow.clients import AsyncClient, UnusableEnvironment
from winnow.models.errors import RunError
from winnow.server.distill.containers import Format as InputFormat
from winnow.server.distill.export import ALL_FORMATS, Format
from winnow.server.distill.plans import Choices
from winnow.server.distill.shards import Shard


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run, beside its `choices` for each prompt.

    `prompts` is a path or "-", read as `input_format`; None decides by its name and beginning. `server` is the
    address of a running Winnow, ending in `/v1`; None starts engines here, or `actors` actors with engines on the Ray
    cluster at `ray`. `shard` is the part of the rows to answer; None answers all.
    `in_flight` bounds the prompts in flight; None takes the backend's default. `formats` are exported at the end.
    """

    prompts: str
    out: Path
    choices: Choices
    input_format: InputFormat | None = None
    recipe: Path | None = None
    server: str | None = None
    api_key: str | None = None
    in_flight: int | None = None
    retry_failed: bool = False
    formats: tuple[Format, ...] = ALL_FORMATS
    as_json: bool = False
    shard: Shard | None = None
    ray: str | None = None
    actors: int = 1

    def has(self, line: int) -> bool:
        """Whether the run answers the input's row `line`."""
        return self.shard is None or self.shard.has(line)

    def client(self, retries: int) -> AsyncClient:
        """Return a client of the server.

        Raises:
            RunError: its address, or a variable of the environment, cannot be used.
        """
        try:
            return AsyncClient(self.server or "", api_key=self.api_key, max_retries=retries)
        except (ValueError, UnusableEnvironment) as error:
            raise RunError(str(error).replace("base_url", "--server")) from None
