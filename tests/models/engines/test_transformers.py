from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from tests.models.engines import tiny
from winnow.models import demo
from winnow.models.cards import Card
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines import transformers
from winnow.models.engines.base import RewardInput
from winnow.models.engines.memory import Memory
from winnow.models.engines.reward_text import CardInput
from winnow.models.engines.transformers import Precision, ReferenceRewardModel
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer
from winnow.models.types import Message, Prompt

CHECKPOINT = demo.weights("safety-rm")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on busy cores are ten times slower
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def reward_input(tokenizer: Tokenizer, template: Llama2Template) -> RewardInput:
    return RewardInput(tokenizer, template)


@pytest.fixture
def prompt(reward_input: RewardInput) -> Prompt:
    return reward_input.template.render([Message("user", "Name three fruits.")], reward_input.tokenizer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
async def test_a_low_precision_is_near_and_its_head_is_not_rounded(
    reward_input: RewardInput, prompt: Prompt, dtype: Precision
) -> None:
    """A head in bfloat16 would leave 8 bits of a logit: answers of nearly one score would tie."""
    full, low = (ReferenceRewardModel(str(CHECKPOINT), reward_input, each) for each in ("float32", dtype))  # type: ignore[arg-type]
    expected, score = await full.score(prompt, "Apple."), await low.score(prompt, "Apple.")
    assert score == pytest.approx(expected, abs=0.1)
    assert score != torch.tensor(score).to(getattr(torch, dtype)).item()


def test_a_closed_model_frees_its_weights(reward_input: RewardInput) -> None:
    with contextlib.closing(ReferenceRewardModel(str(CHECKPOINT), reward_input)) as model:
        weight = weakref.ref(model._model.score.weight)
        assert weight() is not None
    assert weight() is None


@pytest.mark.parametrize(
    ("dtype", "advice"), [("float32", "--reference-dtype bfloat16"), ("bfloat16", "end what else")]
)
def test_weights_beyond_the_memory_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, reward_input: RewardInput, dtype: Precision, advice: str
) -> None:
    monkeypatch.setattr(transformers, "ram", lambda: Memory("this machine", 2**32, 2**20))
    monkeypatch.delattr(transformers, "_load")
    with pytest.raises(CheckpointError, match=f"the reference in {dtype} needs .* GiB .* free") as refused:
        ReferenceRewardModel(str(CHECKPOINT), reward_input, dtype)
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB.\nSee documentation."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_running_out_of_memory_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, reward_input: RewardInput, error: Exception, device: str
) -> None:
    class Full(torch.nn.Module):
        def to(self, *_: object) -> Full:  # type: ignore[override]
            raise error

    monkeypatch.setattr(transformers, "_load", lambda *_: Full())
    place = "the card" if device == "cuda" else "this machine's memory"
    with pytest.raises(CheckpointError, match=f"in float32 does not fit {place}; use --reference-dtype bf") as refused:
        ReferenceRewardModel(str(CHECKPOINT), reward_input, "float32", device)
    assert "\n" not in str(refused.value)


async def test_running_out_of_memory_in_a_forward_pass_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, reward_input: RewardInput, prompt: Prompt
) -> None:
    model = ReferenceRewardModel(str(CHECKPOINT), reward_input)
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory"), CheckpointError),
        (RuntimeError(), RuntimeError),
    ):

        def fail(error: Exception = error, **_: object) -> None:
            raise error

        monkeypatch.setattr(model, "_model", fail)
        with pytest.raises(expected) as raised:
            await model.score(prompt, "Apple.")
        assert type(raised.value) is expected


def test_a_checkpoint_that_lacks_its_head_is_refused(tmp_path: Path, reward_input: RewardInput) -> None:
    """From the hub it is not inspected beforehand, and transformers would make up the missing weights."""
    folder = tmp_path / "headless"
    shutil.copytree(CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no tensor score\.weight"):
        ReferenceRewardModel(str(folder), reward_input)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        ReferenceRewardModel(str(folder), reward_input)


def test_a_checkpoint_of_other_sizes_is_refused_in_one_line(tmp_path: Path, reward_input: RewardInput) -> None:
    """A config.json without labels means two of them, and transformers ended with a traceback."""
    folder = tmp_path / "two-labels"
    shutil.copytree(CHECKPOINT, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"score\.weight is \[1, \d+\], but its config asks for \[2,"):
        ReferenceRewardModel(str(folder), reward_input)


def test_loading_prints_nothing(reward_input: RewardInput, tmp_path: Path) -> None:
    code = (
        "import sys; from winnow.models.engines.transformers import ReferenceRewardModel; "
        f"ReferenceRewardModel({str(CHECKPOINT)!r}, None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "field", [{"rope_parameters": {"rope_type": "spiral"}}, {"hidden_act": "nothing"}, {"hidden_size": "x"}]
)
def test_a_config_that_transformers_cannot_use_is_one_line(
    tmp_path: Path, reward_input: RewardInput, field: dict[str, object]
) -> None:
    """A KeyError of transformers was a traceback."""
    shutil.copytree(CHECKPOINT, tmp_path / "rm")
    path = tmp_path / "rm" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | field))
    with pytest.raises(CheckpointError) as caught:
        ReferenceRewardModel(str(tmp_path / "rm"), reward_input)
    assert "\n" not in str(caught.value)


async def test_a_cap_on_attention_logits_is_honoured(tmp_path: Path) -> None:
    """Transformers' default attention leaves Gemma 2's cap out, and a check blamed the engine, which honours it."""
    folder = tiny.checkpoint(
        tmp_path / "rm", "gemma2", tokenizer := tiny.byte_level(), attn_logit_softcapping=0.1, head_dim=32
    )
    reader = CardInput(Card(name="test"), tokenizer)
    prompt = Prompt((), (Message("user", "Name three fruits."),))
    ids = torch.tensor([reader.token_ids(prompt, "Apple, pear, plum.")])
    score = await ReferenceRewardModel(str(folder), reader).score(prompt, "Apple, pear, plum.")
    eager, default = (
        AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=kind)(ids).logits.item()
        for kind in ("eager", "sdpa")
    )
    assert score == pytest.approx(eager, abs=1e-5)
    assert score != pytest.approx(default, abs=1e-3), "otherwise the test shows nothing"
