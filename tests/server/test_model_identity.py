"""The fingerprint of the models: the same for a server and a run, another where rewards may be others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from winnow.models import demo
from winnow.models.chat_templates import TEMPLATES
from winnow.server.distill.identity import identity
from winnow.server.distill.options import RunOptions
from winnow.server.distill.plans import Choices
from winnow.server.model_identity import fingerprint_of, models_fingerprint
from winnow.server.settings import Settings

LLAMA2 = TEMPLATES["llama2"]


def of_a_run(settings: Settings, **choices: Any) -> str | None:
    """The fingerprint as it is derived from a manifest on a disk."""
    values = {"candidates": 4, "temperatures": (1.0,), "sweep": False, "top_p": 1.0, "max_tokens": 64}
    options = RunOptions("p.jsonl", Path("out"), Choices(**{**values, "combiner": "llama2", "seed": 0, **choices}))
    manifest = orjson.loads(orjson.dumps(identity(options, settings, LLAMA2, "")))
    return fingerprint_of(manifest["models"], manifest["settings"])


def test_a_run_and_a_server_have_the_same() -> None:
    settings = Settings(safety={"scale": 2.0})
    assert of_a_run(settings) == models_fingerprint(settings, LLAMA2)
    assert of_a_run(settings, candidates=16, temperatures=(0.7,), seed=3) == models_fingerprint(settings, LLAMA2)


@pytest.mark.parametrize(
    "same",
    [{"served_model_name": "mine"}, {"dtype": "bfloat16"}, {"temperature": 0.5}, {"candidates": 32}, {"context": 128}],
)
def test_names_precision_and_what_is_asked_are_no_part_of_it(same: dict[str, Any]) -> None:
    assert models_fingerprint(Settings(**same), LLAMA2) == models_fingerprint(Settings(), LLAMA2)


def test_a_moved_checkpoint_keeps_it(tmp_path: Path) -> None:
    shutil.copytree(demo.weights("safety-rm"), tmp_path / "elsewhere")
    moved = Settings(safety_rm=str(tmp_path / "elsewhere"))
    assert models_fingerprint(moved, LLAMA2) == models_fingerprint(Settings(), LLAMA2)


def test_weights_calibration_and_template_change_it(tmp_path: Path) -> None:
    shutil.copytree(demo.weights("safety-rm"), tmp_path / "tuned")
    (tmp_path / "tuned" / "config.json").write_text(
        (tmp_path / "tuned" / "config.json").read_text().replace("{", '{"tuned": true,', 1)
    )
    found = [
        models_fingerprint(Settings(**changed), LLAMA2)
        for changed in (
            {},
            {"safety": {"scale": 2.0}},
            {"safety": {"bias": 2.0}},
            {"helpfulness": {"scale": 2.0}},
            {"safety_rm": str(tmp_path / "tuned")},
            {"safety_rm": str(demo.weights("helpfulness-rm"))},
        )
    ]
    models = {"policy": {"sha256": "a", "template": "llama2"}}
    other = {"policy": {"sha256": "a", "template": "tokenizer", "template_sha256": "b"}}
    assert len({*found, fingerprint_of(models, {}), fingerprint_of(other, {})}) == len(found) + 2


def test_a_judge_behind_a_server_is_known_by_its_name() -> None:
    one, other = (
        fingerprint_of({"safety": {"id": name, "root": None, "sha256": None, "card": None}}, {}) for name in "ab"
    )
    assert one != other


def test_models_behind_a_winnow_have_none() -> None:
    assert fingerprint_of({"server": {"id": "winnow", "sha256": None}}, {}) is None
