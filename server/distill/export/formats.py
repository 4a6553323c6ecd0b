"""The export itself: a run's data files, one per format, with a dataset card and a chat template.

A new format is a row of `winnow.server.distill.export.FILES` and its contents, a row of `_tables`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from winnow.models.chat_templates import TEMPLATES
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.errors import RunError
from winnow.models.statistics import Moments
from winnow.server.distill import tokenizer_copy
from winnow.server.distill.export import ALL_FORMATS, CHAT_TEMPLATE, FILES, ExportOptions, Format, Written
from winnow.server.distill.export.card import Part, card
from winnow.server.distill.export.chat_format import ChatFormat
from winnow.server.distill.export.choosing import Pair, Pick, Unseen, pair, picks
from winnow.server.distill.export.columns import PREFERENCES, PROMPT_COMPLETION, SFT, Column, T, candidates, row
from winnow.server.distill.export.openai_batch import model, result
from winnow.server.distill.export.sources import AnsweredPrompt, ExportEntry, MergedRuns
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.export.token_ids import TOKEN_IDS, encoded
from winnow.server.distill.export.writers import Writer, json_lines, parquet
from winnow.server.distill.files import write
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Problem

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
    wanted = tuple(dict.fromkeys(formats))
    if not wanted:
        raise RunError(f"name at least one format: {', '.join(ALL_FORMATS)}")
    if "openai-batch" in wanted and options.merge:
        raise RunError("openai-batch is the result of one input; export it without --merge, or name other formats")
    runs = MergedRuns(folder, options.merge)
    survey = Survey(runs)
    chat = _chat_format(folder, runs.manifests[0], options)
    wanted = _with_ids(wanted, chat)
    target = folder / "export" if out is None else out
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    manifest = runs.manifests[0]
    name, tables, respelt = model(manifest), _tables(options, survey.logits, chat), 0
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer(target / FILES[kind].name, tables.get(kind), name)) for kind in wanted]
        for entry in runs:
            respelt += isinstance(entry, AnsweredPrompt) and chat.spells_a_control_token(entry)
            for writer in writers:
                writer.add(entry)
    parts = [
        Part(kind, writer.rows, tables[kind].columns if kind in tables else ())
        for kind, writer in zip(wanted, writers, strict=True)
    ]
    _write_template(target / CHAT_TEMPLATE, chat)
    write(target / CARD, card(runs.names, runs.manifests, survey, options, parts, chat, respelt).encode())
    return [Written(target / FILES[part.format].name, part.rows) for part in parts]


def _chat_format(folder: Path, manifest: Manifest, options: ExportOptions) -> ChatFormat:
    """Return the chat format of the policy; by default its template is `llama2`: a server does not name its own."""
    tokenizer = load_tokenizer(options.tokenizer, "policy") if options.tokenizer else tokenizer_copy.load(folder)
    template = TEMPLATES[manifest["models"].get("policy", {}).get("template", "llama2")]
    return ChatFormat.of(template.with_tags("neutralise"), tokenizer)  # as the Jinja template does


def _with_ids(wanted: tuple[Format, ...], chat: ChatFormat) -> tuple[Format, ...]:
    """Return the formats that can be written, with `token-ids` where no chat template is exact."""
    if chat.tokenizer is None and "token-ids" in wanted:
        if set(wanted) != set(ALL_FORMATS):
            raise RunError(
                "token-ids need the policy's tokenizer, which the run does not hold; name it with --tokenizer"
            )
        return tuple(kind for kind in wanted if kind != "token-ids")
    return wanted if chat.jinja or "token-ids" in wanted else (*wanted, "token-ids")


def _write_template(path: Path, chat: ChatFormat) -> None:
    """Write the chat template, or remove an earlier one if none is exact."""
    if not chat.is_exact:
        logger.warning("%s", chat.about)
    if chat.jinja:
        write(path, chat.jinja.encode())
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Table(Generic[T]):
    """The columns of a format, and the subjects of its rows in a prompt."""

    columns: Sequence[Column[T]]
    subjects: Callable[[AnsweredPrompt], Iterable[T]]

    def of(self, entry: ExportEntry) -> Iterable[T]:
        return self.subjects(entry) if isinstance(entry, AnsweredPrompt) else ()

    def rows(self, entry: ExportEntry) -> Iterator[dict[str, Any]]:
        return (row(self.columns, subject) for subject in self.of(entry))


def _tables(options: ExportOptions, moments: Moments, chat: ChatFormat) -> Mapping[Format, _Table[Any]]:
    tables: dict[Format, _Table[Any]] = {
        "sft": _Table(SFT, _best(options)),
        "prompt-completion": _Table(PROMPT_COMPLETION, _best(options)),
        "preferences": _Table(PREFERENCES, _pairs(options)),
        "candidates": _Table(candidates(moments), _every),
    }
    if chat.tokenizer:
        tables["token-ids"] = _Table(TOKEN_IDS, encoded(_best(options), chat.template, chat.tokenizer))
    return tables


def _writer(path: Path, table: _Table[Any] | None, name: str) -> contextlib.AbstractContextManager[Writer]:
    """Return the writer of a table, or of `openai-batch`, which is none; `name` is the policy's."""
    if table is None:
        return json_lines(path, lambda entry: [_result(entry, name)])
    return parquet(path, table.columns, table.of) if path.suffix == ".parquet" else json_lines(path, table.rows)


def _best(options: ExportOptions) -> Callable[[AnsweredPrompt], Iterator[Pick]]:
    is_new = Unseen()

    def subjects(prompt: AnsweredPrompt) -> Iterator[Pick]:
        for pick in picks(prompt, options):
            if not options.deduplicate or is_new(prompt, pick.answer.candidate.text):
                yield pick

    return subjects


def _pairs(options: ExportOptions) -> Callable[[AnsweredPrompt], Iterator[Pair]]:
    is_new = Unseen()

    def subjects(prompt: AnsweredPrompt) -> Iterator[Pair]:
        found = pair(prompt, options)
        if found and (
            not options.deduplicate or is_new(prompt, found.chosen.candidate.text, found.rejected.candidate.text)
        ):
            yield found

    return subjects


def _every(prompt: AnsweredPrompt) -> Iterator[Pick]:
    return (Pick(prompt, answer) for answer in prompt.answers)


def _result(entry: ExportEntry, name: str) -> dict[str, Any]:
    return result(entry if isinstance(entry, Problem) else entry.lead, name)
