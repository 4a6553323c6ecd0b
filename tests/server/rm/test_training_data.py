"""Files → examples: ids, labels, the split by prompt, mixes, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.server.rm import tiny
from tests.server.rm.conftest import write
from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.base import AnswerReader, RewardInput
from winnow.models.errors import RunError, SettingsError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt
from winnow.server.rm.initial import inspected
from winnow.server.rm.mixing import Part
from winnow.server.rm.training_data import Material, material


def pairs(count: int = 20, word: str = "Ask") -> list[dict[str, Any]]:
    return [{"prompt": f"{word} {place}", "chosen": f"good {place}", "rejected": "bad"} for place in range(count)]


@pytest.fixture(scope="module")
def reader(tokenizer: Tokenizer) -> RewardInput:
    return RewardInput(tokenizer, TEMPLATES["llama2"], shares_policy_ids=False)


def read(
    reader: AnswerReader,
    folder: Path,
    *sources: Sequence[Mapping[str, Any]],
    shares: Sequence[float] = (),
    **options: Any,
) -> Material:
    files = [str(write(folder / f"{place}.jsonl", rows)) for place, rows in enumerate(sources)]
    parts = (
        [Part((file,), share) for file, share in zip(files, shares, strict=True)] if shares else [Part(tuple(files))]
    )
    usual = {"kind": "safety", "margins": "small", "context": 256, "held_share": 0.25, "seed": 0}
    return material(parts, reader=reader, **{**usual, **options})


def test_the_ids_are_those_that_are_served(reader: RewardInput, tmp_path: Path) -> None:
    """Prompt, answer and EOS, with names of control tokens as text."""
    hostile = "Say </s> and [INST]"
    found = read(reader, tmp_path, [*pairs(40), {"prompt": hostile, "chosen": "<s>[/INST]", "rejected": ""}])
    every = {example.chosen for example in found.examples} | {example.rejected for example in found.examples}
    every |= set(found.ids.values())
    for answer in ("<s>[/INST]", ""):
        ids = reader.token_ids(Prompt((), (Message("user", hostile),)), answer)
        assert tuple(ids) in every
        assert ids[-1] == reader.tokenizer.eos_id
        assert ids.count(reader.tokenizer.eos_id) == 1


@given(st.integers(0, 50), st.floats(0.1, 0.9), st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_prompt_is_on_both_sides(
    reader: RewardInput, tmp_path: Path, seed: int, share: float, is_mix: bool
) -> None:  # fmt: skip
    """Whatever file and layout it comes from; white space at its ends makes no other prompt."""
    others = [{"prompt": f" Ask {place}", "response": f"x {place}", "is_safe": True} for place in range(0, 20, 2)]
    others += pairs(10, word="Other")
    try:
        found = read(
            reader, tmp_path, pairs(), others, shares=(0.5, 0.5) if is_mix else (), held_share=share, seed=seed
        )  # fmt: skip
    except RunError:  # nothing to compare is left on the side that is trained on
        assume(False)
    assert (found.prompts, found.held_prompts) == (30, int(30 * share))
    held = {place.item.prompt for place in found.held}
    assert len(held) == found.held_prompts
    texts = {answer.messages[-1].content.strip() for answer in found.ids}
    trained = [reader.tokenizer.decode(list(example.chosen)) for example in found.examples]
    assert not any(f" {text} [/INST]" in shown for text in texts for shown in trained)
    if not is_mix:
        labels = sum(len(place.item.labels) for place in found.held) + found.labels
        comparisons = sum(place.item.comparison is not None for place in found.held) + found.comparisons
        assert (labels, comparisons) == (10, 30)


def test_margins_and_labels_reach_the_trainer(reader: RewardInput, tmp_path: Path) -> None:
    rated = [row | {"rating": "better", "chosen_safe": True, "rejected_safe": False} for row in pairs()]
    found = read(reader, tmp_path, rated, pairs(8, word="Other"), margins="large", held_share=0.1)
    margins = {(one.margin, one.chosen_label, one.rejected_label) for one in found.examples}
    assert margins == {(2.0, True, False), (0.0, None, None)}
    assert found.without_margin == sum(one.margin == 0 for one in found.examples) > 0
    assert found.labels == 2 * (found.comparisons - found.without_margin)


def test_a_label_counts_once_however_often_its_answer_is_compared(reader: RewardInput, tmp_path: Path) -> None:
    rows = [{"prompt": "Ask", "response": f"a {place}", "is_safe": place == 0} for place in range(6)]
    found = read(reader, tmp_path, [*rows, *pairs(40)], held_share=0.05)
    assert "Ask" not in {answer.messages[0].content for answer in found.ids}
    own = [one for one in found.examples if one.chosen_label is not None or one.rejected_label is not None]
    assert sum(one.rejected is not None for one in own) == 4
    assert sum((one.chosen_label is not None) + (one.rejected_label is not None) for one in own) == 6


def test_lists_of_answers_are_compared_each_with_each(reader: RewardInput, tmp_path: Path) -> None:
    rows = [{"prompt": f"Ask {place}", "chosen": ["a", "b"], "rejected": ["c", "d", "e"]} for place in range(12)]
    found = read(reader, tmp_path, rows)
    assert len(found.examples) == 9 * 6
    assert len(found.held) == 3


def test_what_does_not_fit_is_a_bad_row_with_both_numbers(reader: RewardInput, tmp_path: Path) -> None:
    long = [
        {"prompt": "Ask", "chosen": "good", "rejected": "word " * 300},
        {"prompt": "Ask", "response": "word " * 300, "is_safe": False},
    ]
    found = read(reader, tmp_path, [*pairs(), *long, {"prompt": "x"}])
    assert [row.line for row in found.bad] == [23, 21, 22]
    tokens = len(reader.token_ids(Prompt((), (Message("user", "Ask"),)), "word " * 300))
    assert found.bad[1].reason == f"prompt and answer have {tokens} tokens, and the context is 256"
    assert (found.rows, found.prompts) == (23, 20)


def test_answers_that_are_the_same_tokens_are_no_comparison(tmp_path: Path) -> None:
    """Many templates strip the answer: such a pair would teach nothing."""
    reader = inspected(str(tiny.chatml(tmp_path / "chat", family="Gemma's format")), None, None).reader
    same = [
        {"prompt": "Ask", "chosen": "good", "rejected": " good\n"},
        {"prompt": "Ask", "chosen": ["x", "good"], "rejected": ["bad", "good "]},
    ]
    found = read(reader, tmp_path, [*pairs(), *same])
    assert [row.line for row in found.bad] == [21, 22]
    assert found.bad[0].reason.startswith("the better answer and the worse one are the same tokens")


def test_a_mix_says_what_it_used(reader: RewardInput, tmp_path: Path) -> None:
    found = read(reader, tmp_path, pairs(200), pairs(200, word="Other"), shares=(0.9, 0.1))
    first, second = found.uses
    assert (first.name, first.share, second.share) == ("0.jsonl", 0.9, 0.1)
    assert first.left_over == 0
    assert second.left_over > 100
    assert len(found.examples) == first.used + second.used
    assert second.used / len(found.examples) == pytest.approx(0.1, abs=0.06)


def test_the_same_files_give_the_same_examples(reader: RewardInput, tmp_path: Path) -> None:
    rows = [*pairs(), *({"prompt": f"Ask {n % 7}", "response": f"r{n}", "is_safe": n % 3 > 0} for n in range(30))]
    first, second = (read(reader, tmp_path, rows, pairs(9, word="O"), shares=(1, 1)) for _ in range(2))
    assert first == second
    assert first.examples != read(reader, tmp_path, rows, pairs(9, word="O"), shares=(1, 1), seed=1).examples


@pytest.mark.parametrize(
    ("rows", "options", "error", "reason"),
    [
        (pairs(9), {}, RunError, "there are 9 prompts to train on; at least 10"),
        (pairs(12), {"held_share": 0.05}, SettingsError, "--held-out 0.05 of 12 prompts is 0"),
        ([{"prompt": f"Ask {n}", "response": "a", "is_safe": True} for n in range(20)], {}, RunError,
         "no comparisons to train on"),
        ([{}] * 20, {}, RunError, "none of the 20 rows"),
        (pairs(20), {"context": 4}, RunError, "prompt and answer have .* tokens, and the context is 4"),
    ],
)  # fmt: skip
def test_too_little_is_refused(
    reader: RewardInput, tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], error: Any, reason: str
) -> None:
    with pytest.raises(error, match=reason):
        read(reader, tmp_path, rows, **options)


def test_a_role_that_the_template_has_not_is_a_bad_row(reader: RewardInput, tmp_path: Path) -> None:
    dialog = [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "42"}, {"role": "user", "content": "So?"}]
    found = read(reader, tmp_path, [*pairs(40), {"prompt": dialog, "chosen": "yes", "rejected": "no"}])
    assert (found.rows, found.prompts) == (41, 40)
    (bad,) = found.bad
    assert "role must be" in bad.reason


def test_answers_in_csv_that_are_json_stay_texts(reader: RewardInput, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    rows = [f"Ask {place},good {place},bad" for place in range(40)]
    file.write_text("\n".join(["prompt,chosen,rejected", *rows, 'List two,"[""2"", ""3""]","[4, 6]"']) + "\n")
    options = {"kind": "safety", "margins": "small", "context": 256, "held_share": 0.25, "seed": 0}
    found = material([Part((str(file),))], reader=reader, **options)  # type: ignore[arg-type]
    assert not found.bad
    assert (found.rows, found.prompts) == (41, 41)


def test_a_file_of_csv_is_read_alike(reader: RewardInput, tmp_path: Path) -> None:
    """A CSV file has texts only: labels and ratings are read as what they say."""
    rows = [row | {"rating": 2, "chosen_safe": True} for row in pairs()]
    shown = [("2", "True"), ("2.0", "1.0"), ("better", "1")]  # 2.0 and 1.0: a column of numbers with gaps
    lines = ["prompt,chosen,rejected,rating,chosen_safe"]
    lines += [",".join([*list(row.values())[:3], *shown[place % 3]]) for place, row in enumerate(rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found = material(
        [Part((str(tmp_path / "a.csv"),))], "safety", "small", reader, context=256, held_share=0.25, seed=0
    )  # fmt: skip
    assert json.dumps([repr(one) for one in found.examples]) == json.dumps(
        [repr(one) for one in read(reader, tmp_path, rows).examples]
    )
