"""`winnow distill`, `winnow export` and `winnow report`: from prompts to training data, offline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.options import RayAddress, one_line_errors, read_key
from winnow.server.distill.export import ALL_FORMATS, ExportOptions, Format, MarginSize, PairRule, Written
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.server.distill.plans import Choices
    from winnow.server.pipeline.waves import Waves


def _print_recipe(wanted: bool | None) -> None:
    from winnow.server.distill.recipe import DEFAULT

    if wanted:
        print(DEFAULT.read_text(encoding="utf-8"), end="")
        raise typer.Exit


Prompts = Annotated[
    str,
    typer.Argument(
        help="JSON lines, JSON array or CSV (also .gz), Parquet, a folder of these, a datasets folder, or - for stdin."
    ),
]
InputFormatName = Annotated[
    Literal["auto", "jsonl", "json", "csv", "text", "parquet"],
    typer.Option(help="What the input is; text is one prompt a line. auto: by its name and, for JSON, its beginning."),
]
Out = Annotated[
    Path, typer.Option(help="Folder of the run: journal, exports, report. The same command again resumes the run.")
]
Candidates = Annotated[int | None, typer.Option("--candidates", "-k", min=1, help="K, sampled for each prompt.")]
AdaptiveText = Annotated[
    str | None,
    typer.Option(
        "--adaptive",
        metavar="STOP",
        help="Sample a prompt's candidates in waves, up to K, until R_c reaches a reward (reward=0.9), or a further "
        "one is expected to gain less than a price (gain=0.002, with --gains); start=4,step=4 are the waves' sizes.",
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="CANDIDATES",
        help="Sample that many candidates over all prompts: 4 for each, then 4 more where they gain most, up to K. "
        "600,start=2,step=2 sets those sizes.",
    ),
]
Temperature = Annotated[
    str | None, typer.Option(help="One for all candidates, or several with commas, spread over them.")
]
Sweep = Annotated[bool, typer.Option("--sweep", help="Sample K candidates at each of the temperatures.")]
Seed = Annotated[int, typer.Option(min=0, help="The run's seed; each line's seed is derived from it.")]
ContextDistillation = Annotated[
    bool,
    typer.Option(
        "--context-distillation",
        help="Sample safety prompts with a preprompt as well, and store those answers without it.",
    ),
]
GhostAttention = Annotated[
    bool,
    typer.Option(
        "--ghost-attention", help="Add an instruction to every turn while sampling; store it on the first turn only."
    ),
]
PrintRecipe = Annotated[
    bool | None,
    typer.Option("--print-recipe", is_eager=True, callback=_print_recipe, help="Print the default recipe to edit."),
]
RecipeFile = Annotated[Path | None, typer.Option(help="File of preprompts, templates and instructions.")]
Server = Annotated[
    str | None, typer.Option(help="Use the Winnow at this URL, ending in /v1, instead of starting engines here.")
]
KeyFile = Annotated[Path | None, typer.Option(help="File with the server's key.")]
InFlight = Annotated[
    int | None,
    typer.Option(min=1, help="Prompts in flight (default: 1024, for each actor with --ray; 32 with --server)."),
]
ShardText = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Answer rows I, I+N, I+2N and so on, I from 1 to N, one shard a job; winnow distill gather makes one run "
        "of all N. Writes no training data by default.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(min=1, help="Actors with engines of their own on the Ray cluster, a card each (default: 1)."),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Retry prompts whose candidates all failed.")]


def format_option(default: Sequence[str], more: str = "") -> Any:
    """Return the option that names formats, with `default` in its help, and `more` behind it."""
    names, kept = ", ".join(ALL_FORMATS), ",".join(default)
    return typer.Option(
        "--format",
        help=f"Training data to write: {names}, several with commas, all, or none (default: {kept}).{more}",
        show_default=False,
    )


DISTILLED: tuple[Format, ...] = ("sft", "preferences", "candidates")
"""The formats that `winnow distill` writes by default."""
OldFormatNames = Annotated[list[str] | None, typer.Option("--export", hidden=True)]
"""The former name of `--format`."""
FormatsOption = Annotated[list[str] | None, format_option(["all"], " Of a store also annotations.")]
AsJson = Annotated[bool, typer.Option("--json", help="Progress and outcome as JSON lines on standard output.")]


def distill(
    settings: Settings,
    prompts: Prompts,
    out: Out,
    input_format: InputFormatName = "auto",
    candidates: Candidates = None,
    adaptive: AdaptiveText = None,
    budget: BudgetText = None,
    temperature: Temperature = None,
    sweep: Sweep = False,
    seed: Seed = 0,
    context_distillation: ContextDistillation = False,
    ghost_attention: GhostAttention = False,
    print_recipe: PrintRecipe = None,
    recipe: RecipeFile = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    ray: RayAddress = None,
    actors: Actors = None,
    in_flight: InFlight = None,
    retry_failed: RetryFailed = False,
    shard: ShardText = None,
    formats: Annotated[list[str] | None, format_option(DISTILLED)] = None,
    old_formats: OldFormatNames = None,
    json: AsJson = False,
) -> None:
    """Turn a file of prompts into training data: the best of K answers to each, with every score.

    Exit status: 0 if every line has its answers, 3 if some have none (errors.jsonl says why), 1 if the
    run could not continue. After any interruption, the same command resumes the run; its outcome is the
    same as without the interruption.

    At the end gains.json says what further candidates gain, for --adaptive gain=PRICE: a run over a hundred prompts
    like those that you will serve, with K as large as theirs or larger, is enough.
    """
    from winnow.server.distill.budget import Budget
    from winnow.server.distill.command import distill as run
    from winnow.server.distill.options import RunOptions
    from winnow.server.distill.shards import Shard

    if api_key_file and not server:
        raise SettingsError("--api-key-file is for a server; name it with --server")
    if ray and server:
        raise SettingsError("--ray starts engines and --server uses those of a server; leave one of them out")
    if actors and not ray:
        raise SettingsError("--actors is for a Ray cluster; name it with --ray")
    if recipe and not (context_distillation or ghost_attention):
        raise SettingsError("--recipe has no effect without --context-distillation or --ghost-attention")
    options = RunOptions(
        prompts=prompts,
        out=out,
        choices=_choices(
            settings, candidates, temperature, sweep=sweep, seed=seed,
            context_distillation=context_distillation, ghost_attention=ghost_attention,
            waves=_waves(settings, adaptive) if adaptive or budget is None else None,
            budget=None if budget is None else Budget.of(budget),
            knows_gains=bool(server or settings.gains),
        ),
        input_format=None if input_format == "auto" else input_format,
        recipe=recipe,
        server=server,
        api_key=read_key(api_key_file),
        in_flight=in_flight,
        retry_failed=retry_failed,
        formats=chosen_formats(formats, old_formats, default=() if shard else DISTILLED),
        as_json=json,
        shard=None if shard is None else Shard.parsed(shard),
        ray=ray,
        actors=actors or 1,
    )  # fmt: skip
    logging.basicConfig(format="winnow: %(message)s")
    logging.getLogger("winnow").setLevel(logging.INFO)
    raise SystemExit(run(options, settings))


def _choices(settings: Settings, candidates: int | None, temperature: str | None, **flags: Any) -> Choices:
    """Return the run's sampling choices: the command's options, else the settings."""
    from winnow.server.distill.plans import Choices

    return Choices(
        candidates=candidates or settings.candidates.max,
        temperatures=_temperatures(temperature) if temperature else (settings.temperature,),
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        combiner=settings.combiner or "llama2",  # or the models' own, once the run knows them
        **flags,
    )


def _waves(settings: Settings, text: str | None) -> Waves | None:
    """Return the waves that `--adaptive` spells, or else the settings."""
    from pydantic import TypeAdapter, ValidationError

    from winnow.server.pipeline.request import waves_of
    from winnow.server.settings.values import Adaptive

    try:
        options = settings.adaptive if text is None else TypeAdapter(Adaptive).validate_python(text)
    except ValidationError as error:
        raise SettingsError(f"--adaptive: {error.errors(include_url=False)[0]['msg']}") from None
    return waves_of(options) if options else None


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 2 for value in values):
        raise SettingsError(f"--temperature: numbers from 0 to 2 with commas between them, not {text!r}")
    return values


def chosen_formats(*given: list[str] | None, default: tuple[Format, ...], of_store: bool = False) -> tuple[Format, ...]:
    """Return the formats of an option that may be repeated and may hold commas; `default` if it is not given."""
    texts = [text for texts in given for text in texts or ()]
    if not texts:
        return default
    names = [part.strip() for text in texts for part in text.split(",") if part.strip() not in ("", "none")]
    kinds: tuple[Format, ...] = get_args(Format) if of_store else ALL_FORMATS
    if unknown := [name for name in names if name not in (*kinds, "all")]:
        raise SettingsError(f"--format: unknown format {unknown[0]!r}; there are {', '.join(kinds)}, all and none")
    return tuple(kind for kind in kinds if kind in names or ("all" in names and kind in ALL_FORMATS))


def _described(name: str) -> str:
    """Return the help of an export option, which is written where the option is defined."""
    return str(ExportOptions.model_fields[name].description)


def export(
    folder: Annotated[str, typer.Argument(help="The folder of a run, or store:FILE, store:URL of recorded answers.")],
    formats: FormatsOption = None,
    old_formats: OldFormatNames = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files; default: export in the run's folder, or STORE-export beside a store."),
    ] = None,
    min_reward: Annotated[float | None, typer.Option(min=0, max=1, help=_described("min_reward"))] = None,
    safe_only: Annotated[bool, typer.Option("--safe-only", help=_described("safe_only"))] = False,
    finished_only: Annotated[bool, typer.Option("--finished-only", help=_described("finished_only"))] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help=_described("max_tokens"))] = None,
    top_k: Annotated[int, typer.Option(min=1, help=_described("top_k"))] = 1,
    pairs: Annotated[PairRule, typer.Option(help=_described("pairs"))] = "worst",
    margin: Annotated[MarginSize | None, typer.Option(help=_described("margin"))] = None,
    deduplicate: Annotated[bool, typer.Option("--deduplicate", help=_described("deduplicate"))] = False,
    tokenizer: Annotated[str | None, typer.Option(help=_described("tokenizer"))] = None,
    with_questioned: Annotated[bool, typer.Option("--with-questioned", help=_described("with_questioned"))] = False,
    merge: Annotated[list[Path] | None, typer.Option(help=_described("merge"))] = None,
    origin: Annotated[
        int | None, typer.Option(min=1, help="Of a store: only the answers of this origin; see winnow store status.")
    ] = None,
) -> None:
    """Write the answers of a run or a store as training data, with a dataset card, as often as you like."""
    with one_line_errors():
        options = ExportOptions(
            min_reward=min_reward,
            safe_only=safe_only,
            finished_only=finished_only,
            max_tokens=max_tokens,
            top_k=top_k,
            pairs=pairs,
            margin=margin,
            deduplicate=deduplicate,
            tokenizer=tokenizer,
            with_questioned=with_questioned,
            merge=tuple(merge or ()),
        )
        logging.basicConfig(format="winnow: %(message)s")
        wanted = chosen_formats(formats, old_formats, default=ALL_FORMATS, of_store=True)
        for item in _exported(folder, wanted, options, out, origin):
            print(f"{item.rows:>9,}  {item.path}")


def _exported(
    source: str, formats: tuple[Format, ...], options: ExportOptions, out: Path | None, origin: int | None
) -> list[Written]:
    from winnow.server.distill.export.formats import export as of_run
    from winnow.server.store.exporting import PREFIX
    from winnow.server.store.exporting import export as of_store
    from winnow.server.store.location import location

    if source.startswith(PREFIX):
        return of_store(location(source.removeprefix(PREFIX)), formats, options, out, origin)
    if origin is not None:
        raise SettingsError("--origin is for a store: winnow export store:winnow.db")
    return of_run(Path(source), formats, options, out)


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; default: report in the run's folder.")] = None,
    min_gain: Annotated[
        float, typer.Option(help="Smallest gain in R_c, in (0, 1), for which doubling N is worth it.")
    ] = 0.01,
    examples: Annotated[int, typer.Option(min=0, help="Prompts shown with their best and worst answers.")] = 10,
) -> None:
    """Show what best-of-N gained in a run: a page with plots of reward against N, temperatures, lengths and safety.

    Writes gains.json, too: what further candidates gain, for --adaptive gain=PRICE. It goes into the run's folder, or
    beside the page with --out. A run on a server has none.
    """
    with one_line_errors():
        from winnow.server.distill.report import ReportOptions
        from winnow.server.distill.report import report as run

        print(run(folder, out, ReportOptions(min_gain=min_gain, examples=examples)))
