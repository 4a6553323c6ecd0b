"""The exceptions that end a load test.

LoadTestError         the test could not run; exit status 1
└── ScenarioError     a scenario, an option or a prompt file is wrong; exit status 2

A target that refuses, fails or hangs while it is measured raises nothing: that is a result.
"""

from __future__ import annotations


class LoadTestError(Exception):
    """The test could not run; the message says why, in one line."""


class ScenarioError(LoadTestError):
    """The scenario cannot be run as given; the message says what to change."""
