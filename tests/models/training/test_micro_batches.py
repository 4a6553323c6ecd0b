"""The order of a training's examples, and their tensors."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from winnow.models.training.examples import Example, Recipe
from winnow.models.training.micro_batches import Collator, columns, order_of


def examples(count: int, seed: int = 0) -> list[Example]:
    rng = Random(seed)
    return [Example((1,) * rng.randint(1, 90), (1,) * rng.randint(1, 90)) for _ in range(count)]


@given(
    st.integers(1, 300), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.3, 1, 2, 2.5]), st.integers(0, 9)
)
def test_each_epoch_has_each_example_once(count: int, batch: int, micro: int, epochs: float, seed: int) -> None:
    recipe = Recipe(epochs=epochs, batch=batch, micro_batch=micro, seed=seed)
    order = order_of(examples(count), recipe)
    seen = [index for indices in order for index in indices]
    assert len(seen) == max(1, round(epochs * count))
    for start in range(0, len(seen), count):
        assert max(Counter(seen[start : start + count]).values()) == 1
    assert order.micro_batches == order_of(examples(count), recipe).micro_batches
    assert max(map(len, order)) * order.per_step <= batch
    assert batch % order.per_step == 0
    assert order.steps in order.ends


def test_micro_batches_pad_little_and_the_seed_decides_their_order() -> None:
    given_examples = examples(2_000)
    lengths = [max(len(example.chosen), len(example.rejected or ())) for example in given_examples]
    order = order_of(given_examples, Recipe(batch=32, micro_batch=8))
    padding = sum(len(indices) * max(lengths[index] for index in indices) for indices in order)
    assert padding < 1.05 * sum(lengths)
    firsts = [max(lengths[index] for index in indices) for indices in order]
    assert firsts != sorted(firsts)
    assert order.micro_batches != order_of(given_examples, Recipe(batch=32, micro_batch=8, seed=1)).micro_batches


def test_the_tensors_of_pairs_and_of_labelled_answers() -> None:
    rows = columns(
        [
            Example((5, 6, 2), (7, 2), 0.5, True, None),
            Example((8, 2), None, chosen_label=False),
            Example((9, 2), (9, 9, 9, 2), 0.25, None, False),
        ]
    )
    tensors = Collator(pad_id=0)([{name: values[place] for name, values in rows.items()} for place in range(3)])
    assert tensors["input_ids"].tolist() == [[5, 6, 2, 0], [8, 2, 0, 0], [9, 2, 0, 0], [7, 2, 0, 0], [9, 9, 9, 2]]
    assert torch.equal(tensors["attention_mask"].bool(), tensors["input_ids"] != 0)
    assert tensors["pairs"].tolist() == [0, 2]
    assert tensors["margin"].tolist() == [0.5, 0.25]
    assert tensors["target"].tolist() == [1, 0, -1, -1, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 0},
        {"micro_batch": 0},
        {"epochs": 0},
        {"epochs": float("nan")},
        {"epochs": float("inf")},
        {"auxiliary": float("nan")},
        {"learning_rate": -1e-5},
        {"label_smoothing": 0.5},
        {"auxiliary": -1.0},
        {"lora_rank": 0},
        {"upper_layers": 0},
        {"lora_rank": 8, "upper_layers": 2},
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Recipe(**fields)  # type: ignore[arg-type]


def test_an_answer_alone_needs_its_label_and_an_answer_needs_tokens() -> None:
    with pytest.raises(ValueError, match="needs its label"):
        Example((1, 2), None)
    with pytest.raises(ValueError, match="no tokens"):
        Example((1, 2), ())
