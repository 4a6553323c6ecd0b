"""A Winnow server as a process of its own, on random weights in a known shape, or with whatever flags: `served`, `running`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from winnow.loadtests.benchmarks.baselines.servers import Command, free_port, started
from winnow.loadtests.benchmarks.shapes import Shape, write_all

START_SECONDS = 900.0
DEMO_TOKENIZER = Path(__file__).parents[2] / "models" / "demo" / "weights" / "policy"


@contextlib.contextmanager
def served(shape: Shape, folder: Path, log: Path, tokenizer: Path, flags: Sequence[str] = ()) -> Iterator[str]:
    """Start `winnow serve` on three models of `shape`, written into `folder`, and yield its address once it is ready.

    Its log goes to the file `log`. It ends with this process: call it from the main thread.

    Raises:
        ServerFailed: it ended, or was not ready in 15 minutes.
    """
    models = write_all(folder, shape, tokenizer)
    paths = [part for role, path in models.items() for part in (f"--{role}", str(path))]
    with running(["--load-format", "dummy", "--no-canary", *paths, *flags], log) as url:
        yield url


@contextlib.contextmanager
def running(flags: Sequence[str], log: Path) -> Iterator[str]:
    """Start `winnow serve` with `flags` on a free port, and yield its address once it is ready; for the rest see `served`."""
    port = free_port()
    arguments = [str(Path(sys.executable).with_name("winnow")), "serve", "--port", str(port), *flags]
    with started(Command("winnow serve", arguments), kept=log) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until_healthy(f"{url}/ready", START_SECONDS)
        yield url
