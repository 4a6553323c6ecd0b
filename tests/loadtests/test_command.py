from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.fakes import ScriptedPolicy
from tests.live import ScriptedServer, scripted
from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario_files import names, text
from winnow.loadtests.session import Options, scenario_of
from winnow.loadtests.streams import SafeStream
from winnow.models.errors import CandidateFailed
from winnow.models.tokenizer import Tokenizer
from winnow.server.api.auth import ApiKeys
from winnow.server.cli.main import app
from winnow.server.settings import Settings

KEY = "wk-3f9a5c0d77"
SMALL = ("--requests", "6", "--repeats", "2", "--warm-up", "1", "-k", "2")


@pytest.fixture(scope="module")
def url(tokenizer: Tokenizer) -> Iterator[str]:
    with ScriptedServer.start(scripted(tokenizer)) as server:
        yield f"{server.url}/v1"


def loadtest(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return its exit status, standard output and standard error."""
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["loadtest", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_writes_its_files_and_prints_a_table(url: str, tmp_path: Path) -> None:
    status, out, err = loadtest("chat", "--url", url, "--rate", "50", *SMALL)
    assert status == 0, err
    assert "K = 2 · 50/s" in out
    assert {path.name for path in (tmp_path / "loadtest-chat").iterdir()} == {
        "result.json",
        "requests.jsonl",
        "report.html",
    }
    found = json.loads((tmp_path / "loadtest-chat" / "result.json").read_text())
    (system,) = found["points"][0]["systems"].values()
    assert [repeat["answered"] for repeat in system["repeats"]] == [6, 6]


def test_two_servers_in_turn_as_json(url: str, tmp_path: Path) -> None:
    options = ("--concurrency", "2,3", "--against", url, "--json", *SMALL)
    status, out, err = loadtest("closed", "--url", url, *options)
    assert status == 0, err
    found = json.loads(out)
    assert [point["concurrency"] for point in found["points"]] == [2, 3]
    assert all(point["against"][0]["agreement"] == {"both": 12, "same": 12} for point in found["points"])
    assert not list(tmp_path.iterdir())


def test_a_key_is_sent_but_never_shown(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    with ScriptedServer.start(scripted(tokenizer), ApiKeys.of(Settings(api_keys=(SecretStr(KEY),)))) as server:
        options = ("--url", f"{server.url}/v1", *SMALL, "--rate", "50")
        assert loadtest(*options)[0] == 1
        status, out, err = loadtest(*options, "--api-key-file", "key", "--out", "r")
    assert status == 0, err
    assert KEY not in out + err + "".join(path.read_text() for path in (tmp_path / "r").iterdir())


PROGRAM = "import sys; sys.modules['matplotlib'] = None; from winnow.server.cli.main import main; main()"
COMMAND = [sys.executable, "-c", PROGRAM, "loadtest", "closed"]
"""The command in a process of its own, without the page, which takes longer to draw than the rest."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_keeps_the_measurements(url: str, tmp_path: Path, number: signal.Signals) -> None:
    options = ("--url", url, "--concurrency", "1", "--repeats", "100", "--requests", "50", "--out", "r")
    process = subprocess.Popen(
        [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr
    process.stderr.readline()  # the first repeat has ended
    process.send_signal(number)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "interrupted" in out
    assert json.loads((tmp_path / "r" / "result.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    ("redirection", "status", "words"),
    [
        (">&-", 0, "result.json"),
        (">/dev/full", 1, "standard output cannot be written: No space left on device; the result is in r"),
        ("2>&- >&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("| true; exit ${PIPESTATUS[0]}", 0, "result.json"),
    ],
)
def test_a_result_is_written_wherever_the_output_goes(
    url: str, tmp_path: Path, redirection: str, status: int, words: str
) -> None:
    command = shlex.join([*COMMAND, "--url", url, "--concurrency", "2", *SMALL, "--out", "r"])
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        ["bash", "-c", f"{command} {redirection}"], capture_output=True, text=True, cwd=tmp_path, env=environment,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert json.loads((tmp_path / "r" / "result.json").read_text())["interrupted"] is False


def test_json_that_cannot_be_printed_goes_into_the_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SafeStream, "write", lambda stream, _: setattr(stream, "error", OSError(28, "full")))
    status, _, _ = loadtest("closed", "--url", url, "--concurrency", "2", "--json", *SMALL)
    assert status == 1
    assert json.loads((tmp_path / "loadtest-closed" / "result.json").read_text())["points"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_request(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    policy = ScriptedPolicy(answers=lambda _: pytest.fail("a request was sent"))
    with ScriptedServer.start(scripted(tokenizer, policy)) as server:
        for folder in ("file", "file/below", "/proc/none"):
            status, out, err = loadtest("chat", "--url", f"{server.url}/v1", "--out", folder)
            assert (status, out) == (1, "")
            assert f"{folder} cannot be written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_that_measures_nothing_leaves_no_folder(tmp_path: Path) -> None:
    assert loadtest("chat", "--url", "http://127.0.0.1:9/v1", "--out", "new/deep")[0] == 1
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_the_wait_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        process = subprocess.Popen(
            [*COMMAND, "--url", url, "--out", "r"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=tmp_path,
        )  # fmt: skip
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "winnow: interrupted before anything was measured\n")
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_lost_ends_the_run_and_keeps_the_measurements(tokenizer: Tokenizer, tmp_path: Path) -> None:
    asked = itertools.count()

    def answers(_: int) -> tuple[int, ...]:
        if next(asked) > 10:
            raise CandidateFailed("gone")
        return (1,)

    with ScriptedServer.start(scripted(tokenizer, ScriptedPolicy(answers=answers))) as server:
        options = ("--concurrency", "1,2", "-k", "1", "--requests", "10", "--repeats", "1", "--warm-up", "1")
        status, out, err = loadtest("closed", "--url", f"{server.url}/v1", "--out", "r", *options)
    assert status == 1
    assert "failed every request of the warm-up" in err
    assert "interrupted" in out
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    assert found["interrupted"]
    assert [point["concurrency"] for point in found["points"]] == [1]


def test_too_few_open_files_are_not_blamed_on_the_server(url: str, tmp_path: Path) -> None:
    options = ("--url", url, "--concurrency", "60", "--requests", "120", "--repeats", "1", "--warm-up", "1", "-k", "1")
    command = f"ulimit -n 48 && {shlex.join([*COMMAND, *options, '--out', 'r'])}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "r" / "requests.jsonl").read_text().splitlines()
    errors = {json.loads(line)["error"] for line in lines}
    assert any("limit of open files" in (error or "") for error in errors), errors
    assert not any("no server answers" in (error or "") for error in errors), errors


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["chaat"], 2, "there is no scenario"),
        (["chat", "--rate", "fast"], 2, "--rate"),
        (["chat", "--url", "http://127.0.0.1:9"], 2, "/v1"),
        (["chat", "--url", "http://127.0.0.1:9/v1"], 1, "no server answers"),
        (["chat", "--api-key-file", "absent"], 2, "absent"),
    ],
)
def test_an_error_is_one_line(arguments: list[str], status: int, words: str) -> None:
    found, out, err = loadtest(*arguments)
    assert (found, out) == (status, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_the_help_teaches_and_needs_only_core_dependencies() -> None:
    code = (
        "import sys\n"
        "names = ('matplotlib', 'jinja2', 'torch', 'vllm', 'fastapi', 'transformers', 'numpy')\n"
        "for name in names: sys.modules[name] = None\n"
        "from winnow.server.cli.main import main\n"
        "main()"
    )
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    command = [sys.executable, "-c", code, "loadtest", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    for words in ("--against", "--concurrency", "--slo-ms", "Exit status: 0", "winnow loadtest k-sweep -k 1,16"):
        assert words in shown


def test_scenarios_are_listed_and_shown() -> None:
    listed = loadtest("--list")[1]
    assert all(name in listed for name in names())
    assert loadtest("--show", "chat") == (0, text("chat"), "")
    assert loadtest("--show", "chaat")[0] == 2


def test_without_matplotlib_everything_but_the_page_is_written(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = ("winnow.loadtests.report", "winnow.models.reporting", "matplotlib")
    for name in [name for name in sys.modules if name.startswith(drawing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = loadtest("--url", url, "--rate", "50", *SMALL, "--out", "r")
    assert status == 0, err
    assert "matplotlib is not installed; pip install 'winnow-llm[loadtest]'" in err
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"result.json", "requests.jsonl"}


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"scenario": "chat", "rate": (1.0, 2.0), "candidates": 3}, ["K = 3 · 1/s", "K = 3 · 2/s"]),
        ({"scenario": "closed", "rate": 2.0}, ["K = 8 · 2/s"]),
        ({"scenario": "chat", "concurrency": (1, 2)}, ["K = 8 · 1 client", "K = 8 · 2 clients"]),
        ({"scenario": "chat", "changes": {"seconds": 3.0}}, ["K = 8 · 2/s"]),
    ],
)
def test_options_change_the_scenario(options: dict[str, Any], labels: list[str]) -> None:
    assert [point.label for point in scenario_of(Options(url="", **options)).points] == labels


def test_options_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(ScenarioError, match="either arrivals"):
        scenario_of(Options("chat", "", rate=1.0, concurrency=2))
    with pytest.raises(ScenarioError, match="candidates"):
        scenario_of(Options("chat", "", candidates=0))
