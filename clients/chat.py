"""`winnow chat`: a conversation in the terminal, with the candidates and their scores as a table if wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from winnow.clients.wire import BestOfNReport

HELP = "Type a message. /show and /hide the candidates, /new starts a new dialog, /quit or Ctrl-D leaves."
TIMEOUT = httpx.Timeout(10.0, read=600.0)


class ServerRefused(Exception):
    """The server answered with an error, or not at all; the message is fit to show."""


def talk(url: str, *, candidates: int | None, show: bool, system: str | None) -> int:
    """Run the conversation until the user leaves; returns the exit status."""
    console = Console()
    opening = [{"role": "system", "content": system}] if system else []
    dialog = list(opening)
    with httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT) as http:
        try:
            model = _served_model(http)
        except ServerRefused as refusal:
            console.print(f"winnow: {refusal}", style="red", markup=False)
            return 1
        console.print(f"{model} at {url}. {HELP}", style="dim", markup=False)
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
                dialog.append({"role": "user", "content": line})
                _turn(http, console, model, dialog, candidates, show)
    return 0


def _lines(console: Console) -> Iterator[str]:
    """What the user types, line by line, until the input ends."""
    while True:
        try:
            line = console.input("[bold cyan]you ›[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line:
            yield line


def _turn(
    http: httpx.Client, console: Console, model: str, dialog: list[dict[str, str]], candidates: int | None, show: bool
) -> None:
    """Ask for the answer to `dialog` and append it; after a refusal the question is taken back."""
    options = {"candidates": candidates, "return_candidates": show}
    body = {"model": model, "messages": dialog, "stream": True, "best_of_n": options}
    answer, report = "", None
    console.print("winnow › ", style="bold green", end="")
    try:
        for chunk in _stream(http, body):
            for choice in chunk.get("choices", []):
                piece = choice["delta"].get("content") or ""
                answer += piece
                console.print(piece, end="", markup=False, highlight=False)
            if "best_of_n" in chunk:
                report = BestOfNReport.model_validate(chunk["best_of_n"])
    except ServerRefused as refusal:
        dialog.pop()
        console.print(str(refusal), style="red", markup=False)
        return
    console.print()
    dialog.append({"role": "assistant", "content": answer})
    if report:
        console.print(_table(report) if show else _summary(report))


def _summary(report: BestOfNReport) -> Text:
    best = min(report.scored, key=lambda item: item.rank)
    spans = report.timings_ms
    return Text(
        f"best of {report.candidates} · R {best.combined:.3f} ({best.branch}) · {spans.total / 1e3:.2f} s", style="dim"
    )


def _table(report: BestOfNReport) -> Table:
    """The candidates, best first."""
    table = Table("rank", "R_s", "R_h", "R_c", "branch", "tokens", "answer", caption=_summary(report).plain)
    for item in sorted(report.scored, key=lambda item: item.rank):
        helpfulness = "–" if item.helpfulness is None else f"{item.helpfulness:.3f}"
        table.add_row(
            str(item.rank + 1),
            f"{item.safety:.3f}",
            helpfulness,
            f"{item.combined:.3f}",
            item.branch,
            str(item.tokens),
            Text(item.text or ""),
            style="bold green" if item.rank == 0 else "red" if item.branch == "unsafe" else None,
        )
    return table


def _served_model(http: httpx.Client) -> str:
    try:
        response = http.get("/models")
    except httpx.HTTPError as error:
        raise ServerRefused(f"no server answers at {http.base_url}: {error}") from None
    if response.is_error:
        raise ServerRefused(_message(response))
    return str(response.json()["data"][0]["id"])


def _stream(http: httpx.Client, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chunks of one streamed completion."""
    try:
        with http.stream("POST", "/chat/completions", json=body) as response:
            if response.is_error:
                response.read()
                raise ServerRefused(_message(response))
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise ServerRefused(chunk["error"]["message"])
                    yield chunk
    except httpx.HTTPError as error:
        raise ServerRefused(f"the connection failed: {error or type(error).__name__}") from None


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"
