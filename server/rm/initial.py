"""The checkpoint that training begins with, and what the trained model will read: its card, template and context."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.models.cards import Card
from winnow.models.cards.card import FILE, parse_card, read_card_text
from winnow.models.cards.writing import to_toml
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.base import AnswerReader, RewardInput
from winnow.models.engines.chat_template import chat_template
from winnow.models.engines.checkpoint import inspect_policy, load_plain_tokenizer, read_json, tensor_shapes
from winnow.models.engines.heads import PLAIN, architecture, is_classifier
from winnow.models.engines.hub import snapshot
from winnow.models.engines.scorers import KIND, Scorer, card_text_of, inspect_scorer
from winnow.models.errors import CheckpointError
from winnow.models.types import Message, Prompt
from winnow.server.reward_models import LLAMA2, with_reader

NOT_KEPT = ("name", "match", "architectures", "scale", "bias", "calibrated", "calibration", "probe", "read_at", "note")
"""Fields of a card that do not hold for a model that was trained further."""
_CHAT_MODELS = ("ForCausalLM", "LMHeadModel")
_ASKED = Prompt((), (Message("user", "Hello."),))


@dataclass(frozen=True, slots=True)
class Initial:
    """A checkpoint to train: its folder, and what is read, by the card that the trained model gets.

    `card` are that card's values without a name. `own` is the checkpoint as the reward model that it was, with its own
    reader; None for a chat model. `parameters` counts its weights.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]
    reader: AnswerReader
    context: int
    dtype: str
    parameters: int
    own: tuple[Scorer, AnswerReader] | None = None


def inspected(checkpoint: str, card_file: Path | None, context: int | None) -> Initial:
    """Return the checkpoint to train, by its files; `context` is the longest that it may read.

    Raises:
        CheckpointError: it is no chat model and no reward model with one label, or nothing says how it reads.
    """
    folder = snapshot(checkpoint)
    config = read_json(folder / "config.json", KIND)
    name = Path(checkpoint.rstrip("/")).name
    if is_classifier(config) or not architecture(config).endswith(_CHAT_MODELS):
        rows = tensor_shapes(folder, KIND).get(PLAIN.weight, [1])[0]
        if rows != 1:
            raise CheckpointError(
                f"{name} has {rows} labels; begin with a classifier that has one, or with a chat model"
            )
        text, own = _reward_model(checkpoint, card_file)
    else:
        inspect_policy(checkpoint, KIND)
        if not isinstance(config.get("hidden_size"), int):  # said now, and not when its trained model is checked
            raise CheckpointError(
                f"{name}: a {architecture(config)} has no hidden_size in config.json, and is not served"
            )
        text, own = (read_card_text(card_file) if card_file else _derived(folder, name)), None
    values = {key: value for key, value in tomllib.loads(text).items() if key not in NOT_KEPT}
    # The score is read at the last token, whatever the checkpoint's own trainer did: padding never hides it.
    values |= {"read_at": "last"}
    card = parse_card(to_toml(values), card_file.name if card_file else FILE)
    if card.adapter != "linear":
        raise CheckpointError(f'a card for training has adapter = "linear", not {card.adapter!r}')
    _, reader = with_reader(Scorer(folder, replace(card, name=name), PLAIN, config))
    # Said aloud, because what goes without saying may depend on the policy beside it.
    values.setdefault("template", LLAMA2 if isinstance(reader, RewardInput) else "tokenizer")
    return Initial(
        name, folder, values, reader, _context(card, config, context), _dtype(config), _parameters(folder), own
    )


def card_text(initial: Initial, name: str, note: str) -> str:
    """Return the card of a model that was trained from `initial`, not calibrated yet."""
    values = {"name": name, **initial.card, "scale": 1.0, "calibrated": False, "note": note}
    return to_toml(values)


def _reward_model(checkpoint: str, card_file: Path | None) -> tuple[str, tuple[Scorer, AnswerReader]]:
    """Return the card's text of a reward model that is trained further, and how it was read so far."""
    scorer = inspect_scorer(checkpoint, card_file)
    named = architecture(scorer.config)
    if scorer.encoder or not is_classifier(scorer.config) or scorer.head.tensors != PLAIN.tensors:
        raise CheckpointError(
            f"{scorer.card.name}: a {named} cannot be trained further; begin with a chat model (ForCausalLM) or a "
            "ForSequenceClassification that has one label and no bias"
        )
    if (scorer.card.scale or 1.0) < 0:
        raise CheckpointError(
            f"{scorer.card.name}: its score rises with harm (scale {scorer.card.scale:g}), and training puts the "
            "better answer higher; begin with the chat model that it was made of"
        )
    text, _ = card_text_of(scorer, checkpoint, "safety", card_file)
    return text, with_reader(scorer)


def _derived(folder: Path, name: str) -> str:
    """Return a card for a chat model: its chat template as the policy has it, and EOS where that closes no answer."""
    try:
        policys = chat_template(str(folder), "auto")
    except CheckpointError as error:
        reason = str(error).removeprefix("policy: ").split(";")[0]
        raise CheckpointError(f"{reason}; give a card that has a template: --card FILE (docs/models.md)") from None
    if isinstance(policys, Llama2Template):
        return to_toml({"template": LLAMA2})
    values: dict[str, Any] = {"template": "tokenizer"}
    tokenizer = load_plain_tokenizer(str(folder), KIND)
    reader = with_reader(Scorer(folder, Card(name=name, template="tokenizer"), PLAIN, {}))[1]
    one, other = (reader.token_ids(_ASKED, answer) for answer in ("Yes", "Never."))
    same = next((place for place in range(min(len(one), len(other))) if one[-1 - place] != other[-1 - place]), 0)
    closing = one[len(one) - same :]
    special = {*tokenizer.all_special_ids, *(key for key, token in tokenizer.added_tokens_decoder.items()
                                             if token.special)}  # fmt: skip
    if not special & set(closing) and tokenizer.eos_token:
        values["end"] = [tokenizer.eos_token]
    return to_toml(values)


def _context(card: Card, config: Mapping[str, Any], wanted: int | None) -> int:
    longest = config.get("max_position_embeddings")
    limits = [limit for limit in (card.context, longest) if isinstance(limit, int)]
    if wanted and limits and wanted > min(limits):
        raise CheckpointError(f"--context is {wanted}, but the checkpoint reads at most {min(limits)} tokens")
    if not (wanted or limits):
        raise CheckpointError("config.json has no max_position_embeddings; say with --context how much it reads")
    return wanted or min(limits)


def _dtype(config: Mapping[str, Any]) -> str:
    """Return the precision that the weights are stored in, as config.json says."""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def _parameters(folder: Path) -> int:
    return sum(map(math.prod, tensor_shapes(folder, KIND).values()))
