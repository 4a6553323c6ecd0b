"""Winnow as a process of its own: `winnow serve`, on the demo models or on random weights, and `winnow distill`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, get_args

from winnow.loadtests.benchmarks.processes import Command, end_with_parent, free_port, serving
from winnow.models import demo
from winnow.models.demo.world import DemoPrompt
from winnow.models.engines.dummy_checkpoints import write_all
from winnow.models.engines.shape import Shape
from winnow.models.types import Message

START_SECONDS = 900.0
DEMO_MODELS = tuple(part for name in get_args(demo.ModelName) for part in (f"--{name}", str(demo.weights(name))))
"""Flags that name the demo models, whatever the folder's winnow.toml says."""
_WINNOW = str(Path(sys.executable).with_name("winnow"))


class DistillFailed(Exception):
    """`winnow distill` ended with an error, which it has printed."""


def serve_command(port: int, flags: Sequence[str] = ()) -> Command:
    """Return the command `winnow serve` on `port`."""
    return Command("winnow serve", [_WINNOW, "serve", "--port", str(port), *flags], health="/ready")


@contextlib.contextmanager
def winnow_server(flags: Sequence[str], log_file: Path) -> Iterator[str]:
    """Start `winnow serve` with `flags` on a free port, and yield its address once it is ready.

    Call it from the main thread.

    Raises:
        ServerFailed: it ended, or was not ready in 15 minutes.
    """
    port = free_port()
    with serving(serve_command(port, flags), port, START_SECONDS, log_file) as url:
        yield url


@contextlib.contextmanager
def winnow_server_of_shape(
    shape: Shape, folder: Path, log_file: Path, tokenizer: Path, flags: Sequence[str] = ()
) -> Iterator[str]:
    """Start `winnow_server` on three models of `shape` with random weights, written into `folder`."""
    paths = [part for role, path in write_all(folder, shape, tokenizer).items() for part in (f"--{role}", str(path))]
    with winnow_server(["--load-format", "dummy", "--no-canary", *paths, *flags], log_file) as url:
        yield url


def distill(prompts: Path, out: Path, flags: Sequence[str], stdout: IO[bytes] | None = None) -> None:
    """Run `winnow distill` on the demo models, or resume it; standard output goes to `stdout` if given.

    Raises:
        DistillFailed: its exit status is not 0.
    """
    command = [_WINNOW, "distill", str(prompts), "--out", str(out), *DEMO_MODELS, *flags]
    status = subprocess.run(  # noqa: S603, our own command
        command, stdout=stdout, check=False, preexec_fn=end_with_parent
    ).returncode
    if status:
        raise DistillFailed(f"winnow distill ended with status {status}; the same command resumes the run")


def write_prompts(path: Path, prompts: Iterable[DemoPrompt]) -> None:
    """Write prompts of the demo world as an input file of `winnow distill`, one a line."""
    rows = ({"messages": as_json(prompt.messages), "category": prompt.category} for prompt in prompts)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def as_json(dialog: Sequence[Message]) -> tuple[dict[str, str], ...]:
    """Return messages as requests and input files carry them."""
    return tuple(map(dataclasses.asdict, dialog))
