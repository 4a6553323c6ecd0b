"""A reward model on a scripted server, whose score of an answer stands in the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.model_servers import ModelServer, classifier
from winnow.models import demo
from winnow.models.tokenizer import Tokenizer
from winnow.server.cli.main import app

SCORE = re.compile(r"score (-?\d+\.\d+)")


@dataclass
class Scorer:
    """A reward model's address, the folder of its tokenizer, and the commands run on it."""

    url: str
    folder: Path
    server: ModelServer
    scored: list[float]
    """The scores that were given, in order."""

    def rm(self, command: str, *arguments: object) -> Result:
        words = ["rm", command, self.url, "--tokenizer", str(self.folder), *map(str, arguments)]
        return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in this process, whose environment is that of all tests."""
    monkeypatch.setattr("winnow.server.rm.scoring.prepare", lambda **_: None)


@pytest.fixture(scope="module")
def scorer(tokenizer: Tokenizer) -> Iterator[Scorer]:
    scored: list[float] = []

    def score(ids: list[int]) -> float:
        found = SCORE.findall(tokenizer.decode(ids))
        if not found:
            return 0.0  # what is asked at the start
        scored.append(float(found[-1]))
        return scored[-1]

    with ModelServer.running(classifier(score, name="safety-rm", context=2048)) as server:
        yield Scorer(server.url, demo.weights("safety-rm"), server, scored)


def write(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write rows as JSON Lines; a text is a line as it is."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
