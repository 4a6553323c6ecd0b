"""What a run is exported as: training data, every score, a batch result, and the card that explains them.

Everything is derived from the journal and the manifest alone: the same run gives the same bytes. Rows stand in the order of the
input, prompts are stored as they were, and files appear whole or not at all. Memory does not grow with the texts of a run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from winnow.models.errors import RunError
from winnow.models.statistics import Moments
from winnow.server.distill.export.answered import AnsweredPrompt
from winnow.server.distill.export.candidates import candidates
from winnow.server.distill.export.card import Part, card
from winnow.server.distill.export.choosing import Pick, Unseen, pair, picks
from winnow.server.distill.export.columns import Column, row
from winnow.server.distill.export.errors_file import write_errors
from winnow.server.distill.export.openai_batch import model, result
from winnow.server.distill.export.options import ALL_FORMATS, FILES, ExportOptions, Format, PairRule, Written
from winnow.server.distill.export.preferences import PREFERENCES
from winnow.server.distill.export.sources import Entry, Source
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.export.training import PROMPT_COMPLETION, SFT
from winnow.server.distill.export.writers import Writer, json_lines, parquet
from winnow.server.distill.files import write
from winnow.server.distill.records import Problem

__all__ = ["ALL_FORMATS", "ExportOptions", "Format", "PairRule", "Written", "export", "write_errors"]

CHAT_TEMPLATE = "chat_template.jinja"
CARD = "README.md"


def export(folder: Path, formats: Sequence[Format], options: ExportOptions, out: Path | None = None) -> list[Written]:
    """Write a run's data files, one a format, into `out` (by default `folder`/export), with a card and a chat template beside.

    The card describes this export: name all formats that are to go together at once. What else lies in `out` is left alone.

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
    source = Source(folder, options.merge)
    survey = Survey(source)
    target = folder / "export" if out is None else out
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    name = model(source.manifests[0])
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(_writer(kind, target / FILES[kind], options, survey.logits, name)) for kind in wanted
        ]
        for entry in source:
            for writer in writers:
                writer.add(entry)
    rows = [writer.rows for writer in writers]
    columns = _columns(survey.logits)
    parts = [Part(kind, count, columns[kind]) for kind, count in zip(wanted, rows, strict=True)]
    write(target / CHAT_TEMPLATE, files(__name__).joinpath("llama2.jinja").read_bytes())
    write(target / CARD, card(source.names, source.manifests, survey, options, parts).encode())
    return [Written(target / FILES[part.format], part.rows) for part in parts]


def _columns(moments: Moments) -> dict[Format, Sequence[Column[Any]]]:
    return {
        "sft": SFT,
        "prompt-completion": PROMPT_COMPLETION,
        "preferences": PREFERENCES,
        "candidates": candidates(moments),
        "openai-batch": (),
    }


def _writer(
    kind: Format, path: Path, options: ExportOptions, moments: Moments, name: str
) -> contextlib.AbstractContextManager[Writer]:
    match kind:
        case "sft":
            return json_lines(path, _learned(SFT, options))
        case "prompt-completion":
            return json_lines(path, _learned(PROMPT_COMPLETION, options))
        case "preferences":
            return json_lines(path, _preferred(options))
        case "candidates":
            return parquet(path, candidates(moments), _every)
        case "openai-batch":
            return json_lines(path, lambda entry: [_result(entry, name)])


def _learned(columns: Sequence[Column[Pick]], options: ExportOptions) -> Callable[[Entry], Iterator[Any]]:
    is_new = Unseen()

    def rows(entry: Entry) -> Iterator[Any]:
        for pick in picks(entry, options) if isinstance(entry, AnsweredPrompt) else ():
            if not options.deduplicate or is_new(pick.prompt, pick.answer.text):
                yield row(columns, pick)

    return rows


def _preferred(options: ExportOptions) -> Callable[[Entry], Iterator[Any]]:
    is_new = Unseen()

    def rows(entry: Entry) -> Iterator[Any]:
        found = pair(entry, options) if isinstance(entry, AnsweredPrompt) else None
        if found and (not options.deduplicate or is_new(found.prompt, found.chosen.text, found.rejected.text)):
            yield row(PREFERENCES, found)

    return rows


def _every(entry: Entry) -> Iterable[Pick]:
    return (Pick(entry, answer) for answer in entry.answers) if isinstance(entry, AnsweredPrompt) else ()


def _result(entry: Entry, name: str) -> Any:
    return result(entry if isinstance(entry, Problem) else entry.lead, name)
