"""Merging runs: equal prompts become one, the answers of all runs compete, and incomparable runs are refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet
import pytest

from tests.runs import make_run, manifest, record
from winnow.models.errors import RunError
from winnow.models.types import Message
from winnow.server.distill.export import ExportOptions, Format
from winnow.server.distill.export.formats import export
from winnow.server.distill.journal import Journal
from winnow.server.distill.records import Record

Rows = list[dict[str, Any]]


def write_run(folder: Path, records: list[Record], **settings: Any) -> Path:
    folder.mkdir()
    body: dict[str, Any] = manifest()
    body["settings"].update(settings)
    (folder / "manifest.json").write_text(json.dumps(body))
    with Journal(folder) as journal:
        for item in reversed(records):
            journal.append(item)
    return folder


def asked(line: int, seed: int, question: str, **fields: Any) -> Record:
    return record(line, Random(seed), messages=(Message("user", question),), is_safety=False, **fields)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[list[Record], list[Record], list[Record]]:
    """Run `one` asks a, b, a; `two` asks c, a, a, a; `three` asks c, b. They lie in `tmp_path`."""
    one = [asked(1, 1, "a"), asked(2, 2, "b"), asked(3, 3, "a")]
    two = [asked(1, 4, "c"), asked(2, 5, "a"), asked(3, 6, "a"), asked(4, 7, "a")]
    three = [asked(1, 8, "c"), asked(2, 9, "b")]
    for name, items in (("one", one), ("two", two), ("three", three)):
        write_run(tmp_path / name, items)
    return one, two, three


def exported(folder: Path, kind: Format, *merge: Path, **options: Any) -> Rows:
    (written,) = export(folder, [kind], ExportOptions(merge=merge, **options), folder / "out")
    if kind == "candidates":
        return list(pyarrow.parquet.read_table(written.path).to_pylist())
    return [json.loads(line) for line in written.path.read_text().splitlines()]


def test_the_best_of_all_runs_wins(tmp_path: Path, runs: tuple[list[Record], ...]) -> None:
    one, two, three = runs
    rows = exported(tmp_path / "one", "sft", tmp_path / "two", tmp_path / "three")
    groups = [[one[0], two[1]], [one[1], three[1]], [one[2], two[2]], [two[0], three[0]], [two[3]]]
    assert len(rows) == len(groups)
    for row, group in zip(rows, groups, strict=True):
        best = max(
            (answer for item in group for answer in item.selection.scored), key=lambda a: a.reward.combined_logit
        )
        assert row["messages"][0]["content"] == group[0].messages[0].content
        assert row["messages"][-1]["content"] == best.candidate.text
        assert (row["line"], row["id"]) == (group[0].line, group[0].id)
        assert row["combined"] == best.reward.combined


def test_every_answer_is_there_once_and_says_where_from(tmp_path: Path, runs: tuple[list[Record], ...]) -> None:
    rows = exported(tmp_path / "one", "candidates", tmp_path / "two", tmp_path / "three")
    origins = Counter((row["run"], row["run_line"], row["index"], row["text"]) for row in rows)
    wanted = Counter(
        (name, item.line, answer.candidate.index, answer.candidate.text)
        for name, items in zip(("one", "two", "three"), runs, strict=True)
        for item in items
        for answer in item.selection.scored
    )
    assert origins == wanted
    prompts: dict[tuple[int, str], Rows] = {}
    for row in rows:
        prompts.setdefault((row["line"], row["prompt"][0]["content"]), []).append(row)
    for group in prompts.values():
        assert [row["rank"] for row in group] == list(range(len(group)))
        logits = [row["combined_logit"] for row in group]
        assert logits == sorted(logits, reverse=True)
    whitened = [row["whitened"] for row in rows]
    assert sum(whitened) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", ["sft", "prompt-completion", "preferences", "candidates"])
def test_rows_say_how_many_candidates_there_were(kind: Format, tmp_path: Path, runs: tuple[list[Record], ...]) -> None:
    """Those that failed count, and of merged runs those of all."""
    one, two, _ = runs
    k = {item.line: item.selection.candidates for item in one}
    assert {row["line"]: row["candidates"] for row in exported(tmp_path / "one", kind)} == k
    both = {1: k[1] + two[1].selection.candidates, 2: k[2], 3: k[3] + two[2].selection.candidates}
    rows = exported(tmp_path / "one", kind, tmp_path / "two")
    assert {(row["line"], row["candidates"]) for row in rows} >= set(both.items())


def test_pairs_reach_across_runs(tmp_path: Path, runs: tuple[list[Record], ...]) -> None:
    rows = exported(tmp_path / "one", "preferences", tmp_path / "two", tmp_path / "three")
    assert any(row["run_chosen"] != row["run_rejected"] for row in rows)
    assert all(row["combined_chosen"] > row["combined_rejected"] for row in rows)


def test_merging_is_repeatable_and_needs_no_order_of_the_journals(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_run(tmp_path / name, prompts=30, seed=seed)
    once = exported(tmp_path / "one", "sft", tmp_path / "two")
    journal = tmp_path / "two" / "journal.jsonl"
    journal.write_bytes(b"".join(reversed(journal.read_bytes().splitlines(keepends=True))) + b'{"torn')
    assert exported(tmp_path / "one", "sft", tmp_path / "two") == once
    assert {row["run"] for row in once} == {"one", "two"}


def test_a_turn_is_masked_if_it_is_in_any_run(tmp_path: Path) -> None:
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    items = [record(1, Random(seed), messages=messages, is_safety=False, mask_history=seed == 2) for seed in (1, 2)]
    for name, item in zip(("one", "two"), items, strict=True):
        write_run(tmp_path / name, [item])
    (row,) = exported(tmp_path / "one", "sft", tmp_path / "two")
    assert [message.get("weight") for message in row["messages"]] == [None, 0, None, 1]


def test_the_card_shows_every_run(tmp_path: Path, runs: tuple[list[Record], ...]) -> None:
    exported(tmp_path / "one", "sft", tmp_path / "two")
    card = (tmp_path / "one" / "out" / "README.md").read_text()
    assert "## Provenance of one" in card
    assert "## Provenance of two" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {"safety": {"id": "safety-rm", "sha256": "9" * 64}}}, "safety model's hash differs"),
        ({"models": {"helpfulness": {"id": "rm", "sha256": "9" * 64}}}, "helpfulness model's hash differs"),
        ({"settings": {"combiner": "safe_first"}}, "the combiner differs"),
        ({"settings": {"safety_scale": -1.0}}, "safety_scale differs"),
    ],
)
def test_incomparable_runs_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, prompts=3)
    body: Any = manifest()
    for part, values in change.items():
        body[part] = {**body[part], **values}
    (tmp_path / "two" / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(RunError, match=words):
        exported(tmp_path / "one", "sft", tmp_path / "two")
    assert not (tmp_path / "one" / "out").exists()


def test_runs_of_unknown_reward_models_are_refused(tmp_path: Path) -> None:
    body: Any = {**manifest(), "models": {"server": {"id": "winnow-demo", "sha256": None}}}
    for name in ("one", "two"):
        make_run(tmp_path / name, prompts=3)
        (tmp_path / name / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(RunError, match="does not tell"):
        exported(tmp_path / "one", "sft", tmp_path / "two")
    assert len(exported(tmp_path / "one", "sft")) == 3
    assert len(exported(tmp_path / "one", "openai-batch")) == 5


def test_prompts_ranked_by_different_rules_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "one", [record(1, Random(1), messages=(Message("user", "a"),), is_safety=True)])
    write_run(tmp_path / "two", [record(1, Random(1), messages=(Message("user", "a"),), is_safety=False)])
    with pytest.raises(RunError, match=r"line 1 of one .* whether it is a safety prompt"):
        exported(tmp_path / "one", "sft", tmp_path / "two")


def test_wrong_merges_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two", "far/two"):
        make_run(tmp_path / name, prompts=3)
    with pytest.raises(RunError, match="itself"):
        exported(tmp_path / "one", "sft", tmp_path / "one")
    with pytest.raises(RunError, match="named two"):
        exported(tmp_path / "one", "sft", tmp_path / "two", tmp_path / "far" / "two")
    with pytest.raises(RunError, match="openai-batch"):
        exported(tmp_path / "one", "openai-batch", tmp_path / "two")
    with pytest.raises(RunError, match="no run"):
        exported(tmp_path / "one", "sft", tmp_path / "none")
