"""The output of the chat: answers while they arrive, their scores, tables of candidates. No input, no requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text

from winnow.clients.answers import Answer, Event, Piece
from winnow.clients.schema import Progress, Scored

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""Control characters that are removed before a server's text is printed: all but tab and line feed."""

WIDE, MEDIUM = 76, 48
"""Widths of a terminal, in characters, from which the table has all columns, or more than the most important ones."""


def harmless(text: str) -> str:
    """Return a server's text without characters that could control the terminal."""
    return text.translate(_CONTROLS)


class Screen:
    """Standard output for answers, standard error for what went wrong."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False)
        self._errors = Console(highlight=False, emoji=False, stderr=True)

    def note(self, text: str) -> None:
        """Print a remark."""
        _print(self._console, harmless(text), "dim")

    def fail(self, text: str) -> None:
        """Print an error."""
        _print(self._errors, f"winnow: {harmless(text)}", "red")

    def stream(self, events: Iterator[Event]) -> Answer | None:
        """Print an answer while it arrives, and return it."""
        answer = None
        with self._console.status("sampling") as status:
            first = next(events)
            while isinstance(first, Progress):
                status.update(_progress(first))
                first = next(events)
        self._console.print("winnow › ", style="bold green", end="")
        try:
            for event in chain([first], events):
                if isinstance(event, Piece):
                    # Past rich, which would break lines at its own idea of the width and expand tabs.
                    self._console.file.write(harmless(event.text))
                    self._console.file.flush()
                elif isinstance(event, Answer):
                    answer = event
        finally:
            self._console.print()
        return answer

    def scores(self, answer: Answer, *, candidates: bool) -> None:
        """Print the scores of an answer, or of all candidates as a table."""
        self._console.print(_table(answer, self._console.width) if candidates else Text(_summary(answer), "dim"))


def _print(console: Console, text: str, style: str) -> None:
    """Print text, broken between words in a terminal, and as it is elsewhere."""
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


def _progress(progress: Progress) -> str:
    best = "" if progress.best_so_far is None else f", best {progress.best_so_far:.2f}"
    return f"{progress.scored}/{progress.candidates} scored{best}"


def _summary(answer: Answer) -> str:
    best, seconds = answer.winner, answer.report.timings_ms.total / 1e3
    at_most = f" (at most {answer.report.requested})" if answer.report.waves else ""
    return f"best of {answer.report.candidates}{at_most} · R {best.combined:.3f} ({best.branch}) · {seconds:.2f} s"


def _table(answer: Answer, width: int) -> Table:
    """Return a table of the candidates, best first, with the columns that leave room for the answers."""
    kept: tuple[str, ...] = ("rank", "R_c", "answer")
    if width >= MEDIUM:
        kept = ("rank", "R_c", "branch", "answer")
    if width >= WIDE:
        kept = ("rank", "R_s", "R_h", "R_c", "branch", "tokens", "answer")
    table = Table(caption=_summary(answer))
    for name in kept:
        table.add_column(name, no_wrap=name != "answer", overflow="fold")
    for item in answer.candidates:
        style = "bold green" if item.rank == 0 else "red" if item.branch == "unsafe" else None
        cells = _cells(item)
        table.add_row(*(cells[name] for name in kept), style=style)
    return table


def _cells(item: Scored) -> dict[str, str | Text]:
    return {
        "rank": str(item.rank + 1),
        "R_s": f"{item.safety:.3f}",
        "R_h": "–" if item.helpfulness is None else f"{item.helpfulness:.3f}",
        "R_c": f"{item.combined:.3f}",
        "branch": item.branch,
        "tokens": str(item.tokens),
        "answer": Text(harmless(item.text or "")),
    }
