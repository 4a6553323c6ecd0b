"""`winnow distill` as a process: interrupted, resumed, refused. All but one test use the engines of a server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.live import WINNOW, LiveServer, blaming_memory, wait_until
from winnow.models import demo
from winnow.models.demo.world import held_out_prompts

pytestmark = pytest.mark.engine
EXPORTS = ("sft.jsonl", "preferences.jsonl", "candidates.parquet", "README.md")


def write_prompts(path: Path, count: int, bad: bool = False) -> Path:
    rows = [
        {"id": f"q{index}", "messages": [{"role": m.role, "content": m.content} for m in prompt.messages]}
        for index, prompt in enumerate(held_out_prompts(count, 3))
    ]
    rows[1] = {**rows[0], "id": "twin"}
    lines = [json.dumps(row) for row in rows]
    if bad:
        lines.insert(2, "not json")
    path.write_text("\n".join(lines) + "\n")
    return path


def command(prompts: Path, out: Path, server: LiveServer, *more: str) -> list[str]:
    return [WINNOW, "distill", str(prompts), "--out", str(out), "-k", "4", "--server", f"{server.url}/v1", *more]


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    line = command(*arguments)
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **options)


def exported(out: Path) -> dict[str, bytes]:
    return {name: (out / "export" / name).read_bytes() for name in EXPORTS}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("input") / "prompts.jsonl", 40)


@pytest.fixture(scope="module")
def whole(prompts: Path, server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    done = run(prompts, out, server)
    assert done.returncode == 0, done.stderr
    return out


def entries(out: Path) -> int:
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    ending: signal.Signals, prompts: Path, whole: Path, server: LiveServer, tmp_path: Path
) -> None:
    rng = random.Random(ending)
    for _ in range(2 if ending is signal.SIGKILL else 1):
        goal = entries(tmp_path) + rng.randrange(1, 12)
        process = subprocess.Popen(
            command(prompts, tmp_path, server, "--in-flight", "3"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert wait_until(lambda goal=goal: entries(tmp_path) >= goal, 60)
        process.send_signal(ending)
        _, said = process.communicate(timeout=30)
        assert "Traceback" not in said
        assert process.returncode in (-ending, 128 + ending, 0)
    done = run(prompts, tmp_path, server)
    assert done.returncode == 0, done.stderr
    assert exported(tmp_path) == exported(whole)


WAVES = {
    "adaptive": ["-k", "12", "--adaptive", "reward=0.9,start=2,step=3"],
    "budget": ["-k", "12", "--budget", "200,start=2,step=3"],
}


@pytest.mark.parametrize("kind", WAVES)
def test_a_killed_run_in_waves_resumes_to_the_same_bytes(
    kind: str, prompts: Path, server: LiveServer, tmp_path: Path
) -> None:
    """Killed at random moments, within the first waves and within a round; the budget is met exactly all the same."""
    more, rng = WAVES[kind], random.Random(kind)
    undisturbed = run(prompts, tmp_path / "whole", server, *more)
    assert undisturbed.returncode == 0, undisturbed.stderr
    last = entries(tmp_path / "whole")
    for _ in range(4):
        goal = entries(tmp_path / "parts") + rng.randrange(1, last // 4)
        process = subprocess.Popen(
            command(prompts, tmp_path / "parts", server, "--in-flight", "4", *more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert wait_until(lambda goal=goal: entries(tmp_path / "parts") >= goal, 60)
        process.kill()
        process.wait()
    done = run(prompts, tmp_path / "parts", server, *more)
    assert done.returncode == 0, done.stderr
    assert exported(tmp_path / "parts") == exported(tmp_path / "whole")
    rows = pyarrow.parquet.read_table(tmp_path / "parts" / "export" / "candidates.parquet").to_pylist()
    sizes = {row["line"]: row["candidates"] for row in rows}
    assert len(sizes) == 40
    assert set(sizes.values()) <= {2, 5, 8, 11, 12} or kind == "budget"
    assert len(set(sizes.values())) > 1
    if kind == "budget":
        assert sum(sizes.values()) == len(rows) == 200
    before = (tmp_path / "parts" / "journal.jsonl").read_bytes()
    assert run(prompts, tmp_path / "parts", server, *more).returncode == 0
    assert (tmp_path / "parts" / "journal.jsonl").read_bytes() == before
    refused = run(prompts, tmp_path / "parts", server, *more[:-1], more[-1].replace("start=2", "start=1"))
    assert refused.returncode == 1
    assert f"settings.{kind}.start: began with 2, now 1" in refused.stderr


def test_a_finished_run_is_not_repeated(prompts: Path, whole: Path, server: LiveServer) -> None:
    before = (whole / "journal.jsonl").read_bytes()
    files = exported(whole)
    done = run(prompts, whole, server, "--json")
    assert done.returncode == 0
    (last,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert last == {
        "event": "done",
        "errors": 0,
        "files": {"sft.jsonl": 40, "preferences.jsonl": last["files"]["preferences.jsonl"], "candidates.parquet": 160},
    }
    assert (whole / "journal.jsonl").read_bytes() == before
    assert exported(whole) == files


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "5"], "settings.seed: began with 0, now 5"),
        (["-k", "5"], "settings.candidates: began with 4, now 5"),
        (["--ghost-attention"], "recipe.ghost_attention: began with false, now true"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    more: list[str], said: str, prompts: Path, whole: Path, server: LiveServer
) -> None:
    done = run(prompts, whole, server, *more)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_resuming_with_another_input_is_refused(prompts: Path, whole: Path, server: LiveServer, tmp_path: Path) -> None:
    other = tmp_path / prompts.name
    other.write_text(prompts.read_text() + '{"prompt": "One more?"}\n')
    done = run(other, whole, server)
    assert done.returncode == 1
    assert "input.sha256: began with" in done.stderr
    assert "input.bytes: began with" in done.stderr


def test_bad_lines_are_reported_and_the_others_answered(server: LiveServer, tmp_path: Path) -> None:
    done = run(write_prompts(tmp_path / "p.jsonl", 4, bad=True), tmp_path / "out", server)
    assert done.returncode == 3
    (problem,) = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert (problem["line"], problem["error"]["code"]) == (3, "invalid_json")
    rows = [json.loads(line) for line in (tmp_path / "out" / "export" / "sft.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 4, 5]
    assert rows[0]["messages"][:-1] == rows[1]["messages"][:-1]


def test_standard_input_and_progress_for_machines(server: LiveServer, tmp_path: Path) -> None:
    text = '{"prompt": "What is the capital of France?"}\n'
    done = run("-", tmp_path, server, "--json", input=text)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in events} == {"progress", "done"}
    assert events[-2]["done"] == 1
    assert run("-", tmp_path, server, input=text).returncode == 0
    refused = run("-", tmp_path, server, input=text + text)
    assert refused.returncode == 1
    assert "not what this run began with" in refused.stderr


def test_an_empty_data_set_is_an_empty_run_and_an_empty_file_is_none(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    done = run(tmp_path / "none.json", tmp_path / "out", server)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "export" / "sft.jsonl").read_bytes() == b""
    (tmp_path / "empty.jsonl").touch()
    refused = run(tmp_path / "empty.jsonl", tmp_path / "other", server)
    assert refused.returncode == 1
    assert "holds no prompts" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_the_former_name_of_the_option_works_beside_its_name(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "What is the capital of France?"}')
    done = run(tmp_path / "p.jsonl", tmp_path / "out", server, "--export", "sft", "--format", "preferences,candidates")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out" / "export").iterdir()}
    assert names >= {"sft.jsonl", "preferences.jsonl", "candidates.parquet"}
    for option in ("--format", "--export"):
        again = subprocess.run(
            [WINNOW, "export", str(tmp_path / "out"), option, "openai-batch", option, "sft"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert [line.split("/")[-1] for line in again.stdout.splitlines()] == ["sft.jsonl", "openai_batch.jsonl"]


def test_a_refusal_is_one_line(prompts: Path, server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text('{"format": 1, "winnow": "0.1.0"}')
    for arguments, said in (
        ((prompts, prompts.parent, server), "lies in the output folder"),
        ((tmp_path / "nowhere.jsonl", tmp_path / "out", server), "does not exist"),
        ((prompts, tmp_path / "file", server), "cannot be made"),
        ((prompts, tmp_path / "old", server), "was written by Winnow 0.1.0 in journal format 1"),
        ((prompts, tmp_path / "out", server, "--ghost-attention", "--recipe", "none.toml"), "cannot be read"),
        ((prompts, tmp_path / "out", server, "--recipe", "none.toml"), "has no effect"),
        ((prompts, tmp_path / "out", server, "--temperature", "hot"), "--temperature: numbers"),
        ((prompts, tmp_path / "out", server, "--format", "xml"), "unknown format 'xml'"),
        ((prompts, tmp_path / "out", server, "--budget", "159"), "first wave of 40 prompts takes 160"),
        ((prompts, tmp_path / "out", server, "--budget", "161"), "take at most 160 candidates"),
        ((prompts, tmp_path / "out", server, "--budget", "many"), "--budget is a number of candidates"),
        ((prompts, tmp_path / "out", server, "--adaptive", "reward=2"), "--adaptive: "),
        ((prompts, tmp_path / "out", server, "--adaptive", "gain=0.01"), "the server has no table of expected gains"),
        ((prompts, tmp_path / "out", server, "--budget", "160", "--adaptive", "reward=0.9"), "exclude each other"),
        ((prompts, tmp_path / "out", server, "--budget", "160", "--retry-failed"), "leave out --retry-failed"),
        ((prompts, tmp_path / "out", server, "--server", "http://127.0.0.1:9/v1"), "no Winnow answers"),
    ):
        done = run(*arguments)
        assert done.returncode == 1, arguments
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_full_disk_stops_the_run_and_it_resumes_once_there_is_space(
    prompts: Path, whole: Path, server: LiveServer, tmp_path: Path
) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = run(prompts, tmp_path, server, preexec_fn=small)
    assert done.returncode == 1
    assert "the journal cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < os.path.getsize(tmp_path / "journal.jsonl") <= 20_000
    assert not (tmp_path / "export").exists()
    assert run(prompts, tmp_path, server).returncode == 0
    assert exported(tmp_path) == exported(whole)


def test_two_runs_do_not_write_to_one_folder(prompts: Path, server: LiveServer, tmp_path: Path) -> None:
    first = subprocess.Popen(command(prompts, tmp_path, server), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: entries(tmp_path) > 0, 60)
        first.send_signal(signal.SIGSTOP)
        second = run(prompts, tmp_path, server)
        assert second.returncode == 1
        assert "another process is writing" in second.stderr
    finally:
        first.kill()
        first.wait()
    assert run(prompts, tmp_path, server).returncode == 0


def session_of(leader: int) -> list[int]:
    """Return the process ids in the session that `leader` began, itself and zombies excluded."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return [pid for pid in found if pid != leader]


def test_engines_of_its_own_give_the_same_answers_after_a_kill(prompts: Path, whole: Path, tmp_path: Path) -> None:
    """The same seeds on the same models give the answers that a server gave, and no engine process is left behind."""
    out, log = tmp_path / "out", tmp_path / "log"
    distill = [WINNOW, "distill", str(prompts), "--out", str(out), "-k", "4"]

    def start(*more: str) -> subprocess.Popen[bytes]:
        with log.open("w") as file:
            return subprocess.Popen([*distill, *more], stdout=file, stderr=file, start_new_session=True)

    killed = start("--in-flight", "2")
    try:
        with blaming_memory():
            assert wait_until(lambda: entries(out) > 3 or killed.poll() is not None, 180)
            assert killed.poll() is None, log.read_text()
        assert len(session_of(killed.pid)) >= 3
    finally:
        killed.kill()
        killed.wait()
    assert wait_until(lambda: not session_of(killed.pid), 30)
    assert entries(out) < 40
    resumed = start()
    try:
        with blaming_memory():
            assert resumed.wait(180) == 0, log.read_text()
    finally:
        resumed.kill()
    assert "Traceback" not in log.read_text()
    assert wait_until(lambda: not session_of(resumed.pid), 30)

    def answers(out: Path) -> list[object]:
        rows = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
        return sorted(
            [row["line"], *(row["selection"][key] for key in ("ranking", "messages")), texts(row["selection"])]
            for row in rows
        )

    def texts(selection: dict[str, list[dict[str, object]]]) -> list[object]:
        return [item["text"] for item in selection["scored"]]

    assert answers(out) == answers(whole)
    models = json.loads((out / "manifest.json").read_text())["models"]
    assert all(len(model["sha256"]) == 64 for model in models.values())
    assert str(tmp_path.parent) not in (out / "manifest.json").read_text()
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == (
        demo.weights("policy") / "tokenizer.json"
    ).read_bytes()
    assert "as compared for this export" in (out / "export" / "README.md").read_text()
