"""What can be exported, and what may be asked of an export."""

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
    """Which answers become training rows. `candidates` and `openai-batch` are complete whatever is set here.

    Answers that do not pass are put aside first; the best of those that are left are taken. So a prompt whose winner does not
    pass gives its best answer that does, and a prompt none of whose answers pass gives no row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_reward: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least R_c, in (0, 1), of a learned answer; rejected answers may have less.",
    )
    safe_only: bool = Field(
        default=False,
        description="No learned answer with R_s < 0.15; rejected answers may be unsafe: that is what they teach.",
    )
    finished_only: bool = Field(
        default=False, description="No answer that the token limit cut off: learning one is learning to stop anywhere."
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Most sampled tokens of an answer, EOS included.")
    top_k: int = Field(
        default=1, ge=1, description="Answers a prompt for sft and prompt-completion, best first; equal texts count."
    )
    pairs: PairRule = Field(
        default="worst",
        description="What the best answer is set against: of the answers that differ from it, the worst, the median, "
        "a random one (the same each time) or the second best.",
    )
    deduplicate: bool = Field(
        default=False,
        description="Drop a row whose prompt and answers equal an earlier row's; without it equal prompts are kept apart.",
    )
    merge: tuple[Path, ...] = Field(
        default=(),
        description="Folders of further runs, scored by the same reward models: the best answer of all of them is taken.",
    )


class Written(NamedTuple):
    """A data file and how many rows it holds."""

    path: Path
    rows: int
