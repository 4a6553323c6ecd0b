"""The export itself: a run's data files, one per format, with a dataset card and a chat template.

A new format is a row of `winnow.server.distill.export.FILES` and its contents in `contents.table`. Every format is
written as Parquet too, for `datasets`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.jinja import JinjaTemplate
from winnow.models.engines.chat_template import chat_template
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import RunError
from winnow.server.distill import tokenizer_copy
from winnow.server.distill.export import (
    ALL_FORMATS,
    CHAT_TEMPLATE,
    FILES,
    ExportOptions,
    Format,
    Written,
    table_of,
)
from winnow.server.distill.export.card import Part, card
from winnow.server.distill.export.contents import Table, table
from winnow.server.distill.export.exported_template import ExportedTemplate
from winnow.server.distill.export.openai_batch import model
from winnow.server.distill.export.sources import MergedRuns, Source
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.export.writers import Writer, json_lines, parquet
from winnow.server.distill.files import write
from winnow.server.distill.manifest import Manifest

logger = logging.getLogger(__name__)

CARD = "README.md"


def export(folder: Path, formats: Sequence[Format], options: ExportOptions, out: Path | None = None) -> list[Written]:
    """Write a run's data files into `out` (default: `folder`/export), with a dataset card and a chat template.

    The card describes this export alone, so name all formats that belong together at once. Other files in
    `out` are not touched.

    If no chat template gives the policy's tokenizer the ids that were sampled, `token-ids` are written instead of one.
    All formats at once leave out `token-ids` where the tokenizer is not known.

    Returns:
        The data files in the order of `formats`, each once, with their rows.

    Raises:
        RunError: no format is named, the folder holds no run, runs cannot be merged, `token-ids` are wanted without a
            tokenizer, or a file cannot be written.
        CheckpointError: the tokenizer cannot be loaded.
    """
    wanted = named(formats, options)
    runs = MergedRuns(folder, options.merge)
    chat = chat_format(folder, runs.manifests[0], options)
    return written(runs, chat, wanted, options, folder / "export" if out is None else out)


def named(formats: Sequence[Format], options: ExportOptions, *, of_store: bool = False) -> tuple[Format, ...]:
    """Return the formats that are wanted, each once, of a run or `of_store`.

    Raises:
        RunError: there is none, or one that cannot be with these options.
    """
    wanted = tuple(dict.fromkeys(formats))
    if not wanted:
        raise RunError(f"name at least one format: {', '.join(ALL_FORMATS)}")
    if "annotations" in wanted and not of_store:
        raise RunError("annotations are people's choices, which a run has none of; winnow export store:winnow.db has")
    if "openai-batch" in wanted and options.merge:
        raise RunError("openai-batch is the result of one input; export it without --merge, or name other formats")
    return wanted


def written(
    runs: Source,
    chat: ExportedTemplate,
    formats: tuple[Format, ...],
    options: ExportOptions,
    target: Path,
    also: Sequence[Part] = (),
) -> list[Written]:
    """Write the data files of `runs` into the folder `target`; see `export`. The card tells of those of `also`, too."""
    wanted = _writable(formats, chat)
    survey = Survey(runs, chat.spells_a_control_token)
    try:
        for kind in wanted:
            (target / table_of(kind)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    name = model(runs.manifests[0])
    parts = _write(target, runs, {kind: table(kind, options, survey.logits, chat, name) for kind in wanted})
    _write_template(target / CHAT_TEMPLATE, chat)
    write(target / CARD, card(runs.names, runs.manifests, survey, options, [*parts, *also], chat).encode())
    return [Written(target / FILES[part.format].name, part.rows) for part in parts]


def without_ids(formats: tuple[Format, ...]) -> tuple[Format, ...]:
    """Return the formats that can be written without the policy's tokenizer: all but `token-ids`, if all are wanted.

    Raises:
        RunError: `token-ids` are wanted in particular.
    """
    if "token-ids" in formats and set(formats) != set(ALL_FORMATS):
        raise RunError(
            "token-ids need the policy's tokenizer, which the run does not hold; name it with "
            "winnow export RUN --tokenizer CHECKPOINT"
        )
    return tuple(kind for kind in formats if kind != "token-ids")


def chat_format(folder: Path | None, manifest: Manifest, options: ExportOptions) -> ExportedTemplate:
    """Return the chat format of the policy, `llama2` where the manifest names none.

    Of a server's or a store's model, which have no `folder` with a copy of the tokenizer, a template that is none of
    Winnow's own is not known unless the tokenizer is named.
    """
    models = manifest["models"]
    name = models.get("policy", models.get("server", {})).get("template", "llama2")
    kept = tokenizer_copy.load(folder) if folder and not options.tokenizer else None
    tokenizer = load_tokenizer(options.tokenizer, "policy") if options.tokenizer else kept
    if (folder is None or "server" in models) and name not in TEMPLATES:
        if not options.tokenizer:
            return ExportedTemplate(JinjaTemplate("", name), None, None)
        return ExportedTemplate.of(chat_template(options.tokenizer, "tokenizer"), tokenizer)
    template = tokenizer_copy.template(folder or Path(), name)
    return ExportedTemplate.of(template.with_tags("neutralise"), tokenizer)  # as the Jinja template does


def _writable(wanted: tuple[Format, ...], chat: ExportedTemplate) -> tuple[Format, ...]:
    """Return the formats that can be written, with `token-ids` where no chat template is exact."""
    if chat.tokenizer is None:
        return without_ids(wanted)
    return wanted if chat.jinja or "token-ids" in wanted else (*wanted, "token-ids")


def _write(target: Path, runs: Source, tables: Mapping[Format, Table[Any]]) -> list[Part]:
    """Write every table in one pass over the runs; a row is made once for all of its files."""
    with contextlib.ExitStack() as stack:
        writers = {
            kind: [stack.enter_context(file) for file in _files(target, kind, table)] for kind, table in tables.items()
        }
        for entry in runs:
            for kind, table in tables.items():
                rows = list(table.rows(entry))
                for writer in writers[kind]:
                    writer.add(rows)
    return [Part(kind, writers[kind][0].rows, table.columns) for kind, table in tables.items()]


def _files(target: Path, kind: Format, table: Table[Any]) -> Iterator[contextlib.AbstractContextManager[Writer]]:
    """Yield the files of a format, the one that people name first; see `winnow.server.distill.export.table_of`."""
    if not FILES[kind].name.endswith(".parquet"):
        yield json_lines(target / FILES[kind].name)
    yield parquet(target / table_of(kind), table.columns)


def _write_template(path: Path, chat: ExportedTemplate) -> None:
    """Write the chat template, or remove an earlier one if none is exact."""
    if not chat.is_exact:
        logger.warning("%s", chat.about)
    if chat.jinja:
        write(path, chat.jinja.encode())
    else:
        path.unlink(missing_ok=True)
