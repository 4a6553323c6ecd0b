"""Encoders by their own files: what makes their score, and what is refused in one line before anything is loaded."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.engines import tiny, tiny_encoders
from winnow.models.engines.encoder_files import LARGEST, Encoder, parameters, stored_numbers
from winnow.models.engines.scorers import Scorer, engine_kind, inspect_scorer
from winnow.models.errors import CheckpointError

TWO = ("neutral", "toxic")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    for family in ("bert", "roberta", "deberta-v2", "distilbert", "electra", "albert", "modernbert"):
        tiny_encoders.encoder(folder / family, family)
    tiny_encoders.encoder(folder / "two", "roberta", TWO)
    tiny_encoders.encoder(folder / "six", "bert", tiny_encoders.TOXICITIES)
    return folder


def copied(built: Path, tmp_path: Path, name: str, card: str | None = None) -> Path:
    folder = Path(shutil.copytree(built / name, tmp_path / name))
    return folder if card is None else tiny_encoders.card(folder, card)


def encoder_of(scorer: Scorer) -> Encoder:
    assert scorer.encoder
    return scorer.encoder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        inspect_scorer(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_label_needs_no_card(built: Path) -> None:
    for family in ("bert", "roberta", "deberta-v2", "distilbert", "electra", "albert", "modernbert"):
        found = inspect_scorer(str(built / family))
        assert (found.kind, found.is_derived, found.card.adapter) == ("transformers", True, "encoder")
        assert (encoder_of(found).rows, encoder_of(found).reduce) == ((0,), "raw")
        assert found.card.context == encoder_of(found).context == 512, "RoBERTa's table has 514 positions"
        assert engine_kind(str(built / family), None) == "transformers"


def test_a_config_that_names_no_labels_has_those_of_the_head(built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path, "bert")
    tiny.edit_config(folder, id2label=None, label2id=None, num_labels=None)
    assert encoder_of(inspect_scorer(str(folder))).labels == ("LABEL_0",)


@pytest.mark.parametrize(
    ("card", "rows", "reduce"),
    [
        ('labels = ["neutral", "toxic"]', (0, 1), "difference"),
        ('labels = ["toxic", "neutral"]', (1, 0), "difference"),
        ("labels = [1, 0]", (1, 0), "difference"),
        ('labels = ["neutral"]', (0,), "raw"),
        ('labels = ["toxic"]\nreduce = "minus_max"', (1,), "minus_max"),
        ('reduce = "minus_max"', (0, 1), "minus_max"),
    ],
)
def test_labels_are_named_or_numbered(
    built: Path, tmp_path: Path, card: str, rows: tuple[int, ...], reduce: str
) -> None:
    folder = copied(built, tmp_path, "two", f'adapter = "encoder"\n{card}\n')
    assert (encoder_of(inspect_scorer(str(folder))).rows, encoder_of(inspect_scorer(str(folder))).reduce) == (
        rows,
        reduce,
    )


@pytest.mark.parametrize(
    ("name", "card", "reason"),
    [
        ("two", None, "it has 2 labels (neutral, toxic): say in a card which"),
        ("six", None, "it has 6 labels (toxic, severe_toxic"),
        ("two", 'adapter = "encoder"\nlabels = ["safe", "toxic"]', "no label 'safe'; its labels are neutral, toxic"),
        ("two", 'adapter = "encoder"\nlabels = [2, 1]', "it has no label 2; its labels are neutral, toxic"),
        ("two", 'adapter = "encoder"\nlabels = [0, "neutral"]', "names a label twice"),
        ("two", "scale = 2", "an encoder, but card two has adapter linear"),
        ("two", 'architectures = ["BertForSequenceClassification"]\nadapter = "encoder"', "is for BertForSequence"),
    ],
)
def test_labels_that_are_not_known_are_refused(
    built: Path, tmp_path: Path, name: str, card: str | None, reason: str
) -> None:
    assert reason in refusal(copied(built, tmp_path, name, card))


def test_a_card_for_an_encoder_does_not_serve_a_decoder(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "rm", "llama", tiny.byte_level())
    assert "no encoder that is known, but card rm has adapter encoder" in refusal(
        tiny_encoders.card(folder, 'adapter = "encoder"\n')
    )


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("bert", lambda folder: tiny.edit_tensors(folder, {"classifier.weight": ""}), "no trained head"),
        ("bert", lambda folder: tiny.edit_tensors(folder, {"bert.pooler.dense.weight": ""}), "bert.pooler.dense"),
        ("roberta", lambda folder: tiny.edit_tensors(folder, {"classifier.out_proj.weight": ""}), "no trained head"),
        ("deberta-v2", lambda folder: tiny.edit_tensors(folder, {"pooler.dense.weight": ""}), "no tensor pooler"),
        ("deberta-v2", lambda folder: tiny.edit_tensors(folder, {"classifier.bias": ""}), "no tensor classifier.bias"),
        ("bert", lambda folder: tiny.edit_tensors(folder, classifier__bias=torch.ones(3)), "which is no linear head"),
        ("bert", lambda folder: tiny.edit_config(folder, architectures=["BertForMaskedLM"]), "encoder without a head"),
        ("bert", lambda folder: tiny.edit_config(folder, architectures=None), "it is a none, an encoder without"),
        ("two", lambda folder: tiny.edit_config(folder, id2label={"0": "x"}), "2 rows, but config.json has 1 labels"),
        ("two", lambda folder: tiny.edit_config(folder, id2label=None, num_labels=3), "config.json has 3 labels"),
        ("two", lambda folder: tiny.edit_config(folder, num_labels=3), "2 labels in id2label, but num_labels 3"),
        ("two", lambda folder: tiny.edit_config(folder, id2label={"0": "a", "2": "b"}), "does not number its labels"),
        ("two", lambda folder: tiny.edit_config(folder, id2label=["a", "b"]), "no mapping from numbers to names"),
        ("bert", lambda folder: tiny.edit_config(folder, num_hidden_layers=3), "no tensor of layer 2"),
        ("distilbert", lambda folder: tiny.edit_config(folder, n_layers=3), "no tensor of layer 2"),
        ("bert", lambda folder: tiny.edit_config(folder, num_hidden_layers=1), "but its config asks for 1 layers"),
        (
            "bert",
            lambda folder: tiny.edit_tensors(folder, {"bert.encoder.layer.1.output.dense.bias": ""}),
            "layer 1 has no output.dense.bias, as another has",
        ),
        ("bert", lambda folder: tiny.edit_config(folder, max_position_embeddings=400), "max_position_embeddings 400"),
        ("bert", lambda folder: tiny.edit_config(folder, vocab_size=7), "its config asks for [7, 64]"),
        ("bert", lambda folder: tiny.edit_config(folder, max_position_embeddings=None), "no max_position_embeddings"),
        ("bert", lambda folder: tiny.edit_config(folder, auto_map={"AutoModel": "x.Y"}), "which is never run"),
        (
            "bert",
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "`winnow convert bert OUT`",
        ),
        ("bert", lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "truncated or not a safetens"),
    ],
)
def test_what_would_load_and_score_wrongly_is_refused(
    built: Path, tmp_path: Path, name: str, change: Change, reason: str
) -> None:
    folder = copied(built, tmp_path, name, 'adapter = "encoder"\nreduce = "minus_max"\n')
    change(folder)
    assert reason in refusal(folder)


def test_a_large_encoder_is_refused(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(built, tmp_path, "bert")
    monkeypatch.setattr("winnow.models.engines.encoder_files.LARGEST", 1000)
    assert "at most 0 million are served" in refusal(folder)
    assert LARGEST > 435e6, "OpenAssistant's DeBERTa has 435 million"


def test_shipped_cards_are_found_by_name(tmp_path: Path) -> None:
    deberta = tiny_encoders.encoder(tmp_path / "reward-model-deberta-v3-large-v2", "deberta-v2")
    six = tiny_encoders.encoder(tmp_path / "toxic-bert", "bert", tiny_encoders.TOXICITIES)
    two = tiny_encoders.encoder(tmp_path / "roberta_toxicity_classifier", "roberta", TWO)
    found = [inspect_scorer(str(folder)) for folder in (deberta, six, two)]
    assert [(one.card.name, one.card.reads, one.card.calibrated) for one in found] == [
        ("oasst-deberta", "pair", False),
        ("toxic-bert", "answer", False),
        ("roberta-toxicity", "answer", False),
    ]
    assert [encoder_of(one).reduce for one in found] == ["raw", "minus_max", "difference"]


def test_the_cards_context_counts_as_far_as_the_model_reads(built: Path, tmp_path: Path) -> None:
    for asked, context in ((100, 100), (4096, 512)):
        folder = copied(built, tmp_path / str(asked), "roberta", f'adapter = "encoder"\ncontext = {asked}\n')
        assert encoder_of(inspect_scorer(str(folder))).context == context


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "distilbert", "electra", "modernbert"])
def test_the_size_by_the_config_is_about_that_of_the_tensors(built: Path, family: str) -> None:
    folder = built / family
    assert parameters(tiny_encoders.config_of(folder)) == pytest.approx(stored_numbers(str(folder)), rel=0.25)


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=6, max_size=6))
def test_minus_the_largest_is_a_number_if_all_are(logits: list[float]) -> None:
    score = Encoder(tiny_encoders.TOXICITIES, 512, tuple(range(6)), "minus_max").score(logits)
    assert math.isnan(score) if any(map(math.isnan, logits)) else score == -max(logits)


def test_inspection_imports_neither_torch_nor_transformers(built: Path) -> None:
    """Engines are forked after it, which they cannot be once torch has computed."""
    code = (
        "import sys; from winnow.models.engines.scorers import inspect_scorer; "
        "import winnow.models.engines.registry, winnow.server.memory_plan; "
        f"inspect_scorer({str(built / 'bert')!r}); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
