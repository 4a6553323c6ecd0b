"""The command line of `winnow loadtest`: its options, and the changes they make to a scenario.

Everything else is imported when the command runs, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from winnow.clients.connection import BASE_URL

EPILOG = """\
Examples:

winnow loadtest                                  (the scenario "chat" on a server on this machine)

winnow loadtest k-sweep -k 1,16 --repeats 5      (the cost of K)

winnow loadtest chat --rate 1,2,4,8 --slo-ms 2000          (latency against throughput)

winnow loadtest closed --concurrency 8 --against http://127.0.0.1:8001/v1          (two servers in turn)

winnow loadtest mine.toml --out results          (your own scenario; start from --show chat)
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
            _fail(error, 2)
        raise typer.Exit


ScenarioName = Annotated[
    str, typer.Argument(help="Name of a scenario that comes with Winnow (see --list), or path of a TOML file.")
]
Url = Annotated[str, typer.Option(help="OpenAI base URL of the server, ending in /v1.")]
Against = Annotated[str | None, typer.Option(help="Second server to compare with; repeats alternate between the two.")]
Candidates = Annotated[str | None, typer.Option("--candidates", "-k", help="K, or a comma-separated list to sweep.")]
Rate = Annotated[
    str | None,
    typer.Option(
        help="Open loop: requests per second, or a comma-separated list to sweep. "
        "Poisson arrivals, unless the scenario's are constant."
    ),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        help="Closed loop instead of a rate: number of clients that each wait for an answer before they send "
        "the next request, or a comma-separated list to sweep."
    ),
]
Requests = Annotated[int | None, typer.Option(min=1, help="Requests per repeat.")]
Seconds = Annotated[
    float | None, typer.Option(help="Length of a repeat; with --requests, the first limit reached ends it.")
]
Repeats = Annotated[int | None, typer.Option(min=1, help="Repeats of every measurement; two or more give a range.")]
WarmUp = Annotated[
    int | None, typer.Option(min=0, help="Requests before each setting of the sweep that are not counted.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Maximum number of tokens of an answer.")]
SloMs = Annotated[
    float | None, typer.Option(help="Latency objective in milliseconds; goodput counts the answers within it.")
]
Stream = Annotated[
    bool | None, typer.Option("--stream/--no-stream", help="Request streamed answers, to measure the first byte.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the arrivals and of the requests.")]
Prompts = Annotated[
    Path | None, typer.Option(help='JSON lines with "prompt" or "messages", instead of the scenario\'s prompts.')
]
Model = Annotated[str | None, typer.Option(help="Model to request; default: the first that the server lists.")]
Dialect = Annotated[
    Literal["winnow", "openai"] | None,
    typer.Option(help="Field that carries K: best_of_n.candidates, or n; default: detected from the model list."),
]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key, if the server needs one.")]
AgainstKeyFile = Annotated[
    Path | None, typer.Option(help="File with the second server's API key; never sent to the first.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for result.json, requests.jsonl and report.html; default: loadtest-SCENARIO."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print result.json instead of a table, and write files only with --out.")
]
ListScenarios = Annotated[
    bool, typer.Option("--list", is_eager=True, callback=_list, help="List the scenarios that come with Winnow.")
]
Show = Annotated[
    str | None,
    typer.Option(
        metavar="SCENARIO", is_eager=True, callback=_show, help="Print a scenario's TOML, to start your own from."
    ),
]


def loadtest(
    scenario: ScenarioName = "chat",
    url: Url = BASE_URL,
    against: Against = None,
    candidates: Candidates = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    requests: Requests = None,
    seconds: Seconds = None,
    repeats: Repeats = None,
    warm_up: WarmUp = None,
    max_tokens: MaxTokens = None,
    slo_ms: SloMs = None,
    stream: Stream = None,
    seed: Seed = None,
    prompts: Prompts = None,
    model: Model = None,
    dialect: Dialect = None,
    api_key_file: KeyFile = None,
    against_key_file: AgainstKeyFile = None,
    out: Out = None,
    json: AsJson = False,
    list_scenarios: ListScenarios = False,
    show: Show = None,
) -> None:
    """Measure latency and throughput under load, of Winnow or of any OpenAI-compatible server.

    A scenario defines the requests and when they arrive; options change it.
    Open loop (--rate): requests are sent on time, however many are outstanding.
    Closed loop (--concurrency): every client waits for its answer.

    Latency counts from when a request was due: a server that stalls is charged
    for the requests that fall due meanwhile. Nothing is retried; refusals are
    counted. Ctrl-C, SIGTERM and SIGHUP end the run, write the measurements so far
    and mark them as interrupted.

    Exit status: 0 if the test ran, whatever it measured; 1 if it could not, lost
    its server or could not print its result; 2 if a scenario or an option is wrong.
    """
    from winnow.loadtests.errors import LoadTestError, ScenarioError
    from winnow.loadtests.session import Options, run_loadtest

    try:
        options = Options(
            scenario, url, against, prompts=prompts, model=model, dialect=dialect, out=out, as_json=json,
            candidates=_numbers("--candidates", candidates, int), rate=_numbers("--rate", rate, float),
            concurrency=_numbers("--concurrency", concurrency, int), api_key=_key(api_key_file),
            against_key=_key(against_key_file), changes=_given(
                requests=requests, seconds=seconds, repeats=repeats, warm_up=warm_up, max_tokens=max_tokens,
                slo_ms=slo_ms, stream=stream, seed=seed,
            ),
        )  # fmt: skip
        run_loadtest(options)
    except LoadTestError as error:
        _fail(error, 2 if isinstance(error, ScenarioError) else 1)


def _fail(error: Exception, status: int) -> NoReturn:
    print(f"winnow: {error}", file=sys.stderr)
    raise SystemExit(status)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _numbers(option: str, text: str | None, kind: type[int] | type[float]) -> Any:
    """Return the number, or a tuple of several; None if the option was not given."""
    from winnow.loadtests.errors import ScenarioError

    if text is None:
        return None
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ScenarioError(f"{option}: a number, or several with commas between them, not {text!r}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _key(path: Path | None) -> str | None:
    from winnow.clients.connection import read_api_key
    from winnow.loadtests.errors import ScenarioError

    if path is None:
        return None
    try:
        return read_api_key(path)
    except ValueError as error:
        raise ScenarioError(str(error)) from None
