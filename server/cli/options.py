"""Parts that the commands share: flags made from the settings, key files, and errors as one line."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.core import TyperCommand

from winnow.clients.connection import read_api_key
from winnow.clients.schema import CandidateRange
from winnow.models.errors import SettingsError, WinnowError
from winnow.server.settings import Option, load, options

ConfigFile = Annotated[
    Path | None, typer.Option(help="Settings file; default: winnow.toml in this folder, if it exists.")
]


HELP_WIDTH = 100
"""Most columns of the settings' help."""


RAY_ADDRESS = re.compile(r"auto|local|ray://\S+|[^/\s]+:\d+")
"""The addresses that may follow `--ray`; anything else is the command's next argument."""
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Run on a Ray cluster: HOST:PORT, auto (a running one, or else one of this machine; the default), or "
        "local. Needs the extra ray.",
        show_default=False,
    ),
]


class SettingsCommand(TyperCommand):
    """A command whose flags are settings: its help is plain text, since typer's table cuts long flags short."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options |= {"rich_markup_mode": None, "context_settings": {"max_content_width": HELP_WIDTH}}
        super().__init__(*args, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        return super().parse_args(ctx, with_ray_address(args))


def with_ray_address(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an address behind each `--ray`, whose own is optional: auto where it has none."""
    found: list[str] = []
    for place, argument in enumerate(arguments):
        found.append(argument)
        if argument == "--":
            return [*found, *arguments[place + 1 :]]
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if argument == "--ray" and not RAY_ADDRESS.fullmatch(following):
            found.append("auto")
    return found


def with_settings(
    command: Callable[..., None], wanted: Callable[[Option], bool] = lambda option: True
) -> Callable[..., None]:
    """Return `command` with a flag for each setting that is `wanted`; help and default come from the setting.

    The first parameter of `command` receives the settings, the others stay as they are.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(config: Path | None = None, **flags: Any) -> None:
        with one_line_errors():
            given = {parameter.name: flags.pop(parameter.name) for parameter in own}
            command(load(config, **flags), **given)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    parameters.append(_optional("config", ConfigFile))
    parameters += (_flag(option) for option in options() if wanted(option))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _flag(option: Option) -> inspect.Parameter:
    text = f"{option.description} (default: {_shown(option.default)})"
    return _optional(option.name, Annotated[_type(option.annotation), typer.Option(help=text, show_default=False)])


def _optional(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _type(annotation: Any) -> Any:
    """Return the type that typer parses for a setting: optional, and a list if the setting is a tuple."""
    if get_origin(annotation) in (Union, UnionType):
        # Optional already: Typer shows what stands beside None without its validators.
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return str | None  # a table in the file, a text on the command line
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return list[str] | None if get_origin(annotation) is tuple else annotation | None


def _shown(default: Any) -> str:
    """Return a default as the help shows it; a demo checkpoint by its name, not its path."""
    if isinstance(default, tuple):
        return f"{len(default)} patterns" if default else "none"
    if isinstance(default, CandidateRange):
        return str(default.max)
    if isinstance(default, str) and Path(default).is_dir():
        return f"the demo {Path(default).name}"
    return "none" if default is None else str(default)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a `WinnowError` or a missing extra as one line and exit with status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "sklearn":
            print(
                "winnow: scikit-learn is not installed; winnow rm needs pip install 'winnow-llm[rm]'", file=sys.stderr
            )
            raise SystemExit(1) from None
        if error.name == "psycopg":
            print(
                "winnow: psycopg is not installed; a store by URL needs pip install 'winnow-llm[postgresql]'",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
        missing = f"{error.name} is not installed" if error.name else " ".join(str(error).split())
        print(
            f"winnow: {missing}; serving needs pip install 'winnow-llm[cpu]' or [gpu], "
            "training data 'winnow-llm[distill]' as well",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except WinnowError as error:
        print(f"winnow: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def read_key(file: Path | None) -> str | None:
    """Return the API key in `file`; None without a file.

    Raises:
        SettingsError: the file cannot be read.
    """
    if file is None:
        return None
    try:
        return read_api_key(file)
    except ValueError as error:
        raise SettingsError(str(error)) from None
