"""Reward models as their files describe them: the card, the head, and what cannot be served.

Everything is refused here, in one line and before an engine or a tokenizer is loaded, that would otherwise load
silently and score wrongly: a head that is missing, a causal model in a classifier's place, a config that contradicts
its card. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.models.cards import Card, read_card, shipped
from winnow.models.cards.card import FILE, parse_card, read_card_text, shipped_text
from winnow.models.engines.backbone import require_backbone, unset_biases
from winnow.models.engines.base import EngineKind
from winnow.models.engines.checkpoint import Kind, read_json, tensor_shapes
from winnow.models.engines.encoder_files import Encoder, inspect_encoder, is_encoder
from winnow.models.engines.heads import PLAIN, Head, adapter_of, architecture, find_head, is_classifier
from winnow.models.engines.hub import config_folder, snapshot
from winnow.models.engines.remote import RemoteModel, model_folder
from winnow.models.errors import CheckpointError

KIND: Kind = "reward model"
_DECODERS = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "phi3": "Phi3",
    "internlm2": "InternLM2",
}
"""Names of vLLM's classes by model type, for architectures that vLLM does not know by name."""
_NATIVE = re.compile("For(SequenceClassification|CausalLM)$")
"""Architectures under the names of the libraries' own classes."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Scorer:
    """A reward model's folder, its card and its head.

    `is_derived` says that the card was made of the checkpoint's own files, for want of one. `encoder` is set where the
    model is one, which has labels instead of a head of vLLM's. A model on another server has `remote`, and a folder
    that need not have weights; a judge has no files at all.
    """

    folder: Path
    card: Card
    head: Head
    config: Mapping[str, Any]
    is_derived: bool = False
    encoder: Encoder | None = None
    remote: RemoteModel | None = None

    @property
    def kind(self) -> EngineKind:
        """The engine kind that runs it."""
        if self.remote:
            return self.remote.link.address.kind
        return "transformers" if self.encoder else "vllm"

    @property
    def pad_id(self) -> int | None:
        """The id that transformers looks for the last token before; None if the config has none."""
        pad = self.config.get("pad_token_id")
        return pad if isinstance(pad, int) and pad >= 0 else None


def inspect_scorer(
    checkpoint: str,
    card_file: Path | None = None,
    *,
    needs_weights: bool = True,
    scale: float | None = None,
    name: str | None = None,
) -> Scorer:
    """Return the reward model `checkpoint`, a folder or a hub id, by the card in `card_file` or the one found for it.

    `scale` is the operator's, which wins over the card's. `name` is the checkpoint's, where the folder has another.

    Raises:
        CheckpointError: it cannot be served, or its files contradict its card; the message says what would help.
    """
    try:
        folder = snapshot(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{KIND}: {error}") from None
    config = read_json(folder / "config.json", KIND)
    name = name or _name(checkpoint)
    found = _card(folder, name, config, card_file)
    card = found or Card(name=name, adapter="encoder" if is_encoder(config) else adapter_of(config))
    try:
        _require_code_of_our_own(folder, config)
        _require_consistent(config)
        _require_kind(card, config)
        shapes = tensor_shapes(folder, KIND) if needs_weights else {}
        encoder: Encoder | None = None
        head: Head = PLAIN
        if card.adapter == "encoder":
            encoder = inspect_encoder(card, config, shapes)
            card = replace(card, context=encoder.context)
        else:
            head = find_head(card, config, shapes, has_weights=needs_weights)
            require_backbone(config, shapes)
            head = replace(head, architecture=_served_as(config), unset=unset_biases(config, shapes))
        _require_class_of_a_library(config, has_card=found is not None)
        card = _completed(card, name, config, scale)
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(KIND) else f"{KIND}: {name}: {text}") from None
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise CheckpointError(f"{KIND}: {name} has no tokenizer.json")
    return Scorer(folder, card, head, config, is_derived=found is None, encoder=encoder)


def remote_scorer(
    role: str, remote: RemoteModel, card_file: Path | None, tokenizer: str | None, scale: float | None
) -> Scorer:
    """Return the reward model of a server, for `role` (safety or helpfulness).

    What it reads, and what is refused, is as for a local one, by the files in the folder or hub id `tokenizer`, or in
    the server's own checkpoint. A judge has a card only: the one in `card_file`, or the role's.

    Raises:
        CheckpointError: it cannot be served; the message says what would help.
    """
    if remote.link.address.kind == "judge":
        card = read_card(card_file) if card_file else next(one for one in shipped() if one.name == f"judge-{role}")
        require_servable(role, card, "judge")
        card = replace(card, scale=card.scale if scale is None else scale)
        return Scorer(Path(), card, PLAIN, {}, remote=remote)
    folder = model_folder(role, tokenizer, remote)
    has_weights = any(folder.glob("*.safetensors"))
    found = inspect_scorer(str(folder), card_file, needs_weights=has_weights, scale=scale, name=remote.checkpoint)
    require_servable(role, found.card, "classify")
    return replace(found, remote=remote)


def require_servable(role: str, card: Card, kind: str) -> None:
    """Check that `card` is for a server of this `kind`: classify or judge.

    Raises:
        CheckpointError: it is not.
    """
    if kind == "judge" and card.adapter != "judge":
        raise CheckpointError(f'{role} reward model: card {card.name} is no judge\'s (adapter = "judge")')
    if kind == "classify" and card.adapter not in ("linear", "labels"):
        raise CheckpointError(f"{role} reward model: card {card.name} is not for a /classify server")


def card_of(checkpoint: str, card_file: Path | None = None) -> Card | None:
    """Return the card that is given or found for `checkpoint`; None if one would be made of its config.

    Of a hub id config.json alone is read.

    Raises:
        CheckpointError: the card or the config cannot be read.
    """
    folder = config_folder(checkpoint)
    return _card(folder, _name(checkpoint), read_json(folder / "config.json", KIND), card_file)


def card_text_of(scorer: Scorer, checkpoint: str, role: str, card_file: Path | None = None) -> tuple[str, str]:
    """Return the text of the card that `scorer` is served by, and its file's name; of a derived one, what it says.

    `checkpoint`, `role` and `card_file` are those that it was inspected with.

    Raises:
        CheckpointError: the card cannot be read.
    """
    if scorer.kind == "judge":
        return (read_card_text(card_file), card_file.name) if card_file else shipped_text(f"judge-{role}")
    name = scorer.remote.checkpoint if scorer.remote else _name(checkpoint)
    return _card_text(scorer.folder, name, scorer.config, card_file) or (f'adapter = "{scorer.card.adapter}"\n', FILE)


def engine_kind(checkpoint: str, card: Card | None) -> EngineKind:
    """Return what runs the reward model `checkpoint` with `card`, None if it has none of its own.

    Of a hub id config.json alone is read.

    Raises:
        CheckpointError: the config cannot be read.
    """
    return "transformers" if is_encoder(read_json(config_folder(checkpoint) / "config.json", KIND)) else "vllm"


def _name(checkpoint: str) -> str:
    return Path(checkpoint.rstrip("/")).name


def _card(folder: Path, name: str, config: Mapping[str, Any], file: Path | None) -> Card | None:
    """Return the card in `file`, in the folder, or shipped for this name and architecture; None if there is none.

    Its context is at most the checkpoint's: a card may be for models of several lengths.
    """
    found = _card_text(folder, name, config, file)
    card = parse_card(*found) if found else None
    if card and found and found[1] == FILE and card.name == Path(FILE).stem:
        card = replace(card, name=name)
    if card:
        card = replace(card, probes=tuple(probe for probe in card.probes if probe.is_for(name)))
    longest = config.get("max_position_embeddings")
    if card and card.context and isinstance(longest, int):
        return replace(card, context=min(card.context, longest))
    return card


def _card_text(folder: Path, name: str, config: Mapping[str, Any], file: Path | None) -> tuple[str, str] | None:
    own = file or (folder / FILE if (folder / FILE).is_file() else None)
    if own:
        return read_card_text(own), own.name
    known = next((card for card in shipped() if card.is_for(name, architecture(config))), None)
    return shipped_text(known.name) if known else None


def _require_code_of_our_own(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a model whose architecture or tokenizer only code in its repository knows."""
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path, KIND) if path.is_file() else {}
    code = config.get("auto_map")
    if code and config.get("model_type") not in _DECODERS:
        raise CheckpointError(f"{architecture(config)} needs code from its repository, which is never run")
    for own in (code, tokenizer.get("auto_map")):
        # A list is the older form, of a tokenizer's alone.
        if own and ("AutoTokenizer" in own if isinstance(own, Mapping) else True):
            raise CheckpointError("its tokenizer needs code from its repository, which is never run")


def _require_class_of_a_library(config: Mapping[str, Any], *, has_card: bool) -> None:
    """Refuse a model under a library's name that is code in its repository: the library's may compute something else.

    A card, or an architecture of the shipped ones that is of no library, says what that code computes.
    """
    named = architecture(config)
    is_ours = not _NATIVE.search(named) and any(named in card.architectures for card in shipped())
    if config.get("auto_map") and not (has_card or is_ours):
        raise CheckpointError(
            f"auto_map in config.json says that its {named} is code in its repository, which is never run; if the "
            "library's own class computes the same, remove auto_map, or write a card"
        )


def _require_consistent(config: Mapping[str, Any]) -> None:
    """Refuse a config.json whose own fields disagree: each library would believe another one."""
    kind, named = config.get("model_type"), architecture(config)
    if not isinstance(kind, str):
        raise CheckpointError("config.json has no model_type, such as llama")
    if kind in _DECODERS and _NATIVE.search(named) and _NATIVE.sub("", named) != _DECODERS[kind]:
        raise CheckpointError(f"config.json has architecture {named}, but model_type {kind}")
    labels, number = config.get("id2label"), config.get("num_labels")
    if labels is not None and not isinstance(labels, Mapping):
        raise CheckpointError("config.json: id2label is no mapping from numbers to names")
    if number is not None and (not isinstance(number, int) or number < 1):
        raise CheckpointError(f"config.json: num_labels is {number!r}, not a number from 1")
    if labels and number and number != len(labels):
        raise CheckpointError(f"config.json has {len(labels)} labels in id2label, but num_labels {number}")


def _require_kind(card: Card, config: Mapping[str, Any]) -> None:
    named, kind = architecture(config), config.get("model_type")
    if card.adapter == "judge":
        raise CheckpointError(f"card {card.name} is a judge's, which is served behind judge:URL")
    if card.architectures and named not in card.architectures:
        raise CheckpointError(f"it is a {named}, but card {card.name} is for {' or '.join(card.architectures)}")
    if is_encoder(config) != (card.adapter == "encoder"):
        problem = "an encoder" if is_encoder(config) else "no encoder that is known"
        raise CheckpointError(f"it is a {named}, {problem}, but card {card.name} has adapter {card.adapter}")
    if is_encoder(config):
        return
    if card.adapter == "labels" and not named.endswith("ForCausalLM"):
        raise CheckpointError(f"label tokens need a causal model, but it is a {named}")
    if card.adapter == "linear" and named.endswith("ForCausalLM"):
        raise CheckpointError(
            f"it is a {named}, a causal model without a reward head (ForSequenceClassification); if label tokens "
            "are its score, say so in a card (`winnow models show llama-guard-3`)"
        )
    if not is_classifier(config) and not named.endswith("ForCausalLM") and kind not in _DECODERS:
        raise CheckpointError(f"{named} (model_type {kind}) is not known; serve a ForSequenceClassification")


def _served_as(config: Mapping[str, Any]) -> str | None:
    """Return the architecture that vLLM is to load instead of one that it does not know; None if it knows it.

    A classifier's own name is returned where its config names no labels, which vLLM would take for two: what is told
    instead of the config has their number.
    """
    named = architecture(config)
    if is_classifier(config) and not (config.get("num_labels") or config.get("id2label")):
        return named
    if _NATIVE.search(named):
        return None
    return f"{_DECODERS[config['model_type']]}ForCausalLM"


def _completed(card: Card, name: str, config: Mapping[str, Any], scale: float | None) -> Card:
    """Return the card with the sign of its scale and the place where it is read, unless they contradict the config."""
    end = card.end if card.end is not None or _reward_token(config) is None else (_reward_token(config),)
    return replace(card, scale=_scale(card, name, config, scale), read_at=_read_at(card, config), end=end)


def _reward_token(config: Mapping[str, Any]) -> Any:
    """Return the id of the token behind a conversation that InternLM2's score is read at; None if there is none."""
    token = config.get("reward_token_id")
    return token if isinstance(token, int) and token >= 0 else None


def _scale(card: Card, name: str, config: Mapping[str, Any], scale: float | None) -> float:
    if scale is not None:
        return scale
    kind, says_cost = config.get("score_type"), re.search(r"(?:^|[-_.])costs?(?:[-_.]|$)", name.lower())
    if card.scale is None:
        if says_cost and kind != "cost":
            told = f"score_type {kind}" if kind else "no score_type"
            raise CheckpointError(
                f"its name says cost, but config.json has {told}; state its scale in a card or in scale: -1 if more is "
                "more harmful"
            )
        return -1.0 if kind == "cost" else 1.0
    if kind == "cost" and card.scale > 0:
        raise CheckpointError(f"config.json has score_type cost, but card {card.name} has scale {card.scale:g}")
    return card.scale


def _read_at(card: Card, config: Mapping[str, Any]) -> Any:
    pad, end = config.get("pad_token_id"), config.get("eos_token_id")
    ends = end if isinstance(end, list) else [end]
    is_unstated = card.read_at is None and card.adapter != "labels" and _reward_token(config) is None
    if is_unstated and pad is not None and pad in ends:
        raise CheckpointError(
            'its pad token is EOS: say in a card whether its score is read at EOS (read_at = "last") or, as '
            'transformers does then, at the token before (read_at = "before_pad")'
        )
    return card.read_at or "last"
