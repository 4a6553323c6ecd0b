"""`winnow chat`: a conversation in the terminal, optionally with a table of the candidates and their scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain

from rich.console import Console
from rich.table import Table
from rich.text import Text

from winnow.clients.answers import Answer, Event, Piece
from winnow.clients.client import Client
from winnow.clients.errors import UnusableEnvironment, WinnowClientError
from winnow.clients.schema import Progress

HELP = "Type a message. /show and /hide the candidates, /new starts a new dialog, /quit or Ctrl-D leaves."

Messages = list[dict[str, str]]

_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""Control characters that are removed from an answer before it is printed: all but tab and line feed."""


def talk(url: str, *, candidates: int | None, show: bool, system: str | None, api_key: str | None = None) -> int:
    """Run a conversation until the user leaves, and return the exit status. No retries: the user can ask again."""
    console = Console()
    try:
        client = Client(url, api_key=api_key, max_retries=0)
    except (ValueError, UnusableEnvironment) as error:
        return _failed(console, error)
    with client:
        try:
            model = client.models()[0].id
        except WinnowClientError as error:
            return _failed(console, error)
        console.print(f"{model} at {url}. {HELP}", style="dim", markup=False)
        _converse(client, console, candidates, show, system)
    return 0


def _failed(console: Console, error: Exception) -> int:
    console.print(f"winnow: {error}", style="red", markup=False, soft_wrap=True)
    return 1


def _converse(client: Client, console: Console, candidates: int | None, show: bool, system: str | None) -> None:
    opening: Messages = [{"role": "system", "content": system}] if system else []
    dialog = list(opening)
    for line in _lines(console):
        if line == "/quit":
            break
        if line == "/new":
            dialog = list(opening)
        elif line in ("/show", "/hide"):
            show = line == "/show"
        elif line.startswith("/"):
            console.print(HELP, style="dim", markup=False)
        else:
            question: Messages = [*dialog, {"role": "user", "content": line}]
            if answer := _answered(client, console, question, candidates, show):
                dialog = [*question, {"role": "assistant", "content": answer.text}]
                console.print(_table(answer) if show else _summary(answer))


def _lines(console: Console) -> Iterator[str]:
    """Yield the lines that the user types, stripped and without empty ones, until the input ends."""
    while True:
        try:
            line = console.input("[bold cyan]you ›[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line:
            yield line


def _answered(client: Client, console: Console, dialog: Messages, candidates: int | None, show: bool) -> Answer | None:
    """Print an answer while it arrives and return it; None if the request failed or the user stopped it with Ctrl-C."""
    try:
        with closing(client.stream(dialog, candidates=candidates, return_candidates=show)) as events:
            return _print_events(console, events)
    except WinnowClientError as error:
        console.print(str(error), style="red", markup=False)
    except KeyboardInterrupt:
        console.print("stopped", style="dim")
    return None


def _print_events(console: Console, events: Iterator[Event]) -> Answer | None:
    answer = None
    with console.status("sampling") as status:
        first = next(events)
        while isinstance(first, Progress):
            status.update(_progress(first))
            first = next(events)
    console.print("winnow › ", style="bold green", end="")
    try:
        for event in chain([first], events):
            if isinstance(event, Piece):
                console.print(event.text.translate(_CONTROLS), end="", markup=False, highlight=False)
            elif isinstance(event, Answer):
                answer = event
    finally:
        console.print()
    return answer


def _progress(progress: Progress) -> str:
    best = "" if progress.best_so_far is None else f", best {progress.best_so_far:.2f}"
    return f"{progress.scored}/{progress.candidates} scored{best}"


def _summary(answer: Answer) -> Text:
    best, seconds = answer.winner, answer.report.timings_ms.total / 1e3
    return Text(f"best of {answer.report.candidates} · R {best.combined:.3f} ({best.branch}) · {seconds:.2f} s", "dim")


def _table(answer: Answer) -> Table:
    """Return a table of the candidates, best first."""
    table = Table("rank", "R_s", "R_h", "R_c", "branch", "tokens", "answer", caption=_summary(answer).plain)
    for item in answer.candidates:
        helpfulness = "–" if item.helpfulness is None else f"{item.helpfulness:.3f}"
        table.add_row(
            str(item.rank + 1),
            f"{item.safety:.3f}",
            helpfulness,
            f"{item.combined:.3f}",
            item.branch,
            str(item.tokens),
            Text((item.text or "").translate(_CONTROLS)),
            style="bold green" if item.rank == 0 else "red" if item.branch == "unsafe" else None,
        )
    return table
