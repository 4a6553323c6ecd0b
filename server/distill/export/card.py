"""The dataset card: what the files hold, what they were made of, and what a reward is not.

Derived from the manifests, the counts and the options alone: no times, no paths, the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from winnow.models.statistics import Moments
from winnow.models.types import Branch
from winnow.server.distill.export.columns import FIELDS, Column
from winnow.server.distill.export.options import FILES, ExportOptions, Format
from winnow.server.distill.export.survey import Survey
from winnow.server.distill.manifest import Manifest

INTRODUCTION = """\
For each prompt K answers were sampled from a policy, a safety and a helpfulness reward model scored each, and the two scores
were combined as in Llama 2: R_c is R_s if the prompt is a safety prompt or R_s < 0.15, else R_h. The best answer by R_c is the
one to learn (rejection sampling), the others are what it was better than."""

HOW_TO = {
    "sft": "TRL: `SFTTrainer` on `messages`. With `assistant_only_loss=True` and `chat_template.jinja`, turns of `weight` 0 carry no loss; "
    "without, every token of the dialog carries loss.",
    "prompt-completion": "TRL: `SFTTrainer`; only the completion carries loss, so that earlier turns never do.",
    "preferences": "TRL: `DPOTrainer`, or `RewardTrainer`, which subtracts `margin`; copy `margin_small` or `margin_large` into it for the "
    "paper's own.",
    "candidates": '`pandas.read_parquet`, or `load_dataset("parquet", data_files="candidates.parquet")`: `datasets` reads all configs of a '
    "folder with one reader, so beside JSON files this one is no config.",
    "openai-batch": "A line for each line of the input, in OpenAI's batch output shape; a `custom_id` that the input did not name is "
    "`line-N`. `created` and the timings are 0. Read it as JSON, a line at a time; it is no config.",
}

LIMITS = """\
- A reward is one model's guess at what people prefer. It is no measure of truth, and not comparable across reward models.
- The best of K by a reward is also the best at whatever the reward model gets wrong, the more so the larger K is.
- R_s and R_h come from two models. R_c puts them on one scale, as the paper does; their calibrations may differ.
- R_s ≥ 0.15 does not say that an answer is safe: in the paper that gate had a precision of 0.89 and a recall of 0.55.
- A rating is derived from the reward models; nobody was asked.
- `chat_template.jinja` writes the Llama-2 chat format. A policy of another format needs its own template."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the export: its rows, and its columns (none where it is no table)."""

    format: Format
    rows: int
    columns: Sequence[Column[Any]]


def card(
    names: Sequence[str | None],
    manifests: Sequence[Manifest],
    survey: Survey,
    options: ExportOptions,
    parts: Sequence[Part],
) -> str:
    """The text of `README.md`: YAML for the Hub and for `datasets`, then Markdown. `names` are the runs' folders, if merged."""
    title = f"Best-of-N answers to {manifests[0]['input']['name']}"
    sections = [
        "\n".join(("---", *_front_matter(title, parts), "---")),
        f"# {title}\n\n{INTRODUCTION}",
        "\n".join(("## Files\n", *_files(parts))),
        "\n".join(("## Counts\n", *_counts(survey))),
        "\n".join(("## Rewards\n", *_rewards(survey))),
        "\n".join(("## Choices of this export\n", *_options(options))),
        *(_provenance(name, manifest) for name, manifest in zip(names, manifests, strict=True)),
        *("\n".join((f"## Fields: {part.format}\n", *_fields(part))) for part in parts if part.columns),
        f"## Limits\n\n{LIMITS}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(title: str, parts: Sequence[Part]) -> Iterator[str]:
    """`datasets` takes one reader for all configs of a folder, so Parquet is a config only where it is alone."""
    tables = [part for part in parts if part.columns]
    if len(tables) > 1:
        tables = [part for part in tables if part.format != "candidates"]
    yield f"pretty_name: {_json(title)}"
    yield "tags: [best-of-n, rejection-sampling, synthetic, winnow]"
    if tables:
        yield "configs:"
    for place, part in enumerate(tables):
        yield f"- config_name: {part.format}"
        yield from ([] if place else ["  default: true"])
        yield from ("  data_files:", "  - split: train", f"    path: {FILES[part.format]}")
    if tables:
        yield "dataset_info:"
    for part in tables:
        yield from (f"- config_name: {part.format}", "  features:")
        for column in part.columns:
            yield from (f"  - name: {column.name}", *_feature(column.kind))


def _feature(kind: str) -> Iterator[str]:
    if kind not in FIELDS:
        yield f"    dtype: {kind}"
        return
    yield "    list:"
    for name, inner in FIELDS[kind].items():
        yield from (f"    - name: {name}", f"      dtype: {inner}")


def _files(parts: Sequence[Part]) -> Iterator[str]:
    yield from _table("file", "rows", "use")
    for part in parts:
        yield _cells(f"`{FILES[part.format]}`", f"{part.rows:,}", HOW_TO[part.format])
    yield _cells(
        "`chat_template.jinja`",
        "",
        "The chat format, for tokenizers that have none: `SFTConfig(chat_template_path=…)`.",
    )


def _counts(survey: Survey) -> Iterator[str]:
    yield from _table("what", "how many")
    yield _cells("prompts with answers", f"{survey.prompts:,}")
    yield _cells("… of which every answer is unsafe (R_s < 0.15)", f"{survey.all_unsafe:,}")
    yield _cells("… of which earlier assistant turns carry no loss", f"{survey.silent:,}")
    yield _cells("… of which the best answer is context-distilled", f"{survey.distilled_winners:,}")
    yield _cells("input lines at fault", f"{survey.problems['input']:,}")
    yield _cells("input lines all of whose candidates failed", f"{survey.problems['failed']:,}")
    yield _cells("candidates scored", f"{survey.logits.count:,}")
    for branch in Branch:
        yield _cells(f"… decided by `{branch.value}`", f"{survey.branches[branch]:,}")
    yield _cells("… context-distilled", f"{survey.distilled:,}")
    yield _cells("… cut off by the token limit", f"{survey.cut:,}")
    yield _cells("candidates that failed, beside those that were scored", f"{survey.failed:,}")


def _rewards(survey: Survey) -> Iterator[str]:
    def line(name: str, moments: Moments) -> str:
        numbers = (moments.mean, moments.deviation, moments.lowest, moments.highest)
        return _cells(name, *(f"{number:.4f}" for number in numbers))

    yield from _table("over", "mean", "deviation", "least", "greatest")
    yield line("R_c of every candidate", survey.rewards)
    yield line("R_c of the best of each prompt", survey.winners)
    yield line("logit(R_c) of every candidate", survey.logits)


def _options(options: ExportOptions) -> Iterator[str]:
    yield from _table("option", "value", "what it does")
    for name, field in ExportOptions.model_fields.items():
        value = getattr(options, name)
        shown = [path.resolve().name for path in value] if name == "merge" else value
        yield _cells(name, _json(shown), field.description or "")
    yield "\n`candidates` and `openai-batch` hold everything, whatever is chosen; only `merge` bears on `candidates`."


def _provenance(name: str | None, manifest: Manifest) -> str:
    head = f"## Provenance of {name}\n" if name else "## Provenance\n"
    return "\n".join((head, *_table("what", "value"), *(_cells(*pair) for pair in _flat(manifest, ""))))


def _flat(body: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", f"`{_json(value)}`"


def _fields(part: Part) -> Iterator[str]:
    yield from _table("field", "type", "what it is")
    for column in part.columns:
        kind = f"list of {{{', '.join(FIELDS[column.kind])}}}" if column.kind in FIELDS else column.kind
        yield _cells(f"`{column.name}`", kind, column.about)


def _table(*heads: str) -> Iterator[str]:
    yield _cells(*heads)
    yield "|" + " --- |" * len(heads)


def _cells(*values: str) -> str:
    return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
