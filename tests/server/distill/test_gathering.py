"""Shards and their gathering, on scripted engines: the same files as one run's, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import ScriptedPolicy, candidate
from tests.live import scripted
from winnow.models.errors import RunError
from winnow.models.sampling import Sampling
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Candidate, Prompt
from winnow.server.distill import command, shards
from winnow.server.distill.backends.in_process import InProcess
from winnow.server.distill.budget import Budget
from winnow.server.distill.export import ALL_FORMATS
from winnow.server.distill.gathering import gather
from winnow.server.distill.options import RunOptions
from winnow.server.distill.plans import Choices
from winnow.server.distill.report import ReportOptions, report
from winnow.server.distill.shards import Shard
from winnow.server.pipeline.waves import Waves
from winnow.server.service import Service
from winnow.server.settings import Settings

ROWS = 23
DAY = 1_760_000_000.0
"""A moment at which runs are said to have ended: gains.json has the day."""
Run = Callable[..., Path]


class SeededPolicy(ScriptedPolicy):
    """Answers differ by prompt, seed and index, by nothing else, and are finished in any order."""

    async def sample(self, prompt: Prompt, sampling: Sampling, index: int, handle: object = None) -> Candidate:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        return candidate(index, (sum(prompt.token_ids) % 97, (sampling.seed or 0) % 89, index))


@pytest.fixture(autouse=True)
def engines(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run on scripted engines, and leave the signals as they were."""

    @contextlib.contextmanager
    def started(settings: Settings) -> Iterator[Service]:
        yield scripted(tokenizer, SeededPolicy(), load_format="dummy")  # whose sanity is not checked

    monkeypatch.setattr(command, "started", started)
    monkeypatch.setattr(command, "InProcess", partial(InProcess, batch_seconds=0.001))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Rows with one that is bad, one that is blank, one whose id is not its own, and one with waves of its own."""
    rows = [{"id": f"q{place}", "prompt": f"What is {place % 7} and {place}?"} for place in range(ROWS)]
    rows[9]["id"] = "q2"
    lines = [json.dumps(row) for row in rows]
    lines[4], lines[11] = "not json", ""
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def run(prompts: Path, tmp_path: Path) -> Run:
    """Run some of the rows, a `shard` as in 2/3 or all, into the folder `name`."""

    def distill(name: str, shard: str | None = None, waves: Waves | None = None, seed: int = 5, **more: object) -> Path:
        choices = Choices(6, (1.0,) if waves else (0.7, 1.1), False, 1.0, 64, "llama2", seed, waves=waves)
        values = {"formats": (), "shard": Shard.parsed(shard) if shard else None, **more}
        options = RunOptions(str(prompts), tmp_path / name, choices, **values)  # type: ignore[arg-type]
        assert command.distill(options, Settings()) == (0 if shard else 3)  # a scheduler would fail a shard for 3
        return tmp_path / name

    return distill


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but its journal and its lock, by name."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("journal.jsonl", "lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def entries(folder: Path) -> list[dict[str, object]]:
    """The journal without times, in the order of the input."""
    found = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for entry in found:
        entry.get("selection", {}).pop("timings", None)
    return sorted(found, key=lambda entry: entry["line"])


def dated(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder / "journal.jsonl", (DAY, DAY))


@pytest.mark.parametrize(("of", "waves"), [(1, None), (3, None), (3, Waves(2, 2, reward=0.7))])
def test_gathered_shards_are_one_run(of: int, waves: Waves | None, run: Run, tmp_path: Path) -> None:
    whole = run("whole", waves=waves)
    parts = [run(f"{index}", f"{index}/{of}", waves) for index in random.sample(range(1, of + 1), of)]
    dated(whole, *parts)
    assert gather(parts, tmp_path / "one", ALL_FORMATS, as_json=False) == 3
    run("whole", waves=waves, formats=ALL_FORMATS)  # samples nothing, and exports
    for folder in (whole, tmp_path / "one"):
        report(folder, None, ReportOptions())
    assert entries(tmp_path / "one") == entries(whole)
    lines = [json.loads(line)["line"] for line in (tmp_path / "one" / "journal.jsonl").read_text().splitlines()]
    assert lines == sorted(lines)
    assert files(tmp_path / "one") == files(whole)
    assert {"manifest.json", "errors.jsonl", "gains.json", "export/candidates.parquet", "report/index.html"} < set(
        files(whole)
    )


def test_there_may_be_more_shards_than_rows(prompts: Path, run: Run, tmp_path: Path) -> None:
    prompts.write_text('{"prompt": "One?"}\n\n{"prompt": "Three?"}\n')
    parts = [run(str(index), f"{index}/4") for index in range(1, 5)]
    assert [len(entries(part)) for part in parts] == [1, 0, 1, 0]
    assert gather(parts, tmp_path / "one", ("sft",), as_json=False) == 0
    assert (tmp_path / "one" / "export" / "sft.jsonl").read_text().count("\n") == 2


def test_a_gathered_run_goes_on_as_the_whole_one_would(run: Run, tmp_path: Path) -> None:
    gather([run("1", "1/2"), run("2", "2/2")], tmp_path / "one", (), as_json=False)
    before = (tmp_path / "one" / "journal.jsonl").read_bytes()
    run("one")  # the manifest is the whole run's
    assert (tmp_path / "one" / "journal.jsonl").read_bytes() == before
    assert gather([tmp_path / "2", tmp_path / "1"], tmp_path / "one", ("sft",), as_json=True) == 3
    assert (tmp_path / "one" / "export" / "sft.jsonl").exists()


def test_a_killed_shard_goes_on_with_its_own_rows(run: Run, tmp_path: Path) -> None:
    whole, part = run("whole", "2/3"), run("2", "2/3")
    journal = part / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    (part / shards.FINISHED).unlink()
    with pytest.raises(RunError, match=r"(?s)1 of 3 shards are not finished.*--array=2\).*has not ended \(3 rows"):
        gather([run("1", "1/3"), part, run("3", "3/3")], tmp_path / "one", (), as_json=False)
    assert not (tmp_path / "one").exists()
    run("2", "2/3")
    assert entries(part) == entries(whole)
    assert {entry["line"] for entry in entries(part)} == {line for line in range(1, ROWS + 1) if line % 3 == 2} - {12}


def test_a_damaged_journal_is_found(run: Run, tmp_path: Path) -> None:
    parts = [run(str(index), f"{index}/2") for index in (1, 2)]
    journal = parts[1] / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'{"line":2,', b'{"lime":2,'))
    with pytest.raises(RunError, match=r"shard 2/2, has 9 of its 10 rows; its journal is damaged"):
        gather(parts, tmp_path / "one", (), as_json=False)
    run("2", "2/2")
    assert gather(parts, tmp_path / "one", (), as_json=False) == 3


def test_shards_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    """Missing, twice, of other sizes, of another seed, and folders that are no shards."""
    first, second, third = (run(str(index), f"{index}/3") for index in (1, 2, 3))
    refusals = [
        ([first], r"2 of 3 shards are missing: 2,3; .*--array=2,3"),
        ([first, second, third, second], r"are both shard 2/3; name one of them"),
        ([first, second, run("twin", "2/3"), third], r"are both shard 2/3"),
        ([first, second, run("other", "3/4")], r"(?s)of different runs:\s+shards: 3 and 4"),
        ([first, second, run("seed", "3/3", seed=6)], r"(?s)of different runs:\s+settings.seed: 5 and 6"),
        ([first, second, run("whole")], r"whole is no shard but a whole run"),
        ([first, second, tmp_path / "nothing"], r"nothing holds no run"),
    ]
    for folders, message in refusals:
        with pytest.raises(RunError, match=message):
            gather(folders, tmp_path / "one", (), as_json=False)
        assert not (tmp_path / "one").exists()


def test_another_folder_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    parts = [run(str(index), f"{index}/2") for index in (1, 2)]
    other = run("other", seed=6)
    before = files(other), (other / "journal.jsonl").read_bytes()
    with pytest.raises(RunError, match="holds another run"):
        gather(parts, other, (), as_json=False)
    with pytest.raises(RunError, match="is a shard; choose another --out"):
        gather(parts, parts[0], (), as_json=False)
    assert (files(other), (other / "journal.jsonl").read_bytes()) == before
    same = run("whole")  # one run's journal is in the order in which rows were finished, with its own times
    with pytest.raises(RunError, match="has other answers than these shards"):
        gather(parts, same, (), as_json=False)


def test_a_row_of_another_shard_is_refused(run: Run, tmp_path: Path) -> None:
    parts = [run(str(index), f"{index}/2") for index in (1, 2)]
    lines = [(part / "journal.jsonl").read_bytes().splitlines(keepends=True) for part in parts]
    (parts[1] / "journal.jsonl").write_bytes(b"".join([*lines[1][:-1], lines[0][0]]))
    with pytest.raises(RunError, match="has an entry of row"):
        gather(parts, tmp_path / "one", (), as_json=False)


def test_a_tokenizer_that_was_changed_is_found(run: Run, tmp_path: Path) -> None:
    parts = [run(str(index), f"{index}/2") for index in (1, 2)]
    (parts[1] / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(RunError, match="though both belong to one run"):
        gather(parts, tmp_path / "one", (), as_json=False)
    shutil.rmtree(parts[1] / "tokenizer")
    gather(parts, tmp_path / "one", (), as_json=False)


def test_a_shard_is_not_another(run: Run) -> None:
    run("1", "1/2")
    with pytest.raises(RunError, match=r"shard.index: began with 1, now 2"):
        run("1", "2/2")
    with pytest.raises(RunError, match=r"shard: began with"):
        run("1")


def test_a_budget_is_for_a_whole_run(prompts: Path, tmp_path: Path) -> None:
    choices = Choices(6, (1.0,), False, 1.0, 64, "llama2", 0, budget=Budget.of("200"))
    with pytest.raises(RunError, match=r"--budget .* leave out --shard"):
        command.distill(RunOptions(str(prompts), tmp_path / "1", choices, shard=Shard(1, 2)), Settings())
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1/1000000", "١/٣"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="--shard is I/N"):
        Shard.parsed(text)


def test_each_row_is_in_one_shard() -> None:
    for of in range(1, 9):
        parts = [Shard.parsed(f"{index}/{of}") for index in range(1, of + 1)]
        for line in range(1, 40):
            assert sum(part.has(line) for part in parts) == 1
