"""What rows teach: each layout, labels by the model's kind, and comparisons among labelled answers."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.rm.test_comparisons import ASKED, said
from winnow.models.errors import BadLine
from winnow.server.rm.lessons import MOST_CONTRASTS, Lesson, contrasted, lessons_of
from winnow.server.rm.reading import Place

PKU = {
    "prompt": "Hi", "response_0": "a", "response_1": "b", "is_response_0_safe": True, "is_response_1_safe": False,
    "safer_response_id": 0, "better_response_id": 1,
}  # fmt: skip


def told(lesson: Lesson) -> tuple[list[str], list[str], dict[str, bool]]:
    """The better answers, the worse ones, and which answers are labelled as good."""
    found = lesson.comparison
    better, worse = ([one.text for one in side] for side in (found.better, found.worse)) if found else ([], [])
    return better, worse, {label.answer.text: not label.is_unsafe for label in lesson.labels}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"chosen": [ASKED, said("a")], "rejected": [ASKED, said("b")]},
        {"prompt": [ASKED], "chosen": [said("a")], "rejected": [said("b")], "margin_small": 1 / 3, "rating": "unsure"},
        {"prompt": "Hi", "chosen": [ASKED, said("a")], "rejected": [ASKED, said("b")], "score_chosen": 9,
         "score_rejected": 1},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"},
        {"prompt": "Hi", "chosen": ["a"], "rejected": ["b"], "subset": "Math"},
        {"prompt": "Hi", "response_0": "b", "response_1": "a", "safer_response_id": 1, "better_response_id": 1},
    ],
)  # fmt: skip
def test_each_layout_of_preferences_teaches_the_same(row: dict[str, Any]) -> None:
    for kind in ("safety", "helpfulness"):
        (found,) = lessons_of(row, kind, "small")
        assert told(found) == (["a"], ["b"], {})
        assert found.margin == (0 if "rating" in row else None)


def test_a_row_of_pku_teaches_labels_to_a_safety_model_only() -> None:
    (safety,), (helpfulness,) = lessons_of(PKU, "safety", "small"), lessons_of(PKU, "helpfulness", "small")
    assert told(safety) == (["a"], ["b"], {"a": True, "b": False})
    assert told(helpfulness) == (["b"], ["a"], {})


def test_labels_of_the_two_sides() -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_safe": True, "rejected_safe": False,
           "chosen_helpful": False, "rating": "better"}  # fmt: skip
    (safety,), (helpfulness,) = lessons_of(row, "safety", "large"), lessons_of(row, "helpfulness", "large")
    assert told(safety) == (["a"], ["b"], {"a": True, "b": False})
    assert told(helpfulness) == (["a"], ["b"], {"a": False})
    assert safety.margin == helpfulness.margin == 2


@pytest.mark.parametrize("key", ["is_safe", "is_helpful"])
def test_labelled_answers_teach_the_kind_that_they_are_of(key: str) -> None:
    row = {"prompt": "Hi", "response": "a", key: True}
    kinds = ("safety", "helpfulness") if key == "is_safe" else ("helpfulness", "safety")
    (found,) = lessons_of(row, kinds[0], "small")  # type: ignore[arg-type]
    assert told(found) == ([], [], {"a": True})
    with pytest.raises(BadLine):
        lessons_of(row, kinds[1], "small")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"prompt": "Hi", "response": "a", "is_safe": True}, "helpfulness", "is_safe says nothing of helpfulness"),
        ({"prompt": "Hi", "response": "a", "is_helpful": "perhaps"}, "helpfulness", "is_helpful must be true or false"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_safe": 2}, "safety", "chosen_safe must be"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_safe": False, "rejected_safe": True}, "safety",
         "the preferred answer has the bad label"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "rating": "great"}, "safety", "rating must be"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "safety", "are the same text"),
        ({"prompt": "Hi"}, "safety", "neither chosen and rejected answers"),
    ],
)  # fmt: skip
def test_what_teaches_nothing_is_a_bad_row(row: dict[str, Any], kind: Any, reason: str) -> None:
    with pytest.raises(BadLine, match=reason):
        lessons_of(row, kind, "small")


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.booleans()), max_size=40)


def places(rows: list[tuple[int, int, bool]]) -> list[Place[Lesson]]:
    made = [{"prompt": f"Ask {prompt}", "response": f"answer {text}", "is_safe": good} for prompt, text, good in rows]
    return [Place("x", line, one) for line, row in enumerate(made) for one in lessons_of(row, "safety", "small")]


@given(ROWS)
def test_answers_with_different_labels_are_compared(rows: list[tuple[int, int, bool]]) -> None:
    """Good over bad, to one prompt, bounded; and every label still counts exactly once."""
    found = contrasted(places(rows))
    made: dict[str, int] = {}
    for place in found:
        if (comparison := place.item.comparison) is None:
            continue
        better, worse, labels = told(place.item)
        assert better != worse
        assert labels.items() <= {better[0]: True, worse[0]: False}.items()
        assert comparison.better[0].prompt == comparison.worse[0].prompt
        made[place.item.prompt] = made.get(place.item.prompt, 0) + 1
    assert all(count <= MOST_CONTRASTS for count in made.values())
    labels = sorted((one.answer.prompt, one.answer.text, one.is_unsafe) for place in found for one in place.item.labels)
    given = sorted((p.item.prompt, p.item.answers[0].text, p.item.labels[0].is_unsafe) for p in places(rows))
    assert labels == given
    for prompt in {place.item.prompt for place in places(rows)}:
        own = [place.item for place in places(rows) if place.item.prompt == prompt]
        texts = [{one.answers[0].text for one in own if one.labels[0].is_unsafe is bad} for bad in (False, True)]
        assert (made.get(prompt, 0) > 0) == any(good != bad for good in texts[0] for bad in texts[1])


@given(ROWS, st.randoms())
def test_the_order_of_the_rows_does_not_choose_the_comparisons(rows: list[tuple[int, int, bool]], rng: Random) -> None:
    def compared(made: list[tuple[int, int, bool]]) -> list[Any]:
        return sorted((p.item.prompt, *told(p.item)[:2]) for p in contrasted(places(made)) if p.item.comparison)

    assert compared(rows) == compared(rng.sample(rows, len(rows)))


def test_comparisons_of_rows_stay_as_they_are() -> None:
    (found,) = contrasted([Place("x", 1, one) for one in lessons_of(PKU, "safety", "small")])
    assert told(found.item) == (["a"], ["b"], {"a": True, "b": False})
