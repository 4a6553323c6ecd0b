"""A run's copy of its policy's tokenizer and chat template: exports are checked by their ids, and written as ids."""

from __future__ import annotations

from pathlib import Path

from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.checkpoint import TEMPLATE_FILE, load_tokenizer, tokenizer_files
from winnow.models.errors import RunError
from winnow.models.tokenizer import Tokenizer
from winnow.server.distill.files import write

FOLDER = "tokenizer"


def keep(run: Path, checkpoint: str | None, template: ChatTemplate | None = None) -> None:
    """Copy the files of the tokenizer of `checkpoint`, None for none, into the folder `run`; what is there stays.

    A `template` that is none of Winnow's own is written beside them.

    Raises:
        CheckpointError: they cannot be read.
        RunError: they cannot be written.
    """
    folder = run / FOLDER
    files = tokenizer_files(checkpoint) if checkpoint else {}
    if template and template.digest:
        files[TEMPLATE_FILE] = template.jinja.encode()
    for name, content in files.items():
        if not (folder / name).exists():
            folder.mkdir(exist_ok=True)
            write(folder / name, content)


def load(run: Path) -> Tokenizer | None:
    """Return the tokenizer that `run` keeps; None if it was sampled by a server, or by an older Winnow.

    Raises:
        CheckpointError: the copy is damaged.
    """
    kept = any((run / FOLDER / name).exists() for name in ("tokenizer.json", "merges.txt"))
    return load_tokenizer(str(run / FOLDER), "policy") if kept else None


def template(run: Path, name: str) -> ChatTemplate:
    """Return the chat template called `name` in the manifest of `run`.

    Raises:
        RunError: it is none of Winnow's own, and the run does not hold it.
    """
    if own := {template.name: template for template in TEMPLATES.values()}.get(name):
        return own
    try:
        return JinjaTemplate((run / FOLDER / TEMPLATE_FILE).read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError):
        raise RunError(f"{run} does not hold the chat template that it was made with; run it again to add it") from None
