"""Layouts of preferences."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.rm.test_rows import PKU
from winnow.models.errors import BadLine
from winnow.models.types import Message
from winnow.server.rm.comparisons import Comparison, rows_of, safety_labels
from winnow.server.rm.rows import Answer, Labelled

HI = (Message("user", "Hi"),)
ASKED = {"role": "user", "content": "Hi"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},  # TRL, explicit; RewardBench 1
        {"prompt": [ASKED], "chosen": [said("a")], "rejected": [said("b")]},  # winnow distill
        {"chosen": [ASKED, said("a")], "rejected": [ASKED, said("b")]},  # TRL, implicit
        {"prompt": "Hi", "chosen": [ASKED, said("a")], "rejected": [ASKED, said("b")]},
        {  # UltraFeedback, binarised
            "prompt": "Hi",
            "messages": [ASKED, said("a")],
            "chosen": [ASKED, said("a")],
            "rejected": [ASKED, said("b")],
        },
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"},  # hh-rlhf
        {"prompt": "Hi", "chosen": ["a"], "rejected": ["b"], "num_correct": 1},  # RewardBench 2
        {"prompt": "Hi", "response_0": "b", "response_1": "a", "safer_response_id": 1},
    ],
)
def test_each_layout_says_the_same(row: dict[str, Any]) -> None:
    (found,) = rows_of(row, "safety")
    assert isinstance(found, Comparison)
    assert (found.better, found.worse) == ((Answer(HI, "a"),), (Answer(HI, "b"),))
    assert found.better_first is (False if "response_0" in row else None)


def test_a_row_of_pku_is_a_comparison_and_two_labels_by_the_role() -> None:
    for role, better in (("safety", "a"), ("helpfulness", "b")):
        comparison, *labels = rows_of(PKU, role)
        assert isinstance(comparison, Comparison)
        assert comparison.better[0].text == better
        assert comparison.better_first is (better == "a")
        said = [one.is_unsafe for one in labels if isinstance(one, Labelled)]
        assert said == ([False, True] if role == "safety" else []), "labels of safety say nothing of helpfulness"


def test_sides_may_have_labels() -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_safe": True, "rejected_safe": False}
    _, *labels = rows_of(row, "safety")
    assert labels == [Labelled(Answer(HI, "a"), False), Labelled(Answer(HI, "b"), True)]


def test_labels_of_helpfulness_count_for_a_helpfulness_model() -> None:
    row = {"prompt": "Hi", "response": "a", "is_safe": True, "is_helpful": False}
    for role, is_bad in (("safety", False), ("helpfulness", True)):
        assert rows_of(row, role) == [Labelled(Answer(HI, "a"), is_bad)]
    with pytest.raises(BadLine, match="is_safe says nothing of helpfulness"):
        rows_of({"prompt": "Hi", "response": "a", "is_safe": True}, "helpfulness")


def test_a_labelled_answer_is_no_comparison() -> None:
    (found,) = rows_of({"prompt": "Hi", "response": "a", "is_safe": True}, "safety")
    assert isinstance(found, Labelled)


def test_several_right_answers_stand_against_all_wrong_ones() -> None:
    (found,) = rows_of({"prompt": "Hi", "chosen": ["a", "b"], "rejected": ["c", "d", "e"], "subset": "Ties"}, "safety")
    assert isinstance(found, Comparison)
    assert (len(found.better), len(found.worse), found.category) == (2, 3, "Ties")


@pytest.mark.parametrize(
    ("keys", "rating", "margin"),
    [
        ({"rating": "better", "margin_small": 0.5}, "better", 0.5),
        ({"rating": 3}, "3", None),
        ({"rating": 3.0}, "3", None),  # a table with gaps has floats
        ({"rating": 2.5}, "2.5", None),
        ({"score_chosen": 8.0, "score_rejected": 5}, None, 3.0),
        ({"margin": 1}, None, 1.0),
        ({}, None, None),
    ],
)
def test_how_clearly_an_answer_is_better(keys: dict[str, Any], rating: str | None, margin: float | None) -> None:
    (found,) = rows_of({"prompt": "Hi", "chosen": "a", "rejected": "b", **keys}, "safety")
    assert isinstance(found, Comparison)
    assert (found.rating, found.margin) == (rating, margin)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Hi", "chosen": "a"}, "the row has neither chosen and rejected"),
        ({"chosen": "a", "rejected": "b"}, "hold no prompt"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "are the same text"),
        ({"prompt": "Hi", "chosen": "a", "rejected": 3}, "rejected must be a list of messages"),
        ({"prompt": "Hi", "chosen": ["a"], "rejected": []}, "must hold an answer each"),
        ({"prompt": "Yo", "chosen": [ASKED, said("a")], "rejected": [ASKED, said("b")]}, "prompt is not the one"),
        ({"chosen": [ASKED, said("a")], "rejected": [said("b")]}, "rejected before the answer does not end"),
        ({"chosen": [ASKED, said("a")], "rejected": [ASKED]}, "must end with the assistant"),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Yo\n\nAssistant: b"},
            "differ before their last turn",
        ),
        ({"prompt": "Hi", "response_0": "a", "response_1": "b", "safer_response_id": 2}, "must be 0 or 1"),
        ({"prompt": "Hi", "response_0": "a", "response_1": "b", "better_response_id": 0}, "safer_response_id must"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "rating": [1]}, "rating must be"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "rating": True}, "rating must be"),
        ({"prompt": "Hi", "chosen": "[{'content': 'a', 'role': 'x'}]", "rejected": "b"}, "messages written as text"),
        ({"prompt": "Hi", "chosen": "a", "rejected": '[ {"role": "assistant"}]'}, "messages written as text"),
    ],
)
def test_a_bad_row_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        rows_of(row, "safety")


def test_a_labelled_preference_is_two_labelled_answers_to_a_calibration() -> None:
    row = {"prompt": "How?", "chosen": "No.", "rejected": "So.", "chosen_safe": True, "rejected_safe": False}
    found = {label.answer.text: label.is_unsafe for label in safety_labels(row)}
    assert found == {"No.": False, "So.": True}
    (single,) = safety_labels({"prompt": "How?", "response": "So.", "is_safe": False})
    assert single.is_unsafe
    with pytest.raises(BadLine):
        safety_labels({"prompt": "How?", "chosen": "No.", "rejected": "So."})
