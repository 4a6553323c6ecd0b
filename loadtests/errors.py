"""What keeps a load test from running.

LoadTestError         the test could not run; exit status 1
└── ScenarioError     what is to be run cannot be: a scenario, an option or a prompt file is wrong; exit status 2

A server that refuses, fails or falls silent while it is measured raises nothing: that is the result.
"""

from __future__ import annotations


class LoadTestError(Exception):
    """The test could not run; the message says why, in one line."""


class ScenarioError(LoadTestError):
    """What is to be run cannot be; the message says what to change."""
