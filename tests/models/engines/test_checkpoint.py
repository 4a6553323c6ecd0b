from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from winnow.models import demo
from winnow.models.engines.checkpoint import describe, inspect_policy, load_plain_tokenizer, load_tokenizer
from winnow.models.engines.hub import is_local
from winnow.models.engines.scorers import inspect_scorer
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo.weights("safety-rm"), tmp_path / "rm"))


class Inspected(NamedTuple):
    """A copy of a demo model, and the inspection that a model of its role passes before an engine starts."""

    folder: Path
    inspect: Callable[..., object]


@pytest.fixture(params=[("policy", inspect_policy), ("safety-rm", inspect_scorer)], ids=["policy", "reward model"])
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Inspected:
    name, inspect = request.param
    return Inspected(Path(shutil.copytree(demo.weights(name), tmp_path / "model")), inspect)


def refused(copied: Inspected, **options: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        copied.inspect(str(copied.folder), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_demo_checkpoints_are_complete(copied: Inspected) -> None:
    copied.inspect(str(copied.folder))


def test_missing(copied: Inspected) -> None:
    shutil.rmtree(copied.folder)
    assert "no such folder" in refused(copied)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(copied: Inspected, name: str) -> None:
    for file in copied.folder.glob(f"{Path(name).stem}.*"):  # a reward model's tokenizer.model would do, too
        file.unlink()
    assert ("safetensors" if "model" in name else name) in refused(copied)


@pytest.mark.parametrize("keep", [0, 7, 100, 100_000])
def test_truncated_weights(copied: Inspected, keep: int) -> None:
    weights = copied.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "truncated" in refused(copied)


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"]
)
def test_a_missing_or_misshapen_tensor_is_named(copied: Inspected, name: str) -> None:
    """A policy's layers were told by their first norm only, and failed in its engine's process."""
    weights = copied.folder / "model.safetensors"
    whole = load_file(weights)
    found = whole.pop(name)
    save_file(whole, weights, {"format": "pt"})
    assert "the checkpoint is not complete" in refused(copied)
    if found.dim() > 1:
        save_file({**whole, name: found[:, 1:].contiguous()}, weights, {"format": "pt"})
        assert f"{name} is [" in refused(copied)


def test_a_missing_shard_is_named(copied: Inspected) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copied.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002" in refused(copied)


def test_a_pickle_is_not_loaded(copied: Inspected) -> None:
    (copied.folder / "model.safetensors").rename(copied.folder / "pytorch_model.bin")
    assert "safetensors" in refused(copied)


def test_random_weights_need_no_file_but_all_the_rest(copied: Inspected) -> None:
    (copied.folder / "model.safetensors").unlink()
    copied.inspect(str(copied.folder), needs_weights=False)
    for file in copied.folder.glob("tokenizer.*"):
        file.unlink()
    assert "tokenizer.json" in refused(copied, needs_weights=False)


def test_a_broken_config(copied: Inspected) -> None:
    for text in ("{", "[]", "\udcff"):
        (copied.folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert "JSON" in refused(copied)


def test_a_config_that_contradicts_itself_is_named(copy: Path) -> None:
    """transformers' own check of config.json ended the start in a traceback."""
    config = json.loads((copy / "config.json").read_text()) | {"num_attention_heads": 7}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"policy: config\.json of .* not a multiple") as caught:
        load_tokenizer(str(copy), "policy")
    assert "\n" not in str(caught.value)


def test_the_same_tokenizer_in_another_folder_is_the_same(copy: Path, tokenizer: Tokenizer) -> None:
    assert tokenizer.equals(load_tokenizer(str(copy), "reward model"))


def test_a_folder_without_a_tokenizer(copy: Path) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="reward model: no tokenizer could be loaded from"):
        load_tokenizer(str(copy), "reward model")


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_a_tokenizer_without_bos_or_eos(copy: Path, name: str) -> None:
    for file in (copy / "tokenizer_config.json", copy / "special_tokens_map.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), name: None}))
    with pytest.raises(CheckpointError, match=r"policy: .* no BOS or no EOS"):
        load_tokenizer(str(copy), "policy")


def test_a_tokenizer_that_differs_is_another(copy: Path, tokenizer: Tokenizer) -> None:
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    names = [name for name in vocabulary if len(name) > 1 and not name.startswith("<")][:2]
    vocabulary[names[0]], vocabulary[names[1]] = vocabulary[names[1]], vocabulary[names[0]]
    path.write_text(json.dumps(content))
    assert not tokenizer.equals(load_tokenizer(str(copy), "reward model"))


def test_a_hub_id_is_not_a_folder() -> None:
    assert not is_local("meta-llama/Llama-2-7b-chat-hf")
    assert is_local("./models")
    assert is_local("/data/models/rm")


def test_weights_are_counted_from_the_files_in_the_precision_they_are_served_in(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo.weights("policy"), tmp_path / "policy"))
    stored = (folder / "model.safetensors").stat().st_size
    counted = describe(str(folder), "policy", "policy", "bfloat16").weights
    assert counted == pytest.approx(stored, rel=0.01)
    assert describe(str(folder), "policy", "policy", "float32").weights == 2 * counted
    (folder / "model.safetensors").unlink()
    assert describe(str(folder), "policy", "policy", "bfloat16").weights == counted, "computed from the shape"


def test_the_context_is_the_checkpoints_own_or_the_given_one() -> None:
    folder = str(demo.weights("policy"))
    assert describe(folder, "policy", "policy", "float32").context == 2048
    assert describe(folder, "policy", "policy", "float32", context=512).context == 512


def test_a_config_without_sizes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "num_attention_heads": "many"}))
    with pytest.raises(CheckpointError, match="num_attention_heads is 'many'"):
        describe(str(tmp_path), "policy", "policy", "bfloat16")


@pytest.mark.parametrize("value", ["socks5://10.0.0.1:1", "http://user:hunter2/@x:y"])
def test_a_proxy_that_the_hubs_library_cannot_use_is_one_line(value: str, tmp_path: Path) -> None:
    """Its ImportError, or InvalidURL, was a traceback."""
    code = "import sys; from winnow.server.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", "--policy", "nobody/nothing"],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "ALL_PROXY": value, "HTTPS_PROXY": value, "NO_PROXY": "", "HF_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "nobody/nothing cannot be fetched" in line
    assert "HTTPS_PROXY" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "architecture", ["MistralForCausalLM", "Qwen3ForCausalLM", "PhiForCausalLM", "GPT2LMHeadModel"]
)
def test_a_policy_is_any_model_that_generates_text(architecture: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo.weights("policy"), tmp_path / "policy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [architecture]}))
    inspect_policy(str(folder))
    weights = folder / "model.safetensors"
    whole = load_file(weights)
    save_file({name: value for name, value in whole.items() if ".layers.1." not in name}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers?[. ]1"):
        inspect_policy(str(folder))


@pytest.mark.parametrize("architecture", ["LlamaForSequenceClassification", "LlamaModel", "BertForMaskedLM", None])
def test_a_policy_that_generates_nothing_is_refused(architecture: str | None, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "architectures": architecture and [architecture]}))
    with pytest.raises(CheckpointError, match=f"is a {architecture or 'none'}; a policy must generate text"):
        inspect_policy(str(copy))


@pytest.mark.parametrize(
    ("architecture", "rows"), [("LlamaForSequenceClassification", 1), ("LlamaForScore", 1), ("LlamaForCausalLM", 2048)]
)
def test_a_reward_model_is_planned_with_the_output_matrix_that_it_keeps(
    tmp_path: Path, architecture: str, rows: int
) -> None:
    """A guard whose label tokens are scored is as large as the causal model that it is; it samples nothing."""
    config = json.loads((demo.weights("safety-rm") / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "architectures": [architecture], "tie_word_embeddings": False})
    )
    model = describe(str(tmp_path), "reward model", "safety", "bfloat16")
    assert model.shape.is_reward_model
    embedding = config["vocab_size"] * config["hidden_size"]
    assert model.weights == 2 * (embedding + model.shape.matrices + rows * config["hidden_size"])


def in_hub_cache(home: Path, name: str, files: Path, leave_out: str = "") -> Path:
    """Lay the files of a folder into the hub library's cache, as if it had fetched the repository `name`."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(files, snapshot, ignore=shutil.ignore_patterns(leave_out))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return snapshot


def test_a_hub_id_is_resolved_to_its_snapshot_and_inspected_like_a_folder(tmp_path: Path) -> None:
    """A policy by its hub id was left for vLLM: a reward model in its place failed minutes later."""
    snapshot = in_hub_cache(tmp_path, "owner/policy", demo.weights("policy"))
    in_hub_cache(tmp_path, "owner/rm", demo.weights("safety-rm"))
    in_hub_cache(tmp_path, "owner/config-only", demo.weights("policy"), "*.safetensors")
    code = f"""
from winnow.models.engines.checkpoint import describe, inspect_policy
from winnow.models.errors import CheckpointError
assert str(inspect_policy("owner/policy")) == {str(snapshot)!r}
try:
    inspect_policy("owner/rm")
except CheckpointError as error:
    print(error)
names = ("owner/policy", "owner/config-only", {str(snapshot)!r})
found = [describe(name, "policy", "policy", "bfloat16") for name in names]
assert found[0] == found[2], found
assert found[1].weights > 0, found
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "LlamaForSequenceClassification; a policy must generate text" in done.stdout


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_repository_is_never_run_nor_asked_about(file: str, tmp_path: Path) -> None:
    """On a terminal transformers asked "Do you wish to run the custom code?", and ran it on a y."""
    folder = tmp_path / "model"
    shutil.copytree(demo.weights("policy"), folder)
    own = {
        "config.json": {"model_type": "weird", "auto_map": {"AutoConfig": "code.Config"}},
        "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", None]}},
    }
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **own[file]}))
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    code = f"""
import os, pty, sys
pid, terminal = pty.fork()
if not pid:
    from winnow.models.engines.checkpoint import load_tokenizer
    from winnow.models.errors import CheckpointError
    try:
        load_tokenizer({str(folder)!r}, "policy")
    except CheckpointError as error:
        print(error, flush=True)
    os._exit(0)
os.write(terminal, b"y\\n")
told = b""
while True:
    try:
        told += os.read(terminal, 4096)
    except OSError:
        break
sys.stdout.buffer.write(told)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    # Whether a config needs code is for vLLM to say, which knows more models than transformers.
    assert ("needs code from its repository, which is never run" in done.stdout) == (file == "tokenizer_config.json")
    assert "it ran" not in done.stdout
    assert "y/N" not in done.stdout


@pytest.mark.parametrize("broken", ["{}", '{"model": {"type": "Odd"}, "added_tokens": []}', "[]"])
def test_a_tokenizer_that_the_libraries_cannot_read_is_told_in_one_line(tmp_path: Path, broken: str) -> None:
    """They raise KeyError, and even a bare Exception, for files of other versions."""
    shutil.copytree(demo.weights("safety-rm"), tmp_path / "rm")
    (tmp_path / "rm" / "tokenizer.json").write_text(broken)
    with pytest.raises(CheckpointError, match=r"no tokenizer could be loaded from .*; are tokenizer.json") as caught:
        load_plain_tokenizer(str(tmp_path / "rm"), "reward model")
    assert "\n" not in str(caught.value)
