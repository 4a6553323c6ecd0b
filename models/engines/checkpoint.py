"""Checkpoints, read from their own files before an engine is started on them.

Finds in milliseconds, and reports in one line, faults that would otherwise surface minutes later as a
traceback from an engine's process. Covers folders in the Hugging Face layout; a hub id is resolved to one first.
"""

from __future__ import annotations

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from winnow.models.engines.backbone import require_backbone
from winnow.models.engines.hub import cached, config_folder, fetched, is_local, snapshot
from winnow.models.engines.shape import BYTES, Model, Shape
from winnow.models.errors import CheckpointError
from winnow.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["policy", "reward model"]
_CAUSAL = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures that generate text."""

TEMPLATE_FILE = "chat_template.jinja"
_VOCABULARY_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    TEMPLATE_FILE,
    "config.json",  # its model type decides the tokenizer's class
)


def inspect_policy(checkpoint: str, kind: Kind = "policy", *, needs_weights: bool = True) -> Path:
    """Check that `checkpoint` is a complete chat model, as far as its files tell; weights only if needed.

    Returns its folder; a hub id's is fetched. `kind` is what it is to be, for errors: a reward model is trained of a
    chat model. The files of one that is trained already are read by `inspect_scorer`.

    Raises:
        CheckpointError: a file is missing, cut short, not safetensors, or the architecture is of another kind; or the
            hub does not hand it out.
    """
    try:
        folder = snapshot(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{kind}: {error}") from None
    config = read_json(folder / "config.json", kind)
    if not (architecture := _architecture(config)).endswith(_CAUSAL):
        raise CheckpointError(f"{kind}: {folder} is a {architecture}; a policy must generate text: a …ForCausalLM")
    if not any(all((folder / name).is_file() for name in names) for names in _VOCABULARY_FILES):
        raise CheckpointError(f"{kind}: {folder} has no tokenizer.json")
    if needs_weights:
        shapes = tensor_shapes(folder, kind)
        try:
            require_backbone(config, shapes)
        except CheckpointError as error:
            raise CheckpointError(f"{kind}: {folder}: {error}") from None
    return folder


def _architecture(config: dict[str, Any]) -> str:
    return str((config.get("architectures") or ["none"])[0])


def _check_shards(folder: Path, kind: Kind) -> None:
    if missing := _missing_shards(folder, kind):
        raise CheckpointError(f"{kind}: {folder} has no {missing[0]}, which its index names")


def _missing_shards(folder: Path, kind: Kind) -> list[str]:
    """Return the names of the weight files that the folder's index names and that are not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    weight_map = read_json(index, kind).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{kind}: {index} has no weight_map from tensors to files")
    named = set(weight_map.values())
    return sorted(name for name in named if not (folder / name).is_file())


def read_json(path: Path, kind: Kind) -> dict[str, Any]:
    """Return the JSON object in the file `path` of a checkpoint of `kind`.

    Raises:
        CheckpointError: there is no such file, or it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{kind}: {path.parent} has no {path.name}") from None
    except ValueError as error:
        raise CheckpointError(f"{kind}: {path} is not valid JSON") from error
    except OSError as error:
        raise CheckpointError(f"{kind}: {path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{kind}: {path} is not a JSON object")
    return content


class _Tensor(NamedTuple):
    name: str
    shape: list[int]
    dtype: str

    def loaded_bytes(self, width: int) -> int:
        """Return its bytes in vLLM: floating-point numbers take `width` bytes, others their stored size."""
        stored = _STORED_BYTES.get(self.dtype, 1)
        return math.prod(self.shape) * (width if self.dtype in _CAST else stored)


_CAST = ("F64", "F32", "F16", "BF16")
_STORED_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}


def _tensors(path: Path, kind: Kind) -> list[_Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118, not a mapping
            return [_Tensor(name, list(part.get_shape()), part.get_dtype()) for name, part in slices]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{kind}: {path} is truncated or not a safetensors file") from error


def describe(
    checkpoint: str, kind: Kind, name: str, dtype: str, context: int | None = None, *, has_graphs: bool = False
) -> Model:
    """Return the sizes of `checkpoint`, called `name`, for the memory plan.

    `dtype` is the precision it is served in. `context` None takes the checkpoint's own. Weights are
    counted from the files' headers, or computed from the config if there are no files. Of a hub id only the config
    is fetched; its files count if they have been fetched before.

    Raises:
        CheckpointError: the config is missing or incomplete, or a file is damaged.
    """
    folder = config_folder(checkpoint)
    config = read_json(folder / "config.json", kind)
    is_reward_model = kind == "reward model"
    shape = replace(Shape.of(config), is_reward_model=is_reward_model)
    # A causal model whose label tokens are scored keeps its output matrix.
    stored = replace(shape, is_reward_model=is_reward_model and not _architecture(config).endswith(_CAUSAL))
    width = BYTES[dtype]
    present = folder if is_local(checkpoint) else cached(checkpoint)
    if present and not is_local(checkpoint) and _missing_shards(present, kind):
        present = None  # the hub's library has fetched a part
    files = present.glob("*.safetensors") if present else ()
    weights = sum(tensor.loaded_bytes(width) for file in files for tensor in _tensors(file, kind))
    return Model(name, shape, dtype, weights or stored.parameters * width, context or shape.context, has_graphs)


def load_tokenizer(checkpoint: str, kind: Kind) -> Tokenizer:
    """Return the fast tokenizer of `checkpoint`.

    Raises:
        CheckpointError: it has none that can be loaded, or the tokenizer has no BOS or no EOS.
    """
    return tokenizer_of(load_plain_tokenizer(checkpoint, kind), checkpoint, kind)


def tokenizer_of(loaded: PreTrainedTokenizerBase, checkpoint: str, kind: Kind) -> Tokenizer:
    """Return the tokenizer of `checkpoint`, which transformers has loaded.

    Raises:
        CheckpointError: it has no BOS, no EOS, or is of a kind that is not accepted.
    """
    try:
        return Tokenizer(loaded)
    except ValueError as error:
        raise CheckpointError(f"{kind}: {checkpoint}: {error}") from None


def load_plain_tokenizer(checkpoint: str, kind: Kind) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `checkpoint` as transformers loads it, whatever its kind.

    Raises:
        CheckpointError: it has none that can be loaded.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    from winnow.models.engines import internlm2

    internlm2.register()
    try:
        # Said aloud: otherwise transformers asks on a terminal whether to run a repository's code.
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint, use_fast=True, trust_remote_code=False
        )
    except StrictDataclassError as error:  # transformers reads config.json first, and checks it
        reason = " ".join(str(error.__cause__ or error).split())
        raise CheckpointError(f"{kind}: config.json of {checkpoint} cannot be used: {reason}") from error
    except Exception as error:  # the boundary to two libraries, which raise what a damaged file makes them raise
        if "trust_remote_code" in str(error):
            raise CheckpointError(f"{kind}: {checkpoint} needs code from its repository, which is never run") from None
        raise CheckpointError(
            f"{kind}: no tokenizer could be loaded from {checkpoint}; are tokenizer.json, tokenizer_config.json and "
            "config.json whole, and for this version of transformers?"
        ) from error
    return loaded


def tokenizer_files(checkpoint: str) -> dict[str, bytes]:
    """Return the files of `checkpoint` that `load_tokenizer` reads, by their names; a hub id's are fetched.

    Raises:
        CheckpointError: they cannot be read.
    """
    try:
        folder = Path(checkpoint) if is_local(checkpoint) else fetched(checkpoint, _TOKENIZER_FILES)
        return {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error.strerror or type(error).__name__}") from None


def template_files(checkpoint: str) -> dict[str, str]:
    """Return the files of `checkpoint` that tell its chat format, as text; a hub id's are fetched.

    Raises:
        CheckpointError: they cannot be read.
    """
    names = ("tokenizer.json", "tokenizer_config.json", TEMPLATE_FILE)
    found = {name: content for name, content in tokenizer_files(checkpoint).items() if name in names}
    return {name: content.decode(errors="replace") for name, content in found.items()}


def fingerprint(checkpoint: str) -> str:
    """Return the SHA-256 of the weights, configurations and tokenizer, independent of the folder's name.

    A hub id is looked up in the hub library's cache, and fetched if it is not there yet. Files are read side by side.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        folder = Path(checkpoint) if is_local(checkpoint) else fetched(checkpoint)
        paths = sorted((*folder.glob("*.json"), *folder.glob("*.safetensors")))
        with ThreadPoolExecutor() as pool:
            for path, found in zip(paths, pool.map(_file_digest, paths), strict=True):
                digest.update(f"{path.name}\0{found}\0".encode())
    except OSError as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error.strerror or type(error).__name__}") from None
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_shapes(folder: Path, kind: Kind) -> dict[str, list[int]]:
    """Return the shapes of a folder's tensors, from the headers of its safetensors files.

    Raises:
        CheckpointError: there is none, or one is missing or cut short.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        advice = f"; `winnow convert {folder.name} OUT` makes them of pickled weights" if pickled else ""
        raise CheckpointError(f"{kind}: {folder} has no .safetensors file{advice}")
    _check_shards(folder, kind)
    return {tensor.name: tensor.shape for file in files for tensor in _tensors(file, kind)}
