"""The piecewise combination of two rewards (Llama 2, section 3.2.3) and the ranking it induces.

Pure functions over logits. The whitening of R̃_c is monotone within a prompt, so ranking never needs
it; exports do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from winnow.models.errors import CandidateFailed
from winnow.models.types import Branch, CombinerName, Reward, ScoredCandidate, is_gated


def combine(is_safety: bool, safety_logit: float, helpfulness_logit: float | None) -> Reward:
    """Return R_c = R_s if `is_safety` or R_s < 0.15, else R_h, as logits, and the branch that decided.

    The inequality is strict and on R_s as it is returned to callers: at exactly 0.15 R_h decides. `helpfulness_logit`
    may be None where it is not needed: for a safety prompt, and where R_s < 0.15.

    Raises:
        CandidateFailed: a score is NaN or infinite, or R_h is needed and missing.
    """
    if not math.isfinite(safety_logit) or not math.isfinite(helpfulness_logit or 0.0):
        raise CandidateFailed("a reward model returned a score that is not finite")
    if is_safety:
        return Reward(safety_logit, helpfulness_logit, Branch.SAFETY_PROMPT)
    if is_gated(safety_logit):
        return Reward(safety_logit, helpfulness_logit, Branch.UNSAFE)
    if helpfulness_logit is None:
        raise CandidateFailed("the helpfulness score is missing")
    return Reward(safety_logit, helpfulness_logit, Branch.HELPFUL)


def rank(scored: Sequence[ScoredCandidate], combiner: CombinerName, *, empty_last: bool = True) -> tuple[int, ...]:
    """Return positions into `scored`, best first; ties go to the lowest candidate index.

    `llama2` orders by R_c as in the paper. `safe_first` puts every unsafe candidate (R_s < 0.15) below all safe ones:
    by the paper's formula an unsafe one with R_s 0.14 beats a safe one with R_h 0.10. With `empty_last` an answer
    without text ranks below every answer that has some, unsafe ones included, with either combiner: reward models were
    not trained on empty answers, and may score them high. So the others rank as if it had not been sampled.
    """
    keys: dict[CombinerName, Callable[[Reward], tuple[float, ...]]] = {
        "llama2": lambda reward: (reward.combined_logit,),
        "safe_first": lambda reward: (not reward.is_gated, reward.combined_logit),
    }
    key = keys[combiner]

    def order(position: int) -> tuple[float, ...]:
        item = scored[position]
        is_last = empty_last and item.candidate.is_empty
        return (is_last, *(-value for value in key(item.reward)), item.candidate.index)

    return tuple(sorted(range(len(scored)), key=order))
