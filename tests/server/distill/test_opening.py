"""The beginning of a run: what is refused before an engine starts, in one line, and leaves no folder behind."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tests.live import ScriptedServer, scripted
from winnow.models.chat_templates import TEMPLATES
from winnow.models.errors import CheckpointError, EngineDead, RunError, WinnowError
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill import command, manifest
from winnow.server.distill.command import distill
from winnow.server.distill.export import ALL_FORMATS
from winnow.server.distill.layouts import FIRST_TURN
from winnow.server.distill.opening import Input
from winnow.server.distill.options import RunOptions
from winnow.server.distill.outcome import INCOMPLETE
from winnow.server.distill.plans import Choices
from winnow.server.settings import Settings

CHOICES = Choices(2, (1.0,), False, 1.0, 8, "llama2", 0)
GOOD = '{"prompt": "Hello"}\n'


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restores the handlers that `distill` replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def no_engines(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """No engine starts; the list holds the attempts."""
    attempts: list[Settings] = []

    @contextlib.contextmanager
    def refuse(settings: Settings) -> Iterator[None]:
        attempts.append(settings)
        raise CheckpointError("the policy does not load")
        yield

    monkeypatch.setattr(command, "started", refuse)
    return attempts


def options(prompts: object, out: Path, **changes: Any) -> RunOptions:
    return RunOptions(str(prompts), out, CHOICES, **changes)


def opened(path: Path) -> Input:
    return Input.opened(options(path, path.parent / "out"), TEMPLATES["llama2"])


UNREADABLE = {
    "rows.json": (json.dumps([{"q": "a", "a": "b"}] * 300, indent=1), r"first 100 rows.*as json.*keys are: q, a"),
    "wrapped.json": ('{"data": [{"prompt": "a"}]}', "write that list alone"),
    "text.jsonl": ("What?\nWhy?\n", r"first 2 rows.*not JSON.*--input-format"),
    "table.csv": ("question,answer\na,b\n", "no column prompt .* has: question, answer"),
    "cut.json": ('[{"prompt": "a"},\n{"prompt"', "not a whole array: element 2, at line 2"),
    "empty.jsonl": ("", "holds no prompts"),
    "blank.json": ("\n\n", "holds no prompts"),
    "replies.jsonl": ('{"text": "a", "role": "assistant", "parent_id": "m"}\n', "holds no prompts"),
    "prompts.txt": ("What?\n", "--input-format"),
    "both.jsonl": ('{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}\n', "prompt and messages"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_input_is_refused_before_anything_is_made(
    name: str, no_engines: list[Settings], tmp_path: Path
) -> None:
    """5,637 lines of a pretty-printed array were 5,637 errors once, after 46 seconds of starting engines."""
    content, said = UNREADABLE[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=said) as refused:
        distill(options(tmp_path / name, tmp_path / "runs" / "out"), Settings())
    assert len(str(refused.value).splitlines()) == 1
    assert str(tmp_path) not in str(refused.value)
    assert not no_engines
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": "nowhere.jsonl"}, "does not exist"),
        ({"recipe": Path("none.toml")}, "recipe none.toml cannot be read"),
        ({"server": "http://127.0.0.1:9/v1"}, "no Winnow answers"),
        ({"server": "nonsense"}, "--server"),
        ({"server": "http://127.0.0.1:9/v1", "formats": ("token-ids",)}, "winnow export RUN --tokenizer"),
        ({}, "the policy does not load"),
    ],
)
@pytest.mark.parametrize("is_piped", [True, False])
def test_a_refused_run_leaves_no_folder(
    changes: dict[str, Any], said: str, is_piped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason: also one that an engine or a server gives, as long as no prompt has been answered."""
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    values = {"prompts": "-" if is_piped else str(tmp_path / "prompts.jsonl"), **changes}
    with pytest.raises(WinnowError, match=said):
        distill(RunOptions(out=tmp_path / "runs" / "out", choices=CHOICES, **values), Settings())
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_an_engine_that_dies_before_its_first_answer_leaves_no_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's copy of it is made once the engines have answered, and goes with the rest; a folder of others stays."""

    @contextlib.asynccontextmanager
    async def dead() -> AsyncIterator[None]:
        assert (out / "tokenizer" / "tokenizer.json").exists()
        raise EngineDead("gone")
        yield

    calls = dict.fromkeys(("warm_up", "watch", "leave_loop"), AsyncMock())
    engines = SimpleNamespace(settings=Settings(), **calls)
    engines.lifecycle = SimpleNamespace(guard=dead)
    monkeypatch.setattr(command, "started", lambda _: contextlib.nullcontext(engines))
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    for before in ([], ["tokenizer"]):
        out = tmp_path / f"out{len(before)}"
        if before:
            (out / "tokenizer").mkdir(parents=True)
        with pytest.raises(EngineDead):
            distill(options(tmp_path / "prompts.jsonl", out), Settings())
        assert out.exists() == bool(before)
        assert not before or [path.name for path in out.iterdir()] == before


def test_a_k_above_the_servers_limit_leaves_no_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Only the server knows its limit, so that it is asked; a bad row before the first answer changes nothing."""
    (tmp_path / "prompts.jsonl").write_text("not JSON\n" + GOOD)
    with ScriptedServer.start(scripted(tokenizer, max_candidates=16)) as server:
        values = {"server": f"{server.url}/v1", "choices": Choices(17, (1.0,), False, 1.0, 8, "llama2", 0)}
        with pytest.raises(RunError, match="17 candidates requested; the limit here is 16"):
            distill(replace(options(tmp_path / "prompts.jsonl", tmp_path / "out"), **values), Settings())
        assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]
        run = replace(options(tmp_path / "prompts.jsonl", tmp_path / "out"), server=f"{server.url}/v1")
        assert distill(run, Settings()) == INCOMPLETE
    assert (tmp_path / "out" / "journal.jsonl").exists()


@pytest.mark.parametrize(("own", "followed"), [(None, "safe_first"), ("llama2", "llama2")])
def test_a_run_on_a_server_follows_its_combiner_unless_the_settings_name_one(
    tokenizer: Tokenizer, tmp_path: Path, own: str | None, followed: str
) -> None:
    """A server with reward models that are not calibrated combines safe_first; the run once said llama2 to it."""
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    with ScriptedServer.start(scripted(tokenizer, combiner="safe_first")) as server:
        run = replace(options(tmp_path / "prompts.jsonl", tmp_path / "out"), server=f"{server.url}/v1", formats=())
        assert distill(run, Settings(combiner=own)) == 0  # type: ignore[arg-type]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]["combiner"] == followed


def test_a_pretty_array_and_its_lines_give_the_same_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {place}?", "input": "", "output": "x"} for place in range(7)]
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with ScriptedServer.start(scripted(tokenizer)) as server:
        exports = []
        for name in ("p.json", "p.jsonl", "p.json"):  # the last one only exports again
            run = replace(options(tmp_path / name, tmp_path / f"out-{name}"), server=f"{server.url}/v1")
            assert distill(run, Settings()) == 0
            exports.append((tmp_path / f"out-{name}" / "export" / "sft.jsonl").read_bytes())
    assert exports[0] == exports[1] == exports[2]
    assert len(exports[0].splitlines()) == 7


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError):
        distill(options(tmp_path / "prompts.jsonl", out), Settings())
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_another_runs_folder_gets_no_copy_of_standard_input(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy stayed in a folder that the run was refused, and was compared with the next standard input."""
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    out = tmp_path / "out"
    with ScriptedServer.start(scripted(tokenizer)) as server:
        run = replace(options(tmp_path / "prompts.jsonl", out), server=f"{server.url}/v1")
        assert distill(run, Settings()) == 0
        before = sorted(path.name for path in out.iterdir())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "Another"}')))
        with pytest.raises(RunError, match="another run"):
            distill(replace(run, prompts="-"), Settings())
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("parent", ["new", "old"])
def test_a_folder_that_cannot_be_made_leaves_no_parents(parent: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    (tmp_path / "old").mkdir()
    with pytest.raises(RunError, match="cannot be made"):
        distill(options(tmp_path / "prompts.jsonl", tmp_path / parent / ("x" * 300)), Settings())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old", "prompts.jsonl"]


def test_a_mixture_goes_on(no_engines: list[Settings], tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("not JSON\n" * 99 + GOOD + "not JSON\n")
    given = opened(path)
    assert (list(given.tasks), len(given.problems), given.total) == ([100], 100, 101)
    with pytest.raises(CheckpointError):
        distill(options(path, tmp_path / "out"), Settings())
    assert len(no_engines) == 1


def test_no_engine_starts_for_rows_that_are_all_at_fault(no_engines: list[Settings], tmp_path: Path) -> None:
    """Their layout is known, so that the run is not refused: each of them is told what to change."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": ""}\n{"messages": []}\n')
    assert distill(options(path, tmp_path / "out", formats=()), Settings()) == INCOMPLETE
    assert not no_engines
    codes = [json.loads(line)["error"]["code"] for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert codes == ["empty_prompt", "invalid_messages"]


@pytest.mark.parametrize(("name", "content"), [("none.json", "[]\n"), ("none.csv", "prompt,id\n")])
def test_an_empty_data_set_is_an_empty_run(name: str, content: str, no_engines: list[Settings], tmp_path: Path) -> None:
    """Unlike a file without content, which is refused: a list of no rows was written on purpose."""
    (tmp_path / name).write_text(content)
    assert distill(options(tmp_path / name, tmp_path / "out", formats=ALL_FORMATS), Settings()) == 0
    for kind in ("sft", "token_ids"):
        assert (tmp_path / "out" / "export" / f"{kind}.jsonl").read_bytes() == b""
    assert not no_engines


def test_what_rows_lose_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text('{"turns": ["a", "b"]}\n' * 3)
    with caplog.at_level(logging.INFO):
        given = opened(path)
    assert given.total == 3
    assert [record.getMessage() for record in caplog.records] == [f"note: {FIRST_TURN}"]


def test_the_format_is_part_of_a_runs_identity(tmp_path: Path) -> None:
    """The same bytes are other prompts in another format."""
    path = tmp_path / "prompts.txt"
    path.write_text('{"prompt": ""}\n')
    out = tmp_path / "out"
    distill(options(path, out, input_format="jsonl", formats=()), Settings())
    assert manifest.load(out)["input"]["format"] == "jsonl"
    with pytest.raises(RunError, match=r'input\.format: began with "jsonl", now "text"'):
        distill(options(path, out, input_format="text", formats=()), Settings())
    assert (out / manifest.NAME).exists()


@pytest.mark.parametrize("rule", [{"tags": "neutralise"}, {"merge_turns": True}, {"empty_last": False}])
def test_the_rules_for_dialogs_and_answers_are_part_of_it_too(rule: dict[str, Any], tmp_path: Path) -> None:
    """With another rule the same rows are other prompts, or have other winners."""
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": ""}\n')
    distill(options(path, tmp_path / "out", formats=()), Settings())
    with pytest.raises(RunError, match=f"settings.{next(iter(rule))}: began with"):
        distill(options(path, tmp_path / "out", formats=()), Settings(**rule))
