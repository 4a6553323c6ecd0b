"""Starts the processes that the chosen systems need; all stay up until every system has been measured."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from winnow.loadtests.benchmarks.baselines import commands, systems
from winnow.loadtests.benchmarks.baselines.prompts import Renderer
from winnow.loadtests.benchmarks.baselines.scorer import Scorer
from winnow.loadtests.benchmarks.baselines.subprocess_client import started_target
from winnow.loadtests.benchmarks.baselines.systems import ANSWER_SECONDS, Completions, GenerateThenClassify
from winnow.loadtests.benchmarks.processes import Command, ServerFailed, free_port, serving
from winnow.loadtests.target import OpenAITarget
from winnow.loadtests.types import Target
from winnow.models import demo

NAMES = ("winnow", "vllm", "vllm+classify", "untuned", "one-by-one", "its_hub", "optillm", "transformers")
_SCORED_BY_CLIENT = {"vllm+classify", "one-by-one", "its_hub"}
_ON_VLLM = {"vllm", "optillm", *_SCORED_BY_CLIENT}
_MODELS: tuple[demo.ModelName, ...] = ("policy", "safety-rm", "helpfulness-rm")
_UNTUNED = "untuned-"


@dataclass(slots=True)
class Fleet:
    """The started systems, and the reasons why others are missing."""

    http: httpx.AsyncClient
    render: Renderer
    urls: dict[str, str] = field(default_factory=dict)
    """Addresses of Winnow and of vLLM's servers, the latter by model, and once more untuned."""
    systems: list[Target] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def scorer(self) -> Scorer:
        """Both reward models on vLLM's servers."""
        return Scorer(self.http, self.urls["safety-rm"], self.urls["helpfulness-rm"])

    @property
    def policy(self) -> Completions:
        """The policy on vLLM's server."""
        return Completions(self.http, self.urls["policy"])

    @property
    def winnow(self) -> OpenAITarget:
        """Winnow on its chat endpoint."""
        url = f"{self.urls['winnow']}/v1"
        return OpenAITarget(url, model="winnow-demo", dialect="winnow", name="winnow", timeout=ANSWER_SECONDS)

    @property
    def untuned(self) -> GenerateThenClassify:
        """The policy, then both reward models, on servers with vLLM's defaults."""
        policy, safety, helpfulness = (self.urls[_UNTUNED + model] for model in _MODELS)
        scorer = Scorer(self.http, safety, helpfulness)
        return GenerateThenClassify(self.render, Completions(self.http, policy), scorer, "untuned", False)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Close all connections on leaving."""
        async with contextlib.AsyncExitStack() as connections:
            connections.push_async_callback(self.http.aclose)
            for system in self.systems:
                if isinstance(system, contextlib.AbstractAsyncContextManager):
                    await connections.enter_async_context(system)
            yield


@contextlib.contextmanager
def started_fleet(
    names: Collection[str], sizes: Collection[int], peers: Path, tell: Callable[[str], object] = lambda _: None
) -> Iterator[Fleet]:
    """Start the servers and drivers of the systems `names`, and end them on leaving.

    Args:
        names: which of `NAMES`.
        sizes: the Ks that will be asked for.
        peers: folder of the baselines' environment.
        tell: called with a line for each server that is being started.

    Raises:
        ServerFailed: Winnow or one of vLLM's servers did not start. A baseline that does not start is `missing`.
    """
    fleet = Fleet(systems.new_client(), Renderer())
    with contextlib.ExitStack() as running:
        for key, command in _servers(names):
            tell(f"starting the server of {key}")
            fleet.urls[key] = _serve(running, command)
        for name in (name for name in NAMES if name in names):
            try:
                fleet.systems.append(_system(name, fleet, running, sizes, peers))
            except (FileNotFoundError, ServerFailed) as error:
                fleet.missing[name] = f"not installed: {error}" if isinstance(error, FileNotFoundError) else str(error)
        yield fleet


def _servers(names: Collection[str]) -> Iterator[tuple[str, Callable[[int], Command]]]:
    models: list[demo.ModelName] = ["policy"] if _ON_VLLM & set(names) else []
    if _SCORED_BY_CLIENT & set(names):
        models += ["safety-rm", "helpfulness-rm"]
    for model in models:
        yield model, lambda port, model=model: commands.vllm(model, port)  # type: ignore[misc]
    for model in _MODELS if "untuned" in names else ():
        yield _UNTUNED + model, lambda port, model=model: commands.vllm(model, port, tuned=False)  # type: ignore[misc]
    if "winnow" in names:
        yield "winnow", commands.winnow


def _serve(running: contextlib.ExitStack, command: Callable[[int], Command]) -> str:
    port = free_port()
    return running.enter_context(serving(command(port), port))


def _system(name: str, fleet: Fleet, running: contextlib.ExitStack, sizes: Collection[int], peers: Path) -> Target:
    match name:
        case "winnow":
            return fleet.winnow
        case "vllm":
            return systems.BareVllm(fleet.render, fleet.policy)
        case "vllm+classify":
            return systems.GenerateThenClassify(fleet.render, fleet.policy, fleet.scorer)
        case "untuned":
            return fleet.untuned
        case "one-by-one":
            return systems.SequentialThenScore(fleet.render, fleet.policy, fleet.scorer)
        case "its_hub":
            return running.enter_context(started_target(commands.its_hub(_present(peers), fleet.urls), fleet.render))
        case "optillm":
            _present(peers)
            start = functools.partial(commands.optillm, peers=peers, policy_url=fleet.urls["policy"])
            proxies = {size: _serve(running, functools.partial(start, candidates=size)) for size in sorted(set(sizes))}
            return systems.OptiLlm(fleet.http, proxies)
        case "transformers":
            return running.enter_context(started_target(commands.transformers(), fleet.render))
        case _:
            raise ValueError(f"there is no system {name!r}; there are {', '.join(NAMES)}")


def _present(peers: Path) -> Path:
    if not (peers / "bin" / "python").exists():
        raise FileNotFoundError(f"there is no environment {peers}")
    return peers
