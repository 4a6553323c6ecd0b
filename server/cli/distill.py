"""`winnow distill`, `winnow export` and `winnow report`: from prompts to training data, offline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from winnow.models.errors import SettingsError
from winnow.server.cli.options import one_line_errors, read_key
from winnow.server.distill.export import ALL_FORMATS, ExportOptions, Format, MarginSize, PairRule
from winnow.server.settings import Settings

if TYPE_CHECKING:
    from winnow.server.distill.plans import Choices


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
InFlight = Annotated[int | None, typer.Option(min=1, help="Prompts in flight (default: 1024; 32 with --server).")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Retry prompts whose candidates all failed.")]


def _format_option(default: Sequence[str]) -> Any:
    names = ", ".join(ALL_FORMATS)
    return typer.Option(
        "--format",
        help=f"Training data to write: {names}, several with commas, all, or none (default: {','.join(default)}).",
        show_default=False,
    )


DISTILLED: tuple[Format, ...] = ("sft", "preferences", "candidates")
"""The formats that `winnow distill` writes by default."""
OldFormatNames = Annotated[list[str] | None, typer.Option("--export", hidden=True)]
"""The former name of `--format`."""
AsJson = Annotated[bool, typer.Option("--json", help="Progress and outcome as JSON lines on standard output.")]


def distill(
    settings: Settings,
    prompts: Prompts,
    out: Out,
    input_format: InputFormatName = "auto",
    candidates: Candidates = None,
    temperature: Temperature = None,
    sweep: Sweep = False,
    seed: Seed = 0,
    context_distillation: ContextDistillation = False,
    ghost_attention: GhostAttention = False,
    print_recipe: PrintRecipe = None,
    recipe: RecipeFile = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    in_flight: InFlight = None,
    retry_failed: RetryFailed = False,
    formats: Annotated[list[str] | None, _format_option(DISTILLED)] = None,
    old_formats: OldFormatNames = None,
    json: AsJson = False,
) -> None:
    """Turn a file of prompts into training data: the best of K answers to each, with every score.

    Exit status: 0 if every line has its answers, 3 if some have none (errors.jsonl says why), 1 if the
    run could not continue. After any interruption, the same command resumes the run; its outcome is the
    same as without the interruption.
    """
    from winnow.server.distill.command import distill as run
    from winnow.server.distill.options import RunOptions

    if api_key_file and not server:
        raise SettingsError("--api-key-file is for a server; name it with --server")
    if recipe and not (context_distillation or ghost_attention):
        raise SettingsError("--recipe has no effect without --context-distillation or --ghost-attention")
    options = RunOptions(
        prompts=prompts,
        out=out,
        choices=_choices(
            settings, candidates, temperature, sweep=sweep, seed=seed,
            context_distillation=context_distillation, ghost_attention=ghost_attention,
        ),
        input_format=None if input_format == "auto" else input_format,
        recipe=recipe,
        server=server,
        api_key=read_key(api_key_file),
        in_flight=in_flight,
        retry_failed=retry_failed,
        formats=_formats(formats, old_formats, default=DISTILLED),
        as_json=json,
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


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 2 for value in values):
        raise SettingsError(f"--temperature: numbers from 0 to 2 with commas between them, not {text!r}")
    return values


def _formats(*given: list[str] | None, default: tuple[Format, ...]) -> tuple[Format, ...]:
    """Return the formats of an option that may be repeated and may hold commas; `default` if it is not given."""
    texts = [text for texts in given for text in texts or ()]
    if not texts:
        return default
    names = [part.strip() for text in texts for part in text.split(",") if part.strip() not in ("", "none")]
    if unknown := [name for name in names if name not in (*ALL_FORMATS, "all")]:
        raise SettingsError(
            f"--format: unknown format {unknown[0]!r}; there are {', '.join(ALL_FORMATS)}, all and none"
        )
    return tuple(kind for kind in ALL_FORMATS if kind in names or "all" in names)


def _described(name: str) -> str:
    """Return the help of an export option, which is written where the option is defined."""
    return str(ExportOptions.model_fields[name].description)


def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    formats: Annotated[list[str] | None, _format_option(["all"])] = None,
    old_formats: OldFormatNames = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: export in the run's folder.")] = None,
    min_reward: Annotated[float | None, typer.Option(min=0, max=1, help=_described("min_reward"))] = None,
    safe_only: Annotated[bool, typer.Option("--safe-only", help=_described("safe_only"))] = False,
    finished_only: Annotated[bool, typer.Option("--finished-only", help=_described("finished_only"))] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help=_described("max_tokens"))] = None,
    top_k: Annotated[int, typer.Option(min=1, help=_described("top_k"))] = 1,
    pairs: Annotated[PairRule, typer.Option(help=_described("pairs"))] = "worst",
    margin: Annotated[MarginSize | None, typer.Option(help=_described("margin"))] = None,
    deduplicate: Annotated[bool, typer.Option("--deduplicate", help=_described("deduplicate"))] = False,
    tokenizer: Annotated[str | None, typer.Option(help=_described("tokenizer"))] = None,
    merge: Annotated[list[Path] | None, typer.Option(help=_described("merge"))] = None,
) -> None:
    """Write a run's answers as training data, with a dataset card; from its journal alone, as often as you like."""
    with one_line_errors():
        from winnow.server.distill.export.formats import export as run

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
            merge=tuple(merge or ()),
        )
        logging.basicConfig(format="winnow: %(message)s")
        for item in run(folder, _formats(formats, old_formats, default=ALL_FORMATS), options, out):
            print(f"{item.rows:>9,}  {item.path}")


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; default: report in the run's folder.")] = None,
    min_gain: Annotated[
        float, typer.Option(help="Smallest gain in R_c, in (0, 1), for which doubling N is worth it.")
    ] = 0.01,
    examples: Annotated[int, typer.Option(min=0, help="Prompts shown with their best and worst answers.")] = 10,
) -> None:
    """Show what best-of-N gained in a run: a page with plots of reward against N, temperatures, lengths and safety."""
    with one_line_errors():
        from winnow.server.distill.report import ReportOptions
        from winnow.server.distill.report import report as run

        print(run(folder, out, ReportOptions(min_gain=min_gain, examples=examples)))
