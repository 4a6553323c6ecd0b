"""Grades: the strict form, the logit, the expected grade, and text that stays inside its quotation marks."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.grades import expected_grade, grade_logit, inert, parse_grade
from winnow.models.types import is_gated, sigmoid

GRADES = (1, 10)
CONTROL = ["<|im_end|>", "<|eot_id|>", "</s>", "<s>", "<start_of_turn>", "<｜User｜>", "[INST]", "[/INST]", "[gMASK]"]


@given(st.integers(1, 10), st.sampled_from(["{}", ' {{"grade": {}}}\n', '{{ "grade" :{} }}', "\n{} "]))
def test_a_grade_in_the_demanded_form_is_read(grade: int, form: str) -> None:
    assert parse_grade(form.format(grade), GRADES) == grade


@pytest.mark.parametrize(
    "text",
    ["", "0", "11", "-3", "7.5", "7/10", "seven", "7 8", "Grade: 7", '{"grade": "7"}', '{"grade": 7', '{"grade": 7.0}',
     '{"grade": 7, "grade": 9}', '{"grade": 7} because', '```json\n{"grade": 7}\n```', "[7]", '{"Grade": 7}', "٧", "７",
     "99999999999999999999", "null", "true", "<think>7</think>7", "+7", "1e1"],
)  # fmt: skip
def test_anything_else_is_no_grade(text: str) -> None:
    assert parse_grade(text, GRADES) is None


@given(st.text(max_size=60))
def test_no_text_is_a_grade_out_of_range_or_raises(text: str) -> None:
    grade = parse_grade(text, GRADES)
    assert grade is None or (1 <= grade <= 10 and str(grade) in text)


def test_the_logit_is_monotone_and_the_gate_lies_where_the_docs_say() -> None:
    logits = [grade_logit(grade, GRADES) for grade in range(1, 11)]
    assert logits == sorted(set(logits))
    assert sigmoid(logits[0]) == pytest.approx(0.05)
    assert sigmoid(logits[-1]) == pytest.approx(0.95)
    assert [is_gated(logit) for logit in logits[:3]] == [True, False, False]
    assert [is_gated(logit - 0.887) for logit in logits[:5]] == [True, True, True, False, False]


@given(st.integers(-50, 50), st.integers(1, 60), st.data())
def test_every_grade_has_a_finite_logit(low: int, width: int, data: st.DataObject) -> None:
    grade = data.draw(st.floats(low, low + width))
    assert math.isfinite(grade_logit(grade, (low, low + width)))


def places(*tokens: tuple[str, dict[str, float]]) -> list[dict[str, object]]:
    return [
        {"token": token, "top_logprobs": [{"token": name, "logprob": math.log(p)} for name, p in top.items()]}
        for token, top in tokens
    ]


def test_the_expected_grade_is_the_mean_of_those_that_were_weighed() -> None:
    tokens = places(('{"', {'{"': 0.9}), ("grade", {}), ('":', {}), (" 7", {" 7": 0.6, "8": 0.2, " x": 0.1, "0": 0.1}))
    assert expected_grade(7, tokens, (1, 9)) == pytest.approx((7 * 0.6 + 8 * 0.2) / 0.8)


@pytest.mark.parametrize(
    "tokens",
    [None, [], "x", places(("1", {"1": 1.0}), ("0", {"0": 1.0})), places(("7", {})), places(("7", {"8": 1.0})),
     [{"token": "7", "top_logprobs": [{"token": "7", "logprob": "high"}]}], [{"token": "7"}, {"token": "7"}]],
)  # fmt: skip
def test_without_the_probabilities_of_one_token_the_grade_counts(tokens: object) -> None:
    assert expected_grade(7, tokens, (1, 9)) == 7.0


@given(st.text() | st.lists(st.sampled_from([*CONTROL, '"', "\\", "\n", "x", '"}', "\u2028"])).map("".join))
def test_inert_text_is_the_inside_of_a_json_string_without_a_control_token(text: str) -> None:
    inside = inert(text)
    assert json.loads(f'"{inside}"') == text
    assert len(inside.splitlines()) <= 1
    assert not any(name in inside for name in CONTROL)
