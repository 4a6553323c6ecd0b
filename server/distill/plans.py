"""From a line of the input to the requests that answer it: messages, arms, seeds. Only the classifier is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from winnow.models.errors import RequestError, RunError
from winnow.models.gains import ADVICE
from winnow.models.sampling import derived_seed
from winnow.models.types import CombinerName, Message, StoppedBy
from winnow.server.distill.budget import Budget, Limits
from winnow.server.distill.parser import Task
from winnow.server.distill.recipe import Recipe, on_every_turn, on_first_turn
from winnow.server.distill.records import Arm, DrawnWaves
from winnow.server.pipeline.request import Defaults, Request, RequestOptions, resolve
from winnow.server.pipeline.waves import Waves

MOST_CANDIDATES = 1024
"""Most candidates of a prompt, at one temperature if there are several."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The run's own settings; a line's options come first.

    `temperatures` are spread over the `candidates`; with `sweep` each of them gets that many.
    """

    candidates: int
    temperatures: tuple[float, ...]
    sweep: bool
    top_p: float
    max_tokens: int
    combiner: CombinerName
    seed: int
    context_distillation: bool = False
    ghost_attention: bool = False
    waves: Waves | None = None
    budget: Budget | None = None
    knows_gains: bool = False
    """Whether there is a table of expected gains, or a server that may have one."""

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise RunError("name at least one temperature")
        if self.waves and self.waves.gain is not None and not self.knows_gains:
            raise RunError(f"--adaptive gain=… needs a table of expected gains; name its file with --gains: {ADVICE}")
        lowest = RequestOptions(candidates=self.candidates, temperature=min(self.temperatures))
        try:
            resolve((), lowest, self.defaults)
        except RequestError as error:
            raise RunError(str(error)) from None
        if not self.sweep and len(self.temperatures) > self.candidates:
            raise RunError(
                f"{len(self.temperatures)} temperatures cannot be spread over {self.candidates} candidates; "
                "raise -k, or --sweep"
            )
        if self.budget and self.waves:
            raise RunError("--adaptive and --budget exclude each other: a budget stops where other prompts gain more")
        if self.budget and (len(self.temperatures) > 1 or self.context_distillation):
            raise RunError(
                "a budget is for prompts that are sampled in one way; give one temperature, and leave out "
                "--context-distillation"
            )

    def limits(self, task: Task) -> Limits | None:
        """Return the least and the most candidates of a task under the budget; None if it asks for the impossible."""
        assert self.budget
        try:
            request = self.resolved((), task.options)
        except RequestError:
            return None
        return self.budget.limits(request.candidates, request.n)

    def resolved(self, messages: tuple[Message, ...], options: RequestOptions) -> Request:
        """Return the request for a line with these options.

        Raises:
            RequestError: the line asks for something impossible; the message says what to change.
        """
        if self.budget and options.adaptive:
            raise RequestError("adaptive cannot be combined with a budget; leave it out", "best_of_n.adaptive")
        return resolve(messages, options, self.defaults)

    @property
    def defaults(self) -> Defaults:
        """The defaults of a line's request; the highest temperature stands for all of them."""
        return Defaults(
            candidates=self.candidates,
            least=self.candidates,
            max_candidates=MOST_CANDIDATES,
            temperature=max(self.temperatures),
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            combiner=self.combiner,
            adaptive=self.waves,
            knows_gains=self.knows_gains,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests for one line, one an arm, in the order of `arms`; see `Record.mask_history`."""

    task: Task
    arms: tuple[Arm, ...]
    requests: tuple[Request, ...]
    mask_history: bool

    @property
    def candidates(self) -> int:
        """K, over all arms."""
        return sum(arm.candidates for arm in self.arms)

    def first_wave(self, budget: Budget) -> Plan:
        """Return the plan of the first wave under a budget, of a plan with one arm."""
        (arm,), (request,) = self.arms, self.requests
        start = budget.limits(arm.candidates, request.n).start
        none = DrawnWaves(arm.candidates, start, budget.step, 0, "gain")
        return replace(
            self,
            arms=(replace(arm, candidates=start, waves=further_wave(none, start)),),
            requests=(replace(request, candidates=start, least=start),),
        )


def further_wave(waves: DrawnWaves, candidates: int) -> DrawnWaves:
    """Return the waves of a prompt that has `candidates` after one more wave.

    Under a budget they end at the most candidates, or where further ones are expected to gain others more.
    """
    by: StoppedBy = "gain" if candidates < waves.requested else "candidates"
    return replace(waves, count=waves.count + 1, stopped_by=by)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans lines by the run's `choices` and its `recipe`; `classify` tags the tasks whose lines do not.

    Every arm has the line's tag. Context distillation needs it before anything is sampled.
    """

    choices: Choices
    recipe: Recipe
    classify: Callable[[Task], Awaitable[bool]]

    async def plan(self, task: Task) -> Plan:
        """Return the plan for `task`.

        Raises:
            RequestError: the line asks for something impossible; the message says what to change.
            NoScoredCandidate: the classifier cannot tell whether it is a safety prompt.
            EngineDead: an engine that the classifier needs has died.
        """
        own = task.options.is_safety
        return self.tagged(task, await self.classify(task) if own is None else own)

    def tagged(self, task: Task, is_safety: bool) -> Plan:
        """Return the plan for `task`, which is a safety prompt or not.

        Raises:
            RequestError: as above.
        """
        asked = task.options
        stored, sampled, instruction = self._dialogs(task)
        base = replace(self.choices.resolved(stored, asked), is_safety=is_safety)
        arms: list[Arm] = []
        requests: list[Request] = []
        for dialog, preprompt in self._sampling_dialogs(task, sampled, is_safety):
            for temperature, candidates in self._spread(task, base.candidates):
                seed = self._seed(task, len(arms))
                sampling = replace(base.sampling, temperature=temperature, seed=seed)
                arms.append(Arm(candidates, temperature, preprompt))
                requests.append(
                    replace(
                        base,
                        requested=base.requested if base.is_reduced else candidates,
                        candidates=candidates,
                        least=candidates,
                        sampling=sampling,
                        sampling_dialog=dialog,
                    )
                )
        return Plan(
            task=task,
            arms=tuple(arms),
            requests=tuple(requests),
            mask_history=instruction is not None and any(message.role == "assistant" for message in stored),
        )

    def _dialogs(self, task: Task) -> tuple[tuple[Message, ...], tuple[Message, ...], str | None]:
        """Return the dialog to store, the dialog to sample from, and ghost attention's instruction, if any."""
        instruction = None
        if self.choices.ghost_attention:
            seed = derived_seed(self.choices.seed, task.line, 0)
            instruction = self.recipe.ghost_attention.instruction(task.instruction, task.messages, seed)
        if instruction is None:
            return task.messages, task.messages, None
        return on_first_turn(task.messages, instruction), on_every_turn(task.messages, instruction), instruction

    def _sampling_dialogs(
        self, task: Task, sampled: tuple[Message, ...], is_safety: bool
    ) -> Iterator[tuple[tuple[Message, ...], str | None]]:
        """Yield each dialog to sample from, with the name of its preprompt if it has one."""
        yield sampled, None
        if self.choices.context_distillation and is_safety:
            distillation = self.recipe.context_distillation
            yield distillation.sampling_dialog(sampled, task.category), distillation.name(task.category)

    def _spread(self, task: Task, candidates: int) -> Iterator[tuple[float, int]]:
        """Yield temperatures with their numbers of candidates; the first temperatures get the remainder."""
        temperatures = self.choices.temperatures
        if task.options.temperature is not None:
            yield task.options.temperature, candidates
            return
        if self.choices.sweep:
            yield from ((temperature, candidates) for temperature in temperatures)
            return
        each, remainder = divmod(candidates, len(temperatures))
        for place, temperature in enumerate(temperatures):
            if count := each + (place < remainder):
                yield temperature, count

    def _seed(self, task: Task, arm: int) -> int:
        """Return the seed of an arm, derived from the run's seed and the line, or from the line's own seed alone."""
        own = task.options.seed
        return derived_seed(self.choices.seed, task.line, arm) if own is None else derived_seed(own, 0, arm)
