"""The dataset card: the contents of the files, their origin, and the limits of a reward.

It depends on the manifests, the counts and the options alone, not on times or paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from winnow.models.engines.hub import is_local
from winnow.models.reporting.pages import flattened
from winnow.models.statistics import Moments
from winnow.models.types import SAFETY_THRESHOLD, Branch
from winnow.server.distill.export import CHAT_TEMPLATE, FILES, PARQUET, ExportOptions, Format, table_of
from winnow.server.distill.export.columns import FIELDS, Column, Kind
from winnow.server.distill.export.exported_template import ExportedTemplate
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.manifest import Manifest

INTRODUCTION = f"""\
A policy sampled K answers to each prompt. A safety and a helpfulness reward model scored each answer.
The two scores were combined as in Llama 2: R_c is R_s if the prompt is a safety prompt or R_s < {SAFETY_THRESHOLD},
else R_h. The best answer by R_c is the one to train on (rejection sampling)."""

CHOICES = """\
People saw two answers to a conversation, without scores, models or each other's choices, and in an order drawn by lot.
They chose one on a scale of eight points, and said of each whether it is safe. A choice is questioned if its answer was
called unsafe and the other one safe. Several annotators of a pair are several rows."""

LIMITS = f"""\
- A reward is one model's guess at what people prefer. It is no measure of truth and does not compare across models.
- The best of K by a reward is also the best at exploiting the reward model's errors, more so with a larger K.
- R_s and R_h come from two models. R_c puts them on one scale, as the paper does, but their calibrations may differ.
- R_s ≥ {SAFETY_THRESHOLD} does not prove an answer safe: in the paper this threshold had precision 0.89, recall 0.55.
- Ratings are derived from the reward models. No person rated the answers."""


LIMITS_BESIDE_CHOICES = LIMITS.replace(
    "No person rated the answers.", "Only the ratings of `annotations` are people's: see its fields."
)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the export: its number of rows, and its columns."""

    format: Format
    rows: int
    columns: Sequence[Column[Any]]


def card(
    names: Sequence[str | None],
    manifests: Sequence[Manifest],
    survey: Survey,
    options: ExportOptions,
    parts: Sequence[Part],
    chat: ExportedTemplate,
) -> str:
    """Return `README.md`: YAML for the Hub and for `datasets`, then Markdown.

    `names` are the folder names of the runs if they were merged.
    """
    title = f"Best-of-N answers to {manifests[0]['input']['name']}"
    sections = [
        "\n".join(("---", *_front_matter(title, parts), "---")),
        f"# {title}\n\n{INTRODUCTION}{_empty_rule(manifests[0])}",
        "\n".join(("## Files\n", *_files(parts, chat))),
        "\n".join(("## Counts\n", *_counts(survey))),
        "\n".join(("## Rewards\n", *_rewards(survey))),
        "\n".join(("## Choices of this export\n", *_options(options))),
        *(_provenance(name, manifest) for name, manifest in zip(names, manifests, strict=True)),
        *("\n".join((f"## Fields: {part.format}\n", *_fields(part))) for part in parts),
        "\n".join(("## Chat format\n", *_chat_format(chat, survey.respelt))),
        f"## Limits\n\n{LIMITS if all(part.format != 'annotations' for part in parts) else LIMITS_BESIDE_CHOICES}",
    ]
    return "\n\n".join(sections) + "\n"


def card_of_choices(part: Part, manifests: Mapping[int, Manifest], options: ExportOptions) -> str:
    """Return `README.md` of an export of people's choices alone, between answers of the origins with `manifests`."""
    title = "People's choices between recorded answers"
    about = "questioned choices are kept" if options.with_questioned else "questioned choices are left out"
    file = FILES[part.format]
    sections = [
        "\n".join(("---", *_front_matter(title, [part]), "---")),
        f"# {title}\n\n{CHOICES}\n\nIn this export {about}.",
        "\n".join(("## Files\n", *_table("file", "rows", "use"), _cells(f"`{file.name}`", f"{part.rows:,}", file.use))),
        *(_provenance(f"origin {number}", manifest) for number, manifest in manifests.items()),
        "\n".join((f"## Fields: {part.format}\n", *_fields(part))),
    ]
    return "\n\n".join(sections) + "\n"


def _empty_rule(manifest: Manifest) -> str:
    """Return a sentence for `INTRODUCTION`; all runs of an export have the same rule."""
    is_set = manifest["settings"].get("empty_last")
    return "\nAn answer without text ranks below every other, and is never one to train on." if is_set else ""


def _front_matter(title: str, parts: Sequence[Part]) -> Iterator[str]:
    """Yield the YAML lines; every format is a config, and the first one the default."""
    yield f"pretty_name: {_json(title)}"
    yield "tags: [best-of-n, rejection-sampling, synthetic, winnow]"
    yield "configs:"
    for place, part in enumerate(parts):
        yield f"- config_name: {part.format}"
        yield from ([] if place else ["  default: true"])
        yield from ("  data_files:", "  - split: train", f"    path: {table_of(part.format)}")


def _files(parts: Sequence[Part], chat: ExportedTemplate) -> Iterator[str]:
    yield f'`load_dataset(FOLDER, "{parts[0].format}")` loads a format by its name, from `{PARQUET}/`.\n'
    yield from _table("file", "rows", "use")
    for part in parts:
        file = FILES[part.format]
        yield _cells(f"`{file.name}`", f"{part.rows:,}", file.use)
    if chat.jinja:
        use = "The chat format, for tokenizers without one: `SFTConfig(chat_template_path=…)`. See below."
        yield _cells(f"`{CHAT_TEMPLATE}`", "", use)


def _chat_format(chat: ExportedTemplate, respelt: int) -> Iterator[str]:
    yield chat.about
    if chat.jinja and respelt:
        yield (
            f"\nPrompts in which a message or an answer spells a control token such as `</s>`: {respelt:,}. "
            f"{chat.about_control_tokens} The ids of `token-ids` are exact there, too."
        )


def _counts(survey: Survey) -> Iterator[str]:
    yield from _table("count of", "number")
    yield _cells("prompts with answers", f"{survey.prompts:,}")
    yield _cells(f"… of which every answer is unsafe (R_s < {SAFETY_THRESHOLD})", f"{survey.all_unsafe:,}")
    yield _cells("… of which earlier assistant turns carry no loss", f"{survey.masked:,}")
    yield _cells("… of which the best answer is context-distilled", f"{survey.distilled_winners:,}")
    yield _cells("input lines at fault", f"{survey.problems['input']:,}")
    yield _cells("input lines with failed candidates only", f"{survey.problems['failed']:,}")
    yield _cells("candidates scored", f"{survey.logits.count:,}")
    for branch in Branch:
        yield _cells(f"… decided by `{branch.value}`", f"{survey.branches[branch]:,}")
    yield _cells("… context-distilled", f"{survey.distilled:,}")
    yield _cells("… cut off by the token limit", f"{survey.cut:,}")
    yield _cells("candidates that failed (not among the scored)", f"{survey.failed:,}")


def _rewards(survey: Survey) -> Iterator[str]:
    def line(name: str, moments: Moments) -> str:
        numbers = (moments.mean, moments.deviation, moments.lowest, moments.highest)
        return _cells(name, *(f"{number:.4f}" for number in numbers))

    yield from _table("over", "mean", "deviation", "minimum", "maximum")
    yield line("R_c of every candidate", survey.rewards)
    yield line("R_c of the best of each prompt", survey.winners)
    yield line("logit(R_c) of every candidate", survey.logits)


def _options(options: ExportOptions) -> Iterator[str]:
    yield from _table("option", "value", "effect")
    for name, field in ExportOptions.model_fields.items():
        value = getattr(options, name)
        shown = [path.resolve().name for path in value] if name == "merge" else value
        if name == "tokenizer" and value:
            shown = Path(value).resolve().name if is_local(value) else value
        yield _cells(name, _json(shown), field.description or "")
    yield "\n`candidates` and `openai-batch` are complete whatever the options; only `merge` affects `candidates`."


def _provenance(name: str | None, manifest: Manifest) -> str:
    head = f"## Provenance of {name}\n" if name else "## Provenance\n"
    rows = (_cells(key, f"`{_json(value)}`") for key, value in flattened(manifest))
    return "\n".join((head, *_table("entry", "value"), *rows))


def _fields(part: Part) -> Iterator[str]:
    yield from _table("field", "type", "content")
    for column in part.columns:
        yield _cells(f"`{column.name}`", _type(column.kind), column.about)


def _type(kind: Kind) -> str:
    if isinstance(kind, type):
        return f"{{{', '.join(kind.model_fields)}}}"
    if kind == "ids":
        return "list of int64"
    return f"list of {{{', '.join(FIELDS[kind])}}}" if kind in FIELDS else kind


def _table(*heads: str) -> Iterator[str]:
    yield _cells(*heads)
    yield "|" + " --- |" * len(heads)


def _cells(*values: str) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
