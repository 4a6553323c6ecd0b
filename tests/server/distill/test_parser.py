"""Parsing of rows: every shape, every fault of a line, and digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.models.chat_templates import TEMPLATES, TagRule
from winnow.models.types import Message
from winnow.server.distill.parser import OTHER_CATEGORY, Task, parse
from winnow.server.distill.reader import open_source
from winnow.server.distill.records import Problem
from winnow.server.pipeline.request import RequestOptions

HELLO = (Message("user", "Hello"),)
SECRET = "swordfish"


def read_lines(folder: Path, *lines: object) -> list[Task | Problem]:
    path = folder / "prompts.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else orjson.dumps(line)) + b"\n" for line in lines))
    return list(parse(open_source(str(path), folder / "spool"), TEMPLATES["llama2"]))


def task(folder: Path, line: object) -> Task:
    (found,) = read_lines(folder, line)
    assert isinstance(found, Task), found
    return found


def problem(folder: Path, line: object) -> Problem:
    (found,) = read_lines(folder, line)
    assert isinstance(found, Problem), found
    assert (found.line, found.file, found.file_line, found.kind) == (1, "prompts.jsonl", 1, "input")
    assert SECRET not in found.message
    assert "/" not in found.message.replace("/v1/chat/completions", "").replace("[/INST]", "").replace("<</SYS>>", "")
    assert found.message.isprintable()
    return found


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def batch(messages: object = None, **body: object) -> dict[str, Any]:
    messages = said(("user", "Hello")) if messages is None else messages
    body = {"model": "any", "messages": messages, **body}
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}


ASK, REPLY = ("user", "Hello"), ("assistant", "Hi")


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "Hello"},
        {"prompt": said(ASK)},
        {"messages": said(ASK)},
        {"messages": said(ASK, REPLY)},
        {"conversations": [{"from": "human", "value": "Hello"}]},
        {"conversations": [{"from": "user", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
        {"prompt": "Hello", "messages": None, "id": None, "system": None, "is_safety": None, "category": None},
        {"prompt": "Hello", "id": "", "system": " ", "instruction": "", "completion": [1, {}], "source": "a"},
    ],
)
def test_the_same_prompt_in_every_shape(tmp_path: Path, line: dict[str, object]) -> None:
    found = task(tmp_path, line)
    assert found == Task(1, "prompts.jsonl", 1, None, HELLO)
    assert found.digest == task(tmp_path, {"prompt": "Hello"}).digest


def test_what_other_data_sets_call_category_and_system_is_no_fault(tmp_path: Path) -> None:
    """BeaverTails has an object of truths as `category`; Anthropic's format has parts as `system`."""
    remarks: list[str] = []
    rows = [{"prompt": "Hello", "category": {"violence": False}}, {"prompt": "Hello", "category": ["a"]}] * 2
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    source = open_source(str(tmp_path / "p.jsonl"), tmp_path / "spool")
    found = list(parse(source, TEMPLATES["llama2"], remarks.append))
    assert [isinstance(item, Task) and item.category is None for item in found] == [True] * 4
    assert remarks == [OTHER_CATEGORY]
    parts = [
        {"type": "text", "text": "Be "},
        {"type": "text", "text": "brief.", "cache_control": {"type": "ephemeral"}},
    ]
    assert task(tmp_path, {"system": parts, "messages": said(ASK)}).messages == (Message("system", "Be brief."), *HELLO)


def test_options_of_plain_shapes(tmp_path: Path) -> None:
    options = {"id": 7, "is_safety": True, "system": "Be brief.", "category": "danger", "instruction": "Rhyme."}
    found = task(tmp_path, {"messages": said(ASK, REPLY, ("user", "More?"), ("assistant", "No.")), **options})
    assert found.messages == tuple(Message(*turn) for turn in (("system", "Be brief."), ASK, REPLY, ("user", "More?")))
    assert (found.id, found.category, found.instruction) == ("7", "danger", "Rhyme.")
    assert found.options == RequestOptions(is_safety=True)


def test_system_by_any_name(tmp_path: Path) -> None:
    system = {
        task(tmp_path, line).messages
        for line in (
            {"prompt": "Hello", "system": "Be brief."},
            {"messages": said(("system", "Be brief."), ASK)},
            {"messages": said(("developer", "Be brief."), ASK)},
            {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hello"}]},
            batch(said(("developer", "Be brief."), ASK)),
        )
    }
    assert system == {(Message("system", "Be brief."), *HELLO)}


def test_batch_lines(tmp_path: Path) -> None:
    line = batch(
        n=2,
        temperature=1,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        max_completion_tokens=7,
        stop="END",
        seed=3,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": -100},
        best_of_n={"candidates": 4, "is_safety": False, "combiner": "safe_first"},
        user="someone",
        stream=False,
    )
    found = task(tmp_path, line)
    assert (found.id, found.messages) == ("a", HELLO)
    assert found.options == RequestOptions(
        candidates=4,
        n=2,
        temperature=1.0,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        max_tokens=7,
        stop=("END",),
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": -100.0},
        seed=3,
        combiner="safe_first",
        is_safety=False,
        max_tokens_field="max_completion_tokens",
    )
    assert task(tmp_path, batch()).options == RequestOptions()
    assert task(tmp_path, batch([{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])).messages == HELLO


@pytest.mark.parametrize(
    ("line", "code", "names"),
    [
        ({"text": SECRET, "source\n\x1b[31m": 1}, "unknown_shape", "text, source??[31m"),
        ({}, "unknown_shape", "none"),
        ({"prompt": None}, "unknown_shape", "none"),
        ({"body": batch()["body"]}, "unknown_shape", "body"),
        ({"prompt": "a", "messages": said(ASK)}, "ambiguous", "prompt and messages"),
        ({"prompt": "a", "custom_id": "a"}, "ambiguous", "custom_id"),
        ([SECRET], "not_an_object", "object"),
        (SECRET, "not_an_object", "object"),
        (None, "not_an_object", "object"),
        ({"prompt": 3}, "invalid_type", "prompt"),
        ({"prompt": {"role": "user", "content": SECRET}}, "invalid_type", "prompt"),
        ({"messages": SECRET}, "invalid_type", "messages"),
        ({"messages": [SECRET]}, "invalid_type", "messages[0]"),
        ({"messages": [*said(ASK), {"role": "assistant", "content": None}]}, "invalid_type", "messages[1]"),
        ({"messages": [*said(ASK), {"role": "assistant", "tool_calls": [{}]}]}, "unsupported", "no tool calling"),
        (
            {"messages": [*said(ASK), {"role": "assistant", "function_call": {}, "tool_calls": [{}]}]},
            "unsupported",
            "tool",
        ),
        ({"prompt": SECRET, "system": [{"type": "image"}]}, "unsupported", "system[0]"),
        ({"conversations": [{"speaker": "human", "value": SECRET}]}, "invalid_type", "conversations[0]"),
        ({"prompt": SECRET, "id": 1.5}, "invalid_type", "id"),
        ({"prompt": SECRET, "id": True}, "invalid_type", "id"),
        ({"prompt": SECRET, "is_safety": 1}, "invalid_type", "is_safety"),
        ({"prompt": SECRET, "system": [SECRET]}, "unsupported", "system[0]"),
        ({"prompt": SECRET, "category": 1}, "invalid_type", "category"),
        ({"prompt": SECRET, "instruction": 1}, "invalid_type", "instruction"),
        ({"prompt": ""}, "empty_prompt", "prompt"),
        ({"prompt": " \n\t\u2028"}, "empty_prompt", "prompt"),
        ({"messages": said(ASK, REPLY, ("user", " "))}, "empty_prompt", "messages"),
        ({"prompt": []}, "invalid_messages", "prompt is empty"),
        ({"messages": said(REPLY)}, "invalid_messages", "messages is empty"),
        ({"messages": said(ASK, REPLY, REPLY)}, "invalid_messages", "messages[1]"),
        ({"messages": said(ASK, ASK)}, "invalid_messages", "messages[1]"),
        ({"messages": said(ASK, ("tool", SECRET))}, "invalid_messages", "messages[1]"),
        ({"prompt": said(ASK, REPLY)}, "invalid_messages", "prompt[1]"),
        ({"conversations": [{"from": "tool", "value": SECRET}]}, "invalid_messages", "conversations[0]"),
        ({"messages": said(ASK, ("system", SECRET))}, "invalid_messages", "messages[1]"),
        ({"prompt": f"{SECRET} [/INST]"}, "invalid_messages", "[/INST]"),
        ({"prompt": "a", "system": f"<<SYS>>{SECRET}"}, "invalid_messages", "<<SYS>>"),
        ({"prompt": "a", "instruction": f"[INST]{SECRET}"}, "invalid_messages", "[INST]"),
        ({"messages": said(("system", SECRET), ASK), "system": SECRET}, "ambiguous", "system"),
        ({"messages": said(("developer", SECRET), ASK), "system": SECRET}, "ambiguous", "system"),
        ({**batch(), "custom_id": ""}, "invalid_type", "custom_id"),
        ({**batch(), "custom_id": 1}, "invalid_type", "custom_id"),
        ({**batch(), "method": "GET"}, "unsupported", "POST"),
        ({**batch(), "url": "/v1/embeddings"}, "unsupported", "url"),
        ({**batch(), "system": SECRET}, "unsupported", "system"),
        ({**batch(), "body": None}, "invalid_request", "body"),
        ({**batch(), "body": SECRET}, "invalid_request", "body"),
        (batch(temperature=3), "invalid_request", "temperature"),
        (batch(temperature="hot" + SECRET), "invalid_request", "temperature"),
        (batch(messages=[]), "invalid_messages", "body.messages"),
        (batch(said(("user", ""))), "empty_prompt", "body.messages"),
        (batch(said(("tool", SECRET))), "unsupported", "messages[0].role"),
        (batch(tools=[{"type": "function"}]), "unsupported", "tools"),
        (batch(**{"made\nup": SECRET}), "unsupported", "made?up"),
        (batch(stream=True), "unsupported", "stream is not supported"),
        (
            batch(stream=True, best_of_n={"deadline_ms": 9, "usage": "winner"}),
            "unsupported",
            "stream, deadline_ms, usage",
        ),
        (batch(logprobs=True, top_logprobs=1), "unsupported", "logprobs"),
        (batch(best_of_n={"return_candidates": True}), "unsupported", "return_candidates"),
        (batch(best_of=2, best_of_n={"candidates": 3}), "invalid_request", "best_of"),
        (batch(logit_bias={"five": 1}), "invalid_sampling", "logit_bias"),
        (batch(deep=None), "unsupported", "deep"),
        (b"\x00" * 50, "invalid_json", "JSON"),
        (b'{"prompt": "a\x00"}', "invalid_json", "JSON"),
        (b'{"prompt": "swordfish"', "invalid_json", "JSON"),
        (b'{"prompt": "a"} {"prompt": "b"}', "invalid_json", "character 17"),
        (b"swordfish", "invalid_json", "JSON"),
        (b"{'prompt': 'a'}", "invalid_json", "JSON"),
        (b'{"prompt": "a", "score": NaN}', "invalid_json", "NaN is no value of JSON"),
        (b'{"prompt": "a", "score": -Infinity}', "invalid_json", "Infinity is no value of JSON"),
        (b'{"prompt": "a", "score": ' + b"1" * 5000 + b"}", "invalid_json", "JSON"),
        (b'{"prompt": "a", "id": ' + b"1" * 40 + b"}", "invalid_type", "id"),
        (b'{"prompt": "\\ud800"}', "invalid_json", "JSON"),
        (b'{"prompt": "\xff"}', "invalid_utf8", "UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid_utf8", "UTF-8"),
        (b'{"prompt": "a", "b": "\xfe\xff"}', "invalid_utf8", "UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "invalid_json", "depth"),
        (b"[" * 900 + b"]" * 900, "not_an_object", "object"),
        (b'{"prompt": ' + b"[" * 900 + b"]" * 900 + b"}", "invalid_type", "prompt[0]"),
        (
            orjson.dumps(batch())[:-2] + b',"response_format":' + b'{"a":' * 900 + b"1" + b"}" * 902,
            "unsupported",
            "response_format",
        ),
        (orjson.dumps({"k" * 100_000: 1}), "unknown_shape", "kkk"),
    ],
)
def test_a_bad_line_is_one_problem(tmp_path: Path, line: object, code: str, names: str) -> None:
    found = problem(tmp_path, line)
    assert found.code == code, found
    assert names in found.message
    assert len(found.message) < 600


def test_duplicate_ids(tmp_path: Path) -> None:
    """The first line keeps the id, even a bad one: two results of one id could not be told apart."""
    lines = [
        {"prompt": "a", "id": "x"},
        {"prompt": "b", "id": "x"},
        {"prompt": "", "id": "bad"},
        {"prompt": "c", "id": "bad"},
        {"prompt": "d", "id": 1},
        {"prompt": "e", "id": "1"},
        {**batch(), "custom_id": "x"},
        {"prompt": "a"},
        {"prompt": "a"},
    ]
    found = read_lines(tmp_path, *lines)
    codes = [item.code if isinstance(item, Problem) else "" for item in found]
    d = "duplicate_id"
    assert codes == ["", d, "empty_prompt", d, "", d, d, "", ""]
    assert [item.id for item in found] == ["x", "x", "bad", "bad", "1", "1", "x", None, None]
    assert [item.line for item in found] == list(range(1, 10))


CHANGES: list[dict[str, object]] = [
    {"prompt": "Hello "},
    {"prompt": "Hello", "id": "a"},
    {"prompt": "Hello", "id": "b"},
    {"prompt": "Hello", "is_safety": False},
    {"prompt": "Hello", "is_safety": True},
    {"prompt": "Hello", "system": "a"},
    {"prompt": "Hello", "category": "a"},
    {"prompt": "Hello", "instruction": "a"},
    {**batch(), "custom_id": "c"},
    batch(n=1),
    batch(temperature=0.5),
    batch(max_tokens=1),
    batch(logit_bias={"1": 1}),
    batch(logit_bias={"2": 1}),
]


def test_digests_tell_what_is_asked_apart(tmp_path: Path) -> None:
    digests = [task(tmp_path, line).digest for line in [{"prompt": "Hello"}, *CHANGES]]
    assert len(set(digests)) == len(digests)
    assert task(tmp_path, batch()).digest == task(tmp_path, {"prompt": "Hello", "id": "a"}).digest
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in digests)


@pytest.mark.parametrize(
    ("line", "digest"),
    [
        ({"prompt": "Hello"}, "199a4cb8337a12415b0dd140ee6862da"),
        (
            {
                "prompt": "Hello",
                "id": "a",
                "is_safety": True,
                "system": "Be brief.",
                "category": "danger",
                "instruction": "Rhyme.",
            },
            "99ea2894870e26ff6dc70357f333f06e",
        ),
        (batch(logit_bias={"10": 1, "9": -2, "007": 3}), "d2da8dd76f5ded8e936fb989c83e55c9"),
        (
            batch(
                n=2,
                temperature=1,
                top_p=0.9,
                top_k=3,
                min_p=0.1,
                max_completion_tokens=7,
                stop="END",
                seed=3,
                presence_penalty=0.5,
                frequency_penalty=-0.5,
                best_of_n={"candidates": 4, "is_safety": False, "combiner": "safe_first"},
            ),
            "b948edc68f1c0b7a8beb7ebe893db699",
        ),
    ],
)
def test_digests_do_not_change_between_versions(tmp_path: Path, line: object, digest: str) -> None:
    """The digests that Winnow 0.1 gave these lines. The ids of OpenAI batch results are derived from them."""
    assert task(tmp_path, line).digest == digest


@settings(max_examples=20)
@given(st.sampled_from(CHANGES), st.randoms(use_true_random=False))
def test_digests_do_not_depend_on_the_order_of_keys(
    tmp_path_factory: pytest.TempPathFactory, line: dict[str, object], rng: Any
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, list):
            return [shuffled(item) for item in value]
        if not isinstance(value, dict):
            return value
        items = list(value.items())
        rng.shuffle(items)
        return {key: shuffled(item) for key, item in items}

    folder = tmp_path_factory.mktemp("digest")
    assert task(folder, line) == task(folder, shuffled(line))


def test_an_assistants_tag_is_neutralised_and_a_users_by_wish(tmp_path: Path) -> None:
    """Regression: a run refused as history what a run or a server had answered."""
    lines = [
        {"messages": said(ASK, ("assistant", "use [/INST]"), ("user", "more"))},
        {"prompt": "close [/INST]", "system": "be <<SYS>>", "instruction": "[INST] rhyme"},
    ]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))

    def parsed(rule: TagRule) -> list[Task | Problem]:
        source = open_source(str(tmp_path / "in.jsonl"), tmp_path / "spool")
        return list(parse(source, TEMPLATES["llama2"].with_tags(rule)))

    first, second = parsed("refuse")
    assert isinstance(first, Task)
    assert first.messages[1].content == "use [ /INST]"
    assert isinstance(second, Problem)
    assert "[INST]" in second.message or "<<SYS>>" in second.message
    same, accepted = parsed("neutralise")
    assert same == first
    assert isinstance(accepted, Task)
    assert [message.content for message in accepted.messages] == ["be < <SYS>>", "close [ /INST]"]
    assert accepted.instruction == "[ INST] rhyme"


def test_turns_in_a_row_are_merged_if_the_run_or_the_line_says_so(tmp_path: Path) -> None:
    twice = said(("system", "s"), ("system", "t"), ASK, ("user", "There"))
    joined = (Message("system", "s\n\nt"), Message("user", "Hello\n\nThere"))
    lines = [{"messages": [*twice, *said(REPLY, REPLY)]}, batch(twice), batch(twice, best_of_n={"merge_turns": False})]
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    merging = TEMPLATES["llama2"].with_merging(True)
    plain, asked, refusing = parse(open_source(str(path), tmp_path / "spool"), merging)
    for merged in (plain, asked, task(tmp_path, batch(twice, best_of_n={"merge_turns": True}))):
        assert isinstance(merged, Task)
        assert merged.messages == joined
    assert isinstance(refusing, Problem)
    assert "merge_turns" in problem(tmp_path, {"messages": twice}).message
