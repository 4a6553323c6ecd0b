"""`winnow store` and `winnow export store:…`, beside the server that writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.live import WINNOW
from tests.runs import manifest
from tests.server.store.databases import served
from winnow.server.cli.main import app
from winnow.server.store.location import location
from winnow.server.store.opening import key_of, open_store
from winnow.server.store.preparing import Preparer
from winnow.server.store.redaction import Redactor

WORDS = "sesame opens the cave"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with three answers, two of them to anna, and its key file."""
    place = location(str(tmp_path / "winnow.db"))
    names = key_of(place, None, make=True)
    preparer = Preparer(Redactor(()), names, 36_000)
    opened = open_store(place, names)
    answers = [served(1, user="anna", question=WORDS), served(2, identifier="anna"), served(3, user="bert")]
    opened.add([preparer.row(answer) for answer in answers], opened.origin(manifest()))
    opened.close()
    return place.path


def winnow(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_status_counts_and_names_the_origins(store: Path) -> None:
    shown = winnow("store", "status", "--store", store)
    assert shown.exit_code == 0
    assert "3 answers" in shown.output
    assert "origin 1: 3 answers; policy winnow-demo, safety safety-rm, helpfulness helpfulness-rm" in shown.output
    body = json.loads(winnow("store", "status", "--store", store, "--json").output)
    assert (body["selections"], body["expired"], body["origins"][0]["answers"]) == (3, 0, 3)


def test_the_store_of_the_settings_is_the_default(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_STORE", str(store))
    assert "3 answers" in winnow("store", "status").output
    assert winnow("store", "forget", "anna").exit_code == 0
    assert "1 answers" in winnow("store", "status").output


def test_prune_deletes_what_is_older(store: Path) -> None:
    assert winnow("store", "prune", "--store", store).output == "deleted: 0 answers\n"
    assert winnow("store", "prune", "--store", store, "--older-than", "0").output == "deleted: 3 answers\n"


def test_a_forgotten_user_is_in_no_file_but_the_exports_that_are_named(store: Path) -> None:
    out = store.parent / "out"
    exported = winnow("export", f"store:{store}", "--format", "sft,preferences,reward,kto", "--out", out)
    assert exported.exit_code == 0, exported.output
    assert {path.name for path in out.glob("*.jsonl")} == {
        "sft.jsonl", "preferences.jsonl", "reward.jsonl", "kto.jsonl",
    }  # fmt: skip
    done = winnow("store", "forget", "anna", "--store", store)
    assert done.output.startswith("deleted: 2 answers\n")
    assert f"{out}  (sft,preferences,reward,kto)" in done.output
    holding = [path for path in store.parent.rglob("*") if path.is_file() and WORDS.encode() in path.read_bytes()]
    assert holding
    assert all(path.is_relative_to(out) for path in holding)
    later = winnow("store", "export", "--store", store, "--format", "sft", "--out", store.parent / "later")
    assert later.exit_code == 0
    assert WORDS not in (store.parent / "later" / "sft.jsonl").read_text()


def test_the_key_file_of_the_settings_is_the_default(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = store.with_name("elsewhere.key")
    store.with_name("winnow.db.key").rename(elsewhere)
    monkeypatch.setenv("WINNOW_STORE_KEY_FILE", str(elsewhere))
    result = winnow("store", "forget", "anna", "--store", store)
    assert result.exit_code == 0, result.output
    assert "2 answers" in result.output


def test_another_key_forgets_nobody_by_mistake(store: Path) -> None:
    store.with_name("winnow.db.key").write_text("0" * 64)
    refused = winnow("store", "forget", "anna", "--store", store)
    assert refused.exit_code == 1
    assert "3 answers" in winnow("store", "status", "--store", store).output


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "status", "--store", "none.db"),
        ("store", "status"),
        ("store", "forget", "anna", "--store", "none.db"),
        ("store", "export", "--store", "none.db"),
        ("export", "store:none.db"),
        ("export", "store:"),
        ("export", "store:mysql://x"),
        ("export", "somewhere", "--origin", "1"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run([WINNOW, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("winnow: ")
    assert list(tmp_path.iterdir()) == []


def test_the_right_to_read_is_the_owners_alone(store: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in store.parent.glob("winnow.db*")} == {0o600}
