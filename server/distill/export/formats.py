"""The export itself: a run's data files, one per format, with a dataset card and a chat template.

A new format is a row of `winnow.server.distill.export.FILES` and its contents in `_table`. Every format is written as
Parquet too, for `datasets`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from winnow.models.chat_templates import TEMPLATES
from winnow.models.chat_templates.base import ChatTemplate
from winnow.models.errors import RunError
from winnow.models.statistics import Moments
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
from winnow.server.distill.export.choosing import Pair, Pick, Unseen, pair, picks
from winnow.server.distill.export.columns import PROMPT_COMPLETION, SFT, Column, T, candidates, preferences, row
from winnow.server.distill.export.openai_batch import COLUMNS, model, result
from winnow.server.distill.export.sources import AnsweredPrompt, ExportEntry, MergedRuns
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.export.writers import Row, Writer, json_lines, parquet
from winnow.server.distill.files import write
from winnow.server.distill.manifest import Manifest
from winnow.server.distill.records import Problem

CARD = "README.md"


def export(folder: Path, formats: Sequence[Format], options: ExportOptions, out: Path | None = None) -> list[Written]:
    """Write a run's data files into `out` (default: `folder`/export), with a dataset card and a chat template.

    The card describes this export alone, so name all formats that belong together at once. Other files in
    `out` are not touched.

    Returns:
        The data files in the order of `formats`, each once, with their rows.

    Raises:
        RunError: no format is named, the folder holds no run, runs cannot be merged, or a file cannot be written.
    """
    wanted = tuple(dict.fromkeys(formats))
    if not wanted:
        raise RunError(f"name at least one format: {', '.join(ALL_FORMATS)}")
    if "openai-batch" in wanted and options.merge:
        raise RunError("openai-batch is the result of one input; export it without --merge, or name other formats")
    runs = MergedRuns(folder, options.merge)
    survey = Survey(runs)
    target = folder / "export" if out is None else out
    try:
        for kind in wanted:
            (target / table_of(kind)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    tables = {kind: _table(kind, options, survey.logits, model(runs.manifests[0])) for kind in wanted}
    parts = _write(target, runs, tables)
    template = _template(runs.manifests[0])
    write(target / CHAT_TEMPLATE, template.jinja.encode())
    write(target / CARD, card(runs.names, runs.manifests, survey, options, parts, template).encode())
    return [Written(target / FILES[part.format].name, part.rows) for part in parts]


def _write(target: Path, runs: MergedRuns, tables: Mapping[Format, _Table[Any]]) -> list[Part]:
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


@dataclass(frozen=True, slots=True)
class _Table(Generic[T]):
    """The columns of a format, and the subjects of its rows in an entry."""

    columns: Sequence[Column[T]]
    subjects: Callable[[ExportEntry], Iterable[T]]

    def rows(self, entry: ExportEntry) -> Iterator[Row]:
        return (row(self.columns, subject) for subject in self.subjects(entry))


def _table(kind: Format, options: ExportOptions, moments: Moments, name: str) -> _Table[Any]:
    """Return the contents of a format; `name` is that of the served model."""
    if kind == "openai-batch":
        return _Table(COLUMNS, lambda entry: [_result(entry, name)])
    if kind == "candidates":
        return _Table(candidates(moments), _answered(_every))
    if kind == "preferences":
        return _Table(preferences(options.margin), _answered(_pairs(options)))
    return _Table(SFT if kind == "sft" else PROMPT_COMPLETION, _answered(_best(options)))


def _answered(subjects: Callable[[AnsweredPrompt], Iterable[T]]) -> Callable[[ExportEntry], Iterable[T]]:
    return lambda entry: subjects(entry) if isinstance(entry, AnsweredPrompt) else ()


def _files(target: Path, kind: Format, table: _Table[Any]) -> Iterator[contextlib.AbstractContextManager[Writer]]:
    """Yield the files of a format, the one that people name first; see `winnow.server.distill.export.table_of`."""
    if not FILES[kind].name.endswith(".parquet"):
        yield json_lines(target / FILES[kind].name)
    yield parquet(target / table_of(kind), table.columns)


def _template(manifest: Manifest) -> ChatTemplate:
    """Return the policy's chat template, by default `llama2`: a server does not name its template."""
    return TEMPLATES[manifest["models"].get("policy", {}).get("template", "llama2")]


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


def _result(entry: ExportEntry, name: str) -> Row:
    return result(entry if isinstance(entry, Problem) else entry.lead, name)
