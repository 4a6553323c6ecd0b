"""One pass over the entries of an export: the counts of the card, and the moments that whitening needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from winnow.models.statistics import Moments
from winnow.models.types import Branch, contenders
from winnow.server.distill.export.sources import AnsweredPrompt, ExportEntry
from winnow.server.distill.records import Problem


class Survey:
    """Counts and moments; memory does not grow with the run.

    `logits` and `rewards` are of logit(R_c) and R_c over every candidate, `winners` of R_c over the best
    answers. `problems` counts input lines without answers by kind, `branches` candidates by their branch, and
    `respelt` prompts with a text that the chat template spells differently, as `is_respelt` says.
    """

    def __init__(self, entries: Iterable[ExportEntry], is_respelt: Callable[[AnsweredPrompt], bool]) -> None:
        self._is_respelt = is_respelt
        self.prompts = 0
        self.masked = 0
        self.respelt = 0
        self.all_unsafe = 0
        self.failed = 0
        self.distilled = 0
        self.distilled_winners = 0
        self.cut = 0
        self.logits, self.rewards, self.winners = Moments(), Moments(), Moments()
        self.problems: Counter[str] = Counter()
        self.branches: Counter[Branch] = Counter()
        for entry in entries:
            if isinstance(entry, Problem):
                self.problems[entry.kind] += 1
            else:
                self._add(entry)

    def _add(self, prompt: AnsweredPrompt) -> None:
        answers = prompt.answers
        self.prompts += 1
        self.masked += prompt.mask_history
        self.respelt += self._is_respelt(prompt)
        scored = contenders([answer.scored for answer in answers], empty_last=prompt.lead.selection.empty_last)
        self.all_unsafe += all(item.reward.is_gated for item in scored)
        self.winners.add(answers[0].reward.combined)
        self.distilled_winners += answers[0].arm.is_context_distilled
        runs = {answer.run: answer.record for answer in answers}
        self.failed += sum(len(record.selection.failures) for record in runs.values())
        for answer in answers:
            self.logits.add(answer.reward.combined_logit)
            self.rewards.add(answer.reward.combined)
            self.branches[answer.reward.branch] += 1
            self.distilled += answer.arm.is_context_distilled
            self.cut += answer.candidate.finish_reason == "length"
