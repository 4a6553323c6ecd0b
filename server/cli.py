"""The command line: `winnow serve`, `winnow check`, `winnow chat`, `winnow version`.

Heavy imports stand inside the commands, so that `--help` and `chat` need neither torch nor vLLM.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from winnow.models.errors import WinnowError
from winnow.server.settings import Settings, SettingsError, load

app = typer.Typer(
    name="winnow",
    help="Serve the best of K answers: sample K candidates, score their safety and helpfulness, return the best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[
    Path | None, typer.Option(help="Settings file; default: winnow.toml in this folder, if there is one.")
]


def with_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give `command` one option for every setting, described and defaulted by the settings themselves."""

    def run(config: Path | None = None, **flags: Any) -> None:
        with one_line_errors():
            command(load(config, **flags))

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
    ]
    config = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)
    run.__signature__ = inspect.Signature([config, *options])  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _option_type(annotation: Any) -> Any:
    """The type typer parses for a setting: optional, and a list where the setting is a tuple."""
    return list[str] | None if get_origin(annotation) is tuple else annotation | None


def _shown(default: Any) -> str:
    """A default as the help shows it; the demo checkpoints by name, not by where they are installed."""
    if isinstance(default, tuple):
        return f"{len(default)} patterns"
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
            f"winnow: {error.name} is not installed; serving needs pip install 'winnow-llm[cpu]' or [gpu]",
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
    from winnow.server.http.serve import serve as run

    run(settings)


@app.command()
@with_settings
def check(settings: Settings) -> None:
    """Compare each reward model, as served, with transformers in float32, and print a table; exit 1 if they differ."""
    from winnow.server.check import check as run

    run(settings)


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


@app.command()
def version() -> None:
    """Print the version."""
    print(installed_version("winnow-llm"))


def main() -> None:
    """The `winnow` command."""
    app()
