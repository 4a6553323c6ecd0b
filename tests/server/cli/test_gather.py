"""`winnow distill gather`, a command of two words beside `winnow distill PROMPTS`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from tests.runs import make_run
from winnow.server.cli.main import app


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_it_is_a_command_of_its_own() -> None:
    status, text = said("distill", "gather", "--help")
    assert status == 0
    assert "distill gather [OPTIONS]" in text
    assert "--shard" in said("distill", "--help")[1]
    assert "distill gather" in said("--help")[1]


def test_errors_are_one_line(tmp_path: Path) -> None:
    make_run(tmp_path / "whole")
    status, text = said("distill", "gather", str(tmp_path / "whole"), "--out", str(tmp_path / "one"))
    assert status == 1
    assert text == (
        f"winnow: {tmp_path}/whole is no shard but a whole run; only folders of winnow distill --shard are gathered\n"
    )
    assert said("distill", "gather", "--out", str(tmp_path))[0] == 2  # no shards


def test_a_file_of_that_name_can_be_an_input(tmp_path: Path) -> None:
    status, text = said("distill", f"{tmp_path}/gather", "--out", str(tmp_path / "run"))
    assert status == 1
    assert f"{tmp_path}/gather cannot be read: it does not exist" in text


def test_a_shard_must_be_one(tmp_path: Path) -> None:
    status, text = said("distill", "x.jsonl", "--out", str(tmp_path / "run"), "--shard", "9/8")
    assert (status, "--shard is I/N, as in 3/8" in text) == (1, True)
