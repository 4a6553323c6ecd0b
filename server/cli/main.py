"""The `winnow` command, with one module for each group of its commands.

Heavy imports are inside the commands, so that `--help` and `chat` need neither torch nor vLLM.
"""

from __future__ import annotations

import os
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from winnow.loadtests import command as loadtests
from winnow.server.cli.chat import chat
from winnow.server.cli.check import check
from winnow.server.cli.convert import convert
from winnow.server.cli.distill import distill, export, report
from winnow.server.cli.doctor import doctor
from winnow.server.cli.gather import gather
from winnow.server.cli.models import app as models
from winnow.server.cli.options import SettingsCommand, with_settings
from winnow.server.cli.rm import app as rm
from winnow.server.cli.serve import plan, serve
from winnow.server.cli.store import app as store
from winnow.server.cli.streams import output_that_may_end, prepare_streams, prepare_terminal


class Commands(TyperGroup):
    """The commands, some of which have a name of two words though the first is a command by itself."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # typer's own types are private
        """Return the command that the arguments begin with, and the rest of them."""
        longer = " ".join(args[:2])
        if command := self.get_command(ctx, longer):
            return longer, command, args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    name="winnow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(cls=SettingsCommand)(with_settings(doctor, lambda option: option.decides_memory))
app.command(cls=SettingsCommand)(with_settings(serve))
app.command(cls=SettingsCommand)(with_settings(check))
app.command(cls=SettingsCommand)(with_settings(plan, lambda option: option.decides_memory))
app.add_typer(models, name="models")
app.add_typer(rm, name="rm")
app.add_typer(store, name="store")
app.command()(convert)
app.command()(chat)
app.command(cls=SettingsCommand)(with_settings(distill, lambda option: option.is_offline))
app.command("distill gather")(gather)
app.command()(export)
app.command()(report)
app.command(epilog=loadtests.EPILOG)(loadtests.loadtest)


@app.command()
def version() -> None:
    """Print the version."""
    print(installed_version("winnow-llm"))


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve the best of K answers: sample K candidates, score their safety and helpfulness, return the best."""


def main() -> None:
    """Run the `winnow` command."""
    prepare_streams()
    prepare_terminal()
    os.environ["MPLBACKEND"] = "agg"  # a notebook's, which its children inherit, cannot be loaded outside of it
    with output_that_may_end():
        app()
