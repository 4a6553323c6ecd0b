"""`winnow convert`: pickled weights to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from winnow.server.cli.options import one_line_errors


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of a checkpoint with .bin files.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it must be new, or empty.")],
) -> None:
    """Write a checkpoint's pickled weights (.bin) as safetensors, which is all that Winnow loads.

    Only tensors are read (torch.load with weights_only); a file that holds anything
    else is refused. A head in a file of its own (value_head.bin) is put beside the
    other tensors. Names and numbers stay: a card finds the head.
    """
    with one_line_errors():
        from winnow.models.engines.conversion import convert as run

        for name in run(source, target):
            print(target / name)
