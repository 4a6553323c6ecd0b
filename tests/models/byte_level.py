"""Small byte-level tokenizers with chat templates of the usual families, trained in memory."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.chat_template import chat_template
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.tokenizer import Tokenizer

LINES = ["the capital of France is Paris, and fruits are good", "user assistant system <|im_ end|> \n\n", "a b c"] * 20
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}"
    "{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
THINKING = (
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


class Family(NamedTuple):
    """A way in which a chat model's tokenizer is made."""

    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    markup: tuple[str, ...] = ()
    """Added tokens that are not called special: some steer the model, others are words."""
    composes: bool = False
    strips: bool = False
    """Whether special tokens take the white space behind them, as Phi's do."""


FAMILIES = {
    "ChatML": Family(CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_start|>", "<|im_end|>"),
    "Llama 3": Family(
        LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>", "<|eot_id|>",
    ),
    "Qwen": Family(
        THINKING, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>",
        ("<think>", "</think>", "<tool_call>", "<|box|>"), composes=True,
    ),
    "DeepSeek": Family(
        DEEPSEEK, ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>", ("<｜User｜>", "<｜Assistant｜>", "fruits", "  ", "<think>", "</think>"),
    ),
    "Gemma's format": Family(GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<end_of_turn>"),
    "Phi's stripping": Family(CHATML, ("<|im_start|>", "<|im_end|>"), None, "<|im_end|>", strips=True),
}  # fmt: skip


def ship(name: str, folder: Path) -> Path:
    """Write the tokenizer's files into `folder`, and return it."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if family.composes else None
    words = pre_tokenizers.Split(Regex(r"\p{N}|[^\s\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False, rstrip=family.strips) for token in family.special]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.markup])
    if (family.bos and "beg" in family.bos) or family.bos == "<bos>":
        start = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A {family.bos}:1 $B:1", special_tokens=[start]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {"bos_token": family.bos, "eos_token": family.eos, "chat_template": family.template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    return folder


class Shipped(NamedTuple):
    """A tokenizer as transformers loads it, as the product does, and the template that the product finds."""

    theirs: PreTrainedTokenizerBase
    ours: Tokenizer
    template: JinjaTemplate

    def ids(self, dialog: Any, **options: Any) -> list[int]:
        """The ids of transformers' own rendering, with the opening of an answer unless told otherwise."""
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **options}
        return list(self.theirs.apply_chat_template(dialog, **options)["input_ids"])


def loaded(folder: Path) -> Shipped:
    """Load the files in `folder`."""
    template = chat_template(str(folder), "auto")
    assert isinstance(template, JinjaTemplate)
    return Shipped(AutoTokenizer.from_pretrained(folder), load_tokenizer(str(folder), "policy"), template)


@cache
def shipped(name: str) -> Shipped:
    """One of `FAMILIES`, loaded."""
    with TemporaryDirectory() as folder:
        return loaded(ship(name, Path(folder)))
