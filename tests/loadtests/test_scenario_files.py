from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from winnow.loadtests.errors import ScenarioError
from winnow.loadtests.scenario_files import load, names, text
from winnow.loadtests.workload import arrival_offsets, read_dialogs


def test_the_documented_scenarios_are_shipped() -> None:
    assert set(names()) == {"bursts", "chat", "closed", "k-sweep", "leavers", "long-prompt", "ramp"}


@pytest.mark.parametrize("name", names())
def test_a_shipped_scenario_can_be_run(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.description
    assert read_dialogs(scenario)
    for point in scenario.points:
        assert (point.concurrency and scenario.requests) or 0 < len(arrival_offsets(scenario, point)) <= 1000


def test_a_copy_of_a_shipped_scenario_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text("chat"))
    assert load(str(tmp_path / "mine.toml")) == load("chat")


def test_a_scenario_may_begin_with_a_byte_order_mark_and_names_another_encoding(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_bytes(codecs.BOM_UTF8 + text("chat").encode())
    assert load(str(mine)) == load("chat")
    mine.write_bytes("description = 'café'".encode("latin-1"))
    with pytest.raises(ScenarioError, match=r"mine.toml cannot be read: line 1, byte 19 \(0xe9\) is not UTF-8"):
        load(str(mine))
    mine.write_bytes(b"a = " + b"[" * 100_000)
    with pytest.raises(ScenarioError, match="nested too deeply"):
        load(str(mine))


def test_paths_are_relative_to_the_scenario_file(tmp_path: Path) -> None:
    keys = "candidates = 1\nmax_tokens = 8\nprompts_file = 'p.jsonl'\narrivals = {kind = 'trace', file = 't.txt'}\n"
    (tmp_path / "mine.toml").write_text(keys)
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hello!"}\n')
    (tmp_path / "t.txt").write_text("0.5\n0.25\n")
    scenario = load(str(tmp_path / "mine.toml"))
    assert scenario.name == "mine"
    assert read_dialogs(scenario) == (({"role": "user", "content": "Hello!"},),)
    assert arrival_offsets(scenario, scenario.points[0]) == [0.25, 0.5]


def test_changes_replace_keys_and_none_removes_them() -> None:
    scenario = load("chat", {"candidates": [1, 2], "arrivals": None, "concurrency": 3})
    assert [point.label for point in scenario.points] == ["K = 1 · 3 clients", "K = 2 · 3 clients"]


def test_a_missing_or_malformed_scenario_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = ")
    for name, words in (
        ("chaat", "there are bursts, chat"),
        ("absent.toml", "absent"),
        (str(tmp_path / "bad.toml"), "TOML"),
    ):
        with pytest.raises(ScenarioError, match=words):
            load(name)
