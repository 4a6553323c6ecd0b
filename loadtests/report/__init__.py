"""`report.html`: a result as one page with plots, without network access or scripts. Needs the extra `loadtest`."""

from __future__ import annotations

from pathlib import Path

from winnow.loadtests.output import write_whole
from winnow.loadtests.report.page import render
from winnow.loadtests.results import Result

PAGE = "report.html"


def write_report(result: Result, folder: Path) -> Path:
    """Write the page into `folder`, which exists, and return its path.

    Raises:
        LoadTestError: it cannot be written.
    """
    path = folder / PAGE
    write_whole(path, [render(result)])
    return path
