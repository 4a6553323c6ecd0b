"""Pickled weights to safetensors, once and on purpose; Winnow's engines load nothing else.

`torch.load` runs with `weights_only=True`, which reads tensors and refuses any other object. Tensors keep their names
and numbers; a value head in a file of its own is put beside the backbone's tensors.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from winnow.models.engines.checkpoint import Kind, read_json
from winnow.models.errors import CheckpointError

KIND: Kind = "reward model"
INDEX, WHOLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
SIDE_FILES = ("value_head.safetensors", "value_head.bin", "v_head.bin")
"""Files in which trainers keep the head beside the backbone."""
COPIED = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "winnow-card.toml")
_WRAPPERS = ("state_dict", "model", "module")


def convert(source: Path, target: Path) -> list[str]:
    """Write the checkpoint `source` to `target`, a new folder, as safetensors; returns the names of its files.

    Raises:
        CheckpointError: there are no weights, a file holds more than tensors, two tensors have one name, or `target`
            is not empty. Nothing is left in `target` then.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target.name} exists and is not an empty folder")
    read_json(source / "config.json", KIND)
    files = _weights(source)
    made = target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        return [*_written(files, target), *_copied(source, target)]
    except BaseException:
        for path in target.iterdir():
            path.unlink()
        if not made:
            target.rmdir()
        raise


def _weights(source: Path) -> list[Path]:
    """Return the files with weights: the shards of an index, or one file, and the side file of a head."""
    index = source / INDEX
    if index.is_file():
        names = sorted(set(read_json(index, KIND).get("weight_map", {}).values()))
    elif (source / WHOLE).is_file():
        names = [WHOLE]
    else:
        names = sorted(path.name for path in source.glob("*.safetensors") if path.name not in SIDE_FILES)
    side = [name for name in SIDE_FILES if (source / name).is_file()][:1]
    if not names or (names[0].endswith(".safetensors") and not side):
        raise CheckpointError(f"{source.name} has no {WHOLE} or {INDEX}; there is nothing to convert")
    if missing := next((name for name in names if not (source / name).is_file()), None):
        raise CheckpointError(f"{source.name} has no {missing}, which its index names")
    return [source / name for name in (*names, *side)]


def _written(files: list[Path], target: Path) -> list[str]:
    """Write each file's tensors under a shard's name, and the index of all."""
    places: dict[str, str] = {}
    size = 0
    for number, file in enumerate(files, start=1):
        tensors = dict(_tensors(file))
        if twice := tensors.keys() & places.keys():
            raise CheckpointError(f"{file.name} has {min(twice)}, which another file has too")
        name = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        save_file(tensors, target / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sorted(set(places.values()))


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a file's tensors, each with memory of its own, under names without a trainer's wrapper."""
    for name, value in _loaded(file).items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{file.name} holds {name!r}, which is no tensor; only weights are converted")
        yield name.removeprefix("module."), value.detach().clone().contiguous()


def _loaded(file: Path) -> Mapping[Any, Any]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a mapping
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{file.name} is damaged, or holds more than weights, which is not run") from error
    while isinstance(loaded, Mapping) and len(loaded) == 1 and next(iter(loaded)) in _WRAPPERS:
        loaded = next(iter(loaded.values()))
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{file.name} holds no tensors by name; only weights are converted")
    return loaded


def _copied(source: Path, target: Path) -> list[str]:
    """Copy configuration and tokenizer, but for an index of the pickled files."""
    files = [path for pattern in COPIED for path in source.glob(pattern) if not path.name.endswith(".index.json")]
    for path in files:
        shutil.copyfile(path, target / path.name)
    return sorted(path.name for path in files)
