"""An engine's process: what it does first, whether it was forked or spawned."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
CPU_NICENESS = 5
"""Niceness of an engine on CPU: the server goes first, so that probes and streams stay prompt under load."""
SCORING_NICENESS = 19
"""Niceness of a reward model's engine on CPU. The policy goes first: all of its threads wait for the last one in every
layer, whereas a score can wait for a moment when the policy leaves a core free."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """The ties of an engine's process to the process `parent` that starts it; `niceness` is added to its own."""

    parent: int
    niceness: int

    @classmethod
    def to_this_process(cls, *, on_gpu: bool, scores: bool = False) -> Attachment:
        """Return the ties to this process, of an engine that samples or `scores`.

        On a GPU niceness is 0: it would slow the thread that feeds the card.
        """
        return cls(os.getpid(), 0 if on_gpu else SCORING_NICENESS if scores else CPU_NICENESS)

    def apply(self) -> None:
        """Tie this process to its parent; ends it at once if that is gone already.

        It dies with its parent, even if that is killed without a chance to clean up: a card's memory would stay
        taken. It does not receive a terminal's Ctrl-C, which would abort the requests that the server still wants to
        finish.
        """
        os.setpgid(0, 0)
        os.nice(self.niceness)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:  # it died before the signal was asked for
            os._exit(1)
