"""`winnow export`: the formats and the options of an export.

The modules of this package derive everything from the journal and the manifest: the same run gives the
same bytes. Rows stand in the order of the input, and a file appears whole or not at all. Memory does not
grow with the texts of a run. This module imports nothing heavy, because the command line imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

Format = Literal[
    "sft",
    "prompt-completion",
    "token-ids",
    "preferences",
    "reward",
    "kto",
    "candidates",
    "openai-batch",
    "annotations",
]
ALL_FORMATS: tuple[Format, ...] = tuple(kind for kind in get_args(Format) if kind != "annotations")
"""The formats of a run, and of a store's answers. `annotations` are people's choices between these."""
CHAT_TEMPLATE = "chat_template.jinja"


class FormatFile(NamedTuple):
    """The file of a format: its name, and its use, a line of Markdown for the dataset card."""

    name: str
    use: str


FILES: dict[Format, FormatFile] = {
    "sft": FormatFile(
        "sft.jsonl",
        f"TRL: `SFTTrainer` on `messages`. With `assistant_only_loss=True` and `{CHAT_TEMPLATE}`, turns of `weight` 0 "
        "carry no loss. Without them, every token of the dialog carries loss.",
    ),
    "prompt-completion": FormatFile(
        "prompt_completion.jsonl",
        "TRL: `SFTTrainer`. Only the completion carries loss; earlier turns never do.",
    ),
    "token-ids": FormatFile(
        "token_ids.jsonl",
        "TRL: `SFTTrainer`, without a template. The ids that were scored, whatever the class of the tokenizer. "
        "Only the answer carries loss.",
    ),
    "preferences": FormatFile(
        "preferences.jsonl",
        "TRL: `DPOTrainer`, or `RewardTrainer`, whose loss subtracts a column `margin` if there is one: export with "
        "`--margin small` or `large` for the paper's m(r), which is in `margin_small` and `margin_large` anyway.",
    ),
    "reward": FormatFile(
        "reward.jsonl",
        "TRL: `RewardTrainer`. The pairs of `preferences` with the paper's m(r) in the column `margin` of every row: "
        "the small one, or the large one with `--margin large`.",
    ),
    "kto": FormatFile(
        "kto.jsonl",
        "TRL: `KTOTrainer`. The answers of the same pairs, one a row: `label` is true of the better one, which is left "
        "out if it is unsafe, and false of the worse one.",
    ),
    "candidates": FormatFile("candidates.parquet", "Every answer with every score, for analysis, not for training."),
    "openai-batch": FormatFile(
        "openai_batch.jsonl",
        "One line per input line, in the shape of OpenAI's batch output. A `custom_id` that the input did not name "
        "is `line-N`. `created` and the timings are 0.",
    ),
    "annotations": FormatFile(
        "annotations.jsonl",
        "People's choices: `winnow rm train`, or TRL's `RewardTrainer` and `DPOTrainer`. A row for each annotator's; "
        "`margin` is the paper's m(r) of their rating.",
    ),
}
"""A row per format, Parquet or JSON Lines by the suffix; the contents of its rows are in `contents.py`."""
PARQUET = "parquet"
"""The folder with the Parquet copies of the JSON Lines files; see `table_of`."""
PairRule = Literal["worst", "median", "random", "second"]
MarginSize = Literal["small", "large"]


def table_of(format: Format) -> str:
    """Return the path, in an export, of a format's rows as Parquet.

    `datasets` reads all configs of a folder with one reader, so every format has a Parquet file.
    """
    name = FILES[format].name
    return name if name.endswith(".parquet") else f"{PARQUET}/{name.removesuffix('.jsonl')}.parquet"


class ExportOptions(BaseModel):
    """The choice of answers that become training rows; `candidates` and `openai-batch` are always complete.

    The filters come first, then the best of the remaining answers are taken. A prompt whose winner is
    filtered out gives its best remaining answer; a prompt without a remaining answer gives no row. Of `annotations`
    only `margin` and `with_questioned` change anything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_reward: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Minimum R_c, in (0, 1), of an answer to train on; rejected answers may have less.",
    )
    safe_only: bool = Field(
        default=False,
        description="Train on no answer with R_s < 0.15. Rejected answers may be unsafe: a pair teaches to avoid them.",
    )
    finished_only: bool = Field(
        default=False,
        description="Leave out answers cut off at the token limit: they teach a model to stop anywhere.",
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Maximum tokens of an answer, EOS included.")
    top_k: int = Field(
        default=1,
        ge=1,
        description="Answers per prompt in sft, prompt-completion and token-ids, best first; equal texts count.",
    )
    pairs: PairRule = Field(
        default="worst",
        description="The opponent of the best answer, among the answers below it that differ from it: the worst, "
        "the median, a random one (the same each time) or the second best.",
    )
    margin: MarginSize | None = Field(
        default=None,
        description="Add a column margin to preferences, which TRL's RewardTrainer subtracts: the paper's m(r) of the "
        "rating, small (1, 2/3, 1/3, 0) or large (3, 2, 1, 0).",
    )
    deduplicate: bool = Field(
        default=False,
        description="Drop a row whose prompt and answers equal an earlier row's. Without it, equal prompts stay apart.",
    )
    tokenizer: str | None = Field(
        default=None,
        description="Checkpoint of the policy, for the ids and the chat template; default: the run's own copy, which "
        "a run on a server does not have.",
    )
    with_questioned: bool = Field(
        default=False,
        description="In annotations: keep choices of an answer called unsafe over one called safe.",
    )
    merge: tuple[Path, ...] = Field(
        default=(),
        description="Folders of further runs that the same reward models scored; the best answer of all runs is taken.",
    )


class Written(NamedTuple):
    """A data file and its number of rows."""

    path: Path
    rows: int
