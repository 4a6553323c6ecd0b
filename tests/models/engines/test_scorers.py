"""Reward models that cannot be served are refused by their own files, in one line that says what would help."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from tests.models.engines import tiny
from winnow.models import demo
from winnow.models.engines.heads import PLAIN
from winnow.models.engines.hub import snapshot
from winnow.models.engines.scorers import card_of, inspect_scorer
from winnow.models.errors import CheckpointError

GUARD = 'adapter = "labels"\nlabels = ["safe", "unsafe"]\n'


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.byte_level()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("built")
    tiny.checkpoint(folder / "rm", "llama", tokenizer)
    tiny.checkpoint(folder / "causal", "llama", tokenizer, causal=True)
    tiny.beaver(folder / "beaver-7b-v1.0-cost", tiny.byte_level(None), kind="LlamaModelForScore")
    return folder


@pytest.fixture
def rm(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "rm", tmp_path / "rm"))


@pytest.fixture
def beaver(built: Path, tmp_path: Path) -> Path:
    name = "beaver-7b-v1.0-cost"
    return Path(shutil.copytree(built / name, tmp_path / name))


def refusal(folder: Path, card: str | None = None) -> str:
    path = folder.parent / "card.toml"
    if card is not None:
        path.write_text(card, encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        inspect_scorer(str(folder), path if card is not None else None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_demo_models_have_cards_of_their_own() -> None:
    for name in ("safety-rm", "helpfulness-rm"):
        found = inspect_scorer(str(demo.weights(name)))  # type: ignore[arg-type]
        assert (found.head, found.card.template, found.card.calibrated) == (PLAIN, "llama2", True)


def test_a_plain_classifier_needs_no_card(rm: Path) -> None:
    found = inspect_scorer(str(rm))
    assert (found.head, found.is_derived, found.card.scale, found.card.calibrated) == (PLAIN, True, 1.0, False)


def test_a_classifier_whose_config_names_no_labels_has_one(rm: Path) -> None:
    """transformers and vLLM take that for two, and vLLM failed on the head's shape while it loaded."""
    tiny.edit_config(rm, id2label=None, label2id=None)
    head = inspect_scorer(str(rm)).head
    assert not head.is_plain
    assert head.overrides == {"num_labels": 1, "architectures": ["LlamaForSequenceClassification"]}


def test_a_shipped_card_is_found_for_a_beaver(beaver: Path) -> None:
    found = inspect_scorer(str(beaver))
    assert (found.card.name, found.card.scale, found.is_derived) == ("beaver-cost", -1, False)
    assert (found.head.weight, found.head.bias) == ("score_head.weight", "score_head.bias")
    assert found.card.context == 512, "at most the checkpoint's own"
    assert found.head.overrides == {"num_labels": 1, "architectures": ["LlamaForCausalLM"], "bias": False}


@pytest.mark.parametrize("head", ["regression_head", "value_head", "v_head.summary", "reward"])
def test_the_head_is_found_under_any_name(rm: Path, head: str) -> None:
    tiny.edit_tensors(rm, {"score.weight": f"{head}.weight"})
    tiny.edit_config(rm, architectures=["LlamaRewardModel"])
    found = inspect_scorer(str(rm)).head
    assert (found.weight, found.architecture) == (f"{head}.weight", "LlamaForCausalLM")


def test_a_card_in_the_folder_is_read_and_one_that_is_given_wins(rm: Path, tmp_path: Path) -> None:
    (rm / "winnow-card.toml").write_text("scale = 2\n")
    assert (inspect_scorer(str(rm)).card.scale, inspect_scorer(str(rm)).card.name) == (2, "rm")
    given = tmp_path / "given.toml"
    given.write_text("scale = 3\n")
    assert inspect_scorer(str(rm), given).card.scale == 3
    assert inspect_scorer(str(rm), given, scale=-4.0).card.scale == -4, "the operator's setting wins"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: tiny.edit_tensors(folder, {"score.weight": ""}), "it has no head, such as score.weight"),
        (lambda folder: tiny.edit_tensors(folder, score__weight=torch.ones(2, 64)), "needs [1, 64]"),
        (lambda folder: tiny.edit_tensors(folder, gate__weight=torch.ones(1, 64)), "name one in a card"),
        (lambda folder: tiny.edit_tensors(folder, gate__bias=torch.ones(3)), "gate.bias, which is neither"),
        (lambda folder: tiny.edit_config(folder, hidden_size=32), "but a reward model of hidden_size 32 needs"),
        (lambda folder: tiny.edit_config(folder, vocab_size=7), "its config asks for [7, 64]"),
        (lambda folder: tiny.edit_config(folder, num_hidden_layers=3), "no tensor of layer 2;"),
        (lambda folder: tiny.edit_config(folder, id2label={"0": "a", "1": "b"}), "config.json has 2 labels"),
        (lambda folder: tiny.edit_config(folder, id2label={"0": "a", "1": "b"}, num_labels=1), "but num_labels 1"),
        (lambda folder: tiny.edit_config(folder, num_labels="one"), "num_labels is 'one', not a number from 1"),
        (lambda folder: tiny.edit_config(folder, id2label=["a"]), "id2label is no mapping from numbers to names"),
        (lambda folder: tiny.edit_config(folder, model_type=None), "config.json has no model_type"),
        (lambda folder: tiny.edit_config(folder, model_type="qwen2"), "LlamaForSequenceClassification, but model_type"),
        (lambda folder: tiny.edit_config(folder, num_hidden_layers="2"), "num_hidden_layers is '2', not a number"),
        (
            lambda folder: tiny.edit_config(folder, auto_map={"AutoModelForSequenceClassification": "x.Y"}),
            "auto_map in config.json says that its LlamaForSequenceClassification is code",
        ),
        (lambda folder: tiny.edit_config(folder, auto_map={"AutoTokenizer": "x.Y"}), "its tokenizer needs code"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}'),
            "has no weight_map from tensors to files",
        ),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
            "has no weight_map from tensors to files",
        ),
        (lambda folder: tiny.edit_config(folder, pad_token_id=1), "its pad token is EOS: say in a card"),
        (lambda folder: tiny.edit_config(folder, architectures=["DebertaV2Model"], model_type="deberta-v2"), "encoder"),
        (lambda folder: tiny.edit_config(folder, architectures=["OddModel"], model_type="odd"), "is not known"),
        (
            lambda folder: tiny.edit_config(folder, auto_map={"AutoModel": "x.Y"}, model_type="chatglm"),
            "needs code from its repository, which is never run",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "`winnow convert rm OUT`",
        ),
    ],
)
def test_what_would_load_and_score_wrongly_is_refused(rm: Path, change: Callable[[Path], None], reason: str) -> None:
    change(rm)
    assert reason in refusal(rm)


@pytest.mark.parametrize("auto_map", [{"AutoTokenizer": ["x.Y", None]}, ["x.Y", None], "x.Y"])
def test_remote_code_of_the_tokenizer_is_refused(rm: Path, auto_map: object) -> None:
    """A list is how older libraries wrote it; a text once ended the start with a traceback."""
    path = rm / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": auto_map}))
    assert "its tokenizer needs code" in refusal(rm)


def test_a_card_vouches_for_a_class_whose_code_is_in_its_repository(rm: Path) -> None:
    tiny.edit_config(rm, auto_map={"AutoModelForSequenceClassification": "x.Y"})
    (rm / "winnow-card.toml").write_text('head = "score"\n')
    assert not inspect_scorer(str(rm)).is_derived


def test_a_causal_model_in_a_classifiers_place_is_refused(built: Path, rm: Path) -> None:
    assert "a causal model without a reward head" in refusal(built / "causal")
    assert "label tokens need a causal model" in refusal(rm, GUARD)


def test_a_causal_model_with_label_tokens_is_served(built: Path, tmp_path: Path) -> None:
    card = tmp_path / "guard.toml"
    card.write_text(GUARD)
    assert inspect_scorer(str(built / "causal"), card).head.weight == "lm_head.weight"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"final_logit_softcapping": 30.0}, None),
        ({"logit_scale": 0.0625}, "config.json has logit_scale"),
    ],
)
def test_logits_that_are_changed_before_the_softmax(
    built: Path, tmp_path: Path, change: dict[str, float], reason: str | None
) -> None:
    folder = Path(shutil.copytree(built / "causal", tmp_path / "guard"))
    tiny.edit_config(folder, **change)
    if reason:
        assert reason in refusal(folder, GUARD)
    else:
        (tmp_path / "guard.toml").write_text(GUARD)
        assert inspect_scorer(str(folder), tmp_path / "guard.toml").head.cap == 30.0


def test_a_cost_that_says_it_is_a_reward_is_refused_without_a_card(rm: Path, tmp_path: Path) -> None:
    """beaver-7b-v1.0-cost has this config; a reversed sign would return the most harmful answer."""
    cost = Path(shutil.copytree(rm, tmp_path / "my-cost"))
    tiny.edit_config(cost, score_type="reward")
    assert "its name says cost, but config.json has score_type reward" in refusal(cost)
    assert "its name says cost" in refusal(cost, 'head = "score"\n'), "a card that does not state the scale"
    assert inspect_scorer(str(cost), scale=-1.0).card.scale == -1.0
    tiny.edit_config(cost, score_type=None)
    assert "its name says cost, but config.json has no score_type" in refusal(cost)
    tiny.edit_config(cost, score_type="cost")
    assert inspect_scorer(str(cost)).card.scale == -1.0
    assert "score_type cost, but card card has scale 1" in refusal(cost, "scale = 1\n")


def test_a_card_for_another_architecture_or_head_is_refused(rm: Path) -> None:
    assert "but card card is for GemmaForCausalLM" in refusal(rm, 'architectures = ["GemmaForCausalLM"]\n')
    assert "no tensor value_head.weight, the head that card card names; it has score.weight" in refusal(
        rm, 'head = "value_head"\n'
    )


def test_pad_is_eos_is_settled_by_a_card(rm: Path) -> None:
    tiny.edit_config(rm, pad_token_id=1)
    for place in ("last", "before_pad"):
        (rm / "winnow-card.toml").write_text(f'read_at = "{place}"\n')
        found = inspect_scorer(str(rm))
        assert (found.card.read_at, found.pad_id) == (place, 1)


def test_a_hub_id_is_resolved_to_its_snapshot_and_inspected(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A headless checkpoint in the hub's cache was once left for vLLM, which scored it with a random head."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda checkpoint, **_: str(built / "causal"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(built / "rm" / "config.json"))
    with pytest.raises(CheckpointError, match="reward model: some-rm: it is a LlamaForCausalLM"):
        inspect_scorer("owner/some-rm")
    assert card_of("owner/some-rm") is None


def test_a_file_or_nothing_in_a_folders_place_is_told(rm: Path) -> None:
    assert "reward model: " in refusal(rm / "nothing")
    assert "model.safetensors is a file; name the folder" in refusal(rm / "model.safetensors")


def test_a_gated_repository_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class GatedRepoError(Exception):
        pass

    def refuse(*_: object, **__: object) -> str:
        raise GatedRepoError("secret")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="owner/rm is a gated repository: accept its licence") as caught:
        snapshot("owner/rm")
    assert "secret" not in str(caught.value)


def test_inspection_imports_neither_torch_nor_transformers() -> None:
    """Engines are forked, which they cannot be once torch has been imported."""
    code = (
        "import sys; from winnow.models import demo; from winnow.models.engines.scorers import inspect_scorer; "
        "inspect_scorer(str(demo.weights('safety-rm'))); "
        "print([name for name in ('torch', 'transformers', 'jinja2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
