"""`winnow export`: the formats and the options of an export.

The modules of this package derive everything from the journal and the manifest: the same run gives the
same bytes. Rows stand in the order of the input, and a file appears whole or not at all. Memory does not
grow with the texts of a run. This module imports nothing heavy, because the command line reads its
options from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

Format = Literal["sft", "prompt-completion", "preferences", "candidates", "openai-batch"]
ALL_FORMATS: tuple[Format, ...] = get_args(Format)
FILES: dict[Format, str] = {
    "sft": "sft.jsonl",
    "prompt-completion": "prompt_completion.jsonl",
    "preferences": "preferences.jsonl",
    "candidates": "candidates.parquet",
    "openai-batch": "openai_batch.jsonl",
}
PairRule = Literal["worst", "median", "random", "second"]


class ExportOptions(BaseModel):
    """The choice of answers that become training rows; `candidates` and `openai-batch` are always complete.

    The filters come first, then the best of the remaining answers are taken. A prompt whose winner is
    filtered out gives its best remaining answer; a prompt without a remaining answer gives no row.
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
        default=1, ge=1, description="Answers per prompt in sft and prompt-completion, best first; equal texts count."
    )
    pairs: PairRule = Field(
        default="worst",
        description="The opponent of the best answer, among the answers below it that differ from it: the worst, "
        "the median, a random one (the same each time) or the second best.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Drop a row whose prompt and answers equal an earlier row's. Without it, equal prompts stay apart.",
    )
    merge: tuple[Path, ...] = Field(
        default=(),
        description="Folders of further runs that the same reward models scored; the best answer of all runs is taken.",
    )


class Written(NamedTuple):
    """A data file and its number of rows."""

    path: Path
    rows: int
