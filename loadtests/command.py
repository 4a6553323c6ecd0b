"""`winnow loadtest`: its options, and what they change in a scenario. Imports the rest only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

URL = "http://127.0.0.1:8000/v1"
EPILOG = """\
Examples:

winnow loadtest                                  (the scenario "chat" on a server on this machine)

winnow loadtest k-sweep -k 1,16 --repeats 5      (what K costs)

winnow loadtest chat --rate 1,2,4,8 --slo-ms 2000          (throughput against latency)

winnow loadtest closed --concurrency 8 --against http://127.0.0.1:8001/v1          (two servers by turns)

winnow loadtest mine.toml --out results          (a scenario of your own; begin with --show chat)
"""


def _list(wanted: bool) -> None:
    from winnow.loadtests.scenario_files import load, names

    if wanted:
        for name in names():
            print(f"{name:<12} {load(name).description}")
        raise typer.Exit


def _show(name: str | None) -> None:
    from winnow.loadtests.errors import ScenarioError
    from winnow.loadtests.scenario_files import text

    if name is not None:
        try:
            print(text(name), end="")
        except ScenarioError as error:
            _give_up(error, 2)
        raise typer.Exit


def loadtest(
    scenario: Annotated[
        str, typer.Argument(help="A scenario that comes with Winnow (see --list), or the path of a TOML file.")
    ] = "chat",
    url: Annotated[str, typer.Option(help="The server's OpenAI base URL, ending in /v1.")] = URL,
    against: Annotated[
        str | None, typer.Option(help="A second server, run by turns with the first and compared with it.")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option("--candidates", "-k", help="K, or several with commas, one after the other.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Requests a second, or several with commas; Poisson unless the scenario is constant."),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(help="That many clients who ask again and again, or several with commas, in place of a rate."),
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests of a repeat.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a repeat; with --requests what ends first.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="How often everything is measured.")] = None,
    warm_up: Annotated[
        int | None, typer.Option(min=0, help="Requests before each setting that are not counted.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer.")] = None,
    slo_ms: Annotated[float | None, typer.Option(help="Milliseconds within which an answer is good.")] = None,
    stream: Annotated[bool | None, typer.Option("--stream/--no-stream", help="Ask for streams, or not.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of arrivals and of requests.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='JSON lines with "prompt" or "messages", in place of the scenario\'s.')
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask for; default: the first that the server lists.")
    ] = None,
    dialect: Annotated[
        Literal["winnow", "openai"] | None,
        typer.Option(help="How K is said: best_of_n.candidates, or n; default: what the server seems to be."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the key, if the server wants one.")] = None,
    against_key_file: Annotated[
        Path | None, typer.Option(help="File with the second server's key; never sent to the first.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of result.json, requests.jsonl and report.html; default: loadtest-SCENARIO."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print result.json instead of a table, and write files only with --out.")
    ] = False,
    list_scenarios: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list, help="List the scenarios that come with Winnow.")
    ] = False,
    show: Annotated[
        str | None,
        typer.Option(metavar="SCENARIO", is_eager=True, callback=_show, help="Print a scenario, to be edited."),
    ] = None,
) -> None:
    """Measure latency and throughput under load, of Winnow or of any other OpenAI-compatible server.

    A scenario says what is asked and when; options change it. Latencies count from when a request was due, so that a server which
    stalls is charged for all who would have come meanwhile. Requests are never retried: refusals are counted. Ctrl-C ends the run
    and reports what there is.

    Exit status: 0 when it ran, whatever was measured, 1 when it could not, 2 when a scenario or an option is wrong.
    """  # fmt: skip
    from winnow.loadtests.errors import LoadTestError, ScenarioError
    from winnow.loadtests.session import Order, carry_out

    changes = {
        "requests": requests, "seconds": seconds, "repeats": repeats, "warm_up": warm_up, "max_tokens": max_tokens,
        "slo_ms": slo_ms, "stream": stream, "seed": seed,
    }  # fmt: skip
    try:
        order = Order(
            scenario=scenario,
            url=url,
            against=against,
            changes={name: value for name, value in changes.items() if value is not None},
            candidates=_numbers("--candidates", candidates, int),
            rate=_numbers("--rate", rate, float),
            concurrency=_numbers("--concurrency", concurrency, int),
            prompts=prompts,
            model=model,
            dialect=dialect,
            api_key=_key(api_key_file),
            against_key=_key(against_key_file),
            out=out,
            as_json=json,
        )
        carry_out(order)
    except ScenarioError as error:
        _give_up(error, 2)
    except LoadTestError as error:
        _give_up(error, 1)


def _give_up(error: Exception, status: int) -> None:
    print(f"winnow: {error}", file=sys.stderr)
    raise SystemExit(status)


def _numbers(option: str, text: str | None, kind: type[int] | type[float]) -> Any:
    """One number, or a tuple of several; None if none was given."""
    from winnow.loadtests.errors import ScenarioError

    if text is None:
        return None
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ScenarioError(f"{option}: a number, or several with commas between them, not {text!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _key(path: Path | None) -> str | None:
    from winnow.loadtests.errors import ScenarioError

    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ScenarioError(f"{path} cannot be read as a key") from None
