"""Fine-tuning on exported answers, with TRL, for a few real steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.checkpoint import inspect_policy
from winnow.models.training.checkpoints import load_policy
from winnow.models.training.sft import Example, Schedule, fine_tune

EXAMPLES: list[Example] = [
    {
        "prompt": [{"role": "user", "content": f"What is {number} plus 1?"}],
        "completion": [{"role": "assistant", "content": f"The sum is {number + 1}."}],
    }
    for number in range(8)
]


def test_a_tuned_checkpoint_can_be_served(
    template: Llama2Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_request(*_: Any, **__: Any) -> None:
        raise AssertionError("training makes no outbound request")

    monkeypatch.delenv("CI", raising=False)  # TRL reports each training to its makers, but not from CI
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", no_request)
    chat_template = tmp_path / "chat_template.jinja"
    chat_template.write_text(template.jinja, encoding="utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on busy cores are ten times slower
    try:
        fine_tune(EXAMPLES, Schedule(epochs=1, batch=4, rate=1e-3), demo.weights("policy"), chat_template, tmp_path)
    finally:
        torch.set_num_threads(threads)
    inspect_policy(str(tmp_path))
    before, after = load_policy(demo.weights("policy")), load_policy(tmp_path)
    assert after.config.to_diff_dict() == before.config.to_diff_dict()
    assert after.generation_config.to_diff_dict() == before.generation_config.to_diff_dict()
    assert not torch.equal(before.model.layers[0].mlp.up_proj.weight, after.model.layers[0].mlp.up_proj.weight)


def test_a_template_that_gives_other_ids_is_refused(template: Llama2Template, tmp_path: Path) -> None:
    """Whoever trained on it would train on prompts that the server never renders."""
    chat_template = tmp_path / "chat_template.jinja"
    chat_template.write_text(template.jinja_forms()[1], encoding="utf-8")
    with pytest.raises(ValueError, match="does not fit the tokenizer"):
        fine_tune(EXAMPLES, Schedule(), demo.weights("policy"), chat_template, tmp_path)
