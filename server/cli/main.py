"""The command line: `winnow serve`, `check`, `plan`, `chat`, `distill`, `export`, `report`, `loadtest`, `version`.

Heavy imports stand inside the commands, so that `--help` and `chat` need neither torch nor vLLM.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from winnow.clients.schema import CandidateRange
from winnow.loadtests import command as loadtests
from winnow.models.errors import SettingsError, WinnowError
from winnow.server.distill.export.options import Format, PairRule
from winnow.server.settings import Settings, load

app = typer.Typer(
    name="winnow",
    help="Serve the best of K answers: sample K candidates, score their safety and helpfulness, return the best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
OFFLINE_SETTINGS = (
    "policy", "safety_rm", "helpfulness_rm", "combiner", "safety_patterns", "top_p", "max_tokens", "dtype", "context",
    "max_sequences", "eager", "policy_memory", "rm_memory", "kv_cache_gib", "rm_kv_cache_gib", "safety_scale", "safety_bias",
    "helpfulness_scale", "helpfulness_bias", "canary", "stall_seconds",
)  # fmt: skip
"""The settings that an offline run has."""
MEMORY_SETTINGS = (
    "policy", "safety_rm", "helpfulness_rm", "dtype", "context", "max_sequences", "max_candidates_in_flight", "eager",
    "policy_memory", "rm_memory", "kv_cache_gib", "rm_kv_cache_gib",
)  # fmt: skip
"""The settings that decide who gets how much memory."""
ConfigFile = Annotated[
    Path | None, typer.Option(help="Settings file; default: winnow.toml in this folder, if there is one.")
]


def with_settings(command: Callable[..., None], names: Collection[str] | None = None) -> Callable[..., None]:
    """Give `command` an option for every setting in `names` (all if None), described and defaulted by the settings themselves.

    Its first parameter takes the settings; the others stay as they are.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(config: Path | None = None, **flags: Any) -> None:
        with one_line_errors():
            given = {parameter.name: flags.pop(parameter.name) for parameter in own}
            command(load(config, **flags), **given)

    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _option_type(field.annotation),
                typer.Option(help=f"{field.description} (default: {_shown(field.default)})", show_default=False),
            ],
        )
        for name, field in Settings.model_fields.items()
        if field.json_schema_extra != {"flag": False}  # a secret on a command line is there for everyone to read
        and (names is None or name in names)
    ]
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)
    kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*kept, config, *options])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _option_type(annotation: Any) -> Any:
    """The type typer parses for a setting: optional, and a list where the setting is a tuple."""
    if annotation is CandidateRange:
        return str | None
    return list[str] | None if get_origin(annotation) is tuple else annotation | None


def _shown(default: Any) -> str:
    """A default as the help shows it; the demo checkpoints by name, not by where they are installed."""
    if isinstance(default, tuple):
        return f"{len(default)} patterns"
    if isinstance(default, CandidateRange):
        return str(default.max)
    if isinstance(default, str) and Path(default).is_dir():
        return f"the demo {Path(default).name}"
    return "none" if default is None else str(default)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the exceptions we raise on purpose, and a missing extra, into one line and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(
            f"winnow: {error.name} is not installed; serving needs pip install 'winnow-llm[cpu]' or [gpu], "
            "training data 'winnow-llm[distill]' as well",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except WinnowError as error:
        print(f"winnow: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
@with_settings
def serve(settings: Settings) -> None:
    """Serve an OpenAI-compatible endpoint; with no options, the demo models on 127.0.0.1:8000."""
    from winnow.server.api.run import serve as run

    run(settings)


@app.command()
@with_settings
def check(settings: Settings) -> None:
    """Compare each reward model, as served, with transformers in float32, and print a table; exit 1 if they differ."""
    from winnow.server.cli.check import check as run

    run(settings)


def plan(
    settings: Settings,
    card_gib: Annotated[
        float | None, typer.Option(min=1, help="Plan for a card of so many GiB; default: what is in this machine.")
    ] = None,
) -> None:
    """Print how the three engines would share a card's memory; exit 1, with the arithmetic, if they do not fit.

    Of a checkpoint only config.json is needed; weights are counted if they are there. Needs no GPU if the card's size is given.
    """
    from winnow.server.memory_plan import print_plan

    print_plan(settings, card_gib)


app.command()(with_settings(plan, MEMORY_SETTINGS))


@app.command()
def chat(
    url: Annotated[str, typer.Option(help="The server's OpenAI base URL.")] = "http://127.0.0.1:8000/v1",
    candidates: Annotated[int | None, typer.Option(help="K; default: the server's.")] = None,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Show the candidates with their scores.")] = False,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the key, if the server wants one.")] = None,
) -> None:
    """Talk to a server from the terminal."""
    from winnow.clients.chat import talk

    with one_line_errors():
        api_key = _read_key(api_key_file) if api_key_file else None
    raise SystemExit(talk(url, candidates=candidates, show=show, system=system, api_key=api_key))


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} cannot be read: it is not text") from None


def _print_recipe(wanted: bool | None) -> None:
    from winnow.server.distill.recipe import DEFAULT

    if wanted:
        print(DEFAULT.read_text(encoding="utf-8"), end="")
        raise typer.Exit


def distill(
    settings: Settings,
    prompts: Annotated[
        str,
        typer.Argument(
            help="JSON lines (also .gz), Parquet, a folder of them, a datasets folder, or - for standard input."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: journal, exports, report. The same command goes on with it.")
    ],
    candidates: Annotated[
        int | None, typer.Option("--candidates", "-k", min=1, help="K, sampled for each prompt.")
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(help="One for all candidates, or several with commas, spread over them.")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Sample K candidates at each of the temperatures.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The run's seed; a line's is derived from it.")] = 0,
    context_distillation: Annotated[
        bool,
        typer.Option(
            "--context-distillation", help="Sample safety prompts behind a preprompt as well, and store them without."
        ),
    ] = False,
    ghost_attention: Annotated[
        bool,
        typer.Option(
            "--ghost-attention", help="Put an instruction on every turn while sampling, and keep the first one."
        ),
    ] = False,
    print_recipe: Annotated[
        bool | None,
        typer.Option(
            "--print-recipe", is_eager=True, callback=_print_recipe, help="Print the default recipe, to be edited."
        ),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="File of preprompts, templates and instructions.")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Use the Winnow that runs at this address, ending in /v1, instead of engines here."),
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File with the server's key.")] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Prompts under way at once (default: 1024; 32 with --server).")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try prompts again whose candidates had all failed.")
    ] = False,
    formats: Annotated[
        str, typer.Option("--export", help="What to export when all is done: formats with commas, or none.")
    ] = "sft,preferences,candidates",
    json: Annotated[
        bool, typer.Option("--json", help="Progress and outcome as JSON lines on standard output.")
    ] = False,
) -> None:
    """Turn a file of prompts into training data: the best of K answers to each, with every score.

    Exit status: 0 when every line has its answers, 3 when some have none (errors.jsonl says why), 1 when the run could not
    go on. Whatever ended it, the same command goes on where it stopped, and the outcome is the same as without the stop.
    """
    from winnow.server.distill.command import Order
    from winnow.server.distill.command import distill as run
    from winnow.server.distill.plans import Choices

    if api_key_file and not server:
        raise SettingsError("--api-key-file is for a server; name it with --server")
    if recipe and not (context_distillation or ghost_attention):
        raise SettingsError("--recipe has no effect without --context-distillation or --ghost-attention")
    choices = Choices(
        candidates=candidates or settings.candidates.max,
        temperatures=_temperatures(temperature) if temperature else (settings.temperature,),
        sweep=sweep,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        combiner=settings.combiner,
        seed=seed,
        context_distillation=context_distillation,
        ghost_attention=ghost_attention,
    )
    order = Order(
        prompts=prompts,
        out=out,
        choices=choices,
        recipe=recipe,
        server=server,
        api_key=_read_key(api_key_file) if api_key_file else None,
        in_flight=in_flight,
        retry_failed=retry_failed,
        formats=_formats(formats),
        as_json=json,
    )
    logging.basicConfig(format="winnow: %(message)s")
    logging.getLogger("winnow").setLevel(logging.INFO)
    raise SystemExit(run(order, settings))


app.command()(with_settings(distill, OFFLINE_SETTINGS))


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 2 for value in values):
        raise SettingsError(f"--temperature: numbers from 0 to 2 with commas between them, not {text!r}")
    return values


def _formats(text: str) -> tuple[Format, ...]:
    from winnow.server.distill.export.options import ALL_FORMATS

    names = [part.strip() for part in text.split(",") if part.strip() not in ("", "none")]
    if "all" in names:
        return ALL_FORMATS
    if unknown := [name for name in names if name not in ALL_FORMATS]:
        raise SettingsError(f"unknown format {unknown[0]!r}; there are {', '.join(ALL_FORMATS)}, all and none")
    return tuple(kind for kind in ALL_FORMATS if kind in names)


def _described(name: str) -> str:
    """An export option's help, from where the option is defined."""
    from winnow.server.distill.export.options import ExportOptions

    return str(ExportOptions.model_fields[name].description)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help="sft, prompt-completion, preferences, candidates, openai-batch, several with commas, or all.",
        ),
    ] = "all",
    out: Annotated[Path | None, typer.Option(help="Where the files go; default: export in the run's folder.")] = None,
    min_reward: Annotated[float | None, typer.Option(min=0, max=1, help=_described("min_reward"))] = None,
    safe_only: Annotated[bool, typer.Option("--safe-only", help=_described("safe_only"))] = False,
    finished_only: Annotated[bool, typer.Option("--finished-only", help=_described("finished_only"))] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help=_described("max_tokens"))] = None,
    top_k: Annotated[int, typer.Option(min=1, help=_described("top_k"))] = 1,
    pairs: Annotated[PairRule, typer.Option(help=_described("pairs"))] = "worst",
    deduplicate: Annotated[bool, typer.Option("--deduplicate", help=_described("deduplicate"))] = False,
    merge: Annotated[list[Path] | None, typer.Option(help=_described("merge"))] = None,
) -> None:
    """Write a run's answers as training data, with a dataset card; from its journal alone, as often as you like."""
    with one_line_errors():
        from winnow.server.distill.export import ExportOptions
        from winnow.server.distill.export import export as run

        options = ExportOptions(
            min_reward=min_reward,
            safe_only=safe_only,
            finished_only=finished_only,
            max_tokens=max_tokens,
            top_k=top_k,
            pairs=pairs,
            deduplicate=deduplicate,
            merge=tuple(merge or ()),
        )
        for item in run(folder, _formats(formats), options, out):
            print(f"{item.rows:>9,}  {item.path}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="Where the page goes; default: report in the run's folder.")] = None,
    min_gain: Annotated[
        float, typer.Option(help="The R_c, in (0, 1), that doubling N has to gain to be worth it.")
    ] = 0.01,
    examples: Annotated[int, typer.Option(min=0, help="Prompts shown with their best and worst answers.")] = 10,
) -> None:
    """Show what a run's choosing was worth: one page with plots; reward against N, temperatures, lengths, safety, examples."""
    with one_line_errors():
        from winnow.server.distill.report import ReportOptions
        from winnow.server.distill.report import report as run

        print(run(folder, out, ReportOptions(min_gain=min_gain, examples=examples)))


app.command(epilog=loadtests.EPILOG)(loadtests.loadtest)


@app.command()
def version() -> None:
    """Print the version."""
    print(installed_version("winnow-llm"))


def main() -> None:
    """The `winnow` command."""
    app()
