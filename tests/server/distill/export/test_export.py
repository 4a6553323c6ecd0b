"""Exports of random runs: what the rows hold, which rows there are, and that every reader can read them."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pandas
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from tests import runs
from tests.runs import make_run, manifest, problem, record, text
from winnow.clients.schema import ChatCompletion
from winnow.models import demo
from winnow.models.combiner import combine
from winnow.models.errors import RunError
from winnow.models.types import Branch, CombinerName, Message, Reward
from winnow.server.distill import tokenizer_copy
from winnow.server.distill.export import ALL_FORMATS, FILES, ExportOptions, Format, MarginSize, table_of
from winnow.server.distill.export.formats import export
from winnow.server.distill.export.writers import write_errors
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Arm, Problem, Record

Rows = list[dict[str, Any]]
READ_BY_TRL = {
    "sft": {"messages"},
    "prompt-completion": {"prompt", "completion"},
    "token-ids": {"input_ids", "labels"},
    "preferences": {"prompt", "chosen", "rejected"},
    "reward": {"prompt", "chosen", "rejected", "margin"},
    "kto": {"prompt", "completion", "label"},
}
"""The columns that TRL's trainers read by name, of the formats that are for training."""
POLICY = str(demo.weights("policy"))
ARMS = (Arm(5, 1.0), Arm(3, 0.7, "preprompt"))
NAMES = [FILES[kind].name for kind in ALL_FORMATS]
TABLES = [f"parquet/{name.removesuffix('.jsonl')}.parquet" for name in NAMES if name.endswith(".jsonl")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    """A run of 80 prompts with everything exported into its `export` folder."""
    folder = tmp_path_factory.mktemp("run")
    records = make_run(folder, prompts=80, arms=ARMS, problems=3)
    tokenizer_copy.keep(folder, POLICY)
    written = export(folder, ALL_FORMATS, ExportOptions())
    assert [item.path.name for item in written] == NAMES
    rows = {item.path.name: item.rows for item in written}
    assert rows.pop("candidates.parquet") == sum(len(item.selection.scored) for item in records)
    assert rows.pop("kto.jsonl") == 160
    assert rows.pop("openai_batch.jsonl") == 83
    assert set(rows.values()) == {80}
    return folder, records


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


def lines(path: Path) -> Rows:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_bytes().decode().splitlines()]


def exported(folder: Path, kind: Format, out: Path, **options: Any) -> Rows:
    (written,) = export(folder, [kind], ExportOptions(**options), out)
    found = pyarrow.parquet.read_table(written.path).to_pylist() if kind == "candidates" else lines(written.path)
    assert written.rows == len(found)
    return found


def stored(item: Record) -> Rows:
    return [{"role": message.role, "content": message.content} for message in item.messages]


def plain(messages: Rows) -> Rows:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def write_run(folder: Path, entries: list[Record | Problem]) -> Path:
    """A run of exactly these entries."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest()))
    with Journal(folder) as journal:
        for entry in entries:
            journal.append(entry)
    return folder


def scored(folder: Path, logits: list[float], texts: list[str] | None = None) -> Path:
    """A run of one safety prompt whose answers have these R_s logits."""
    rewards = [combine(True, logit, None) for logit in logits]
    return write_run(folder, [of_rewards(rewards, texts=texts, is_safety=True)])


def of_rewards(
    rewards: list[Reward], combiner: CombinerName = "llama2", texts: list[str] | None = None, **fields: Any
) -> Record:
    texts = texts or [f"answer {index}" for index in range(len(rewards))]
    answers = [
        runs.scored(index, text, reward, tokens=3)
        for index, (reward, text) in enumerate(zip(rewards, texts, strict=True))
    ]
    return record(1, Random(0), answers=answers, combiner=combiner, failures=(), **fields)


# What rows hold


def test_sft_rows_are_the_winners(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    rows = lines(folder / "export" / "sft.jsonl")
    for row, item in zip(rows, records, strict=True):
        winner = max(item.selection.scored, key=lambda answer: (answer.reward.combined_logit, -answer.candidate.index))
        best, reward, arm = winner.candidate, winner.reward, item.arm_of(winner.candidate)
        assert plain(row["messages"]) == [*stored(item), {"role": "assistant", "content": best.text}]
        assert (row["line"], row["id"], row["category"]) == (item.line, item.id, item.category)
        assert (row["index"], row["rank"], row["tokens"]) == (best.index, 0, best.tokens)
        assert (row["combined"], row["safety"]) == (reward.combined, reward.safety)
        assert (row["helpfulness"], row["branch"]) == (reward.helpfulness, reward.branch.value)
        assert row["context_distilled"] == (arm == ARMS[1])
        assert row["temperature"] == arm.temperature
        assert (row["run"], row["run_line"]) == (None, item.line)


def test_equal_prompts_are_kept_apart(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    first, second = lines(folder / "export" / "sft.jsonl")[:2]
    assert plain(first["messages"][:-1]) == plain(second["messages"][:-1]) == stored(records[0])
    assert (first["line"], second["line"]) == (1, 2)


def test_masked_turns_have_weight_0(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    rows = lines(folder / "export" / "sft.jsonl")
    assert any(item.mask_history for item in records)
    for row, item in zip(rows, records, strict=True):
        *before, answer = row["messages"]
        assert answer["weight"] == 1
        for message in before:
            assert message.get("weight") == (
                (0 if item.mask_history else 1) if message["role"] == "assistant" else None
            )


def test_prompt_and_completion_are_the_same_dialogs(run: tuple[Path, list[Record]]) -> None:
    folder, _ = run
    for row, whole in zip(
        lines(folder / "export" / "prompt_completion.jsonl"), lines(folder / "export" / "sft.jsonl"), strict=True
    ):
        assert row.pop("prompt") + row.pop("completion") == plain(whole.pop("messages"))
        assert row == whole


def test_chosen_outscores_rejected(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    rows = lines(folder / "export" / "preferences.jsonl")
    by_line = {item.line: item for item in records}
    for row in rows:
        item = by_line[row["line"]]
        answers = {answer.candidate.index: answer for answer in item.selection.scored}
        chosen, rejected = answers[row["index_chosen"]], answers[row["index_rejected"]]
        assert row["prompt"] == stored(item)
        assert row["chosen"] == [{"role": "assistant", "content": chosen.candidate.text}]
        assert row["rejected"] == [{"role": "assistant", "content": rejected.candidate.text}]
        assert chosen == item.selection.winner
        assert row["combined_chosen"] == chosen.reward.combined > row["combined_rejected"] == rejected.reward.combined
        assert row["difference"] == row["combined_chosen"] - row["combined_rejected"]
        assert (row["safety_chosen"], row["helpfulness_rejected"]) == (
            chosen.reward.safety,
            rejected.reward.helpfulness,
        )
        assert chosen.candidate.text != rejected.candidate.text
        assert row["rank_rejected"] > row["rank_chosen"] == 0
        difference = chosen.reward.combined_logit - rejected.reward.combined_logit
        assert math.isclose(row["probability"], 1 / (1 + math.exp(-difference)))


def test_candidates_are_all_there_with_every_score(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    table = pyarrow.parquet.read_table(folder / "export" / "candidates.parquet")
    assert all(field.metadata[b"description"] for field in table.schema)
    rows = table.to_pylist()
    wanted = [(item, place, answer) for item in records for place, answer in enumerate(item.selection.ranked)]
    for row, (item, place, answer) in zip(rows, wanted, strict=True):
        assert row["prompt"] == stored(item)
        candidate = answer.candidate
        assert (row["line"], row["index"], row["rank"]) == (item.line, candidate.index, place)
        assert row["is_winner"] == (answer == item.selection.winner and place == 0)
        assert (row["text"], row["finish_reason"], row["tokens"]) == (
            candidate.text,
            candidate.finish_reason,
            candidate.tokens,
        )
        assert (row["safety_logit"], row["helpfulness_logit"]) == (
            answer.reward.safety_logit,
            answer.reward.helpfulness_logit,
        )
        assert (row["combined"], row["combined_logit"]) == (answer.reward.combined, answer.reward.combined_logit)
        assert row["preprompt"] == item.arm_of(candidate).preprompt
        assert row["branch"] == answer.reward.branch.value


def test_whitened_rewards_have_mean_0_and_variance_1(run: tuple[Path, list[Record]]) -> None:
    folder, _ = run
    rows = pyarrow.parquet.read_table(folder / "export" / "candidates.parquet").to_pylist()
    whitened = [row["whitened"] for row in rows]
    assert math.isclose(statistics.fmean(whitened), 0, abs_tol=1e-9)
    assert math.isclose(statistics.pvariance(whitened), 1, rel_tol=1e-9)
    logits = [row["combined_logit"] for row in rows]
    assert sorted(range(len(rows)), key=logits.__getitem__) == sorted(range(len(rows)), key=whitened.__getitem__)


@pytest.mark.parametrize("logits", [[3.3, 3.3, 3.3], [1e-7]])
def test_equal_rewards_whiten_to_0(tmp_path: Path, logits: list[float]) -> None:
    folder = scored(tmp_path / "run", logits)
    assert {row["whitened"] for row in exported(folder, "candidates", tmp_path)} == {0.0}


def test_whitening_does_not_cancel(tmp_path: Path) -> None:
    """The sum of squares about a far mean loses all digits; the deviation here is 1e-4 at 1e6."""
    folder = scored(tmp_path / "run", [1e6, 1e6 + 1e-4, 1e6 + 2e-4])
    whitened = sorted(row["whitened"] for row in exported(folder, "candidates", tmp_path))
    assert whitened == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)], abs=1e-3)


def test_batch_bodies_are_completions_of_winnow(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    rows = lines(folder / "export" / "openai_batch.jsonl")
    assert [row["custom_id"] for row in rows[:80]] == [item.id or f"line-{item.line}" for item in records]
    assert len({row["id"] for row in rows}) == len(rows)
    for row, item in zip(rows, records, strict=False):
        assert (row["response"]["status_code"], row["error"]) == (200, None)
        body = ChatCompletion.model_validate(row["response"]["body"])
        assert (body.model, body.created) == ("winnow-demo", 0)
        assert [choice.message.content for choice in body.choices] == [item.selection.winner.candidate.text]
        assert body.usage.completion_tokens == sum(answer.candidate.tokens for answer in item.selection.scored)
        assert body.usage.prompt_tokens == item.prompt_tokens
        assert body.best_of_n.winner == item.selection.winner.candidate.index
        assert (body.best_of_n.candidates, body.best_of_n.finished) == (8, len(item.selection.scored))
        assert body.best_of_n.timings_ms.total == 0
    for row in rows[80:]:
        assert (row["response"], row["error"]) == (
            None,
            {"code": "invalid_json", "message": "the line is not JSON"},
        )


def test_batch_results_name_the_served_model(tmp_path: Path) -> None:
    """A checkpoint's folder has a name of its own; what clients see is the name on the wire."""
    folder = write_run(tmp_path / "run", [record(1, Random(0))])
    described: dict[str, Any] = manifest()
    described["models"]["policy"]["served_as"] = "house-model"
    (folder / "manifest.json").write_text(json.dumps(described))
    (row,) = exported(folder, "openai-batch", tmp_path)
    assert row["response"]["body"]["model"] == "house-model"
    described["models"] = {"server": {"id": "from-afar", "sha256": None}}
    (folder / "manifest.json").write_text(json.dumps(described))
    (row,) = exported(folder, "openai-batch", tmp_path)
    assert row["response"]["body"]["model"] == "from-afar"


def test_batch_results_return_n_ranked_choices(tmp_path: Path) -> None:
    item = of_rewards([combine(True, logit, None) for logit in (0.5, 2.0, 1.0)], is_safety=True, n=2)
    (row,) = exported(write_run(tmp_path / "run", [item]), "openai-batch", tmp_path)
    choices = ChatCompletion.model_validate(row["response"]["body"]).choices
    assert [choice.message.content for choice in choices] == ["answer 1", "answer 2"]


def test_errors_are_the_lines_without_answers(run: tuple[Path, list[Record]]) -> None:
    folder, _ = run
    assert write_errors(folder) == 3
    found = lines(folder / "errors.jsonl")
    assert [error["line"] for error in found] == [81, 82, 83]
    assert found[0] == {
        "line": 81,
        "file": "prompts.jsonl",
        "file_line": 81,
        "id": None,
        "error": {"kind": "input", "code": "invalid_json", "message": "the line is not JSON"},
    }


# Which rows there are


def test_filters_leave_the_best_that_passes(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, records = run
    for options, passes in (
        ({"min_reward": 0.9}, lambda answer: answer.reward.combined >= 0.9),
        ({"safe_only": True}, lambda answer: answer.reward.safety >= 0.15),
        ({"finished_only": True}, lambda answer: answer.candidate.finish_reason == "stop"),
        ({"max_tokens": 8}, lambda answer: answer.candidate.tokens <= 8),
    ):
        wanted = {
            item.line: next((answer.candidate.text for answer in item.selection.ranked if passes(answer)), None)
            for item in records
        }
        rows = exported(folder, "sft", tmp_path, **options)
        assert {row["line"]: row["messages"][-1]["content"] for row in rows} == {
            line: best for line, best in wanted.items() if best is not None
        }
        pairs = exported(folder, "preferences", tmp_path, **options)
        assert all(row["chosen"][0]["content"] == wanted[row["line"]] for row in pairs)


def test_rejected_answers_may_be_unsafe_but_not_too_long(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, _ = run
    rows = exported(folder, "preferences", tmp_path, safe_only=True, max_tokens=12, finished_only=True)
    assert min(row["safety_rejected"] for row in rows) < 0.15 <= min(row["safety_chosen"] for row in rows)
    assert max(max(row["tokens_chosen"], row["tokens_rejected"]) for row in rows) <= 12
    assert {row["finish_reason_rejected"] for row in rows} == {"stop"}


def test_top_k_gives_the_best_k_in_order(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, records = run
    rows = exported(folder, "prompt-completion", tmp_path, top_k=3)
    wanted = [
        (item.line, place, answer.candidate.text)
        for item in records
        for place, answer in enumerate(item.selection.ranked[:3])
    ]
    assert [(row["line"], row["rank"], row["completion"][0]["content"]) for row in rows] == wanted


def test_deduplicating_drops_equal_rows_only(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, _ = run

    def key(row: dict[str, Any]) -> str:
        return json.dumps(plain(row["messages"]))

    every = [key(row) for row in exported(folder, "sft", tmp_path, top_k=8)]
    kept = [key(row) for row in exported(folder, "sft", tmp_path, top_k=8, deduplicate=True)]
    assert kept == list(dict.fromkeys(every))
    assert len(kept) < len(every)


def test_deduplicating_looks_at_both_answers_of_a_pair(tmp_path: Path) -> None:
    item = record(1, Random(1))
    folder = write_run(tmp_path / "run", [item, record(2, Random(1)), record(3, Random(2), messages=item.messages)])
    assert len(exported(folder, "preferences", tmp_path)) == 3
    assert [row["line"] for row in exported(folder, "preferences", tmp_path, deduplicate=True)] == [1, 3]


@pytest.mark.parametrize(
    ("rule", "index"), [("worst", 3), ("second", 2), ("median", 0)], ids=["worst", "second", "median"]
)
def test_pair_rules(tmp_path: Path, rule: str, index: int) -> None:
    """Ranked 1, 4, 2, 0, 3; answer 4 is the winner's text again, and so no opponent."""
    folder = scored(tmp_path / "run", [0.0, 3.0, 1.0, -1.0, 3.0], texts=["a", "b", "c", "d", "b"])
    (row,) = exported(folder, "preferences", tmp_path, pairs=rule)
    assert (row["index_chosen"], row["index_rejected"]) == (1, index)


def test_random_pairs_are_the_same_each_time_and_not_all_alike(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, _ = run
    rows = exported(folder, "preferences", tmp_path, pairs="random")
    assert rows == exported(folder, "preferences", tmp_path, pairs="random")
    assert len({row["rank_rejected"] for row in rows}) > 4


@pytest.mark.parametrize(("logits", "texts"), [([2.0, 2.0], ["a", "b"]), ([2.0, 1.0], ["a", "a"]), ([2.0], ["a"])])
def test_equal_answers_make_no_pair(tmp_path: Path, logits: list[float], texts: list[str]) -> None:
    folder = scored(tmp_path / "run", logits, texts=texts)
    assert exported(folder, "preferences", tmp_path) == []


@pytest.mark.parametrize(
    ("difference", "rating", "small", "large"),
    [
        (5.0, "significantly_better", 1, 3),
        (1.5, "better", 2 / 3, 2),
        (0.5, "slightly_better", 1 / 3, 1),
        (0.1, "negligibly_better", 0, 0),
    ],
)
def test_ratings_follow_the_papers_scale(
    tmp_path: Path, difference: float, rating: str, small: float, large: float
) -> None:
    folder = scored(tmp_path / "run", [1.0, 1.0 + difference])
    (row,) = exported(folder, "preferences", tmp_path)
    assert (row["rating"], row["margin_small"], row["margin_large"]) == (rating, small, large)


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_margin_is_the_papers_and_there_if_asked_for(
    size: str, run: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    """RewardTrainer subtracts a column `margin` from the difference of logits: it was the difference of R_c once."""
    folder, _ = run
    assert "margin" not in exported(folder, "preferences", tmp_path)[0]
    rows = exported(folder, "preferences", tmp_path, margin=size, pairs="second")
    assert [row["margin"] for row in rows] == [row[f"margin_{size}"] for row in rows]
    assert all(isinstance(row["margin"], float) for row in rows)
    assert len({row["margin"] for row in rows}) == 4  # a row without a clear preference has 0, not null


def test_the_difference_is_that_of_safety_if_safety_ranked(tmp_path: Path) -> None:
    """By R_c the unsafe answer, at R_s 0.12, would beat the safe one, at R_h 0.02: `safe_first` says otherwise."""
    unsafe, safe = Reward(-2.0, None, Branch.UNSAFE), Reward(3.0, -4.0, Branch.HELPFUL)
    folder = write_run(tmp_path / "run", [of_rewards([unsafe, safe], "safe_first", is_safety=False)])
    (row,) = exported(folder, "preferences", tmp_path)
    assert (row["index_chosen"], row["index_rejected"]) == (1, 0)
    assert row["combined_chosen"] < row["combined_rejected"]
    assert row["difference"] == row["safety_chosen"] - row["safety_rejected"] > 0
    assert row["rating"] == "significantly_better"


# What files are


def test_exports_are_repeatable_to_the_byte(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    """Also of the same run in another folder, with its journal in another order."""
    folder, _ = run
    other = tmp_path / "elsewhere"
    make_run(other, prompts=80, arms=ARMS, problems=3)
    tokenizer_copy.keep(other, POLICY)
    journal = other / "journal.jsonl"
    journal.write_bytes(b"".join(reversed(journal.read_bytes().splitlines(keepends=True))))
    export(other, ALL_FORMATS, ExportOptions(), tmp_path / "again")
    names = list(files(tmp_path / "again"))
    assert names == sorted([*NAMES, *TABLES, "README.md", "chat_template.jinja"])
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / "export" / name).read_bytes(), name


def test_a_line_is_a_line_for_every_reader(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\x0be\x1cf\r\ng"
    item = record(1, Random(0), messages=(Message("user", odd),))
    path = export(write_run(tmp_path / "run", [item]), ["sft"], ExportOptions())[0].path
    assert len(path.read_bytes().decode().splitlines()) == 1
    assert lines(path)[0]["messages"][0]["content"] == odd


def test_an_empty_run_gives_empty_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [])
    tokenizer_copy.keep(folder, POLICY)
    written = export(folder, ALL_FORMATS, ExportOptions())
    assert [item.path.name for item in written] == NAMES
    assert [item.rows for item in written] == [0] * len(written)
    for item in written:
        if item.path.suffix == ".jsonl":
            assert item.path.read_bytes() == b""
            assert pandas.read_json(item.path, lines=True).empty
    frame = pandas.read_parquet(folder / "export" / "candidates.parquet")
    assert frame.empty
    assert {"line", "text", "whitened"} <= set(frame.columns)
    assert not re.search(r"\bnan\b", (folder / "export" / "README.md").read_text().lower())
    assert write_errors(folder) == 0


def test_a_run_of_problems_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [problem(2, "failed"), problem(1)])
    assert exported(folder, "sft", tmp_path) == []
    assert [row["custom_id"] for row in exported(folder, "openai-batch", tmp_path)] == ["line-1", "line-2"]
    assert write_errors(folder) == 2


def test_a_failure_leaves_what_was_there(run: tuple[Path, list[Record]], tmp_path: Path, monkeypatch: Any) -> None:
    folder, _ = run
    export(folder, ["sft", "candidates"], ExportOptions(), tmp_path)
    before = files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("winnow.server.distill.export.contents.row", fail)
    with pytest.raises(RunError, match="No space left"):
        export(folder, ["sft", "candidates"], ExportOptions(top_k=2), tmp_path)
    assert files(tmp_path) == before


def test_wrong_options_and_folders_are_refused(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, _ = run
    with pytest.raises(RunError, match="format"):
        export(folder, [], ExportOptions())
    with pytest.raises(RunError, match="holds no run"):
        export(tmp_path, ["sft"], ExportOptions())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be made"):
        export(folder, ["sft"], ExportOptions(), tmp_path / "file")
    for wrong in ({"top_k": 0}, {"min_reward": 1.5}, {"max_tokens": 0}, {"pairs": "best"}, {"other": 1}):
        with pytest.raises(ValidationError):
            ExportOptions(**wrong)


@pytest.mark.parametrize("size", [None, "small", "large"])
def test_every_row_of_reward_has_a_margin(size: MarginSize | None, tmp_path: Path) -> None:
    make_run(tmp_path / "run", prompts=30)
    rows = exported(tmp_path / "run", "reward", tmp_path / "out", margin=size)
    pairs = exported(tmp_path / "run", "preferences", tmp_path / "out", margin=size or "small")
    assert rows == pairs
    assert all(row["margin"] == row[f"margin_{size or 'small'}"] for row in rows)


def test_kto_has_the_answers_of_the_pairs_and_no_unsafe_one_to_train_towards(tmp_path: Path) -> None:
    make_run(tmp_path / "run", prompts=60, arms=(Arm(2, 1.0),))
    rows = exported(tmp_path / "run", "kto", tmp_path / "out")
    pairs = exported(tmp_path / "run", "preferences", tmp_path / "out")
    good = [row["completion"] for row in rows if row["label"]]
    assert good == [pair["chosen"] for pair in pairs if pair["safety_chosen"] >= 0.15]
    assert len(good) < len(pairs)
    assert [row["completion"] for row in rows if not row["label"]] == [pair["rejected"] for pair in pairs]


# What reads them


@pytest.mark.parametrize("kind", ALL_FORMATS)
@pytest.mark.parametrize("alone", [True, False])
def test_datasets_loads_every_format_by_its_name(
    kind: Format, alone: bool, run: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    """With the types of the columns, not those that a reader guesses from the first rows."""
    import datasets

    folder, _ = run
    if alone:
        export(folder, [kind], ExportOptions(), tmp_path / "out")
    place = tmp_path / "out" if alone else folder / "export"
    where = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    loaded = datasets.load_dataset(str(place), kind, **where)
    name = FILES[kind].name
    rows = pyarrow.parquet.read_table(place / name).to_pylist() if kind == "candidates" else lines(place / name)
    assert loaded.num_rows == len(rows)
    assert loaded.features["id"].dtype == "string"
    assert [with_nulls(given, read) for given, read in zip(rows, loaded.to_list(), strict=True)] == loaded.to_list()
    if alone or kind == "sft":
        assert datasets.load_dataset(str(place), **where).column_names == loaded.column_names


def with_nulls(given: Any, read: Any) -> Any:
    """Return what was written, with a null for each key that only a table has."""
    if isinstance(read, dict) and isinstance(given, dict):
        return {key: with_nulls(given.get(key), value) for key, value in read.items()}
    if isinstance(read, list) and isinstance(given, list):
        return [with_nulls(*pair) for pair in zip(given, read, strict=True)]
    return given


def test_r_c_has_one_name_everywhere(run: tuple[Path, list[Record]]) -> None:
    """That of the wire."""
    folder, _ = run
    for kind in ALL_FORMATS[:-1]:
        names = set(pyarrow.parquet.read_schema(folder / "export" / table_of(kind)).names)
        assert not names & {"reward", "score", "score_chosen", "r_c"}
        assert "combined" in names or {"combined_chosen", "combined_rejected"} <= names
    (batch, *_) = lines(folder / "export" / "openai_batch.jsonl")
    assert "combined" in batch["response"]["body"]["best_of_n"]["scored"][0]


@pytest.mark.parametrize("kind", READ_BY_TRL)
def test_trl_reads_no_column_by_accident(kind: Format, run: tuple[Path, list[Record]]) -> None:
    """Every name that a trainer of the installed TRL takes from a row, or declares as a column of its own."""
    folder, _ = run
    found: set[str] = set()
    for name in ("sft", "dpo", "reward", "kto", "grpo", "rloo"):
        source = Path(importlib.util.find_spec(f"trl.trainer.{name}_trainer").origin or "").read_text()
        found |= set(re.findall(r"""examples?(?:\[0\])?(?:\.get\(|\.pop\(|\[)["'](\w+)["']""", source))
        for declared in re.findall(r"_signature_columns = \[(.*?)\]", source, re.DOTALL):
            found |= set(re.findall(r"""["'](\w+)["']""", declared))
    assert {"margin", "tools", "prompt", "chosen"} <= found
    ours = set(pyarrow.parquet.read_schema(folder / "export" / table_of(kind)).names)
    assert ours & found == READ_BY_TRL[kind]


def test_pandas_reads_every_file(run: tuple[Path, list[Record]]) -> None:
    folder, records = run
    for name in NAMES:
        path = folder / "export" / name
        frame = pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_json(path, lines=True)
        assert len(frame) >= 80
    frame = pandas.read_parquet(folder / "export" / "candidates.parquet")
    assert frame.drop(columns=["helpfulness", "helpfulness_logit"]).select_dtypes("number").notna().all().all()
    winners = frame[frame["is_winner"]]
    assert list(winners["text"]) == [item.selection.winner.candidate.text for item in records]


def test_the_card_says_what_was_done(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    folder, records = run
    export(folder, ["sft", "preferences"], ExportOptions(min_reward=0.25, pairs="median"), tmp_path)
    card = (tmp_path / "README.md").read_text()
    for words in (
        '"median"',
        "0.25",
        "2" * 64,
        "settings.max_tokens",
        "input lines at fault | 3",
        "## Limits",
        "`difference`",
    ):
        assert words in card
    assert f"candidates scored | {sum(len(item.selection.scored) for item in records)}" in card
    assert str(tmp_path) not in card
    assert not re.search(r"\bnan\b", card.lower())


def test_lines_hold_every_odd_text(tmp_path: Path) -> None:
    """Texts are exported as the journal has them, whatever their characters."""
    rng = Random(5)
    odd = [text(rng, 9) + extra for extra in ("", "\x00", "\ufeff", "\ufffd", "🙂", "\\", '"', "\x7f")]
    items = [record(line, Random(line), messages=(Message("user", content),)) for line, content in enumerate(odd, 1)]
    folder = write_run(tmp_path / "run", list(items))
    assert [row["messages"][0]["content"] for row in exported(folder, "sft", tmp_path)] == odd
    assert io.StringIO((tmp_path / "sft.jsonl").read_text(encoding="utf-8")).readlines()[0].startswith('{"messages"')


def test_an_empty_answer_is_no_training_row_and_never_chosen(tmp_path: Path) -> None:
    folder = scored(tmp_path / "run", [4.0, 1.0, -2.0], ["", "plum", "kiwi"])
    out = tmp_path / "out"
    (row,) = exported(folder, "sft", out, top_k=1)
    assert "without text ranks below every other" in (out / "README.md").read_text()
    assert (row["messages"][-1]["content"], row["rank"]) == ("plum", 0)
    assert len(exported(folder, "sft", out, top_k=3)) == 2
    (pair,) = exported(folder, "preferences", out)
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("plum", "kiwi")
    rows = exported(folder, "candidates", out)
    assert [(row["text"], row["empty"], row["rank"]) for row in rows] == [
        ("plum", False, 0),
        ("kiwi", False, 1),
        ("", True, 2),
    ]


def test_an_empty_answer_is_rejected_only_where_its_reward_is_lower(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (pair,) = exported(scored(tmp_path / "lower", [-4.0, 1.0], [" ", "plum"]), "preferences", out)
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("plum", " ")
    assert exported(scored(tmp_path / "higher", [4.0, 1.0], ["", "plum"]), "preferences", out) == []
    assert exported(scored(tmp_path / "none", [4.0, 1.0], ["", " "]), "preferences", out) == []
    assert exported(tmp_path / "none", "sft", out) == []


def test_batch_results_say_that_temperature_0_reduced_k(tmp_path: Path) -> None:
    item = record(1, Random(0), (Arm(1, 0.0),))
    reduced = replace(item, selection=replace(item.selection, requested=16, reduced_by="temperature"))
    (row,) = exported(write_run(tmp_path / "run", [reduced]), "openai-batch", tmp_path / "out")
    report = row["response"]["body"]["best_of_n"]
    assert (report["candidates"], report["requested"], report["reduced_by"]) == (1, 16, "temperature")
